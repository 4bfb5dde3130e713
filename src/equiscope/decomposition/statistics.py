"""Pooling over samples: ratio of means, its standard error and interval over independent clusters.

With cluster totals a_c = sum A_i and b_c = sum B_i over n clusters the estimate is R = sum a_c / sum b_c. Its
delta-method variance is n/(n-1) sum_c r_c^2 with the influence values r_c = (a_c - R b_c) / sum b (Cochran, Sampling
Techniques, ch. 6); the jackknife deletes one cluster at a time, and the larger error of the two, s, is used.

Intervals are made for few clusters, or few heavy ones among many. The effective number n_e = (sum r^2)^2 / sum r^4 says
how many carry the spread (about n/3 of n alike, normal ones; never more than n). Then

    reach down  =  t s (1 + g_- - g_+ / 2)        g = sum r^3 / (sum r^2)^(3/2),  g_+ = max(g, 0),  g_- = max(-g, 0)
    reach up    =  t s (1 + g_+ - g_- / 2)        1/nu = 3/2 / n_e - 1/n

with t Student's quantile of nu degrees of freedom, between 1 and n - 1. Satterthwaite's are 2 / (1/n_e - 1/n); fewer
are taken since a sample mostly lacks the heaviest clusters of its population and shows too large an n_e. The skewness g
shifts both ends (Johnson, JASA 73, 1978, 536), the outer one by a third more than his expansion for the same reason. A
ratio takes the reach on the log scale. The constants were chosen by simulation: docs/coverage.md shows what they cover.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

# An interval carried by fewer clusters is printed with their number; by fewer than the second, said not to be trusted.
FEW, TOO_FEW = 20.0, 3.0
SHIFT = 3.0
LEVEL = 0.95
# Residuals under this share of the largest total are rounding.
ROUNDING = 1e-13


@dataclass(frozen=True)
class Ratio:
    """A ratio of means with its uncertainty.

    Attributes:
        value: sum A / sum B.
        error: standard error (delta method over clusters); NaN with fewer than two clusters.
        jackknife_error: delete-one-cluster jackknife standard error.
        interval: 95 % interval; ``(0, upper)`` for an upper limit.
        kind: ``"two-sided"``, ``"upper limit"`` (value under three standard errors) or ``"none"``.
        clusters: number of clusters.
        effective: how many of them carry the spread, (sum r^2)^2 / sum r^4 of the influence values.
    """

    value: float
    error: float
    jackknife_error: float
    interval: tuple[float, float]
    kind: str
    clusters: int
    effective: float


@dataclass(frozen=True)
class Spread:
    """How far an estimate with these influence values may lie from the truth; arrays of the leading axes.

    Attributes:
        error: standard error, the larger of delta method and jackknife.
        below, above: 95 % reach of the estimate on the linear scale.
        effective: effective number of clusters.
    """

    error: Array
    below: Array
    above: Array
    effective: Array


@dataclass(frozen=True)
class Intervals:
    """Many ratios at once, arrays of the leading axes: as in :class:`Ratio`, ``limit`` where it is an upper limit."""

    value: Array
    error: Array
    jackknife_error: Array
    low: Array
    high: Array
    limit: NDArray[np.bool_]
    effective: Array


def cluster_totals(values: Array, codes: NDArray[np.int64], count: int) -> Array:
    """Sum of per-sample values over each cluster, (count,)."""
    return np.bincount(codes, weights=values, minlength=count).astype(np.float64, copy=False)


def encode(labels: Sequence[Any]) -> tuple[NDArray[np.int64], int]:
    """Labels as codes 0..n-1 in order of appearance, and n."""
    seen: dict[Any, int] = {}
    codes = np.fromiter((seen.setdefault(x, len(seen)) for x in labels), dtype=np.int64, count=len(labels))
    return codes, len(seen)


def two_phase(first: Array, second: Array, known: NDArray[np.bool_]) -> Array:
    """Values a_i whose mean is mean(first) + mean over the known of second, and whose spread is that estimate's.

        a_i = first_i + m + (n / k) [i known] (second_i - m),        m = mean over the k known of second

    For a part chosen blindly the mean is unbiased for mean(first + second). A known a_i weighs the deviation of its
    ``second`` n / k times, as it does in the estimate, so a variance over i is that of the two-phase estimate to first
    order (Cochran, Sampling Techniques, ch. 12). Single values mean little.

    Args:
        first: (…, n); second: (…, n), anything where not known; known: (…, n) boolean, not all False.
    """
    count = known.sum(-1, keepdims=True)
    mean = np.where(known, second, 0.0).sum(-1, keepdims=True) / count
    return first + mean + np.where(known, first.shape[-1] / count * (second - mean), 0.0)


def influence(a: Array, b: Array) -> tuple[Array, Array, Array]:
    """Ratios R (…), influence values r and the ratios without each cluster, both (…, n), of totals a, b (…, n).

    Without the only cluster that has a loss there is no ratio; R stands in its place.
    """
    whole = b.sum(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = a.sum(-1, keepdims=True) / whole
        # Relative to the denominator, so that powers of either neither over- nor underflow.
        a, b = a / whole, b / whole
        rest = b.sum(-1, keepdims=True) - b
        left_out = np.where(rest > ROUNDING, (a.sum(-1, keepdims=True) - a) / rest, value)
    return value[..., 0], significant(a - value * b, a), left_out


def significant(residual: Array, scale: Array) -> Array:
    """The values (…, n), or zeros where they are rounding beside the largest of ``scale``."""
    rounding = ROUNDING * np.abs(scale).max(-1, keepdims=True)
    return np.where(np.abs(residual).max(-1, keepdims=True) > rounding, residual, 0.0)


def spread(residual: Array, left_out: Array) -> tuple[Spread, Array, Array]:
    """The reach of estimates with influence values and left-out estimates (…, n); delta and jackknife errors alone.

    All are zero where nothing spreads.
    """
    n = residual.shape[-1]
    largest = np.abs(residual).max(-1)
    unit = residual / np.where(largest > 0, largest, 1.0)[..., None]
    square = (unit**2).sum(-1)
    safe = np.where(square > 0, square, 1.0)
    effective = np.where(square > 0, safe**2 / np.where(square > 0, (unit**4).sum(-1), 1.0), 0.0)
    skewness = (unit**3).sum(-1) / safe**1.5
    delta = np.sqrt(n / (n - 1) * square) * largest
    deviation = left_out - left_out.mean(-1, keepdims=True)
    jackknife = np.where(square > 0, np.sqrt((n - 1) / n * (deviation**2).sum(-1)), 0.0)
    error = np.maximum(delta, jackknife)
    freedom = 1 / (1.5 / np.where(square > 0, effective, n) - 1 / n)
    reach = stats.t.ppf(0.5 + LEVEL / 2, np.clip(freedom, 1.0, n - 1.0)) * error
    tail = np.maximum(skewness, 0.0), np.maximum(-skewness, 0.0)
    above, below = reach * (1 + tail[0] - tail[1] / 2), reach * (1 + tail[1] - tail[0] / 2)
    return Spread(error, below, above, effective), delta, jackknife


def unseen(weights: Array) -> Array:
    """Largest share of the weight that clusters unlike all n seen may have: 1 - 0.05^(1/m), (…).

    Had they more, n clusters alike would be rarer than 0.05. m = (sum w)^2 / sum w^2 counts clusters by weight.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        number = weights.sum(-1) ** 2 / (weights**2).sum(-1)
        return 1 - (1 - LEVEL) ** (1 / number)


