#!/usr/bin/env python3
"""A model that spends its depth on one kind of text: SmolLM2-135M-Instruct, converted and tuned on Python source, beside text that it writes itself, which is to have less of it.

  examples/domain.py                       on the source of this machine's Python, without its tests
  examples/domain.py --files '*.rs' SRC    on other files of a folder
  examples/domain.py --other TEXT          what stands for everything else (default: this project's docs); may be given several times
  examples/domain.py --tokens N            tokens to tune on (default 600k), half of them its own text
  examples/domain.py --out FOLDER          where everything goes (default domain-out)

Every twentieth file is held out. What is printed, and kept in FOLDER/domain.json: loss and block fraction in the domain and elsewhere at dial 0.75, of the dense model, of
the converted one and of the tuned one. Every step that is done stays done: the same command goes on where it was. scripts/setup and scripts/build come first (README).
"""
import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import sysconfig

ROOT = pathlib.Path(__file__).resolve().parents[1]
LEFT_OUT = {"test", "tests", "site-packages", "dist-packages", "idlelib", "__pycache__"}


def texts(folder, pattern):
    for path in sorted(folder.rglob(pattern)):
        if not LEFT_OUT & set(path.relative_to(folder).parts):
            try:
                yield path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                print(f"left out, no UTF-8: {path}", file=sys.stderr)


def write_lines(path, documents):
    part = path.with_suffix(".part")
    part.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents), encoding="utf-8")
    part.rename(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=pathlib.Path, default=pathlib.Path(sysconfig.get_path("stdlib")))
    parser.add_argument("--files", default="*.py", metavar="PATTERN")
    parser.add_argument("--other", action="append", default=[], metavar="TEXT")
    parser.add_argument("--tokens", default="600k")
    parser.add_argument("--self-tokens", default="131k", help="tokens that the model writes to be tuned beside the domain (default 131k)")
    parser.add_argument("--limit", default="32k", help="tokens of each held-out text that are scored (default 32k)")
    parser.add_argument("--context", default="512", help="tokens of a window and of a row (default 512)")
    parser.add_argument("--source", help="the dense model (default: the one of scripts/get-smollm2)")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("domain-out"))
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release")
    parser.add_argument("--threads", default="0")
    args = parser.parse_args()
    program = args.build / "fathom"
    if not program.exists():
        sys.exit(f"domain: no program {program}; scripts/setup, then scripts/build build/release -- fathom fathom-train")

    def fathom(*words):
        child = subprocess.Popen([str(w) for w in (program, *words, "--threads", args.threads)], stdout=subprocess.PIPE, text=True)
        while True:
            try:
                said = child.communicate()[0]
                break
            except KeyboardInterrupt:  # the program heard it too: it saves, and ends
                pass
        if child.returncode != 0:
            sys.exit(child.returncode)
        return said

    source = args.source or subprocess.run([ROOT / "scripts/get-smollm2"], check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout.strip()
    if not pathlib.Path(source).is_absolute() and not args.source:
        source = ROOT / source
    args.out.mkdir(parents=True, exist_ok=True)
    tuned_on, held_out, elsewhere = (args.out / f"{name}.jsonl" for name in ("tuned-on", "held-out", "elsewhere"))
    if not held_out.exists():
        documents = list(texts(args.folder, args.files))
        if len(documents) < 20:
            sys.exit(f"domain: found {len(documents)} files {args.files} in {args.folder}, expected 20 or more")
        write_lines(tuned_on, [d for i, d in enumerate(documents) if i % 20])
        write_lines(held_out, documents[::20])
    if not elsewhere.exists():
        write_lines(elsewhere, [pathlib.Path(name).read_text(encoding="utf-8") for name in args.other] or texts(ROOT / "docs", "*.md"))

    converted, run = args.out / "converted", args.out / "run"
    if not converted.exists():
        fathom("convert", source, converted, "--data", tuned_on, "--data", "self", "--context", args.context)
    if not (run / "config.json").exists():
        shutil.rmtree(run, ignore_errors=True)  # stopped before it began
        fathom("tune", converted, "--teacher", source, "--data", tuned_on, "--other", "self", "--self-tokens", args.self_tokens, "--stages", "adapters", "--lm", "1", "--tokens", args.tokens, "--batch-size", "2", "--context", args.context, "--out", run)
    elif not (run / "summary.json").exists():
        fathom("tune", "--resume", run)

    found = {"tokens": json.loads((run / "summary.json").read_text())["tokens"], "rows": []}
    print("| | loss in the domain | block fraction | loss elsewhere | block fraction |\n|---|---|---|---|---|")
    for name, model, dial in [("dense", source, []), ("converted, dial 0.75", converted, ["--dial", "0.75"]), ("tuned, dial 0.75", run / "model", ["--dial", "0.75"]), ("tuned, dial 1", run / "model", ["--dial", "1"])]:
        at = [json.loads(fathom("eval", model, "--data", text, "--context", args.context, "--limit", args.limit, "--json", "--quiet", "--no-teacher", *dial))["model"] for text in (held_out, elsewhere)]
        row = {"model": name, **{where: {"loss": a["loss"], "block_fraction": a.get("block_fraction", 1.0)} for where, a in zip(("domain", "elsewhere"), at)}}
        found["rows"].append(row)
        print(f"| {name} | " + " | ".join(f"{row[w]['loss']:.3f} | {row[w]['block_fraction']:.3f}" for w in ("domain", "elsewhere")) + " |", flush=True)
    (args.out / "domain.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
