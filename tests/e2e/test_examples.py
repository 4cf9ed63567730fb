"""The programs of examples/, which know the public C++ interface alone, beside `fathom`; and its scripts."""
import json
import os
import pathlib
import re
import signal
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def example(build, folder):
    def run(name, *words, code=0):
        done = subprocess.run([build / "examples" / name, *map(str, words)], cwd=folder, capture_output=True, text=True, timeout=120)
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr
    return run


@pytest.mark.parametrize("dial", [None, 0.6, 1])
def test_generate(example, fathom, dial):
    found = json.loads(fathom("generate", "mod", "--prompt", "The sea", "--max-tokens", 32, "--json", *(["--dial", dial] if dial else [])).out)
    lines = "".join(f"depth {t['depth']} of 4  {''.join('.#'[r] for r in t['run'])}  id {t['id']}\n" for t in found["tokens"])
    assert example("generate", "mod", "The sea", *([dial] if dial else [])) == found["text"] + "\n\n" + lines
    assert len({t["depth"] for t in found["tokens"]}) > 1 or dial == 1


def test_batch(example, fathom):
    prompts = ["The sea", "Of England 12", "gleams"]
    said = example("batch", "mod", *prompts)
    decode = 0
    for prompt in prompts:
        for dial in (0.7, 1):
            one = json.loads(fathom("generate", "mod", "--prompt", prompt, "--max-tokens", 24, "--dial", dial, "--json").out)
            kv = one["kv_bytes"]
            head = f'"{prompt}" at dial {dial:g}: {len(one["ids"])} tokens, mean depth {one["depth"]["mean"]:g}, block fraction {one["block_fraction"]:g}, {kv["slots"]} of {kv["slots_if_dense"]} bytes'
            assert head + f" of KV cache, ended by {one['finish']}\n{one['text']}\n" in said
            decode += len(one["ids"])
    last = said.splitlines()[-1]
    texts, prompt_rows, cached, decoded = map(int, re.match(r"(\d+) texts in \d+ steps: (\d+) tokens of prompts, (\d+) more were cached, (\d+) new ones", last).groups())
    rows = [int(word) for word in last.split("block: ")[1].split()]
    assert texts == 6 and decoded == decode and len(rows) == 4
    assert rows[0] == rows[2] == prompt_rows + decoded > max(rows[1], rows[3]) and cached == 0


def test_score(example, fathom, build, folder):
    text = "The sea is calm tonight, 12 cliffs."
    said = example("score", "mod", text)
    ids = fathom("tokenizer", "encode", "mod", text).out.split()
    lines = said.splitlines()
    assert len(lines) == len(ids) + 2
    # The sum is the engine's, and so is each depth: what was read of a text is what is read of it as a prompt.
    done = subprocess.run([build / "tests/tools/engine_tool", "nll", "mod", "1000"], cwd=folder, input=" ".join(ids), capture_output=True, text=True, check=True)
    assert float(re.match(r"sum (\S+) nats", lines[-1])[1]) == pytest.approx(-float(done.stdout.split()[0]), abs=1e-4)
    each = [float(line.split()[0]) for line in lines[2:-1]]
    assert sum(each) == pytest.approx(-float(done.stdout.split()[0]), abs=1e-3 * len(ids))
    depths = {int(line[7:13]) for line in lines[1:-1]}
    assert depths <= {2, 3, 4} and len(depths) > 1
    full = example("score", "mod", text, 1)
    assert {int(line[7:13]) for line in full.splitlines()[1:-1]} == {4} and "block fraction 1.0" in full


@pytest.mark.parametrize("name", ["generate", "batch", "score"])
def test_what_goes_wrong_is_said(example, name):
    assert example(name, "no such model", "x", code=1).startswith(f"{name}: no such model")
    assert "usage" in example(name, code=2)


def test_a_bad_dial(example, fathom):
    said = example("generate", "dense", "The sea", 0.5, code=1)
    assert said == "generate: dense: dial: found 0.5, expected 1; this model has no routed block; fathom convert makes one of it that has\n"
    assert fathom("generate", "dense", "--prompt", "The sea", "--dial", 0.5, code=1).err == said.replace("generate: ", "fathom: ", 1)


