"""The paper's page: complete, from records alone, and good in a real browser at desk and at phone width."""

import csv

import pytest

from equiscope import cli
from equiscope.errors import RunError
from equiscope.report import build_paper, claims_page
from equiscope.report.evidence import AGREES, DIFFERS, UNDECIDED, Row
from tests import browser
from tests.report import synthetic
from tests.report.test_evidence import symmetric_run
from tests.report.test_page import Elements, write


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    return [
        write(place / "forcefield" / "demo", synthetic.force_field_run()),
        write(place / "forcefield" / "tied", symmetric_run()),
        write(place / "proteinflow" / "flow", synthetic.flow_run()),
        write(place / "forcefield" / "empty", [synthetic.run_record(name="empty")]),
    ]


@pytest.fixture(scope="module")
def built(folders, tmp_path_factory):
    return build_paper(folders, tmp_path_factory.mktemp("paper"))


def test_every_claim_with_verdict_rule_and_what_is_missing(built):
    text = Elements(built.read_text()).text
    titles = ("principled", "within 1,000–10,000 steps", "robust", "easier task", "penalty", "same compute", "related")
    for number, words in enumerate(titles, 1):
        assert f"{number}. " in text
        assert words in text
    assert text.count("Rule.") == 7
    assert "No runs yet of denoising of voxels" in text
    assert "Left out. forcefield/empty" in text
    assert "Runs that would say more" in text


def test_figures_and_tables_lie_beside_it(built):
    names = {path.name for path in (built.parent / "figures").iterdir()}
    shown = {f"{kind}-{task}" for kind in ("percent", "penalty") for task in ("forcefield", "proteinflow")}
    shown |= {"seconds-forcefield", "times-proteinflow"}
    assert names == {f"{name}.{kind}" for name in shown for kind in ("png", "pdf")}
    assert all(path.read_bytes()[:4] == b"%PDF" for path in (built.parent / "figures").glob("*.pdf"))
    with open(built.parent / "tables" / "curves.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(synthetic.STEPS) + 9 * (len(synthetic.STEPS) - 1)
    with open(built.parent / "tables" / "verdicts.csv", newline="") as file:
        assert [row["claim"] for row in csv.DictReader(file)][:2] == ["measure", "quick"]


@pytest.mark.parametrize("width", browser.WIDTHS)
def test_in_a_real_browser(built, width):
    seen = browser.look(built, width, "paper")
    assert seen.errors == []
    assert seen.requests == []
    assert seen.width <= seen.window
    assert len(seen.images) == 6
    assert min(seen.images) > 600
    assert seen.smallest_text >= 13
    assert seen.screenshot.stat().st_size > 50_000


def test_a_wide_page_would_be_seen(built, tmp_path):
    spoilt = tmp_path / "spoilt.html"
    text = built.read_text().replace("</main>", '<div style="width:900px">x</div><script>throw 1</script></main>')
    spoilt.write_text(text.replace("</main>", '<img src="https://example.org/a.png"></main>'))
    seen = browser.look(spoilt, "phone", "spoilt")
    assert seen.width > seen.window
    assert seen.errors
    assert seen.requests == ["https://example.org/a.png"]
    assert min(seen.images) == 0
    seen.screenshot.unlink()


def test_command(folders, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", "--paper"]) == 2
    assert "no run under runs/" in capsys.readouterr().err
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "proteinflow").symlink_to(folders[2].parent)
    assert cli.main(["report", "--paper", "--out", "page"]) == 0
    assert capsys.readouterr().out == "the paper's claims: page/paper.html\n"
    assert cli.main(["report"]) == 2
    assert "name a run" in capsys.readouterr().err


def test_nothing_is_written_through_a_link(folders, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "tables").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="is a link"):
        build_paper(folders[:1], tmp_path / "page")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_rows_that_weigh_come_first_and_many_alike_are_folded():
    verdicts = [UNDECIDED] * 5 + [AGREES] * 4 + [DIFFERS]
    rows = [Row("voxels", str(place), "", "", "", "", verdict) for place, verdict in enumerate(verdicts)]
    other = Row("forcefield", "10", "", "", "", "", UNDECIDED)
    shown, more = claims_page._parted([*rows, other])
    assert [row.run for row in shown] == ["9", "5", "6", "7", "0", "1", "2", "10"]
    assert [row.run for row in more] == ["8", "3", "4"]
