"""What guessing tokens saves or costs: `fathom generate` with and without it, in turns, on twelve prompts of three kinds.

  bench/engine/speculation.py MODEL [--build build/release] [--flag=--draft-repeats] [--max-tokens 128] [--rounds 3] [--threads 2]

Prints for every kind: guesses made and right, seconds of decoding without and with, and their ratio (medians over rounds,
summed over prompts). The texts are held equal. A kind whose text repeats its prompt (an edit, a quotation) is where repetition helps.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys

PROMPTS = {
    "prose": [
        "The lighthouse keeper had not spoken to anyone for three weeks when the letter came.",
        "A short history of the bicycle begins with a bad harvest:",
        "Why does the sea look blue from above and green from within?",
        "The committee met on a wet Tuesday to decide what should become of the old mill.",
    ],
    "code": [
        "def median(values):\n    \"\"\"The middle of a list of numbers.\"\"\"\n",
        "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):\n",
        "#include <stdio.h>\n\nint main(void) {\n  for (int i = 0; i < 10; i++) {\n",
        "SELECT name, price FROM products WHERE price > 10 ORDER BY price;\nSELECT name, price FROM",
    ],
    "repetition": [
        "Copy this list with the prices doubled. apples 2, pears 3, plums 4, cherries 5, grapes 6, melons 7.\nCopy this list with the prices doubled. apples",
        "The rules: walk on the left, talk on the right, listen in the middle. Again, the rules: walk",
        "x1 = 1\nx2 = x1 + 1\nx3 = x2 + 1\nx4 = x3 + 1\nx5 =",
        "Monday: open at nine, close at five. Tuesday: open at nine, close at five. Wednesday:",
    ],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--flag", default="--draft-repeats", help="what turns guessing on, as one word: --draft-repeats or --draft-dial=0.5")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    program = pathlib.Path(args.build) / "fathom"

    def generate(prompt, flags):
        command = [program, "generate", args.model, "--prompt", prompt, "--max-tokens", str(args.max_tokens), "--temperature", "0", "--no-eos", "--json", "--threads",
                   str(args.threads), *flags]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode != 0:
            sys.exit(run.stderr)
        return json.loads(run.stdout)

    print("| prompts | guesses made | right | seconds without | with | without over with |")
    print("|---|---|---|---|---|---|")
    total = [0.0, 0.0]
    for kind, prompts in PROMPTS.items():
        made = right = 0
        seconds = [0.0, 0.0]
        for prompt in prompts:
            times = [[], []]
            for _ in range(args.rounds):
                plain, guessing = generate(prompt, []), generate(prompt, [args.flag])
                assert plain["ids"] == guessing["ids"], prompt
                times[0].append(plain["decode_seconds"])
                times[1].append(guessing["decode_seconds"])
            made += guessing["guesses"]["made"]
            right += guessing["guesses"]["right"]
            for i in range(2):
                seconds[i] += statistics.median(times[i])
        total = [total[i] + seconds[i] for i in range(2)]
        print(f"| {kind} | {made} | {100 * right / max(made, 1):.0f} % | {seconds[0]:.2f} | {seconds[1]:.2f} | {seconds[0] / seconds[1]:.2f} |")
    print(f"| all | | | {total[0]:.2f} | {total[1]:.2f} | {total[0] / total[1]:.2f} |")


if __name__ == "__main__":
    main()
