#!/usr/bin/env python3
"""Perplexity beside llama.cpp's on the same file, text and windows.

  .venv/bin/python bench/engine/peer_perplexity.py LLAMA_PERPLEXITY MODEL.gguf TEXT [--context 512] [--threads 2] [--build build/release] [--keep]
  .venv/bin/python bench/engine/peer_perplexity.py kept MODEL.gguf TEXT        beside what llama.cpp said when --keep wrote it down

llama-perplexity cuts a text into windows and counts the second half of each: the tokens after the first `context / 2` + 1. Ours of the
same tokens is a window's loss less that of its beginning, which the causal rule makes the same number. Needs the tests' engine_tool. What --keep writes lies in peer_perplexity.json.
"""
import argparse
import hashlib
import json
import math
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
KEPT = pathlib.Path(__file__).resolve().with_suffix(".json")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", help="llama-perplexity, or the word kept")
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    build, context, begin = ROOT / args.build, args.context, args.context // 2 + 1

    digest = lambda path: hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
    about = {"model": pathlib.Path(args.model).name, "model_sha256": digest(args.model), "text": pathlib.Path(args.text).name, "text_sha256": digest(args.text), "context": context}
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else []
    if args.peer == "kept":
        found = [k for k in kept if about.items() <= k.items()]
        if not found:
            sys.exit(f"{KEPT.name} has nothing of {about['model']} on {about['text']} in windows of {context}; name llama-perplexity and add --keep")

    encoded = subprocess.run([build / "fathom", "tokenizer", "encode", args.model, "--file", args.text], capture_output=True, text=True, check=True).stdout
    ids = encoded.split()
    windows = len(ids) // context

    def nll(length):
        tokens = " ".join(token for w in range(windows) for token in ids[w * context:w * context + length])
        done = subprocess.run([build / "tests/tools/engine_tool", "nll", args.model, str(length)], input=tokens, capture_output=True, text=True, check=True)
        total, count = map(float, done.stdout.split())
        assert count == windows * (length - 1)
        return total

    ours = math.exp((nll(context) - nll(begin)) / (windows * (context - begin)))
    if args.peer == "kept":
        theirs, error, chunks = (found[0][k] for k in ("llama_cpp", "error", "windows"))
    else:
        told = subprocess.run([args.peer, "-m", args.model, "-f", args.text, "-c", str(context), "-t", str(args.threads)], capture_output=True, text=True, check=True)
        told = told.stdout + told.stderr
        theirs, error = map(float, re.search(r"PPL = ([\d.]+) \+/- ([\d.]+)", told).groups())
        chunks = int(re.search(r"over (\d+) chunks", told)[1])
    assert chunks == windows, f"{chunks} windows there, {windows} here: do the tokenizers agree?"
    print(f"{about['model']}: {windows} windows of {context}: ours {ours:.4f}, llama.cpp {theirs:.4f} (± {error:.2f} of the text), {100 * (ours / theirs - 1):+.2f} %")
    if args.keep and args.peer != "kept":
        kept = [k for k in kept if not about.items() <= k.items()] + [about | {"windows": windows, "llama_cpp": theirs, "error": error, "ours": round(ours, 4)}]
        KEPT.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
