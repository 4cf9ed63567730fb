"""Our tokenizer beside the `tokenizers` package, one thread each, in turns in one window.

  python bench/text/run.py BUILD TEXT TOKENIZER.json… [--rounds 7] [--document 16384] [--train VOCAB]

TEXT is UTF-8; documents are cut from it at line ends. Prints medians in MB/s of processor time (so that a busy machine
does not count; of wall-clock time in brackets) and their ratio, and checks that both give the same number of tokens. The
package runs by encode_batch_fast, its fastest way (no offsets).
"""
import argparse
import os
import statistics
import subprocess
import time

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402


def documents(text, size):
    out, at = [], 0
    while at < len(text):
        end = text.find(b"\n", min(len(text), at + size))
        end = len(text) if end < 0 else end + 1
        out.append(text[at:end])
        at = end
    return out


def encode(args, path):
    raw = open(args.text, "rb").read()
    docs = [d.decode() for d in documents(raw, args.document)]
    theirs = Tokenizer.from_file(path)
    ours = subprocess.Popen([f"{args.build}/bench/bench_text", "encode", path, args.text, str(args.document)],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    times = {"fathom": [], "tokenizers": []}
    for _ in range(args.rounds + 1):
        ours.stdin.write("go\n")
        ours.stdin.flush()
        seconds, cpu, count = ours.stdout.readline().split()
        times["fathom"].append((float(cpu), float(seconds)))
        start, cpu = time.perf_counter(), time.process_time()
        encodings = theirs.encode_batch_fast(docs, add_special_tokens=False)
        times["tokenizers"].append((time.process_time() - cpu, time.perf_counter() - start))
        assert sum(len(e.ids) for e in encodings) == int(count), "different numbers of tokens"
        del encodings
    ours.stdin.close()
    ours.wait()
    # The first round warms both up.
    speed, wall = ({k: len(raw) / 1e6 / statistics.median(t[i] for t in v[1:]) for k, v in times.items()} for i in (0, 1))
    print(f"{os.path.basename(path):24} fathom {speed['fathom']:6.1f} ({wall['fathom']:.1f}) MB/s   "
          f"tokenizers {speed['tokenizers']:5.1f} ({wall['tokenizers']:.1f}) MB/s   ratio {speed['fathom'] / speed['tokenizers']:.1f}   "
          f"[{len(raw) / 1e6:.1f} MB, {int(count)} tokens]")


def train(args):
    docs = [d.decode() for d in documents(open(args.text, "rb").read(), 1 << 16)]
    times = {"fathom": [], "tokenizers": []}
    for _ in range(3):
        line = subprocess.run([f"{args.build}/bench/bench_text", "train", args.text, str(args.train), "1"], capture_output=True, text=True, check=True)
        times["fathom"].append(float(line.stdout.split()[1]))
        t = Tokenizer(models.BPE())
        t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        t.decoder = decoders.ByteLevel()
        start = time.process_time()
        t.train_from_iterator(docs, trainers.BpeTrainer(vocab_size=args.train, show_progress=False, min_frequency=2,
                                                        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
        times["tokenizers"].append(time.process_time() - start)
    a, b = (statistics.median(times[k]) for k in ("fathom", "tokenizers"))
    print(f"train, vocabulary {args.train}: fathom {a:.2f} s   tokenizers {b:.2f} s of processor time   ratio {b / a:.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("text")
    parser.add_argument("tokenizers", nargs="*")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--document", type=int, default=16384)
    parser.add_argument("--train", type=int)
    arguments = parser.parse_args()
    for tokenizer in arguments.tokenizers:
        encode(arguments, tokenizer)
    if arguments.train:
        train(arguments)
