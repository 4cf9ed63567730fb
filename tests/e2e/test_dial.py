"""`fathom dial` as a person runs it: the curve and where its figures come from, what is kept, the pick of a default, every wrong word."""
import json
import os
import re
import shutil
import signal
import subprocess

import pytest

from test_pages import CONTRAST, browse, check, chromium

TEXT = ("--data", "corpus.txt", "--context", 64, "--limit", 3000)
QUICK = (*TEXT, "--no-speed", "--quiet")
CURVE, DIAL = "fathom_curve.json", "fathom_dial.json"


@pytest.fixture(autouse=True)
def cleared(folder):
    """What a test writes into the folder that all share goes with it."""
    before = set(os.listdir(folder))
    yield
    for name in set(os.listdir(folder)) - before:
        (shutil.rmtree if (folder / name).is_dir() else os.remove)(folder / name)


@pytest.fixture
def model(folder):
    """A routed model of the test's own."""
    shutil.copytree(folder / "mod", folder / "own")
    return folder / "own"


def dial(fathom, *words, code=0):
    done = fathom("dial", "own", *words, code=code)
    return json.loads(done.out) if "--json" in words and code == 0 else done


def evaluated(fathom, model, *words):
    return json.loads(fathom("eval", model, *TEXT, "--json", "--quiet", "--no-teacher", *words).out)["model"]


