"""Every number in the prose of a committed page of results is its tables' or a setting; tables agree within."""

import csv
import json
import math
import re

import pytest
import torch

from equiscope.tasks.voxels.models import build
from tests.report.statements import RESULTS, Page, same, script, unit, value


def table(page, heading):
    """The rows under the heading that starts so."""
    (rows,) = [rows for name, rows in page.tables.items() if name.startswith(heading)]
    return rows


def test_a_number_is_judged_to_its_own_digits():
    assert same("94", 94.4)
    assert same("3.8e-05", 3.84e-5)
    assert not same("94", 94.6)
    assert not same("3.80e-05", 3.77e-5)
    assert same("−1,090", -1090.4)
    assert unit("2.7e4") == pytest.approx(1e3)


TOY = """\
# A 1

Of `x 3` 4 % and 24³ are 5.
Load 6.

| a | b |
| - | - |
| 1 | 4.1 |
"""


def test_a_page_tells_what_nobody_has_accounted_for(tmp_path):
    (tmp_path / "p.md").write_text(TOY)
    page = Page("p.md", tmp_path)
    page.given("Load 6.")
    assert page.tables == {"A 1": [["1", "4.1"]]}
    assert len(page.untold) == 2
    page.says("{} % and 24³ are {}.", value(page.tables["A 1"][0][1]), 5)
    assert page.untold == [], page.untold
    with pytest.raises(AssertionError, match="says 5 where its tables give 6"):
        page.says("are {}.", 6)
    with pytest.raises(AssertionError, match="does not say"):
        page.says("is {}.", 5)


def record(name):
    return json.loads((RESULTS / f"{name}.json").read_text())


def test_designs():
    """Passes by the sizes of the groups, widths by Pythagoras; the default is the cheapest that is allowed."""
    sizes, worst = {"haar": 1, "D2": 4, "T": 12, "O": 24}, {}
    for run in record("designs")["runs"]:
        for row in run["designs"]:
            count, _, kind = row["design"].split()
            assert float(count) * sizes[kind] == pytest.approx(row["passes"])
            # Where figures were taken to two digits, so was the widening.
            assert math.hypot(1, row["error"] / run["spread"]) - 1 == pytest.approx(row["wider"], rel=0.1)
            worst[row["passes"], row["design"]] = max(row["wider"], worst.get((row["passes"], row["design"]), 0))
    (_, best) = min(design for design, wider in worst.items() if wider < 0.01)
    assert f"on every model: **{best}**." in Page("designs.md").prose


def test_agreement():
    for run in record("agreement")["runs"]:
        for ours in run["ours"]:
            # Errors may have been kept to one digit.
            z = (ours["value"] - run["brute"]) / math.hypot(run["error"], ours["error"])
            assert z == pytest.approx(ours["z"], rel=0.55, abs=0.06)
            assert abs(ours["z"]) < 4
        assert run["e3nn"] <= 1e-4


def test_predicted_gain():
    for run in record("predicted_gain")["runs"]:
        assert 0.9 < sum(run["powers"]) < 1.01
        for row in run["designs"]:
            assert row["excess"] == pytest.approx(row["predicted"] / row["measured"] - 1, abs=0.01)
            assert abs(row["predicted"] - row["measured"]) < 4 * row["error"]


def test_datasets():
    found = record("datasets")
    assert found["drawing_gb"] < 1
    assert found["loader"] >= 5 * found["used"]