def ratios(a: Array, b: Array) -> Intervals:
    """Ratios of means of cluster totals a and b, each (…, clusters >= 2), that lie between 0 and 1, with intervals.

    On the log scale, (R exp(-down / R), R exp(up / R)); under three standard errors it is the upper limit (0, upper) of
    the same interval, so that changing from one to the other costs no coverage. Totals may be negative, being unbiased
    estimates: then R + d takes the place of R, and d is taken off the ends, d = 3 |sum of the negative a| / sum b. That
    is the log scale where none is negative and nearly the linear one where half are. An R below 0 (above 1) is taken
    for 0 (for 1) and the ends lie within 0 and 1; no estimate is clipped.

    Where all clusters have one ratio, a share p of the weight may be unlike them (:func:`unseen`), with any ratio
    between 0 and 1: the interval is (R - p R, R - p R + p), and the effective number the one by weight.
    """
    value, residual, left_out = influence(a, b)
    found, delta, jackknife = spread(residual, left_out)
    total = b.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        inside = np.clip(value, 0.0, 1.0)
        shift = SHIFT * np.maximum(-a, 0.0).sum(-1) / total
        scale = inside + shift
        high = scale * np.exp(np.minimum(found.above / scale, 700.0)) - shift
        low = np.maximum(scale * np.exp(-found.below / scale) - shift, 0.0)
        limit = value <= 3 * found.error
        flat = found.error == 0
        share = unseen(b)
        high = np.minimum(np.where(flat, inside + share * (1 - inside), high), 1.0)
        low = np.where(flat, inside * (1 - share), np.where(limit, 0.0, low))
        by_weight = np.where(flat, (b**2).sum(-1) ** 2 / (b**4).sum(-1), 0.0)
    limit = np.where(flat, value <= 0, limit)
    effective = np.where(flat, by_weight, found.effective)
    bad = ~(np.isfinite(value) & (total > 0))
    low, high, effective = (np.where(bad, np.nan, x) for x in (low, high, effective))
    return Intervals(value, delta, jackknife, low, high, limit, effective)


def ratio(a: Array, b: Array) -> Ratio:
    """One ratio of means of cluster totals a and b, each (clusters,), with its interval (:func:`ratios`).

    There is none with fewer than two clusters, or where the denominator is not positive.
    """
    n, denominator = len(a), float(b.sum())
    value = float(a.sum()) / denominator if denominator != 0 else math.nan
    if n < 2 or not math.isfinite(value):
        return Ratio(value, math.nan, math.nan, (math.nan, math.nan), "none", n, float(n) if n < 2 else math.nan)
    found = ratios(np.asarray(a, np.float64), np.asarray(b, np.float64))
    kind = "none" if denominator < 0 else "upper limit" if found.limit else "two-sided"
    interval = (float(found.low), float(found.high))
    return Ratio(value, float(found.error), float(found.jackknife_error), interval, kind, n, float(found.effective))
