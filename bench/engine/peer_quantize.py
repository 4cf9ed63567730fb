#!/usr/bin/env python3
"""The error of our K types beside that of llama.cpp's llama-quantize, on the same file.

  .venv/bin/python bench/engine/peer_quantize.py LLAMA_QUANTIZE MODEL.gguf [--types q4_k,q6_k] [--build build/release] [--keep bench/engine/peer_quantize.json]
  bench/engine/peer_quantize.py --print bench/engine/peer_quantize.json

MODEL is a GGUF file in F32 or F16. Both programs write it in the type (llama-quantize with --pure, without an importance matrix); of every tensor that has the
type in both files the squared error is taken by the gguf package's dequantisation, relative to the squares of the values.
"""
import argparse
import json
import pathlib
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PEER_NAMES = {"q4_k": "Q4_K_S", "q6_k": "Q6_K"}


def tensors(path):
    import gguf
    return {t.name: t for t in gguf.GGUFReader(path).tensors}


def values(tensor):
    import gguf
    return gguf.dequantize(tensor.data, tensor.tensor_type).astype("f8").ravel()


def compare(args, kind):
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = pathlib.Path(folder) / "ours.gguf", pathlib.Path(folder) / "theirs.gguf"
        subprocess.run([ROOT / args.build / "fathom", "quantize", args.model, ours, "--type", kind, "--quiet"], check=True, capture_output=True)
        subprocess.run([args.peer, "--pure", args.model, theirs, PEER_NAMES[kind]], check=True, capture_output=True)
        source, a, b = tensors(args.model), tensors(ours), tensors(theirs)
        both = [name for name in source if name in a and name in b and a[name].tensor_type.name.lower() == b[name].tensor_type.name.lower() == kind]
        assert both, f"no tensor has the type {kind} in both files"
        error, squares = [0.0, 0.0], 0.0
        for name in both:
            true = values(source[name])
            squares += float(true @ true)
            for i, of in enumerate((a, b)):
                miss = values(of[name]) - true
                error[i] += float(miss @ miss)
    return {"model": pathlib.Path(args.model).name, "type": kind, "tensors": len(both), "ours": error[0] / squares, "llama_quantize": error[1] / squares}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", nargs="?")
    parser.add_argument("model", nargs="?")
    parser.add_argument("--types", default="q4_k,q6_k")
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--keep", type=pathlib.Path)
    parser.add_argument("--print", dest="show", type=pathlib.Path)
    args = parser.parse_args()
    rows = json.loads(args.show.read_text()) if args.show else [compare(args, kind) for kind in args.types.split(",")]
    if args.keep:
        before = json.loads(args.keep.read_text()) if args.keep.exists() else []
        kept = [row for row in before if (row["model"], row["type"]) not in {(r["model"], r["type"]) for r in rows}] + rows
        args.keep.write_text(json.dumps(kept, indent=1) + "\n")
    print("| model | type | matrices | squared error over squares: ours | llama-quantize | ours over it |\n|---|---|---|---|---|---|")
    for r in rows:
        print(f"| {r['model']} | {r['type']} | {r['tensors']} | {r['ours']:.3e} | {r['llama_quantize']:.3e} | {r['ours'] / r['llama_quantize']:.3f} |")


if __name__ == "__main__":
    main()