def test_voxels():
    """What the page says of its record, counted here anew."""
    found, page = record("voxels"), Page("voxels.md")
    rows, end = found["along"], found["end"]
    errors = [[row[letter]["error"] for row in rows] for letter in "abc"]
    over = [sum(a > other for a, other in zip(errors[0], errors[i], strict=True)) for i in (1, 2)]
    page.says("(a) exceeds (b) in {} and (c) in {} of the {} measurements", *over, len(rows))
    percents = [row["a"]["percent"] for row in rows]
    dip = percents.index(min(percents))
    page.says("(step {}, R² {}), then a percent", rows[dip]["step"], rows[dip]["a"]["r2"])
    page.says("that climbs to {} % while", rows[-1]["a"]["percent"])
    page.says("(a) lies between {} and {}, and", min(errors[0][dip:]), max(errors[0][dip:]))
    b, c = (end[f"{name} SO(3), cubic{more}"]["error"] for name, more in (("(b)", ""), ("(c)", ", noise averaged")))
    a, mean = (end[f"(a) {name}"]["error"] for name in ("octahedral", "of the noise-averaged model"))
    page.says("error (b) at the end, {}, {} % ({}, (b) less (c))", b, 100 * (1 - c / b), b - c)
    page.says("{} is left; interpolating the exact answer costs {}.", c, end["oracle, cubic"]["error"])
    page.says("error (a), {}, where nothing is interpolated", a)
    page.says("the noise turns along, {} % goes", 100 * (1 - mean / a))
    with torch.device("meta"):
        assert found["parameters"] == sum(p.numel() for p in build("unet").parameters())


# Of the runs and analyses, and what test_statements.py holds against the tables.
SETTINGS = """
Intervals are 95 %
trainer.max_steps=600 trainer.keep=12 batch_size=8`
--samples 16 --batch 2 --rotations D2 --probe t=0.2 --probe t=0.6 --probe t=0.95` at its 12 checkpoints
at t = 0.6
--samples 16 --batch 4 --vectors 4 --matrices hessian gauss_newton`: 16 held-out frames
at step 291 alone
is 71 to 1,090 times *larger*
at step 68 and 0.6 times at the end
at least 1,
--samples 2 --batch 1`
--at 68 291 983 1600 --samples 16 --batch 4`: ± 0.5 % of |θ|, 9 × 9 points
by less than 1e-7
"""


def test_analyses():
    page = Page("analyses.md", until=script("analyses").FIRST)
    flow = [row for row in table(page, "Gradients of the protein") if len(row) == 6]
    ratios = {(row[0], int(row[1])): value(row[3]) / value(row[2]) for row in flow}
    assert min(ratios.values()) > 1
    first = [ratio for (_, step), ratio in ratios.items() if step == 20]
    later = [row for row in flow if int(row[1]) >= 110]
    page.says("by {} to {} times at step 20", min(first), max(first))
    page.says("by {} times or more from step 110 on", min(value(row[3]) / value(row[2]) for row in later))
    lows = [value(row[2].split("(")[1]) for row in later]
    page.says("where {} of the {} rates of the twirled loss", sum(low <= 0 for low in lows), len(lows))
    curved = table(page, "Curvature of the edge")
    both = [row for row in curved if row[0] == "291"]
    page.says("where λ_max over it is {} and {}, without", *(value(row[4]) for row in both))
    assert [row[0] for row in curved if row[4] != "–" and row[1] == "equivariance"] == ["68", "291"]
    broken, twirled = (
        [value(row[5].split("(")[-1]) for row in curved if row[1] == part] for part in ("equivariance", "twirled")
    )
    ends = (min(broken), max(broken), min(twirled), max(twirled))
    page.says("so {}–{} against {}–{} tells nothing apart, and {} means about 1", *ends, min(twirled))
    rough = table(page, "Roughness")
    page.says("leaves over is at most {} % of the range", max(100 * value(row[3]) for row in rough))
    page.given(*SETTINGS.strip().splitlines())
    assert page.untold == [], page.untold


def test_the_page_of_studies_keeps_its_words_and_the_sections_of_others():
    page = script("studies")
    made = f"# Studies\n\n{page.FIRST}.\n\n## B: new\n\nb2\n\n{page.LAST}Shen.\n"
    old = "## A: old\n\na\n\n\n## B: new\n\nb1\n\n"
    committed = f"# Studies\n\nWords.\n\n{page.FIRST}, old.\n\n{old}{page.LAST}Shen.\n"
    assert page.with_words(made, committed) == (
        f"# Studies\n\nWords.\n\n{page.FIRST}.\n\n## A: old\n\na\n\n\n## B: new\n\nb2\n\n{page.LAST}Shen.\n"
    )


def points(task, name):
    """The rows of a study's table by point."""
    with open(RESULTS / "studies" / f"{task}-{name}" / "table.csv", newline="") as file:
        return {row["point"]: row for row in csv.DictReader(file)}


