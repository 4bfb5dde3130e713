"""What the committed pages of results say in words is what their own tables hold."""

import csv
import json
import re

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


#: Pages by the script of ``benchmarks/`` that writes them from their record; others have tests of their own.
MADE = {
    "agreement": "agreement", "curvature_peers": "curvature_peers_page", "datasets": "datasets",
    "designs": "designs", "estimators": "estimators", "overhead": "overhead", "predicted_cost": "predicted_cost",
    "predicted_gain": "predicted_gain", "scaling": "scaling", "voxels": "voxels",
}  # fmt: skip
ELSEWHERE = {
    "analyses": "test_prose.py: its tables are the record", "bent_sevennet": "test_door_pages.py",
    "coverage": "test_coverage.py", "dynamics": "report/kinds/test_dynamics.py", "faults": "faults/test_faults.py",
    "metatomic": "test_door_pages.py", "pet": "test_door_pages.py", "planted_bugs": "planted/test_run.py",
    "verdicts": "below: from the committed runs",
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_pages_are_what_their_records_say(name):
    made = script(MADE[name])
    render = made.page if hasattr(made, "page") else made.as_markdown
    assert render(json.loads((RESULTS / f"{name}.json").read_text())) == (RESULTS / f"{name}.md").read_text()


def test_no_page_is_without_a_record():
    assert {page.stem for page in RESULTS.glob("*.md")} == MADE.keys() | ELSEWHERE.keys()


def test_the_verdicts_are_those_of_the_committed_runs():
    verdicts = script("verdicts")
    assert verdicts.page() == (RESULTS / "verdicts.md").read_text()


def number(text):
    return float(re.search(r"[−-]?[\d.,]+(e-?\d+)?", text).group().replace(",", "").replace("−", "-"))


def test_the_share_of_the_gradients_rates():
    rows = table("analyses.md", "## Gradients of the edge transformer")
    ratios = [number(row[2]) / number(row[1]) for row in rows if row[0].isdigit() and int(row[0]) <= 291]
    fastest, slowest = max(ratios), min(ratios)
    assert (f"{slowest:.0f}", f"{fastest:,.0f}"[:3]) == ("14", "1,3")
    assert "falls 14 to 1,300 times faster along the whole loss's gradient up to step 291" in page("analyses.md")


def test_curvature_relative_to_the_loss():
    rows = table("analyses.md", "## Curvature of the edge")
    pairs = list(zip(rows[::2], rows[1::2], strict=True))
    said = re.search(r"own loss is ([\d,]+) to ([\d,]+) times \*larger\*", page("analyses.md")).groups()
    ratios = [number(second[-1]) / number(first[-1]) for first, second in pairs]
    assert min(ratios) == pytest.approx(number(said[0]), rel=0.03)
    assert max(ratios) == pytest.approx(number(said[1]), rel=0.03)
    whole = [number(second[2]) / number(first[2]) for first, second in (pairs[0], pairs[-1])]
    assert (round(whole[0]), round(whole[1], 1)) == (4, 0.6)
