"""Memory: what a process takes is what `fathom info` says, what a routed model keeps is its share, and a budget is obeyed."""
import json
import os
import pathlib
import re
import subprocess
import time

import pytest

TOKENS = 1980
counted = pytest.mark.skipif("ASAN_OPTIONS" in os.environ, reason="a sanitizer keeps memory of its own, and what was freed")
SMOLLM2 = pathlib.Path(__file__).resolve().parents[2] / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def large(folder, build):
    """A model whose keys and values weigh more than its weights; a prompt that fills its context; a small model beside it."""
    for kind in ("large", "small"):
        if not (folder / kind).exists():
            subprocess.run([build / "tests/tools/make_sample_model", folder / kind, folder / "tok.json", "large" if kind == "large" else "thin", "5"], check=True)
    (folder / "long.txt").write_text("the sea " * 4000)
    return "large"


def memory(fathom, model, prompt, *flags):
    done = fathom("generate", model, "--prompt-file", prompt, "--max-tokens", "4", "--temperature", "0", "--no-eos", "--json", "--threads", "2", *flags, timeout=600)
    return json.loads(done.out)


@pytest.fixture(scope="module")
def prompt(fathom, folder, large):
    ids = fathom("tokenizer", "encode", "tok.json", "--file", "long.txt").out.split()[:TOKENS]
    (folder / "long.txt").write_text(fathom("tokenizer", "decode", "tok.json", *ids, "--no-newline").out)
    (folder / "short.txt").write_text("the sea")
    return "long.txt"


@counted
@pytest.mark.parametrize("kv_type", ["f32", "f16"])
def test_resident_memory_is_what_info_predicts(fathom, large, prompt, kv_type):
    base = memory(fathom, "small", "short.txt")
    used = memory(fathom, large, prompt, "--kv-type", kv_type)
    tokens = used["prompt_tokens"] + used["new_tokens"]
    assert tokens > 1900
    told = json.loads(fathom("info", large, "--context", str(tokens), "--json").out)["memory"]
    predicted = told["weights"] + told["kv"][kv_type]["dense"]
    assert predicted > 90e6
    assert used["memory"]["kv_peak"] == told["kv"][kv_type]["dense"] and used["memory"]["weights"] == told["weights"]
    for what in ("resident", "resident_peak"):
        taken = used["memory"][what] - base["memory"][what]
        assert abs(taken / predicted - 1) < 0.05, f"{what} {taken / 1e6:.1f} MB, predicted {predicted / 1e6:.1f} MB"


@counted
@pytest.mark.parametrize("kind", ["f32", "q8_0", "q4_0"])
def test_an_embedding_stays_in_its_file(fathom, folder, build, large, prompt, kind):
    """Neither while a model of a large vocabulary is loaded nor afterwards is more in memory than `info` predicts."""
    if not (folder / "wide-f32").exists():
        subprocess.run([build / "tests/tools/make_sample_model", folder / "wide-f32", folder / "tok.json", "wide", "5"], check=True)
    model = f"wide-{kind}"
    if not (folder / model).exists():
        fathom("quantize", "wide-f32", model, "--type", kind, "--quiet", timeout=600)
    base = memory(fathom, "small", "short.txt")
    used = memory(fathom, model, "short.txt")
    predicted = json.loads(fathom("info", model, "--context", str(used["prompt_tokens"] + used["new_tokens"]), "--json").out)["memory"]["weights"]
    assert predicted > {"f32": 120e6, "q8_0": 32e6, "q4_0": 17e6}[kind]
    rows = 2e6 * (used["prompt_tokens"] + used["new_tokens"])  # a row of the file comes with as much of its surroundings as the system maps at once
    for what in ("resident", "resident_peak"):
        taken = used["memory"][what] - base["memory"][what]
        assert -0.05 * predicted < taken - predicted < 0.05 * predicted + rows, f"{what} {taken / 1e6:.1f} MB, predicted {predicted / 1e6:.1f} MB"


