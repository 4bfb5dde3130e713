"""What a run's own curve foretells: the step of a threshold, and how much training a gain of the loss is worth.

Empirical: straight lines through logarithms, with the intervals of the fits. No model of the network enters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from equiscope.analysis.pairs import Array, ratio_limits
from equiscope.errors import InputError

#: Points that a line is fitted to, at least: two for the line and one for its error.
LEAST = 3


def _line(x: Array, y: Array) -> tuple[Any, float]:
    """scipy's fit of a line by least squares, and Student's 97.5 % quantile for its errors."""
    if np.ptp(x) == 0:
        raise InputError(f"a line needs points at different places, got {len(x)} at {x[0]:g}")
    return stats.linregress(x, y), float(stats.t.ppf(0.975, len(x) - 2))


def crossing(steps: Sequence[float], percents: Sequence[float], threshold: float = 2.0) -> dict[str, float]:
    """Step at which an exponential through a falling percent reaches the threshold, from measurements above twice it.

    Inverse regression of log percent on step; the interval is Fieller's for the mean line, from the mean step to inf
    where the line is not told from a level one.

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
    n, p = n[:last], np.log(p[:last])
    line, t = _line(n, p)
    # The line meets the threshold at mean n + (log threshold - mean log p) / slope, of independent errors.
    middle, gap, variance = float(n.mean()), math.log(threshold) - float(p.mean()), line.stderr**2
    low, high = ratio_limits(gap, line.slope, variance * float(n.var()), variance, 0.0, t)
    falls = line.slope < 0
    told = falls and math.isfinite(low)
    return {
        "step": middle + gap / line.slope if falls else math.inf,
        "low": middle + low if told else middle,
        "high": middle + high if told else math.inf,
        "rate": -line.slope,
        "points": float(last),
        "until": float(n[-1]),
    }


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
    line, t = _line(np.log(n[used]), np.log(loss[used]))
    alpha, reach = -line.slope, t * line.stderr

    def worth(alpha: float) -> float:
        if alpha <= 0:
            return math.inf if share else 0.0
        with np.errstate(over="ignore"):
            return float(n[-1] * np.expm1(-math.log1p(-share) / alpha))

    return {"steps": worth(alpha), "low": worth(alpha + reach), "high": worth(alpha - reach), "alpha": alpha,
            "points": float(used.sum())}  # fmt: skip


def cheaper_below(more_steps: float, batch: int, rotations: int) -> float:
    """N* = 3 B dn / (M - 1): answers below which M rotations each cost fewer passes than ``more_steps`` of training.

    A step of training is three passes of its batch, forward and backward; a twirled answer M - 1 more than a plain one.
    """
    return 3 * batch * more_steps / (rotations - 1)
