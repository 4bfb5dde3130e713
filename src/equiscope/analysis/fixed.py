"""Batches with every rotation of every sample drawn once: what the losses of an analysis are functions on."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from equiscope.decomposition.batches import Batch, as_batches
from equiscope.decomposition.collect import BatchOrbit, Collector
from equiscope.decomposition.plan import Pass, Plan
from equiscope.decomposition.ragged import batch_of
from equiscope.decomposition.split import OutputSplit
from equiscope.errors import InputError


@dataclass(frozen=True)
class Fixed:
    """A batch with its passes and empty splits, one per output."""

    batch: Batch
    passes: list[Pass]
    splits: Mapping[str, OutputSplit]
    plan: Plan

    @functools.cached_property
    def copies(self) -> Batch:
        """A batch with the samples of every pass, one pass after another."""
        return batch_of(self.batch.part(list(range(self.batch.size)) * len(self.passes)), self.plan.declaration)

    def fresh(self) -> dict[str, OutputSplit]:
        """Splits without predictions."""
        return {
            name: OutputSplit(s.rows, s.action, s.loss, s.target, s.target_layout, s.name, s.middle)
            for name, s in self.splits.items()
        }


def fixed_batches(model: nn.Module, batches: Iterable[Any], plan: Plan) -> list[Fixed]:
    """The batches with the rotations that :func:`equiscope.measure` draws by the same plan.

    Raises:
        InputError: no batches, and what :func:`equiscope.measure` raises for a bad batch.
    """
    collector = Collector(model, plan)
    made = []
    for native in as_batches(batches):
        orbit = BatchOrbit(collector, native)
        collector.first_id += orbit.batch.size
        made.append(Fixed(orbit.batch, list(plan.walk(orbit.ids, orbit.device)), orbit.splits, plan))
    if not made:
        raise InputError("the iterable of batches is empty: nothing to differentiate (a used-up generator?)")
    return made
