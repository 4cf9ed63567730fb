"""The families of models against transformers: folders that it saves (Llama, Mistral, Qwen2, Qwen3 with their biases, norms and scaled positions) give its
logits and its greedy texts; so do GGUF files made of them by llama.cpp's rules, and those that `fathom quantize` makes."""
import json
import os
import pathlib
import random
import re
import subprocess
import tempfile

import numpy as np
import pytest

os.environ.setdefault("HF_MODULES_CACHE", tempfile.mkdtemp())  # where transformers copies a model's code

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("FATHOM_BUILD", ROOT / "build/release")).resolve()
TOOL, FATHOM = BUILD / "tests" / "tools" / "engine_tool", BUILD / "fathom"

pytestmark = pytest.mark.skipif(not (TOOL.exists() and FATHOM.exists()), reason="engine_tool or the program is not built")

# name → configuration class, what its families may choose besides, architecture of its GGUF files
FAMILIES = {
    "llama": (transformers.LlamaConfig, {}, "llama"),
    "llama-biases": (transformers.LlamaConfig, {"attention_bias": True, "mlp_bias": True}, "llama"),
    "mistral": (transformers.MistralConfig, {"sliding_window": None}, "llama"),
    "qwen2": (transformers.Qwen2Config, {}, "qwen2"),
    "qwen3": (transformers.Qwen3Config, {}, "qwen3"),
    "qwen3-biases": (transformers.Qwen3Config, {"attention_bias": True}, None),  # no architecture of llama.cpp has both
}
ROPES = [{"rope_type": "default", "rope_theta": 10000.0},
         {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0},
         {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32},
         {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64},
         {"rope_type": "yarn", "rope_theta": 1000000.0, "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 8.0, "beta_slow": 0.5, "attention_factor": 0.75}]
CASES = [(family, seed) for family in FAMILIES for seed in range(5)]
NAME = "{0[0]} {0[1]}".format  # of a case
BOUND = 2e-4  # of a logit; they are of size 3
TOKENS = 90   # beyond the original contexts


def run(*words, stdin=""):
    result = subprocess.run([str(w) for w in words], input=stdin, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    (path / "text.txt").write_text("The sea is calm tonight, the tide is full; in 1867 the moon lies fair upon the straits.\n" * 40)
    run(FATHOM, "tokenizer", "train", path / "text.txt", "--vocab-size", 300, "--out", path / "tok.json", "--quiet")
    return (path / "tok.json").read_text()


MODELS = {}


@pytest.fixture
def case(request, tmp_path_factory, tokenizer):
    """(transformers' model, its folder); one of a family and a seed for all tests."""
    if request.param not in MODELS:
        MODELS[request.param] = make(*request.param, tmp_path_factory.mktemp("-".join(map(str, request.param))) / "m", tokenizer)
    return MODELS[request.param]


def make(family, seed, folder, tokenizer):
    of_class, more, _ = FAMILIES[family]
    choose = random.Random(f"{family} {seed}")
    torch.manual_seed(choose.randrange(1 << 30))
    groups = choose.choice([1, 2, 3])
    heads = groups * choose.choice([1, 2, 3])
    width = heads * choose.choice([8, 10, 16])
    head_dim = {"head_dim": choose.choice([8, 12, 20])} if seed % 2 or "qwen3" in family else {}
    config = of_class(vocab_size=choose.choice([300, 317]), hidden_size=width, intermediate_size=choose.randrange(20, 90), num_hidden_layers=choose.choice([2, 3]),
                      num_attention_heads=heads, num_key_value_heads=groups, max_position_embeddings=256, rms_norm_eps=choose.choice([1e-5, 1e-6]),
                      tie_word_embeddings=bool(seed % 2), bos_token_id=None, eos_token_id=None, pad_token_id=None, rope_parameters=dict(ROPES[seed]), **head_dim, **more)
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            norm, bias, into_stream = "norm" in name, name.endswith("bias"), "o_proj" in name or "down_proj" in name
            p.normal_(1 if norm else 0, 0.2 if norm else 0.3 if bias else 1 if "embed" in name else (0.7 if into_stream else 1) / p.shape[-1] ** 0.5)
        if not config.tie_word_embeddings:
            model.lm_head.weight.mul_(3)
        else:
            model.model.norm.weight.mul_(3 / config.hidden_size ** 0.5)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer)
    if seed % 2:  # as releases before 5 wrote it
        path = folder / "config.json"
        written = json.loads(path.read_text())
        rope = written.pop("rope_parameters")
        written["rope_theta"] = rope.pop("rope_theta")
        written["rope_scaling"] = None if rope["rope_type"] == "default" else {("type" if k == "rope_type" else k): v for k, v in rope.items()}
        path.write_text(json.dumps(written))
    return model, folder


def ids_of(model):
    return np.random.default_rng(7).integers(0, model.config.vocab_size, TOKENS).tolist()


def theirs(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float().numpy()


def ours(model, ids, scratch):
    (scratch / "ids.txt").write_text(" ".join(map(str, ids)))
    run(TOOL, "logits", model, scratch / "ids.txt", scratch / "logits.bin")
    return np.fromfile(scratch / "logits.bin", dtype=np.float32).reshape(len(ids), -1)


def assert_near(a, b, bound=BOUND):
    assert np.abs(b).max() > 1
    assert np.abs(a - b).max() <= bound, np.abs(a - b).max()


@pytest.mark.parametrize("case", CASES, indirect=True, ids=NAME)
def test_logits_and_greedy_texts_of_a_folder(case, tmp_path):
    model, folder = case
    ids = ids_of(model)
    assert_near(ours(folder, ids, tmp_path), theirs(model, ids))
    prompts = [ids[:5], ids[10:40]]
    texts = [[int(i) for i in line.split()] for line in run(TOOL, "greedy", folder, 24, stdin="\n".join(" ".join(map(str, p)) for p in prompts) + "\n").splitlines()]
    for prompt, text in zip(prompts, texts):
        assert len(text) == 24
        logits = theirs(model, prompt + text)[len(prompt) - 1:-1]
        best = np.sort(logits, 1)
        assert (best[:, -1] - best[:, -2]).min() > 2 * BOUND, "a tie: choose another seed"
        assert logits.argmax(1).tolist() == text


NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
         "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
         "post_attention_layernorm": "ffn_norm"}
WHOLE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}


def gguf_name(name):
    if name in WHOLE:
        return WHOLE[name]
    _, _, block, rest = name.split(".", 3)
    layer, kind = rest.rsplit(".", 1)
    return f"blk.{block}.{NAMES[layer]}.{kind}"


def permuted(values, heads):
    """llama.cpp's converter, LlamaModel.permute: rows of a matrix, elements of a bias."""
    return np.ascontiguousarray(values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape))


