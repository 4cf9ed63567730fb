"""`fathom convert` as a person runs it: what it says beforehand, what is written, and every wrong word."""
import json
import math
import os
import random
import shutil
import signal
import struct
import subprocess
import time

import pytest

from conftest import read_safetensors, write_safetensors


@pytest.fixture(autouse=True)
def cleared(folder):
    """What a test writes into the folder that all share goes with it."""
    before = set(os.listdir(folder))
    yield
    for name in set(os.listdir(folder)) - before:
        shutil.rmtree(folder / name)


def convert(fathom, *words, code=0):
    return fathom("convert", *words, "--quiet", code=code)


def loss(fathom, model, *words):
    return json.loads(fathom("eval", model, "--data", "corpus.txt", "--context", 64, "--limit", 3000, "--json", "--quiet", *words).out)["model"]


FIT = ("--data", "corpus.txt", "--context", 64, "--tokens", 4000, "--loss-tokens", 500, "--light", "fit:6")


def test_a_dense_model_learns_to_choose(fathom, folder):
    r = json.loads(convert(fathom, "dense", "made", *FIT, "--target", 0.8, "--blocks", "inner", "--json").out)
    assert sorted(os.listdir(folder / "made")) == ["config.json", "fathom_convert.json", "fathom_dial.json", "generation_config.json", "model.safetensors", "tokenizer.json"]
    made = json.loads((folder / "made" / "fathom_convert.json").read_text())
    assert made["source"]["name"] == "dense" and made["data"] == ["corpus.txt"] and str(folder) not in json.dumps(made)
    assert made["settings"]["target"] == 0.8 and made["settings"]["tokens"] == 4000 and made["settings"]["light"] == "fit:6" and made["settings"]["seed"] == 1
    assert [u["block"] for u in r["units"]] == [1, 2] and r["block_fraction"]["target"] == pytest.approx(0.8, abs=0.02)
    assert all(0 < u["unexplained"] < 1 and 0 < u["capacity"] <= 1 for u in r["units"])
    assert r["dial"]["points"][-1]["dial"] == 1 and r["dial"] == json.loads((folder / "made" / "fathom_dial.json").read_text())
    # At dial 1 it is its source, at the default it costs what was asked for.
    dense = loss(fathom, "dense")
    assert loss(fathom, "made", "--dial", 1)["loss"] == dense["loss"]
    routed = loss(fathom, "made")
    assert routed["block_fraction"] == pytest.approx(0.8, abs=0.05) and routed["loss"] != dense["loss"]
    plain = ("--prompt", "The sea", "--max-tokens", 12, "--temperature", 0)
    assert fathom("generate", "made", "--dial", 1, *plain).out == fathom("generate", "dense", *plain).out
    # A model for every command, also once it is quantised.
    assert "light,full" in fathom("info", "made").out
    fathom("quantize", "made", "made-q8", "--type", "q8_0", "--data", "corpus.txt", "--context", 64, "--quiet")
    fathom("generate", "made-q8", *plain)


def test_the_report_for_people(fathom, folder):
    shown = convert(fathom, "dense", "made", *FIT, "--granularity", "attention+mlp").out
    for words in ("dense → made", "routed, 0 static", "added", "weights", "keys and values", "Fitted on corpus.txt", "1 attention", "2 MLP", "unexplained", "Dial, calibrated on corpus.txt", "(default)"):
        assert words in shown, (words, shown)


def test_the_plan_writes_nothing(fathom, folder):
    before = sorted(os.listdir(folder))
    shown = convert(fathom, "dense", "made", "--plan", "--static", "1", "--blocks", "2").out
    assert "what would be made" in shown and "1 routed, 1 static" in shown and "gone" in shown and "routers for" not in shown
    shown = convert(fathom, "dense", "made", "--plan", "--data", "no such file", "--target", "0.8").out
    assert "2 routed" in shown and "routers for 80.0 %" in shown
    assert sorted(os.listdir(folder)) == before


def test_static_dropped_and_unfitted(fathom, folder):
    convert(fathom, "dense", "static", *FIT, "--static", "1-2", "--blocks", "none")
    assert not (folder / "static" / "fathom_dial.json").exists(), "nothing is decided"
    assert loss(fathom, "static")["block_fraction"] < 0.6
    convert(fathom, "dense", "short", "--drop-blocks", "2", "--blocks", "none", "--light", "none")
    config = json.loads((folder / "short" / "config.json").read_text())
    assert config["num_hidden_layers"] == 3 and "fathom" not in config
    # Without text routers are open until tuning fills them.
    shown = convert(fathom, "dense", "open", "--light", "none").out
    assert "Not fitted, for there was no --data: routers are open" in shown and "--blocks auto is inner then" in shown
    assert [p["dial"] for p in json.loads((folder / "open" / "fathom_dial.json").read_text())["points"]] == [1]
    assert loss(fathom, "open")["loss"] == loss(fathom, "dense")["loss"]
    convert(fathom, "dense", "mlp", "--light", "none", "--router", "mlp", "--kv", "drop", "--gate", "one_plus_tanh")
    assert loss(fathom, "mlp", "--dial", 1)["block_fraction"] > 1, "predictors cost"
    assert loss(fathom, "mlp", "--dial", 1)["loss"] == loss(fathom, "dense")["loss"]


