"""A GGUF file of a shape with random weights, which every engine reads: what `fathom bench --shape` holds in memory, for a peer.

  bench/engine/make_gguf.py SHAPE TYPE OUT      SHAPE: llama-110m, llama-1b, smollm2-135m or C,L,H,G,F,V
                                                TYPE: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1

Matrices of one row length are stretches of one bank of 512 drawn rows, as in src/study/bench_model.cpp: drawing and
quantising 1.1 billion numbers would take minutes. The vocabulary is a stand-in. Needs `gguf` and `numpy` (in .venv).
"""
import argparse

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

# C, L, H, G, F, V, tied
NAMED = {
    "llama-110m": (768, 12, 12, 12, 2048, 32000, True),
    "llama-1b": (2048, 22, 32, 4, 5632, 32000, False),
    "smollm2-135m": (576, 30, 9, 3, 1536, 49152, True),
}
DRAWN_ROWS, SPARE_ROWS = 512, 509


def packed(values, kind):
    if kind == Type.F32:
        return values.view(np.uint8)
    if kind == Type.F16:
        return values.astype(np.float16).view(np.uint8)
    return gguf.quants.quantize(values, kind)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape")
    parser.add_argument("type")
    parser.add_argument("out")
    args = parser.parse_args()
    if args.shape in NAMED:
        C, L, H, G, F, V, tied = NAMED[args.shape]
    else:
        C, L, H, G, F, V = map(int, args.shape.split(","))
        tied = True
    kind = Type[args.type.upper()]
    D = C // H
    rng = np.random.default_rng(1)
    banks = {}

    def rows(count, columns):
        if columns not in banks:
            drawn = packed((rng.standard_normal((DRAWN_ROWS, columns)) / np.sqrt(columns)).astype(np.float32), kind)
            banks[columns] = drawn[rng.integers(0, DRAWN_ROWS, max(V, F, H * D) + SPARE_ROWS)]
        first = int(rng.integers(0, SPARE_ROWS))
        return banks[columns][first:first + count]

    writer = gguf.GGUFWriter(args.out, "llama")
    writer.add_name(f"{args.shape} {args.type}, random weights")
    writer.add_vocab_size(V)
    writer.add_context_length(8192)
    writer.add_embedding_length(C)
    writer.add_block_count(L)
    writer.add_feed_forward_length(F)
    writer.add_head_count(H)
    writer.add_head_count_kv(G)
    writer.add_rope_dimension_count(D)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    # SentencePiece's form, which needs no merges: the special pieces, the bytes, and words that no text has.
    pieces = [b"<unk>", b"<s>", b"</s>"] + [f"<0x{b:02X}>".encode() for b in range(256)]
    kinds = [2, 3, 3] + [6] * 256
    while len(pieces) < V:
        pieces.append(f"\u2581w{len(pieces)}".encode())
        kinds.append(1)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces)
    writer.add_token_scores([-float(i) for i in range(V)])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)

    def matrix(name, count, columns):
        writer.add_tensor(name, np.ascontiguousarray(rows(count, columns)), raw_dtype=kind)

    def norm(name):
        writer.add_tensor(name, np.ones(C, dtype=np.float32))

    matrix("token_embd.weight", V, C)
    for block in range(L):
        at = f"blk.{block}."
        norm(at + "attn_norm.weight")
        matrix(at + "attn_q.weight", H * D, C)
        matrix(at + "attn_k.weight", G * D, C)
        matrix(at + "attn_v.weight", G * D, C)
        matrix(at + "attn_output.weight", C, H * D)
        norm(at + "ffn_norm.weight")
        matrix(at + "ffn_gate.weight", F, C)
        matrix(at + "ffn_up.weight", F, C)
        matrix(at + "ffn_down.weight", C, F)
    norm("output_norm.weight")
    if not tied:
        matrix("output.weight", V, C)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
