#!/usr/bin/env python3
"""`fathom eval --tasks` beside lm-evaluation-harness with transformers: the same items, weights and cores, item by item.

  PYTHON bench/quality/lm_eval_tasks.py MODEL --data FOLDER [--limit 200] [--threads 2] [--batch 8] [--build build/release] [--keep FILE]

PYTHON has lm_eval==0.4.13 besides scripts/requirements-test.txt (an environment of its own: it pulls in datasets, pandas and scikit-learn).
MODEL is a dense model folder in f32 that transformers reads (`fathom quantize MODEL.gguf FOLDER --type f32`). FOLDER has lambada_openai.jsonl, arc_easy.jsonl,
piqa.jsonl and hellaswag_val_full.txt (or its .bz2, which is unpacked beside the rest for the time of the run); what is missing is left out.

The harness's own task files say how an item becomes a prompt; only where the items come from is replaced. HellaSwag's file is preprocessed already, so the
harness does not do it again. --keep stores what the harness said; bench/quality/lm_eval_tasks.json is that of SmolLM2-135M-Instruct Q4_1, which a test holds `fathom eval` to.
"""
import argparse
import bz2
import json
import math
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = {"lambada": "lambada_openai.jsonl", "arc_easy": "arc_easy.jsonl", "piqa": "piqa.jsonl", "hellaswag": "hellaswag_val_full.txt"}
# The harness's file of each task, in its package.
HARNESS = {"lambada": "lambada/lambada_openai.yaml", "arc_easy": "arc/arc_easy.yaml", "piqa": "piqa/piqa.yaml", "hellaswag": "hellaswag/hellaswag.yaml"}


def unpacked(data, to):
    """FOLDER's task files in `to`; the names of the tasks that are there."""
    found = []
    for task, name in FILES.items():
        if (data / name).exists():
            (to / name).symlink_to((data / name).resolve())
        elif (data / (name + ".bz2")).exists():
            (to / name).write_bytes(bz2.decompress((data / (name + ".bz2")).read_bytes()))
        else:
            continue
        found.append(task)
    return found


def documents(task, path):
    """The items of a file with the fields that the harness's task reads."""
    text = path.read_text(encoding="utf-8")
    if task == "hellaswag":
        lines = text.split("\n")
        return [{"query": lines[i], "label": lines[i + 1], "choices": lines[i + 2:i + 6]} for i in range(0, len(lines) - 5, 6)]
    items = [json.loads(line) for line in text.split("\n") if line]
    if task == "lambada":
        return [{"text": i["context"] + " " + i["continuation"]} for i in items]
    for i in items:
        i["question"] = i["query"].removeprefix("Question: ").removesuffix("\n")
    if task == "arc_easy":
        return [{"question": i["question"], "choices": {"text": i["choices"], "label": list("ABCDE")[:len(i["choices"])]}, "answerKey": "ABCDE"[i["gold"]]} for i in items]
    return [{"goal": i["question"], "sol1": i["choices"][0], "sol2": i["choices"][1], "label": i["gold"]} for i in items]


def harness(model, tokenizer, data, tasks, limit, batch, scratch):
    """Per task: its metrics, log-likelihoods and verdicts of the harness, seconds and seconds of processor time. `model` and `tokenizer` are transformers'."""
    os.environ.update(HF_DATASETS_OFFLINE="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    import lm_eval
    import yaml
    from lm_eval.models.huggingface import HFLM
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch, device="cpu")
    found = {}
    for task in tasks:
        class Loader(yaml.SafeLoader):
            pass
        Loader.add_constructor("!function", lambda loader, node: None)
        config = yaml.load((pathlib.Path(lm_eval.__file__).parent / "tasks" / HARNESS[task]).read_text(), Loader)
        config.pop("process_docs", None), config.pop("tag", None), config.pop("dataset_name", None)
        file = scratch / f"{task}-documents.jsonl"
        file.write_text("".join(json.dumps(d) + "\n" for d in documents(task, data / FILES[task])[:limit]))
        config.update(dataset_path="json", dataset_kwargs={"data_files": {"test": str(file)}, "cache_dir": str(scratch / "cache")}, training_split=None, validation_split=None, test_split="test")
        begin, used = time.time(), time.process_time()
        done = lm_eval.simple_evaluate(model=lm, tasks=[config], limit=limit, bootstrap_iters=100, log_samples=True)
        samples = sorted(done["samples"][config["task"]], key=lambda s: s["doc_id"])
        found[task] = {"seconds": time.time() - begin, "cpu": time.process_time() - used, "metrics": done["results"][config["task"]],
                       "log_likelihoods": [[r[0][0] for r in s["resps"]] for s in samples], "right": [s["acc"] == 1 for s in samples],
                       "right_by_length": [s["acc_norm"] == 1 for s in samples if "acc_norm" in s]}
    return found


