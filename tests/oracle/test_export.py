"""Exported models in transformers: the code that `fathom export --to hf` writes beside them computes the engine's logits, generates with a cache what
it computes without one, and writes the engine's texts, for every kind of unit, path, gate and rule."""
import json
import os
import pathlib
import random
import subprocess
import tempfile

import numpy as np
import pytest

os.environ.setdefault("HF_MODULES_CACHE", tempfile.mkdtemp())  # where transformers copies a model's code

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

BUILD = pathlib.Path(os.environ.get("FATHOM_BUILD", pathlib.Path(__file__).resolve().parents[2] / "build/release"))
TOOLS, FATHOM = BUILD / "tests" / "tools", BUILD / "fathom"
pytestmark = pytest.mark.skipif(not ((TOOLS / "engine_tool").exists() and FATHOM.exists()), reason="engine_tool or the program is not built")


def run(*words, code=0, stdin=""):
    result = subprocess.run([str(w) for w in words], input=stdin, capture_output=True, text=True, timeout=300)
    assert result.returncode == code, result.stderr
    return result


def drawn(folder, seed, kind):
    """A random model and its configuration; None where its control draws at random, which is refused."""
    run(TOOLS / "model_tool", "random", folder, seed, "F32", kind)
    config = json.loads((folder / "config.json").read_text())
    return None if config.get("fathom", {}).get("selection") == "random" else config


def exportable(config):
    return config is not None and not any(u["block"] == 0 and u["part"] != "mlp" and "full" not in u["paths"] for u in config["fathom"].get("units", []))


def ends_of(config):
    ends = config.get("eos_token_id")
    return ends if isinstance(ends, list) else [ends]


def exported(model, out):
    run(FATHOM, "export", model, out, "--to", "hf", "--quiet")
    return load(out)


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32).eval()


def engine_logits(model, ids, scratch):
    (scratch / "ids.txt").write_text(" ".join(map(str, ids)))
    run(TOOLS / "engine_tool", "logits", model, scratch / "ids.txt", scratch / "logits.bin")
    return np.fromfile(scratch / "logits.bin", dtype=np.float32).reshape(len(ids), -1)


CASES = [(seed, kind) for kind in ("routed", "paths") for seed in range(1, 13)]


@pytest.mark.parametrize("seed, kind", CASES)
def test_logits_cache_and_texts(seed, kind, tmp_path):
    model = next(tmp_path / f"m{s}" for s in range(seed, 1000, 20) if exportable(drawn(tmp_path / f"m{s}", s, kind)))
    config = json.loads((model / "config.json").read_text())
    theirs = exported(model, tmp_path / "hf")
    draw = random.Random(seed)
    length = min(40, config["max_position_embeddings"])
    ids = [draw.randrange(config["vocab_size"]) for _ in range(length)]
    ours = engine_logits(model, ids, tmp_path)
    with torch.no_grad():
        logits = theirs(torch.tensor([ids])).logits[0].numpy()
        # Rounding, unless a score lay on its threshold: then the tokens from there on may differ.
        scale = np.abs(ours).max()
        assert np.abs(logits - ours).max() < 2e-4 * scale, np.abs(logits - ours).max(1)
        # In pieces through the cache, and beside a text that is padded on the left.
        first = theirs(torch.tensor([ids[:7]]), use_cache=True)
        rest = theirs(torch.tensor([ids[7:]]), past_key_values=first.past_key_values, use_cache=True)
        assert np.abs(torch.cat([first.logits, rest.logits], 1)[0].numpy() - logits).max() < 2e-4 * scale
        padded = theirs(torch.tensor([[0] * 5 + ids[:-5], ids]), attention_mask=torch.tensor([[0] * 5 + [1] * (length - 5), [1] * length])).logits.numpy()
        assert np.abs(padded[0, 5:] - logits[:-5]).max() < 2e-4 * scale and np.abs(padded[1] - logits).max() < 2e-4 * scale
    prompts = [ids[:n] for n in (3, 5, 8)]
    texts = [list(map(int, line.split())) for line in run(TOOLS / "engine_tool", "greedy", model, 8, stdin="\n".join(" ".join(map(str, p)) for p in prompts) + "\n").stdout.splitlines()]
    for prompt, text in zip(prompts, texts):
        new = theirs.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0)[0, len(prompt):].tolist()
        with torch.no_grad():
            plain = list(prompt)
            for _ in range(8):
                plain.append(int(theirs(torch.tensor([plain])).logits[0, -1].argmax()))
        assert new == plain[len(prompt):], "with its cache as without"
        assert len(text) == 8 or len(prompt) + len(text) == config["max_position_embeddings"] or text[-1:] in [[e] for e in ends_of(config)], text
        assert new[:len(text)] == text


