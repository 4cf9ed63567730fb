"""One recipe of conversion: convert, tune, and the loss over the dense model at the block fractions that came out.

  bench/quality/conversion.py NAME --source MODEL --data TEXT --out FOLDER --on NAME=FILE [--on NAME=FILE …]
                              [--convert "FLAGS"] [--tune "FLAGS"] [--from FOLDER] [--limit 16k] [--context 512] [--threads 0] [--dials 1,0.95,0.85,0.75,0.65,0.55] [--build build/release] [--results FILE]

TEXT is a file of `fathom data prepare`, or a dataset of it with the model's own ends; FLAGS are words of `fathom convert` and `fathom tune`. --from takes a
converted model that is there instead of converting; --dials own is for a model that decides nothing. What is there already is gone on with, and not made twice. A line of JSON per recipe is
appended to conversion.jsonl beside this file (or --results): all flags, the seconds, and for every text the block fraction, the loss over the dense
model and the loss at 0.85, 0.75 and 0.65 between the points. --also NAME=FILE measures a text that the mean leaves out. --tasks NAMES --task-data FOLDER --task-limit 200 adds what `fathom eval --tasks` says of dense and
model at --task-dials, and accuracy over the dense model's at 0.85, 0.75 and 0.65 of the blocks, between the dials item by item: questions are short and run more than their dial says.
"""
import argparse
import json
import math
import pathlib
import re
import shlex
import statistics
import subprocess
import time

FRACTIONS = (0.85, 0.75, 0.65)


def run(words):
    return subprocess.run([str(w) for w in words], check=True, stdout=subprocess.PIPE, text=True).stdout


def between(points, x):
    points = sorted(points)
    for (a, loss_a), (b, loss_b) in zip(points, points[1:]):
        if a <= x <= b:
            return loss_a + (loss_b - loss_a) * (x - a) / max(b - a, 1e-9)
    return None


def over_dense(dense, dials, x):
    """Accuracy over the dense model's where a share x of the blocks ran, task by task and in their mean, each with half of its 95 % interval over items; None where no dial came so low or high."""
    out = {}
    for t, of_dense in enumerate(dense):
        tasks = sorted((tasks[t] for tasks in dials), key=lambda task: task["block_fraction"])
        for low, high in zip(tasks, tasks[1:]):
            if low["block_fraction"] <= x <= high["block_fraction"]:
                share = (x - low["block_fraction"]) / max(high["block_fraction"] - low["block_fraction"], 1e-9)
                change = [share * b["right"] + (1 - share) * a["right"] - d["right"] for a, b, d in zip(low["results"], high["results"], of_dense["results"])]
                out[of_dense["task"]] = [statistics.mean(change), 1.96 * statistics.stdev(change) / len(change) ** 0.5]
                break
        else:
            return None
    out["mean"] = [statistics.mean(v for v, _ in out.values()), math.hypot(*(half for _, half in out.values())) / len(out)]
    return {name: [round(v, 4) for v in value] for name, value in out.items()}


