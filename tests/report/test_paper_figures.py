"""Panels in a journal's column: sizes, fonts, and which runs are drawn."""

from PIL import Image

from equiscope.report import paper_figures
from equiscope.report.evidence import gather
from tests.report import synthetic
from tests.report.test_evidence import renamed
from tests.report.test_page import write

RUNS = {"forcefield": synthetic.force_field_run, "proteinflow": synthetic.flow_run}


def test_panels(tmp_path):
    small = renamed(synthetic.force_field_run(), name="small", parameters=10_000)
    folders = [write(tmp_path / "a", synthetic.force_field_run()), write(tmp_path / "b", small)]
    panels = paper_figures.save(gather(folders), tmp_path / "figures", dpi=100)
    assert [panel.name for panel in panels] == ["percent-forcefield", "size-forcefield", "penalty-forcefield"]
    for panel in panels:
        with Image.open(panel.png) as image:
            assert image.width == round(100 * paper_figures.WIDTH)
        # Fonts are embedded as TrueType outlines, so text can be searched and edited.
        assert b"/Type /Font" in panel.pdf.read_bytes() or b"/FontFile2" in panel.pdf.read_bytes()
    assert "Crosses: the paper." in panels[0].caption


def test_the_pdf_is_the_same_whenever_it_is_made(tmp_path):
    evidence = gather([write(tmp_path / "a", synthetic.force_field_run())])
    first, again = (paper_figures.save(evidence, tmp_path / name)[0].pdf.read_bytes() for name in ("x", "y"))
    assert first == again


def test_figures_without_runs_are_taken_away(tmp_path):
    force, flow = (write(tmp_path / name, run()) for name, run in RUNS.items())
    paper_figures.save(gather([force, flow]), tmp_path / "figures", dpi=30)
    assert list((tmp_path / "figures").glob("*proteinflow*"))
    paper_figures.save(gather([force]), tmp_path / "figures", dpi=30)
    assert not list((tmp_path / "figures").glob("*proteinflow*"))


def test_at_most_as_many_runs_as_colours(tmp_path):
    runs = [write(tmp_path / str(n), renamed(synthetic.force_field_run(), name=str(n))) for n in range(8)]
    evidence = gather(runs)
    assert len(paper_figures.shown(evidence.of("forcefield"))) == paper_figures.MOST
