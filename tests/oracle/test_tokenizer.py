"""The `tokenizers` package as the oracle of src/text: whole tokenizers give equal ids and equal texts."""
import ctypes
import ctypes.util
import functools
import json
import os
import pathlib
import random
import subprocess
import sysconfig

import pytest

tokenizers = pytest.importorskip("tokenizers")
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers  # noqa: E402
from tokenizer_pair import ROOT, TOOL, TRAPS, Tool, compare, random_texts  # noqa: E402

DATA = pathlib.Path(os.environ.get("FATHOM_DATA", ROOT / ".." / "shared" / "data"))
HEAD = 1_000_000

needs_data = pytest.mark.skipif(not (DATA / "tokenizers").is_dir(), reason="no ../shared/data")


def zst_head(path, size):
    """The first bytes of a .zst file, by libzstd."""
    lib = ctypes.CDLL(ctypes.util.find_library("zstd"))

    class Buffer(ctypes.Structure):
        _fields_ = [("data", ctypes.c_void_p), ("size", ctypes.c_size_t), ("pos", ctypes.c_size_t)]

    lib.ZSTD_createDStream.restype = ctypes.c_void_p
    lib.ZSTD_decompressStream.restype = ctypes.c_size_t
    stream = ctypes.c_void_p(lib.ZSTD_createDStream())
    raw = path.read_bytes()[: max(size, 1 << 20)] if size else path.read_bytes()
    source, target = ctypes.create_string_buffer(raw, len(raw)), ctypes.create_string_buffer(1 << 16)
    inp, out = Buffer(ctypes.addressof(source), len(raw), 0), b""
    while inp.pos < inp.size and (not size or len(out) < size):
        o = Buffer(ctypes.addressof(target), len(target), 0)
        assert not lib.ZSTD_isError(ctypes.c_size_t(lib.ZSTD_decompressStream(stream, ctypes.byref(o), ctypes.byref(inp))))
        out += target.raw[: o.pos]
    lib.ZSTD_freeDStream(stream)
    return out[:size] if size else out


CORPORA = sorted(p.name for p in (DATA / "corpora").iterdir()) if (DATA / "corpora").is_dir() else []


@functools.cache
def corpus_head(name):
    path = DATA / "corpora" / name
    return (zst_head(path, HEAD) if path.suffix == ".zst" else path.read_bytes()[:HEAD]).decode(errors="replace")


def build_gpt2(folder):
    source = DATA / "tokenizers" / "gpt2"
    t = Tokenizer(models.BPE.from_file(str(source / "vocab.json"), str(source / "merges.txt")))
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    t.add_special_tokens(["<|endoftext|>"])
    return t


def build_llama2(folder):
    transformers = pytest.importorskip("transformers")
    (folder / "tokenizer.model").write_bytes((DATA / "tokenizers" / "llama2" / "tokenizer.model").read_bytes())
    return transformers.LlamaTokenizerFast.from_pretrained(str(folder), legacy=False).backend_tokenizer


def build_llama2_classic(folder):
    """As the file that Meta's models carry: everything by normalizers, a template with <s>."""
    t = build_llama2(folder)
    t.pre_tokenizer = None
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    return t


def build_qwen3(folder):
    return Tokenizer.from_str(zst_head(DATA / "tokenizers" / "qwen3" / "tokenizer.json.zst", 0).decode())


@functools.cache
def library_text():
    """The source of Python's standard library, which every machine has."""
    root, out = pathlib.Path(sysconfig.get_path("stdlib")), ""
    for path in sorted(root.glob("*.py")):
        out += path.read_text("utf-8", "replace")
    assert len(out) > HEAD
    return out[:HEAD]


def train_ours(folder, pattern="llama3", vocab=2000, threads=2):
    out, text = folder / f"trained-{pattern}-{vocab}-{threads}.json", folder / "library.txt"
    text.write_text(library_text())
    subprocess.run([str(TOOL), "train", str(out), str(vocab), pattern, str(threads), str(text)], check=True)
    return out


def build_trained(folder):
    return Tokenizer.from_file(str(train_ours(folder)))


