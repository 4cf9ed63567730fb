"""The gallery of all charts: well-formed, self-contained, every id used once."""
import html.parser
import os
import pathlib
import re
import subprocess
import xml.etree.ElementTree as ET

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOL = pathlib.Path(os.environ.get("FATHOM_BUILD", ROOT / "build")) / "tests" / "tools" / "formats_tool"
VOID = {"meta", "br", "link", "img", "hr", "input"}


class Balance(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.ids, self.urls = [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        self.note(attributes)

    def handle_startendtag(self, tag, attributes):
        self.note(attributes)

    def note(self, attributes):
        self.ids += [v for k, v in attributes if k == "id"]
        self.urls += [v for k, v in attributes if k in ("href", "src", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open[-5:])
        self.open.pop()


def test_gallery(tmp_path):
    subprocess.run([TOOL, "gallery", tmp_path], check=True)
    page = (tmp_path / "page.html").read_text()
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert all(url.startswith("#") for url in parser.urls)
    assert set(re.findall(r"https?://[^\"' ]*", page)) == {"http://www.w3.org/2000/svg"}, "a name, not an address that is fetched"
    charts = re.findall(r"<svg.*?</svg>", page, re.S)
    assert len(charts) == 10
    for chart in charts:
        root = ET.fromstring(chart)
        width, height = map(float, root.get("viewBox").split()[2:])
        for text in root.iter("{http://www.w3.org/2000/svg}text"):
            assert -1 <= float(text.get("x")) <= width + 1 and 0 <= float(text.get("y")) <= height, text.text
    ET.fromstring((tmp_path / "chart.svg").read_text())
    # Every class of the charts that is drawn has a colour in the style.
    style = page.split("</style>")[0]
    for name in set(re.findall(r"class=\"([^\"]+)\"", "".join(charts))):
        for part in name.split():
            assert f".{part}" in style or part in ("label", "fill"), part
