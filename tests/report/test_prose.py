"""Every number in the prose of a committed page of results is its tables' or a setting; tables agree within."""

import csv
import math
import re

import pytest
import torch

from equiscope.tasks.voxels.models import build
from tests.report.statements import RESULTS, Page, same, script, unit, value


def reach(text):
    """The lowest and highest number that would be written so."""
    return value(text) - unit(text) / 2, value(text) + unit(text) / 2


def between(said, low, high):
    """Whether the number said may be the rounding of one from ``low`` to ``high``."""
    ends = reach(said)
    return ends[0] <= high and low <= ends[1]


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


def test_designs():
    page = Page("designs.md")
    rows = table(page, "Designs")
    runs, summed = ([row for row in rows if len(row) == width] for width in (6, 3))
    sizes = {"haar": 1, "D2": 4, "T": 12, "O": 24}
    for _, design, passes, error, spread, wider in runs:
        count, _, kind = design.split()
        assert float(count) * sizes[kind] == pytest.approx(value(passes))
        (low, high), (narrow, wide) = reach(error), reach(spread)
        ends = [100 * (math.hypot(1, a / b) - 1) for a, b in ((low, wide), (high, narrow))]
        assert between(wider, *ends), (design, wider, ends)
    for design, _, worst in summed:
        assert worst == max((row[5] for row in runs if row[1] == design), key=value)
    allowed = [row for row in summed if value(row[2]) < 1]
    best = min(allowed, key=lambda row: value(row[1]))[0]
    page.given("32 held-out samples, 24 octahedral cosets of each, 2000 draws", "load 2.2",
               "less than 1 %", f"**{best}**")
    assert page.untold == [], page.untold


def test_agreement():
    page = Page("agreement.md")
    (rows,) = page.tables.values()
    for row in rows:
        brute, *ours = [[part.split("(")[0] for part in cell.split("±")] for cell in row[1:4]]
        for (mean, error), cell in zip(ours, row[2:4], strict=True):
            rounded = (unit(mean) + unit(brute[0])) / 2
            z = [(value(mean) - value(brute[0]) + d) / math.hypot(*e)
                 for d in (-rounded, rounded) for e in zip(reach(brute[1]), reach(error), strict=True)]  # fmt: skip
            assert between(cell.split("z ")[1].rstrip(")"), min(z), max(z)), (cell, z)
            assert max(map(abs, z)) < 4
        assert value(row[4]) <= 1e-4
    page.given("100,000 independent rotations", "load 1.0, 1.3, 1.1")
    assert page.untold == [], page.untold


def test_predicted_gain():
    page = Page("predicted_gain.md")
    (rows,) = page.tables.values()
    for row in rows:
        assert 99 < sum(map(float, row[3].split("/"))) <= 100.5 or row[0].startswith("proteinflow")
        (low, high), (few, many) = reach(row[4]), reach(row[5].split(" ±")[0])
        assert between(row[6], 100 * (low / many - 1), 100 * (high / few - 1)), row
    gains = {(row[0].split(",")[0], row[1]): value(row[5]) for row in rows}
    assert round(gains["forcefield", "2 x T"]) == 5
    page.says("so there cosets gain {} times, not five", gains["proteinflow", "2 x T"])
    page.given("64 held-out samples, 12 seeds", "12 samples, 8 seeds", "degrees 1 to 5", "exact at 24 passes")
    assert page.untold == [], page.untold


def test_datasets():
    page = Page("datasets.md")
    (rows,) = page.tables.values()
    for _, seconds, rate, _ in rows:
        assert between(rate, *(1e6 / end for end in reversed(reach(seconds))))
    page.says("{} GB above the baseline of {} GB (asked: under 1 GB", 0.64, 0.36)
    samples, taken = (value(page.prose.split(before)[1]) for before in ("Loader:", "model takes"))
    assert samples == 20_761
    times = value(page.prose.split("samples/s in training:")[1])
    assert samples / (taken + 0.5) < times < samples / (taken - 0.5)
    assert times >= 5
    page.given("1,000,000 frames in SPICE 2", "0.51 GB", "1 thread(s), load 4.3", "With the model in training: 1.16 GB",
               "20,761 samples/s", f"{taken:g} samples/s in training: {times:g} times (asked: at least 5)")  # fmt: skip
    assert page.untold == [], page.untold


