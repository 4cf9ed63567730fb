"""`fathom quantize` as a person runs it: sizes, quality, the dial calibrated again, and every wrong word."""
import json
import os
import pathlib
import resource
import signal
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
GGUF = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"


def quantize(fathom, *words, code=0):
    return fathom("quantize", *words, "--quiet", code=code)


def report(fathom, *words):
    return json.loads(quantize(fathom, *words, "--json").out)


def left_behind(folder):
    return sorted(name for name in os.listdir(folder) if name.startswith("."))


def test_a_routed_model_in_fewer_bits(fathom, folder):
    r = report(fathom, "mod", "mod-q8", "--type", "q8_0", "--data", "data")
    assert sorted(os.listdir(folder / "mod-q8")) == ["config.json", "fathom_dial.json", "generation_config.json", "model.gguf", "tokenizer.json"]
    assert r["bytes"]["after"] < 0.6 * r["bytes"]["before"]
    assert r["bits_per_weight"]["before"] == 32 and 8 < r["bits_per_weight"]["after"] < 16.5
    kinds = {t["name"]: t for t in r["tensors"]}
    assert kinds["model.layers.1.router.weight"]["to"] == "F32" and kinds["model.layers.1.router.weight"]["carried"]
    assert kinds["model.layers.0.mlp.down_proj.weight"]["to"] == "Q8_0"
    q = r["quality"]
    assert 0 < q["kl_divergence"]["value"] < 0.02 and q["top1_agreement"] > 0.8
    assert q["original"]["perplexity"] == pytest.approx(q["result"]["perplexity"], rel=0.02)
    # The dial: the same grid, its shares met on the text that it was calibrated on.
    before, after = r["dial"]["before"], r["dial"]["after"]
    assert [p["dial"] for p in after["points"]] == [p["dial"] for p in before["points"]] and after["default_dial"] == before["default_dial"]
    default = next(p for p in after["points"] if p["dial"] == after["default_dial"])
    assert default["capacity"] == pytest.approx([0.25, 0.5], abs=2 / after["tokens"])
    assert after["points"][-1]["capacity"] == [1, 1]
    assert after["tokens"] > 800 and "every second window" in after["text"]
    assert json.loads((folder / "mod-q8" / "fathom_dial.json").read_text()) == after
    # The other half of the windows runs about as many, which the drawn table of the sample did not promise.
    assert q["result"]["block_fraction"] == pytest.approx(default["block_fraction"], abs=0.05)
    # What was written is a model for every command.
    assert "Q8_0" in fathom("info", "mod-q8").out
    e = json.loads(fathom("eval", "mod-q8", "--data", "data", "--json", "--quiet").out)["model"]
    assert e["loss"] == pytest.approx(q["result"]["loss"], rel=0.1)
    fathom("generate", "mod-q8", "--prompt", "The sea", "--max-tokens", 8)


def test_the_report_for_people(fathom, folder):
    shown = quantize(fathom, "mod", "mod-q4", "--type", "q4_0", "--data", "corpus.txt", "--limit", 2000, "--context", 64).out
    for words in ("mod → mod-q4 (q4_0)", "bits per weight", "tensors as F16: rows are no whole blocks of q4_0", "Dial, calibrated again on corpus.txt, every second window",
                  "Quality on corpus.txt", "perplexity", "block fraction", "KL divergence from the original", "the same most likely token at", "under the causal rule"):
        assert words in shown, (words, shown)
    shown = quantize(fathom, "dense", "dense-q4", "--type", "q4_k").out
    assert "Quality" not in shown and "Dial" not in shown


def test_the_same_weights_lose_nothing(fathom, folder):
    r = report(fathom, "mod", "mod-f32", "--type", "f32", "--data", "data", "--no-calibrate")
    assert r["quality"]["kl_divergence"]["value"] == 0 and r["quality"]["top1_agreement"] == 1
    assert r["quality"]["original"] == r["quality"]["result"]
    assert all(t["carried"] for t in r["tensors"]) and r["bytes"]["before"] == r["bytes"]["after"]
    assert (folder / "mod-f32" / "fathom_dial.json").read_text() == (folder / "mod" / "fathom_dial.json").read_text()
    # A dial that was calibrated on the very text comes back as it was, whatever was in it before.
    first = report(fathom, "mod", "mod-a", "--type", "f32", "--calibrate-on", "corpus.txt")
    again = report(fathom, "mod-a", "mod-b", "--type", "f32", "--calibrate-on", "corpus.txt")
    assert again["dial"]["before"] == again["dial"]["after"] == first["dial"]["after"] != first["dial"]["before"]
    assert first["quality"] is None


def test_a_gguf_file_and_back(fathom, folder):
    r = report(fathom, "dense", "dense.gguf", "--type", "f32", "--data", "corpus.txt", "--limit", 1000)
    assert r["quality"]["kl_divergence"]["value"] == pytest.approx(0, abs=1e-12)
    assert report(fathom, "dense.gguf", "dense-back", "--type", "f32", "--data", "corpus.txt", "--limit", 1000)["quality"]["top1_agreement"] == 1
    words = ("--prompt", "The sea is", "--temperature", 0, "--max-tokens", 16)
    assert fathom("generate", "dense", *words).out == fathom("generate", "dense.gguf", *words).out == fathom("generate", "dense-back", *words).out
    assert fathom("tokenizer", "encode", "dense", "the sea").out == fathom("tokenizer", "encode", "dense.gguf", "the sea").out


