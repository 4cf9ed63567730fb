"""The engine for aarch64, emulated, beside that of this machine: the same logits to the bit, the same texts, the same files.

Run by `./test --aarch64`: FATHOM_BUILD holds the programs for aarch64, FATHOM_HOST those of this machine.
"""
import filecmp
import os
import pathlib
import random
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD, HOST = pathlib.Path(os.environ["FATHOM_BUILD"]), pathlib.Path(os.environ["FATHOM_HOST"])
SMOLLM2 = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPT = "The engine answers the same on every machine"
KINDS = {"mod": "f32", "dense": "f32", "mod-q8_0": "q8_0", "mod-bf16": "bf16", "blocky-q8_0": "q8_0", "blocky-q4_0": "q4_0", "blocky-q4_1": "q4_1", "blocky-q6_k": "q6_k",
         "blocky-f16": "f16"}
# Two processors: one with everything that the emulator knows, one with neither dot products nor anything else beyond ARMv8.0.
CASES = [("max", "neondot"), ("max", "neon"), ("max", "reference"), ("cortex-a53", "neon")]


def run(*words, isa="", code=0, folder=None):
    env = dict(os.environ, FATHOM_ISA=isa)
    done = subprocess.run([str(w) for w in words], capture_output=True, cwd=folder, env=env, timeout=1200)
    assert done.returncode == code, f"{words}: exit code {done.returncode}, expected {code}\n{done.stderr.decode(errors='replace')}"
    return done.stdout.decode() if code == 0 else done.stderr.decode()


def emulated(program, *words, cpu="max", **options):
    return run("qemu-aarch64-static", "-cpu", cpu, BUILD / program, *words, **options)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    (folder / "corpus.txt").write_text((ROOT / "README.md").read_text(encoding="utf-8") + (ROOT / "docs/architecture.md").read_text(encoding="utf-8"), encoding="utf-8")
    run(HOST / "fathom", "tokenizer", "train", "corpus.txt", "--vocab-size", "400", "--out", "tok.json", "--quiet", folder=folder)
    for seed, kind in enumerate(["mod", "dense", "blocky"]):
        run(HOST / "tests/tools/make_sample_model", folder / kind, folder / "tok.json", kind, seed + 1)
    for name, kind in KINDS.items():
        if "-" in name:
            run(HOST / "fathom", "quantize", name.split("-")[0], name, "--type", kind, "--data", "corpus.txt", "--limit", "400", "--no-calibrate", "--quiet", folder=folder)
    draw = random.Random(1)
    (folder / "ids").write_text(" ".join(str(draw.randrange(400)) for _ in range(70)))
    return folder


def test_the_choice_follows_the_processor():
    tool = "tests/tools/engine_tool"
    assert emulated(tool, "isa") == "neondot\n"
    assert emulated(tool, "isa", cpu="cortex-a53") == "neon\n"
    for cpu, isa in CASES:
        assert emulated(tool, "isa", cpu=cpu, isa=isa) == isa + "\n"
    assert "reference, neon" in emulated(tool, "isa", cpu="cortex-a53", isa="neondot", code=1)
    assert "reference, neon, neondot" in emulated(tool, "isa", isa="avx2", code=1)


@pytest.mark.parametrize("name", KINDS)
def test_logits_are_the_same_bits(models, name):
    run(HOST / "tests/tools/engine_tool", "logits", models / name, models / "ids", models / "host")
    expected = (models / "host").read_bytes()
    assert len(expected) == 70 * 400 * 4
    for cpu, isa in CASES:
        emulated("tests/tools/engine_tool", "logits", models / name, models / "ids", models / "emulated", cpu=cpu, isa=isa)
        assert (models / "emulated").read_bytes() == expected, (cpu, isa)


@pytest.mark.parametrize("name", KINDS)
def test_texts_are_the_same(models, name):
    texts = set()
    for words in (["--temperature", "0"], ["--temperature", "1.2", "--seed", "5", "--top-p", "0.9"], ["--temperature", "1", "--repetition-penalty", "1.3", "--typical-p", "0.9"],
                  ["--temperature", "0", "--draft-repeats"]):
        if name.startswith("mod"):
            words += ["--dial", "0.8"]
        text = run(HOST / "fathom", "generate", models / name, "--prompt", PROMPT, "--max-tokens", 40, *words)
        assert emulated("fathom", "generate", models / name, "--prompt", PROMPT, "--max-tokens", 40, *words) == text
        texts.add(text)
    assert len(texts) >= 3


@pytest.mark.parametrize("kind", ["q8_0", "q4_0", "q4_1", "q6_k"])
def test_quantised_files_are_the_same(models, kind):
    words = ["--type", kind, "--data", "corpus.txt", "--limit", "400", "--context", "64", "--calibration-tokens", "1000", "--quiet"]
    run(HOST / "fathom", "quantize", "mod", f"host-{kind}", *words, folder=models)
    emulated("fathom", "quantize", "mod", f"emulated-{kind}", *words, folder=models)
    files = sorted(os.listdir(models / f"host-{kind}"))
    assert {"model.gguf", "fathom_dial.json"} <= set(files) and files == sorted(os.listdir(models / f"emulated-{kind}"))
    assert filecmp.cmpfiles(models / f"host-{kind}", models / f"emulated-{kind}", files, shallow=False) == (files, [], [])


@pytest.mark.skipif(not SMOLLM2.exists(), reason="scripts/get-smollm2 did not run")
def test_a_real_model_says_the_same(models):
    (models / "few").write_text("504 3575 282 4649 314")
    run(HOST / "tests/tools/engine_tool", "logits", SMOLLM2, models / "few", models / "host")
    emulated("tests/tools/engine_tool", "logits", SMOLLM2, models / "few", models / "emulated")
    assert (models / "host").read_bytes() == (models / "emulated").read_bytes()
    words = ["generate", SMOLLM2, "--prompt", "The capital of France is", "--temperature", "0", "--max-tokens", "8"]
    text = run(HOST / "fathom", *words)
    assert "Paris" in text and emulated("fathom", *words) == text