@pytest.mark.parametrize("words,code,says", [(["--help"], 0, "--tokens N"), (["--datum", "x"], 2, "unknown option '--datum'"), (["--data"], 2, "--data needs a value")])
def test_the_road_of_a_conversion(words, code, says):
    done = subprocess.run([ROOT / "examples/convert-smollm2.sh", *words], capture_output=True, text=True, timeout=20)
    assert done.returncode == code and says in done.stdout + done.stderr


def test_the_road_goes_on_where_it_was(build, folder, tmp_path):
    """Killed in every step; the same words go on, others are refused; what is done is not made again."""
    words = [ROOT / "examples/convert-smollm2.sh", "--source", folder / "dense", "--build", build, "--data", folder / "corpus.txt", "--tokens", "6k", "--self-tokens", "70k", "--out", "out"]
    out, environment = tmp_path / "out", os.environ | {"OMP_NUM_THREADS": "1"}

    def killed_when(there):
        process = subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        deadline = time.time() + 120
        while not there() and process.poll() is None and time.time() < deadline:
            time.sleep(0.01)
        assert process.poll() is None, "it ended before it was killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    killed_when(lambda: (out / "settings").exists())
    killed_when(lambda: (out / "run/self-pieces/0.json").exists())
    first = (out / "run/self-pieces/0.json").stat().st_mtime_ns
    killed_when(lambda: (out / "run/self-pieces/1.json").exists())
    assert (out / "run/self-pieces/0.json").stat().st_mtime_ns == first, "what was written stays"
    killed_when(lambda: (out / "run/1-adapters/metrics.jsonl").exists() or (out / "run/1-routers/metrics.jsonl").exists())
    converted = (out / "converted/config.json").stat().st_mtime_ns
    once = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert once.returncode == 0, once.stderr
    assert (out / "converted/config.json").stat().st_mtime_ns == converted and not (out / "run/self-pieces").exists()
    summary = json.loads((out / "run/summary.json").read_text())
    assert summary["tokens"] >= 5000 and "dense_loss" in summary and (out / "curve.html").exists()
    again = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0 and "The page: " in again.stdout and json.loads((out / "run/summary.json").read_text()) == summary
    other = subprocess.run([*words, "--tokens", "7k"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert other.returncode == 2 and "was begun with" in other.stderr and "tokens 7k" in other.stderr


def test_a_domain(build, fathom, folder, tmp_path):
    """Converted, tuned and measured in the domain and elsewhere; called again, nothing is made twice."""
    (tmp_path / "domain").mkdir()
    for number, text in enumerate((folder / "corpus.txt").read_text().split("<|endoftext|>")):
        (tmp_path / "domain" / f"{number:02}.txt").write_text(text)
    (tmp_path / "other.txt").write_text("The tide is out. " * 200)
    words = [ROOT / "examples/domain.py", "domain", "--files", "*.txt", "--other", "other.txt", "--tokens", "1k", "--limit", "300", "--context", "64", "--source", folder / "dense", "--build", build, "--threads", "1"]
    once = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert once.returncode == 0, once.stderr
    found = json.loads((tmp_path / "domain-out" / "domain.json").read_text())
    assert [row["model"] for row in found["rows"]] == ["dense", "converted, dial 0.75", "tuned, dial 0.75", "tuned, dial 1"] and found["tokens"] >= 1000
    dense, converted, tuned, full = (row["domain"] for row in found["rows"])
    assert dense["block_fraction"] == 1 and converted["block_fraction"] < 0.95 and tuned["block_fraction"] < 0.95 and tuned["loss"] < converted["loss"]
    # The held-out text is every twentieth file, and none of them is tuned on.
    texts = lambda name: [json.loads(line)["text"] for line in (tmp_path / "domain-out" / name).read_text().splitlines()]
    assert len(texts("held-out.jsonl")) == 3 and len(texts("tuned-on.jsonl")) == 57 and not set(texts("held-out.jsonl")) & set(texts("tuned-on.jsonl"))
    before = (tmp_path / "domain-out/run/model/config.json").stat().st_mtime_ns
    again = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert again.stdout == once.stdout and (tmp_path / "domain-out/run/model/config.json").stat().st_mtime_ns == before


def test_a_domain_of_too_few_files(build, folder, tmp_path):
    done = subprocess.run([ROOT / "examples/domain.py", tmp_path, "--source", folder / "dense", "--build", build, "--out", tmp_path / "out"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 1 and done.stderr.startswith("domain: found 0 files *.py in ") and "expected 20 or more" in done.stderr
