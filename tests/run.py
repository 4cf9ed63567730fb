"""Runs every test program of a build folder and every Python test file, and counts their cases.

Called by ./test. Programs are BUILD/tests/test_* (GoogleTest); Python files are tests/**/test_*.py (pytest), with --aarch64
tests/aarch64/*.py, and none with --tsan. Ends with `N passed, N failed, N skipped`; exits 1 when a case failed, a program crashed or nothing ran.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET

ROOT = pathlib.Path(__file__).resolve().parent.parent
TIMEOUT_S = 1500


class Result:
    def __init__(self, name):
        self.name, self.passed, self.failed, self.skipped = name, 0, 0, 0
        self.failures, self.output, self.seconds = [], "", 0.0


def environment(build, arguments):
    env = dict(os.environ, FATHOM_BUILD=str(build.resolve()), PYTHONDONTWRITEBYTECODE="1", TOKENIZERS_PARALLELISM="false",
               HF_HUB_OFFLINE="1", PYTHONHASHSEED="0")
    env.pop("FATHOM_ISA", None)
    if arguments.tsan or arguments.aarch64:
        env.setdefault("FATHOM_TRACES", "30")  # each takes ten to fifty times as long
    if arguments.sanitize:
        # LibTorch is not instrumented: its allocations at exit are not our leaks, its vtables no ODR clash of ours.
        suppressions = ROOT / "tests" / "lsan.supp"
        env["ASAN_OPTIONS"] = "detect_odr_violation=0:detect_stack_use_after_return=0:allocator_may_return_null=1"
        env["LSAN_OPTIONS"] = f"suppressions={suppressions}:print_suppressions=0"
        env["UBSAN_OPTIONS"] = "print_stacktrace=1"
    return env


def run(command, env, timeout=TIMEOUT_S):
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                               start_new_session=True)
    try:
        output, _ = process.communicate(timeout=timeout)
        return process.returncode, output
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        output, _ = process.communicate()
        return 124, output + f"\n[stopped after {timeout} s]"


def run_program(path, case_filter, env, emulator=()):
    result, start = Result(" ".join([path.name, *emulator[2:]])), time.time()
    with tempfile.TemporaryDirectory() as scratch:
        report = pathlib.Path(scratch) / "report.json"
        command = [*emulator, str(path), f"--gtest_output=json:{report}", "--gtest_brief=1"]
        if case_filter:
            command.append(f"--gtest_filter={case_filter}")
        code, result.output = run(command, env, TIMEOUT_S * (5 if emulator else 1))
        try:
            suites = json.loads(report.read_text())["testsuites"]
        except (OSError, ValueError):
            suites = []
        for suite in suites:
            for case in suite["testsuite"]:
                if case.get("status") == "NOTRUN":
                    continue
                if case.get("result") == "SKIPPED":
                    result.skipped += 1
                elif case.get("failures"):
                    result.failed += 1
                    result.failures.append(f"{suite['name']}.{case['name']}")
                else:
                    result.passed += 1
        if code != 0 and result.failed == 0:
            result.failed += 1
            result.failures.append(f"exit code {code}")
    result.seconds = time.time() - start
    return result


def run_python(path, keyword, env):
    result, start = Result(str(path.relative_to(ROOT))), time.time()
    # Two files run side by side, and PyTorch's threads spin while they wait: one each is several times as fast as a fight.
    env = dict(env, OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    with tempfile.TemporaryDirectory() as scratch:
        report = pathlib.Path(scratch) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-ra", "-p", "no:cacheprovider", f"--junitxml={report}", str(path)]
        if keyword:
            command += ["-k", keyword]
        code, result.output = run(command, env)
        if code == 5 and keyword:  # nothing matched the keyword
            return result
        try:
            cases = ET.parse(report).getroot().iter("testcase")
        except (OSError, ET.ParseError):
            cases = []
        for case in cases:
            if case.find("skipped") is not None:
                result.skipped += 1
            elif case.find("failure") is not None or case.find("error") is not None:
                result.failed += 1
                result.failures.append(case.get("name"))
            else:
                result.passed += 1
        if code != 0 and result.failed == 0:
            result.failed += 1
            result.failures.append(f"exit code {code}")
    result.seconds = time.time() - start
    return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--sanitize", action="store_true")
    parser.add_argument("--tsan", action="store_true")
    parser.add_argument("--aarch64", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    arguments = parser.parse_args()

    env = environment(arguments.build, arguments)
    programs = sorted(p for p in (arguments.build / "tests").glob("test_*") if p.is_file() and os.access(p, os.X_OK))
    files = sorted((ROOT / "tests").glob("aarch64/*.py" if arguments.aarch64 else "**/test_*.py")) if not arguments.tsan else []
    jobs = []
    for p in programs:
        cases = "" if not arguments.only or arguments.only in p.name else f"*{arguments.only}*"
        if not arguments.aarch64:
            jobs.append((p.name, lambda p=p, c=cases: run_program(p, c, env)))
            continue
        # Choices are made anew by programs that start themselves, which an emulator cannot: tests/aarch64 looks at them.
        cases = (cases or "*") + ":-ChoiceDeathTest.*"
        for cpu in ["max", "cortex-a53"] if p.name == "test_kernels" else ["max"]:  # all that there is, and no dot products
            jobs.append((f"{p.name} {cpu}", lambda p=p, c=cases, cpu=cpu: run_program(p, c, env, ("qemu-aarch64-static", "-cpu", cpu))))
    for f in files:
        cases = "" if not arguments.only or arguments.only in str(f.relative_to(ROOT)) else arguments.only
        if arguments.sanitize and not cases and f.name == "test_kill.py":
            cases = "not thirty_kills"  # kills at random moments, not bad input: what it runs, the others run too
        jobs.append((str(f.relative_to(ROOT)), lambda f=f, c=cases: run_python(f, c, env)))
    if arguments.list:
        print("\n".join(name for name, _ in jobs))
        return 0

    total = Result("total")
    start = time.time()
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for future in concurrent.futures.as_completed([pool.submit(job) for _, job in jobs]):
            r = future.result()
            total.passed += r.passed
            total.failed += r.failed
            total.skipped += r.skipped
            if r.passed + r.failed + r.skipped == 0:
                continue
            print(f"{'FAIL' if r.failed else 'ok':4}  {r.name:44} {r.passed:5} passed {r.failed:3} failed {r.skipped:3} skipped  {r.seconds:6.1f} s", flush=True)
            if r.failed:
                print("      failed: " + ", ".join(r.failures[:20]))
                print("      " + "\n      ".join(r.output.splitlines()[-60:]), flush=True)
    print(f"in {time.time() - start:.0f} s")
    print(f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped")
    return 1 if total.failed or total.passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
