"""What several runs' records say together: the runs sorted by task, and which of them are symmetric by construction."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equiscope import records as record_files
from equiscope.errors import InputError
from equiscope.report.beside import seconds_at
from equiscope.report.crossings import Crossings, crossings
from equiscope.report.curves import Curve, Record, RunHistory, history

#: The paper's tasks, in the order of its abstract, and what each is called.
TASKS = {"proteinflow": "flow matching of proteins", "forcefield": "force field", "voxels": "denoising of voxels"}
#: A model whose percent never exceeds this along training is symmetric by construction (rounding aside).
SYMMETRIC_PERCENT = 1e-4


@dataclass(frozen=True)
class Run:
    """One run with its headline curve.

    Attributes:
        seconds: (T,) training seconds at each measured step. analyses: its records of kind ``analysis…``.
    """

    name: str
    told: RunHistory
    curve: Curve
    found: Crossings
    seconds: np.ndarray
    analyses: tuple[Record, ...]

    @property
    def task(self) -> str:
        return str(self.told.run.get("task") or "")

    @property
    def model(self) -> str:
        return str(self.told.run.get("model") or "")

    @property
    def parameters(self) -> int:
        return int(self.told.run.get("parameters") or 0)

    @property
    def last_step(self) -> int:
        return int(self.curve.step[-1])

    @property
    def symmetric(self) -> bool:
        """Whether the percent stayed at rounding throughout: a model that is symmetric by construction."""
        known = self.curve.percent[np.isfinite(self.curve.percent)]
        return bool(len(known) and (np.abs(known) <= SYMMETRIC_PERCENT).all())

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

    @property
    def result(self) -> Mapping[str, Any]:
        """The final measurement, else the last one along training."""
        record = self.told.headline_record
        return record["result"] if record is not None else {}


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
        return [*TASKS, *sorted({r.task for r in self.runs} - set(TASKS))]

    def analyses(self, *kinds: str) -> list[tuple[Run, Record]]:
        """Every analysis record whose name holds one of these words."""
        return [
            (run, record)
            for run in self.runs
            for record in run.analyses
            if any(kind in f"{record['kind']} {record.get('analysis', '')}" for kind in kinds)
        ]


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
        name = f"{told.run.get('task') or folder.parent.name}/{told.run.get('name') or folder.name}"
        curve = told.headline
        if curve is None or not len(curve) or not np.isfinite(curve.percent).any():
            left_out.append(f"{name}: no percent has been measured along its training")
            continue
        analyses = tuple(record for record in book if record["kind"].startswith("analysis"))
        runs.append(Run(name, told, curve, crossings(curve), seconds_at(book, curve.step), analyses))
    if not runs:
        raise InputError(f"none of the runs has measurements to report on: {'; '.join(left_out) or 'no run was given'}")
    return Evidence(tuple(runs), tuple(left_out))
