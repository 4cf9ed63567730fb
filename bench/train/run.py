"""The training benchmark: our program and PyTorch in turns in one window, medians and ratios.

  bench/train/run.py --build build/release [--rounds 3] [--steps 4] [--threads 2] [--quick]

Model C 384, L 8, H 6, G 6, F 1024, T 256, batch 16, V 4096, fused AdamW; MoD is 12.5 % every second block. Needs the Python of
.venv (torch). Goals: f32 at least 1.15 times the best f32 row of PyTorch, bf16 at least 1.7 times that row, MoD over our
own dense at least 1.66 (the FLOP ratio) and PyTorch's own ratio, the largest within one of its rows.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
# Multiply-adds of a training step per token, forward: products and causal attention (model/cost.h), times 6 for FLOPs.
C, L, F, V, T = 384, 8, 1024, 4096, 256
LINEAR, ATTENTION, HEAD = 4 * C * C + 3 * C * F, 2 * C * (T + 1) // 2, C * V


def flops_per_token(mod):
    full = L // 2 if mod else L
    share = 0.125
    blocks = full * (LINEAR + ATTENTION)
    if mod:
        k = int(share * T)
        blocks += (L - full) * (share * (LINEAR + 2 * C * (k + 1) / 2) + C)
    return 6 * (blocks + HEAD)


def own_ratio(rate):
    """The largest MoD over dense within one PyTorch row (one mode, one type, one library of products), and that row."""
    rows = [name.removesuffix(" dense") for name in rate if name.startswith("PyTorch") and name.endswith(" dense")]
    return max((rate[row + " MoD"] / rate[row + " dense"], row) for row in rows)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="only the rows that decide")
    parser.add_argument("--cpu", action="store_true", help="rates from processor time instead of the clock: for a busy machine, with --threads 1")
    a = parser.parse_args()
    env = dict(os.environ, OMP_NUM_THREADS=str(a.threads))
    common = ["--threads", str(a.threads), "--steps", str(a.steps)]
    ours = [str(a.build / "bench" / "bench_train")]
    python = [sys.executable, str(HERE / "baseline.py")]
    roofline = json.loads(subprocess.run(ours + ["--roofline", "1", "--threads", str(a.threads)], env=env, check=True, capture_output=True, text=True).stdout)
    route = "onednn" if roofline["onednn_gflops"] > roofline["mkl_gflops"] and roofline["onednn_error"] < 5e-6 else "mkl"

    rows = {}
    for mod in (0, 1):
        m = ["--mod", str(mod)]
        name = "MoD" if mod else "dense"
        for mode in ("eager", "compile"):
            for torch_route in ("onednn",) if a.quick else ("default", "onednn"):
                rows[f"PyTorch {mode} {torch_route} f32 {name}"] = python + common + m + ["--mode", mode, "--route", torch_route]
        if not a.quick:
            rows[f"PyTorch eager autocast bf16 {name}"] = python + common + m + ["--dtype", "bf16"]
        rows[f"Fathom f32 {name}"] = ours + common + m + ["--route", route]
        rows[f"Fathom bf16 {name}"] = ours + common + m + ["--compute", "bf16"]
    rates = {name: [] for name in rows}
    memory = {name: 0.0 for name in rows}
    for round_ in range(a.rounds):
        for name, command in rows.items():
            found = json.loads(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
            by_cpu = [16 * T * a.threads / s for s in found["cpu_s"]]
            rates[name].append(statistics.median(by_cpu if a.cpu else found["tokens_per_second"]))
            memory[name] = max(memory[name], found["peak_mb"])
            print(f"round {round_ + 1}  {name:36} {rates[name][-1]:7.0f} tok/s", file=sys.stderr, flush=True)

    print(roofline["text"])
    peak = {"f32": max(roofline["mkl_gflops"], roofline["onednn_gflops"]), "bf16": roofline["bf16_gflops"]}
    print(f"{'row':38} {'tok/s':>7} {'min':>7} {'max':>7} {'peak MB':>8} {'GFLOP/s':>8} {'of products':>11}")
    median = {}
    for name in rows:
        mod, kind = name.endswith("MoD"), "bf16" if "bf16" in name else "f32"
        median[name] = statistics.median(rates[name])
        gflops = median[name] * flops_per_token(mod) / 1e9
        print(f"{name:38} {median[name]:7.0f} {min(rates[name]):7.0f} {max(rates[name]):7.0f} {memory[name]:8.0f} {gflops:8.0f} {gflops / peak[kind]:10.0%}")
    for name in ("dense", "MoD"):
        row = max((r for r in rows if r.startswith("PyTorch") and " f32 " in r and r.endswith(name)), key=median.get)
        print(f"{name}: f32 {median['Fathom f32 ' + name] / median[row]:.2f}x, bf16 {median['Fathom bf16 ' + name] / median[row]:.2f}x of the best f32 row ({row})")
    ratio = flops_per_token(0) / flops_per_token(1)
    own, own_row = own_ratio(median)
    print(f"MoD over dense: Fathom f32 {median['Fathom f32 MoD'] / median['Fathom f32 dense']:.2f}, bf16 "
          f"{median['Fathom bf16 MoD'] / median['Fathom bf16 dense']:.2f}; PyTorch's own {own:.2f} ({own_row}); FLOPs {ratio:.2f}")


if __name__ == "__main__":
    main()