def bytes_of(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_figures_are_those_of_eval(fathom, folder, model):
    curve = dial(fathom, *QUICK, "--against", "dense", "--rival", "thin", "--json")
    assert [p["dial"] for p in curve["points"]] == [1, 0.7, 0.6] and curve["text"] == "corpus.txt" and curve["context"] == 64
    for p in curve["points"]:
        e = evaluated(fathom, "own", "--dial", p["dial"])
        assert p["loss"] == {k: e["loss_interval"][k] for k in ("value", "ci95")}
        assert (p["block_fraction"], p["total_fraction"], p["perplexity"]) == (e["block_fraction"], e["total_fraction"], e["perplexity"])
        assert p["full"] == [b["realised"] for b in e["blocks"]]
        assert curve["tokens"] == e["tokens"]
    full, low = curve["points"][0], curve["points"][-1]
    assert low["over_full"]["value"] == pytest.approx(low["loss"]["value"] - full["loss"]["value"], abs=1e-9) and low["over_full"]["ci95"] > 0
    twin = json.loads(fathom("eval", "own", *TEXT, "--dial", 1, "--twin", "dense", "--json", "--quiet").out)["twins"][0]
    difference = twin.get("model_minus_twin", twin)
    assert curve["dense"]["loss"]["value"] == evaluated(fathom, "dense")["loss"]
    assert full["over_dense"]["value"] == pytest.approx(full["loss"]["value"] - curve["dense"]["loss"]["value"], abs=1e-9), difference
    assert curve["rivals"][0]["block_fraction"] == 0.5 and curve["rivals"][0]["loss"]["value"] == evaluated(fathom, "thin")["loss"]
    # 48 bytes of keys and values a head and block: 2 heads, keys and values, 12 numbers of f32.
    assert full["kv_bytes_per_token"] == curve["dense"]["kv_bytes_per_token"] == 4 * 2 * 2 * 12 * 4
    assert low["kv_bytes_per_token"] == pytest.approx(2 * 2 * 12 * 4 * (2 + sum(low["full"])))
    halved = dial(fathom, *QUICK, "--kv-type", "f16", "--json")
    assert halved["kv_type"] == "f16" and halved["points"][0]["kv_bytes_per_token"] == 4 * 2 * 2 * 12 * 2


def test_accuracy_is_that_of_eval(fathom, folder, model):
    (folder / "own.jsonl").write_text("".join(json.dumps({"context": f"the sea {i}", "choices": ["full", "gone", "moon"], "answer": i % 3}) + "\n" for i in range(40)))
    curve = dial(fathom, *QUICK, "--task-file", "own.jsonl", "--task-limit", 30, "--against", "dense", "--json")
    for p in curve["points"]:
        found = json.loads(fathom("eval", "own", "--task-file", "own.jsonl", "--limit", 30, "--against", "dense", "--dial", p["dial"], "--json", "--quiet").out)
        (task,), (difference,) = found["models"][0]["tasks"], found["model_minus_other"]
        assert p["tasks"][0]["items"] == 30 and p["tasks"][0]["accuracy"] == task["accuracy"]["value"] and p["tasks"][0]["standard_error"] == task["accuracy"]["standard_error"]
        assert p["tasks"][0]["over_dense"] == {k: difference["accuracy"][k] for k in ("value", "ci95")}
        assert p["mean"]["accuracy"] == p["tasks"][0]["accuracy"]


def test_the_curve_stays_with_the_model(fathom, folder, model):
    said = dial(fathom, *TEXT, "--rounds", 1, "--json", "--quiet")
    kept = json.loads((model / CURVE).read_text())
    assert kept == {k: v for k, v in said.items() if k not in ("default_dial", "chosen", "stored")} and kept["version"] == 1
    assert [[s["work"], s["batch"], s["tokens"]] for s in kept["points"][1]["speed"]] == [["prompt", 0, 64], ["decode", 1, 32], ["decode", 8, 32]]
    assert all(s["tokens_per_second"] > 0 and s["full_allows"] > 0 for p in kept["points"] for s in p["speed"])
    info = json.loads(fathom("info", "own", "--json").out)["curve"]
    assert info == dict(kept, current=True)
    shown = fathom("info", "own").out
    assert "Curve, measured on corpus.txt" in shown and "decode 8 texts" in shown and f"{kept['points'][2]['loss']['value']:.4f}" in shown
    # Another model that is made of this one, or other thresholds, are not what was measured.
    for words in (["quantize", "own", "made", "--type", "q8_0", "--data", "corpus.txt"], ["export", "own", "exported", "--to", "hf"]):
        fathom(*words, *([] if words[0] == "export" else ["--quiet"]))
        assert not (folder / words[2] / CURVE).exists() and (folder / words[2]).is_dir()
    table = json.loads((model / DIAL).read_text())
    table["points"][0]["thresholds"][0] += 0.5
    (model / DIAL).write_text(json.dumps(table))
    assert "at other thresholds" in fathom("info", "own").out
    assert not json.loads(fathom("info", "own", "--json").out)["curve"]["current"]
    # A damaged one is refused by name, and in nobody's way who asks for something else.
    (model / CURVE).write_text((model / CURVE).read_text()[:300])
    assert CURVE in fathom("info", "own", code=1).err
    fathom("generate", "own", "--prompt", "The sea", "--max-tokens", 4)
    dial(fathom, *QUICK)
    assert json.loads(fathom("info", "own", "--json").out)["curve"]["current"]


def test_the_lowest_dial_within_a_bound_becomes_the_default(fathom, folder, model):
    before = bytes_of(model)
    table = json.loads(before[DIAL])
    curve = dial(fathom, *QUICK, "--max-loss-increase", "50%", "--json", "--no-store")
    assert curve["chosen"] == 0.6 and not curve["stored"] and bytes_of(model) == before, "only said"
    done = dial(fathom, *QUICK, "--max-loss-increase", "50%")
    assert "Dial 0.600 is the lowest measured one whose loss rises by at most 50%" in done.out and "default now" in done.out
    after = json.loads((model / DIAL).read_text())
    assert after == dict(table, version=2, default_dial=0.6, trained_dial=0.7)
    words = ("own", "--prompt", "The sea is", "--max-tokens", 24, "--temperature", 0, "--json")
    plain, asked = (json.loads(fathom("generate", *words, *more).out) for more in ([], ["--dial", 0.6]))
    assert plain["dial"] == 0.6 and plain["ids"] == asked["ids"] and plain["depth"] == asked["depth"]
    assert "* the default; the model was made for 0.700" in fathom("info", "own").out
    assert evaluated(fathom, "own")["dial"] == 0.6
    # Bounds between: by differences as measured.
    rises = {p["dial"]: p["over_full"]["value"] for p in curve["points"]}
    for bound in (0, 0.001, 0.01, 0.1):
        within = [d for d, rise in rises.items() if d < 1 and rise <= bound]
        if within:
            assert dial(fathom, *QUICK, "--max-loss-increase", bound, "--json", "--no-store")["chosen"] == min(within)
        else:
            assert f"no dial below 1 within {bound} nats of dial 1's loss" in dial(fathom, *QUICK, "--max-loss-increase", bound, "--no-store", code=1).err
    # A new calibration still takes the configured shares for what the model was made for.
    fathom("quantize", "own", "again", "--type", "f32", "--data", "corpus.txt", "--quiet")
    fathom("quantize", "mod", "as-made", "--type", "f32", "--data", "corpus.txt", "--quiet")
    again, made = (json.loads((folder / m / DIAL).read_text()) for m in ("again", "as-made"))
    assert again["points"] == made["points"] and (again["default_dial"], made["default_dial"]) == (0.6, 0.7)
    # And back.
    assert dial(fathom, "--set-default", 0.7, "--json") == {"default_dial": 0.7, "stored": True}
    assert json.loads((model / DIAL).read_text()) == table
    assert dial(fathom, *QUICK, "--set-default", 0.65, "--json")["chosen"] == 0.65
    assert json.loads((model / DIAL).read_text())["default_dial"] == 0.65 and [p["dial"] for p in json.loads((model / CURVE).read_text())["points"]] == [1, 0.7, 0.65, 0.6]


def test_where_no_dial_is_within_the_bound_nothing_changes(fathom, folder, model):
    before = bytes_of(model)
    over = dial(fathom, *QUICK, "--against", "dense", "--json", "--no-store")["points"]
    assert min(p["over_dense"]["value"] for p in over) > 1e-6, "the drawn dense model happens to be the better one"
    done = dial(fathom, *QUICK, "--against", "dense", "--calibrate", "--max-loss-increase", 1e-7, code=1)
    assert "no dial below 1 within 1e-07 nats of dense's loss" in done.err and "nothing was stored" in done.err
    assert bytes_of(model) == before


def test_thresholds_measured_anew(fathom, folder, model):
    old = json.loads((model / DIAL).read_text())
    curve = dial(fathom, *QUICK, "--calibrate", "--calibration-tokens", 4000, "--dials", "0.9,0.65", "--json")
    table = json.loads((model / DIAL).read_text())
    assert [p["dial"] for p in curve["points"]] == [1, 0.9, 0.65] and [p["dial"] for p in table["points"]] == [0.65, 0.7, 0.9, 1]
    assert table["default_dial"] == old["default_dial"] and "every second window" in table["text"] and table["tokens"] <= 4000
    assert curve["text"] == "corpus.txt, the windows between those of the calibration"
    assert all(p["block_fraction"] == pytest.approx(p["dial"], abs=0.06) for p in curve["points"])
    assert json.loads(fathom("info", "own", "--json").out)["curve"]["current"]
    # Without a table there is one afterwards.
    (model / DIAL).unlink()
    assert "calibrate" in dial(fathom, *QUICK, code=1).err
    other = dial(fathom, *QUICK, "--calibrate", "--calibrate-on", "data", "--json")
    assert other["text"] == "corpus.txt" and json.loads((model / DIAL).read_text())["text"].startswith("data")
    assert len(other["points"]) == len(json.loads((model / DIAL).read_text())["points"]) > 4


def test_the_page(fathom, folder, model, tmp_path):
    shutil.copytree(folder / "thin", folder / "<b>thin & <i>")
    (folder / "own.jsonl").write_text("".join(json.dumps({"context": f"the sea {i}", "choices": ["full", "gone"], "answer": i % 2}) + "\n" for i in range(10)))
    done = dial(fathom, *TEXT, "--against", "dense", "--rival", "<b>thin & <i>", "--task-file", "own.jsonl", "--rounds", 1, "--out", "dial.html", "--dials", "1,0.9,0.8,0.7,0.6", "--max-loss-increase", "50%", "--json", "--quiet")
    text, words = check(folder / "dial.html")
    assert "<b>thin" not in text and "&lt;b&gt;thin &amp; &lt;i&gt;" in text
    for heading in ("Loss", "Accuracy", "Speed: what was saved, and what it saves", "Memory", "Who goes how deep"):
        assert heading in words
    for p in done["points"] + [done["dense"]] + done["rivals"]:
        assert f"{p['loss']['value']:.4f}" in words and f"{p['perplexity']:.3f}" in words
    assert "Dial 0.600 is the lowest measured one" in words and text.count('data-routed="1,3"') == 3
    assert all(f"Dial {d}:" in words for d in ("0.900", "0.800", "0.600")), "maps of the highest, a middle and the lowest"
    if not chromium():
        pytest.skip("no chromium")
    probe = """<script>const maps=document.querySelectorAll('.map');maps[2].querySelectorAll('.k')[3].dispatchEvent(new Event('pointerover',{bubbles:true}));
document.title='readout: '+maps[2].parentElement.querySelector('.readout').textContent+' other: '+maps[0].parentElement.querySelector('.readout').textContent+' wide: '+(document.documentElement.scrollWidth>innerWidth);</script></body>"""
    (tmp_path / "narrow.html").write_text(text.replace("</body>", probe))
    dom, console = browse(tmp_path / "narrow.html", tmp_path, "--window-size=400,800")
    title = re.search(r"<title>(.*?)</title>", dom).group(1)
    assert not console and re.match("readout: “.*” depth . of 4; .* other: Point at a token", title) and "wide: false" in title, (console, title)
    for theme in ("dark", "light"):
        (tmp_path / "theme.html").write_text(text.replace("</body>", CONTRAST))
        dom, console = browse(tmp_path / "theme.html", tmp_path, f"--blink-settings=preferredColorScheme={0 if theme == 'dark' else 1}")
        ground, contrast, charts = map(float, re.match(r"ground ([\d.]+) contrast ([\d.]+) .* charts (\d+)$", re.search(r"<title>(.*?)</title>", dom, re.S).group(1), re.S).groups())
        assert not console and (ground < 0.05 if theme == "dark" else ground > 0.8) and contrast >= 4.5 and charts > 10


def test_tables_for_people(fathom, folder, model):
    shown = dial(fathom, *TEXT, "--against", "dense", "--rival", "thin", "--rounds", 1, "--quiet").out
    for words in ("own on corpus.txt", "dial 0.700", "dense (dense)", "thin (rival)", "over dial 1", "over dense", "curve minus this", "FLOPs saved", "prompt of 64", "decode 8 texts", "allowed", "Keys and values (f32) per token",
                  "fathom_curve.json in own has the curve"):
        assert words in shown, (words, shown)
    short = dial(fathom, *QUICK, "--dials", "0.8", "--no-store").out
    assert "dial 0.800" in short and "dial 0.700" not in short and "Tokens per second" not in short and "over dense" not in short and "has the curve" not in short


@pytest.mark.parametrize("words, says", [
    ((), "--data: found nothing"),
    (("--set-default", 0.65, "--out", "x.html"), "--out: found no --data"),
    ((*QUICK, "--dials", "1,0.7,0.8"), "falling block fractions"),
    ((*QUICK, "--dials", "0.7,0.7"), "falling block fractions"),
    ((*QUICK, "--dials", "1.1,0.7"), 'found "1.1"'),
    ((*QUICK, "--dials", "0.7,0"), 'found "0"'),
    ((*QUICK, "--dials", "0.7,"), 'found ""'),
    ((*QUICK, "--dials", "all"), 'found "all"'),
    ((*QUICK, "--dials", "1,0.3"), "dial 0.3, expected at least 0.6"),
    (("--set-default", 0.3), "expected at least 0.6"),
    ((*QUICK, "--max-loss-increase", "2"), 'a share of the loss, 2%, or nats per token below 1'),
    ((*QUICK, "--max-loss-increase", "little"), "a share of the loss, 1%, or nats per token"),
    ((*QUICK, "--max-loss-increase=-1%"), "a share of the loss, 1%, or nats per token"),
    ((*QUICK, "--max-loss-increase", "1%", "--set-default", 0.7), "one of the two"),
    ((*QUICK, "--calibrate-on", "data"), "no --calibrate"),
    ((*QUICK, "--tasks", "lambda"), "did you mean lambada?"),
    ((*QUICK, "--task-limit", 5), "neither --tasks nor --task-file"),
    ((*QUICK, "--against", "paths"), "a dense model"),
    ((*QUICK, "--against", "other"), "another tokenizer than that of own"),
    ((*QUICK, "--rival", "other"), "another tokenizer than that of own"),
    (("--data", "missing.txt"), "missing.txt"),
    (("--data", "empty.txt"), "no document of two tokens"),
    ((*QUICK, "--out", "no/page.html"), "no/page.html"),
    (("--data", "corpus.txt", "--context", 129), "at most 128"),
])
def test_wrong_words(fathom, folder, model, words, says):
    if "empty.txt" in words:
        (folder / "empty.txt").write_text("")
    if "other" in words:
        shutil.copytree(folder / "thin", folder / "other")
        tokenizer = json.loads((folder / "other/tokenizer.json").read_text())
        tokenizer["model"]["merges"].pop()
        (folder / "other/tokenizer.json").write_text(json.dumps(tokenizer))
    before = bytes_of(model)
    done = subprocess.run([fathom.path, "dial", "own", *map(str, words)], capture_output=True, text=True, cwd=folder)
    assert done.returncode in (1, 2) and says in done.stderr, done.stderr
    assert bytes_of(model) == before


def test_models_without_a_dial(fathom, folder):
    assert "fathom convert makes one" in fathom("dial", "dense", *QUICK, code=1).err
    assert "without thresholds" in fathom("dial", "dense", "--set-default", 0.5, code=1).err


def test_ctrl_c_stores_nothing(fathom, folder, model):
    before = bytes_of(model)
    process = subprocess.Popen([fathom.path, "dial", "own", "--data", "corpus.txt", "--rounds", "1000", "--calibrate", "--out", "x.html"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder)
    for line in process.stderr:
        if b"measuring speed" in line:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert b"the same command goes on" in err
    assert bytes_of(model) == before and not (folder / "x.html").exists()


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_measurement_goes_on(fathom, folder, model, tmp_path, by):
    """Stopped in its tasks, it takes losses and items that are there, and comes to the curve that it would have come to."""
    items = [{"query": f"what is {i} and {i % 7}", "choices": [f"{i} a", f"{i % 5} the", "one"], "gold": i % 3} for i in range(400)]
    (tmp_path / "ask.jsonl").write_text("".join(json.dumps(i) + "\n" for i in items))
    words = ["dial", "own", *map(str, TEXT), "--no-speed", "--against", "dense", "--task-file", str(tmp_path / "ask.jsonl"), "--task-limit", "0"]
    fathom(*words)
    whole = (model / CURVE).read_bytes()
    (model / CURVE).unlink()
    kept = model / f".{CURVE}.partial" / "measured"
    lines = lambda: sum(len(p.read_bytes().splitlines()) for p in kept.glob("tasks-*.jsonl"))
    process = subprocess.Popen([fathom.path, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder)
    while process.poll() is None and lines() < 600:
        pass
    process.send_signal(by)
    process.communicate(timeout=60)
    assert process.returncode == (130 if by == signal.SIGINT else -signal.SIGKILL) and not (model / CURVE).exists()
    assert len(list(kept.glob("loss-*.json"))) == 4 and lines() >= 600
    again = fathom(*words)
    assert "going on with what lies in" in again.err and "evaluating" not in again.err
    assert (model / CURVE).read_bytes() == whole and not kept.parent.exists()
