"""tests/mutations.py still fits the code: a mutation whose text is gone breaks nothing and proves nothing."""
import importlib.util
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

spec = importlib.util.spec_from_file_location("mutations", ROOT / "tests/mutations.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
MUTATIONS = module.MUTATIONS


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m[0])
def test_the_text_occurs_once(mutation):
    _, _, file, written, broken, program, _ = mutation
    assert (ROOT / file).read_text().count(written) == 1
    assert written != broken
    assert (ROOT / program).is_file() if program.endswith(".py") else (ROOT / "tests" / program.removeprefix("test_").split("_")[0] / "CMakeLists.txt").is_file()


def test_the_page_names_them_all():
    page = re.findall(r"`([a-z0-9-]+)`", "\n".join(line.rsplit("|", 2)[1] for line in (ROOT / "docs/proofs.md").read_text().splitlines() if line.startswith("|")))
    names = [m[0] for m in MUTATIONS]
    assert len(set(names)) == len(names)
    assert sorted(set(page)) == sorted(names)
