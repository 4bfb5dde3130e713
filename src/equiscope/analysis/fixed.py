"""Batches with every rotation of every sample drawn once: what the losses of an analysis are functions on."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from equiscope.decomposition.batches import Batch, as_batches
from equiscope.decomposition.collect import BatchOrbit, Collector
from equiscope.decomposition.design import Design, check_cosets, check_count
from equiscope.decomposition.orbit import Forward
from equiscope.decomposition.ragged import batch_of
from equiscope.decomposition.split import JACKKNIFE_COSETS, OutputSplit
from equiscope.errors import InputError
from equiscope.symmetry.declaration import Declaration
from equiscope.symmetry.rotations import rotation_set, uniform_keyed


@dataclass(frozen=True)
class Pass:
    """One pass of a batch: the rotation of each sample (samples, 3, 3), its weight, and whether it ends a coset."""

    turns: Tensor
    weight: float
    last: bool


@dataclass(frozen=True)
class Fixed:
    """A batch with its passes and empty splits, one per output.

    Attributes:
        lone: what one coset alone is, as for :meth:`OutputSplit.values`.
    """

    batch: Batch
    passes: list[Pass]
    splits: Mapping[str, OutputSplit]
    lone: str
    declaration: Declaration

    @functools.cached_property
    def copies(self) -> Batch:
        """A batch with the samples of every pass, one pass after another."""
        return batch_of(self.batch.part(list(range(self.batch.size)) * len(self.passes)), self.declaration)

    def fresh(self) -> dict[str, OutputSplit]:
        """Splits without predictions."""
        return {
            name: OutputSplit(s.rows, s.action, s.loss, s.target, s.target_layout, s.name, s.middle)
            for name, s in self.splits.items()
        }


def fixed_batches(
    model: nn.Module,
    batches: Iterable[Any],
    declaration: Declaration,
    forward: Forward | None,
    rotations: str,
    cosets: int,
    seed: int,
) -> list[Fixed]:
    """The batches with the rotations that :func:`equiscope.measure` draws from the same arguments.

    One coset alone is allowed here, and one rotation per sample, the plain loss of the turned batch.

    Raises:
        InputError: a bad design, no batches, and what :func:`equiscope.measure` raises for a bad batch.
    """
    check_cosets(cosets, fractional=False)
    check_count("seed", seed)
    chosen = rotation_set(rotations, declaration.group)
    whole = declaration.group == rotations
    collector = Collector(model, declaration, forward, Design(chosen, 1 if whole else cosets, seed, not whole))
    inexact = [loss.name for loss in collector.losses.values() if not loss.exact]
    plain = cosets == 1 and len(chosen) == 1
    if inexact and not whole and not plain and cosets < JACKKNIFE_COSETS:
        raise InputError(f"cosets={cosets} is too few: {inexact[0]} needs at least {JACKKNIFE_COSETS}")
    made = []
    for native in as_batches(batches):
        orbit = BatchOrbit(collector, native)
        collector.first_id += orbit.batch.size
        device = orbit.device
        passes = []
        for stream in range(1 if whole else cosets):
            eye = torch.eye(3, dtype=torch.float64, device=device).expand(orbit.batch.size, 3, 3)
            shift = eye if whole else uniform_keyed(declaration.group, seed, orbit.ids, stream).to(device)
            for place, (k, weight) in enumerate(zip(chosen.matrices.to(device), chosen.weights, strict=True)):
                passes.append(Pass(k @ shift, float(weight), place + 1 == len(chosen)))
        lone = "whole" if whole or cosets == 1 else "refuse"
        made.append(Fixed(orbit.batch, passes, orbit.splits, lone, declaration))
    if not made:
        raise InputError("the iterable of batches is empty: nothing to differentiate (a used-up generator?)")
    return made