def test_twice_rounded_is_said(fathom, folder):
    fathom("quantize", "dense", "once.gguf", "--type", "q8_0", "--quiet")
    said = fathom("quantize", "once.gguf", "twice.gguf", "--type", "q4_0").err
    assert "warning: 4 tensors from Q8_0 to Q4_0" in said and "through f32" in said, said


@pytest.mark.parametrize("words,code,said", [
    (["mod", "x"], 2, "--type: found nothing"),
    (["mod", "x", "--type", "q3_k"], 2, "--type: found \"q3_k\", expected one of q8_0, q4_0, q4_1, q4_k, q6_k, f16, bf16, f32"),
    (["mod"], 2, "OUT"),
    (["nowhere", "x", "--type", "q8_0"], 1, "nowhere: found no such file or folder"),
    (["mod", "dense", "--type", "q8_0", "--data", "data"], 2, "OUT: found the existing \"dense\", expected a new name; give --overwrite to replace it"),
    (["mod", "x", "--type", "q8_0"], 2, "--data: found no text, expected text to calibrate the thresholds of the routed blocks on; or --no-calibrate"),
    (["mod", "x.gguf", "--type", "q8_0", "--data", "data"], 1, "mod: fathom.routed_blocks: found 2 routed blocks, expected a dense model for a .gguf file"),
    (["dense", "nowhere/x.gguf", "--type", "q8_0"], 1, "found no folder nowhere, expected a folder to write into"),
    (["dense", "dense", "--type", "q8_0", "--overwrite"], 1, "dense: found the model itself"),
    (["dense", "data", "--type", "q8_0", "--overwrite"], 1, "data: found a folder without config.json, expected a model folder to replace"),
    (["dense", "x", "--type", "q8_0", "--calibrate-on", "corpus.txt"], 2, "--calibrate-on: found text, expected none: this model has no routed block"),
    (["mod", "x", "--type", "q8_0", "--calibrate-on", "corpus.txt", "--no-calibrate"], 2, "--calibrate-on: found text beside --no-calibrate"),
    (["dense", "x", "--type", "q8_0", "--data", "nowhere.txt"], 1, "nowhere.txt"),
    (["dense", "x", "--type", "q8_0", "--data", "corpus.txt", "--context", "129"], 2, "--context: found 129, expected at most 128"),
    (["dense", "x", "--type", "q8_0", "--data", "corpus.txt", "--context", "1"], 2, "--context"),
    (["dense", "x", "--type", "q8_0", "--limit", "-1"], 2, "--limit"),
    (["mod", "x", "--type", "q8_0", "--data", "data", "--calibration-tokens", "-1"], 2, "--calibration-tokens"),
    (["dense", "x", "--type", "q8_0", "--threads", "5000"], 2, "--threads"),
    (["dense", "x", "--type", "q8_0", "--color", "red"], 2, "--color"),
    (["dense", "x", "--type", "q8_0", "--data", "corpus.txt", "--field", ""], 0, ""),
    (["mod", "y", "--type", "q8_0", "--data", "one.txt", "--context", "128"], 1, "one.txt: found one window of text, expected two or more"),
])
def test_wrong_words(fathom, folder, words, code, said):
    (folder / "one.txt").write_text("The sea is calm.")
    before = set(os.listdir(folder))
    run = fathom("quantize", *words, "--quiet", code=code)
    assert said in run.err, run.err
    if code:
        assert set(os.listdir(folder)) == before


def test_a_full_disk_leaves_nothing(fathom, folder):
    for out in ("full.gguf", "full"):
        run = subprocess.run([fathom.path, "quantize", "dense", out, "--type", "q8_0", "--quiet"], capture_output=True, text=True, cwd=folder,
                             preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)))
        assert run.returncode == 1 and "cannot write: " in run.stderr, run.stderr
        assert not (folder / out).exists() and left_behind(folder) == []


def test_overwrite_replaces_all_of_it(fathom, folder):
    fathom("quantize", "dense", "again", "--type", "q8_0", "--quiet")
    fathom("quantize", "dense", "again", "--type", "f16", "--overwrite", "--quiet")
    assert sorted(os.listdir(folder / "again")) == ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"]
    assert left_behind(folder) == []


@pytest.mark.skipif(not GGUF.exists() or "ASAN_OPTIONS" in os.environ, reason="scripts/get-smollm2 did not run, or a sanitizer makes it too slow")
def test_ctrl_c_leaves_nothing(fathom, folder):
    """The real model takes long enough to be stopped: while it is written, and while it is measured."""
    for words in (["--type", "q6_k"], ["--type", "q8_0", "--data", str(folder / "corpus.txt")]):
        out = folder / ("stop" + words[1] + ".gguf")
        run = subprocess.Popen([fathom.path, "quantize", str(GGUF), str(out), *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder)
        until = time.monotonic() + 60
        while time.monotonic() < until and not (out.exists() if len(words) > 2 else left_behind(folder)):
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=60)
        assert run.returncode == 130, said
        assert left_behind(folder) == [] and out.exists() == (len(words) > 2)
        if len(words) > 2:
            assert "is written, its quality was not measured" in said
        out.unlink(missing_ok=True)
