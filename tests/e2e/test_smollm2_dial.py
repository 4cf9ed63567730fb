"""artifacts/smollm2-135m over the model of scripts/get-smollm2: what `scripts/get-smollm2 --fathom` makes, and that a dial takes little of it."""
import json
import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("FATHOM_BUILD", ROOT / "build"))
ARTIFACT = ROOT / "artifacts/smollm2-135m"
SOURCE = ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf"
# Of this project's own prose, so that no text of others is needed.
TEXT = "\n\n".join((ROOT / "docs" / name).read_text() for name in ("architecture.md", "training.md"))[:16000]


def test_it_is_small_and_of_this_model():
    assert sum(f.stat().st_size for f in ARTIFACT.iterdir()) < 20e6
    about = json.loads((ARTIFACT / "fathom_artifact.json").read_text())
    assert about["base"]["name"] == SOURCE.name and about["recipe"]["config"]["lora_rank"] == 16


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The script in a folder of its own, with this build's program and the model that is there."""
    if not SOURCE.exists() or not (BUILD / "fathom").exists() or "ASAN_OPTIONS" in os.environ:
        pytest.skip("scripts/get-smollm2 did not run, there is no program, or a sanitizer makes this long")
    at = tmp_path_factory.mktemp("clone")
    for name in ("scripts", "models", "build/release"):
        (at / name).mkdir(parents=True)
    shutil.copy(ROOT / "scripts/get-smollm2", at / "scripts")
    (at / "artifacts").symlink_to(ROOT / "artifacts")
    (at / "models" / SOURCE.name).symlink_to(SOURCE)
    (at / "build/release/fathom").symlink_to((BUILD / "fathom").resolve())
    run = lambda: subprocess.run(["scripts/get-smollm2", "--fathom"], cwd=at, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    folder = at / run()
    stamp = (folder / "model.gguf").stat().st_mtime_ns
    assert run() == str(folder.relative_to(at)) and (folder / "model.gguf").stat().st_mtime_ns == stamp, "what is there is not made again"
    return at, folder


def test_get_smollm2_makes_it(made):
    at, folder = made
    with (folder / "made-of.json").open("a") as f:
        f.write(" ")
    stamp = (folder / "model.gguf").stat().st_mtime_ns
    subprocess.run(["scripts/get-smollm2", "--fathom"], cwd=at, capture_output=True, check=True, timeout=60)
    assert (folder / "model.gguf").stat().st_mtime_ns != stamp, "one of another artifact is"
    wrong = subprocess.run(["scripts/get-smollm2", "--dial"], cwd=at, capture_output=True, text=True)
    assert wrong.returncode == 2 and "unknown option '--dial'" in wrong.stderr
    (at / "build/release/fathom").unlink()
    alone = subprocess.run(["/bin/bash", "scripts/get-smollm2", "--fathom"], cwd=at, capture_output=True, text=True, env={**os.environ, "PATH": "/usr/bin:/bin"})
    assert alone.returncode == 1 and "needs the program fathom" in alone.stderr


def test_its_dial_costs_little(made, tmp_path):
    _, folder = made
    (tmp_path / "text.txt").write_text(TEXT)

    def evaluated(model, *words):
        done = subprocess.run([BUILD / "fathom", "eval", model, "--data", tmp_path / "text.txt", "--json", "--quiet", *words], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)["model"]

    dense, low = evaluated(SOURCE), evaluated(folder, "--dial", "0.75")
    assert 0.65 < low["block_fraction"] < 0.85
    assert low["loss"] < dense["loss"] + 0.35, (low["loss"], dense["loss"])  # 0.26 on prose unlike that of its tuning


def test_it_answers_at_a_low_dial(made):
    """Tuned without conversations, a model went on answering at dial 0.9 and said nothing at 0.75."""
    _, folder = made
    asked = ["What is the capital of Portugal?", "How do I boil an egg so that the yolk stays soft?", "Explain to a ten-year-old why the sky is blue.", "What is the difference between a virus and a bacterium?"]
    for dial in ("0.75", "0.65"):
        said = subprocess.run([BUILD / "fathom", "chat", folder, "--dial", dial, "--temperature", "0", "--max-tokens", "24"], input="\n/clear\n".join(asked) + "\n", capture_output=True, text=True, check=True).stdout
        answers = said.split("a new conversation\n")
        assert len(answers) == len(asked) and all(len(answer.split()) >= 5 for answer in answers), said
