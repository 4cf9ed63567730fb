"""bench/engine/peer_perplexity.py: what it kept, and that it compares like with like."""
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
KEPT = ROOT / "bench/engine/peer_perplexity.json"


def test_what_was_kept_is_within_half_a_per_cent():
    kept = json.loads(KEPT.read_text())
    assert kept and len({(k["model_sha256"], k["text_sha256"], k["context"]) for k in kept}) == len(kept)
    for k in kept:
        assert abs(k["ours"] / k["llama_cpp"] - 1) <= 0.005, k


def test_nothing_is_compared_with_another_model(tmp_path):
    """Neither the model's name nor the text's is enough; it is looked for before anything is computed."""
    kept = json.loads(KEPT.read_text())[0]
    for name in (kept["model"], kept["text"]):
        (tmp_path / name).write_text("another")
    done = subprocess.run([sys.executable, ROOT / "bench/engine/peer_perplexity.py", "kept", tmp_path / kept["model"], tmp_path / kept["text"], "--build", tmp_path], capture_output=True, text=True)
    assert done.returncode == 1 and f"has nothing of {kept['model']} on {kept['text']} in windows of {kept['context']}" in done.stderr
