"""The pages of `depthmap` and `report`: well-formed, self-contained, without script errors, and saying what the JSON says."""
import html.parser
import json
import re
import shutil
import subprocess

import pytest

VOID = {"meta", "br", "hr", "img", "input", "link", "source", "col", "wbr", "area", "base", "embed", "track"}


class Checker(html.parser.HTMLParser):
    """Opens and closes tags by the book; collects text, ids and every place that could load something."""

    def __init__(self):
        super().__init__()
        self.open, self.faults, self.text, self.links, self.ids = [], [], [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "srcset", "action", "poster", "data", "xlink:href") and not (value or "").startswith("#"):
                self.links.append(f"{tag} {name}={value}")
            if name == "id":
                self.ids.append(value)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if not self.open or self.open[-1] != tag:
            self.faults.append(f"</{tag}> closes {self.open[-3:]} at {self.getpos()}")
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        self.text.append(data)


def check(path):
    text = path.read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(text)
    assert not checker.faults, checker.faults[:5]
    assert not checker.open, checker.open
    assert not checker.links, checker.links
    assert len(checker.ids) == len(set(checker.ids)), "an id twice"
    assert text.lower().startswith("<!doctype html>") and 'name="viewport"' in text and "charset" in text
    assert not re.search(r"@import|url\s*\((?!#)|fetch\s*\(|XMLHttpRequest|<script[^>]+src|WebSocket", text)
    # A name space is an address that nobody fetches.
    assert not re.findall(r"https?://(?!www\.w3\.org/)", text)
    assert "prefers-color-scheme" in text
    assert len(text) < 3_000_000
    return text, "".join(checker.text)