ROOT = pathlib.Path(__file__).resolve().parents[2]
SMOLLM2 = ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.skipif(not SMOLLM2.exists() or "ASAN_OPTIONS" in os.environ, reason="scripts/get-smollm2 did not run, or a sanitizer makes this long")
def test_the_artifact_of_a_real_model(tmp_path):
    """artifacts/smollm2-135m over its source, adapters merged: the engine's logits at its dials, and its greedy text."""
    run(FATHOM, "export", SMOLLM2, tmp_path / "hf", "--to", "hf", "--from", ROOT / "artifacts/smollm2-135m", "--quiet")
    theirs, folder = load(tmp_path / "hf"), tmp_path / "hf"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("The sea was calm that evening, and the old captain stood at the window of his house. He had been at sea for forty years, and he knew every ship by its sails.")["input_ids"]
    for dial in (0.65, 0.75, 0.85, 1):
        run(FATHOM, "dial", folder, "--set-default", dial, "--quiet")
        theirs.set_dial(dial)
        with torch.no_grad():
            logits = theirs(torch.tensor([ids])).logits[0].numpy()
        ours = engine_logits(folder, ids, tmp_path)
        errors = np.abs(logits - ours).max(1) / np.abs(ours).max()
        # A score that lies on its threshold moves what follows it: none does here, or one late in the text.
        assert np.median(errors) < 2e-4 and (errors < 2e-4).mean() > 0.7, (dial, errors)
    run(FATHOM, "dial", folder, "--set-default", 0.75, "--quiet")
    theirs.set_dial(0.75)
    text = run(TOOLS / "engine_tool", "greedy", folder, 24, stdin=" ".join(map(str, ids)) + "\n").stdout.split()
    new = theirs.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=0)[0, len(ids):].tolist()
    assert len(text) == 24 and [int(t) for t in text] == new


@pytest.mark.parametrize("kind", ["routed", "paths"])
def test_the_dial(kind, tmp_path):
    seed = next(s for s in range(20, 60) if (c := drawn(tmp_path / f"m{s}", s, kind)) and not any(u["block"] == 0 for u in c["fathom"].get("units", [])))
    theirs = exported(tmp_path / f"m{seed}", tmp_path / "hf")
    dial = json.loads((tmp_path / f"m{seed}" / "fathom_dial.json").read_text())
    ids = [i % theirs.config.vocab_size for i in range(20)]
    folder = tmp_path / f"m{seed}"
    points = [p["dial"] for p in dial["points"]]
    for asked in [points[0], (points[0] + points[1]) / 2, 1.0]:
        dial["default_dial"] = asked  # what the tool runs at
        (folder / "fathom_dial.json").write_text(json.dumps(dial))
        theirs.set_dial(asked)
        with torch.no_grad():
            logits = theirs(torch.tensor([ids])).logits[0].numpy()
        ours = engine_logits(folder, ids, tmp_path)
        assert np.abs(logits - ours).max() < 2e-4 * np.abs(ours).max(), asked
    with pytest.raises(ValueError, match="dial: found 0"):
        theirs.set_dial(0)