BUILDERS = {"trained": build_trained, "gpt2": build_gpt2, "llama2": build_llama2, "llama2_classic": build_llama2_classic, "qwen3": build_qwen3}


@pytest.fixture(scope="module", params=list(BUILDERS))
def pair(request, tmp_path_factory):
    """(theirs, ours) for each tokenizer."""
    if request.param != "trained" and not (DATA / "tokenizers").is_dir():
        pytest.skip("no ../shared/data")
    folder = tmp_path_factory.mktemp(request.param)
    theirs = BUILDERS[request.param](folder)
    theirs.no_truncation()
    theirs.no_padding()
    theirs.save(str(folder / "tokenizer.json"))
    ours = Tool(folder)
    yield theirs, ours
    ours.close()


@functools.cache
def many_random_texts():
    return list(random_texts(10_000, 7))


@needs_data
@pytest.mark.parametrize("corpus", CORPORA or ["none"])
def test_corpora(pair, corpus):
    compare(*pair, [corpus_head(corpus)])


def test_random_strings(pair):
    compare(*pair, many_random_texts())


def test_traps(pair):
    compare(*pair, TRAPS)


def test_special_tokens_as_text(pair):
    theirs, ours = pair
    theirs.encode_special_tokens = True
    try:
        for text in [*TRAPS[:80], *random_texts(500, 11)]:
            assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids, repr(text)
    finally:
        theirs.encode_special_tokens = False


def test_template(pair):
    theirs, ours = pair
    for text in TRAPS[:60]:
        assert ours.encode(text, special=True, allow=True) == theirs.encode(text).ids, repr(text)


def test_invalid_utf8_is_read_as_python_replaces_it(pair):
    theirs, ours = pair
    rng = random.Random(3)
    cases = [b"\xff", b"a\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"ok \xe4\xbd\xa0 \xfe\xff end", b"\x80" * 50]
    for text in many_random_texts()[:500]:
        good = bytearray(text.encode())
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(good) + 1)
            good[at:at] = bytes([rng.randrange(128, 256)])
            if rng.random() < 0.3:
                del good[rng.randrange(len(good))]
        cases.append(bytes(good))
    for raw in cases:
        assert ours.encode(raw, allow=True) == theirs.encode(raw.decode(errors="replace"), add_special_tokens=False).ids, raw


def test_decode(pair):
    theirs, ours = pair
    rng = random.Random(5)
    top = theirs.get_vocab_size()
    lists = [theirs.encode(t, add_special_tokens=False).ids for t in [*TRAPS[:80], *random_texts(300, 13)]]
    lists += [[rng.randrange(top) for _ in range(rng.randrange(40))] for _ in range(1500)]
    # Single bytes and byte tokens, so that characters break everywhere.
    lists += [[rng.randrange(min(top, 300)) for _ in range(rng.randrange(30))] for _ in range(1500)]
    lists += [[top + 5, 1, top + 100000], []]
    for ids in lists:
        for skip in (True, False):
            expected = theirs.decode(ids, skip_special_tokens=skip).encode()
            assert ours.decode(ids, skip=skip) == expected, ids
            steps = ours.decode(ids, skip=skip, stream=True).split(b"\xff")
            assert b"".join(steps) == expected, ids
            for step in steps:
                step.decode()  # never part of a character


def words_of(pattern):
    if pattern == "gpt2":
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    regex = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(regex), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


@pytest.mark.parametrize("pattern", ["gpt2", "llama3"])
def test_training_equals_theirs(tmp_path, pattern):
    """The same vocabulary and merges as BpeTrainer, whose ties go to the smaller ids too."""
    ours = train_ours(tmp_path, pattern, 3000, 1)
    assert train_ours(tmp_path, pattern, 3000, 2).read_bytes() == ours.read_bytes()
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = words_of(pattern)
    t.train_from_iterator([library_text()], trainers.BpeTrainer(
        vocab_size=3000, min_frequency=2, special_tokens=["<|endoftext|>"], show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    expected, got = json.loads(t.to_str())["model"], json.loads(ours.read_text())["model"]
    assert got["vocab"] == expected["vocab"]
    assert got["merges"] == expected["merges"]