def chromium():
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def browse(path, tmp_path, *more):
    """Opens the page in a headless browser; returns (the document after its scripts ran, what the console said)."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
             "--disable-sync", "--hide-scrollbars", f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--log-level=0",
             "--virtual-time-budget=2000"]
    done = subprocess.run([chromium(), *flags, *more, "--dump-dom", f"file://{path}"], capture_output=True, text=True, timeout=120)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def pages(fathom, folder):
    """depthmap.html, report.html of models with fake records of training, and what --json said of them."""
    for name, kind, loss in (("runs/mod", "mod", 3.0), ("runs/short", "dense", 3.1), ("runs/thin", "thin", 3.2)):
        run = folder / name
        run.mkdir(parents=True)
        shutil.copytree(folder / kind, run / "model")
        lines = [{"type": "eval", "step": s, "flops": 1e12 * s, "seconds": s, "loss": loss + 4 / (1 + s)} for s in range(0, 50, 10)]
        if kind == "mod":
            lines += [{"type": "warning", "step": s, "text": f"block 1 has collapsed: position alone decides who runs it ({s + 60} % explained)"} for s in (10, 30)]
        run.joinpath("metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        run.joinpath("summary.json").write_text(json.dumps({"steps": 50, "tokens": 1e5, "train_flops": 5e13 * (1.1 if kind == "thin" else 1), "train_seconds": 50,
                                                            "precision": "bf16" if kind == "thin" else "f32"}))
        run.joinpath("config.json").write_text(json.dumps({"data": {"dataset": "data"}}))
    found = {}
    for words in (["depthmap", "mod", "--data", "data", "--out", "depthmap.html"],
                  ["report", "runs/mod", "runs/short", "runs/thin", "--data", "data", "--out", "report.html", "--prompt", "The <sea> & \"moon\"",
                   "--sample-tokens", "30"]):
        found[words[0]] = json.loads(fathom(*words, "--json", "--quiet").out)
    fathom("depthmap", "paths", "--data", "data", "--out", "paths.html", "--quiet")
    return found


def test_depthmap_page(fathom, folder, pages):
    text, words = check(folder / "depthmap.html")
    found = pages["depthmap"]
    for heading in ("A passage, token by token", "By position", "By kind of token", "The deepest and the shallowest", "block fraction"):
        assert heading in words
    for name in ("white space", "punctuation", "digits", "word start", "word inside", "10 most frequent"):
        assert name in words
    assert f"{100 * found['block_fraction']:.1f} %" in words
    assert sum(found["tokens_by_depth"]) == found["tokens"]
    assert sum(g["tokens"] for g in found["by_class"]) == found["tokens"]
    assert text.count('class="k"') > 50  # the passage
    # A page is for people; what it shows, a program finds in the JSON.
    for side in ("deepest", "shallowest"):
        assert found[side] and set(found[side][0]) == {"token", "before", "after", "depth", "margin"}
        assert [t["depth"] for t in found[side]] == sorted((t["depth"] for t in found[side]), reverse=side == "deepest")
        for type_ in found[f"{side}_types"]:
            assert set(type_) == {"token", "count", "mean_depth"} and 2 <= type_["mean_depth"] <= 4
    assert len(found["passage"]) == text.count('class="k"')
    assert all(t["depth"] == 2 + sum(t["run"]) and len(t["run"]) == 2 for t in found["passage"])
    assert "".join(t["text"] for t in found["passage"])[:40] in (folder / "corpus.txt").read_text()


def test_report_page(fathom, folder, pages):
    text, words = check(folder / "report.html")
    found = pages["report"]
    for heading in ("The comparison", "Training", "Text, coloured by depth", "The causal rule beside top-k", "A passage, token by token"):
        assert heading in words
    for row in ("training precision", "training FLOPs", "training time", "loss, causal rule", "loss, top-k (teacher's view)", "bits per byte", "decode tokens/s", "KV bytes per token"):
        assert row in words
    mod = found["models"][0]
    assert f"{mod['quality']['loss']:.4f}" in words and f"{mod['teacher']['loss']:.4f}" in words
    assert found["verdict"] in words and "the better twin, " in found["verdict"]
    assert found["held_out"] and "on text that no model was trained on: the validation split of data" in words
    assert found["cautions"] == ["Not at equal training FLOPs: thin 55.0T (+10.0 %) against mod 50.0T.", "Not trained in one precision: mod f32, short f32, thin bf16.",
                                 "While mod was trained: block 1 has collapsed: position alone decides who runs it (90 % explained); said 2 times, last after step 30 of 50."]
    assert all(caution in words for caution in found["cautions"])
    assert "&lt;" in text and "<sea>" not in text
    for name in ("mod", "short", "thin"):
        assert name in words
    assert text.count("<svg") >= 6


def test_depthmap_of_parts_and_light_paths(folder, pages):
    text, words = check(folder / "paths.html")
    for name in ("attention of block 1", "MLP of block 1", "MLP of block 2", "block 3", "took its light path", "light"):
        assert name in words
    assert 'data-routed="1 attention,1 MLP,2 MLP,3"' in text and '<i class="l"></i>' in text


def test_report_on_the_terminal(fathom):
    done = fathom("report", "mod", "dense", "thin", "--data", "corpus.txt", "--limit", "2k", "--out", "plain.html", "--quiet")
    assert "loss, causal rule" in done.out and "plain.html has the page" in done.out
    assert "training FLOPs" in done.out and "–" in done.out  # no record of training: unknown, not 0


def test_depthmap_of_a_dense_model(fathom, folder):
    fathom("depthmap", "dense", "--data", "corpus.txt", "--limit", "1k", "--out", "dense.html", "--quiet")
    _, words = check(folder / "dense.html")
    assert "No block of this model is routed" in words


@pytest.mark.parametrize("name", ["depthmap.html", "report.html", "paths.html"])
def test_in_a_browser(fathom, folder, pages, tmp_path, name):
    if not chromium():
        pytest.skip("no chromium")
    # Pointing at a token must say its blocks.
    page = (folder / name).read_text()
    probe = """<script>const k=document.querySelectorAll('.map .k')[3];k.dispatchEvent(new Event('pointerover',{bubbles:true}));
