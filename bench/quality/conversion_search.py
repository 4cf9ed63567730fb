"""Many recipes of conversion on the same text and the same rows, some at once, each on one thread: the first rounds of successive halving.

  bench/quality/conversion_search.py --source MODEL --data TEXT --out FOLDER --on NAME=FILE [--on NAME=FILE …] [--tokens 100k] [--jobs 2] [--only NAME,…] [--limit 8k] [--context 512] [--build build/release] [--results FILE]
                                     [--tasks lambada --task-data FOLDER --task-limit 200]

Recipes that convert alike share the converted model, those that follow each other what the teacher said. What is done stays done, what was stopped goes on; bench/quality/conversion.py runs
one recipe and writes its line of conversion.jsonl.
"""
import concurrent.futures
import json
import pathlib
import queue
import subprocess
import sys
import threading

import conversion

# Words of `fathom convert`, words of `fathom tune`, against the first.
RECIPES = {
    "base": ("", ""),
    "light-16": ("--light fit:16", ""),
    "light-128": ("--light fit:128", ""),
    "fit-131k": ("--tokens 131k", ""),
    "split": ("--granularity attention+mlp", ""),
    "mlp-only": ("--granularity mlp", ""),
    "kv-drop": ("--kv drop", ""),
    "on-static": ("--static 14-17", ""),
    "router-mlp": ("--router mlp", ""),
    "gate": ("--router mlp --gate one_plus_tanh", ""),
    "one-target": ("", "--target 0.75"),
    "wide-range": ("", "--target 0.55-0.95"),
    "to-dial-1": ("", "--target 0.65-1"),
    "rank-8": ("", "--lora-rank 8 --lora-alpha 16"),
    "rank-32": ("", "--lora-rank 32 --lora-alpha 64"),
    "adapter-lr-3e-4": ("", "--adapter-lr 3e-4"),
    "adapter-lr-2e-3": ("", "--adapter-lr 2e-3"),
    "light-lr-1e-3": ("", "--lr 1e-3"),
    "router-lr-1e-3": ("", "--router-lr 1e-3"),
    "topk": ("", "--picks topk"),
    "batch-1": ("", "--batch-size 1"),
    "batch-4": ("", "--batch-size 4"),
    "two-stages": ("", "--stages routers,adapters"),
    "no-noise": ("", "--noise 0"),
    "teacher-alone": ("", "--lm 0"),
    "everything": ("", "--stages everything --lr 3e-5"),
}
ROOT = pathlib.Path(__file__).resolve().parents[2]


def over(usual, words):
    """Words of a command: pairs of flag and value, those of the recipe in place of the usual ones."""
    words = usual.split() + words.split()
    return [word for pair in dict(zip(words[::2], words[1::2])).items() for word in pair]


def main():
    parser = conversion.parser_of(__doc__, "8k")
    parser.add_argument("--tokens", default="100k")
    parser.add_argument("--fit-tokens", default="33k")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only")
    args = parser.parse_args()
    names = args.only.split(",") if args.only else list(RECIPES)
    if unknown := [n for n in names if n not in RECIPES]:
        sys.exit(f"conversion_search: no recipe {', '.join(unknown)}; there are {', '.join(RECIPES)}")
    args.out.mkdir(parents=True, exist_ok=True)
    called = lambda name: f"{name}@{args.tokens}"
    done = {json.loads(line)["name"] for line in args.results.read_text().splitlines()} if args.results.exists() else set()
    names = [n for n in names if called(n) not in done]

    converted = {RECIPES[name][0]: args.out / ("converted" + RECIPES[name][0].replace(" ", "").replace(":", "-")) for name in names}
    first = {flags: threading.Lock() for flags in converted}  # makes it, the others that need it wait

    def convert(flags):
        with first[flags]:
            if not converted[flags].exists():
                subprocess.run([args.build / "fathom", "convert", args.source, converted[flags], "--data", args.data, "--threads", "1", "--quiet", *over(f"--tokens {args.fit_tokens} --context {args.context}", flags)],
                               check=True, stdout=subprocess.DEVNULL)

    caches = queue.SimpleQueue()  # one process at a time reads or fills one
    for job in range(args.jobs):
        caches.put(args.out / f"teacher-{job}")

    def run(name):
        words, tune = RECIPES[name]
        convert(words)
        cache = caches.get()
        try:
            subprocess.run([sys.executable, ROOT / "bench/quality/conversion.py", called(name), "--source", args.source, "--data", args.data, "--out", args.out, "--from", converted[words], "--convert", words,
                            "--tune", " ".join(over(f"--stages adapters --tokens {args.tokens} --batch-size 2 --threads 1 --precision bf16 --teacher-cache {cache} --context {args.context} --checkpoint-seconds 120", tune)),
                            "--limit", args.limit, "--context", args.context, "--dials", "1,0.9,0.8,0.7,0.6", "--threads", "1", "--build", args.build, "--results", args.results,
                            *(["--tasks", args.tasks, "--task-data", args.task_data, "--task-limit", args.task_limit] if args.tasks else []), *(w for on in args.on for w in ("--on", on)), *(w for on in args.also for w in ("--also", on))],
                           check=True, stdout=subprocess.DEVNULL)
        finally:
            caches.put(cache)
        return name

    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for number, name in enumerate(pool.map(run, names), 1):
            print(f"{number} of {len(names)}: {name}", flush=True)


if __name__ == "__main__":
    main()
