"""What results.jsonl says: every recipe at its best learning rate, and its paired difference from the better dense twin.

  bench/quality/table.py [--results FILE] [--budget 1.2e14]

The difference is this recipe's loss minus the twin's at the same seed. Seed 1 chose recipes and rates, so it shows that
difference alone; the mean and its 95 % interval (Student's t) come from the seeds beyond it. A positive difference is a loss.
"""
import argparse
import collections
import json
import math
import pathlib
import statistics

HERE = pathlib.Path(__file__).resolve().parent
TWINS = ("same-shape", "same-cost")
T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}  # by number of pairs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=pathlib.Path, default=HERE / "results.jsonl")
    parser.add_argument("--budget", type=float, default=1.2e14)
    a = parser.parse_args()
    runs = [json.loads(line) for line in a.results.read_text().splitlines()]
    by = collections.defaultdict(dict)  # (recipe, lr) → seed → run
    for run in runs:
        if run["budget"] == a.budget:
            by[run["recipe"], run["lr"]][run["seed"]] = run
    best = {}
    for (recipe, lr), seeds in by.items():
        if 1 in seeds and (recipe not in best or seeds[1]["loss"] < by[recipe, best[recipe]][1]["loss"]):
            best[recipe] = lr
    twins = [t for t in TWINS if t in best]
    twin = min(twins, key=lambda t: by[t, best[t]][1]["loss"]) if twins else None

    print(f"budget {a.budget:g} FLOPs; rates tried: " + "; ".join(f"{r} {', '.join(f'{lr:g}' for rr, lr in sorted(by) if rr == r)}" for r in sorted(best)))
    print("| recipe | lr | loss, seed 1 | under top-k | bits/byte | blocks | tokens, M | minus " + (twin or "?") + " |")
    print("|---|---|---|---|---|---|---|---|")
    for recipe in sorted(best, key=lambda r: by[r, best[r]][1]["loss"]):
        seeds = by[recipe, best[recipe]]
        one = seeds[1]
        versus = ""
        if twin and recipe != twin:
            others = by[twin, best[twin]]
            versus = f"{seeds[1]['loss'] - others[1]['loss']:+.4f}"
            pairs = [seeds[s]["loss"] - others[s]["loss"] for s in seeds if s != 1 and s in others]
            if len(pairs) > 1:
                half, scale = T95[len(pairs)] * statistics.stdev(pairs) / math.sqrt(len(pairs)), statistics.mean(others[s]["loss"] for s in others if s != 1 and s in seeds)
                mean_pair = statistics.mean(pairs)
                versus += f"; {mean_pair:+.4f} ± {half:.4f} = {100 * mean_pair / scale:+.2f} ± {100 * half / scale:.2f} % ({len(pairs)} pairs)"
        print(f"| {recipe} | {best[recipe]:g} | {one['loss']:.4f} | {one['loss_topk']:.4f} | {one['bits_per_byte']:.4f} | {one['block_fraction']:.2f} "
              f"| {one['tokens'] / 1e6:.1f} | {versus} |")


if __name__ == "__main__":
    main()
