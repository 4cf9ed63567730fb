"""The benchmark of tuning: a step (forward and backward) of SmolLM2-135M's shape by our program and by PyTorch in turns, medians and ratios.

  bench/train/tune.py --build build/release [--rounds 2] [--steps 2] [--threads 2] [--cpu] [--only TEXT]

T 512, keys kept, a light path of rank 64 in 28 blocks, routers and light paths trained, with and without adapters of rank 16; random weights, half of
the tokens in full; losses of text and budget. Needs the Python of .venv (torch). Goal: 1.3 times the tokens/s of PyTorch's best row of the same type.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="torch.compile besides eager")
    parser.add_argument("--cpu", action="store_true", help="rates from processor time instead of the clock: for a busy machine, with --threads 1")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    a = parser.parse_args()
    env = dict(os.environ, OMP_NUM_THREADS=str(a.threads))
    ours = [str(a.build / "bench" / "bench_tune"), "--route", "onednn"]
    python = [sys.executable, str(HERE / "tune_pytorch.py"), "--route", "onednn"]
    sides = {"Fathom": ours, "PyTorch eager": python}
    if a.compile:
        sides["PyTorch compile"] = python + ["--mode", "compile"]
    cases = {}
    for lora in (0, 16):
        for compute in ("f32", "bf16"):
            for rows in (2, 4):
                cases[f"{compute} rows {rows}" + (f" LoRA {lora}" if lora else "")] = ["--compute", compute, "--rows", str(rows), "--lora", str(lora)]
    cases["f32 rows 2 teacher 32"] = ["--compute", "f32", "--rows", "2", "--teacher", "32"]
    cases["bf16 rows 2 teacher 32"] = ["--compute", "bf16", "--rows", "2", "--teacher", "32"]
    cases["f32 rows 2 share 0.85"] = ["--compute", "f32", "--rows", "2", "--bias", "1"]
    cases["bf16 rows 2 share 0.85"] = ["--compute", "bf16", "--rows", "2", "--bias", "1"]
    print(f"| {'case':24} | side            | tok/s | min–max | share in full | peak MB | ratio |", flush=True)
    for case, flags in cases.items():
        if a.only not in case:
            continue
        rates, found = {side: [] for side in sides}, {}
        for _ in range(a.rounds):
            for side, command in sides.items():
                run = subprocess.run(command + flags + ["--threads", str(a.threads), "--steps", str(a.steps)], env=env, check=True, capture_output=True, text=True)
                found[side] = json.loads(run.stdout.splitlines()[-1])
                tokens = 512 * int(flags[flags.index("--rows") + 1])
                rates[side] += [tokens * a.threads / s for s in found[side]["cpu_s"]] if a.cpu else found[side]["tokens_per_second"]
        own = statistics.median(rates["Fathom"])
        for side, values in rates.items():
            rate = statistics.median(values)
            ratio = "" if side == "Fathom" else f"{own / rate:.2f}"
            print(f"| {case:24} | {side:15} | {rate:5.0f} | {min(values):.0f}–{max(values):.0f} | {found[side]['share']:.2f} | {found[side]['peak_mb']:.0f} | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
