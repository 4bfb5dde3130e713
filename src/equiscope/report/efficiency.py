"""Equivariant against not, by computing time: each model at its best learning rate, loss against cost, the break-even.

An equivariant model is the better buy for a loss L iff the ratio of step times is under the ratio of steps needed,

    t_eq / t_free  <  n_free(L) / n_eq(L),

with both ratios given as intervals: of the median over paired rounds in which steps were timed, and of the measured
steps between which the loss was first reached.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from equiscope.report import style
from equiscope.report.chart import Chart, Panel, Series
from equiscope.report.curves import Curve
from equiscope.report.style import Axis
from equiscope.words import raised

#: R² at which step counts are compared.
LEVELS = (0.5, 0.8, 0.9, 0.95)
#: Seeds at the best learning rate that a verdict needs.
SEEDS = 3
COST_COLUMNS = ("model", "parameters", "learning rate", "final R²", "percent", "GFLOP a step", "ms a step",
                "samples/s trained", "samples/s inferred", "peak MiB")  # fmt: skip
EVEN_COLUMNS = ("model", "against", "at R²", "its steps", "steps of the other", "ratio of steps", "ratio of step times",
                "verdict")  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """What a profile recorded of a model: seconds of each round of a training step and of an answer, and the rest."""

    step_seconds: tuple[float, ...]
    infer_seconds: tuple[float, ...]
    samples: int
    infer_samples: int
    flops: float
    parameters: int
    peak_mib: float

    @property
    def step(self) -> float:
        """Median seconds of a training step."""
        return float(np.median(self.step_seconds))


@dataclass(frozen=True)
class Profile:
    """A record of kind "profile": costs of each model, and the names of those without symmetry."""

    costs: dict[str, Cost]
    against: Any
    device: str
    threads: int
    load: tuple[float, ...]


@dataclass(frozen=True)
class Contender:
    """A model at its best learning rate: the tracked curve of its first seed and what a step of it costs.

    seeds: runs at that rate. edge: whether it is the lowest or highest of those tried, so that a better one may lie
    outside.
    """

    name: str
    rate: str
    curve: Curve
    cost: Cost
    seeds: int = 1
    edge: bool = False

    @property
    def caution(self) -> str:
        """What its figures lack for a verdict, in words; empty if nothing."""
        lacks = [f"{self.seeds} seed{'s' * (self.seeds > 1)}"] if self.seeds < SEEDS else []
        return ", ".join([*lacks, *(["at the edge of the learning rates"] if self.edge else [])])


def contenders(curves: Mapping[str, Sequence[Curve]], costs: Mapping[str, Cost]) -> list[Contender]:
    """The best point of each model by the mean over seeds of the total loss at the last measured step.

    Points are named ``MODEL @ RATE``.
    """
    models: dict[str, dict[str, Sequence[Curve]]] = {}
    for point, seeds in curves.items():
        name, _, rate = (part.strip() for part in point.partition("@"))
        if name in costs and seeds and all(np.isfinite(one.total[-1]) for one in seeds):
            models.setdefault(name, {})[rate] = seeds
    found = []
    for name, rates in models.items():
        best = min(rates, key=lambda rate: float(np.mean([one.total[-1] for one in rates[rate]])))
        edge = best in _ends(list(rates))
        found.append(Contender(name, best, rates[best][0], costs[name], len(rates[best]), edge))
    return found


def _ends(rates: Sequence[str]) -> tuple[str, str]:
    """The lowest and the highest of rates; the first and the last where they are no numbers."""
    try:
        ordered = sorted(rates, key=float)
    except ValueError:
        ordered = list(rates)
    return ordered[0], ordered[-1]


def cost_rows(found: Sequence[Contender]) -> list[tuple[str, ...]]:
    """Rows of :data:`COST_COLUMNS`: medians over the rounds."""
    return [
        (one.name, f"{one.cost.parameters:,}", one.rate + (f" ({one.caution})" if one.caution else ""),
         f"{one.curve.r2[-1]:.3f}",
         f"{raised(f'{one.curve.percent[-1]:.2g}')} %", f"{one.cost.flops / 1e9:.2f}", f"{1e3 * one.cost.step:.0f}",
         f"{one.cost.samples / one.cost.step:,.0f}",
         f"{one.cost.infer_samples / np.median(one.cost.infer_seconds):,.0f}", f"{one.cost.peak_mib:.0f}")
        for one in found
    ]  # fmt: skip


def reached(curve: Curve, r2: float) -> tuple[int, int] | None:
    """The measured steps (before, first) between which R² first reached a level; None if it never did."""
    places = np.flatnonzero(curve.r2 >= r2)
    if not len(places):
        return None
    first = int(places[0])
    return (int(curve.step[first - 1]) if first else 0, int(curve.step[first]))


def ratio_of_times(one: Contender, other: Contender) -> tuple[float, float, float]:
    """Median over rounds of one's step time over the other's, and its 95 % interval.

    Distribution-free: the k-th smallest and largest ratio, P(fewer than k of n are below the median) <= 0.025; the
    whole range with fewer than six rounds, where nothing narrower covers.
    """
    ratios = np.sort(np.array(one.cost.step_seconds) / np.array(other.cost.step_seconds))
    k = max(int(stats.binom.ppf(0.025, len(ratios), 0.5)), 1)
    return float(np.median(ratios)), float(ratios[k - 1]), float(ratios[-k])


def break_even(found: Sequence[Contender], against: Sequence[str]) -> list[tuple[str, ...]]:
    """Rows of :data:`EVEN_COLUMNS`: every other model against each of those without symmetry, at each level of R²."""
    free = [one for one in found if one.name in against]
    others = [one for one in found if one.name not in against]
    return [row for two in free for one in others for row in _pair(one, two)]


def _pair(one: Contender, free: Contender) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    time, time_low, time_high = ratio_of_times(one, free)
    times = f"{time:.2f} [{time_low:.2f}, {time_high:.2f}]"
    for level in LEVELS:
        mine, theirs = reached(one.curve, level), reached(free.curve, level)
        told = (one.name, free.name, f"{level:g}", _between(mine), _between(theirs))
        if mine is None or theirs is None:
            never = " and ".join(c.name for c, r in ((one, mine), (free, theirs)) if r is None)
            rows.append((*told, "–", times, f"{never} never got there"))
            continue
        low, high = max(theirs[0], 1) / mine[1], theirs[1] / max(mine[0], 1)
        verdict = _verdict(one.name, free.name, (low, high), (time_low, time_high))
        if one.caution or free.caution:
            verdict = f"open: {verdict} by these runs"
        rows.append((*told, f"{low:.2f}–{high:.2f}", times, verdict))
    return rows


def _between(steps: tuple[int, int] | None) -> str:
    return "–" if steps is None else f"{steps[0]:,}–{steps[1]:,}"


def _verdict(one: str, free: str, steps: tuple[float, float], times: tuple[float, float]) -> str:
    if times[1] < steps[0]:
        return f"{one} is there first"
    if times[0] > steps[1]:
        return f"{free} is there first"
    return "cannot be told apart"


def chart(found: Sequence[Contender]) -> Chart:
    """Total loss of the held-out samples against steps, samples, FLOPs and seconds."""
    labels = ("training steps", "training samples", "PFLOP (matrix products)", "seconds at the measured step time")
    panels = []
    for place, label in enumerate(labels):
        series = []
        for one, colour in zip(found, style.COLOURS, strict=False):
            scale = (1.0, one.cost.samples, one.cost.flops / 1e15, one.cost.step)[place]
            x, name = np.maximum(one.curve.step, 1) * scale, f"{one.name}, learning rate {one.rate}"
            series.append(Series(x, one.curve.total, name, colour, "solid", "circle", size=3.5))
        panels.append(Panel(Axis(label, True), Axis("" if place % 2 else "total loss, held out", True), series))
    return Chart([panels[:2], panels[2:]], (9.6, 7.0))
