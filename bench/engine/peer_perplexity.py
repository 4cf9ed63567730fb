#!/usr/bin/env python3
"""Perplexity beside llama.cpp's on the same file, text and windows.

  .venv/bin/python bench/engine/peer_perplexity.py LLAMA_PERPLEXITY MODEL.gguf TEXT [--context 512] [--threads 2] [--build build/release]

llama-perplexity cuts a text into windows and counts the second half of each: the tokens after the first `context / 2` + 1. Ours of the
same tokens is a window's loss less that of its beginning, which the causal rule makes the same number. Needs the tests' engine_tool.
"""
import argparse
import math
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer")
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--build", default="build/release")
    args = parser.parse_args()
    build, context, begin = ROOT / args.build, args.context, args.context // 2 + 1

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
    told = subprocess.run([args.peer, "-m", args.model, "-f", args.text, "-c", str(context), "-t", str(args.threads)], capture_output=True, text=True, check=True)
    told = told.stdout + told.stderr
    theirs, error = map(float, re.search(r"PPL = ([\d.]+) \+/- ([\d.]+)", told).groups())
    chunks = int(re.search(r"over (\d+) chunks", told)[1])
    assert chunks == windows, f"{chunks} windows there, {windows} here: do the tokenizers agree?"
    print(f"{pathlib.Path(args.model).name}: {windows} windows of {context}: ours {ours:.4f}, llama.cpp {theirs:.4f} (± {error:.2f} of the text), {100 * (ours / theirs - 1):+.2f} %")


if __name__ == "__main__":
    main()
