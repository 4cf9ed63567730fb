"""What results.jsonl says: every recipe at its best learning rate, and its paired difference from the better dense twin.

  bench/quality/table.py [--results FILE] [--budget 1.2e14]

Recipes of one width on one dataset share a table; the twin is the dense recipe among them with the lowest loss. The difference
is a recipe's loss minus the twin's at the same seed. A dataset's lowest seed chose recipes and rates, so it shows that difference
alone; the mean and its 95 % interval (Student's t) come from the seeds beyond it, with each side at its best rate and with both at
one rate. A negative difference is a gain.
The dataset "older" is a part of the same books whose cut was not kept.
"""
import argparse
import collections
import json
import math
import pathlib
import statistics

from search import HERE, read_json

T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}  # by number of pairs


def paired(seeds, twins, chose):
    """Mean difference without the seed that chose the rates, half its interval, the twins' mean, the pairs; None below two."""
    both = [s for s in sorted(seeds) if s != chose and s in twins]
    if len(both) < 2:
        return None
    differences = [seeds[s]["loss"] - twins[s]["loss"] for s in both]
    half = T95[len(both)] * statistics.stdev(differences) / math.sqrt(len(both))
    return statistics.mean(differences), half, statistics.mean(twins[s]["loss"] for s in both), len(both)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=pathlib.Path, default=HERE / "results.jsonl")
    parser.add_argument("--budget", type=float, default=1.2e14)
    a = parser.parse_args()
    recipes, base = read_json(HERE / "recipes.json"), read_json(HERE / "base.json")
    datasets = collections.defaultdict(lambda: collections.defaultdict(lambda: collections.defaultdict(dict)))  # data → recipe → lr → seed → run
    for line in a.results.read_text().splitlines():
        run = json.loads(line)
        if run["budget"] == a.budget:
            datasets[run["data"]][run["recipe"]][run["lr"]][run["seed"]] = run
    for data, by in datasets.items():
        tables(data, by, recipes, base, a.budget)


def tables(data, by, recipes, base, budget):
    """Prints a table for each width of one dataset. by: recipe → lr → seed → run."""
    shown = min(seed for rates in by.values() for seeds in rates.values() for seed in seeds)
    best = {}  # recipe → (lr, seed → run)
    for recipe, rates in by.items():
        tried = {lr: seeds for lr, seeds in rates.items() if shown in seeds}
        if tried:
            best[recipe] = min(tried.items(), key=lambda item: item[1][shown]["loss"])
    widths = collections.defaultdict(list)
    for recipe in best:
        widths[recipes[recipe].get("model.hidden_size", base["model"]["hidden_size"])].append(recipe)

    for width, names in sorted(widths.items(), reverse=True):
        loss = {r: best[r][1][shown]["loss"] for r in names}
        names.sort(key=loss.get)
        twin = next((r for r in names if "model.fathom" not in recipes[r]), None)
        print(f"\nC {width}, {budget:g} FLOPs, dataset {data}. Rates tried, with seed {shown}'s loss: "
              + "; ".join(f"{r} " + ", ".join(f"{lr:g} → {seeds[shown]['loss']:.4f}" for lr, seeds in sorted(by[r].items()) if shown in seeds) for r in sorted(names)) + ".\n")
        print(f"| recipe | lr | loss, seed {shown} | under top-k | bits/byte | blocks | tokens, M | minus {twin} |")
        print("|---|---|---|---|---|---|---|---|")
        for recipe in names:
            lr, seeds = best[recipe]
            one = seeds[shown]
            versus = f"{loss[recipe] - loss[twin]:+.4f}" if twin and recipe != twin else ""
            print(f"| {recipe} | {lr:g} | {one['loss']:.4f} | {one['loss_topk']:.4f} | {one['bits_per_byte']:.4f} | {one['block_fraction']:.2f} "
                  f"| {one['tokens'] / 1e6:.1f} | {versus} |")
        for recipe in names:
            for other in names:
                if "model.fathom" not in recipes[recipe] or "model.fathom" in recipes[other]:
                    continue
                at_best = (best[recipe][0], best[other][0])
                for lr, twin_lr in [at_best] + [(lr, lr) for lr in sorted(by[recipe].keys() & by[other].keys()) if (lr, lr) != at_best]:
                    if mean := paired(by[recipe][lr], by[other][twin_lr], shown):
                        print(f"\nPairs of seeds beyond {shown}, {recipe}@{lr:g} minus {other}@{twin_lr:g}{', each at its best rate' if (lr, twin_lr) == at_best else ''}: "
                              f"{mean[0]:+.4f} ± {mean[1]:.4f} = {100 * mean[0] / mean[2]:+.2f} ± {100 * mean[1] / mean[2]:.2f} % ({mean[3]} pairs)")


if __name__ == "__main__":
    main()
