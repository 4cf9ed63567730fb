"""The programs of examples/, which know the public C++ interface alone, beside `fathom`."""
import json
import pathlib
import re
import subprocess

import pytest


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
    assert said == "generate: dense: dial: found 0.5, expected 1; this model has no routed block\n"
    assert fathom("generate", "dense", "--prompt", "The sea", "--dial", 0.5, code=1).err == said.replace("generate: ", "fathom: ", 1)


@pytest.mark.parametrize("words,code,says", [(["--help"], 0, "--tokens N"), (["--datum", "x"], 2, "unknown option '--datum'"), (["--data"], 2, "--data needs a value")])
def test_the_road_of_a_conversion(words, code, says):
    done = subprocess.run([pathlib.Path(__file__).resolve().parents[2] / "examples/convert-smollm2.sh", *words], capture_output=True, text=True, timeout=20)
    assert done.returncode == code and says in done.stdout + done.stderr