def words_of(task):
    """What is said of a task's studies before the page that its records wrote."""
    return Page(f"studies/{task}.md", until=script("studies").FIRST)


def test_the_studies_of_the_force_field():
    page = words_of("forcefield")
    sizes, data, optimiser, augmented, models = (
        points("forcefield", name) for name in ("model_size", "data_size", "optimizer", "augmentation", "efficiency")
    )
    page.says("(18 runs of {} steps", 1600)
    crossings = [[value(end) for end in sizes[size]["skilled crossing"].split("–")] for size in ("15k", "58k", "200k")]
    page.says("at steps {}–{}, {}–{} and {}–{} for 15k, 58k and 200k", *(end for pair in crossings for end in pair))
    middles = [sum(pair) / 2 for pair in crossings]
    page.says("by a factor of about {}, less than the 3 that", middles[0] / middles[-1])
    page.says("end lower ({}, {}, {} %)", *(value(sizes[size]["final percent"]) for size in ("15k", "58k", "200k")))
    shares = ("1 %", "10 %", "30 %", "100 %")
    page.says("at one seed: {}, {}, {}, {}.", *(value(data[share]["skilled crossing"]) for share in shares))
    page.says("(R² {}); its percent", value(data["1 %"]["final R²"]))
    others = [value(data[share]["final percent"]) for share in shares[1:]]
    page.says("others ({} to {})", min(others), max(others))
    ends = [value(row["final percent"]) for row in optimiser.values()]
    page.says("lie between {} % (Adam, 1e-2) and {} % (SGD", min(ends), max(ends))
    assert min(optimiser, key=lambda p: value(optimiser[p]["final percent"])) == "adam 1e-2"
    best = {}
    for point, row in models.items():
        model, rate = (part.strip() for part in point.split("@"))
        best.setdefault(model, {})[rate] = value(row["final R²"])
    # By R², which goes with the loss here; the page's table goes by the tracked loss and names the same.
    assert {max(rates, key=rates.get) for rates in best.values()} == {"1e-2"}
    assert {max(rates, key=float) for rates in best.values()} == {"1e-2"}
    none, every = augmented["none"]["final percent"], augmented["all"]["final percent"]
    page.given(none, every, data["1 %"]["final percent"].replace(" %", ""), "best learning rate of every model is 1e-2",
               "With 1 % of the data (32 frames)", "--parallel 2` (", "on 2 cores beside other work): 1 h 18 min",
               "(15 runs, one shared): 36 min", "up to 3,200 training frames, 15k to 200k parameters")  # fmt: skip
    contest = points("forcefield", "efficiency_escaip")
    measured = table(Page("studies/forcefield.md"), "Efficiency escaip")
    # Without a caution: three seeds, and inside the grid.
    assert {row[0]: row[2] for row in measured if len(row) == 10} == {"escaip": "1e-2", "escaip_tied": "1e-2"}
    plain, twin = (contest[f"{model} @ 1e-2"]["final R²"] for model in ("escaip", "escaip_tied"))
    assert spreads([plain, twin])
    (ratio,) = {row[6] for row in measured if len(row) == 8}
    ahead = [row[2] for row in measured if len(row) == 8 and row[7] == "escaip_tied is there first"]
    page.given(f"R² {plain} and {twin}, so that neither", f"takes {ratio} times as long", "twin, 1,000 steps",
               f"reaches R² {', '.join(ahead[:-1])} and {ahead[-1]} in fewer", "best rate of both, 1e-2, which",
               "max_steps=1000 track.points=14 study.seeds=[0]`, rates 3e-3 to 3e-2 and further seeds at 1e-2",
               " (10 runs): the section")  # fmt: skip
    assert page.untold == [], page.untold


def overlap(cells):
    """Whether the intervals in these cells all share a point."""
    intervals = [[value(end) for end in cell.split("[")[1].rstrip("] ").split(", ")] for cell in cells]
    return max(low for low, _ in intervals) < min(high for _, high in intervals)