def gguf_tensors(model, architecture):
    c = model.config
    for name, p in model.state_dict().items():
        if name == "lm_head.weight" and c.tie_word_embeddings:
            continue
        values = p.float().numpy()
        if architecture == "llama" and ("q_proj" in name or "k_proj" in name):
            values = permuted(values, c.num_attention_heads if "q_proj" in name else c.num_key_value_heads)
        yield gguf_name(name), values


def rope_factors(rope, width):
    """llama.cpp's converter, generate_extra_tensors, with the original context of the model."""
    factors = []
    for freq in 1.0 / (rope["rope_theta"] ** (np.arange(0, width, 2, dtype=np.float64) / width)):
        turns = rope["original_max_position_embeddings"] * freq / (2 * np.pi)
        smooth = np.clip((turns - rope["low_freq_factor"]) / (rope["high_freq_factor"] - rope["low_freq_factor"]), 0, 1)
        factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, dtype=np.float32)


def head_width(config):
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def write_gguf(model, path, architecture):
    c, rope = model.config, model.config.rope_parameters
    w = gguf.GGUFWriter(path, architecture)
    w.add_context_length(c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_block_count(c.num_hidden_layers)
    w.add_feed_forward_length(c.intermediate_size)
    w.add_head_count(c.num_attention_heads)
    w.add_head_count_kv(c.num_key_value_heads)
    w.add_layer_norm_rms_eps(c.rms_norm_eps)
    w.add_rope_freq_base(rope["rope_theta"])
    w.add_key_length(head_width(c))
    w.add_value_length(head_width(c))
    if architecture == "llama":
        w.add_rope_dimension_count(head_width(c))
        w.add_vocab_size(c.vocab_size)
    if rope["rope_type"] == "linear":
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        w.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        w.add_rope_scaling_factor(rope["factor"])
        w.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        if "beta_fast" in rope:
            w.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
            w.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])
            w.add_rope_scaling_attn_factors(rope["attention_factor"] / (0.1 * np.log(rope["factor"]) + 1))
    if rope["rope_type"] == "llama3":
        w.add_tensor("rope_freqs.weight", rope_factors(rope, head_width(c)))
    for name, values in gguf_tensors(model, architecture):
        w.add_tensor(name, values)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def in_gguf(family, seed):
    """llama.cpp's Qwen graphs read no rope_freqs.weight, and qwen3's no biases."""
    architecture = FAMILIES[family][2]
    return architecture is not None and not (family == "qwen3" and ROPES[seed]["rope_type"] == "llama3")


