"""`fathom quantize` against the `gguf` package and transformers: files that it writes are read back there, blocks are the package's, and
transformers computes from a .gguf of ours what it computes from the folder that it was made of."""
import json
import os
import pathlib
import subprocess

import numpy as np
import pytest

gguf = pytest.importorskip("gguf")
safetensors = pytest.importorskip("safetensors.numpy")
from gguf import GGMLQuantizationType as Type  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("FATHOM_BUILD", ROOT / "build/release")).resolve()
FATHOM, TOOL = BUILD / "fathom", BUILD / "tests" / "tools" / "make_sample_model"
TEXT = "The sea is calm tonight, the tide is full; in 1867 the moon lies fair upon the straits. It's über-café 12345.\n" * 40

pytestmark = pytest.mark.skipif(not (FATHOM.exists() and TOOL.exists()), reason="the program or make_sample_model is not built")

OF_BLOCK = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate",
            "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
WHOLE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}


def fathom(*words):
    run = subprocess.run([str(FATHOM), *map(str, words)], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """tok.json; blocky: C 64, F 96 (dense, rows of whole blocks of 32); mod: routed."""
    path = tmp_path_factory.mktemp("quantize")
    (path / "text.txt").write_text(TEXT)
    fathom("tokenizer", "train", path / "text.txt", "--vocab-size", 330, "--out", path / "tok.json", "--quiet")
    for kind in ("blocky", "mod"):
        subprocess.run([TOOL, path / kind, path / "tok.json", kind, "7"], check=True)
    return path


def tensors_of(folder):
    return safetensors.load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())


def gguf_name(name):
    if name in WHOLE:
        return WHOLE[name]
    _, _, block, rest = name.split(".", 3)
    return f"blk.{block}.{OF_BLOCK[rest.removesuffix('.weight')]}.weight"


def permuted(values, heads):
    """llama.cpp's convert_hf_to_gguf.py, LlamaModel.permute."""
    return values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def expected(name, values, config):
    if name.endswith("q_proj.weight"):
        return permuted(values, config["num_attention_heads"])
    if name.endswith("k_proj.weight"):
        return permuted(values, config["num_key_value_heads"])
    return values


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"])
def test_a_gguf_file_holds_the_packages_blocks(home, kind):
    fathom("quantize", home / "blocky", home / f"{kind}.gguf", "--type", kind, "--quiet")
    tensors, config = tensors_of(home / "blocky")
    reader = gguf.GGUFReader(home / f"{kind}.gguf")
    got = {t.name: t for t in reader.tensors}
    assert set(got) == {gguf_name(name) for name in tensors}
    for name, values in tensors.items():
        t = got[gguf_name(name)]
        asked = "F32" if values.ndim == 1 else "Q8_0" if name == "lm_head.weight" and kind.startswith("q4") else kind.upper()
        assert t.tensor_type == Type[asked], name
        assert [int(n) for n in reversed(t.shape)] == list(values.shape), name
        want = gguf.quants.quantize(np.ascontiguousarray(expected(name, values, config)), Type[asked])
        assert t.data.tobytes() == want.tobytes(), name
        assert t.data_offset % 32 == 0
    field = lambda key: reader.get_field(key).contents()
    assert field("general.architecture") == "llama"
    assert field("general.file_type") == gguf.LlamaFileType["ALL_F32" if kind == "f32" else f"MOSTLY_{kind.upper()}"]
    assert field("general.quantization_version") == gguf.GGML_QUANT_VERSION
    for key, value in {"llama.embedding_length": config["hidden_size"], "llama.block_count": config["num_hidden_layers"], "llama.attention.head_count": config["num_attention_heads"],
                       "llama.attention.head_count_kv": config["num_key_value_heads"], "llama.context_length": config["max_position_embeddings"], "llama.vocab_size": config["vocab_size"],
                       "llama.feed_forward_length": config["intermediate_size"], "llama.rope.dimension_count": config["head_dim"], "llama.rope.freq_base": config["rope_theta"]}.items():
        assert field(key) == value, key
    assert len(field("tokenizer.ggml.tokens")) == len(field("tokenizer.ggml.token_type")) == config["vocab_size"]