@pytest.mark.skipif(not SMOLLM2.exists() or "ASAN_OPTIONS" in os.environ, reason="scripts/get-smollm2 did not run, or a sanitizer has memory of its own")
def test_a_real_model_with_its_tokenizer(fathom):
    used = memory(fathom, SMOLLM2, "short.txt")
    told = json.loads(fathom("info", SMOLLM2, "--context", str(used["prompt_tokens"] + used["new_tokens"]), "--json").out)["memory"]
    predicted = told["weights"] + told["kv"]["f32"]["dense"] + told["program"]
    for what in ("resident", "resident_peak"):
        assert used["memory"][what] == pytest.approx(predicted, rel=0.05), what


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_are_as_many_as_asked_for(folder, build, large, prompt, threads):
    """Also while a model is loaded, beside the one that reads its tokenizer."""
    process = subprocess.Popen([build / "fathom", "generate", folder / "large", "--prompt-file", folder / "long.txt", "--max-tokens", "1", "--threads", str(threads)],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"})
    most = 0
    while process.poll() is None:
        try:
            most = max(most, len(os.listdir(f"/proc/{process.pid}/task")))
        except FileNotFoundError:
            pass
        time.sleep(0.0005)
    assert process.returncode == 0
    assert most == threads + 1 if threads == 1 else most in (threads, threads + 1)


def test_what_tokens_skip_takes_no_memory(build, fathom):
    """12.5 % in every second block: at most 0.58 of the dense pages, counted by the pool, for every type."""
    for kv_type in ("f32", "f16", "bf16", "q8_0"):
        done = fathom("bench", "--shape", "128,4,4,2,128,512", "--routed", "every-second:0.125", "--kv-type", kv_type, "--prompt", "0", "--generate", "4", "--depth", "2040",
                      "--rounds", "1", "--threads", "1", "--quiet", "--json")
        [run] = json.loads(done.out)["runs"]
        dense, routed = run["lines"]
        assert dense["model"] == "dense" and run["kv_type"] == kv_type
        each = {"f32": 128, "f16": 64, "bf16": 64, "q8_0": 34}[kv_type]  # bytes of 32 numbers
        assert dense["kv_bytes"] == 4 * 128 * 16 * 2 * 2 * each
        assert 0.5 < routed["kv_bytes"] / dense["kv_bytes"] <= 0.58
        assert routed["attention_gb_per_second"] > 0


@pytest.mark.parametrize("words", [("generate", "mod", "--prompt", "the sea is calm", "--max-tokens", "40"), ("chat", "plain-talker", "--max-tokens", "40", "--temperature", "0"),
                                   ("eval", "mod", "--data", "data", "--context", "64", "--limit", "500"),
                                   ("bench", "--shape", "64,2,2,2,64,100", "--prompt", "0", "--generate", "8", "--depth", "60", "--batch", "2", "--rounds", "1", "--threads", "1")])
def test_a_budget_is_obeyed_or_refused_with_what_would_do(fathom, folder, words):
    if words[0] == "chat" and not (folder / "plain-talker").exists():
        import shutil
        shutil.copytree(folder / "mod", folder / "plain-talker")
        (folder / "plain-talker" / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}"}))
    lines = "the sea\n" * (6 if words[0] == "chat" else 1)  # a conversation comes back to what it has read
    plain = fathom(*words, stdin=lines).out
    refused = fathom(*words, "--kv-memory", "1k", stdin="the sea\n", code=1).err
    needed = int(re.search(r"at most the limit of .*; give --kv-memory (\d+) or more", refused)[1])
    assert "may need" in refused
    assert str(needed) in fathom(*words, "--kv-memory", str(needed - 1), stdin="the sea\n", code=1).err
    if words[0] == "chat":  # room for some answers of it; what the next would need is said, and the conversation goes on
        found = fathom(*words, "--kv-memory", str(2 * needed), stdin=lines)
        assert found.out and plain.startswith(found.out) and found.out != plain and "which may need" in found.err, found.err
        return
    found = fathom(*words, "--kv-memory", str(needed), stdin=lines)
    if words[0] == "generate":
        assert found.out == plain, "a budget that holds the text changes nothing"
