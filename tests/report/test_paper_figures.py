"""Panels in a journal's column: sizes, fonts, and which runs are drawn."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from equiscope.report import claims_page, figures, kinds, paper
from equiscope.report.curves import history
from equiscope.report.evidence import gather
from tests.report import synthetic
from tests.report.test_evidence import JUDGED, renamed
from tests.report.test_page import write

RUNS = {"forcefield": synthetic.force_field_run, "proteinflow": synthetic.flow_run}


def test_panels(tmp_path):
    small = renamed(synthetic.force_field_run(), name="small", parameters=10_000)
    folders = [write(tmp_path / "a", synthetic.force_field_run()), write(tmp_path / "b", small)]
    panels = claims_page.save_figures(gather(folders), tmp_path / "figures", dpi=100)
    assert [panel.name for panel in panels] == ["percent-forcefield", "size-forcefield", "penalty-forcefield"]
    for panel in panels:
        with Image.open(panel.png) as image:
            assert image.width == round(100 * claims_page.WIDTH)
        # Fonts are embedded as TrueType outlines, so text can be searched and edited.
        assert b"/Type /Font" in panel.pdf.read_bytes() or b"/FontFile2" in panel.pdf.read_bytes()
    assert "Crosses: the paper." in panels[0].caption


def test_the_penalty_is_drawn_on_the_probe_that_decides(tmp_path):
    measured = [synthetic.measure(step, probe, headline=probe == "octahedral", percent=percent, r2=0.9)
                for step in (1, 10) for probe, percent in (("octahedral", 1.0), (JUDGED, 40.0))]  # fmt: skip
    evidence = gather([write(tmp_path / "a", [synthetic.run_record(task="voxels"), *measured])])
    total, _, error = claims_page._penalty(evidence.runs).series
    np.testing.assert_allclose(error.y / total.y, 0.4)
    (caption,) = (one.caption for one in claims_page.save_figures(evidence, tmp_path, dpi=30) if one.claim == "penalty")
    assert f"the loss, on the probe “{JUDGED}”, and" in caption


def test_the_pdf_is_the_same_whenever_it_is_made(tmp_path):
    evidence = gather([write(tmp_path / "a", synthetic.force_field_run())])
    first, again = (claims_page.save_figures(evidence, tmp_path / name)[0].pdf.read_bytes() for name in ("x", "y"))
    assert first == again


def test_figures_without_runs_are_taken_away(tmp_path):
    force, flow = (write(tmp_path / name, run()) for name, run in RUNS.items())
    claims_page.save_figures(gather([flow]), tmp_path / "figures", dpi=30)
    assert list((tmp_path / "figures").glob("*proteinflow*"))
    claims_page.save_figures(gather([force]), tmp_path / "figures", dpi=30)
    assert not list((tmp_path / "figures").glob("*proteinflow*"))


def test_at_most_as_many_runs_as_colours(tmp_path):
    runs = [write(tmp_path / str(n), renamed(synthetic.force_field_run(), name=str(n))) for n in range(8)]
    evidence = gather(runs)
    assert len(claims_page.shown(evidence.of("forcefield"))) == claims_page.MOST


def test_the_paper_s_other_figures(tmp_path):
    steps = [0, 10, 100, 1000]
    record = {"kind": "analysis", "analysis": "relations", "probe": "forces", "pair": "percent ~ gradient ratio",
              "step": 1000, "steps": steps, "first": [60.0, 5.0, None, 0.5], "second": [2.0, 1.0, 0.5, 0.1],
              "values": {}}  # fmt: skip
    other = {**record, "pair": "equivariance error ~ exact form"}
    force = write(tmp_path / "force", [*synthetic.force_field_run(), record, other])
    found = {one.name: one for one in claims_page.save_figures(gather([force]), tmp_path / "figures", dpi=30)}
    assert [name for name in found if "ratio" in name or "error" in name] == ["percent-gradient-ratio-forcefield"]
    evidence = gather([force, write(tmp_path / "flow", synthetic.flow_run())])
    _, panel, _ = claims_page._extra(evidence)["percent-gradient-ratio-forcefield"]
    # The first step and what is missing are left out; the second of the pair lies along.
    assert (list(panel.series[0].x), list(panel.series[0].y)) == ([1.0, 0.1], [5.0, 0.5])
    # Of several flow times each is a colour of its own, and named.
    timed = [{**record, "probe": f"t={t}", "second": [2.0, t, t, t]} for t in (0.2, 0.9)]
    flow = write(tmp_path / "timed", [*synthetic.flow_run(), *timed])
    _, panel, _ = claims_page._extra(gather([flow]))["percent-gradient-ratio-proteinflow"]
    assert [(series.name, list(series.x)) for series in panel.series] == [("t=0.2", [0.2, 0.2]), ("t=0.9", [0.9, 0.9])]
    claim, panel, _ = claims_page._extra(evidence)["times-proteinflow"]
    assert claim == "penalty"
    assert list(panel.series[0].x) == list(synthetic.TIMES)
    assert set(panel.series[0].y) == {3.1}


def test_every_figure_of_the_authors_that_the_documentation_names_is_drawn(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "reading.md").read_text().split("## The figures of the paper")[1]
    cells = [row.split("|")[3] for row in page.splitlines() if row.startswith("| ") and "equiscope" in row]
    named = {name for cell in cells for name in re.findall(r"`([\w-]+)`", cell)}
    steps = [0, 10, 100]
    pairs = [{"kind": "analysis", "analysis": "relations", "probe": "p", "pair": pair, "step": 100, "steps": steps,
              "first": [3.0, 2.0, 1.0], "second": [3.0, 2.0, 1.0], "values": {}}
             for pair in paper.OWN_PAIRS]  # fmt: skip
    force, flow = synthetic.force_field_run(), synthetic.flow_run()
    evidence = gather([write(tmp_path / "a", [*force, *pairs]), write(tmp_path / "b", [*flow, *pairs])])
    drawn = {one.name for one in claims_page.save_figures(evidence, tmp_path / "figures", dpi=30)}
    drawn |= set(figures.charts(history(force)))
    drawn |= {name for name in ("panels", "parts") if getattr(figures, name)(history(flow)) is not None}
    # One file a study, and one of several runs, whatever they are called.
    assert named <= drawn | {"figure", "beside"}, named - drawn
    sections = re.findall(r"section “([^”]+)”", page)
    assert len(sections) == 2
    titles = [kind.title for kind in kinds.kinds().values()]
    assert all(any(title.startswith(section) for title in titles) for section in sections)
