"""Every number of README and of the documentation that looks measured is a record's, or of a kind that is none.

What looks measured (a share, a time, a size, a ratio, an R², a count out of a count) is found by ``Page.measured``. A
page's function below ties its numbers to the committed record, the constant or the formula that they come from; a new
number fails here until it is tied, or removed.
"""

import json
import math
import re
from pathlib import Path

import pytest
import torch

import equiscope as eq
from equiscope import records
from equiscope.decomposition import fold, noise
from equiscope.report import crossings
from tests.report.statements import RESULTS, Page, script

ROOT = Path(__file__).parent.parent
# The atlas is written by a script and compared byte for byte elsewhere; CONTRIBUTING.md is part of a page.
PAGES = sorted({str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md")} - {"docs/atlas.md"})
PAGES += ["README.md", "CONTRIBUTING.md"]
KINDS = {
    "the level of an interval": r"95 %",
    "the paper's line, and the skill that a crossing needs": (
        rf"(?:under|crossing of|step of|[Tt]he) {crossings.THRESHOLD:g} %|"
        rf"R² (?:of at least|is at least|of|≥) {crossings.SKILL:g}\b"
    ),
    "examples of a result, whose shape test_readme.py holds": (
        r"0\.37 % (?:of the loss is equivariance error|would vanish)|CI 0\.34–0\.41\); R² 0\.93|"
        r"[Cc]arried by\*? (?:14 of 64|4 of 40) clusters"
    ),
}


def record(name):
    return json.loads((RESULTS / f"{name}.json").read_text())


def readme(page):
    (gain,) = (row["measured"] for run in record("predicted_gain")["runs"] if run["task"] == "forcefield"
               for row in run["designs"] if row["design"] == "2 x T")  # fmt: skip
    assert 4.5 < gain < 5.5
    assert "on a trained force field their error is about a fifth of that of as many independent" in page.prose


def coverage(page):
    cells = [cell for cell in record("coverage") if "rtol" not in cell["statistic"]]
    page.given("95 times in 100")
    page.says("clusters without an error give an upper limit of {} %", 100 * (1 - 0.05 ** (1 / 5)))
    page.given("93 % from eight effective clusters on, 90 % from three, and 91 % on real molecules")
    real = [cell for cell in cells if "real" in cell["statistic"]]
    assert min(cell["covered"] for cell in cells if cell["effective"] >= 8) >= 0.93
    assert min(cell["covered"] for cell in cells if cell["effective"] >= 3) >= 0.90
    assert min(cell["covered"] for cell in real if cell["clusters"] in (20, 80)) >= 0.91
    plain = {(cell["law"].removesuffix(", width 0.3"), cell["clusters"]): cell for cell in cells
             if cell["statistic"] == "percent, clusters of one size"}  # fmt: skip
    wider = {key: 100 * (cell["wider"] - 1) for key, cell in plain.items()}
    said = "it is {} % wider for 20 normal clusters and {} % for 200; a third wider"
    page.says(said, wider["normal", 20], wider["normal", 200])
    assert 30 < wider["log-normal 0.5", 20] < 37
    assert 80 < wider["log-normal 1", 40] < 100
    page.says("of which the plain interval misses {} in 100", 100 * (1 - plain["log-normal 1", 40]["plain"]))


def symmetrised(percent):
    """By how many percent the root mean square error falls."""
    return 100 * (1 - math.sqrt(1 - percent / 100))


def faq(page):
    page.given("At 1 % of a squared error the RMSE would fall by half a percent", "At 20 % it would fall by a tenth")
    assert symmetrised(1) == pytest.approx(0.5, abs=0.01)
    assert symmetrised(20) == pytest.approx(10, abs=1)


def reading(page):
    page.says("would be smaller by , here {} %", symmetrised(0.37))
    page.given("AUC 0.50 (0.47–0.53)")


def mathematics(page):
    page.says("is low by {} % of itself for and by {} % for .", 100 / 10, 100 / 4)
    page.says("the factor adds {} % for the tetrahedral group", 100 * (12 / 11 - 1))
    runs = [records.read(folder / "records.jsonl") for folder in (RESULTS / "runs" / "proteinflow").iterdir()]
    found = {round(entry["r2"], 2) for run in runs if run[0]["config"]["data"]["fraction"] == 1 for entry in run
             if (entry["kind"], entry.get("part"), entry.get("probe")) == ("baseline", "track", "pooled")}  # fmt: skip
    assert len(found) == 1
    page.says("on the shipped chains it reaches R² {} over all flow times", *found)


def metatomic(page):
    heads = record("pet")["heads"]
    for head, said in zip(heads, ("Direct forces were {} % ({} to {}) equivariance error at R² {}",
                                  "gradient forces {} % ({} to {}) at R² {}"), strict=True):  # fmt: skip
        page.says(said, head["percent"], *head["interval"], head["r2"])
    times = [float(re.search(r"([\d.]+) times smaller", head["would be"])[1]) for head in heads]
    page.says("the error was {} and {} times the equivariance error", *times)
    speed = record("bent_sevennet")["doors"]["torch-sim"]["speed"]
    counts = (speed[name] for name in ("passes", "structures", "atoms", "seconds"))
    page.says("{} passes over {} crystals of {} atoms took {} s", *counts)


def floor_share(samples):
    """Percent of the passes of D2 that the floor takes in batches of one sample, the mean over seeds."""
    calls, model = [], torch.nn.Linear(3, 3)

    def forward(model, batch):
        calls.append(len(batch["pos"]))
        return {"f": model(batch["pos"]).tanh()}

    seeds = range(4)
    for seed in seeds:
        pos = torch.randn(samples, 1, 5, 3, generator=torch.Generator().manual_seed(seed))
        eq.measure(model, [{"pos": one} for one in pos], inputs={"pos": "1o"}, outputs={"f": "1o"}, forward=forward,
                   rotations="D2", seed=seed)  # fmt: skip
    # Beside the passes and the answer as given.
    return 100 * (1 - (2 * 4 + 1) * samples * len(seeds) / sum(calls))


def scaling(page):
    page.given("D2 gives 12 to 16 % of its passes to it where there are 64 samples, and 7 % where there are 256")
    assert 12 <= floor_share(64) <= 16
    assert floor_share(256) == pytest.approx(7, abs=1)
    wider = {name: [100 * row["wider"] for run in record("designs")["runs"] for row in run["designs"]
                    if row["design"] == name] for name in ("2 x T", "2 x D2")}  # fmt: skip
    page.given("by under 0.2 % on all five models tried")
    assert len(wider["2 x T"]) == 5
    assert max(wider["2 x T"]) < 0.2
    page.given("by 1 to 35 %")
    assert (int(min(wider["2 x D2"])), round(max(wider["2 x D2"]))) == (1, 35)
    costs = record("scaling")
    ratios = [training["ratio"] for training in costs["trainings"]]
    page.says("measured it lies between {} and {}", min(ratios), max(ratios))
    page.given("about ± 1.96", "400 clusters give ± 10 %, 40,000 give ± 1 %", "settle the percent to about ± 1 %")
    assert 196 / math.sqrt(400) == pytest.approx(10, abs=0.5)
    assert 196 / math.sqrt(40_000) == pytest.approx(1, abs=0.05)
    page.says("for an operation to write {} MB on average", fold.BUSY / 1e6)
    page.given("may take 3 million passes for 1 %: 40 points of 2,900 samples")
    assert pytest.approx(2900, rel=0.01) == 0.01 * 3 * 1e8 / 40 / 26
    kept = costs["stream"]["bytes"]
    page.given("about 310 bytes a sample", "a million samples take 310 MB, 10⁸ would take 31 GB")
    assert kept == pytest.approx(310, abs=5)


def start(page):
    made = eq.symmetry.rotations.rotation_set("T")
    page.says("Each batch is run {} times", 2 * len(made))


def theory(page):
    """The table and the sentence below it are held by report/kinds/test_dynamics.py."""
    table = script("dynamics")
    page.kind("|".join(re.escape(said) for said in table.fared(record("dynamics")).values()))
    page.given("mean shares differ; tested to 5 %", "whose floors differ by 5 %")
    (noise_share,) = re.findall(r"do not share is [\d.]+ to ([\d.]+) % of a twin", Page("dynamics.md").prose)
    assert "what they do not share is a fifth of at most" in page.prose
    assert float(noise_share) <= 20
    page.kind(r"within a factor of [\d.]+ in \d+ of \d+ runs and [\d.]+ times off in one")


def trust(page):
    page.says("more than {} times their variance", noise.APART)


def gpu(page):
    page.given("8 … 15 times a power of two")


TIES = {
    "README.md": readme, "docs/coverage.md": coverage, "docs/faq.md": faq, "docs/reading.md": reading,
    "docs/mathematics.md": mathematics, "docs/howto/metatomic.md": metatomic, "docs/scaling.md": scaling,
    "docs/start.md": start, "docs/theory.md": theory, "docs/trust.md": trust, "docs/howto/gpu.md": gpu,
}  # fmt: skip


@pytest.mark.parametrize("name", PAGES)
def test_numbers_that_look_measured_are_tied_to_what_they_come_from(name):
    page = Page(name, ROOT, whole=True)
    for pattern in KINDS.values():
        page.kind(pattern)
    TIES.get(name, lambda page: None)(page)
    assert page.measured == []


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_pages_of_the_gallery_say_nothing_measured(example, tmp_path):
    """What they print is made when they are built; their words are the comments."""
    words = re.findall(r'^"""(.*?)"""|^# (.*)$', example.read_text(), re.DOTALL | re.MULTILINE)
    (tmp_path / "page.md").write_text("\n".join(map("".join, words)))
    assert Page("page.md", tmp_path, whole=True).measured == []


@pytest.mark.parametrize("said", [
    "It fell to 3.7 % here.", "R² 0.81 was reached.", "A step took 12 ms.", "It took 4 minutes.", "AUC of 0.7.",
    "The error was 4.2 and 5 times larger.", "It holds 310 MB.", "held in 8 of 15 runs", "Right to ± 0.3.",
    "| T | 7 % |",
])  # fmt: skip
def test_a_new_number_is_seen(tmp_path, said):
    (tmp_path / "page.md").write_text(f"# A page of 5 %\n\n{said}\n")
    page = Page("page.md", tmp_path, whole=True)
    assert len(page.measured) == 1
    page.kind(r".*")
    assert page.measured == []


def test_settings_and_formulas_are_none(tmp_path):
    (tmp_path / "page.md").write_text("Of 24 rotations, $3 \\%$\n\n```\n7 %\n```\n\nin 2025, from l = 2 on.\n")
    assert Page("page.md", tmp_path, whole=True).measured == []