def parser_of(description, limit):
    """What a recipe and a search over recipes are both told."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--on", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--also", action="append", default=[], metavar="NAME=FILE", help="a text that is measured and not in the mean")
    parser.add_argument("--limit", default=limit)
    parser.add_argument("--context", default="512")
    parser.add_argument("--tasks", default="", help="also these, as in lambada,piqa, with --task-data FOLDER: accuracy of dense and model at 0.85, 0.75 and 0.65")
    parser.add_argument("--task-dials", default="1,0.85,0.75,0.65,0.55", help="dials that the model answers at (default 1,0.85,0.75,0.65,0.55)")
    parser.add_argument("--task-data", default="data/eval")
    parser.add_argument("--task-limit", default="200")
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build/release"))
    parser.add_argument("--results", type=pathlib.Path, default=pathlib.Path(__file__).with_name("conversion.jsonl"))
    return parser


def main():
    parser = parser_of(__doc__, "16k")
    parser.add_argument("name")
    parser.add_argument("--convert", default="")
    parser.add_argument("--tune", default="")
    parser.add_argument("--from", dest="converted")
    parser.add_argument("--threads", default="0", help="of conversion and evaluation; tuning has its own in --tune")
    parser.add_argument("--dials", default="1,0.95,0.85,0.75,0.65,0.55")
    args = parser.parse_args()
    fathom = args.build / "fathom"
    args.out.mkdir(parents=True, exist_ok=True)
    seconds = {}

    def timed(what, words):
        begin = time.time()
        run(words)
        seconds[what] = round(time.time() - begin)

    converted = pathlib.Path(args.converted) if args.converted else args.out / f"{args.name}-converted"
    if not converted.exists():
        timed("convert", [fathom, "convert", args.source, converted, "--data", args.data, "--threads", args.threads, *shlex.split(args.convert)])
    model, tokens = converted, 0
    if args.tune:
        folder = args.out / args.name
        if not (folder / "config.json").exists():
            timed("tune", [fathom, "tune", converted, "--teacher", args.source, "--data", args.data, "--out", folder, *shlex.split(args.tune)])
        elif not (folder / "summary.json").exists():
            timed("tune", [fathom, "tune", "--resume", folder])
        model, tokens = folder / "model", json.loads((folder / "summary.json").read_text())["tokens"]

    def loss(of, text, dial=None):
        flags = [] if dial is None else ["--dial", dial]
        return json.loads(run([fathom, "eval", of, "--data", text, "--context", args.context, "--limit", args.limit, "--json", "--quiet", "--no-teacher", "--threads", args.threads, *flags]))["model"]

    bare = lambda flags: re.sub(r"/\S*/", "", flags or "")  # names of files, not where they lie here
    found = {"name": args.name, "convert": bare(args.convert), "from": bare(args.converted), "tune": bare(args.tune), "tokens": tokens, "seconds": seconds, "limit": args.limit, "texts": {}}
    for pair in args.on + args.also:
        name, _, text = pair.partition("=")
        dense = loss(args.source, text)["loss"]
        points = []
        for dial in args.dials.split(","):
            at = loss(model, text, None if dial == "own" else dial)
            points.append((round(at["block_fraction"], 4), round(at["loss"] - dense, 4)))
        found["texts"][name] = {"dense": round(dense, 4), "points": points, **{str(x): between(points, x) for x in FRACTIONS}}
    for x in FRACTIONS:
        values = [found["texts"][pair.partition("=")[0]][str(x)] for pair in args.on]
        if values and None not in values:
            found[f"mean at {x}"] = round(sum(values) / len(values), 4)

    def answers(of, dial=None):
        flags = [] if dial is None else ["--dial", dial]
        kept = args.out / f"{args.name}-tasks-{'dense' if of == args.source else dial or 'own'}.jsonl"  # a stopped measurement goes on from it
        return json.loads(run([fathom, "eval", of, "--tasks", args.tasks, "--task-data", args.task_data, "--limit", args.task_limit, "--json", "--items", "--quiet", "--threads", args.threads, "--resume", kept, *flags]))["models"][0]["tasks"]

    def summary(tasks):
        return {t["task"]: {"block_fraction": round(t["block_fraction"], 4), "accuracy": round(t["accuracy"]["value"], 4), **({"perplexity": round(t["perplexity"]["value"], 3)} if "perplexity" in t else {})} for t in tasks}

    if args.tasks:
        dense = answers(args.source)
        at = {str(dial): answers(model, dial) for dial in (args.task_dials.split(",") if args.dials != "own" else [None])}
        found["tasks"] = {"items": int(args.task_limit), "dense": summary(dense), **{dial: summary(tasks) for dial, tasks in at.items()}}
        found["tasks over dense"] = {str(x): over_dense(dense, list(at.values()), x) for x in FRACTIONS}
    with args.results.open("a") as out:
        out.write(json.dumps(found) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
