"""What several runs' records say together: the runs sorted by task, rows of evidence, and how verdicts combine."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equiscope import records as record_files
from equiscope.decomposition.result import Result
from equiscope.errors import EquiscopeError, InputError
from equiscope.report import paper
from equiscope.report.crossings import Crossings, crossings, with_known_baseline
from equiscope.report.curves import Curve, RunHistory, history
from equiscope.report.views import Profile, Record, view
from equiscope.words import leaves

#: The closed set of verdicts; "missing: …" names the tasks of the paper that have no run.
AGREES, DIFFERS, EQUAL, UNDECIDED, MISSING = "agrees", "differs", "equal", "cannot be decided", "missing"
#: A model whose percent never exceeds this along training is symmetric by construction (rounding aside).
SYMMETRIC_PERCENT = 1e-4
#: What two replicates may differ in: settings that change no figure, and the seed.
_FREE = ("run", "root", "seed", "progress", "threads", "logger", "study", "data.workers", "trainer.keep",
         "trainer.checkpoint_every", "trainer.log_every", "trainer.workers")  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One comparison with the paper.

    Attributes:
        ours, interval, paper: in words: our number, its interval or what stands beside it, the paper's number.
        verdict: one of the closed set, or "" for what is shown and decides nothing.
        ran: what was run, at which size; change: what would change the verdict.
    """

    task: str
    run: str
    what: str
    ours: str
    interval: str
    paper: str
    verdict: str
    ran: str = ""
    change: str = ""


def decided(agrees: bool, differs: bool) -> str:
    """The verdict, undecided where neither or both hold."""
    return UNDECIDED if agrees == differs else AGREES if agrees else DIFFERS


def combined(rows: Sequence[Row], needed: Sequence[str] = (), key: Callable[[Row], str] = lambda row: row.task) -> str:
    """The verdict on a claim that needs a row of every ``key`` of ``needed``, by default of every task.

    Differs if any row differs. "missing: …" names what has no row, where there is no row at all or another one speaks
    for the claim. Agrees (or is equal, if every row that decides is) if each needed key has a row that says so; else it
    cannot be decided.
    """
    rows = [row for row in rows if row.verdict]
    found = {row.verdict for row in rows}
    if DIFFERS in found:
        return DIFFERS
    favour = {key(row) for row in rows if row.verdict in (AGREES, EQUAL)}
    absent = [name for name in needed if name not in set(map(key, rows))]
    if absent and (favour or not found):
        return f"{MISSING}: {'; '.join(absent)}"
    if not favour or not favour.issuperset(needed):
        return UNDECIDED
    return AGREES if AGREES in found else EQUAL


@dataclass(frozen=True)
class Run:
    """One run with its headline curve.

    Attributes:
        name: task and name; short: without the task. result: the final measurement of the judged probe, else the last
            one along training.
        judged: the curve of the probe that decides (:attr:`paper.Told.probe`), None if the run did not track it; found:
            its crossings.
        analyses: its records of kind ``analysis…``.
        symmetric: whether the percent stayed at rounding throughout: a model that is symmetric by construction.
    """

    name: str
    short: str
    task: str
    model: str
    parameters: int
    told: RunHistory
    curve: Curve
    judged: Curve | None
    found: Crossings
    result: Result
    last_step: int
    symmetric: bool
    analyses: tuple[Record, ...]

    def row(self, what: str, ours: str, interval: str, paper: str, verdict: str, change: str = "") -> Row:
        """A row of evidence from this run alone; of one that decides it says what was run."""
        return Row(self.task, self.name, what, ours, interval, paper, verdict, self.words if verdict else "", change)

    @property
    def shown(self) -> Curve:
        """The curve that decides, the headline's without it."""
        return self.curve if self.judged is None else self.judged

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
    def config(self) -> Mapping[str, Any]:
        return self.told.run.config

    @property
    def seed(self) -> Any:
        return self.config.get("seed")

    @property
    def rate(self) -> float | None:
        """The learning rate, None where the configuration does not say."""
        found = (self.config.get("optimizer") or {}).get("lr")
        return None if found is None else float(found)

    @property
    def finished(self) -> bool:
        """Whether it came to the end of its schedule: everything before that is a model half annealed."""
        return self.told.finished and self.last_step >= (self.told.planned_steps or 0)

    @property
    def architecture(self) -> str:
        """The model's name without its size."""
        return str((self.config.get("model") or {}).get("name") or self.model)

    def setting(self, *without: str) -> str:
        """The whole configuration but for what replicates may differ in and the dotted keys ``without``."""
        left_out = tuple(f"{name}." for name in (*_FREE, *without))
        return repr(sorted((name, value) for name, value in leaves(self.config) if not f"{name}.".startswith(left_out)))

    @property
    def words(self) -> str:
        """What was run, at which size."""
        planned, samples = self.told.planned_steps, self.training_samples
        steps = f"{self.last_step:,} steps" if self.finished else f"stopped at step {self.last_step:,}"
        of = f" of {planned:,}" if planned is not None and not self.finished else ""
        data = f", {samples:,} training samples" if samples is not None else ""
        size = f", {self.parameters:,} parameters" if self.parameters else ""
        return f"{self.model}{size}{data}, {steps}{of}, seed {self.seed}"


