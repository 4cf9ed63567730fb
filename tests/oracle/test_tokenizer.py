"""The `tokenizers` package as the oracle of src/text: equal ids, equal texts."""
import ctypes
import ctypes.util
import functools
import json
import os
import pathlib
import random
import struct
import subprocess
import unicodedata

import pytest

tokenizers = pytest.importorskip("tokenizers")
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(os.environ.get("FATHOM_BUILD", ROOT / "build"))
DATA = pathlib.Path(os.environ.get("FATHOM_DATA", ROOT / ".." / "shared" / "data"))
TOOL = BUILD / "tests" / "tokenize_tool"
HEAD = 1_000_000

needs_data = pytest.mark.skipif(not (DATA / "tokenizers").is_dir(), reason="no ../shared/data")


class Tool:
    """tokenize_tool on one tokenizer.json."""

    def __init__(self, path):
        self.process = subprocess.Popen([str(TOOL), str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, op, payload, count):
        self.process.stdin.write(op + struct.pack("<I", count) + payload)
        self.process.stdin.flush()
        head = self.process.stdout.read(4)
        assert len(head) == 4, f"tokenize_tool died: {self.process.wait()}"
        return struct.unpack("<I", head)[0]

    def encode(self, text, special=False, allow=False):
        payload = text if isinstance(text, bytes) else text.encode()
        op = {(False, False): b"e", (True, False): b"E", (False, True): b"a", (True, True): b"A"}[special, allow]
        n = self.ask(op, payload, len(payload))
        return list(struct.unpack(f"<{n}i", self.process.stdout.read(4 * n)))

    def decode(self, ids, skip=True, stream=False):
        op = {(True, False): b"d", (False, False): b"D", (True, True): b"s", (False, True): b"S"}[skip, stream]
        n = self.ask(op, struct.pack(f"<{len(ids)}i", *ids), len(ids))
        return self.process.stdout.read(n)

    def close(self):
        self.process.stdin.close()
        assert self.process.wait() == 0


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


TRAIN_TEXT = "corpora/tinyshakespeare.txt"


def train_ours(folder, pattern="llama3", vocab=2000, threads=2):
    out = folder / f"trained-{pattern}-{vocab}-{threads}.json"
    subprocess.run([str(TOOL), "train", str(out), str(vocab), pattern, str(threads), str(DATA / TRAIN_TEXT)], check=True)
    return out


def build_trained(folder):
    return Tokenizer.from_file(str(train_ours(folder)))


BUILDERS = {"trained": build_trained, "gpt2": build_gpt2, "llama2": build_llama2, "llama2_classic": build_llama2_classic, "qwen3": build_qwen3}


@pytest.fixture(scope="module", params=list(BUILDERS))
def pair(request, tmp_path_factory):
    """(theirs, ours) for each tokenizer."""
    if not (DATA / "tokenizers").is_dir():
        pytest.skip("no ../shared/data")
    folder = tmp_path_factory.mktemp(request.param)
    theirs = BUILDERS[request.param](folder)
    theirs.no_truncation()
    theirs.no_padding()
    theirs.save(str(folder / "tokenizer.json"))
    ours = Tool(folder)
    yield theirs, ours
    ours.close()


def compare(theirs, ours, texts):
    for text in texts:
        expected = theirs.encode(text, add_special_tokens=False).ids
        got = ours.encode(text, allow=True)
        if got != expected:
            at = next((i for i, (a, b) in enumerate(zip(got, expected)) if a != b), min(len(got), len(expected)))
            before = theirs.decode(expected[max(0, at - 5) : at + 5])
            raise AssertionError(f"ids differ at {at}: {got[at:at+5]} instead of {expected[at:at+5]}, near {before!r}, text {text[:200]!r}")


def random_texts(count, seed, extra=()):
    """Strings of 1 to 60 pieces from every corner of Unicode, all code points with the same meaning in Unicode 12 to 16."""
    rng = random.Random(seed)
    known = normalizers.StripAccents()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>", "<unk>", "<think>", "</think>", "<tool_call>", "<0x0A>", "<0xZZ>"]
    emoji = ["👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪🇫🇷", "❤️", "1️⃣", "🧑🏿‍🚀", "☠️"]
    pieces = special + emoji + list(extra)
    pieces += ["\r\n", "\n", "\r", "\t", " ", "  ", "   ", " " * 17, "\n\n", " \n ", "\u00a0", "\u3000", "\u2028", "\u2029", "\u0085", "\u200b", "\u180e",
               "\ufeff", "\x00", "\x1c", "\u200d", "\u202f", "\v", "\f"]
    pieces += ["'s", "'t", "'re", "'VE", "'m", "'Ll", "'d", "’s", "'ſ", "don't", "I'LL", "''", "'"]
    pieces += ["▁", "▁▁", "_", "Ġ", "Ċ", "é", "e\u0301", "ﬁ", "Å", "Å", "각", "\u1100\u1161\u11a8", "ở", "a\u0323\u0307", "ǅ", "İ", "ß", "ς"]
    pieces += ["the", " the", "Hello", " world", "123", "1234567", "3.14", "x²", "Ⅷ", "٣٤٥", "一二三", "中文字符", "ひらがな", "Привет", " мир",
               "שלום", "مرحبا", "नमस्ते", "ไทย", "한국어", "{}", "();", " //", "!!!", "?\n", " -", "—", "…", "$%^", "#include <a>"]
    pools = [(0x20, 0x7f), (0x20, 0x7f), (0xa0, 0x250), (0x300, 0x370), (0x370, 0x530), (0x590, 0x700), (0x900, 0xe00), (0xe00, 0x1100), (0x1100, 0x1200),
             (0x1e00, 0x2070), (0x2070, 0x2c00), (0x3000, 0x3100), (0x4e00, 0x9fff), (0xac00, 0xd7a4), (0xf900, 0xfb50), (0xfb50, 0x10000),
             (0x10000, 0x11000), (0x1d400, 0x1d800), (0x1f300, 0x1fa00), (0x20000, 0x2a000), (0xe000, 0xf900), (0xe0000, 0xe0200), (0x378, 0x37a)]

    def char():
        while True:
            c = chr(rng.randrange(*rng.choice(pools)))
            category = unicodedata.category(c)
            if category == "Cs" or (category[0] == "M" and known.normalize_str(c) != ""):
                continue
            # The normalizers' tables end with Unicode 12: a later mark or composition is no mark to them.
            if category == "Cn" and not ("\u0378" <= c <= "\u0379"):
                continue
            return c

    for _ in range(count):
        out = []
        for _ in range(rng.randrange(1, rng.choice([4, 12, 60]))):
            kind = rng.random()
            if kind < 0.5:
                out.append(rng.choice(pieces))
            elif kind < 0.6:
                out.append(rng.choice(" \n\t\r\u00a0") * rng.randrange(1, 40))
            elif kind < 0.7:
                out.append("".join(chr(rng.randrange(0x300, 0x34f)) for _ in range(rng.randrange(1, 8))))
            else:
                out.append("".join(char() for _ in range(rng.randrange(1, 6))))
        yield "".join(out)


@functools.cache
def many_random_texts():
    return list(random_texts(10_000, 7))


TRAPS = [
    "", " ", "  ", "\n", "\r\n", "a", " a", "a ", "  a", "a  ", "a  b", "a\r\n\r\n  b", "\t\tif x:\r\n\t\t\treturn 1\r\n",
    "e\u0301e\u0301", "\u0301", "a\u0301\u0327\u0323", "\u1100\u1161\u11a8\u11a8", "각ᆨ", "👩‍👩‍👧‍👦👩‍👩‍👧", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    " " * 1000, "\n" * 1000, " \n" * 500, "a" * 1000, "ab" * 2000, "1" * 1000, "'" * 99, "é" * 500, "中" * 700, "\u0301" * 300, "😀" * 300,
    "<|endoftext|>", "<|endoftext|><|endoftext|>", "a<|endoftext|>b", " <|endoftext|> ", "<|endoftext|", "<<|endoftext|>>", "<s>a</s>", "<s> a </s> b", "</s></s>x",
    "<|im_start|>user\nHi<|im_end|>\n", "<think>\n\n</think>\n\n", "▁a▁▁b", "▁ ▁", " ▁", "<0x41>", "don't DON'T I'll i'LL 'tis '", "'ſ 'S", "x'ſ",
    "\u180e\u180ea", "a\u0085b", "a\u200bb", "\ufeffa", "a\x00b", "\x1c\x1d\x1e\x1f", "\u2028\u2029", "ﷺ", "\U0010ffff", "\ud7ff\ue000",
    "1234567890 12 123 1234 ٣٤٥٦ ½ Ⅷ ²³", "http://a.b/c?d=e&f=g#h", "def f(x):\n    return x  # ok\n\n\n", "Ünïcödé ŁÓDŹ ﬁ ﬂ",
    "word" * 20000, ("x " * 30000),
]


@needs_data
@pytest.mark.parametrize("corpus", CORPORA or ["none"])
def test_corpora(pair, corpus):
    compare(*pair, [corpus_head(corpus)])


@needs_data
def test_random_strings(pair):
    compare(*pair, many_random_texts())


@needs_data
def test_traps(pair):
    compare(*pair, TRAPS)


@needs_data
def test_special_tokens_as_text(pair):
    theirs, ours = pair
    theirs.encode_special_tokens = True
    try:
        for text in [*TRAPS[:80], *random_texts(500, 11)]:
            assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids, repr(text)
    finally:
        theirs.encode_special_tokens = False


@needs_data
def test_template(pair):
    theirs, ours = pair
    for text in TRAPS[:60]:
        assert ours.encode(text, special=True, allow=True) == theirs.encode(text).ids, repr(text)


@needs_data
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


@needs_data
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


@needs_data
@pytest.mark.parametrize("pattern", ["gpt2", "llama3"])
def test_training_equals_theirs(tmp_path, pattern):
    """The same vocabulary and merges as BpeTrainer, whose ties go to the smaller ids too."""
    ours = train_ours(tmp_path, pattern, 3000, 1)
    assert train_ours(tmp_path, pattern, 3000, 2).read_bytes() == ours.read_bytes()
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = words_of(pattern)
    t.train_from_iterator([(DATA / TRAIN_TEXT).read_text()], trainers.BpeTrainer(
        vocab_size=3000, min_frequency=2, special_tokens=["<|endoftext|>"], show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    expected, got = json.loads(t.to_str())["model"], json.loads(ours.read_text())["model"]
    assert got["vocab"] == expected["vocab"]
    assert got["merges"] == expected["merges"]


S = pre_tokenizers.Split
N = normalizers
P = pre_tokenizers
BEHAVIORS = ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]
CL100K = r"(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"
            r"\s*[\r\n]+|\s+(?!\S)|\s+")
PRE_TOKENIZERS = {
    **{f"split_{b}_{i}": S(Regex(r"\s+|[aeiou]+"), b, i) for b in BEHAVIORS for i in (False, True)},
    **{f"split_string_{b}": S(" ", b) for b in BEHAVIORS},
    **{f"split_gpt2_{b}": S(Regex(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"), b, i) for b in BEHAVIORS for i in (False, True)},
    "split_empty_matches": S(Regex("x*"), "isolated"),
    "split_lookbehind": S(Regex(r"(?<=\p{L})(?=\p{N})|(?<=[,.])\b"), "isolated"),
    "split_word": S(Regex(r"\w+"), "removed", True),
    "split_not_word": S(Regex(r"\W+|\d"), "isolated"),
    "split_lines": S(Regex(r"^\s*|$"), "isolated"),
    "split_dotall": S(Regex(r"(?m)a.b|c(?i)d|e"), "isolated"),
    "split_hex": S(Regex(r"\h+|\u0041|\x{301}"), "isolated"),
    "split_han": S(Regex(r"[\p{Han}\p{Hiragana}\p{Katakana}]+|\p{^L}\P{N}"), "isolated"),
    "cl100k": S(Regex(CL100K.replace("++", "+").replace("?+", "?")), "isolated"),
    "cl100k_possessive": S(Regex(CL100K), "isolated"),
    "o200k": S(Regex(O200K), "isolated"),
    "deepseek": P.Sequence([S(Regex(r"\p{N}{1,3}"), "isolated"), S(Regex(r"[一-龥぀-ゟ゠-ヿ]+"), "isolated"), S(Regex(DEEPSEEK), "isolated")]),
    "digits": P.Digits(False),
    "digits_each": P.Digits(True),
    "smollm": P.Sequence([P.Digits(True), P.ByteLevel(add_prefix_space=False)]),
    "bytelevel_prefix": P.ByteLevel(add_prefix_space=True),
    "bytelevel_plain": P.ByteLevel(add_prefix_space=False, use_regex=False),
    "bytelevel_then_split": P.Sequence([P.ByteLevel(add_prefix_space=False), S("Ġ", "isolated")]),
    **{f"metaspace_{s}_{c}": P.Metaspace("▁", s, c) for s in ("always", "first", "never") for c in (True, False)},
    "metaspace_after_split": P.Sequence([S(Regex(r"\n"), "isolated"), P.Metaspace("_", "first", True)]),
    "whitespace": P.Whitespace(),
    "whitespace_split": P.WhitespaceSplit(),
    "delimiter": P.CharDelimiterSplit("e"),
    "fixed": P.FixedLength(3),
    **{f"punctuation_{b}": P.Punctuation(b) for b in BEHAVIORS},
    "bert": P.BertPreTokenizer(),
    "none": None,
}
NORMALIZERS = {
    "nfc": N.NFC(), "nfd": N.NFD(), "nfkc": N.NFKC(), "nfkd": N.NFKD(), "lower": N.Lowercase(), "strip": N.Strip(), "strip_left": N.Strip(True, False),
    "strip_right": N.Strip(False, True), "accents": N.Sequence([N.NFD(), N.StripAccents(), N.NFC()]), "nmt": N.Nmt(), "prepend": N.Prepend("ab "),
    "replace": N.Replace("the", "THE"), "replace_regex": N.Replace(Regex(r" {2,}|\p{M}"), "¿"),
    "replace_away": N.Replace(Regex(r"\s"), ""), "bytes": N.ByteLevel(),
    "many": N.Sequence([N.Strip(), N.NFKC(), N.Lowercase(), N.Replace("e", "éé"), N.Prepend("▁"), N.NFD()]),
}


@functools.cache
def component_texts():
    decompose, punctuation = N.NFKD(), P.Punctuation()

    @functools.cache
    def agreed(c):
        # Punctuation and compatibility forms that came after the package's tables (Unicode 8 and 12).
        return (decompose.normalize_str(c) == unicodedata.normalize("NFKD", c) and c not in "\u166d\U000111c9" and
                (unicodedata.category(c)[0] != "P" or len(punctuation.pre_tokenize_str("a" + c)) == 2))

    return ["".join(filter(agreed, text)) for text in [*TRAPS[:88], *random_texts(250, 17)]]


def check_component(tmp_path, theirs):
    path = tmp_path / "tokenizer.json"
    theirs.save(str(path))
    ours = Tool(path)
    compare(theirs, ours, component_texts())
    ours.close()


@pytest.fixture(scope="module")
def loose():
    """A BPE over characters that merges across anything, so that every cut of a pre-tokenizer shows in the ids."""
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    t.train_from_iterator(component_texts() * 3, trainers.BpeTrainer(vocab_size=6000, show_progress=False, special_tokens=["<unk>"],
                          initial_alphabet=[*P.ByteLevel.alphabet(), "▁", "_"]))
    return t.to_str()


@pytest.fixture(scope="module")
def byte_level():
    """A small byte-level BPE: its ids spell a text exactly, so a difference of one byte shows."""
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = P.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(component_texts() * 3, trainers.BpeTrainer(vocab_size=2000, show_progress=False, initial_alphabet=P.ByteLevel.alphabet()))
    return t.to_str()


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_pre_tokenizer(tmp_path, loose, name):
    t = Tokenizer.from_str(loose)
    if PRE_TOKENIZERS[name]:
        t.pre_tokenizer = PRE_TOKENIZERS[name]
    check_component(tmp_path, t)


@pytest.mark.parametrize("name", NORMALIZERS)
def test_normalizer(tmp_path, byte_level, name):
    t = Tokenizer.from_str(byte_level)
    t.normalizer = NORMALIZERS[name]
    t.add_tokens([tokenizers.AddedToken("don't", normalized=True), tokenizers.AddedToken("Hello", normalized=False)])
    check_component(tmp_path, t)


@pytest.mark.parametrize("flags", range(16))
def test_added_tokens(tmp_path, byte_level, flags):
    t = Tokenizer.from_str(byte_level)
    options = dict(single_word=bool(flags & 1), lstrip=bool(flags & 2), rstrip=bool(flags & 4), normalized=bool(flags & 8))
    if flags & 8:
        t.normalizer = N.Lowercase()
    tokens = ["the", "e", "Привет", "  ", " world", "'s", "wor", "\u0301", "é", "中", "\n", "<|im", "<|im_start|>", "▁", "12"]
    t.add_tokens([tokenizers.AddedToken(x, **options) for x in tokens])
    t.add_special_tokens([tokenizers.AddedToken("Hello", **options)])
    check_component(tmp_path, t)
    path = tmp_path / "tokenizer.json"
    ours = Tool(path)
    for text in random_texts(50, 23, tokens):
        ids = t.encode(text, add_special_tokens=False).ids
        assert ours.encode(text, allow=True) == ids
        assert ours.decode(ids, skip=False) == t.decode(ids, skip_special_tokens=False).encode()
    ours.close()


MODELS = {
    "unk": dict(unk_token="<unk>"), "unk_fused": dict(unk_token="<unk>", fuse_unk=True), "no_unk": dict(),
    "ignore_merges": dict(unk_token="<unk>", ignore_merges=True), "fallback": dict(byte_fallback=True, unk_token="<unk>"),
    "fallback_fused": dict(byte_fallback=True, unk_token="<unk>", fuse_unk=True),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("holes", [False, True])
def test_model(tmp_path, loose, name, holes):
    """Characters without a token, and (holes) a fallback that lacks some bytes; and merges that make no sense."""
    model = json.loads(loose)["model"]
    vocab, merges = model["vocab"], [tuple(m) for m in model["merges"]]
    kept = {k for k in vocab if len(k) > 1 or ord(k) < 0x400 or k == "▁"}
    merges = [m for m in merges if m[0] in kept and m[1] in kept and m[0] + m[1] in kept]
    rng = random.Random(29)
    rng.shuffle(merges)
    names = sorted(kept) + [f"<0x{b:02X}>" for b in range(256) if not holes or b % 3]
    t = Tokenizer(models.BPE(vocab={k: i for i, k in enumerate(names)}, merges=merges, **MODELS[name]))
    if name != "fallback":
        t.pre_tokenizer = P.Sequence([S(" ", "isolated"), S("a", "merged_with_previous")])
    check_component(tmp_path, t)


DECODERS = {
    "none": None, "bytelevel": decoders.ByteLevel(), "fallback": decoders.ByteFallback(), "fuse": decoders.Fuse(), "metaspace": decoders.Metaspace(),
    "metaspace_never": decoders.Metaspace(prepend_scheme="never"), "strip": decoders.Strip("e", 2, 0), "replace": decoders.Replace("e", "EE"),
    "replace_regex": decoders.Replace(Regex(r"[aeiou]+"), "*"),
    "llama": decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]),
    "fused_replace": decoders.Sequence([decoders.Fuse(), decoders.Replace("e t", "E-T"), decoders.Strip("a", 3, 2)]),
    "odd": decoders.Sequence([decoders.ByteFallback(), decoders.Strip("a", 1, 0), decoders.ByteLevel(), decoders.Replace(Regex("e."), "!"), decoders.Metaspace()]),
}


@pytest.mark.parametrize("name", DECODERS)
def test_decoder(tmp_path, loose, name):
    t = Tokenizer.from_str(loose)
    t.add_tokens([f"<0x{b:02X}>" for b in range(256)])
    t.add_special_tokens(["<x>", "é "])
    if DECODERS[name]:
        t.decoder = DECODERS[name]
    path = tmp_path / "tokenizer.json"
    t.save(str(path))
    ours = Tool(path)
    rng = random.Random(31)
    low, top = t.token_to_id("<0x00>"), t.get_vocab_size()
    for _ in range(800):
        ids = [rng.randrange(low, top) if rng.random() < 0.5 else rng.randrange(top) for _ in range(rng.randrange(25))]
        if name in ("fused_replace",) and not ids:
            continue
        for skip in (True, False):
            expected = t.decode(ids, skip_special_tokens=skip).encode()
            assert ours.decode(ids, skip=skip) == expected, ids
            assert ours.decode(ids, skip=skip, stream=True).replace(b"\xff", b"") == expected, ids
    ours.close()
