"""Colours and names of the figures, and where points lie on their log axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from equiscope.report.crossings import Crossing, Crossings
from equiscope.report.curves import Curve, RunHistory
from equiscope.words import decade_label, r2, step_label

# Okabe and Ito's palette: told apart by readers with any common colour blindness, and in grey print.
INK = "#1f2328"
GREY = "#6b7280"
GRID = "#e3e6ea"
OURS = "#0072B2"
PAPER = "#8a8f98"
LIMIT = "#D55E00"
SKILLED = "#009E73"
TWIRLED = "#56B4E9"
EQUIVARIANCE = "#D55E00"
PURPLE = "#AA4499"
SHADE = "#f3ead7"

#: Of several runs, or points of a study, on one axis.
COLOURS = (OURS, LIMIT, SKILLED, PURPLE, "#E69F00", TWIRLED, GREY)
#: More lines than that are an ordered family, such as flow times: dark to light.
RAMP = ("#440154", "#482677", "#3f4788", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6dcd59", "#b4a000", "#d97b00")

#: R² is drawn no lower than this: that of an untrained model lies far below.
LOWEST_R2 = -0.5

#: How each crossing is drawn: field of Crossings -> (label, mark, size, colour).
MARKERS: dict[str, tuple[str, str, float, str]] = {
    "first": ("first ≤ {t} %", "diamond", 8, LIMIT),
    "last_above": ("last above {t} %", "triangle-up", 8, PURPLE),
    "sustained": ("sustained", "square", 8, OURS),
    "skilled": ("skilled crossing", "star", 13, SKILLED),
}

#: matplotlib's settings for figures of a page, and for those of a journal's column.
SCREEN: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"], "font.size": 10, "axes.edgecolor": "#9aa1aa", "axes.labelcolor": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
    "grid.color": GRID, "grid.linewidth": 0.7, "xtick.color": INK, "ytick.color": INK, "legend.frameon": False,
    "legend.fontsize": 9,
}  # fmt: skip
PRINT: dict[Any, Any] = {
    **SCREEN, "font.size": 8, "axes.labelsize": 8, "xtick.labelsize": 7.5, "ytick.labelsize": 7.5,
    "legend.fontsize": 7, "axes.linewidth": 0.7, "grid.linewidth": 0.5,
    # Text stays text in the PDF, as journals ask.
    "pdf.fonttype": 42,
}  # fmt: skip


@dataclass(frozen=True)
class Axis:
    """An axis; its ends and ticks are found where they are not given."""

    title: str = ""
    log: bool = False
    low: float | None = None
    high: float | None = None
    ticks: Sequence[float] = ()
    labels: Sequence[str] = ()


def percent_ends(curves: Sequence[Curve], paper: np.ndarray) -> tuple[float, float]:
    """The ends of a log percent axis for these curves and the paper's percents.

    A power of ten under every positive estimate, and just above every estimate and limit, 100 % at most beyond 40 %.
    """
    low = _decade_under(np.concatenate([*(curve.percent for curve in curves), paper]), 1e-2)
    values = np.concatenate([*(curve.percent for curve in curves), *(curve.high for curve in curves)])
    top = max(float(np.nanmax(values)) if np.isfinite(values).any() else 10.0, 4.0)
    return min(low, 0.1), max([110.0 if 40 < top <= 105 else 1.4 * top, *(paper * 1.4)])


def loss_floor(curve: Curve) -> float:
    """The lower end of the loss axis: a power of ten under the positive losses (the noise floor may lie below)."""
    return _decade_under(np.concatenate([curve.total, curve.twirled, curve.equivariance]), 1e-6)


def _decade_under(values: np.ndarray, otherwise: float) -> float:
    """The power of ten under all that is positive, ``otherwise`` if nothing is."""
    positive = values[np.isfinite(values) & (values > 0)]
    return float(10.0 ** np.floor(np.log10(0.8 * positive.min()))) if len(positive) else otherwise


def clipped(curve: Curve, floor: float) -> Curve:
    """The curve with percents and limits no lower than the end of a log axis: none vanishes silently, gaps stay."""
    return replace(curve, percent=np.maximum(curve.percent, floor), low=np.maximum(curve.low, floor),
                   high=np.maximum(curve.high, floor))  # fmt: skip


@dataclass(frozen=True)
class StepAxis(Axis):
    """A log axis of training steps on which step 0 has a place, ``zero``, left of the first step, ticked "0"."""

    zero: float = math.nan

    def place(self, steps: np.ndarray | Sequence[float]) -> np.ndarray:
        """Where to draw ``steps``: (T,) float, step 0 at ``zero``."""
        steps = np.asarray(steps, dtype=float)
        return np.where(steps <= 0, self.zero, steps)


def step_axis(steps: Sequence[float] | np.ndarray) -> StepAxis:
    """The log axis for all of ``steps`` (of every curve that is drawn on it)."""
    steps = np.asarray(steps, dtype=float)
    positive = steps[steps > 0]
    first, last = (positive.min(), positive.max()) if len(positive) else (1.0, 10.0)
    zero = first / 2.5 if (steps <= 0).any() else math.nan
    low, high = (first if math.isnan(zero) else zero) / 1.3, max(last, 2 * first) * 1.3
    ticks = [tick for tick in decade_ticks(low, high) if tick >= first * 0.999]
    if len(ticks) < 2:
        ends = {float(first), float(last)}
        ticks = sorted(ends | {tick for tick in ticks if all(abs(math.log(tick / end)) > 0.5 for end in ends)})
    labels = [step_label(tick) for tick in ticks]
    if not math.isnan(zero):
        ticks, labels = [zero, *ticks], ["0", *labels]
    return StepAxis("training step", True, low, high, ticks, labels, zero)


def log_axis(title: str, low: float, high: float, unit: str = "") -> Axis:
    """A log axis from a little under ``low`` to ``high`` with a tick at each power of ten."""
    ticks = decade_ticks(low, high)
    return Axis(title, True, low * 0.85, high, ticks, [decade_label(tick, unit) for tick in ticks])


def r2_axis(far: bool = True) -> Axis:
    """R² from :data:`LOWEST_R2` (``far``) or zero to one."""
    ticks = (LOWEST_R2, 0, 0.5, 1) if far else (0, 0.5, 1)
    labels = [r2(tick).rstrip("0").rstrip(".") or "0" for tick in ticks]
    return Axis("R²", low=-0.55 if far else -0.12, high=1.06, ticks=ticks, labels=labels)


def colours(count: int) -> Sequence[str]:
    """Colours of so many lines, of ten at most."""
    return COLOURS if count <= len(COLOURS) else RAMP


def decade_ticks(low: float, high: float) -> list[float]:
    """The powers of ten in [low, high]."""
    return [10.0**k for k in range(int(np.ceil(np.log10(low) - 1e-9)), int(np.floor(np.log10(high) + 1e-9)) + 1)]


def marked(found: Crossings) -> list[tuple[str, str, float, str, Crossing]]:
    """(label with step and R², mark, size, colour, crossing) of the crossings there are."""
    rows = []
    for name, (label, mark, size, colour) in MARKERS.items():
        crossing = getattr(found, name)
        if crossing is not None:
            text = f"{label.format(t=f'{found.threshold:g}')}: step {crossing.step:,} (R² {r2(crossing.r2)})"
            rows.append((text, mark, size, colour, crossing))
    return rows


def collapse_span(curve: Curve, skill: float) -> tuple[float, float] | None:
    """(first step, last step) of the measurements before the model gained skill, None if it had it at once.

    The span ends at the first measured step with R² >= skill, or at the end of the curve.
    """
    if not len(curve) or not np.isfinite(curve.r2).any():
        return None
    skilled = np.flatnonzero(curve.r2 >= skill)
    if len(skilled) and skilled[0] == 0:
        return None
    return float(curve.step[0]), float(curve.step[skilled[0]] if len(skilled) else curve.step[-1])


def reference_points(history: RunHistory, probe: str) -> np.ndarray:
    """(P, 2) steps and percents of the paper's curve for ``probe``; no rows if there is none."""
    points = history.run.reference.points.get(probe) or []
    return np.asarray(sorted(map(tuple, points)), dtype=float).reshape(-1, 2)
