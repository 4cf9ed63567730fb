"""stories260K, a small trained model in llama2.c's own form, through a GGUF file: its greedy text is the one that llama2.c publishes."""
import os
import pathlib
import struct
import subprocess

import pytest

gguf = pytest.importorskip("gguf")
np = pytest.importorskip("numpy")

ROOT = pathlib.Path(__file__).resolve().parents[2]
FATHOM = pathlib.Path(os.environ.get("FATHOM_BUILD", ROOT / "build")) / "fathom"
STORIES = pathlib.Path(os.environ.get("FATHOM_DATA", ROOT.parent / "shared" / "data")) / "models" / "stories260K"

pytestmark = pytest.mark.skipif(not STORIES.is_dir(), reason="no ../shared/data")

# What llama2.c's own test expects of 200 steps at temperature 0.
PUBLISHED = """Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. She wanted to play with it, but it was too high.
Lily's mom said, "Lily, let's go to the park." Lily was sad and didn't know what to do. She said, "I want to play with your ball, but I can't find it."
Lily was sad and didn't know what to do. She said, "I'm sorry, Lily. I didn't know what to do."
Lily didn't want to help her mom, so she"""


def convert(to):
    """Its tensors follow each other in this order; a head's rotary pairs are neighbours, as in a GGUF file of this architecture."""
    data = (STORIES / "stories260K.bin").read_bytes()
    C, F, L, H, G, V, T = struct.unpack("<7i", data[:28])
    assert V > 0, "an output head of its own follows"
    D, at = C // H, 28
    writer = gguf.GGUFWriter(to, "llama")
    for name, rows, columns in [("token_embd", V, C), ("attn_norm", None, C), ("attn_q", C, C), ("attn_k", G * D, C), ("attn_v", G * D, C), ("attn_output", C, C), ("ffn_norm", None, C),
                                ("ffn_gate", F, C), ("ffn_down", C, F), ("ffn_up", F, C), ("output_norm", None, C)]:
        ends = name in ("token_embd", "output_norm")
        for block in range(1 if ends else L):
            shape = (columns,) if rows is None else (rows, columns)
            count = int(np.prod(shape))
            values = np.frombuffer(data, "<f4", count, at).reshape(shape)
            at += 4 * count
            writer.add_tensor(f"{name}.weight" if ends else f"blk.{block}.{name}.weight", values)
    assert len(data) - at == 2 * T * D // 2 * 4  # the angles' cosines and sines, which nobody needs
    writer.add_context_length(T)
    writer.add_embedding_length(C)
    writer.add_block_count(L)
    writer.add_feed_forward_length(F)
    writer.add_head_count(H)
    writer.add_head_count_kv(G)
    writer.add_rope_dimension_count(D)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)

    words = (STORIES / "tok512.bin").read_bytes()
    pieces, scores, types, at = [], [], [], 4
    for number in range(V):
        score, size = struct.unpack("<fi", words[at:at + 8])
        piece = words[at + 8:at + 8 + size]
        at += 8 + size
        byte = piece.startswith(b"<0x")
        pieces.append([b"<unk>", b"<s>", b"</s>"][number] if number < 3 else piece if byte else piece.replace(b" ", "▁".encode()))
        scores.append(score)
        types.append(gguf.TokenType.UNKNOWN if number == 0 else gguf.TokenType.CONTROL if number < 3 else gguf.TokenType.BYTE if byte else gguf.TokenType.NORMAL)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("stories") / "stories260K.gguf"
    convert(path)
    return path


@pytest.mark.parametrize("kv_type", ["f32", "f16"])
def test_the_greedy_text_is_the_published_one(model, kv_type):
    done = subprocess.run([FATHOM, "generate", model, "--prompt", "", "--temperature", "0", "--max-tokens", "200", "--kv-type", kv_type], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == PUBLISHED