def test_voxels():
    page = Page("voxels.md")
    along = {row[0].replace(",", ""): row for row in table(page, "Along training")}
    octahedral = {step: value(row[2]) for step, row in along.items()}
    percent = {step: value(row[2].split("(")[1]) for step, row in along.items()}
    at_end = {row[0]: row for row in table(page, "At the end")}
    error = {name: value(row[2]) for name, row in at_end.items()}
    names = ("(a) octahedral", "(a) of the noise-averaged model", "(b) SO(3), cubic")
    names = (*names, "(c) SO(3), cubic, noise averaged")
    a, a_mean, b, c = (error[name] for name in names)
    own = error["oracle, cubic"]
    with torch.device("meta"):
        page.says("U-Net nano ({} parameters)", sum(p.numel() for p in build("unet").parameters()))
    page.says("training {} min and tracking {} min ({} %) on", 21.2, 4.8, 100 * 4.8 / 26)
    assert value(along["66"][1]) < 0.5 < value(along["120"][1])
    assert percent["36"] < 2
    page.says("(step 36, R² {}), then a percent that climbs to {} %", value(along["36"][1]), percent["2400"])
    late = [octahedral[step] for step in list(along)[2:]]
    page.says("lies between {} and {} from step 36 on", min(late), max(late))
    rest = [octahedral[step] for step in list(along)[2:] if step not in ("66", "120")]
    two = [1e6 * octahedral[step] for step in ("66", "120")]
    page.says("({} and {} at steps 66 and 120, the rest up to {})", *two, 1e6 * max(rest))
    page.says("without care, {}, {} % ({}, (b) less (c))", b, 100 * (b - c) / b, b - c)
    page.says("turns, {} the interpolation of the answer, and at most what is left of {} the network", own, c)
    page.says("error (a), {}, where nothing", a)
    page.says("turns along, {} % goes when", 100 * (1 - a_mean / a))
    page.says("another orientation. {}, or {} % of the loss, is left", a_mean, value(at_end[names[1]][1]))
    page.says("takes 16 ms of 524 ms process time of a training step ({} %)", 100 * 16 / 524)
    page.given("24³ voxels of 0.5 Å, radius 0.6 Å, sigma 0.3, batch 8, 2,400 steps", "R² 0.5 is passed before step 120",
               "SO(3)", "up to step 36", "a dip under 2 %", "batch 8, one thread")  # fmt: skip
    assert page.untold == [], page.untold


UNRECORDED = """
From step 0 to 44 the error falls 1,000 times
(170 times)
(÷ 1.04); from step 44 on the features grow back 120 times
falls 390 times. The variance itself falls 5 times
under 0.01 %
its forces 100.0 % at l = 1
layers 1 / 2 / 3: 1.20 / 0.59 / 0.53 % at step 286, 0.27 / 0.09 / 0.13 % at step 2,400, all of it l = 1
forces 99.99 % at l = 1
Proteina (1M, step 800, pooled flow times, four chains): coordinates enter at 100 % l = 1
after blocks 1 to 4 61, 59, 54 and 40 % (± 9 to 4) are l = 1
the velocity is 99.7 ± 0.2 % l = 1
"""
# Of the runs and analyses, and what test_statements.py holds against the tables.
SETTINGS = """
`layers`, `hessian --samples 8 --batch 2`
Intervals are 95 %
--part final --samples 256 --batch 8`: 20 kept checkpoints, 256 held-out frames, 2 x T
unbiased products of 16 groups
falls 14 to 1,300 times faster along the whole loss's gradient up to step 291
After step 600
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
    page = Page("analyses.md")
    force = table(page, "Gradients of the edge")
    steps = {int(row[0]): row for row in force if row[0].isdigit()}
    faster = {step: value(row[2]) / value(row[1]) for step, row in steps.items()}
    early = [ratio for step, ratio in faster.items() if step <= 291]
    assert same("14", min(early))
    assert f"{max(early):,.0f}"[:3] == "1,3"
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
    # Figures whose records are not kept; the page says so.
    assert "The records behind this paragraph and the next list are not kept" in page.prose
    page.given(*UNRECORDED.strip().splitlines())
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
trainer.max_steps=800 track.points=12`
7 runs of 800 steps, nano size (34,248 parameters), at most 394 training chains
trainer.max_steps=1200 track.points=10 track.times=[0.2,0.6,0.9] study.seeds=[0]`
its lowest rate and 1.28e-1: 9 runs of 1,200 steps, the equivariant twin with 38,092 parameters
`model_size` at rate 3.2e-2 without its largest: one more run, of 169,224 parameters
No run of 800 steps
At 1,200 steps
its 16 tracked chains reaches 2 %
"""