@dataclass(frozen=True)
class Evidence:
    """All runs that were given, what was left out with the reason, and the profiles of step times taken in turn."""

    runs: tuple[Run, ...]
    left_out: tuple[str, ...]
    profiles: tuple[tuple[str, Profile], ...] = ()

    def of(self, task: str, symmetric: bool | None = False) -> list[Run]:
        """The runs of a task; by default those whose symmetry had to be learned, None for all."""
        return [r for r in self.runs if r.task == task and (symmetric is None or r.symmetric == symmetric)]

    @property
    def tasks(self) -> list[str]:
        """The paper's tasks in its order, then any other task of the runs."""
        return [*paper.TASKS, *sorted({r.task for r in self.runs} - set(paper.TASKS))]

    def analyses(self, *kinds: str) -> list[tuple[Run, Record]]:
        """Every record of these analyses; of models that are symmetric only brute force, the rest being of rounding."""
        return [(run, record) for run in self.runs for record in run.analyses
                if (name := record.get("analysis")) in kinds and (not run.symmetric or name == "brute")]  # fmt: skip

    def newest(self, kind: str) -> list[tuple[Run, Record]]:
        """The last record of an analysis for each run, probe and related pair."""
        found = ((run.name, str(record.get("probe")), str(record.get("pair")), run, record)
                 for run, record in self.analyses(kind))  # fmt: skip
        return list({tuple(key): (run, record) for *key, run, record in found}.values())


def gather(folders: Sequence[str | os.PathLike[str]]) -> Evidence:
    """Read runs from their folders; a run without measurements is left out and named.

    Profiles are those in the runs' own records and in the studies of their tasks beside them.

    Raises:
        InputError: if no run is left.
        IntegrityError: for damaged records.
    """
    runs, left_out, profiles, taken = [], [], [], Counter[str]()
    places = list(dict.fromkeys(Path(f) for f in folders))
    for folder in places:
        book = record_files.read(folder / "records.jsonl")
        told = history(book)
        name = f"{told.run.task or folder.parent.name}/{told.run.name or folder.name}"
        # Evidence of runs is told apart by their names: of two roots there may be two of one name.
        taken[name] += 1
        name += f" ({taken[name]})" if taken[name] > 1 else ""
        if told.headline is None or not np.isfinite(told.headline.percent).any():
            left_out.append(f"{name}: no percent has been measured along its training")
            continue
        runs.append(run_of(name, told, [r for r in book if r["kind"].startswith("analysis")]))
        profiles += [(told.run.task, view(Profile, record)) for record in book if record["kind"] == "profile"]
    if not runs:
        raise InputError(f"none of the runs has measurements to report on: {'; '.join(left_out) or 'no run was given'}")
    return Evidence(tuple(runs), tuple(left_out), (*profiles, *_studied(places)))


def run_of(name: str, told: RunHistory, analyses: Sequence[Record]) -> Run:
    """A run of its history, which has a headline, and its analyses."""
    task, headline = told.run.task, told.headline
    assert headline is not None
    probe = paper.told(task).probe
    judged = told.curves.get(probe) if probe else headline
    if judged is not None:
        judged = with_known_baseline(judged, task)
    headline = with_known_baseline(headline, task)
    result = told.newest[judged.probe].result if judged is not None else told.result
    symmetric = bool((np.abs(headline.percent[np.isfinite(headline.percent)]) <= SYMMETRIC_PERCENT).all())
    return Run(name, name.split("/", 1)[-1], task, told.run.model, told.run.parameters or 0, told, headline, judged,
               crossings(headline if judged is None else judged), result, int(headline.step[-1]), symmetric,
               tuple(analyses))  # fmt: skip


def _studied(folders: Sequence[Path]) -> list[tuple[str, Profile]]:
    """The newest profile of each study that lies beside the runs; one that cannot be read is no evidence."""
    found = []
    for root, task in dict.fromkeys((place.parent.parent, place.parent.name) for place in map(Path.absolute, folders)):
        for place in sorted(root.glob(f"studies/{task}-*/records.jsonl")):
            try:
                records = [r for r in record_files.read(place) if r["kind"] == "profile"]
            except EquiscopeError:
                continue
            found += [(task, view(Profile, record)) for record in records[-1:]]
    return found
