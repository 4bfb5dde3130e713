"""What several runs' records say together: the runs sorted by task, rows of evidence, and how verdicts combine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from equiscope import records as record_files
from equiscope.decomposition.result import Result
from equiscope.errors import InputError
from equiscope.report import paper
from equiscope.report.crossings import Crossings, crossings
from equiscope.report.curves import Curve, RunHistory, history
from equiscope.report.views import Record

AGREES, DIFFERS, UNDECIDED = "agrees", "differs", "cannot be decided at this size"
#: A model whose percent never exceeds this along training is symmetric by construction (rounding aside).
SYMMETRIC_PERCENT = 1e-4


@dataclass(frozen=True)
class Row:
    """One comparison with the paper.

    Attributes:
        ours, interval, paper: in words: our number, its interval or what stands beside it, the paper's number.
    """

    task: str
    run: str
    what: str
    ours: str
    interval: str
    paper: str
    verdict: str


def decided(agrees: bool, differs: bool) -> str:
    """The verdict, undecided where neither holds."""
    return AGREES if agrees else DIFFERS if differs else UNDECIDED


def combined(rows: Sequence[Row]) -> str:
    """Differs if any row differs, else agrees if any row agrees, else undecided."""
    verdicts = {row.verdict for row in rows}
    return decided(AGREES in verdicts and DIFFERS not in verdicts, DIFFERS in verdicts)


@dataclass(frozen=True)
class Run:
    """One run with its headline curve.

    Attributes:
        name: task and name; short: without the task. result: the final measurement, else the last one along training.
        seconds: (T,) of training at each measured step. analyses: its records of kind ``analysis…``.
        symmetric: whether the percent stayed at rounding throughout: a model that is symmetric by construction.
    """

    name: str
    short: str
    task: str
    model: str
    parameters: int
    told: RunHistory
    curve: Curve
    found: Crossings
    result: Result
    seconds: np.ndarray
    last_step: int
    symmetric: bool
    analyses: tuple[Record, ...]

    @property
    def training_samples(self) -> int | None:
        """How many samples the run trained on, as its data record says; None where it does not."""
        for section in ("used", "parts"):
            found = (self.told.data.get(section) or {}).get("train")
            if isinstance(found, Mapping):
                found = next((v for k, v in found.items() if k in ("frames", "conformers", "chains", "samples")), None)
            if found is not None:
                return int(found)
        return None


@dataclass(frozen=True)
class Evidence:
    """All runs that were given, and what was left out with the reason."""

    runs: tuple[Run, ...]
    left_out: tuple[str, ...]

    def of(self, task: str, symmetric: bool | None = False) -> list[Run]:
        """The runs of a task; by default those whose symmetry had to be learned, None for all."""
        return [r for r in self.runs if r.task == task and (symmetric is None or r.symmetric == symmetric)]

    @property
    def tasks(self) -> list[str]:
        """The paper's tasks in its order, then any other task of the runs."""
        return [*paper.TASKS, *sorted({r.task for r in self.runs} - set(paper.TASKS))]

    def analyses(self, *kinds: str) -> list[tuple[Run, Record]]:
        """Every record of these analyses."""
        return [(run, record) for run in self.runs for record in run.analyses if record.get("analysis") in kinds]


def gather(folders: Sequence[str | os.PathLike[str]]) -> Evidence:
    """Read runs from their folders; a run without measurements is left out and named.

    Raises:
        InputError: if no run is left.
        IntegrityError: for damaged records.
    """
    runs, left_out = [], []
    for folder in dict.fromkeys(Path(f) for f in folders):
        book = record_files.read(folder / "records.jsonl")
        told = history(book)
        name = f"{told.run.task or folder.parent.name}/{told.run.name or folder.name}"
        curve, run = told.headline, told.run
        if curve is None or not np.isfinite(curve.percent).any():
            left_out.append(f"{name}: no percent has been measured along its training")
            continue
        symmetric = bool((np.abs(curve.percent[np.isfinite(curve.percent)]) <= SYMMETRIC_PERCENT).all())
        analyses = tuple(record for record in book if record["kind"].startswith("analysis"))
        runs.append(Run(name, name.split("/", 1)[-1], run.task, run.model, run.parameters or 0, told, curve,
                        crossings(curve), told.result, told.seconds, int(curve.step[-1]), symmetric, analyses))
    if not runs:
        raise InputError(f"none of the runs has measurements to report on: {'; '.join(left_out) or 'no run was given'}")
    return Evidence(tuple(runs), tuple(left_out))