def test_the_studies_of_the_flow():
    page = words_of("proteinflow")
    short = {name: points("proteinflow", name) for name in ("replicates", "data_size", "optimizer")}
    every = [row for rows in short.values() for row in rows.values()]
    assert {row["skilled crossing"] for row in every} == {"none"}
    headings = ("Replicates", "Data size", "Optimizer")
    at_end = [end for word in ("R²", "skill") for end in ends("proteinflow", word, headings)]
    page.says("chain: R² {} to {}, skill {} to {}.", *at_end)
    first = [value(row["first ≤ 2 %"]) for row in every]
    page.says("under 2 % between steps {} and {},", min(first), max(first))
    (replicates,) = short["replicates"].values()
    page.given(f"ends at {replicates['final percent']} over three seeds")
    data = [short["data_size"][share]["final percent"] for share in ("1 %", "10 %", "100 %")]
    assert overlap(data)
    one, two, three = (cell.replace(" %", "") for cell in data)
    page.given(f"{one}, {two} and {three.replace(' [', ' % [')} with 4, 39 and 394 chains")
    sgd, adam = (short["optimizer"][point] for point in ("sgd 1e-1", "adam 5e-4"))
    page.says("at the same R² of {} plain SGD", value(sgd["final R²"]))
    assert sgd["final R²"] == adam["final R²"]
    page.given(f"plain SGD ends at {sgd['final percent']} and Adam (5e-4) at {adam['final percent']}.")
    models = points("proteinflow", "efficiency")
    plain = {name.split("@ ")[1]: row for name, row in models.items() if name.startswith("proteina @")}
    twin = {name.split("@ ")[1]: row for name, row in models.items() if name.startswith("proteina_equivariant @")}
    page.says("skill up to {}.", max(value(row["skill"]) for row in models.values()))
    skilled = {rate: row["skilled crossing"] for rate, row in plain.items() if row["skilled crossing"] != "none"}
    assert list(skilled) == ["3.2e-2"]
    page.says("at step {} at rate 3.2e-2", value(skilled["3.2e-2"]))
    percents = {rate: value(row["final percent"]) for rate, row in plain.items() if rate != "2e-3"}
    page.says("It ends at {} to {} %, at 8e-3 and 6.4e-2", percents["8e-3"], percents["6.4e-2"])
    assert (min(percents.values()), max(percents.values())) == (percents["8e-3"], percents["6.4e-2"])
    page.says("end at R² {} and {}.", value(twin["1.6e-2"]["final R²"]), value(plain["3.2e-2"]["final R²"]))
    measured = table(Page("studies/proteinflow.md"), "Efficiency")
    rates = {row[0]: row[2] for row in measured if len(row) == 10}
    assert rates["proteina"] == "6.4e-2 (1 seed, at the edge of the learning rates)"
    assert rates["proteina_equivariant"] == "1.6e-2 (1 seed)"
    (ratio,) = {row[6] for row in measured if len(row) == 8}
    page.given(f"takes {ratio} times as long", "best rate, 1.6e-2, lies inside", "is 6.4e-2, the", "it is 3.2e-2")
    sizes = points("proteinflow", "model_size")
    small, large = (sizes[name] for name in ("nano", "170k"))
    assert overlap([small["final percent"], large["final percent"]])
    assert large["skilled crossing"] == "none"
    told = f"{small['final percent']} with {small['parameters']} parameters and {large['final percent']} with"
    page.given(f"one seed a point, at 3.2e-2: {told} {large['parameters']}.")
    page.says("linear denoiser (skill {})", value(large["skill"]))
    page.given(*FLOWS.strip().splitlines())
    assert page.untold == [], page.untold