document.title='readout: '+document.querySelector('.readout').textContent+' wide: '+(document.documentElement.scrollWidth>innerWidth);</script></body>"""
    (tmp_path / name).write_text(page.replace("</body>", probe))
    dom, console = browse(tmp_path / name, tmp_path, "--window-size=400,800")
    assert not console, console
    title = re.search(r"<title>(.*?)</title>", dom).group(1)
    assert "depth" in title and "routed block" in title, title
    assert "wide: false" in title, "the page scrolls sideways at the width of a phone"


CONTRAST = """<script>
const light = c => { const v = c.match(/[\\d.]+/g).map(Number); if (v.length > 3 && v[3] === 0) return null;
  return v.slice(0, 3).map(x => (x /= 255) <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4).reduce((s, x, i) => s + x * [0.2126, 0.7152, 0.0722][i], 0); };
const ground = e => { for (; e; e = e.parentElement) { const l = light(getComputedStyle(e).backgroundColor); if (l !== null) return l; } return 1; };
const drawn = e => {  // what a chart paints behind the middle of its text: the next shape below it, or the page
  e.scrollIntoView({block: 'center'});
  const r = e.getBoundingClientRect();
  for (const b of document.elementsFromPoint(r.x + r.width / 2, r.y + r.height / 2)) {
    if (b.closest('text')) continue;
    const s = getComputedStyle(b), l = b instanceof SVGGeometryElement && s.fill !== 'none' && s.fillOpacity > 0 ? light(s.fill) : null;
    if (l !== null) return l;
    if (!(b instanceof SVGElement)) return ground(b);
  }
  return ground(e.closest('svg').parentElement);
};
let worst = 99, where = '', charts = 0;
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let n; (n = walk.nextNode());) {
  const e = n.parentElement, chart = e.closest('svg') !== null;
  if (!n.data.trim() || e.closest('script,style,svg title') || !e.getClientRects().length) continue;
  charts += chart;
  const a = light(chart ? getComputedStyle(e).fill : getComputedStyle(e).color) ?? 0, b = chart ? drawn(e) : ground(e);
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < worst) { worst = ratio; where = e.tagName + '.' + (e.getAttribute('class') ?? '') + ' ' + n.data.trim().slice(0, 30); }
}
document.title = 'ground ' + ground(document.body).toFixed(3) + ' contrast ' + worst.toFixed(2) + ' at ' + where + ' charts ' + charts;</script></body>"""


@pytest.mark.parametrize("name", ["depthmap.html", "report.html", "paths.html"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_themes(folder, pages, tmp_path, name, theme):
    """The theme that the reader asks for is shown, and every word stands out from what is behind it (WCAG AA: 4.5)."""
    if not chromium():
        pytest.skip("no chromium")
    (tmp_path / name).write_text((folder / name).read_text().replace("</body>", CONTRAST))
    dom, console = browse(tmp_path / name, tmp_path, f"--blink-settings=preferredColorScheme={0 if theme == 'dark' else 1}")
    assert not console, console
    title = re.search(r"<title>(.*?)</title>", dom, re.S).group(1)
    ground, contrast, charts = map(float, re.match(r"ground ([\d.]+) contrast ([\d.]+) .* charts (\d+)$", title, re.S).groups())
    assert ground < 0.05 if theme == "dark" else ground > 0.8, title
    assert contrast >= 4.5, title
    assert charts > 10, title  # words in charts were looked at too


def test_the_browser_check_sees_a_script_error(folder, pages, tmp_path):
    if not chromium():
        pytest.skip("no chromium")
    (tmp_path / "bad.html").write_text((folder / "depthmap.html").read_text().replace("</body>", "<script>nothing.at.all()</script></body>"))
    _, console = browse(tmp_path / "bad.html", tmp_path)
    assert any("nothing is not defined" in line for line in console)
