"""What results.jsonl says: every recipe at its best learning rate, and its paired difference from the better dense twin.

  bench/quality/table.py [--results FILE] [--budget 1.2e14]

The difference is this recipe's loss minus the twin's at the same seed, mean over seeds and 95 % interval (Student's t). A
positive one is a loss. Rates are chosen by seed 1 alone; seeds beyond it only confirm.
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
    print("| recipe | lr | loss | under top-k | bits/byte | blocks | tokens, M | minus " + (twin or "?") + " |")
    print("|---|---|---|---|---|---|---|---|")
    for recipe in sorted(best, key=lambda r: by[r, best[r]][1]["loss"]):
        seeds = by[recipe, best[recipe]]
        mean = lambda key: statistics.mean(run[key] for run in seeds.values())
        versus = ""
        if twin and recipe != twin:
            pairs = [seeds[s]["loss"] - by[twin, best[twin]][s]["loss"] for s in seeds if s in by[twin, best[twin]]]
            if pairs:
                versus = f"{statistics.mean(pairs):+.4f}"
                if len(pairs) > 1:
                    versus += f" ± {T95[len(pairs)] * statistics.stdev(pairs) / math.sqrt(len(pairs)):.4f} ({len(pairs)} pairs)"
        print(f"| {recipe} | {best[recipe]:g} | {mean('loss'):.4f} | {mean('loss_topk'):.4f} | {mean('bits_per_byte'):.4f} | {mean('block_fraction'):.2f} "
              f"| {mean('tokens') / 1e6:.1f} | {versus} |")


if __name__ == "__main__":
    main()
