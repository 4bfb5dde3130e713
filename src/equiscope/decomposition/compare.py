"""Two models, or two checkpoints, on the same orbits: the paired difference of their percents."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Unpack

from equiscope.decomposition import statistics
from equiscope.decomposition.batches import kept
from equiscope.decomposition.measure import MeasureSettings, measure
from equiscope.decomposition.pool import host
from equiscope.decomposition.result import PerSample, Result, carried
from equiscope.errors import InputError
from equiscope.signatures import handing_on
from equiscope.symmetry.declaration import Declaration


@dataclass(frozen=True)
class Comparison:
    """The results of two models and the difference b - a of their percents.

    Attributes:
        a, b: each model's own result.
        difference: b.percent - a.percent, in percentage points.
        error: its standard error over clusters, the larger of delta method and jackknife.
        interval: 95 %, as wide as few clusters need (:mod:`equiscope.decomposition.statistics`), within +-100 points.
        unpaired_error: what the error would be with independent samples and rotations.
        twirled_difference: b.twirled - a.twirled.
        equivariance_difference: b.equivariance - a.equivariance.
        effective_clusters: how many clusters carry the interval, as in :class:`Result`.
    """

    a: Result
    b: Result
    difference: float
    error: float
    interval: tuple[float, float]
    unpaired_error: float
    twirled_difference: float
    equivariance_difference: float
    effective_clusters: float

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.a.percent:.3g} % against {self.b.percent:.3g} %: difference {self.difference:+.3g} points "
            f"(95 % CI {low:+.3g} to {high:+.3g}, paired over {self.a.clusters} clusters)"
            + (carried(self.effective_clusters, self.a.clusters) if self.a.clusters > 1 else "")
        )


@handing_on(measure, without=("rtol", "max_passes"))
def compare(
    a: Any,
    b: Any,
    batches: Iterable[Any],
    declaration: Declaration | None = None,
    **settings: Unpack[MeasureSettings],
) -> Comparison:
    """Measure two models on the same samples with the same rotations, and pair the difference.

    With `R = sum A / sum B` per model, the difference `R_b - R_a` has cluster influence

        d_c = (A_bc - R_b B_bc) / B_b - (A_ac - R_a B_ac) / B_a

    and variance `n / (n - 1) sum_c d_c^2` (delta method): what the two models share cancels. The interval is that
    of :mod:`equiscope.decomposition.statistics`, on the linear scale.

    Args:
        a, b: the models.
        batches: as for :func:`equiscope.measure`; read into a list, since both models see them.
        declaration, inputs, outputs, target, loss, forward, rotations, cosets, seed: as for :func:`equiscope.measure`.
        shift, spectrum, symmetry, noise_samples, fold, progress: likewise.
        fixed, center, group, mask, batch, per, clusters, ids, weighting, fields: likewise.

    Raises:
        InputError: for ``rtol``, which would give the models different rotations, or without labels.
    """
    if settings.get("rtol") is not None:
        raise InputError("compare measures both models with the same passes: give cosets instead of rtol")
    listed = kept(batches)
    first, second = (measure(model, listed, declaration, **settings) for model in (a, b))
    for which, result in (("a", first), ("b", second)):
        if result.total == 0:
            raise InputError(f"the total loss is zero for model {which}: it has no percent to compare")
    if math.isnan(first.percent) or math.isnan(second.percent):
        raise InputError("comparing percents needs labels: declare a target")
    difference = second.percent - first.percent
    error, (low, high), effective = _paired(first, second)
    return Comparison(
        first,
        second,
        difference,
        error,
        (max(difference - low, -100.0), min(difference + high, 100.0)),
        math.hypot(first.percent_error, second.percent_error),
        second.twirled - first.twirled,
        second.equivariance - first.equivariance,
        effective,
    )


def _paired(first: Result, second: Result) -> tuple[float, tuple[float, float], float]:
    """Error, reach down and up (percentage points) of the paired difference, and its effective clusters."""
    totals = [_totals(result) for result in (first, second)]
    if len(totals[0][0]) < 2:
        return math.nan, (math.nan, math.nan), 1.0
    (_, r_a, left_a), (_, r_b, left_b) = (statistics.influence(a, b) for a, b in totals)
    influence = statistics.significant(r_b - r_a, totals[0][0] / totals[0][1].sum())
    found, _, _ = statistics.spread(influence, left_b - left_a)
    if found.error > 0:
        return 100 * float(found.error), (100 * float(found.below), 100 * float(found.above)), float(found.effective)
    # Where no cluster tells the models apart, a share of others, unseen, might do so fully.
    weight = totals[0][1] / totals[0][1].sum() + totals[1][1] / totals[1][1].sum()
    reach = 100 * float(statistics.unseen(weight))
    return 0.0, (reach, reach), float((weight**2).sum() ** 2 / (weight**4).sum())


def _totals(result: Result) -> tuple[statistics.Array, statistics.Array]:
    """Equivariance error and loss of each cluster, (clusters,) each."""
    samples = result.per_sample
    assert isinstance(samples, PerSample)
    codes, count = statistics.encode(samples.clusters)
    a, b = (statistics.cluster_totals(host(v), codes, count) for v in (samples.equivariance, samples.total))
    return a, b
