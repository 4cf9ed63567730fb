"""docs/limits.md names every bound of src/core/limits.h, and every bound is used."""
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
UNITS = {"kKiB", "kMiB", "kGiB"}


def bounds():
    text = (ROOT / "src/core/limits.h").read_text()
    return [n for n in re.findall(r"\b(k[A-Z]\w*) = ", text) if n not in UNITS]


def test_every_bound_is_documented():
    page = (ROOT / "docs/limits.md").read_text()
    assert bounds() and [n for n in bounds() if f"`{n}`" not in page] == []


def test_every_bound_is_used():
    sources = [p.read_text() for p in (ROOT / "src").rglob("*") if p.suffix in (".h", ".cpp") and p.name != "limits.h"]
    assert [n for n in bounds() if not any(n in s for s in sources)] == []