def architecture_of(family, seed):
    return "llama" if family == "qwen2" and ROPES[seed]["rope_type"] == "llama3" else FAMILIES[family][2]


@pytest.mark.parametrize("case,which", [(c, c) for c in CASES], indirect=["case"], ids=map(NAME, CASES))
def test_a_converted_one_begins_as_its_source(case, which, tmp_path):
    """With every token in full, routers and light paths change no bit: of biases, head norms, tied heads and scaled positions, in a folder and from a GGUF file."""
    model, folder = case
    ids = ids_of(model)
    exact = ours(folder, ids, tmp_path)
    (tmp_path / "text.txt").write_text("The sea is calm tonight. The tide is full, the moon lies fair. " * 30)
    sources = [folder]
    if in_gguf(*which):
        run(FATHOM, "quantize", folder, tmp_path / "q8.gguf", "--type", "q8_0", "--quiet")
        sources.append(tmp_path / "q8.gguf")
    for source in sources:
        want = exact if source is folder else ours(source, ids, tmp_path)
        for i, words in enumerate((["--granularity", "block"], ["--granularity", "attention+mlp", "--kv", "drop"], ["--granularity", "mlp", "--router", "mlp", "--gate", "one_plus_tanh"])):
            made = tmp_path / f"{source.name}-{i}"
            run(FATHOM, "convert", source, made, "--blocks", "0,1", "--data", tmp_path / "text.txt", "--tokens", "600", "--context", "32", "--light", "fit:3", "--quiet", *words)
            dial = json.loads((made / "fathom_dial.json").read_text())
            assert len(dial["points"]) > 2 and dial["points"][-1]["dial"] == 1
            assert not np.array_equal(ours(made, ids, tmp_path), want), "its own dial is another"
            (made / "fathom_dial.json").write_text(json.dumps({**dial, "default_dial": 1.0}))
            np.testing.assert_array_equal(ours(made, ids, tmp_path), want)


TRAIN = BUILD / "fathom-train"


