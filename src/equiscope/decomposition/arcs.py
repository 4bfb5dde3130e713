"""Passes along a short arc of orientations, in which a smooth function is a straight line and rounding is not.

The orientations are those of :mod:`equiscope.decomposition.noise`, at any step. Not all that is off the line is
rounding, and not all rounding is small. A jump: the input changes by rounding alone and the output by more than the
precision allows, as where neighbours tie at a limit. Rounding in a coarser precision than the interface's, out of
torch's sight: as rough as noise, but only over larger steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from equiscope.decomposition.batches import Batch, device_of_batch
from equiscope.decomposition.computing import in_precision, watched
from equiscope.decomposition.fold import Folding, copies_of, shared
from equiscope.decomposition.orbit import (
    Forward,
    input_rows,
    output_middle,
    output_rows,
    predict,
    rotated,
    rotated_back,
)
from equiscope.decomposition.ragged import batch_of
from equiscope.decomposition.split import JACKKNIFE_COSETS, BatchOutput
from equiscope.errors import InputError
from equiscope.symmetry.declaration import Declaration
from equiscope.symmetry.rotations import EXACT, turned_by, uniform_keyed

# Far above any coset's stream, so that the floor never shares rotations with the orbit.
NOISE_STREAM = 1 << 40
# Passes of an arc: a line takes two of them, and the cosets of a jackknifed loss are at least as many.
ARC = JACKKNIFE_COSETS
# What four passes show beside their mean and their line: a bend, and what is left of a parabola.
BEND = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64, device="cpu") / 2
TWIST = torch.tensor([-1.0, 3.0, -3.0, 1.0], dtype=torch.float64, device="cpu") / 20**0.5
# Arcs of a sample where a yes or no rests on them.
ARCS = 3
# Samples that are looked at first where most of them twist.
LOOKED = 2
# Radians between passes that hardly any rounding takes for the same.
WIDE = 0.1
# Larger deviations than this many units are looked into, and than half of the digits are refused without a copy.
SUSPECT_UNITS = 16
# Of what a true displacement moves an output by, at most, rounding may make up this much.
OF_DISPLACEMENT = 0.05
# A smooth function of degree l bends far more than it twists: (l step)^2 / 20 of it.
ROUGH = 0.1
# Where so much of an output is twist, nothing of it may be more than rounding.
ALL = 0.01
# Units of a coarser precision by which rounding in it may move an output, and how much shows at the step before.
SIZES, ALREADY = (1 / 64, 4), 0.4


@dataclass(frozen=True)
class Site:
    """Samples whose floor is measured: the model, their batch, what is declared, and the seed and ids of the turns.

    Attributes:
        outputs: those of the batch; a copy in another precision keeps them, so that it is judged alike.
        at_once: each orientation of an arc is reached by one turn instead of two.
    """

    model: Any
    batch: Batch
    declaration: Declaration
    forward: Forward | None
    key: tuple[int, list[int]]
    outputs: Mapping[str, BatchOutput]
    folding: Folding = field(default_factory=Folding)
    at_once: bool = False

    def part(self, places: list[int]) -> Site:
        """The same for some of the samples."""
        batch, outputs = batch_of(self.batch.part(places), self.declaration), {}
        for name, output in self.outputs.items():
            middle = output_middle(batch, name, self.declaration)
            rows = output_rows(batch, name, self.declaration)
            outputs[name] = replace(output, rows=rows, labels=None, middle=middle)
        return replace(self, batch=batch, key=(self.key[0], [self.key[1][i] for i in places]), outputs=outputs)

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


def next_arc(site: Site, step: float, stream: int) -> Arc:
    """The passes of one arc, ``step`` radians apart about one axis a sample; see the module."""
    if all(getattr(spec.action, "resampling", ...) is None for spec in site.declaration.inputs.values()):
        return _still(site, stream)
    passes: dict[str, list[Tensor]] = {name: [] for name in site.outputs}
    for last in _answers(site, list(_along_arc(site, step, stream))):
        turns, near, answer = last
        for name, rows in rotated_back(answer, site.batch, turns, site.declaration).items():
            seen = site.outputs[name].coordinates(rows)
            site.outputs[name].check_shape(passes[name][0] if passes[name] else seen, seen)
            passes[name].append(seen)
    return Arc({name: torch.stack(rows) for name, rows in passes.items()}, near, answer, turns)


def next_arcs(site: Site, step: float, count: int, stream: int = NOISE_STREAM) -> list[Arc]:
    """So many arcs, each about an axis of its own."""
    return [next_arc(site, step, stream + i * (ARC + 2)) for i in range(count)]


def _still(site: Site, stream: int) -> Arc:
    """The arc of grids under their exact group, which move to the same places bit for bit: one pass stands for all."""
    turns, halfway = next(_along_arc(site, 0.0, stream))
    near = _brought(site.batch, turns, halfway, site.declaration)
    answer = answered(site, near)
    back = rotated_back(answer, site.batch, turns, site.declaration)
    rows = {name: site.outputs[name].coordinates(each) for name, each in back.items()}
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


def contrasts(weights: Tensor, site: Site, arcs: Sequence[Arc]) -> dict[str, Tensor]:
    """Mean square of a contrast of the passes, BEND or TWIST, over the arcs of each sample, (samples,)."""
    weights = weights.to(next(iter(arcs[0].rows.values())).device)
    return {
        k: torch.stack([s.rows.mean(torch.tensordot(weights, a.rows[k], dims=1).square()) for a in arcs]).mean(0)
        for k, s in site.outputs.items()
    }


def sizes_of(site: Site, arc: Arc) -> dict[str, Tensor]:
    """Mean square of each output over an arc, (samples,)."""
    return {k: s.rows.mean(arc.rows[k].square().mean(0)) for k, s in site.outputs.items()}


def coarse_inside(site: Site, seen: Sequence[Arc], eps: float) -> float:
    """The precision that larger steps show inside a model that torch does not see through; ``eps`` if none is coarser.

    At the step sqrt(eps') of a coarser precision eps', rounding in it twists as noise does, by about eps' of an output
    (between 1/64 and 4 of them), where what varies smoothly bends and hardly twists. And at the step before, s, about
    s / eps' of it is there already; of jumps at bins or cutoffs, which lie further apart, hardly any is. Every output
    that is rough has to be so.
    """
    if site.declaration.group in EXACT:
        return eps
    before, step = contrasts(TWIST, site, seen), eps**0.5
    for place, coarser in enumerate((torch.finfo(torch.float32).eps, torch.finfo(torch.float16).eps)):
        if coarser <= eps:
            continue
        arcs = next_arcs(site, coarser**0.5, ARCS, NOISE_STREAM + (1 << 20) * (place + 1))
        bending, twisting = contrasts(BEND, site, arcs), contrasts(TWIST, site, arcs)
        rounded = []
        for name, square in sizes_of(site, arcs[0]).items():
            there = ~vanishing(site, twisting[name], square, coarser)
            bend, twist, square, now = (v[there].sum() for v in (bending[name], twisting[name], square, before[name]))
            if bool((twist > ROUGH * bend) & (twist >= (SIZES[0] * coarser) ** 2 * square)):
                already = now >= ALREADY * step / coarser * twist
                rounded.append(bool(already & (twist <= (SIZES[1] * coarser) ** 2 * square)))
        if rounded and all(rounded):
            return coarser
        before, step = twisting, coarser**0.5
    return eps


def jumps(
    site: Site, seen: Sequence[Arc], eps: float, change: float = 0.0, opaque: bool = False
) -> dict[str, Tensor]:
    """Mean square by which each sample jumps where its input changes by rounding alone, (samples,); else 0.

    Passes that twist by more than 16 units of the precision, and three times the ``change`` of an output between
    identical calls, are looked into. Rounding follows the precision: in a copy of the model in another one a rounding
    changes by the ratio of the two and a jump stays, on arcs of double precision's own step, or on wide ones in single
    precision, whose rounding may be far coarser than its step. Without such a copy (``opaque`` models) a jump is more
    than half of the digits, more than a twentieth (mean squares) of what a true displacement of the inputs by sqrt(eps)
    of their size does, and no :func:`vanishing` output, be it computed in single precision. Where most samples twist,
    and those that do so most are no jumps, it is the model's rounding: the copy, which may be many times slower, is not
    asked about the others. A grid that is interpolated twice changes by more than rounding: its orientations are
    reached by one turn, which is smooth.
    """
    if site.declaration.group in EXACT:
        none = torch.zeros(site.batch.size, dtype=torch.float64, device=device_of_batch(site.batch))
        return dict.fromkeys(site.outputs, none)
    if any(getattr(spec.action, "resampling", None) for spec in site.declaration.inputs.values()):
        site = replace(site, at_once=True)
        seen = next_arcs(site, eps**0.5, len(seen))
    twisting, squares = contrasts(TWIST, site, seen), sizes_of(site, seen[0])
    least = max(SUSPECT_UNITS * eps, 3 * change) ** 2
    suspect = {k: v > least * squares[k] for k, v in twisting.items()}
    found = {k: torch.zeros_like(v) for k, v in twisting.items()}
    places = torch.stack([*suspect.values()]).any(0).nonzero().flatten().tolist()
    if not places:
        return found
    if not opaque and len(places) > max(LOOKED, site.batch.size / 2):
        sizes = torch.stack([v / squares[k].clamp_min(torch.finfo(v.dtype).tiny) for k, v in twisting.items()]).amax(0)
        some = _some_of(site, twisting, eps, sizes.topk(LOOKED).indices.tolist())
        if some is False:
            return found
        opaque = some is None
    sure = None if opaque else _jumps_of_twin(site, twisting, eps)
    if sure is None:
        moved, single = _displaced(site, seen[0], eps), max(eps, torch.finfo(torch.float32).eps)
        sure = {
            k: (v > eps * squares[k]) & (v > OF_DISPLACEMENT * moved[k]) & ~vanishing(site, v, squares[k], single)
            for k, v in twisting.items()
        }
    return {k: torch.where(sure[k] & suspect[k], v, found[k]) for k, v in twisting.items()}


def vanishing(site: Site, twist: Tensor, square: Tensor, eps: float) -> Tensor:
    """Samples of whose output nothing but rounding may be left, (samples,) bool.

    Forces on the atom of a one-atom cell are zero whatever the cell is, and no displacement tells the size of what
    cancels in them. They twist by all of themselves, and by less than half of the digits of the inputs.
    """
    sizes = []
    for name, spec in site.declaration.inputs.items():
        rows = input_rows(site.batch, name, site.declaration)
        sizes.append(rows.mean(rows.select(site.batch.fields()[name], spec.action.shape).double().square()))
    return (twist > ALL * square) & (twist <= eps * torch.stack(sizes).amax(0))


def _some_of(site: Site, twisting: Mapping[str, Tensor], eps: float, places: list[int]) -> bool | None:
    """Whether any of these samples jumps, looked at by themselves in the model's copy; None where there is none."""
    try:
        part = site.part(places)
    except InputError:
        # A batch made by hand may not say which rows are whose: then all are looked at.
        return True
    sure = _jumps_of_twin(part, {k: v[places] for k, v in twisting.items()}, eps)
    return None if sure is None else any(bool(v.any()) for v in sure.values())


def _jumps_of_twin(site: Site, twisting: Mapping[str, Tensor], eps: float) -> dict[str, Tensor] | None:
    """Which samples twist alike in the model's copy in another precision; None where there is no such copy."""
    dtype = torch.float32 if eps == torch.finfo(torch.float64).eps else torch.float64
    other = torch.finfo(dtype).eps
    try:
        twin = site.in_precision(dtype)
        if twin is None:
            return None
        # Code that insists on its dtype shows in one call.
        computing = watched(lambda: answered(twin, twin.batch.with_fields({})))[1]
        if computing is None or computing.opaque or computing.eps != other:
            return None
        arcs = next_arcs(twin, other**0.5 if other < eps else WIDE, ARCS)
    except Exception:
        # Whatever a foreign model raises in another dtype: then there is no copy to compare with.
        return None
    sure, squares = {}, sizes_of(site, arcs[0])
    for name, own in contrasts(TWIST, site, arcs).items():
        # Few numbers may be rounded alike in all passes.
        own = torch.maximum(own, other**2 / 6 * squares[name])
        limit = other / eps * twisting[name]
        sure[name] = own > limit if other < eps else own < limit
    return sure


def _displaced(site: Site, arc: Arc, eps: float) -> dict[str, Tensor]:
    """Mean square by which each output moves when the inputs are displaced by sqrt(eps) of their size, (samples,)."""
    near = batch_of(arc.near, site.declaration)
    generator = torch.Generator().manual_seed(0)
    changed: dict[str, Tensor] = {}
    for name, spec in site.declaration.inputs.items():
        values, rows = near.fields()[name], input_rows(near, name, site.declaration)
        real = rows.select(values, spec.action.shape).double()
        away = torch.randn(real.shape, generator=generator, dtype=torch.float64, device="cpu").to(real.device)
        moved = real + eps**0.5 * real.square().mean().sqrt() * away
        changed[name] = rows.scatter(moved, values, fill=values).to(values.dtype)
    answer = answered(site, near.with_fields(changed))
    back = rotated_back(answer, site.batch, arc.turns, site.declaration)
    return {k: s.rows.mean((s.coordinates(back[k]) - arc.rows[k][-1]).square()) for k, s in site.outputs.items()}