def ends(task, word, headings):
    """Lowest and highest of a figure at the end, by the sentences of the sections that the records wrote."""
    text = (RESULTS / "studies" / f"{task}.md").read_text()
    parts = [part for part in text.split("\n## ")[1:] if part.startswith(headings)]
    found = [re.findall(rf"{word} between (−?[\d.]+) and (−?[\d.]+)", part)[-1] for part in parts]
    return min(value(low) for low, _ in found), max(value(high) for _, high in found)


FLOWS = """
trainer.max_steps=1200 track.points=10 track.times=[0.2,0.6,0.9] study.seeds=[0]`
with further seeds at three points (`study.more`): 16 runs of 1,200 steps, nano size
(34,248 parameters; the equivariant twin 38,092), at most 394 training chains. Then at rate 3.2e-2 and three seeds
its largest (169,224 parameters), `augmentation` with one seed, and `optimizer`: 13 runs
under 2 % between
- Replicates, at 3.2e-2: three
"""


def spreads(cells):
    """Whether "mean ± deviation" of these cells all share a point."""
    pairs = [[value(part) for part in cell.split("±")] for cell in cells]
    return max(a - b for a, b in pairs) < min(a + b for a, b in pairs)


def test_the_studies_of_the_flow():
    page = words_of("proteinflow")
    names = ("replicates", "data_size", "optimizer", "model_size", "efficiency")
    studied = {name: points("proteinflow", name) for name in names}
    every = [row for rows in studied.values() for row in rows.values()]
    page.says("more than {}, a loss", max(value(row["skill"]) for row in every))
    page.says("a loss {} % under", 100 * max(value(row["skill"]) for row in every))
    crossed = [row["skilled crossing"].split(" ")[0] for row in every if row["skilled crossing"] != "none"]
    steps = {value(end) for cell in crossed for end in cell.split("–")}
    assert len(steps) == 2
    page.says("is at step {} or {},", *sorted(steps))
    first = [value(end) for row in every if "⁻" not in row["final percent"] for end in row["first ≤ 2 %"].split("–")]
    page.says("between steps {} and {}.", min(first), max(first))
    (replicates,) = studied["replicates"].values()
    page.given(f"three seeds end at {replicates['final percent']} and")
    page.says("and R² {}.", value(replicates["final R²"]))
    small, large = (studied["model_size"][name] for name in ("nano", "170k"))
    assert spreads([small["final percent"], large["final percent"]])
    assert large["skilled crossing"].endswith("(2 of 3)")
    told = f"{small['final percent']} with {small['parameters']} parameters and {large['final percent']} with"
    page.given(f"three seeds a point: {told} {large['parameters']}.")
    data = [studied["data_size"][share] for share in ("1 %", "10 %", "100 %")]
    one, two, three = (row["final percent"] for row in data)
    assert spreads([two, three])
    page.given(f"three seeds a point: {one}, {two} and {three} with 4, 39 and 394 chains", "Between 39 and 394")
    assert data[0]["skilled crossing"] == "none"
    page.given("With 4 chains no run is better")
    page.says("fitted to the same chains (skill {})", value(data[0]["skill"]))
    sgd, adam = (studied["optimizer"][point] for point in ("sgd 1e-1", "adam 5e-4"))
    assert max(value(row["skill"]) for row in (sgd, adam)) < 0
    page.given(f"plain SGD ends at {sgd['final percent']} with R² {sgd['final R²']}, Adam (5e-4) at "
               f"{adam['final percent']} with {adam['final R²']}.")  # fmt: skip
    turned = [points("proteinflow", "augmentation")[share]["final percent"] for share in ("all", "half", "none")]
    assert overlap(turned)
    whole, half, none = turned
    page.given(f"Augmentation, one seed a point: {whole} with it, {half} with half of it and {none} without.")
    measured = table(Page("studies/proteinflow.md"), "Efficiency")
    rates = {row[0]: row[2] for row in measured if len(row) == 10}
    # Without a caution: three seeds, and inside the grid.
    assert rates == {"proteina": "6.4e-2", "proteina_equivariant": "1.6e-2"}
    page.given("model's best rate is 6.4e-2 and the equivariant one's 1.6e-2,")
    plain, twin = (studied["efficiency"][f"{model} @ {rate}"]["final R²"] for model, rate in rates.items())
    assert spreads([plain, twin])
    (ratio,) = {row[6] for row in measured if len(row) == 8}
    page.given(f"They end at R² {plain} and {twin},", f"takes {ratio} times as long", *FLOWS.strip().splitlines())
    assert page.untold == [], page.untold


