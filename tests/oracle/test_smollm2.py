"""A real model, SmolLM2-135M-Instruct in 4 bits (scripts/get-smollm2), against transformers on the same dequantised weights.

Two engines of ours stand beside it: the GGUF file as it comes, whose products round activations to 8 bits, and the same numbers
as an f32 model folder, which must be transformers' to rounding.
"""
import hashlib
import json
import os
import pathlib
import subprocess

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")
safetensors = pytest.importorskip("safetensors.numpy")

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("FATHOM_BUILD", ROOT / "build"))
TOOL = BUILD / "tests" / "tools" / "engine_tool"
FATHOM = BUILD / "fathom"
MODEL = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
WIKITEXT = pathlib.Path(os.environ.get("FATHOM_DATA", ROOT.parent / "shared" / "data")) / "corpora" / "wikitext2-valid.txt"

KEPT = pathlib.Path(__file__).resolve().with_name("wikitext_transformers.json")

pytestmark = [pytest.mark.skipif(not (TOOL.exists() and MODEL.exists()), reason="engine_tool is not built, or scripts/get-smollm2 did not run"),
              pytest.mark.skipif("ASAN_OPTIONS" in os.environ, reason="135 million weights take too long under a sanitizer; tests/infer runs small models")]

NAMES = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
         "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
TEXT = """The sea was calm that morning, and the three boats lay close to the shore. "We should leave before the wind turns," said the oldest
of the fishermen, who had seen forty winters on this coast. In 1987 the harbour had 214 boats; now there were eleven. def depth(token): return
sum(block.runs(token) for block in blocks)\nNobody answered him at once, because everybody knew what he meant and nobody wanted to say it aloud. The water
was grey, then green, then a colour for which there is no name. They rowed for an hour without a word, and when the lighthouse was a thin line behind them
the youngest began to sing, softly at first, an old song about a ship that never came home and the people who went on waiting for it, year after year.
Far out, where the charts show nothing but blue, the engine coughed twice and stopped; the silence that followed was the largest thing any of them had ever heard."""
PROMPTS = ["The capital of France is", "Once upon a time", "def fibonacci(n):", "The three primary colours are", "Water boils at", "In the year 1969",
           "My favourite book is", "The largest planet in the solar system", "To make bread you need", "Photosynthesis is the process", "import numpy as np\n",
           "Dear Sir or Madam,", "The square root of 144 is", "Shakespeare wrote", "If it rains tomorrow", "A triangle has", "The opposite of hot is",
           "She opened the door and", "1, 2, 3, 4,", "Alan Turing was"]


def run(*words, stdin=""):
    result = subprocess.run([str(w) for w in words], input=stdin, capture_output=True, text=True, timeout=7200)
    assert result.returncode == 0, result.stderr
    return result.stdout


FOLDER = {}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """transformers' model of the dequantised tensors; the same tensors as an f32 folder of ours in FOLDER."""
    reader = gguf.GGUFReader(MODEL)
    field = lambda key: reader.get_field("llama." + key).contents()
    heads = {"attn_q": field("attention.head_count"), "attn_k": field("attention.head_count_kv")}
    tensors = {}
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if tensor.name == "token_embd.weight":
            tensors["model.embed_tokens.weight"] = values
        elif tensor.name == "output_norm.weight":
            tensors["model.norm.weight"] = values
        else:
            _, block, name, _ = tensor.name.split(".")
            if name in heads:  # the halves of a head's rotary pairs lie interleaved in the file
                width = values.shape[0] // heads[name]
                values = values.reshape(heads[name], width // 2, 2, -1).swapaxes(1, 2).reshape(values.shape)
            tensors[f"model.layers.{block}.{NAMES[name]}.weight"] = np.ascontiguousarray(values)
    width = field("embedding_length")
    config = transformers.LlamaConfig(
        vocab_size=tensors["model.embed_tokens.weight"].shape[0], hidden_size=width, intermediate_size=field("feed_forward_length"), num_hidden_layers=field("block_count"),
        num_attention_heads=heads["attn_q"], num_key_value_heads=heads["attn_k"], max_position_embeddings=field("context_length"),
        rms_norm_eps=field("attention.layer_norm_rms_epsilon"), rope_theta=field("rope.freq_base"), tie_word_embeddings=True, bos_token_id=1, eos_token_id=2)
    model = transformers.LlamaForCausalLM(config).float().eval()
    missing, unexpected = model.load_state_dict({k: torch.from_numpy(v) for k, v in tensors.items()}, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}
    model.tie_weights()
    folder = tmp_path_factory.mktemp("smollm2")
    safetensors.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config.to_dict() | {"model_type": "llama"}))
    FOLDER["path"] = folder
    return model


@pytest.fixture(scope="module")
def ids(reference):
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL.parent, gguf_file=MODEL.name)
    return tokenizer(TEXT, add_special_tokens=False)["input_ids"], [tokenizer(p, add_special_tokens=False)["input_ids"] for p in PROMPTS], tokenizer


def logits(model, ids, scratch):
    (scratch / "ids.txt").write_text(" ".join(map(str, ids)))
    run(TOOL, "logits", model, scratch / "ids.txt", scratch / "logits.bin")
    return np.fromfile(scratch / "logits.bin", dtype=np.float32).reshape(len(ids), -1)


