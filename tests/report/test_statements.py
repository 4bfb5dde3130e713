"""What the committed pages of results say in words is what their own tables hold."""

import csv
import json
import re
import shutil

import pytest

from tests.report.statements import RESULTS, script


def rows(name, task="forcefield"):
    with open(RESULTS / "studies" / f"{task}-{name}" / "table.csv", newline="") as file:
        return {row["point"]: row for row in csv.DictReader(file)}


def page(name):
    return " ".join((RESULTS / name).read_text().split())


def table(name, heading):
    """The cells of the first Markdown table under a heading, without its head."""
    part = (RESULTS / name).read_text().split(heading)[1]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    end = next((i for i, line in enumerate(part.splitlines()) if line.startswith("## ")), None)
    inside = [line for line in part.splitlines()[:end] if line.startswith("|")] if end else lines
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in inside[2:]]


def test_model_size():
    found = rows("model_size")
    crossings = [found[size]["skilled crossing"] for size in ("15k", "58k", "200k")]
    said = page("studies/forcefield.md")
    assert "at steps {}, {} and {} for 15k, 58k and 200k".format(*crossings) in said
    ends = [float(found[size]["final percent"].split()[0]) for size in ("15k", "58k", "200k")]
    assert "Larger models end lower ({:g}, {:g}, {:g} %)".format(*ends) in said
    middles = [sum(map(int, one.split("–"))) / 2 for one in crossings]
    assert middles == sorted(middles, reverse=True)
    assert 1.5 < middles[0] / middles[-1] < 3


def test_data_size_and_augmentation():
    said, data, augmented = page("studies/forcefield.md"), rows("data_size"), rows("augmentation")
    points = ("1 %", "10 %", "30 %", "100 %")
    assert "Data size, at one seed: " + ", ".join(data[p]["skilled crossing"] for p in points) in said
    assert f"percent of {data['1 %']['final percent'].replace(' %', '')} cannot" in said
    low, high = (re.findall(r"[\d.]+", augmented[p]["final percent"])[1:] for p in ("none", "all"))
    assert float(low[0]) < float(high[1]), "the intervals overlap"
    for point in ("none", "all"):
        assert augmented[point]["final percent"] in said


@pytest.mark.parametrize("heading", ["## Curvature of the edge", "## Curvature of the voxel"])
def test_no_mean_eigenvalue_where_the_trace_may_be_zero_and_no_rank_below_one(heading):
    for row in table("analyses.md", heading):
        trace, over_mean, rank = row[-4:-1]
        low = float(re.search(r"\(([^ ]+) to", trace).group(1).replace("−", "-").replace(",", ""))
        assert (over_mean == "–") == (low <= 0)
        assert rank.startswith("about 1") or float(rank) >= 1


#: Pages held to their records elsewhere; every other one is what its script in ``benchmarks/`` makes of its own.
ELSEWHERE = {
    "analyses": "below, and test_prose.py: older tables are their own record", "bent_sevennet": "test_door_pages.py",
    "coverage": "test_coverage.py", "dynamics": "report/kinds/test_dynamics.py", "faults": "faults/test_faults.py",
    "metatomic": "test_door_pages.py", "pet": "test_door_pages.py", "planted_bugs": "planted/test_run.py",
    "verdicts": "below: from the committed runs",
}  # fmt: skip
PAGES = sorted({page.stem for page in RESULTS.glob("*.md")} - ELSEWHERE.keys())


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_what_their_records_say(name):
    made = script({"curvature_peers": "curvature_peers_page"}.get(name, name))
    render = made.page if hasattr(made, "page") else made.as_markdown
    assert render(json.loads((RESULTS / f"{name}.json").read_text())) == (RESULTS / f"{name}.md").read_text()


def test_the_pages_of_the_card_are_what_their_records_say(tmp_path, monkeypatch):
    place = shutil.copytree(RESULTS / "gpu", tmp_path / "gpu", ignore=shutil.ignore_patterns("*.md", "*.html"))
    steps, page = script("steps"), script("gpu_page")
    monkeypatch.setattr(steps, "RESULTS", place)
    monkeypatch.setattr(page, "PLACE", place)
    # No picture is drawn: their names are all that the text has of them.
    monkeypatch.setattr(page.chart, "save", lambda charts, folder: {name: folder / f"{name}.png" for name in charts})
    for report in place.glob("steps-*.json"):
        told = json.loads(report.read_text())
        steps.write(told, [row["preset"] for row in told["rows"]])
    page.main()
    made = sorted(place.glob("*.md"))
    assert [path.name for path in made] == [path.name for path in sorted((RESULTS / "gpu").glob("*.md"))]
    for path in made:
        assert path.read_text() == (RESULTS / "gpu" / path.name).read_text(), path.name


def test_the_verdicts_are_those_of_the_committed_runs():
    verdicts = script("verdicts")
    assert verdicts.page() == (RESULTS / "verdicts.md").read_text()


def number(text):
    return float(re.search(r"[−-]?[\d.,]+(e-?\d+)?", text).group().replace(",", "").replace("−", "-"))


def test_the_last_part_of_the_analyses_is_that_of_the_committed_runs():
    text = (RESULTS / "analyses.md").read_text()
    assert script("analyses").page(text) == text


def test_curvature_relative_to_the_loss():
    rows = table("analyses.md", "## Curvature of the edge")
    pairs = list(zip(rows[::2], rows[1::2], strict=True))
    said = re.search(r"own loss is ([\d,]+) to ([\d,]+) times \*larger\*", page("analyses.md")).groups()
    ratios = [number(second[-1]) / number(first[-1]) for first, second in pairs]
    assert min(ratios) == pytest.approx(number(said[0]), rel=0.03)
    assert max(ratios) == pytest.approx(number(said[1]), rel=0.03)
    whole = [number(second[2]) / number(first[2]) for first, second in (pairs[0], pairs[-1])]
    assert (round(whole[0]), round(whole[1], 1)) == (4, 0.6)
