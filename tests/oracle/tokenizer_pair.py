"""What the tokenizer tests share: our side as a process, the comparison, texts that are hard to cut."""
import os
import pathlib
import random
import struct
import subprocess
import unicodedata

from tokenizers import normalizers

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(os.environ.get("FATHOM_BUILD", ROOT / "build"))
TOOL = BUILD / "tests" / "tokenize_tool"


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