def test_dropped_first_or_in_one_go(fathom, folder):
    """What is fitted beside dropped blocks is fitted on what is left of the source."""
    convert(fathom, "dense", "without", "--drop-blocks", "1", "--blocks", "none", "--light", "none")
    convert(fathom, "without", "then", *FIT, "--static", "1", "--blocks", "2")
    convert(fathom, "dense", "at-once", *FIT, "--drop-blocks", "1", "--static", "2", "--blocks", "3")
    for name in ("model.safetensors", "fathom_dial.json", "config.json"):
        assert (folder / "at-once" / name).read_bytes() == (folder / "then" / name).read_bytes(), name


def test_routers_of_two_layers_begin_as_those_of_one(fathom, folder):
    convert(fathom, "dense", "one-layer", *FIT, "--blocks", "inner")
    one = loss(fathom, "one-layer")
    linear, _ = read_safetensors(folder / "one-layer" / "model.safetensors")
    draw = random.Random(1)
    for gate in ("hard", "one_plus_tanh"):
        shown = convert(fathom, "dense", "two-layers", *FIT, "--blocks", "inner", "--router", "mlp", "--gate", gate, "--overwrite").out
        assert "unexplained" in shown
        two = loss(fathom, "two-layers")
        tensors, _ = read_safetensors(folder / "two-layers" / "model.safetensors")
        for block in (1, 2):
            numbers = lambda of, name: struct.unpack(f"<{len(of[name][2]) // 4}f", of[name][2])
            at = f"model.layers.{block}."
            w = numbers(linear, at + "router.weight")
            fc1, fc2, bias1 = (numbers(tensors, at + "predictor." + n) for n in ("fc1.weight", "fc2.weight", "fc1.bias"))
            for _ in range(5):
                u = [draw.gauss(0, 1) for _ in w]
                hidden = [sum(x * y for x, y in zip(fc1[p * len(u):(p + 1) * len(u)], u)) + bias1[p] for p in range(len(fc2))]
                # Its bias is another: what it costs itself moves the threshold for the target.
                assert sum(y * z / (1 + math.exp(-z)) for y, z in zip(fc2, hidden)) == pytest.approx(sum(x * y for x, y in zip(w, u)), abs=1e-4)
        assert two["loss"] == pytest.approx(one["loss"], rel=2e-3) and two["loss"] != one["loss"]
        assert loss(fathom, "two-layers", "--dial", 1)["loss"] == loss(fathom, "dense")["loss"]
    said = convert(fathom, "dense", "refused", *FIT, "--gate", "one_plus_tanh", code=1).err
    assert "one_plus_tanh beside a linear router" in said and "--router mlp" in said


def test_every_tensor_keeps_its_type(fathom, folder):
    """A source of several types: bf16 projections between an f32 embedding and an f16 head."""
    source = folder / "several"
    shutil.copytree(folder / "dense", source)
    tensors, about = read_safetensors(source / "model.safetensors")
    for name, (_, shape, raw) in tensors.items():
        if "_proj" in name:
            tensors[name] = ("BF16", shape, b"".join(raw[i + 2:i + 4] for i in range(0, len(raw), 4)))
        elif name == "lm_head.weight":
            tensors[name] = ("F16", shape, struct.pack(f"<{len(raw) // 4}e", *struct.unpack(f"<{len(raw) // 4}f", raw)))
    write_safetensors(source / "model.safetensors", tensors, about)
    convert(fathom, "several", "several-made", *FIT, "--blocks", "2")
    made, _ = read_safetensors(folder / "several-made" / "model.safetensors")
    for name, tensor in tensors.items():
        assert made[name] == tensor, name
    assert loss(fathom, "several-made", "--dial", 1)["loss"] == loss(fathom, "several")["loss"]


def test_text_of_its_own(fathom, folder):
    r = json.loads(convert(fathom, "dense", "made", "--data", "self", "--tokens", 2000, "--context", 64, "--light", "fit:4", "--json").out)
    assert r["text"] == "text of dense" and len(r["units"]) >= 1
    again = json.loads(convert(fathom, "dense", "self-again", "--data", "self", "--tokens", 2000, "--context", 64, "--light", "fit:4", "--threads", 1, "--json").out)
    assert again["units"] == r["units"], "the same text, the same model"
    both = json.loads(convert(fathom, "dense", "both", "--data", "self", *FIT, "--json").out)
    assert both["text"].startswith("text of dense and ") and both["units"] != r["units"]


