"""From a configuration to text, through the programs alone: what `fathom train` writes, `fathom eval`, `generate` and `info` use."""
import json

import pytest

from conftest import BUILD

pytestmark = pytest.mark.skipif(not (BUILD / "fathom-train").exists(), reason="no fathom-train in the build folder")

CONFIG = {
    "model": {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 2, "num_key_value_heads": 2,
              "fathom": {"routed_blocks": "every_second", "capacity": 0.25}},
    "data": {"dataset": "data"}, "sequence_length": 64, "batch_size": 8, "budget": {"steps": 80}, "optimizer": {"lr": 1e-2},
    "interval": {"eval_steps": 0, "final_eval_tokens": 2048, "checkpoint_steps": 40}, "calibration": {"tokens": 2048}, "seed": 3, "threads": 1,
}


@pytest.fixture(scope="module")
def summary(fathom, folder):
    (folder / "train.json").write_text(json.dumps(CONFIG))
    return json.loads(fathom("train", "train.json", "--out", "trained", "--json", "--quiet", timeout=300).out)


def test_the_engine_takes_what_training_wrote(fathom, folder, summary):
    assert json.loads((folder / "trained/summary.json").read_text()) == summary
    words = "The sea — été, 1867! <|endoftext|>"
    ids = fathom("tokenizer", "encode", "tok.json", words).out
    assert fathom("tokenizer", "encode", "trained/model", words).out == ids, "the text's tokenizer"
    found = json.loads(fathom("eval", "trained", "--data", "data", "--json").out)["model"]
    figures = summary["figures"]
    assert figures["loss"] < 5 and found["bits_per_byte"] > 0  # a uniform guess of 400 tokens: 5.99
    # Other windows of the same split: near the trainer's figures, whose equals tests/agree takes.
    assert found["loss"] == pytest.approx(figures["loss"], abs=0.3)
    for block, share in zip(found["blocks"], figures["share"], strict=True):
        assert block["realised"] == pytest.approx(share, abs=0.08)
    info = json.loads(fathom("info", "trained", "--json").out)
    assert info["dial"] == figures["dial"]["default_dial"] and [d["dial"] for d in info["dials"]] == [p["dial"] for p in figures["dial"]["points"]]


def test_text_of_a_trained_model(fathom, summary):
    found = json.loads(fathom("generate", "trained", "--prompt", "The sea", "--max-tokens", "40", "--no-eos", "--temperature", "0", "--json").out)
    assert len(found["ids"]) == 40
    assert fathom("tokenizer", "decode", "tok.json", *map(str, found["ids"]), "--no-newline").out == found["text"]
    # Eighty steps are enough for the words of the text, which untrained weights do not know.
    words = "sea calm tonight tide full moon lies fair upon straits coast light gleams and gone cliffs of england stand the is on".split()
    assert sum(w.strip(".,!?").lower() in words for w in found["text"].split()) >= 3


def test_a_checkpoint_becomes_the_same_model(fathom, folder, summary):
    train = type(fathom)(BUILD / "fathom-train", folder)
    last = max((folder / "trained/checkpoints").glob("step-*")).name
    train("export", f"trained/checkpoints/{last}/", "--out", "exported")
    for name in ("model.safetensors", "config.json", "tokenizer.json", "fathom_dial.json"):
        assert (folder / "exported" / name).read_bytes() == (folder / "trained/model" / name).read_bytes(), name
