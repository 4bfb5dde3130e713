"""How two quantities move together along training, with and without the trend they share.

Percent, gradient ratio and head deviation all fall with time, so that any two of them correlate on logs whatever their
connection. Beside the plain correlations of the logs (the paper gives those) stand two that a common trend cannot make:
the partial correlation given log step, and the correlation of first differences between neighbouring steps.

Intervals: Fisher's z with an effective number of points. Neighbouring steps are not independent, so n is reduced to
n (1 - a b) / (1 + a b) with a, b the lag-one autocorrelations of the two series (Bartlett 1935), where a b > 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from equiscope.errors import InputError

Array = NDArray[np.float64]
LEAST = 5


def relation(steps: Sequence[float], first: Sequence[float | None], second: Sequence[float | None]) -> dict[str, Any]:
    """Correlations of the logs of two positive series over training steps.

    Args:
        steps: training steps, increasing.
        first, second: the series. Points at step 0, which has no log, and points where either value is missing, zero or
            negative (unbiased estimates may be) are left out and counted.

    Returns:
        ``points`` and ``left_out``; ``pearson``, ``spearman``; ``partial``, of what a straight line in log step leaves
        of each, and ``differences``, of first differences, both also as ``…_spearman``. Each is a dict of ``value``,
        ``low``, ``high`` (95 %) and ``effective`` points; NaN where there are fewer than five.

    Raises:
        InputError: for series of different length, or steps that do not increase.
    """
    if not len(steps) == len(first) == len(second):
        raise InputError(f"series of one length are needed, got {len(steps)}, {len(first)} and {len(second)}")
    place = np.asarray(steps, dtype=float)
    if len(place) > 1 and not (np.diff(place) > 0).all():
        raise InputError("steps must increase: sort the points, one for each step")
    a, b = (np.array([np.nan if v is None else v for v in values], dtype=float) for values in (first, second))
    with np.errstate(invalid="ignore"):
        usable = (place > 0) & (a > 0) & (b > 0) & np.isfinite(a) & np.isfinite(b)
    t, x, y = np.log(place[usable]), np.log(a[usable]), np.log(b[usable])
    found: dict[str, Any] = {"points": int(usable.sum()), "left_out": int((~usable).sum())}
    series = {
        "pearson": (x, y, 0),
        "partial": (_without(x, t), _without(y, t), 1),
        "differences": (*map(np.diff, (x, y)), 0),
    }
    for name, (u, v, given) in series.items():
        found[name] = _correlation(u, v, given, False)
        ranked = "spearman" if name == "pearson" else f"{name}_spearman"
        found[ranked] = _correlation(stats.rankdata(u), stats.rankdata(v), given, True)
    return found


def _without(values: Array, trend: Array) -> Array:
    """Residuals of a straight line in ``trend``."""
    if len(values) < 3:
        return np.full(len(values), np.nan)
    design = np.stack([np.ones_like(trend), trend], axis=1)
    return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]


def _correlation(x: Array, y: Array, given: int, rank: bool) -> dict[str, float]:
    """Pearson's r of two series and its interval; ``given``: variables taken out before; ``rank``: of ranks."""
    nothing = {"value": math.nan, "low": math.nan, "high": math.nan, "effective": float(len(x))}
    if len(x) < LEAST or not (np.isfinite(x).all() and np.isfinite(y).all()) or np.ptp(x) == 0 or np.ptp(y) == 0:
        return nothing
    value = float(np.clip(np.corrcoef(x, y)[0, 1], -1, 1))
    product = max(_lag_one(x) * _lag_one(y), 0.0)
    effective = len(x) * (1 - product) / (1 + product)
    freedom = effective - 3 - given
    if freedom < 1:
        return {**nothing, "value": value, "low": -1.0, "high": 1.0, "effective": effective}
    # Spearman's z has 1.06 times the variance of Pearson's (Fieller, Hartley and Pearson 1957).
    half = stats.norm.ppf(0.975) * math.sqrt((1.06 if rank else 1.0) / freedom)
    centre = math.atanh(min(max(value, -1 + 1e-12), 1 - 1e-12))
    return {
        "value": value, "low": math.tanh(centre - half), "high": math.tanh(centre + half), "effective": effective,
    }  # fmt: skip


def _lag_one(values: Array) -> float:
    apart = values - values.mean()
    return float(apart[1:] @ apart[:-1] / (apart @ apart))
