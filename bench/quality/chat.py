#!/usr/bin/env python3
"""Conversations at every dial: are there answers, how long are they, and what does the dense model think of them?

  bench/quality/chat.py MODEL --source DENSE [--dials 1,0.9,0.8,0.75,0.7,0.65] [--prompts bench/engine/prompts.jsonl] [--max-tokens 64] [--context 512]

Each prompt of kind chat is asked alone, greedily, of `fathom chat`. Per dial: answers of fewer than two words, words of an answer (median), the share of its groups of three words that it has not said
before, and the dense model's loss on those conversations, nats per token (its own answers first: what it would say itself costs it least). One line of JSON each with --json.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--source", required=True)
    parser.add_argument("--dials", default="1,0.9,0.8,0.75,0.7,0.65")
    parser.add_argument("--prompts", type=pathlib.Path, default=ROOT / "bench/engine/prompts.jsonl")
    parser.add_argument("--max-tokens", default="64")
    parser.add_argument("--context", default="512")
    parser.add_argument("--threads", default="1")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    prompts = [p["prompt"] for p in map(json.loads, args.prompts.read_text().splitlines()) if p["kind"] == "chat"]

    def fathom(*words, stdin=None):
        return subprocess.run([str(args.build / "fathom"), *map(str, words), "--threads", args.threads], input=stdin, capture_output=True, text=True, errors="replace", check=True).stdout

    def answers(model, *dial):
        asked = "\n/clear\n".join(p.replace("\n", "\\\n") for p in prompts) + "\n"
        found = fathom("chat", model, "--temperature", "0", "--max-tokens", args.max_tokens, *dial, stdin=asked).split("a new conversation\n")
        assert len(found) == len(prompts), f"{len(found)} answers to {len(prompts)} prompts"
        return [a.strip() for a in found]

    def figures(said):
        words = [a.split() for a in said]
        threes = [list(zip(w, w[1:], w[2:])) for w in words]
        fresh = sum(len(set(t)) for t in threes) / max(1, sum(map(len, threes)))
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
            for prompt, answer in zip(prompts, said):
                file.write(json.dumps({"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]}) + "\n")
            file.flush()
            loss = json.loads(fathom("eval", args.source, "--data", file.name, "--context", args.context, "--json", "--quiet"))["model"]["loss"]
        return {"answers": len(said), "empty": sum(len(w) < 2 for w in words), "words": statistics.median(map(len, words)), "fresh": round(fresh, 3), "dense_loss": round(loss, 3)}

    for name, model, dial in [("dense", args.source, ())] + [(d, args.model, ("--dial", d)) for d in args.dials.split(",")]:
        line = {"dial": name, **figures(answers(model, *dial))}
        print(json.dumps(line) if args.json else f"{name:>6}: {line['empty']} of {line['answers']} empty, {line['words']:.0f} words, {100 * line['fresh']:.0f} % of threes fresh, {line['dense_loss']:.3f} nats by the dense model",
              flush=True)


if __name__ == "__main__":
    main()
