"""The page: one file, no network, in the promised order, honest about what is missing."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from unittest import mock

import pytest

from equiscope.errors import IntegrityError
from equiscope.records import Records
from equiscope.report import build, style
from tests.report import synthetic


class Elements(HTMLParser):
    """Collects start tags with their attributes, visible text, and the text of script elements."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.scripts: list[tuple[dict, str]] = []
        self.text = ""
        self._inside: list[tuple[str, dict]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._inside.pop()

    def handle_data(self, data):
        if not self._inside:
            self.text += data
        elif self._inside[-1][0] == "script":
            self.scripts.append((self._inside[-1][1], data))


def write(folder, records):
    folder.mkdir(parents=True, exist_ok=True)
    # Durability is tested elsewhere; here it would take seconds.
    with mock.patch("os.fsync"), Records(folder / "records.jsonl") as file:
        for record in records:
            fields = dict(record)
            file.append(fields.pop("kind"), **fields)
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = write(tmp_path_factory.mktemp("runs") / "demo", synthetic.force_field_run())
    return build(folder)


@pytest.fixture(scope="module")
def page(built):
    return Elements(built.read_text())


def test_build_writes_page_and_figures(built):
    assert built.name == "report.html"
    assert sorted(p.name for p in (built.parent / "figures").iterdir()) == ["losses.png", "percent.png", "relative.png"]
    assert built.stat().st_size < 6e6


def test_nothing_comes_from_the_network(built, page):
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            value = attributes.get(name) or ""
            assert not re.match(r"(https?:)?//", value.strip()), f"<{tag} {name}={value[:80]}>"
    style = re.search(r"<style>(.*?)</style>", built.read_text(), re.S).group(1)
    assert "url(" not in style
    assert "@import" not in style


def test_plotly_is_there_once_and_every_chart_has_its_data(page):
    plotly = [text for attributes, text in page.scripts if attributes.get("id") == "plotly-js"]
    assert sum(len(text) > 1_000_000 for _, text in page.scripts) == 1
    assert len(plotly) == 1
    ids = {attributes["id"] for tag, attributes in page.tags if attributes.get("class") == "chart"}
    data = {a["data-for"]: json.loads(text) for a, text in page.scripts if a.get("type") == "application/json"}
    assert set(data) == ids == {"chart-percent", "chart-losses", "chart-relative"}
    assert all(figure["data"] and figure["layout"] for figure in data.values())


def test_order_of_the_page(page):
    sections = [attributes["id"] for tag, attributes in page.tags if tag in ("section", "details") and attributes]
    assert sections == ["meaning", "verdict", "percent", "losses", "relative", "comparison", "run", "rotated", "notes"]


def test_words_of_the_page(page):
    text = page.text.replace("\u00a0", " ")
    for expected in (
        "After 2,400 training steps, 0.41 % (95 % interval",
        "Skilled crossing at step 1,000",
        "Collapse.",
        "practically the zero predictor",
        "2 random cosets of the group T",
        "T cosets are exact to Wigner degree 2.",
        "59,203",
        "about 0.055 % at step 445k",
        "equivariance error",
        "The paper’s curve goes on to step 445,000",
    ):
        assert expected in text
    assert "Incomplete." not in text
    assert text.count("None") == 0


def test_every_ink_and_ground_has_its_colour_for_the_night(built):
    """On a dark page the script changes colours by name: one that it does not know would be unreadable."""
    page = built.read_text()
    known = re.search(r"const inks = \{(.*?)\};", page, re.S).group(1)
    shade = "rgba({},{},{},1)".format(*(int(style.SHADE[i : i + 2], 16) for i in (1, 3, 5)))
    for colour in (style.INK, style.GREY, style.GRID, style.PAPER, style.OURS, shade, "white"):
        assert colour in known, colour
    assert "prefers-color-scheme: dark" in page


def test_several_probes_have_a_panel_each(tmp_path):
    page = Elements(build(write(tmp_path / "flow", synthetic.flow_run())).read_text())
    panels = [a["id"] for tag, a in page.tags if a.get("class") == "chart" and "panel" in a["id"]]
    assert len(panels) == 9
    assert (tmp_path / "flow" / "figures" / "panels.png").exists()
    assert "t=0.95" in page.text


@pytest.mark.parametrize("kept", [0, 1, 3, 20])
def test_a_run_that_was_killed_gives_a_page_that_says_so(kept, tmp_path):
    page = Elements(build(write(tmp_path / "run", synthetic.force_field_run()[:kept])).read_text())
    assert "Incomplete." in page.text
    assert "has not ended" in page.text


def test_a_torn_last_line_is_reported(tmp_path):
    folder = write(tmp_path / "run", synthetic.force_field_run()[:20])
    with open(folder / "records.jsonl", "ab") as file:
        file.write(b'{"n": 20, "kind": "meas')
    assert "cut off while it was written" in Elements(build(folder).read_text()).text


def test_damaged_or_missing_records_are_an_error(tmp_path):
    folder = write(tmp_path / "run", synthetic.force_field_run()[:20])
    content = (folder / "records.jsonl").read_bytes()
    (folder / "records.jsonl").write_bytes(content.replace(b"59203", b"59204"))
    with pytest.raises(IntegrityError, match="line 1"):
        build(folder)
    assert not (folder / "report.html").exists()
    with pytest.raises(IntegrityError, match="no records"):
        build(tmp_path / "nothing")


def test_text_from_the_records_cannot_become_markup(tmp_path):
    nasty = "</script><script>alert(1)</script>"
    records = [synthetic.run_record(name=nasty, reference={"label": nasty, "points": {"forces": [[1, 2]]}}),
               synthetic.measure(1, percent=1.0, r2=0.9, notes=[nasty])]  # fmt: skip
    page = Elements(build(write(tmp_path / "run", records)).read_text())
    assert not any(text.strip() == "alert(1)" for _, text in page.scripts)
    assert nasty in page.text


def test_charts_are_drawn_where_a_browser_is_at_hand(built, tmp_path):
    """With Chromium on the machine the page is opened in it; the charts must be drawn without an error."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        assert "Plotly.newPlot" in built.read_text()
        return
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
               "--disable-background-networking", "--disable-component-update", "--disable-sync",
               f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=4000", "--dump-dom",
               built.as_uri()]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout
    assert re.search(r'<html[^>]*data-drawn="3"', dom)
    assert len(re.findall(r'<div class="chart js-plotly-plot"', dom)) == 3


@pytest.mark.parametrize("values", [{}, {"degrees": 3}, {"degrees": [], "share": [None]}, {"share": {"x": 1}}])
def test_an_analysis_that_cannot_be_shown_leaves_the_rest_of_the_page(tmp_path, values):
    odd = {"kind": "analysis", "analysis": "spectrum", "step": 1, "probe": "forces", "settings": {}, "values": values}
    page = build(write(tmp_path / "run", [*synthetic.force_field_run(), odd])).read_text()
    assert "the analysis spectrum of probe" in page
    assert "After" in page


def test_a_model_without_equivariance_error_has_no_degree_of_it(tmp_path):
    nothing = {"degrees": [1, 2], "share": [None, None], "error": [None, None], "percent": 0.0}
    odd = {"kind": "analysis", "analysis": "spectrum", "step": 1, "probe": "forces", "settings": {}, "values": nothing}
    page = build(write(tmp_path / "run", [*synthetic.force_field_run(), odd])).read_text()
    assert "there is no equivariance error that could have a Wigner degree" in page


def test_records_that_no_run_writes_are_said_not_to_be_shown(tmp_path):
    with pytest.raises(IntegrityError, match="not as a run writes them"):
        build(write(tmp_path / "run", [synthetic.run_record(config=7), *synthetic.force_field_run()[1:]]))


def test_probes_that_differ_in_other_letters_alone_have_a_section_each(tmp_path):
    nothing = {"degrees": [1, 2], "share": [None, None], "error": [None, None], "percent": 0.0}
    odd = [{"kind": "analysis", "analysis": "spectrum", "step": 1, "probe": probe, "settings": {}, "values": nothing}
           for probe in ("α", "β", "γ")]  # fmt: skip
    page = Elements(build(write(tmp_path / "run", [*synthetic.force_field_run(), *odd])).read_text())
    found = [a["id"] for tag, a in page.tags if tag == "section" and a.get("id", "").startswith("analysis-")]
    assert len(set(found)) == 3
    assert all(f"({probe})" in page.text for probe in "αβγ")


def test_no_picture_is_wider_than_the_page():
    """Those of the runs are 1,500 pixels wide; both classes shrink with the page."""
    page = (Path(style.__file__).parent / "templates" / "report.html.j2").read_text()
    pictures = re.findall(r"<img [^>]*>", page)
    assert len(pictures) >= 5
    assert [tag for tag in pictures if not re.search(r'class="(wide|still)"', tag)] == []
