"""Breaks the code on purpose, one place at a time, and checks that a test fails: what proves that the proofs are awake.

  .venv/bin/python tests/mutations.py [NAME…] [--folder build/mutations]

Works in a copy of the tracked files with a build of its own, of what the chosen mutations' tests need (of all, the first takes as long
as a whole build; then a mutation costs its file and the link). Each must compile, fail its test as broken, and pass it again as written. Not part of ./test: it is
for whoever changes a proof. Results of the last whole run stand in docs/proofs.md.
"""
import argparse
import os
import pathlib
import runpy
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Of every room's tests/ROOM/mutations.py: name, what it proves, file, text as written, text as broken, program or Python file, filter of cases.
MUTATIONS = [m for path in sorted(ROOT.glob("tests/*/mutations.py")) for m in runpy.run_path(str(path))["MUTATIONS"]]


def sh(command, cwd, env=None, log=None):
    done = subprocess.run(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if log is not None:
        log.append(done.stdout)
    return done.returncode


def build(folder, targets, log):
    return sh(["ninja", "-C", str(folder / "build"), *targets], folder, None, log)


def test(folder, program, cases, log):
    env = dict(os.environ, FATHOM_BUILD=str(folder / "build"), OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", PYTHONDONTWRITEBYTECODE="1")
    if program.endswith(".py"):
        return sh([sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", program, "-k", cases], folder / "source", env, log)
    return sh([str(folder / "build/tests" / program), "--gtest_brief=1", f"--gtest_filter={cases}"], folder / "source", env, log)


def prepare(folder, targets):
    """The tracked files as they are now; only what changed is copied, so that the build stays warm."""
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in names:
        here, there = ROOT / name, folder / "source" / name
        if not here.is_file() or (there.is_file() and there.read_bytes() == here.read_bytes()):
            continue
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(here, there)
        os.utime(there)
    venv = folder / "source/.venv"
    if not venv.exists() and (ROOT / ".venv").exists():
        venv.symlink_to(ROOT / ".venv")
    log = []
    if sh(["source/scripts/build", "../build", "-DFATHOM_TESTS=ON", "--", *targets], folder, None, log) != 0:
        sys.exit(log[-1][-3000:])


def targets_of(program):
    return ["all"] if program.endswith(".py") else [program]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / "build/mutations")
    a = parser.parse_args()
    folder = a.folder.resolve()
    chosen = [m for m in MUTATIONS if not a.names or m[0] in a.names]
    folder.mkdir(parents=True, exist_ok=True)
    targets = sorted({target for m in chosen for target in targets_of(m[5])})
    prepare(folder, targets)
    survived = 0
    for name, proves, file, written, broken, program, cases in chosen:
        path, start, log = folder / "source" / file, time.time(), []
        text = path.read_text()
        if text.count(written) != 1:
            verdict = f"NOT APPLIED: found {text.count(written)} times in {file}"
        else:
            try:
                path.write_text(text.replace(written, broken))
                if build(folder, targets_of(program), log) != 0:
                    verdict = "NOT APPLIED: does not compile\n" + log[-1][-1500:]
                else:
                    verdict = "seen to fail" if test(folder, program, cases, log) != 0 else "SURVIVED"
            finally:
                path.write_text(text)
        survived += verdict != "seen to fail"
        print(f"{name:20} {verdict:14} {program} {cases}: {proves} ({time.time() - start:.0f} s)", flush=True)
    wrong, log = 0, []
    build(folder, targets, log)
    for program, cases in sorted({(m[5], m[6]) for m in chosen}):
        if test(folder, program, cases, log) != 0:
            wrong += 1
            print(f"{program} {cases} fails with the code as written:\n{log[-1][-2000:]}")
    print(f"{len(chosen) - survived} of {len(chosen)} mutations seen to fail" + (f"; {wrong} tests fail without one" if wrong else "; all of these tests pass without one"))
    return 1 if survived or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
