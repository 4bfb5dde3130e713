"""What the committed pages of results say in words is what their own tables hold."""

import csv
import re
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def rows(name):
    with open(RESULTS / "studies" / f"forcefield-{name}" / "table.csv", newline="") as file:
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


def test_the_plateau_of_voxels():
    errors = {row[0]: float(row[2].split()[0]) for row in table("voxels.md", "## Along training")}
    steps = list(errors)
    late = [errors[step] for step in steps[steps.index("36"):]]
    said = page("voxels.md")
    lowest, highest = re.search(r"lies between ([\d.e-]+) and ([\d.e-]+) from step 36", said).groups()
    # The pages' own rounding: 5.48 and 8.67 are said as 5.5 and 8.7.
    assert (f"{min(late):.1e}", f"{max(late):.1e}") == (lowest, highest)
    over_so3 = [row for row in table("voxels.md", "## Along training") if errors[row[0]] > float(row[3].split()[0])]
    assert [row[0] for row in over_so3] == ["0", "20", "36"]
    assert all(errors[row[0]] > float(row[4].split()[0]) for row in table("voxels.md", "## Along training"))


@pytest.mark.parametrize("heading", ["## Curvature of the edge", "## Curvature of the voxel"])
def test_no_mean_eigenvalue_where_the_trace_may_be_zero_and_no_rank_below_one(heading):
    for row in table("analyses.md", heading):
        trace, over_mean, rank = row[-4:-1]
        low = float(re.search(r"\(([^ ]+) to", trace).group(1).replace("−", "-").replace(",", ""))
        assert (over_mean == "–") == (low <= 0)
        assert rank.startswith("about 1") or float(rank) >= 1
