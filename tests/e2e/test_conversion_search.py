"""bench/quality/conversion_search.py with bench/quality/conversion.py on a small model: from recipes to lines of results."""
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_recipes_of_conversion_side_by_side(build, folder, tmp_path):
    """Two at once, each with its own cache of the teacher; what is done is not done again."""
    (tmp_path / "lambada_openai.jsonl").write_text("".join(json.dumps({"context": "the sea is", "continuation": word}) + "\n" for word in ("calm", "deep", "wide")))
    words = [sys.executable, ROOT / "bench/quality/conversion_search.py", "--source", folder / "dense", "--data", folder / "corpus.txt", "--out", tmp_path, "--on", f"here={folder / 'corpus.txt'}", "--tokens", "1k",
             "--fit-tokens", "1k", "--context", "64", "--limit", "300", "--only", "base,light-16,rank-8", "--build", build, "--results", tmp_path / "results.jsonl",
             "--tasks", "lambada", "--task-data", tmp_path, "--task-limit", "3"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert sorted(line["name"] for line in lines) == ["base@1k", "light-16@1k", "rank-8@1k"] and all(line["tokens"] >= 1000 for line in lines)
    for line in lines:
        assert line["tasks"]["items"] == 3 and line["tasks"]["dense"]["lambada"]["block_fraction"] == 1
        assert all(line["tasks"][dial]["lambada"]["perplexity"] > 1 for dial in ("0.85", "0.75", "0.65"))
        assert list(line["tasks over dense"]) == ["0.85", "0.75", "0.65"]
    losses = {line["name"]: line["texts"]["here"]["points"] for line in lines}
    assert losses["base@1k"] != losses["light-16@1k"] and losses["base@1k"] != losses["rank-8@1k"], "flags that nobody obeyed"
    assert subprocess.run(words, capture_output=True, text=True, timeout=60).returncode == 0
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 3
    wrong = subprocess.run([*words, "--only", "no such"], capture_output=True, text=True, timeout=20)
    assert wrong.returncode == 1 and "no recipe no such" in wrong.stderr
