"""Two models, or two checkpoints, on the same orbits: the paired difference of their percents."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from scipy import stats

from equiscope.decomposition import statistics
from equiscope.decomposition.batches import as_batches
from equiscope.decomposition.measure import measure
from equiscope.decomposition.pool import host
from equiscope.decomposition.result import PerSample, Result
from equiscope.errors import InputError


@dataclass(frozen=True)
class Comparison:
    """The results of two models and the difference b - a of their percents.

    Attributes:
        a, b: each model's own result.
        difference: b.percent - a.percent, in percentage points.
        error: its standard error over clusters; ``interval``: 95 %, Student.
        unpaired_error: what the error would be with independent samples and rotations.
        twirled_difference: b.twirled - a.twirled; equivariance_difference likewise.
    """

    a: Result
    b: Result
    difference: float
    error: float
    interval: tuple[float, float]
    unpaired_error: float
    twirled_difference: float
    equivariance_difference: float

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.a.percent:.3g} % against {self.b.percent:.3g} %: difference {self.difference:+.3g} points "
            f"(95 % CI {low:+.3g} to {high:+.3g}, paired over {self.a.clusters} clusters)"
        )


def compare(a: Any, b: Any, batches: Iterable[Any], *arguments: Any, **settings: Any) -> Comparison:
    """Measure two models on the same samples with the same rotations, and pair the difference.

    With R = sum A / sum B per model, the difference R_b - R_a has cluster influence
    d_c = (A_bc - R_b B_bc) / B_b - (A_ac - R_a B_ac) / B_a and variance n/(n-1) sum_c d_c^2 (delta method): what the
    two models share cancels.

    Args:
        a, b: the models.
        batches: as for :func:`equiscope.measure`; read into a list, since both models see them.
        arguments, settings: everything else goes to :func:`equiscope.measure`, except ``rtol``.

    Raises:
        InputError: for ``rtol``, which would give the models different rotations, or without labels.
    """
    if settings.get("rtol") is not None:
        raise InputError("compare measures both models with the same passes: give cosets instead of rtol")
    kept = list(as_batches(batches))
    first, second = (measure(model, kept, *arguments, **settings) for model in (a, b))
    for which, result in (("a", first), ("b", second)):
        if result.total == 0:
            raise InputError(f"the total loss is zero for model {which}: it has no percent to compare")
    if math.isnan(first.percent) or math.isnan(second.percent):
        raise InputError("comparing percents needs labels: declare a target")
    influence = _influence(second) - _influence(first)
    count = len(influence)
    unpaired = math.hypot(first.percent_error, second.percent_error)
    error = 100 * math.sqrt(count / (count - 1) * float(influence @ influence)) if count > 1 else math.nan
    difference = second.percent - first.percent
    reach = error * float(stats.t.ppf(0.975, count - 1)) if count > 1 else math.nan
    return Comparison(
        first,
        second,
        difference,
        error,
        (difference - reach, difference + reach),
        unpaired,
        second.twirled - first.twirled,
        second.equivariance - first.equivariance,
    )


def _influence(result: Result) -> statistics.Array:
    """Each cluster's influence on the ratio, (clusters,)."""
    samples = result.per_sample
    assert isinstance(samples, PerSample)
    codes, count = statistics.encode(samples.clusters)
    a, b = (statistics.cluster_totals(host(v), codes, count) for v in (samples.equivariance, samples.total))
    return (a - a.sum() / b.sum() * b) / b.sum()
