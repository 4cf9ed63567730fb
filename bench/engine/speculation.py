"""What guessing tokens saves or costs: `fathom generate` with and without it, in turns, on the fifty prompts of prompts.jsonl (chat, prose, code).

  bench/engine/speculation.py MODEL [--with="--draft-repeats"] [--dial 1] [--build build/release] [--max-tokens 128] [--rounds 3] [--threads 2] [--only KIND] [--no-eos] [--json FILE]
  bench/engine/speculation.py --print bench/engine/speculation.json

Prints for every kind how many tokens were guessed and how many of them right, tokens/s of decoding without and with, their ratio (medians over rounds, summed over
prompts), and the ratios between which nine prompts of ten lie. The texts are greedy and held equal. With `--draft-always` among the words of --with, as many
tokens are guessed each time whether it pays or not: acceptance by draft.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys

PROMPTS = [json.loads(line) for line in (pathlib.Path(__file__).parent / "prompts.jsonl").read_text().splitlines()]
CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"  # SmolLM2's


def print_table(runs):
    print("| | guesses | tokens/s without | with | ratio | of nine in ten prompts |")
    print("|---|---|---|---|---|---|")
    for run in runs:
        for kind in [*dict.fromkeys(line["kind"] for line in run["lines"]), "all"]:
            some = [line for line in run["lines"] if kind in ("all", line["kind"])]
            total = {key: sum(line[key] for line in some) for key in ("tokens", "made", "right", "without", "with")}
            ratios = sorted(line["without"] / line["with"] for line in some if line["with"] > 0)  # a text may end at once
            least, most = ratios[len(ratios) // 20], ratios[-1 - len(ratios) // 20]
            print(f"| {run['model']}, {run['threads']} thread{'s' * (run['threads'] > 1)}, {kind} | {100 * total['made'] / total['tokens']:.0f} per 100 tokens, {100 * total['right'] / max(total['made'], 1):.0f} % right "
                  f"| {total['tokens'] / total['without']:.0f} | {total['tokens'] / total['with']:.0f} | {total['without'] / total['with']:.2f} | {least:.2f} to {most:.2f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--with", dest="words", default="--draft-repeats", help="what turns guessing on, as one word of words")
    parser.add_argument("--dial", help="of both")
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=sorted({p["kind"] for p in PROMPTS}))
    parser.add_argument("--no-eos", action="store_true", help="write on to the last token")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--print", type=pathlib.Path, dest="print_file", help="the table of results that are there already")
    args = parser.parse_args()
    if args.print_file:
        return print_table(json.loads(args.print_file.read_text()))
    if not args.model:
        parser.error("no MODEL")
    program = pathlib.Path(args.build) / "fathom"

    def generate(prompt, words):
        text = CHAT.format(prompt["prompt"]) if prompt["kind"] == "chat" else prompt["prompt"]
        command = [program, "generate", args.model, "--prompt", text, "--max-tokens", str(args.max_tokens), "--temperature", "0", "--repetition-penalty", "1", "--json", "--threads", str(args.threads), *words]
        command += ["--parse-special"] * (prompt["kind"] == "chat") + ["--no-eos"] * args.no_eos + (["--dial", args.dial] if args.dial else [])
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode != 0:
            sys.exit(run.stderr)
        return json.loads(run.stdout)

    lines = []
    for number, prompt in enumerate(p for p in PROMPTS if args.only in (None, p["kind"])):
        times = [[], []]
        for turn in range(args.rounds):
            order = [0, 1] if turn % 2 == 0 else [1, 0]
            runs = {i: generate(prompt, args.words.split() if i else ["--no-draft-repeats"]) for i in order}
            assert runs[0]["ids"] == runs[1]["ids"], prompt
            for i in range(2):
                times[i].append(runs[i]["decode_seconds"])
        lines.append({"kind": prompt["kind"], "tokens": len(runs[0]["ids"]), "made": runs[1]["guesses"]["made"], "right": runs[1]["guesses"]["right"],
                      "without": statistics.median(times[0]), "with": statistics.median(times[1])})
        print(f"{number + 1} {prompt['kind']}: {lines[-1]['without']:.2f} s, {lines[-1]['with']:.2f} s", file=sys.stderr, flush=True)

    run = {"model": pathlib.Path(args.model).name, "with": args.words, "dial": args.dial, "threads": args.threads, "max_tokens": args.max_tokens, "rounds": args.rounds, "lines": lines}
    print_table([run])
    if args.json:
        args.json.write_text(json.dumps([run], indent=1) + "\n")


if __name__ == "__main__":
    main()
