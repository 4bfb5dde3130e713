"""Models that learn their symmetry against models that have it, at the same training seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from equiscope import tasks
from equiscope.report import paper
from equiscope.report.evidence import Evidence, Row, Run, decided

#: Losses closer than this share are not told apart where there is no spread over seeds.
MARGIN = 0.1


def rows(evidence: Evidence) -> tuple[list[Row], list[str]]:
    """A row for each pair of a learning and a symmetric model of a task, and which runs are missing."""
    found, missing = [], []
    for task in paper.TASKS:
        pairs = _pairs(evidence, task)
        found += [_row(task, learns, has) for learns, has in pairs]
        if not pairs:
            called = tasks.words(task)
            missing.append(f"{called.title}: {called.symmetric}, on the same data and machine")
    return found, missing


def _pairs(evidence: Evidence, task: str) -> list[tuple[list[Run], list[Run]]]:
    learning, symmetric = (_by_model(evidence.of(task, kind)) for kind in (False, True))
    return [(a, b) for a in learning.values() for b in symmetric.values() if _setting(a[0]) == _setting(b[0])]


def _by_model(runs: Sequence[Run]) -> dict[tuple[Any, ...], list[Run]]:
    """Replicates: runs of one model and size on one set of data and samples."""
    found: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        found.setdefault((run.model, run.parameters, _setting(run)), []).append(run)
    return found


def _setting(run: Run) -> tuple[Any, ...]:
    """What must be equal for losses and seconds to be comparable: data, held-out samples, device and threads."""
    told = run.told.run
    data = repr(sorted((told.config.get("data") or {}).items()))
    return data, run.curve.probe, run.result.loss, told.device, told.threads


def at_budget(runs: Sequence[Run], seconds: float) -> np.ndarray:
    """The total held-out loss of each run at so many training seconds, log-linear between measurements."""
    logs = [np.interp(seconds, run.seconds, np.log(np.maximum(run.curve.total, 1e-300))) for run in runs]
    return np.exp(np.array(logs))


def _row(task: str, learning: list[Run], symmetric: list[Run]) -> Row:
    budget = min(float(run.seconds[-1]) for run in [*learning, *symmetric])
    ours, theirs = at_budget(learning, budget), at_budget(symmetric, budget)
    ratio = float(ours.mean() / theirs.mean())
    spread, words = _spread(ours, theirs)
    per_step = [float(np.mean([r.seconds[-1] / max(r.last_step, 1) for r in group])) for group in (learning, symmetric)]
    return Row(
        task,
        f"{learning[0].model} ({len(learning)} seed{'s' * (len(learning) > 1)}) against {symmetric[0].model} "
        f"({len(symmetric)})",
        "total loss at equal seconds",
        f"ratio {ratio:.2f} at {budget:.0f} s (under 1: learning symmetry is ahead); a step of the symmetric model "
        f"takes {per_step[1] / per_step[0]:.2f} times as long",
        words,
        paper.EFFICIENCY,
        decided(ratio < 1 / (1 + spread), ratio > 1 + spread),
    )


def _spread(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, str]:
    if len(ours) < 2 or len(theirs) < 2:
        return MARGIN, f"one run of a model: no interval over seeds, {MARGIN:.0%} is taken"
    error = 2 * float(np.sqrt(sum(np.var(np.log(v), ddof=1) / len(v) for v in (ours, theirs))))
    return float(np.expm1(error)), f"± {np.expm1(error):.0%} (two standard errors over seeds)"