def ours(program, model, data, tasks, limit, threads):
    words = [program, "eval", model, "--tasks", ",".join(tasks), "--task-data", data, "--limit", limit or 0, "--threads", threads, "--json", "--items", "--quiet"]
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return {t["task"]: t for t in json.loads(done.stdout)["models"][0]["tasks"]}


def with_transformers(folder):
    """The model of a folder in f32, and its tokenizer with the tokens that config.json names."""
    import torch
    import transformers
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(pathlib.Path(folder) / "tokenizer.json"))
    config = json.loads((pathlib.Path(folder) / "config.json").read_text())
    for role in ("bos_token", "eos_token"):
        if config.get(role + "_id") is not None:
            setattr(tokenizer, role, tokenizer.convert_ids_to_tokens(config[role + "_id"]))
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), tokenizer


def differences(a, b):
    """Items that one of the two has right, with the gap in log-likelihood (a character) that decided; the greatest difference of any log-likelihood."""
    flips = []
    for what in ("right", "right_by_length"):
        for i, (x, y) in enumerate(zip((r[what] for r in a["results"]) if what in a["results"][0] else [], b[what])):
            if x != y:
                flips.append((i, what, a["results"][i]["log_likelihood"], b["log_likelihoods"][i]))
    worst = max(abs(x - y) for r, theirs in zip(a["results"], b["log_likelihoods"]) for x, y in zip(r["log_likelihood"], theirs))
    return flips, worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release")
    parser.add_argument("--keep", type=pathlib.Path)
    args = parser.parse_args()
    import torch
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        scratch = pathlib.Path(folder)
        tasks = unpacked(args.data, scratch)
        here = ours(args.build / "fathom", args.model, scratch, tasks, args.limit, args.threads)
        there = harness(*with_transformers(args.model), scratch, tasks, args.limit, args.batch, scratch)
    if args.keep:
        kept = {task: {"metrics": {k: v for k, v in t["metrics"].items() if isinstance(v, float)}, "log_likelihoods": [[round(x, 5) for x in item] for item in t["log_likelihoods"]],
                       "right": t["right"], "right_by_length": t["right_by_length"]} for task, t in there.items()}
        args.keep.write_text(json.dumps({"model": pathlib.Path(args.model).name, "harness": "lm_eval 0.4.13", "tasks": kept}, separators=(",", ":")) + "\n")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"Processor seconds, all tasks: ours {used.ru_utime + used.ru_stime:.1f} with loading, theirs {sum(t['cpu'] for t in there.values()):.1f}")
    print(f"\n{'':10} {'items':>6} {'accuracy':>19} {'by length':>19} {'perplexity':>19} {'items/s':>15}  greatest difference of a log-likelihood")
    for task in tasks:
        a, b = here[task], there[task]
        flips, worst = differences(a, b)
        n = len(a["results"])
        pair = lambda x, y, digits=2, scale=100: f"{scale * x:9.{digits}f} {scale * y:9.{digits}f}"
        length = pair(a["accuracy_by_length"]["value"], b["metrics"]["acc_norm,none"]) if "accuracy_by_length" in a else ""
        perplexity = pair(a["perplexity"]["value"], b["metrics"]["perplexity,none"], 4, 1) if "perplexity" in a else ""
        print(f"{task:10} {n:6} {pair(a['accuracy']['value'], b['metrics']['acc,none'])} {length:>19} {perplexity:>19} {n / a['seconds']:7.2f} {n / b['seconds']:7.2f}  {worst:.2g}"
              f"{'' if math.isclose(a['accuracy']['standard_error'], b['metrics']['acc_stderr,none'], rel_tol=0.05) else '  standard errors differ'}")
        for i, what, x, y in flips:
            print(f"  item {i + 1}, {what}: ours {' '.join(f'{v:.5f}' for v in x)}, theirs {' '.join(f'{v:.5f}' for v in y)}")


if __name__ == "__main__":
    main()
