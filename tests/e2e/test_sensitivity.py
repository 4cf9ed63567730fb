"""`fathom sensitivity` as a person runs it: the table, the JSON, the picture, and what a block is worth against a model without it."""
import json
import shutil
import xml.etree.ElementTree as xml

import pytest

ON = ("--data", "corpus.txt", "--context", 64, "--limit", 2000)


def loss(fathom, model):
    return json.loads(fathom("eval", model, *ON, "--json", "--quiet").out)["model"]["loss"]


def test_a_block_is_worth_what_its_absence_costs(fathom, folder):
    found = json.loads(fathom("sensitivity", "dense", *ON, "--forced-positions", 0, "--json", "--quiet").out)
    whole = loss(fathom, "dense")
    assert found["loss"] == pytest.approx(whole, rel=1e-6) and found["share"] == 0.5 and found["tokens"] > 1000
    assert [b["index"] for b in found["blocks"]] == [0, 1, 2, 3]
    for b in found["blocks"]:
        fathom("convert", "dense", "worth", "--drop-blocks", b["index"], "--blocks", "none", "--light", "none", "--quiet")
        assert b["block"]["all"] == pytest.approx(loss(fathom, "worth") - whole, abs=2e-6)
        shutil.rmtree(folder / "worth")


def test_the_table_and_the_picture(fathom, folder):
    done = fathom("sensitivity", "dense", *ON, "--picture", "worth.svg", "--quiet")
    assert all(word in done.out for word in ("block", "attention", "MLP")), done.out
    drawn = (folder / "worth.svg").read_text()
    assert xml.parse(folder / "worth.svg").getroot().tag.endswith("svg")
    assert drawn.count("<circle") == 6 * 4, "every block has its six marks, those that cost nothing too"
    assert "worth.svg" in fathom("sensitivity", "dense", *ON, "--picture", "worth.svg", "--quiet", code=2).err
    fathom("sensitivity", "dense", *ON, "--picture", "worth.svg", "--overwrite", "--quiet")
    (folder / "worth.svg").unlink()


def test_no_share_costs_nothing_and_the_whole_is_all(fathom):
    at = {share: json.loads(fathom("sensitivity", "dense", *ON, "--share", share, "--json", "--quiet").out)["blocks"] for share in (0, 0.25, 1)}
    for none, some, every in zip(at[0], at[0.25], at[1]):
        for part in ("attention", "mlp"):
            assert none[part]["least"] == pytest.approx(0, abs=1e-7)
            assert every[part]["least"] == pytest.approx(every[part]["all"], abs=1e-6)
            assert some[part]["least"] != 0 and some[part]["least"] != every[part]["least"]


def test_wrong_words(fathom):
    assert "--data" in fathom("sensitivity", "dense", code=2).err
    assert "a dense model" in fathom("sensitivity", "mod", *ON, code=1).err
    assert "--share" in fathom("sensitivity", "dense", *ON, "--share", 2, code=2).err
