"""The search over training recipes: each recipe, learning rate and seed is one run at equal training FLOPs.

  bench/quality/search.py --build build/release --text FILE --out runs/quality RUN [RUN …] [--flops 1.2e14] [--jobs 2]

RUN is RECIPE[@LR[@SEED]], for example keep@8e-3@2; recipes stand in recipes.json, everything else in base.json. FILE is text as
`fathom data prepare` takes it: a vocabulary of 2,048 is trained on it and the dataset made from it in OUT/data, both once. A
result names that dataset by its shards' hashes; only runs of one dataset are compared. Each job has one thread. Finished runs are appended to results.jsonl (beside this file, or --results)
and are not repeated; a run that was cut off goes on from its last checkpoint. The same seed gives the same initial values,
windows of text and order to all recipes, so that runs compare in pairs.
"""
import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
MOD = {"routed_blocks": "every_second", "capacity": 0.25, "gate": "one_plus_tanh", "rule": "score", "selection": "topk", "kv": "drop"}


def read_json(path):
    return json.loads(re.sub(r"^\s*//.*$", "", path.read_text(), flags=re.M))


def parse(text, recipes, base):
    name, _, rest = text.partition("@")
    lr, _, seed = rest.partition("@")
    if name not in recipes:
        sys.exit(f"{text}: no recipe {name}; there are {', '.join(recipes)}")
    return {"recipe": name, "lr": float(lr or base["optimizer"]["lr"]), "seed": int(seed or 1)}


def overrides(fields):
    out = []
    for key, value in fields.items():
        if key == "model.fathom":
            value = MOD | value
            if value["gate"] != "one_plus_tanh":
                value.pop("gate_scale", None)
        out += ["--set", f"{key}={json.dumps(value)}"]
    return out


def prepare(a):
    """The dataset of --text in OUT/data, made if it is not there, and its name: eight digits of its shards' hashes."""
    folder, tokenizer, program = a.out / "data", a.out / "tokenizer.json", str(a.build / "fathom")
    if not folder.exists():
        a.out.mkdir(parents=True, exist_ok=True)
        subprocess.run([program, "tokenizer", "train", str(a.text), "--vocab-size", "2048", "--out", str(tokenizer), "--overwrite"], check=True)
        subprocess.run([program, "data", "prepare", str(a.text), "--tokenizer", str(tokenizer), "--out", str(folder)], check=True)
    splits = json.loads((folder / "manifest.json").read_text())["splits"]
    hashes = [shard["hash"] for split in sorted(splits) for shard in splits[split]["shards"]]
    return folder, hashlib.sha256(" ".join(hashes).encode()).hexdigest()[:8]


def train(run, recipes, a):
    name = f"{run['recipe']}-lr{run['lr']:g}-seed{run['seed']}-flops{a.flops:g}"
    folder = a.out / name
    env = dict(os.environ, OMP_NUM_THREADS="1")
    program = str(a.build / "fathom-train")
    if (folder / "config.json").exists():
        command = [program, "train", "--resume", str(folder), "--quiet"]
    else:
        command = [program, "train", str(HERE / "base.json"), "--out", str(folder), "--quiet", "--flops", f"{a.flops:g}", "--data.dataset", str(a.dataset.resolve()),
                   "--optimizer.lr", f"{run['lr']:g}", "--seed", str(run["seed"])] + overrides(recipes[run["recipe"]])
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode != 0:
        return name, None, done.stderr.strip()[-600:]
    summary = json.loads((folder / "summary.json").read_text())
    figures = summary["figures"]
    keys = ("loss", "loss_topk", "bits_per_byte", "block_fraction", "total_fraction", "parameters", "share", "agreement")
    line = run | {"flops": summary["train_flops"], "steps": summary["steps"], "tokens": summary["tokens"], "seconds": round(summary["train_seconds"], 1),
                  "precision": summary["precision"]} | {k: figures[k] for k in keys if k in figures}
    return name, line, ""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--text", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--flops", type=float, default=1.2e14)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--results", type=pathlib.Path, default=HERE / "results.jsonl")
    a = parser.parse_args()
    recipes, base = read_json(HERE / "recipes.json"), read_json(HERE / "base.json")
    runs = [parse(text, recipes, base) for text in a.runs]
    a.dataset, data = prepare(a)

    done = [json.loads(line) for line in a.results.read_text().splitlines()] if a.results.exists() else []
    known = {(d["recipe"], d["lr"], d["seed"], d["budget"], d["data"]) for d in done}
    runs = [r for r in runs if (r["recipe"], r["lr"], r["seed"], a.flops, data) not in known]
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(a.jobs) as pool:
        for future in concurrent.futures.as_completed([pool.submit(train, run, recipes, a) for run in runs]):
            name, line, error = future.result()
            if line is None:
                failed += 1
                print(f"{name}: {error}", flush=True)
                continue
            with open(a.results, "a") as out:
                out.write(json.dumps(line | {"budget": a.flops, "data": data}) + "\n")
            print(f"{name}: loss {line['loss']:.4f}, top-k {line['loss_topk']:.4f}, {line['steps']} steps, {line['seconds']:.0f} s", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
