"""Text to tune a converted model on, as JSON lines, from a folder of corpora: books-train.txt.zst, sotu.txt.zst, tinystories-slice.txt.

  bench/quality/conversion_text.py CORPORA OUT.jsonl [--own self.jsonl] [--chats self.jsonl] [--megabytes 4.2] [--pieces 2] [--stories 200000] [--whole-own] [--seed 11] [--no-tokenised]

--pieces pieces of 6.5 kB of every long book, a quarter of the addresses, --stories bytes of stories; as much again, other pieces of the same and half of the
model's own text, in the tokenised form of WikiText (spaces around punctuation, @-@, = headings =, <unk> for words beyond the 24,000
commonest); and the model's own text (`self.jsonl` of a run of `fathom tune --data self --chat-share 0`). Of all this --megabytes at random (with --whole-own of all but the
model's own text, which is all there), and besides every conversation of --chats (`self.jsonl` of one with --chat-share 1). Needs the program zstd.
"""
import argparse
import collections
import json
import pathlib
import random
import re
import subprocess

DOCUMENT = "<|endoftext|>"


def unpacked(path):
    return subprocess.run(["zstd", "-dc", path], check=True, capture_output=True).stdout.decode("utf-8", "ignore")


def piece(random_, book, size):
    begin = book.find("\n\n", random_.randrange(2000, len(book) - 9000))
    return book[begin:begin + size].strip()


def paragraphs(text):
    """Paragraphs in WikiText's form: words and punctuation apart."""
    text = re.sub(r"[“”]", '"', text).replace("’", "'").replace("‘", "'")
    text = re.sub(r"[*_]", "", text)
    for _ in range(2):  # a-b-c
        text = re.sub(r"(\w)-(\w)", r"\1 @-@ \2", text)
    text = re.sub(r"(\d)\.(\d)", r"\1 @.@ \2", text)
    text = re.sub(r"--+", " — ", text)
    text = re.sub(r"n't\b", " n't", text)
    text = re.sub(r"'(s|re|ve|ll|d|m)\b", r" '\1", text)
    text = re.sub(r"(?<!\d),|,(?!\d)", " , ", text)
    text = re.sub(r"(\d),(\d)", r"\1 @,@ \2", text)
    text = re.sub(r"([;:!?()\[\]\"—–])", r" \1 ", text)
    text = re.sub(r"\.(\s|$)", r" .\1", text)
    for part in re.split(r"\n\s*\n", text):
        part = re.sub(r"\s+", " ", part).strip()
        if part:
            yield f"= = {part.title()} = =" if len(part) < 60 and not part.endswith((".", "!", "?", '"', ",")) else part


def tokenised(texts, vocabulary):
    whole = [list(paragraphs(text)) for text in texts]
    count = collections.Counter(word for parts in whole for part in parts for word in part.split())
    known = {word for word, _ in count.most_common(vocabulary)}
    for parts in whole:
        if not parts:
            continue
        names = [word for word in parts[0].split() if word[:1].isupper() and word.isalpha()]
        body = [" ".join(word if word in known else "<unk>" for word in part.split()) for part in parts]
        yield f" \n = {' '.join(dict.fromkeys(names[:3])) or 'Notes'} = \n \n " + " \n ".join(body) + " \n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--own", type=pathlib.Path)
    parser.add_argument("--chats", type=pathlib.Path)
    parser.add_argument("--megabytes", type=float)
    parser.add_argument("--pieces", type=int, default=2)
    parser.add_argument("--stories", type=int, default=200_000)
    parser.add_argument("--whole-own", action="store_true")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--no-tokenised", action="store_true")
    args = parser.parse_args()
    random_ = random.Random(args.seed)
    books = [book for book in unpacked(args.corpora / "books-train.txt.zst").split(DOCUMENT) if len(book) > 30000]
    speeches = [speech.strip() for speech in unpacked(args.corpora / "sotu.txt.zst").split(DOCUMENT)]
    stories = (args.corpora / "tinystories-slice.txt").read_text()[:args.stories]
    own = [json.loads(line)["text"] for line in args.own.read_text().split("\n") if line] if args.own else []
    kinds = {
        "plain": [piece(random_, book, 6500) for book in books for _ in range(args.pieces)] + [speech[:6000] for speech in speeches[::4]] + [stories[i:i + 6000].strip() for i in range(0, len(stories), 6000)],
        "own": own,
    }
    if not args.no_tokenised:
        kinds["tokenised"] = list(tokenised([piece(random_, book, 5000) for book in books] + [speech[:5000] for speech in speeches[1::4]] + own[::2], 24_000))
    lines = [json.dumps({"text": text}) for name, texts in kinds.items() if not (name == "own" and args.whole_own) for text in texts]
    if args.megabytes:
        random_.shuffle(lines)
        room = args.megabytes * 1e6
        while lines and sum(map(len, lines)) > room:
            lines = lines[:int(len(lines) * min(0.999, room / sum(map(len, lines))))]
    if args.whole_own:
        lines += [json.dumps({"text": text}) for text in own]
        random_.shuffle(lines)
    chats = [line for line in args.chats.read_text().split("\n") if line] if args.chats else []
    args.out.write_text("".join(line + "\n" for line in lines + chats))
    kinds["chats"] = chats
    for name, texts in kinds.items():
        print(f"{name}: {len(texts)} texts, {sum(map(len, texts)) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