@pytest.mark.parametrize("kind", ["f32", "q4_1"])
def test_an_exported_file_holds_the_models_own_tensors(home, kind):
    """fathom export --to gguf changes no type: a file of these weights is what quantize makes of them, and a file of a file is its tensors again."""
    fathom("quantize", home / "blocky", home / f"made-{kind}.gguf", "--type", kind, "--quiet")
    fathom("export", home / "blocky" if kind == "f32" else home / f"made-{kind}.gguf", home / f"exported-{kind}.gguf", "--to", "gguf", "--quiet")
    made, exported = (gguf.GGUFReader(home / f"{name}-{kind}.gguf") for name in ("made", "exported"))
    assert {t.name: (t.tensor_type, t.data.tobytes()) for t in exported.tensors} == {t.name: (t.tensor_type, t.data.tobytes()) for t in made.tensors}
    for key in ("general.architecture", "llama.block_count", "llama.attention.head_count_kv", "tokenizer.ggml.tokens"):
        assert exported.get_field(key).contents() == made.get_field(key).contents(), key


@pytest.mark.parametrize("kind", ["q8_0", "q4_0", "q4_1"])
def test_a_folder_holds_the_packages_blocks_and_plain_routers(home, kind):
    fathom("quantize", home / "mod", home / f"folder-{kind}", "--type", kind, "--no-calibrate", "--quiet")
    tensors, _ = tensors_of(home / "mod")
    got = {t.name: t for t in gguf.GGUFReader(home / f"folder-{kind}" / "model.gguf").tensors}
    assert set(got) == set(tensors)
    routers = 0
    for name, values in tensors.items():
        plain = "norm" in name or "router" in name
        routers += "router" in name
        # C is 48 there: no whole blocks of 32.
        asked = "F32" if plain else "F16" if values.shape[1] % 32 else "Q8_0" if name == "lm_head.weight" else kind.upper()
        assert got[name].tensor_type == Type[asked], name
        assert got[name].data.tobytes() == gguf.quants.quantize(np.ascontiguousarray(values), Type[asked]).tobytes(), name
    assert routers == 2


def test_transformers_reads_our_gguf(home):
    """By the reader that from_pretrained(gguf_file=…) uses, which undoes the interleaving of q and k itself."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint
    fathom("quantize", home / "blocky", home / "plain.gguf", "--type", "f32", "--quiet")
    fathom("quantize", home / "blocky", home / "half", "--type", "f16", "--quiet")
    model = transformers.LlamaForCausalLM.from_pretrained(home / "blocky", dtype=torch.float32)
    read = load_gguf_checkpoint(str(home / "plain.gguf"), return_tensors=True, model_to_load=model)
    for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size", "max_position_embeddings"):
        assert read["config"].get(key, getattr(model.config, key)) == getattr(model.config, key), key
    state = model.state_dict()
    assert set(read["tensors"]) == set(state)
    for name, values in state.items():
        assert torch.equal(torch.from_numpy(np.array(read["tensors"][name])).reshape(values.shape), values), name
    ids = torch.arange(40).reshape(1, 40) * 7 % 300
    with torch.no_grad():
        half = transformers.LlamaForCausalLM.from_pretrained(home / "half", dtype=torch.float32)(ids).logits
        want = model(ids).logits
    assert torch.allclose(half, want, atol=0.05) and not torch.equal(half, want)
    theirs = transformers.AutoTokenizer.from_pretrained(home, gguf_file="plain.gguf")
    ours = transformers.PreTrainedTokenizerFast(tokenizer_file=str(home / "tok.json"))
    for text in ("The sea is calm", "tonight, 1867"):
        assert theirs.encode(text, add_special_tokens=False) == ours.encode(text, add_special_tokens=False)


def test_a_gguf_source_keeps_its_metadata(home):
    fathom("quantize", home / "blocky", home / "first.gguf", "--type", "f16", "--quiet")
    fathom("quantize", home / "first.gguf", home / "second.gguf", "--type", "q4_0", "--quiet")
    first, second = gguf.GGUFReader(home / "first.gguf"), gguf.GGUFReader(home / "second.gguf")
    assert set(first.fields) == set(second.fields)
    for key in first.fields:
        if key not in ("general.file_type", "GGUF.tensor_count", "GGUF.kv_count", "GGUF.version"):
            assert first.get_field(key).contents() == second.get_field(key).contents(), key
    for one, other in zip(first.tensors, second.tensors):
        assert one.name == other.name
        values = gguf.quants.dequantize(one.data, one.tensor_type).astype(np.float32)
        assert other.data.tobytes() == gguf.quants.quantize(values, other.tensor_type).tobytes(), one.name