def test_the_studies_of_voxels():
    page = words_of("voxels")
    names = ("replicates", "data_size", "model_size", "optimizer", "efficiency")
    studied = {name: points("voxels", name) for name in names}
    assert {row["skilled crossing"] for rows in studied.values() for row in rows.values()} == {"none"}
    long, short = ("Replicates", "Data size"), ("Model size", "Optimizer", "Efficiency")
    skill = [end for headings in (long, short) for end in ends("voxels", "skill", headings)]
    r2 = [end for headings in (long, short) for end in ends("voxels", "R²", headings)]
    page.says("skill {} to {} at R² {} to {} after 600 steps, {} to {} at {} to {} after 200",
              *skill[:2], *r2[:2], *skill[2:], *r2[2:])  # fmt: skip
    (replicates,) = studied["replicates"].values()
    page.given(f"ends at {replicates['final percent']} over three seeds")
    data = [studied["data_size"][name]["final percent"] for name in ("64 conformers", "512 conformers", "100 %")]
    assert overlap(data)
    page.given(f"one seed a point: {data[0]}, {data[1]} and {data[2]} with 64, 512 and all conformers")
    few, many = (studied["model_size"][name] for name in ("4 channels", "8 channels"))
    told = f"{few['final percent']} with {few['parameters']} parameters and {many['final percent']} with"
    page.given(f"one seed a point: {told} {many['parameters']}.")
    middle, spread = (value(part) for part in replicates["final percent"].split("±"))
    assert value(many["final percent"]) - value(few["final percent"]) < spread < middle
    sgd, adamw = (studied["optimizer"][name] for name in ("sgd 1e-1", "default"))
    assert overlap([sgd["final percent"], adamw["final percent"]])
    page.given(f"SGD ends at {sgd['final percent']} and R² {sgd['final R²']}, AdamW at {adamw['final percent']} and "
               f"{adamw['final R²']}.")  # fmt: skip
    models = studied["efficiency"]
    twin, plain = models["unet_tied @ 8e-3"], models["unet @ 8e-3"]
    assert value(twin["final R²"]) > value(models["unet_tied @ 2e-3"]["final R²"])
    assert value(plain["final R²"]) > value(models["unet @ 2e-3"]["final R²"])
    page.says("({} parameters) ends at R² {}, the plain U-Net at {}, both at 8e-3", value(twin["parameters"]),
              value(twin["final R²"]), value(plain["final R²"]))  # fmt: skip
    (ratio,) = {row[6] for row in table(Page("studies/voxels.md"), "Efficiency") if len(row) == 8}
    cells = [models[f"unet_tied @ {rate}"]["final percent"] for rate in ("2e-3", "8e-3")]
    assert all("[0, " in cell for cell in cells)
    page.given(f"takes {ratio} times as long", f"from zero: {cells[0]} and {cells[1]}.", *VOXELS.strip().splitlines())
    assert page.untold == [], page.untold


VOXELS = """
grid.size=16 grid.resolution=0.75 grid.radius=0.9 +model.width=4 +model.multipliers=[1,2]
batch_size=4 trainer.max_steps=600 track.points=6 track.so3_rotations=2
data.track_conformers=8 data.final_conformers=24 data.probe_batch=8`
5 runs of 600 steps of a U-Net of 23,207 parameters on grids of 16³
at rates 2e-3 and 8e-3, `model_size` with 4 and 8 channels and `optimizer`
`trainer.max_steps=200 track.points=4 study.seeds=[0]`
6 runs of 200 steps
on SO(3)
tell that from 2 %
"""
