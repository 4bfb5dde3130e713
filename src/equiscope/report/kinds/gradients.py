"""Gradients of the two parts of the loss: norms, ratio, cosine, and how fast training lowers each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from equiscope.report.kinds import PARTS, Kind, Related, Table, relation_table
from equiscope.report.views import NOTHING, Figure


@dataclass(frozen=True)
class MetricFigures:
    """Figures of the gradients in one metric."""

    rate: dict[str, Figure]
    norm: dict[str, Figure]
    ratio: Figure
    cosine: Figure


@dataclass(frozen=True)
class Gradients:
    """Values of a record: all weights as they are, and in Adam's metric where the optimiser has one."""

    whole: MetricFigures
    adam: MetricFigures | None


def words(steps: Mapping[int, Gradients], related: Related) -> tuple[str, list[Table]]:
    """Norms, ratio, cosine and how fast training lowers each part."""
    rows = []
    for step, found in steps.items():
        whole = found.whole
        figures = [*(whole.rate[p] for p in PARTS), *(whole.norm[p] for p in PARTS), whole.ratio, whole.cosine]
        adam = found.adam.ratio.words if found.adam else "–"
        rows.append([f"{step:,}", *(one.words for one in figures), adam])
    head = ["step", "rate, twirled, [loss]", "rate, equivariance, [loss]", "|∇ twirled|, [loss]",
            "|∇ equivariance|, [loss]", "ratio", "cosine", "ratio for Adam"]  # fmt: skip
    caption = (
        "95 % intervals; products of independent batches, so free of sampling bias (a dash: an unbiased square that is "
        "negative). Rate: ⟨∇ part, ∇ total⟩ / part, how fast a small gradient step lowers the logarithm of each part; "
        "weights have no unit."
    )
    rates = [tuple(found.whole.rate[part] for part in PARTS) for found in steps.values()]
    faster = sum(equivariance.value > twirled.value for twirled, equivariance in rates)
    apart = sum(equivariance.interval[0] > twirled.interval[1] for twirled, equivariance in rates)
    lead = (
        f"At {faster} of {len(steps)} steps a gradient step lowers the equivariance error faster, relative to its "
        f"size, than the twirled loss; at {apart} with the intervals apart."
    )
    return lead, [Table(head, rows, caption), *relation_table(related, ("gradient ratio",))]


def evidence(values: Gradients) -> tuple[str, str, str] | None:
    """How fast a gradient step lowers the logarithm of each part.

    "lower" (the equivariance error is the easier part) where its rate lies above the other with the intervals apart.
    """
    twirled, equivariance = (values.whole.rate.get(part, NOTHING) for part in PARTS)
    if not (math.isfinite(twirled.value) and math.isfinite(equivariance.value)):
        return None
    apart = equivariance.interval[0] > twirled.interval[1], twirled.interval[0] > equivariance.interval[1]
    ours = f"relative rate of the equivariance error {equivariance.words}, of the twirled loss {twirled.words}"
    side = "lower" if apart[0] else "higher" if apart[1] else ""
    return ours, "intervals apart" if side else "intervals overlap", side


KIND = Kind(1, "Gradients of the two losses", Gradients, words, evidence=evidence)