def test_logits_of_200_positions(reference, ids, tmp_path):
    text = ids[0][:200]
    assert len(text) == 200
    with torch.no_grad():
        theirs = reference(torch.tensor([text])).logits[0].numpy()
    ours = logits(FOLDER["path"], text, tmp_path)
    assert np.abs(ours - theirs).max() <= 2e-3, np.abs(ours - theirs).max()  # f32, 30 blocks: logits of size 20
    quantised = logits(MODEL, text, tmp_path)
    relative = np.sqrt(np.square(quantised - theirs).sum() / np.square(theirs).sum())
    assert relative <= 0.05, relative  # activations of 8 bits in every product
    assert (quantised.argmax(1) == theirs.argmax(1)).mean() >= 0.9


def test_greedy_texts_of_20_prompts(reference, ids):
    stdin = "\n".join(" ".join(map(str, p)) for p in ids[1]) + "\n"
    ours = [[int(i) for i in line.split()] for line in run(TOOL, "greedy", FOLDER["path"], 64, stdin=stdin).splitlines()]
    ties = []
    for prompt, text in zip(ids[1], ours):
        assert len(text) == 64
        with torch.no_grad():
            theirs = reference(torch.tensor([prompt + text])).logits[0].numpy()
        for t, chosen in enumerate(text):  # behind our own text: every position counts, whatever came before
            row = theirs[len(prompt) - 1 + t]
            best = row.argmax()
            if chosen != best:
                assert row[best] - row[chosen] <= 1e-3, (prompt, t)
                ties.append((prompt, t))
    assert len(ours) == 20 and len(ties) <= 1, ties  # of 1,280 tokens


def test_greedy_text_of_the_file_itself(ids):
    text = run(FATHOM, "generate", MODEL, "--prompt", "The capital of France is", "--temperature", 0, "--max-tokens", 8)
    assert text.startswith(" Paris."), text


@pytest.mark.parametrize("kind", ["block", "attention+mlp"])
@pytest.mark.parametrize("source", ["file", "folder"])
def test_what_convert_makes_of_it_is_its_source_to_the_bit(reference, ids, source, kind, tmp_path):
    """At dial 1: logits, and twenty greedy texts."""
    source = MODEL if source == "file" else FOLDER["path"]
    (tmp_path / "text.txt").write_text(TEXT)
    flags = ["--data", tmp_path / "text.txt", "--blocks", "inner", "--light", "fit:4", "--no-refit", "--loss-tokens", 0, "--context", 128, "--quiet"]
    if source != MODEL:  # that has no tokenizer beside it
        transformers.AutoTokenizer.from_pretrained(MODEL.parent, gguf_file=MODEL.name).save_pretrained(source)
    run(FATHOM, "convert", source, tmp_path / "out", "--granularity", kind, *flags)
    run(FATHOM, "dial", tmp_path / "out", "--set-default", 1, "--quiet")
    text = ids[0][:200]
    assert (logits(tmp_path / "out", text, tmp_path) == logits(source, text, tmp_path)).all()
    stdin = "\n".join(" ".join(map(str, p)) for p in ids[1]) + "\n"
    ours, theirs = (run(TOOL, "greedy", model, 24, stdin=stdin) for model in (tmp_path / "out", source))
    assert ours == theirs and len(ours.splitlines()) == 20 and all(len(line.split()) == 24 for line in ours.splitlines())
    run(FATHOM, "dial", tmp_path / "out", "--set-default", 0.75, "--quiet")
    assert (logits(tmp_path / "out", text, tmp_path) != logits(source, text, tmp_path)).any(), "its routers decide nothing"


@pytest.mark.skipif(not WIKITEXT.exists(), reason="no wikitext2-valid.txt")
def test_perplexity_of_wikitext(request, ids):
    """Of the text's first 20,000 characters; FATHOM_WIKITEXT=all takes all of it, a quarter of an hour beside what transformers once said of it in
    wikitext_transformers.json, which FATHOM_WIKITEXT=keep asks anew (half an hour)."""
    asked, context = os.environ.get("FATHOM_WIKITEXT", "20000"), 512
    text = WIKITEXT.read_text()
    if asked not in ("all", "keep"):
        text = text[:int(asked)]
    tokens = ids[2](text, add_special_tokens=False)["input_ids"]
    about = {"model": MODEL.name, "model_sha256": hashlib.sha256(MODEL.read_bytes()).hexdigest(), "text": WIKITEXT.name, "tokens_sha256": hashlib.sha256(np.array(tokens, np.int32)).hexdigest(),
             "context": context, "scored": sum(max(0, len(tokens[at:at + context]) - 1) for at in range(0, len(tokens), context))}
    if asked == "all":
        kept = json.loads(KEPT.read_text())
        assert {k: kept[k] for k in about} == about, "kept of another model or text; FATHOM_WIKITEXT=keep measures it anew"
        nll = kept["nll"]
    else:
        nll, reference = 0.0, request.getfixturevalue("reference")
        with torch.no_grad():
            for at in range(0, len(tokens) - 1, context):
                window = torch.tensor([tokens[at:at + context]])
                if window.shape[1] >= 2:
                    nll += torch.nn.functional.cross_entropy(reference(window).logits[0, :-1], window[0, 1:], reduction="none").double().sum().item()
    if asked == "keep":
        KEPT.write_text(json.dumps(about | {"nll": nll, "transformers": transformers.__version__, "torch": torch.__version__}, indent=1) + "\n")
    theirs = np.exp(nll / about["scored"])
    for model, bound in ((FOLDER["path"], 1e-3), (MODEL, 0.01)):
        total, n = map(float, run(TOOL, "nll", model, context, stdin=" ".join(map(str, tokens))).split())
        assert n == about["scored"]
        print(f"{model.name}: {np.exp(total / n):.4f}, transformers {theirs:.4f}, {int(n)} tokens")
        assert abs(np.exp(total / n) / theirs - 1) <= bound, (model, np.exp(total / n), theirs)