@pytest.mark.skipif(not TRAIN.exists(), reason="fathom-train is not built")
@pytest.mark.parametrize("dtype,case,which", [(("float32", "float16", "bfloat16")[n % 3], c, c) for n, c in enumerate(CASES) if c[1] in (0, 3)], indirect=["case"])
def test_every_family_goes_the_whole_road(dtype, case, which, tmp_path):
    """From shards in half precision: converted it is its source to the bit; routers alone leave dial 1 so, adapters do not; exported, transformers computes the engine's logits."""
    model, folder = case
    if dtype != "float32":
        transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).save_pretrained(tmp_path / "source", max_shard_size="20KB")
        assert len(list((tmp_path / "source").glob("model-*.safetensors"))) > 1
        (tmp_path / "source" / "tokenizer.json").write_text((folder / "tokenizer.json").read_text())
        folder = tmp_path / "source"
    ids = ids_of(model)
    want = ours(folder, ids, tmp_path)
    (tmp_path / "text.txt").write_text("The sea is calm tonight. The tide is full, the moon lies fair. " * 60)

    def at_one(made):
        dial = json.loads((made / "fathom_dial.json").read_text())
        (made / "fathom_dial.json").write_text(json.dumps({**dial, "default_dial": 1.0}))
        logits = ours(made, ids, tmp_path)
        (made / "fathom_dial.json").write_text(json.dumps(dial))
        return logits

    run(FATHOM, "convert", folder, tmp_path / "made", "--blocks", "0,1", "--data", tmp_path / "text.txt", "--tokens", "600", "--context", "32", "--light", "fit:3", "--quiet")
    np.testing.assert_array_equal(at_one(tmp_path / "made"), want)
    few = ["--teacher", folder, "--data", tmp_path / "text.txt", "--tokens", "512", "--context", "32", "--batch-size", "4", "--lora-rank", "2", "--validation-share", "0.2", "--threads", "1", "--quiet"]
    run(TRAIN, "tune", tmp_path / "made", *few, "--stages", "routers", "--out", tmp_path / "routers")
    np.testing.assert_array_equal(at_one(tmp_path / "routers/model"), want)
    run(TRAIN, "tune", tmp_path / "made", *few, "--stages", "routers,adapters", "--lm", "1", "--adapter-lr", "0.01", "--out", tmp_path / "adapters")
    assert np.abs(at_one(tmp_path / "adapters/model") - want).max() > 1e-4
    run(FATHOM, "export", tmp_path / "adapters/model", tmp_path / "hf", "--to", "hf", "--type", "f32", "--quiet")
    hf = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", trust_remote_code=True, dtype=torch.float32).eval()
    hf.set_dial(1.0)
    assert_near(at_one(tmp_path / "hf"), theirs(hf, ids))


GGUF_CASES = [c for c in CASES if in_gguf(*c)]


@pytest.mark.parametrize("case,which", [(c, c) for c in GGUF_CASES], indirect=["case"], ids=map(NAME, GGUF_CASES))
def test_a_gguf_file_by_the_rules_of_llama_cpp_is_the_same_model(case, which, tmp_path):
    model, folder = case
    write_gguf(model, tmp_path / "m.gguf", architecture_of(*which))
    ids = ids_of(model)
    assert_near(ours(tmp_path / "m.gguf", ids, tmp_path), theirs(model, ids))


@pytest.mark.parametrize("case,which", [(c, c) for c in GGUF_CASES], indirect=["case"], ids=map(NAME, GGUF_CASES))
def test_a_gguf_file_of_ours_is_what_llama_cpp_expects(case, which, tmp_path):
    model, folder = case
    architecture = architecture_of(*which)
    rope, width = model.config.rope_parameters, head_width(model.config)
    for kind in ("f32", "f16", "q8_0"):
        run(FATHOM, "quantize", folder, tmp_path / f"{kind}.gguf", "--type", kind, "--quiet")
    reader = gguf.GGUFReader(tmp_path / "f32.gguf")
    assert reader.get_field("general.architecture").contents() == architecture
    got = {t.name: t.data for t in reader.tensors}
    if rope["rope_type"] == "llama3":
        np.testing.assert_allclose(got.pop("rope_freqs.weight"), rope_factors(rope, width), rtol=3e-6)
    want = dict(gguf_tensors(model, architecture))
    assert set(got) == set(want)
    for name, values in want.items():
        np.testing.assert_array_equal(got[name], values, err_msg=name)
    # Every key that is no tokenizer's has the value that the other writer gives it.
    write_gguf(model, tmp_path / "theirs.gguf", architecture)
    for key, field in gguf.GGUFReader(tmp_path / "theirs.gguf").fields.items():
        if not key.startswith("GGUF."):
            assert reader.get_field(key).contents() == pytest.approx(field.contents()), key
    assert not [k for k in reader.fields if ".rope.scaling." in k and rope["rope_type"] in ("default", "llama3")]
    ids = ids_of(model)
    exact = ours(folder, ids, tmp_path)
    for kind, bound in (("f32", BOUND), ("f16", 0.05), ("q8_0", 0.4)):
        assert_near(ours(tmp_path / f"{kind}.gguf", ids, tmp_path), exact, bound)
    # And back: a copy keeps what the file says, and a folder of it is transformers' model again.
    run(FATHOM, "quantize", tmp_path / "f32.gguf", tmp_path / "again.gguf", "--type", "f32", "--quiet")
    again = {t.name: t.data for t in gguf.GGUFReader(tmp_path / "again.gguf").tensors}
    assert set(again) == {t.name for t in reader.tensors}
    for t in reader.tensors:
        np.testing.assert_array_equal(again[t.name], t.data, err_msg=t.name)
    run(FATHOM, "quantize", tmp_path / "f32.gguf", tmp_path / "back", "--type", "f32", "--quiet")
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back", dtype=torch.float32)
    for name, values in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], values), name
    assert_near(theirs(back, ids), theirs(model, ids))


