"""A GGUF file where a command takes a model: the one of scripts/get-smollm2."""
import json
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FATHOM = pathlib.Path(os.environ.get("FATHOM_BUILD", ROOT / "build")) / "fathom"
MODEL = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"

pytestmark = [pytest.mark.skipif(not MODEL.exists(), reason="scripts/get-smollm2 did not run"),
              pytest.mark.skipif("ASAN_OPTIONS" in os.environ, reason="135 million weights take too long under a sanitizer")]


def fathom(*words):
    return subprocess.run([str(FATHOM), *map(str, words)], capture_output=True, text=True, timeout=300)


def test_info_counts_the_bytes_that_the_engine_holds():
    result = fathom("info", MODEL, "--json")
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    C, F, V, L, GD = 576, 1536, 49152, 30, 192
    matrices, norms = L * (2 * C * C + 2 * GD * C + 3 * F * C), (2 * L + 1) * C
    # 4 bits with a scale and a minimum per 32 in the blocks, 8 bits with a scale in the tied head, of whose embedding a row is read.
    expected = matrices * 20 / 32 + (V * C + C) * 34 / 32 + norms * 4
    assert said["decode_bytes_per_token"]["weights"] == pytest.approx(expected, rel=1e-12)
    shown = fathom("info", MODEL)
    assert "Q4_1 (210), F32 (61), Q8_0 (1)" in shown.stdout, shown.stdout


def test_eval_reads_it(tmp_path):
    (tmp_path / "text.txt").write_text("The sun rises in the east and sets in the west. Water is made of hydrogen and oxygen. " * 20)
    result = fathom("eval", MODEL, "--data", tmp_path / "text.txt", "--context", 128, "--limit", 256, "--json", "--quiet")
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)["model"]
    assert said["tokens"] > 100
    assert 0 < said["loss"] < 3  # easy English that repeats itself; ln 49152 is 10.8


def test_generate_stops_at_the_end_of_the_model():
    result = fathom("generate", MODEL, "--prompt", "The capital of France is", "--temperature", 0, "--max-tokens", 8, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["text"].startswith(" Paris.")


def test_a_dial_needs_routed_blocks():
    result = fathom("generate", MODEL, "--prompt", "x", "--dial", 0.5)
    assert result.returncode != 0 and MODEL.name in result.stderr, result.stderr
