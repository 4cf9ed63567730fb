"""The built program, and a folder with a corpus, a tokenizer, small models with drawn weights and a dataset for it."""
import json
import os
import pathlib
import random
import subprocess

import pytest

BUILD = pathlib.Path(os.environ.get("FATHOM_BUILD", pathlib.Path(__file__).resolve().parents[2] / "build/release")).resolve()
WORDS = "the sea is calm tonight tide full moon lies fair upon straits coast light gleams and gone cliffs of England stand".split()


class Program:
    def __init__(self, path, folder):
        self.path, self.folder = str(path), folder

    def __call__(self, *words, code=0, stdin="", env=None, timeout=120):
        """Runs the program in the folder; checks the exit code; returns the finished process."""
        full = dict(os.environ, **(env or {}))
        for name in ("NO_COLOR", "FATHOM_ISA"):
            if not env or name not in env:
                full.pop(name, None)
        done = subprocess.run([self.path, *map(str, words)], input=stdin.encode() if isinstance(stdin, str) else stdin, capture_output=True,
                              cwd=self.folder, timeout=timeout, env=full)
        done.out, done.err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        assert done.returncode == code, f"{words}: exit code {done.returncode}, expected {code}\n{done.err}\n{done.out[:2000]}"
        return done


def write_corpus(path, documents, seed):
    draw = random.Random(seed)
    texts = []
    for _ in range(documents):
        sentences = []
        for _ in range(draw.randint(8, 20)):
            words = [draw.choice(WORDS) for _ in range(draw.randint(3, 12))]
            sentences.append(" ".join(words).capitalize() + draw.choice([".", ".", "!", "?", f", {draw.randint(1, 2000)}.", " — été…", " " + "".join(draw.choices("abcdefghijklmnop", k=9)) + "."]))
        texts.append("\n".join(sentences))
    path.write_text("\n<|endoftext|>\n".join(texts) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """corpus.txt, tok.json, models mod, long, dense, thin and paths, dataset data/."""
    if not (BUILD / "fathom").exists():
        pytest.fail(f"no program {BUILD / 'fathom'}: build it, or set FATHOM_BUILD")
    path = tmp_path_factory.mktemp("cli")
    write_corpus(path / "corpus.txt", 60, 1)
    run = Program(BUILD / "fathom", path)
    run("tokenizer", "train", "corpus.txt", "--vocab-size", "400", "--out", "tok.json", "--quiet")
    for i, kind in enumerate(["mod", "long", "dense", "thin", "paths"]):
        subprocess.run([BUILD / "tests/tools/make_sample_model", path / kind, path / "tok.json", kind, str(i + 1)], check=True)
    run("data", "prepare", "corpus.txt", "--tokenizer", "tok.json", "--out", "data", "--validation-share", "0.3", "--quiet")
    return path


@pytest.fixture(scope="session")
def fathom(folder):
    return Program(BUILD / "fathom", folder)


@pytest.fixture(scope="session")
def build():
    return BUILD


def read_safetensors(path):
    """name → (type, shape, bytes); and the metadata."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:8 + size])
    about = header.pop("__metadata__", {})
    return {name: (t["dtype"], t["shape"], raw[8 + size + t["data_offsets"][0]:8 + size + t["data_offsets"][1]]) for name, t in header.items()}, about


def write_safetensors(path, tensors, about):
    header, at = {"__metadata__": about}, 0
    for name, (kind, shape, raw) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + len(raw)]}
        at += len(raw)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(raw for _, _, raw in tensors.values()))
