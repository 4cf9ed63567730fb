"""docs/limits.md and src/core/limits.h say the same: every bound with its value, the rooms that check it and a test that tries it."""
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEADER = "src/core/limits.h"
UNITS = {"kKiB": 1024, "kMiB": 1024**2, "kGiB": 1024**3}


def bounds():
    text = (ROOT / HEADER).read_text()
    found = {}
    for name, value in re.findall(r"\b(k[A-Z]\w*) = ([^,;]+)[,;]", text):
        if name not in UNITS:
            expression = re.sub(r"int64_t\{(\d+)\}", r"\1", value)
            assert re.fullmatch(r"[\w\s.*<+-]+", expression), expression
            found[name] = eval(expression, {"__builtins__": {}}, UNITS)  # a product or shift of literals
    return found


def page():
    rows = {}
    for line in (ROOT / "docs/limits.md").read_text().splitlines():
        cells = [c.strip() for c in line.strip("|").split("|")]
        if len(cells) == 5 and (name := re.fullmatch(r"`(k\w+)`", cells[0])):
            rows[name[1]] = {"value": cells[1], "rooms": cells[3].split(", "), "tests": re.findall(r"`([^`]+)`", cells[4])}
    return rows


def value_of(text):
    for unit in ("KiB", "MiB", "GiB"):
        text = text.replace(unit, "* " + str(UNITS["k" + unit]))
    return eval(text.replace("^", "**"), {"__builtins__": {}})


def names(path, bound):
    return re.search(rf"\b{bound}\b", path.read_text()) is not None


BOUNDS, PAGE = bounds(), page()


def test_the_page_lists_the_bounds():
    assert len(BOUNDS) > 50 and list(PAGE) == list(BOUNDS)


@pytest.mark.parametrize("bound", BOUNDS)
def test_bound(bound):
    row = PAGE[bound]
    assert value_of(row["value"]) == BOUNDS[bound]
    rooms = {p.relative_to(ROOT / "src").parts[0] for p in (ROOT / "src").rglob("*") if p.suffix in (".h", ".cpp") and str(p.relative_to(ROOT)) != HEADER and names(p, bound)}
    assert row["rooms"] == sorted(rooms), "rooms that name it"
    assert row["tests"], "no test"
    for test in row["tests"]:
        assert names(ROOT / "tests" / test, bound), f"tests/{test} does not name it"
