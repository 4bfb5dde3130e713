"""What a run's own curve foretells: the step of a threshold, and how much training a gain of the loss is worth.

Empirical: straight lines through logarithms, with the intervals of the fits. No model of the network enters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from equiscope.analysis.krylov import Array
from equiscope.errors import InputError

#: Points that a line is fitted to, at least: two for the line and one for its error.
LEAST = 3


@dataclass(frozen=True)
class Line:
    """y = offset + slope x by least squares; ``error`` of the slope, ``spread`` of y about it, t quantile ``t``."""

    offset: float
    slope: float
    error: float
    spread: float
    t: float
    points: int
    middle: float
    square: float

    @classmethod
    def fit(cls, x: Array, y: Array) -> Line:
        """Raises InputError for fewer than three points or a single x."""
        if len(x) < LEAST or np.ptp(x) == 0:
            raise InputError(f"a line with an error needs {LEAST} points at different places, got {len(x)}")
        middle, square = float(x.mean()), float(((x - x.mean()) ** 2).sum())
        slope = float((x - middle) @ (y - y.mean())) / square
        offset = float(y.mean()) - slope * middle
        freedom = len(x) - 2
        spread = math.sqrt(float(((y - offset - slope * x) ** 2).sum()) / freedom)
        error = spread / math.sqrt(square)
        return cls(offset, slope, error, spread, float(stats.t.ppf(0.975, freedom)), len(x), middle, square)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the slope."""
        return self.slope - self.t * self.error, self.slope + self.t * self.error


def crossing(steps: Sequence[float], percents: Sequence[float], threshold: float = 2.0) -> dict[str, float]:
    """Step at which an exponential through a falling percent reaches the threshold, from measurements above twice it.

    Inverse regression of log percent on step; the interval is Fieller's for the mean line, (-inf or inf where the line
    is not told from a level one).

    Args:
        steps: of the measurements, ascending.
        percents: measured at them.
        threshold: the percent to be reached.

    Returns:
        ``step``, ``low``, ``high``; ``rate`` = -d log percent / d step; ``points`` used; ``until``, the last of them.

    Raises:
        InputError: fewer than three measurements above twice the threshold before the first below it.
    """
    n, p = np.asarray(steps, dtype=float), np.asarray(percents, dtype=float)
    under = np.flatnonzero(p <= 2 * threshold)
    last = int(under[0]) if len(under) else len(p)
    if last < LEAST:
        raise InputError(
            f"only {last} measurements lie above {2 * threshold:g} % before the first below it, {LEAST} are needed: "
            "track more steps at the start (track.first, track.points)"
        )
    line = Line.fit(n[:last], np.log(p[:last]))
    goal = math.log(threshold)
    low, high = _where(line, goal)
    step = (goal - line.offset) / line.slope if line.slope < 0 else math.inf
    return {"step": step, "low": low, "high": high, "rate": -line.slope, "points": float(last),
            "until": float(n[last - 1])}  # fmt: skip


def _where(line: Line, goal: float) -> tuple[float, float]:
    """Where the mean line may reach a value: the x with (a + b x - goal)^2 <= t^2 var(a + b x)."""
    gap = goal - (line.offset + line.slope * line.middle)
    variance = line.spread**2
    a = line.slope**2 - line.t**2 * variance / line.square
    if not (a > 0 and line.slope < 0):
        return line.middle, math.inf
    b, c = line.slope * gap, gap**2 - line.t**2 * variance / line.points
    root = math.sqrt(max(b * b - a * c, 0.0))
    return line.middle + (b - root) / a, line.middle + (b + root) / a


def steps_worth(steps: Sequence[float], losses: Sequence[float], share: float) -> dict[str, float]:
    """Further steps n (1 - share)^(-1 / alpha) - n after which a power law L = a n^-alpha has fallen by ``share``.

    The law is fitted to the measurements of the last three quarters of the steps, on logarithms. It has no floor: where
    the loss has one, more steps are needed than these, or no number of them is enough.

    Args:
        steps: of the measurements, ascending; the last is n.
        losses: measured at them.
        share: of the loss, that is to be gained, in [0, 1).

    Returns:
        ``steps``, ``low``, ``high`` (inf where the loss is not told from a level one); ``alpha``; ``points``.

    Raises:
        InputError: fewer than three measurements there, or no share in [0, 1).
    """
    if not 0 <= share < 1:
        raise InputError(f"the share of the loss that is to be gained must be in [0, 1), got {share!r}")
    n, loss = np.asarray(steps, dtype=float), np.asarray(losses, dtype=float)
    used = (n >= n[-1] / 4) & (n > 0) & (loss > 0)
    if used.sum() < LEAST:
        raise InputError(
            f"a learning curve needs {LEAST} measurements in its last three quarters, got {int(used.sum())}: track "
            "more steps (track.points)"
        )
    line = Line.fit(np.log(n[used]), np.log(loss[used]))
    steepest, flattest = (-end for end in line.interval)

    def worth(alpha: float) -> float:
        return float(n[-1]) * math.expm1(-math.log1p(-share) / alpha) if alpha > 0 else math.inf if share else 0.0

    return {"steps": worth(-line.slope), "low": worth(steepest), "high": worth(flattest), "alpha": -line.slope,
            "points": float(line.points)}  # fmt: skip


def cheaper_below(more_steps: float, batch: int, rotations: int) -> float:
    """N* = 3 B dn / (M - 1): answers below which M rotations each cost fewer passes than ``more_steps`` of training.

    A step of training is three passes of its batch, forward and backward; a twirled answer M - 1 more than a plain one.
    """
    return 3 * batch * more_steps / (rotations - 1)