@pytest.mark.parametrize("kind", ["routed", "paths"])
def test_what_rearranges_a_cache(kind, tmp_path):
    """Beams copy, drop and reorder its texts, guesses from the prompt crop it: who is seen there goes along."""
    models = [tmp_path / f"m{s}" for s in range(100, 140) if exportable(drawn(tmp_path / f"m{s}", s, kind))]
    models = [m for m in models if (c := json.loads((m / "config.json").read_text()))["fathom"].get("kv", "drop") == "drop" and c["max_position_embeddings"] > 30][:4]
    assert models
    for model in models:
        theirs = exported(model, tmp_path / ("hf-" + model.name))
        draw = random.Random(model.name)
        prompt = torch.tensor([[draw.randrange(theirs.config.vocab_size) for _ in range(6)] * 2])
        flags = {"attention_mask": torch.ones_like(prompt), "max_new_tokens": 10, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        beams = [theirs.generate(prompt, num_beams=3, use_cache=use, **flags)[0].tolist() for use in (True, False)]
        assert beams[0] == beams[1]
        assert theirs.generate(prompt, prompt_lookup_num_tokens=3, **flags)[0].tolist() == theirs.generate(prompt, **flags)[0].tolist()


@pytest.mark.parametrize("kind", ["routed", "paths"])
@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_half_precision_as_the_folder_says(kind, dtype, tmp_path):
    model = next(tmp_path / f"m{s}" for s in range(60, 100) if exportable(drawn(tmp_path / f"m{s}", s, kind)))
    run(FATHOM, "export", model, tmp_path / "hf", "--to", "hf", "--type", dtype, "--quiet")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", trust_remote_code=True).eval()
    assert theirs.dtype == {"bf16": torch.bfloat16, "f16": torch.float16}[dtype]
    ids = [i % theirs.config.vocab_size for i in range(20)]
    with torch.no_grad():
        logits = theirs(torch.tensor([ids])).logits[0].float().numpy()
    ours = engine_logits(tmp_path / "hf", ids, tmp_path)
    # Rounded activations; rows may differ by more where that moves a score over its threshold.
    errors = np.abs(logits - ours).max(1) / np.abs(ours).max()
    assert np.isfinite(logits).all() and np.median(errors) < 0.1, errors
    assert theirs.generate(torch.tensor([ids[:5]]), max_new_tokens=4, do_sample=False, eos_token_id=None, pad_token_id=0).shape == (1, 9)


def test_dense_models_need_no_code(tmp_path):
    drawn(tmp_path / "m", 3, "dense")
    theirs = exported(tmp_path / "m", tmp_path / "hf")
    assert not (tmp_path / "hf" / "modeling_fathom.py").exists() and "auto_map" not in json.loads((tmp_path / "hf" / "config.json").read_text())
    ids = list(range(8))
    with torch.no_grad():
        logits = theirs(torch.tensor([ids])).logits[0].numpy()
    assert np.abs(logits - engine_logits(tmp_path / "m", ids, tmp_path)).max() < 1e-4
    run(FATHOM, "export", tmp_path / "m", tmp_path / "bf16", "--to", "hf", "--type", "bf16", "--quiet")
    assert json.loads((tmp_path / "bf16" / "config.json").read_text())["dtype"] == "bfloat16"


def test_an_exported_folder_is_a_model_of_ours_too(tmp_path):
    seed = next(s for s in range(1, 20) if drawn(tmp_path / f"m{s}", s, "routed"))
    folder = tmp_path / f"m{seed}"
    run(FATHOM, "export", folder, tmp_path / "hf", "--to", "hf", "--quiet")
    ids = list(range(8))
    assert (engine_logits(folder, ids, tmp_path) == engine_logits(tmp_path / "hf", ids, tmp_path)).all()
    # And one that transformers wrote.
    load(tmp_path / "hf").save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "modeling_fathom.py").exists()


def test_what_cannot_be_said_is_refused(tmp_path):
    control = next(s for s in range(1, 200) if drawn(tmp_path / f"m{s}", s, "routed") is None)
    first = next(s for s in range(1, 200) if (c := drawn(tmp_path / f"p{s}", s, "paths")) and not exportable(c))
    assert "the cache of transformers counts" in run(FATHOM, "export", tmp_path / f"p{first}", tmp_path / "out", "--to", "hf", "--quiet", code=1).stderr
    assert "the control draws by a hash" in run(FATHOM, "export", tmp_path / f"m{control}", tmp_path / "out", "--to", "hf", "--quiet", code=1).stderr
    routed = next(s for s in range(1, 20) if s != control and (tmp_path / f"m{s}").exists() and drawn_already(tmp_path / f"m{s}"))
    assert "routed" in run(FATHOM, "export", tmp_path / f"m{routed}", tmp_path / "out.gguf", "--to", "gguf", "--quiet", code=1).stderr
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.gguf").exists()


def drawn_already(folder):
    return json.loads((folder / "config.json").read_text()).get("fathom", {}).get("selection") != "random"
