"""./demo: what it refuses before it does anything, and its whole way on a text of a few pages."""
import json
import pathlib
import shutil
import subprocess

import pytest
from conftest import write_corpus

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def demo(tmp_path):
    """The script in a checkout whose set-up fails, so that a call that is not refused goes no further."""
    here = tmp_path / "checkout"
    (here / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "demo", here)
    setup = here / "scripts/setup"
    setup.write_text("#!/bin/sh\necho set-up reached\nexit ${SETUP_ENDS:-7}\n")
    setup.chmod(0o755)
    user = tmp_path / "user"
    (user / "data").mkdir(parents=True)
    (user / "data/text.txt").write_text("the only copy")

    def call(*arguments):
        before = sorted(p.relative_to(user) for p in user.rglob("*"))
        done = subprocess.run([here / "demo", *arguments], cwd=user, capture_output=True, text=True, check=False)
        assert sorted(p.relative_to(user) for p in user.rglob("*")) == before
        return done

    call.user = user
    return call


@pytest.mark.parametrize("arguments, message", [
    (("--data", "data", "--out", "."), "other files in it"),
    (("--out", "data"), "other files in it"),
    (("--data", "none"), "no such file or folder"),
    (("--flops", "1.5x3"), "--flops: found '1.5x3'"),
    (("--flops", "-1"), "--flops: found '-1'"),
    (("--flops", "nan"), "--flops: found 'nan'"),
    (("--seed", "one"), "--seed: found 'one'"),
    (("--seed", "-1"), "--seed: found '-1'"),
])
def test_refused(demo, arguments, message):
    done = demo(*arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert "set-up reached" not in done.stdout


def test_text_inside_a_demo_folder_is_refused(demo):
    (demo.user / "data/.fathom-demo").touch()
    done = demo("--data", "data/text.txt", "--out", "data")
    assert done.returncode == 1
    assert "lies inside --out" in done.stderr


@pytest.mark.parametrize("make", [lambda out: None, lambda out: out.mkdir(), lambda out: (out.mkdir(), (out / ".fathom-demo").touch())])
def test_a_new_an_empty_and_a_demos_folder_are_taken(demo, make):
    make(demo.user / "out")
    done = demo("--data", "data", "--out", "out", "--flops", "1e9", "--seed", "3")
    assert done.returncode == 7
    assert "set-up reached" in done.stdout


def test_an_interrupted_demo_says_how_to_go_on(demo, monkeypatch):
    assert "goes on" not in demo("--out", "out").stderr
    monkeypatch.setenv("SETUP_ENDS", "130")
    done = demo("--out", "out")
    assert done.returncode == 130
    assert "demo: interrupted; the same command goes on where it was" in done.stderr


def test_from_a_text_to_the_page_and_on_from_where_it_was(tmp_path, build):
    """The script and its configurations in a checkout of their own, with the programs of this build: nothing is set up or built."""
    here = tmp_path / "checkout"
    (here / "scripts").mkdir(parents=True)
    (here / "build").mkdir()
    (here / "build/release").symlink_to(build)
    shutil.copy(ROOT / "demo", here)
    shutil.copytree(ROOT / "configs/demo", here / "configs/demo")
    for name in ("setup", "build"):
        (here / "scripts" / name).write_text(f'#!/bin/sh\necho "called {name} $*"\n')
        (here / "scripts" / name).chmod(0o755)
    user = tmp_path / "user"
    user.mkdir()
    write_corpus(user / "small.txt", 160, 4)

    def call():
        done = subprocess.run([here / "demo", "--data", "small.txt", "--flops", "1e9", "--out", "tmp"], cwd=user, capture_output=True, text=True,
                              errors="replace", check=False, timeout=600)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    first, out = call(), user / "tmp"
    assert "called setup \n" in first and "called build build/release -- fathom fathom-train\n" in first
    for model in ("mod", "same-shape", "same-cost"):
        assert f"Training {model}" in first and f"{out}/{model} is finished" not in first
        assert json.loads((out / model / "summary.json").read_text())["steps"] >= 1
        assert (out / model / "model/model.safetensors").exists()
    page = (here / "demo-report.html").read_text()
    assert page.startswith("<!doctype html>") and all(name in page for name in ("mod", "same-shape", "same-cost"))
    assert "A sample: every token coloured by its depth" in first and first.rstrip().splitlines()[-1].startswith("── Done: open demo-report.html")

    # Stopped before the last model: the first two, the tokenizer and the data stay.
    before = {p: p.stat().st_mtime_ns for p in (out / "tokenizer.json", out / "data/manifest.json", out / "mod/summary.json", out / "same-shape/summary.json")}
    shutil.rmtree(out / "same-cost")
    second = call()
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert f"{out}/mod is finished" in second and f"{out}/same-shape is finished" in second and f"{out}/same-cost is finished" not in second
    assert (out / "same-cost/summary.json").exists()


def test_build_is_told_its_folder():
    for words, code in ((["--help"], 0), ([], 2), (["-x"], 2)):
        done = subprocess.run([ROOT / "scripts/build", *words], capture_output=True, text=True, check=False)
        assert done.returncode == code
        assert "folder" in (done.stdout + done.stderr).lower()
