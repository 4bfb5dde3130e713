"""The claims of the paper on committed runs: the verdict before the rules were made to survive review, now, and why.

    python benchmarks/verdicts.py keep runs/forcefield/NAME …    # thinned records of runs among the results
    python benchmarks/verdicts.py studied runs/studies/NAME …    # of a study's runs, the deciding probe alone, and its profile
    python benchmarks/verdicts.py                                # benchmarks/results/verdicts.md from them

``equiscope report --paper benchmarks/results/runs/{forcefield,proteinflow,voxels}/*`` makes the whole page of the claims
from the same records. What the earlier rules say to them is in ``before.csv`` beside them, written by that version.
"""

import csv
import sys
import textwrap
from pathlib import Path

from pages import RESULTS, table

from equiscope import records, tasks
from equiscope.records import Records
from equiscope.report import authors, paper
from equiscope.report.claims import claims
from equiscope.report.claims_page import RUN_COLUMNS, run_rows
from equiscope.report.evidence import DIFFERS, Evidence, gather

RUNS, BEFORE, PAGE = RESULTS / "runs", RESULTS / "runs" / "before.csv", RESULTS / "verdicts.md"
#: Kinds of records that the page needs; the losses of single steps and pictures are left out.
KEPT = ("run", "data", "baseline", "measure", "analysis", "end")
INTRODUCTION = (
    "On the same records, of {} (`runs/`): the verdict by the rules as they were, by the rules as they are, and what the "
    "authors' own published curves get by the same rules. `python benchmarks/verdicts.py` writes this page; `equiscope "
    "report --paper benchmarks/results/runs/{{forcefield,proteinflow,voxels}}/*` shows every row of evidence."
)
#: Why a verdict is another than it was: the general mend of each rule.
WHY = {
    "measure": "Twirled is defined as total − error, so that the parts add up says nothing; brute force decides, on a "
    "trained model of every task.",
    "quick": "All three tasks are needed, or what is missing is named; runs of fewer than 1,000 steps decide nothing; "
    "skill is a loss below the task's best linear equivariant predictor; voxels are judged on the SO(3), noise-averaged "
    "probe.",
    "robust": "Needs runs that differ in one size alone, three seeds each, and an equivalence margin: a factor of 3.",
    "easier": "Relative rates of the gradients count; an exact ratio of one is equal; landscapes of one batch are "
    "refused.",
    "penalty": "No verdict from models without skill against the task's own baseline, or from short runs.",
    "efficiency": "Each model at its best learning rate, inside the grid, three seeds, annealed to its own budget, with "
    "step times taken in turn.",
    "relations": "The paper's own pairs decide; identities, such as the exact form of the head, are shown apart.",
}


def studied(folder: Path) -> list[Path]:
    """The finished runs of a study that are not among the results yet, by their deciding probe, and its profile."""
    found = records.read(folder / "records.jsonl")
    task, runs = found[-1].get("task") or folder.name.partition("-")[0], [r for r in found if r["kind"] == "study"][-1]["runs"]
    places = [(folder / run["folder"]).resolve() for run in runs if run["status"] == "finished"]
    made = [keep(place, decides=True) for place in places if not (RUNS / task / place.name).exists()]
    profiles = [record for record in found if record["kind"] == "profile"][-1:]
    return [*made, *([_written(RUNS / "studies" / folder.name, profiles)] if profiles else [])]


def keep(folder: Path, decides: bool = False) -> Path:
    """Thinned records of a run among the results; ``decides``: of its probes only the headline and that of the verdicts."""
    found = records.read(folder / "records.jsonl")
    run = next(record for record in found if record["kind"] == "run")
    judged = {paper.TASKS[run["task"]].probe, *(r["probe"] for r in found if r.get("headline"))}
    if decides:
        found = [record for record in found if record.get("probe", "") in ("", *judged)]
    return _written(RUNS / run["task"] / run["name"], [record for record in found if record["kind"] in KEPT])


def _written(target: Path, found: list[dict]) -> Path:
    """Records without what no page of claims shows, in a folder of their own."""
    target.mkdir(parents=True, exist_ok=True)
    for old in target.iterdir():
        old.unlink()
    with Records(target / "records.jsonl") as kept:
        for record in found:
            fields = {name: value for name, value in record.items() if name not in ("n", "kind", "sha", "pictures")}
            if record.get("analysis") == "gradients":
                # Those of single layers are nine tenths of the file, and on no page of claims.
                fields["values"] = {name: value for name, value in fields["values"].items() if name != "layers"}
            kept.append(record["kind"], **fields)
    for beside in target.glob("*.count"):
        beside.unlink()
    return target


def committed() -> list[Path]:
    return sorted(path.parent for task in paper.TASKS for path in RUNS.glob(f"{task}/*/records.jsonl"))


def page() -> str:
    """The page, from the committed records alone."""
    evidence = gather(committed())
    with open(BEFORE, newline="") as file:
        before = {row["claim"]: row["verdict"] for row in csv.DictReader(file)}
    lines = [
        "# Claim by claim: the verdict before, the verdict now, and why",
        "",
        textwrap.fill(INTRODUCTION.format(_counted(evidence)), 120, break_on_hyphens=False),
        "",
    ]
    rows = []
    for claim in claims(evidence, authors.judged()):
        words = [WHY[claim.key], *([claim.summary + "."] if claim.summary else [])]
        against = [f"{row.run.rpartition('/')[2]}, {row.interval or row.ours}" for row in claim.rows if row.verdict == DIFFERS]
        words += [f"Against it: {'; '.join(against)}."] if against else []
        rows.append((claim.title, before[claim.key], claim.verdict, claim.authors_verdict, " ".join(words)))
    lines += [*table(("claim", "before", "now", "the authors' curves", "why"), rows), "", "The runs:", ""]
    heads = [name.replace("share of", "percent of") for name in RUN_COLUMNS]
    lines += table(heads, run_rows(evidence))
    absent = [tasks.words(task).title for task in paper.TASKS if not evidence.of(task, None)]
    lines += ["", f"No run yet of {', '.join(absent)}."] if absent else []
    return "\n".join(lines) + "\n"


def _counted(evidence: Evidence) -> str:
    """"1 run of forcefield and 14 of proteinflow"."""
    counts = [(len(evidence.of(task, None)), task) for task in paper.TASKS]
    first, *rest = [f"{count}{' run' * (not i)}{'s' * (not i and count > 1)} of {task}" for i, (count, task) in enumerate(counts)]
    return " and ".join([", ".join([first, *rest[:-1]]), *rest[-1:]])


if __name__ == "__main__":
    if sys.argv[1:2] in (["keep"], ["studied"]):
        for given in sys.argv[2:]:
            print({"keep": keep, "studied": studied}[sys.argv[1]](Path(given)))
    else:
        PAGE.write_text(page())
        print(PAGE)
