"""Records of a run -> plain arrays: one curve per probe, the final measurements, the state of the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Curve:
    """What the tracker saw of one probe: arrays of equal length, in order of step.

    Shapes: every array is (T,), T = measured steps. Units: ``percent``, ``low``, ``high`` and
    ``floor_percent`` in percent of the total loss; ``total``, ``twirled``, ``equivariance`` and ``floor`` in
    the unit of the loss; ``r2`` and ``relative`` without unit. What a record lacks is NaN.
    """

    probe: str
    headline: bool
    step: np.ndarray
    percent: np.ndarray
    low: np.ndarray
    high: np.ndarray
    interval_kind: tuple[str, ...]
    total: np.ndarray
    twirled: np.ndarray
    equivariance: np.ndarray
    r2: np.ndarray
    relative: np.ndarray
    floor: np.ndarray
    floor_percent: np.ndarray

    def __len__(self) -> int:
        return len(self.step)

    @property
    def is_upper_limit(self) -> np.ndarray:
        """(T,) bool: where only an upper limit of the percent is known."""
        return np.array([kind == "upper limit" for kind in self.interval_kind], dtype=bool)


@dataclass(frozen=True)
class RunHistory:
    """Everything the report needs of a run, sorted out of its records."""

    run: Record
    data: Record
    curves: dict[str, Curve]
    finals: dict[str, Record]
    train_step: np.ndarray
    train_loss: np.ndarray
    last_step: int
    planned_steps: int | None
    finished: bool
    times: dict[str, float]
    resumes: int
    remarks: tuple[str, ...] = field(default=())
    pictures: tuple[Record, ...] = ()

    @property
    def headline(self) -> Curve | None:
        """The tracked curve of the headline probe (the first curve when no probe is marked)."""
        marked = [curve for curve in self.curves.values() if curve.headline]
        return next(iter(marked or self.curves.values()), None)

    @property
    def headline_final(self) -> Record | None:
        """The final measurement of the headline probe, or None while there is none."""
        marked = [record for record in self.finals.values() if record.get("headline")]
        return next(iter(marked or self.finals.values()), None)

    @property
    def headline_record(self) -> Record | None:
        """The final measurement if there is one, else the last tracked measurement of the headline probe."""
        return self.headline_final or self._last_tracked

    _last_tracked: Record | None = None


def number(value: Any) -> float:
    """A float, NaN for what is missing (None)."""
    return float("nan") if value is None else float(value)


def history(records: Iterable[Record]) -> RunHistory:
    """Sort the records of one run (``equiscope.records.read``) into curves, finals and facts.

    A step that was measured again after a resume counts once, its last record. Missing records are no
    error: the run is then described as unfinished in ``remarks``.
    """
    records = list(records)
    run = _last(records, "run")
    tracked = _measurements(records, "track")
    finals = {probe: steps[max(steps)] for probe, steps in _measurements(records, "final").items()}
    curves = {probe: _curve(probe, steps) for probe, steps in tracked.items()}
    train = {int(record["step"]): number(record.get("loss")) for record in records if record["kind"] == "train"}
    train_step = np.array(sorted(train), dtype=int)
    last_step = max((int(record["step"]) for record in records if "step" in record), default=0)
    planned = (run.get("config") or {}).get("trainer", {}).get("max_steps")
    finished = _finished(records)
    headline = next((p for p, c in curves.items() if c.headline), next(iter(curves), None))
    return RunHistory(
        run=run,
        data=_last(records, "data"),
        curves=curves,
        finals=finals,
        train_step=train_step,
        train_loss=np.array([train[step] for step in train_step]),
        last_step=last_step,
        planned_steps=int(planned) if planned is not None else None,
        finished=finished,
        times=_times(records),
        resumes=sum(record["kind"] == "resume" for record in records),
        remarks=tuple(_remarks(records, run, tracked, finals, finished, last_step, planned)),
        pictures=tuple(_last(records, "pictures").get("pictures") or ()),
        _last_tracked=tracked[headline][max(tracked[headline])] if headline else None,
    )


def _last(records: list[Record], kind: str) -> Record:
    return next((record for record in reversed(records) if record["kind"] == kind), {})


def _measurements(records: list[Record], part: str) -> dict[str, dict[int, Record]]:
    """probe -> step -> its last measurement, probes in the order of their first appearance."""
    found: dict[str, dict[int, Record]] = {}
    for record in records:
        if record["kind"] == "measure" and record.get("part") == part:
            found.setdefault(str(record["probe"]), {})[int(record["step"])] = record
    return found


def _curve(probe: str, steps: Mapping[int, Record]) -> Curve:
    order = sorted(steps)
    results = [steps[step]["result"] for step in order]

    def column(name: str) -> np.ndarray:
        return np.array([number(result.get(name)) for result in results])

    def bound(side: int) -> np.ndarray:
        return np.array([number((result.get("percent_interval") or (None, None))[side]) for result in results])

    return Curve(
        probe=probe,
        headline=any(bool(steps[step].get("headline")) for step in order),
        step=np.array(order, dtype=int),
        percent=column("percent"),
        low=bound(0),
        high=bound(1),
        interval_kind=tuple(str(result.get("interval_kind", "none")) for result in results),
        total=column("total"),
        twirled=column("twirled"),
        equivariance=column("equivariance"),
        r2=column("r2"),
        relative=column("relative_equivariance"),
        floor=column("noise_floor"),
        floor_percent=column("noise_floor_percent"),
    )


def _finished(records: list[Record]) -> bool:
    """True when the last start of the run (run or resume) was followed by an end."""
    kinds = [record["kind"] for record in records if record["kind"] in ("run", "resume", "end")]
    return bool(kinds) and kinds[-1] == "end"


def _times(records: list[Record]) -> dict[str, float]:
    """Seconds of training, tracking and in all; from the end record, else summed from what is there."""
    end = _last(records, "end")
    train = end.get("train_seconds")
    track = end.get("track_seconds")
    if train is None:
        train = max((number(r.get("seconds")) for r in records if r["kind"] == "train"), default=float("nan"))
    if track is None:
        seconds = [number(r.get("seconds")) for r in records if r["kind"] == "measure" and r.get("part") == "track"]
        track = sum(seconds) if seconds else float("nan")
    return {"train": number(train), "track": number(track), "wall": number(end.get("wall_seconds"))}


def _remarks(
    records: list[Record],
    run: Record,
    tracked: Mapping[str, Any],
    finals: Mapping[str, Record],
    finished: bool,
    last_step: int,
    planned: int | None,
) -> list[str]:
    """What the reader must know about records that are missing, in whole sentences."""
    remarks = []
    if not run:
        remarks.append("The record that describes the run (model, configuration, versions) is missing.")
    if not finished:
        of = f" of {int(planned):,} planned" if planned is not None else ""
        remarks.append(
            f"The run has not ended, or was stopped: the last record is of step {last_step:,}{of}. "
            "This page shows what was recorded until then."
        )
    if not tracked:
        remarks.append("No measurement along the training has been recorded, so there are no curves.")
    if not finals:
        remarks.append(
            "The final measurement on the independent set has not been made: the headline is the last "
            "measurement of the smaller tracking set."
            if tracked
            else "The final measurement on the independent set has not been made."
        )
    elif finished and max(int(record["step"]) for record in finals.values()) < last_step:
        remarks.append("The final measurement is older than the last training step.")
    return remarks
