"""Unbiased inner products of mean vectors from independent groups of samples, and ratios of them with intervals.

|mean g|^2 is biased upwards by the sampling variance of g. With groups b of weight w_b (sum 1) and contributions
c_b = w_b g_b, the products of different groups only,

    <a, b> = sum_{b != c} <c^a_b, c^b_c> / (1 - sum_b w_b^2),

are unbiased; they may be negative, and then no square root is taken. Intervals: jackknife over groups with Student's
quantiles; Fieller's (1954) for ratios, which may be unbounded where the denominator is not told from zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]


def pair_product(gram: Array, weights: Array) -> Array:
    """[estimate, estimate without group 1, without group 2, …] of <mean a, mean b>.

    gram: (groups, groups) inner products of contributions, rows of a and columns of b. weights: (groups,), sum 1.
    """
    off = gram - np.diag(np.diag(gram))
    full = off.sum()
    rest = full - off.sum(0) - off.sum(1)
    squares = (weights**2).sum()
    # Without group k: contributions over (1 - w_k), whose squares leave (1 - w_k)^2 - sum_{b != k} w_b^2 of pairs.
    left = (1 - weights) ** 2 - (squares - weights**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.concatenate([[full / (1 - squares)], rest / left])


def mean_value(contributions: Array, weights: Array) -> Array:
    """[mean, mean without group 1, …] of a quantity whose contributions add up to its mean."""
    total = contributions.sum()
    return np.concatenate([[total], (total - contributions) / (1 - weights)])


def interval(replicates: Array) -> tuple[float, float]:
    """95 % jackknife interval of a figure from its value and its delete-one values."""
    value, error = float(replicates[0]), math.sqrt(float(covariance(replicates, replicates)))
    width = stats.t.ppf(0.975, len(replicates) - 2) * error
    return value - width, value + width


def covariance(a: Array, b: Array) -> float:
    """Jackknife covariance of two figures from their delete-one values."""
    n = len(a) - 1
    return float((n - 1) / n * ((a[1:] - a[1:].mean()) @ (b[1:] - b[1:].mean())))


def fieller(numerator: Array, denominator: Array) -> tuple[float, float]:
    """Fieller's interval of the ratio of two figures from their values and delete-one values."""
    of_both = covariance(numerator, denominator)
    variances = covariance(numerator, numerator), covariance(denominator, denominator)
    t = stats.t.ppf(0.975, len(numerator) - 2)
    return ratio_limits(float(numerator[0]), float(denominator[0]), *variances, of_both, t)


def ratio_limits(n: float, d: float, of_n: float, of_d: float, of_both: float, t: float) -> tuple[float, float]:
    """Where (n - x d)^2 <= t^2 var(n - x d), Fieller's interval of n / d from variances and covariance of both.

    (-inf, inf) where d is not told from zero.
    """
    a, b, c = d * d - t**2 * of_d, n * d - t**2 * of_both, n * n - t**2 * of_n
    if not a > 0:
        return -math.inf, math.inf
    root = math.sqrt(max(b * b - a * c, 0.0))
    return (b - root) / a, (b + root) / a


def figure(value: float, bounds: tuple[float, float]) -> dict[str, Any]:
    """A value with its interval as plain types."""
    return {"value": float(value), "interval": [float(bounds[0]), float(bounds[1])]}


def around(value: float, reach: float) -> dict[str, Any]:
    """A value with the interval that reaches as far to both sides."""
    return figure(value, (value - reach, value + reach))


def norm(square: Array) -> dict[str, Any]:
    """A norm from its unbiased square: NaN where that is negative, with the interval of the square cut at zero."""
    low, high = interval(square)
    root = math.sqrt(square[0]) if square[0] >= 0 else math.nan
    found = figure(root, (math.sqrt(max(low, 0.0)), math.sqrt(max(high, 0.0))))
    return {**found, "square": float(square[0]), "square_interval": [low, high]}


def norm_ratio(numerator: Array, denominator: Array) -> dict[str, Any]:
    """sqrt(a / b) of two unbiased squares with Fieller's interval of a / b; NaN where either is not positive."""
    low, high = fieller(numerator, denominator)
    fits = numerator[0] >= 0 and denominator[0] > 0
    root = math.sqrt(numerator[0] / denominator[0]) if fits else math.nan
    return figure(root, (math.sqrt(max(low, 0.0)), math.sqrt(max(high, 0.0))))


def cosine(product: Array, a: Array, b: Array) -> dict[str, Any]:
    """<a, b> / (|a| |b|) with its jackknife interval inside [-1, 1]; NaN and all of it where a square is negative."""
    if not (np.all(a > 0) and np.all(b > 0)):
        value = product[0] / math.sqrt(a[0] * b[0]) if a[0] > 0 and b[0] > 0 else math.nan
        return figure(value, (-1.0, 1.0))
    low, high = interval(product / np.sqrt(a * b))
    return figure(product[0] / math.sqrt(a[0] * b[0]), (max(low, -1.0), min(high, 1.0)))


def mean_variance(values: Array, weights: Array) -> Array:
    """Variance of the weighted mean of independent values (…, n), weights (n,) of sum 1; NaN of a single one."""
    if len(weights) < 2:
        return np.full(values.shape[:-1], math.nan)
    return (values - (values @ weights)[..., None]) ** 2 @ (weights**2 / (1 - weights))


def student(values: Sequence[float], shares: Sequence[float] | None = None) -> dict[str, Any]:
    """Mean of independent values, equal or with shares, and its 95 % Student interval."""
    x = np.asarray(values, dtype=float)
    w = np.full(len(x), 1 / len(x)) if shares is None else np.asarray(shares) / np.sum(shares)
    mean = float(w @ x)
    return around(mean, float(stats.t.ppf(0.975, len(x) - 1)) * math.sqrt(mean_variance(x, w)))
