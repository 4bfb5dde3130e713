"""Passes along a short arc of orientations, in which a smooth function is a straight line and rounding is not.

Four orientations d_s b with b random, d_s turns by (s - 3/2) steps about one random axis a sample; each is reached
by two turns, (d_s b h^-1)(h x), in the dtype of the inputs, so that none is rounded twice alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from equiscope.decomposition.batches import Batch, Rows, device_of_batch
from equiscope.decomposition.computing import in_precision
from equiscope.decomposition.fold import Folding, copies_of, shared
from equiscope.decomposition.orbit import Forward, predict, rotated, rotated_back
from equiscope.decomposition.ragged import batch_of
from equiscope.decomposition.split import JACKKNIFE_COSETS, BatchOutput
from equiscope.symmetry.declaration import Declaration
from equiscope.symmetry.rotations import turned_by, uniform_keyed

# Far above any coset's stream, so that the floor never shares rotations with the orbit.
NOISE_STREAM = 1 << 40
# Passes of an arc: a line takes two of them, and the cosets of a jackknifed loss are at least as many.
ARC = JACKKNIFE_COSETS
# What four passes show beside their mean and their line: a bend, and what is left of a parabola.
BEND = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64, device="cpu") / 2
TWIST = torch.tensor([-1.0, 3.0, -3.0, 1.0], dtype=torch.float64, device="cpu") / 20**0.5


@dataclass(frozen=True)
class Site:
    """Samples whose floor is measured: the model, their batch, what is declared, and the seed and ids of the turns.

    ``at_once``: each orientation of an arc is reached by one turn instead of two.
    """

    model: Any
    batch: Batch
    declaration: Declaration
    forward: Forward | None
    key: tuple[int, list[int]]
    folding: Folding = field(default_factory=Folding)
    at_once: bool = False

    def part(self, places: list[int]) -> Site:
        """The same for some of the samples."""
        ids = [self.key[1][i] for i in places]
        return replace(self, batch=batch_of(self.batch.part(places), self.declaration), key=(self.key[0], ids))

    def in_precision(self, dtype: torch.dtype) -> Site | None:
        """The same with the model and every floating field in another precision; None for a model that is too large."""
        model = in_precision(self.model, dtype)
        if model is None:
            return None
        fields = {k: v.to(dtype) for k, v in self.batch.fields().items() if v.is_floating_point()}
        return replace(self, model=model, batch=batch_of(self.batch.with_fields(fields), self.declaration))


@dataclass(frozen=True)
class Arc:
    """Four passes: rows turned back (ARC, n, c, *shape) by output, and the last one's input, answer and turns."""

    rows: Mapping[str, Tensor]
    near: Any
    answer: Mapping[str, Tensor]
    turns: Tensor


def next_arc(site: Site, outputs: Mapping[str, BatchOutput], step: float, stream: int) -> Arc:
    """The passes of one arc, ``step`` radians apart about one axis a sample; see the module."""
    if all(getattr(spec.action, "resampling", ...) is None for spec in site.declaration.inputs.values()):
        return _still(site, outputs, stream)
    passes: dict[str, list[Tensor]] = {name: [] for name in outputs}
    for last in _answers(site, list(_along_arc(site, step, stream))):
        turns, near, answer = last
        for name, rows in rotated_back(answer, site.batch, turns, site.declaration).items():
            seen = outputs[name].coordinates(rows)
            outputs[name].check_shape(passes[name][0] if passes[name] else seen, seen)
            passes[name].append(seen)
    return Arc({name: torch.stack(rows) for name, rows in passes.items()}, near, answer, turns)


def _still(site: Site, outputs: Mapping[str, BatchOutput], stream: int) -> Arc:
    """The arc of grids under their exact group, which move to the same places bit for bit: one pass stands for all."""
    turns, halfway = next(_along_arc(site, 0.0, stream))
    near = _brought(site.batch, turns, halfway, site.declaration)
    answer = answered(site, near)
    back = rotated_back(answer, site.batch, turns, site.declaration)
    rows = {name: outputs[name].coordinates(each) for name, each in back.items()}
    return Arc({name: each.expand(ARC, *each.shape) for name, each in rows.items()}, near, answer, turns)


def _answers(site: Site, along: Sequence[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Any, dict[str, Tensor]]]:
    """(orientations, the samples in them, the model's answer) of each pass, all by one call where they may share it."""
    pieces = None
    if site.folding.size(site.batch, site.declaration) >= len(along):
        pieces = shared(lambda: _together(site, along), len(along) * site.batch.size, site.folding)
    for place, (turns, halfway) in enumerate(along):
        near = _brought(site.batch, turns, halfway, site.declaration)
        answer = answered(site, near) if pieces is None else {name: each[place] for name, each in pieces.items()}
        yield turns, near, answer


def _together(site: Site, along: Sequence[tuple[Tensor, Tensor]]) -> dict[str, tuple[Tensor, ...]]:
    whole = copies_of(site.batch, len(along), site.declaration)
    turns, halfway = (torch.cat(each) for each in zip(*along, strict=True))
    answer = answered(site, _brought(whole, turns, halfway, site.declaration), whole)
    return {name: rows.chunk(len(along)) for name, rows in answer.items()}


def _brought(batch: Batch, turns: Tensor, halfway: Tensor, declaration: Declaration) -> Any:
    """The samples in these orientations, each reached by two turns."""
    there = batch_of(rotated(batch, halfway, declaration), declaration)
    return rotated(there, turns @ halfway.mT, declaration)


def answered(site: Site, native: Any, batch: Batch | None = None) -> dict[str, Tensor]:
    answer = predict(site.model, native, batch or site.batch, site.declaration, site.forward, turned=batch is None)
    return {name: rows.detach() for name, rows in answer.items()}


def _along_arc(site: Site, step: float, stream: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(orientations, turns on the way there)."""
    group, device = site.declaration.group, device_of_batch(site.batch)
    base = uniform_keyed(group, *site.key, stream).to(device)
    for place in range(ARC):
        turns = turned_by((place - (ARC - 1) / 2) * step, *site.key, stream + 1, group).to(device) @ base
        if site.at_once:
            yield turns, torch.eye(3, dtype=turns.dtype, device=device).expand_as(turns)
        else:
            yield turns, uniform_keyed(group, *site.key, stream + 2 + place).to(device)


def off_line(passes: Tensor) -> Tensor:
    """What equally spaced passes (n, ...) leave of their straight lines: v - mean v - s (s . v) / (s . s)."""
    places = torch.arange(len(passes), dtype=passes.dtype, device=passes.device) - (len(passes) - 1) / 2
    slope = torch.tensordot(places, passes, dims=1) / places.square().sum()
    return (passes - passes.mean(0)).sub_(places.reshape(-1, *[1] * slope.ndim) * slope)


def row_mean(rows: Rows, values: Tensor) -> Tensor:
    """Mean over rows and components (n, ...) of each sample, (samples,)."""
    return rows.sum(values.flatten(1).mean(1)) / rows.counts


def contrast(weights: Tensor, output: BatchOutput, passes: Tensor) -> Tensor:
    """Mean square of a contrast of the passes of each sample, (samples,)."""
    return row_mean(output.rows, torch.tensordot(weights.to(passes.device), passes, dims=1).square())


def twisting_of(outputs: Mapping[str, BatchOutput], arcs: Sequence[Arc]) -> dict[str, Tensor]:
    """What the arcs twist by, mean square of each sample and output."""
    return {k: torch.stack([contrast(TWIST, s, a.rows[k]) for a in arcs]).mean(0) for k, s in outputs.items()}