def test_the_studies_of_voxels():
    page = words_of("voxels")
    names = ("replicates", "data_size", "model_size", "optimizer", "efficiency", "augmentation")
    studied = {name: points("voxels", name) for name in names}
    every = [row for rows in studied.values() for row in rows.values()]
    skill, r2 = ([value(row[name]) for row in every] for name in ("skill", "final R²"))
    page.says("skill {} to {} at R² {} to {}.", min(skill), max(skill), min(r2), max(r2))
    crossed = {name for rows in studied.values() for name, row in rows.items() if row["skilled crossing"] != "none"}
    assert crossed == {"sgd 1e-1"}
    assert studied["optimizer"]["sgd 1e-1"]["skilled crossing"] == "1,000"
    (replicates,) = studied["replicates"].values()
    page.given(f"ends at {replicates['final percent']} over three seeds", "too close to 2 %", "Replicates, at 3.2e-2")
    models = studied["efficiency"]
    low, high = (models[f"unet @ {rate}"]["final percent"] for rate in ("2e-3", "8e-3"))
    assert not overlap([low, high])
    assert sum(value(part) for part in replicates["final percent"].split("±")) < value(high.split("[")[1])
    page.given(f"The rate moves it: {low} at 2e-3 and {high} at 8e-3,", "three seeds at 3.2e-2 end lower")
    turned, fixed = (studied["augmentation"][name] for name in ("all", "none"))
    both = turned["final percent"], fixed["final percent"]
    assert not overlap(both)
    page.given(f"Augmentation, one seed a point: {both[0]} with it and {both[1]} without,",
               f"at R² {turned['final R²']} and {fixed['final R²']}.")  # fmt: skip
    data = [studied["data_size"][name]["final percent"] for name in ("64 conformers", "512 conformers", "100 %")]
    page.given(f"one seed a point: {data[0]}, {data[1]} and {data[2]} with 64, 512 and all conformers")
    assert value(data[1]) > max(value(data[0]), value(data[2]))
    few, many = (studied["model_size"][name] for name in ("4 channels", "8 channels"))
    assert overlap([few["final percent"], many["final percent"]])
    told = f"{few['final percent']} with {few['parameters']} parameters and {many['final percent']} with"
    page.given(f"one seed a point: {told} {many['parameters']}.")
    sgd, adamw = (studied["optimizer"][name] for name in ("sgd 1e-1", "default"))
    assert overlap([sgd["final percent"], adamw["final percent"]])
    page.given(f"SGD ends at {sgd['final percent']} and R² {sgd['final R²']}, AdamW at {adamw['final percent']} and "
               f"{adamw['final R²']}.")  # fmt: skip
    measured = table(Page("studies/voxels.md"), "Efficiency")
    # Without a caution: three seeds, and inside the grid.
    assert {row[0]: row[2] for row in measured if len(row) == 10} == {"unet": "3.2e-2", "unet_tied": "3.2e-2"}
    plain, twin = (models[f"{name} @ 3.2e-2"]["final R²"] for name in ("unet", "unet_tied"))
    assert spreads([plain, twin])
    (ratio,) = {row[6] for row in measured if len(row) == 8}
    page.given(f"They end at R² {plain} and {twin},", f"takes {ratio} times as long", *VOXELS.strip().splitlines())
    assert page.untold == [], page.untold


VOXELS = """
grid.size=16 grid.resolution=0.75 grid.radius=0.9 +model.width=4 +model.multipliers=[1,2]
batch_size=4 trainer.max_steps=1000 track.points=5 track.so3_rotations=4
data.track_conformers=24 data.final_conformers=48 data.probe_batch=8 study.seeds=[0]`
with further seeds at 3.2e-2: 12 runs of 1,000 steps of a U-Net of 23,207 parameters and of its tied twin (4,255), on
on grids of 16³. Then `replicates` at 3.2e-2, and at the default rate of 2e-3 with one seed
5 runs more
on SO(3)
rate of both, 3.2e-2, is inside
"""