@pytest.mark.parametrize("case", [(family, 0) for family in ("llama", "llama-biases", "qwen2", "qwen3")], indirect=True, ids=NAME)
def test_transformers_reads_our_gguf(case, tmp_path):
    """By the reader that from_pretrained(gguf_file=…) uses, which undoes the interleaving itself."""
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint
    model, folder = case
    run(FATHOM, "quantize", folder, tmp_path / "m.gguf", "--type", "f32", "--quiet")
    read = load_gguf_checkpoint(str(tmp_path / "m.gguf"), return_tensors=True, model_to_load=model)
    assert read["config"]["model_type"] == model.config.model_type
    for name, values in model.state_dict().items():
        if name != "lm_head.weight" or not model.config.tie_word_embeddings:
            assert torch.equal(torch.from_numpy(np.array(read["tensors"][name])).reshape(values.shape), values), name


@pytest.mark.parametrize("case", [("qwen3-biases", 0), ("qwen3", 2)], indirect=True, ids=NAME)
def test_what_no_architecture_has_is_refused(case, tmp_path):
    result = subprocess.run([FATHOM, "quantize", case[1], tmp_path / "m.gguf", "--type", "f16"], capture_output=True, text=True)
    assert result.returncode == 1 and "no architecture of llama.cpp has both: write a model folder instead" in result.stderr, result.stderr
    assert not (tmp_path / "m.gguf").exists()


@pytest.mark.parametrize("case,line", [(("llama-biases", 2), "biases on q, k, v, o, gate, up, down; positions scaled: llama3, 8 times"), (("qwen2", 0), "biases on q, k, v"),
                                       (("qwen3", 1), "norms of queries and keys; positions scaled: linear, 4 times")], indirect=["case"])
def test_info_names_the_properties_and_counts_them(case, line):
    model, folder = case
    said = run(FATHOM, "info", folder)
    assert re.search(rf"^  with +{re.escape(line)}$", said, re.M), said
    count = sum(p.numel() for p in model.parameters())
    assert json.loads(run(FATHOM, "info", folder, "--json"))["parameters"]["total"] == count and f"{count:,}" in said


@pytest.mark.parametrize("family", ["mistral", "qwen2"])
def test_up_to_its_window_a_model_is_the_same(family, tmp_path, tokenizer):
    """A window of 48 positions in all blocks: equal logits for 48 tokens, no 49th."""
    model, folder = make(family, 0, tmp_path / "m", tokenizer)
    model.config.sliding_window = 48
    if family == "qwen2":
        model.config.use_sliding_window, model.config.layer_types = True, ["sliding_attention"] * model.config.num_hidden_layers
    model.save_pretrained(folder)
    windowed = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    ids = ids_of(model)[:49]
    assert np.abs(theirs(windowed, ids)[48] - theirs(make(family, 0, tmp_path / "free", tokenizer)[0], ids)[48]).max() > 1e-3, "the window is not used"
    assert_near(ours(folder, ids[:48], tmp_path), theirs(windowed, ids[:48]))
    (tmp_path / "ids.txt").write_text(" ".join(map(str, ids)))
    result = subprocess.run([TOOL, "logits", folder, tmp_path / "ids.txt", tmp_path / "logits.bin"], capture_output=True, text=True)
    assert result.returncode == 1 and "found 49 tokens, expected at most 48 (max_position_embeddings)" in result.stderr, result.stderr
