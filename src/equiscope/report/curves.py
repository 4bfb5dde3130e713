"""Records of a run -> plain arrays: one curve per probe, the final measurements, the state of the run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from equiscope import records as record_files
from equiscope.decomposition.result import Result
from equiscope.report.views import Measurement, Record, RunRecord, view
from equiscope.words import number


@dataclass(frozen=True)
class Curve:
    """What the tracker saw of one probe: arrays of equal length, in order of step.

    Shapes: every array is (T,), T = measured steps. Units: ``percent``, ``low``, ``high`` and
    ``floor_percent`` in percent of the total loss; ``total``, ``twirled``, ``equivariance`` and ``floor`` in
    the unit of the loss; ``r2``, ``relative`` and ``skill`` (against the task's baseline) without unit. What a record
    lacks is NaN.
    ``is_upper_limit``: bool, where only an upper limit of the percent is known.
    """

    probe: str
    headline: bool
    step: np.ndarray
    percent: np.ndarray
    low: np.ndarray
    high: np.ndarray
    is_upper_limit: np.ndarray
    total: np.ndarray
    twirled: np.ndarray
    equivariance: np.ndarray
    r2: np.ndarray
    skill: np.ndarray
    relative: np.ndarray
    floor: np.ndarray
    floor_percent: np.ndarray

    def __len__(self) -> int:
        return len(self.step)


@dataclass(frozen=True)
class RunHistory:
    """Everything the report needs of a run, sorted out of its records.

    curves: probe -> its tracked measurements; finals: probe -> the final one; headline, headline_final: those of the
    headline probe (the first where none is marked); headline_record: the final measurement, else the last tracked one;
    newest: probe -> the same of each.
    times: seconds of training, tracking, analyses and in all, and of a GPU's time;
    seconds: (T,) those of training at each step of ``headline``; refusals: analysis -> why the model cannot have it.
    """

    run: RunRecord
    data: Record
    curves: dict[str, Curve]
    finals: dict[str, Measurement]
    headline: Curve | None
    headline_final: Measurement | None
    headline_record: Measurement | None
    newest: dict[str, Measurement]
    seconds: np.ndarray
    last_step: int
    planned_steps: int | None
    finished: bool
    times: dict[str, float]
    resumes: int
    pictures: tuple[Record, ...]
    refusals: dict[str, str]

    @property
    def result(self) -> Result:
        """The figures of ``headline_record``, all missing where there is none."""
        return self.headline_record.result if self.headline_record is not None else view(Result, {})

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the reader must know about records that are missing, in whole sentences."""
        return tuple(_remarks(self))


def read(folder: str | os.PathLike[str]) -> RunHistory:
    """The history of the run in a folder.

    Raises:
        IntegrityError: when its records are missing or damaged.
    """
    return history(record_files.read(Path(folder) / "records.jsonl"))


def history(records: Iterable[Record]) -> RunHistory:
    """Sort the records of one run (``equiscope.records.read``) into curves, finals and facts.

    A step that was measured again after a resume counts once, its last record. Missing records are no
    error: the run is then described as unfinished in ``remarks``.
    """
    records = list(records)
    run = view(RunRecord, _last(records, "run"))
    tracked, final_ones = _measurements(records, "track"), _measurements(records, "final")
    finals = {probe: steps[max(steps)] for probe, steps in final_ones.items()}
    newest = {probe: steps[max(steps)] for probe, steps in tracked.items()} | finals
    curves = {probe: _curve(probe, steps) for probe, steps in tracked.items()}
    headline = next((c for c in curves.values() if c.headline), next(iter(curves.values()), None))
    final = next((m for m in finals.values() if m.headline), next(iter(finals.values()), None))
    starts = [record["kind"] for record in records if record["kind"] in ("run", "resume", "end")]
    return RunHistory(
        run=run, data=_last(records, "data"), curves=curves, finals=finals, headline=headline, headline_final=final,
        headline_record=final or (newest[headline.probe] if headline is not None else None), newest=newest,
        seconds=seconds_at(records, headline.step) if headline is not None else np.array([]),
        last_step=max((int(record["step"]) for record in records if "step" in record), default=0),
        planned_steps=run.planned_steps, finished=bool(starts) and starts[-1] == "end", times=_times(records),
        resumes=sum(record["kind"] == "resume" for record in records),
        pictures=tuple(_last(records, "pictures").get("pictures") or ()),
        refusals=record_files.refusals(records),
    )  # fmt: skip


def seconds_at(records: Sequence[Record], steps: np.ndarray) -> np.ndarray:
    """Training seconds at each step, linear between train records, 0 at step 0."""
    known = {0: 0.0} | {r["step"]: number(r.get("seconds")) for r in records if r["kind"] == "train"}
    return np.interp(steps, sorted(known), [known[s] for s in sorted(known)])


def _last(records: list[Record], kind: str) -> Record:
    return next((record for record in reversed(records) if record["kind"] == kind), {})


def _measurements(records: list[Record], part: str) -> dict[str, dict[int, Measurement]]:
    """probe -> step -> its last measurement, probes in the order of their first appearance."""
    found: dict[str, dict[int, Measurement]] = {}
    for record in records:
        if record["kind"] == "measure" and record.get("part") == part:
            found.setdefault(str(record["probe"]), {})[int(record["step"])] = view(Measurement, record)
    return found


def _curve(probe: str, steps: Mapping[int, Measurement]) -> Curve:
    made = [steps[step] for step in sorted(steps)]

    def column(name: str) -> np.ndarray:
        return np.array([getattr(one.result, name) for one in made])

    low, high = column("percent_interval").T
    return Curve(
        probe, any(one.headline for one in made), np.array(sorted(steps), dtype=int), low=low, high=high,
        is_upper_limit=column("interval_kind") == "upper limit", skill=np.array([one.skill for one in made]),
        relative=column("relative_equivariance"), floor=column("noise_floor"),
        floor_percent=column("noise_floor_percent"),
        **{name: column(name) for name in ("percent", "total", "twirled", "equivariance", "r2")},
    )  # fmt: skip


def _times(records: list[Record]) -> dict[str, float]:
    """Seconds of training, tracking and in all; from the end record, else summed from what is there."""
    end = _last(records, "end")
    train, track = end.get("train_seconds"), end.get("track_seconds")
    if train is None:
        train = max((number(r.get("seconds")) for r in records if r["kind"] == "train"), default=None)
    if track is None:
        seconds = [number(r.get("seconds")) for r in records if r["kind"] == "measure" and r.get("part") == "track"]
        track = sum(seconds) if seconds else None
    device = str(_last(records, "run").get("device"))
    gpu = end.get("gpu_seconds", number(train) + (track or 0.0) if device.startswith("cuda") else None)
    analyses = sum(float(r["seconds"]) for r in records if r["kind"] == "analysis" and "seconds" in r)
    found = {"train": train, "track": track, "wall": end.get("wall_seconds"), "gpu": gpu, "analyses": analyses}
    return {name: number(value) for name, value in found.items()}


def _remarks(told: RunHistory) -> list[str]:
    remarks = []
    if not (told.run.name or told.run.task):
        remarks.append("The record that describes the run (model, configuration, versions) is missing.")
    if not told.finished:
        of = f" of {told.planned_steps:,} planned" if told.planned_steps is not None else ""
        remarks.append(
            f"The run has not ended, or was stopped: the last record is of step {told.last_step:,}{of}. "
            "This page shows what was recorded until then."
        )
    if not told.curves:
        remarks.append("No measurement along the training has been recorded, so there are no curves.")
    if not told.finals:
        instead = ": the headline is the last measurement of the smaller tracking set" if told.curves else ""
        remarks.append(f"The final measurement on the independent set has not been made{instead}.")
    elif told.finished and max(final.step for final in told.finals.values()) < told.last_step:
        remarks.append("The final measurement is older than the last training step.")
    remarks += [f"The analysis “{name}” cannot be made of this model: {why}." for name, why in told.refusals.items()]
    return remarks