@pytest.mark.parametrize("words, says", [
    (("dense", "made"), "--data: found no text"),
    (("dense", "dense", *FIT), "the model itself"),
    (("dense", "made.gguf", *FIT), "the name of a folder"),
    (("mod", "made", *FIT), "a dense model"),
    (("dense", "made", *FIT, "--blocks", "1-9"), "ascending blocks of 0 to 3"),
    (("dense", "made", *FIT, "--blocks", "2,1"), "ascending blocks of 0 to 3"),
    (("dense", "made", *FIT, "--blocks", "1-999999999999"), "ascending blocks of 0 to 3"),
    (("dense", "made", *FIT, "--static", "1", "--blocks", "1"), "which static names too"),
    (("dense", "made", "--data", "corpus.txt", "--light", "fit:0"), "a rank of at least 1"),
    (("dense", "made", "--data", "corpus.txt", "--light", "svd"), "a rank of at least 1"),
    (("dense", "made", "--data", "corpus.txt", "--light", "fit:999"), '--light: found fit:999, expected a rank of at most '),
    (("dense", "made", "--data", "corpus.txt", "--lowest", "0.9"), "--lowest: found 0.9, expected at most the target, 0.75"),
    (("dense", "made", "--data", "corpus.txt", "--highest", "0.7"), "--highest: found 0.7, expected at least the target, 0.75"),
    (("dense", "made", "--data", "corpus.txt", "--blocks", "1", "--target", "0.5"), "--target: found 0.5, expected at least 0."),
    (("dense", "made", "--light", "none", "--static", "1", "--blocks", "none"), "a rank for the light path that stands there"),
    (("dense", "made", "--light", "none", "--paths", "light,full"), "a rank for the light path"),
    (("dense", "made", *FIT, "--paths", "exit,light,full"), "skip, light and full"),
    (("dense", "made", "--data", "missing.txt"), "missing.txt"),
    (("dense", "made", "--blocks", "none"), "no block"),
])
def test_wrong_words(fathom, folder, words, says):
    before = sorted(os.listdir(folder))
    run = subprocess.run([fathom.path, "convert", *map(str, words), "--quiet"], capture_output=True, text=True, cwd=folder)
    assert run.returncode in (1, 2) and says in run.stderr, run.stderr
    assert sorted(os.listdir(folder)) == before


def test_a_stopped_conversion_goes_on(fathom, folder):
    """Ctrl-C or a kill, while text is written or units are fitted: the same command takes what is done, another begins anew, and what comes out is what it would have been."""
    words = ["--data", "corpus.txt", "--data", "self", "--tokens", "90k", "--loss-tokens", "0", "--context", "64", "--light", "fit:8", "--threads", "1"]
    whole = subprocess.run([fathom.path, "convert", "dense", "whole", *words], capture_output=True, text=True, cwd=folder)
    assert whole.returncode == 0, whole.stderr
    work = folder / ".made.partial"

    def stopped_when(there, by):
        process = subprocess.Popen([fathom.path, "convert", "dense", "made", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)
        while not there() and process.poll() is None:
            time.sleep(0.002)
        assert process.poll() is None, "it ended before it was stopped"
        process.send_signal(by)
        _, err = process.communicate(timeout=60)
        assert not (folder / "made").exists()
        return process.returncode, err

    piece, fit = work / "text/0.json", work / "fits/fit-1.safetensors"
    code, err = stopped_when(piece.exists, signal.SIGINT)
    assert code == 130 and "the same command goes on where it was" in err and ".made.partial" in err
    written = piece.stat().st_mtime_ns
    assert stopped_when(fit.exists, signal.SIGKILL)[0] == -signal.SIGKILL
    assert piece.stat().st_mtime_ns == written
    fitted = fit.stat().st_mtime_ns
    code, err = stopped_when((work / "fits/refit-0.safetensors").exists, signal.SIGINT)
    assert code == 130 and "going on with what lies in" in err and (piece.stat().st_mtime_ns, fit.stat().st_mtime_ns) == (written, fitted)
    run = subprocess.run([fathom.path, "convert", "dense", "made", *words], capture_output=True, text=True, cwd=folder)
    assert run.returncode == 0 and not work.exists(), run.stderr
    for name in sorted(os.listdir(folder / "whole")):
        assert (folder / "made" / name).read_bytes() == (folder / "whole" / name).read_bytes(), name
