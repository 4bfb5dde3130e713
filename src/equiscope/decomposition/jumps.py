"""What is no rounding although it is as small as one, and what is one although it is large.

A jump: the input changes by rounding alone and the output by more than the precision allows, as where neighbours tie at
a limit. Rounding in a coarser precision than the interface's, out of torch's sight: as rough as noise, but only over
larger steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from equiscope.decomposition.arcs import (
    ARC,
    BEND,
    NOISE_STREAM,
    Arc,
    Site,
    answered,
    contrast,
    next_arc,
    row_mean,
    twisting_of,
)
from equiscope.decomposition.batches import device_of_batch
from equiscope.decomposition.computing import watched
from equiscope.decomposition.orbit import input_rows, output_middle, output_rows, rotated_back
from equiscope.decomposition.ragged import batch_of
from equiscope.decomposition.split import BatchOutput
from equiscope.errors import InputError
from equiscope.symmetry.rotations import EXACT

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


def coarse_inside(site: Site, outputs: Mapping[str, BatchOutput], seen: Sequence[Arc], eps: float) -> float:
    """The precision that larger steps show inside a model that torch does not see through; ``eps`` if none is coarser.

    At the step sqrt(eps') of a coarser precision eps', rounding in it twists as noise does, by about eps' of an output
    (between 1/64 and 4 of them), where what varies smoothly bends and hardly twists. And at the step before, s, about
    s / eps' of it is there already; of jumps at bins or cutoffs, which lie further apart, hardly any is. Every output
    that is rough has to be so.
    """
    if site.declaration.group in EXACT:
        return eps
    before, step = twisting_of(outputs, seen), eps**0.5
    for place, coarser in enumerate((torch.finfo(torch.float32).eps, torch.finfo(torch.float16).eps)):
        if coarser <= eps:
            continue
        first = NOISE_STREAM + (1 << 20) * (place + 1)
        arcs = [next_arc(site, outputs, coarser**0.5, first + i * (ARC + 2)) for i in range(ARCS)]
        twisting, rounded = twisting_of(outputs, arcs), []
        for name, output in outputs.items():
            square = row_mean(output.rows, arcs[0].rows[name].square().mean(0))
            there = ~vanishing(site, twisting[name], square, coarser)
            bend = torch.stack([contrast(BEND, output, a.rows[name]) for a in arcs]).mean(0)
            bend, twist, square, now = (v[there].sum() for v in (bend, twisting[name], square, before[name]))
            if bool((twist > ROUGH * bend) & (twist >= (SIZES[0] * coarser) ** 2 * square)):
                already = now >= ALREADY * step / coarser * twist
                rounded.append(bool(already & (twist <= (SIZES[1] * coarser) ** 2 * square)))
        if rounded and all(rounded):
            return coarser
        before, step = twisting, coarser**0.5
    return eps


def jumps(
    site: Site,
    outputs: Mapping[str, BatchOutput],
    seen: Sequence[Arc],
    eps: float,
    change: float = 0.0,
    opaque: bool = False,
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
        return dict.fromkeys(outputs, none)
    if any(getattr(spec.action, "resampling", None) for spec in site.declaration.inputs.values()):
        site = replace(site, at_once=True)
        seen = [next_arc(site, outputs, eps**0.5, NOISE_STREAM + i * (ARC + 2)) for i in range(len(seen))]
    twisting = twisting_of(outputs, seen)
    squares = {k: row_mean(s.rows, seen[0].rows[k].square().mean(0)) for k, s in outputs.items()}
    least = max(SUSPECT_UNITS * eps, 3 * change) ** 2
    suspect = {k: v > least * squares[k] for k, v in twisting.items()}
    found = {k: torch.zeros_like(v) for k, v in twisting.items()}
    places = torch.stack([*suspect.values()]).any(0).nonzero().flatten().tolist()
    if not places:
        return found
    if not opaque and len(places) > max(LOOKED, site.batch.size / 2):
        sizes = torch.stack([v / squares[k].clamp_min(torch.finfo(v.dtype).tiny) for k, v in twisting.items()]).amax(0)
        some = _some_of(site, outputs, twisting, eps, sizes.topk(LOOKED).indices.tolist())
        if some is False:
            return found
        opaque = some is None
    sure = None if opaque else _jumps_of_twin(site, outputs, twisting, eps)
    if sure is None:
        moved, single = _displaced(site, outputs, seen[0], eps), max(eps, torch.finfo(torch.float32).eps)
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
        sizes.append(row_mean(rows, rows.select(site.batch.fields()[name], spec.action.shape).double().square()))
    return (twist > ALL * square) & (twist <= eps * torch.stack(sizes).amax(0))


def _some_of(
    site: Site, outputs: Mapping[str, BatchOutput], twisting: Mapping[str, Tensor], eps: float, places: list[int]
) -> bool | None:
    """Whether any of these samples jumps, looked at by themselves in the model's copy; None where there is none."""
    try:
        part = site.part(places)
    except InputError:
        # A batch made by hand may not say which rows are whose: then all are looked at.
        return True
    own = {}
    for name, output in outputs.items():
        middle = output_middle(part.batch, name, site.declaration)
        own[name] = replace(output, rows=output_rows(part.batch, name, site.declaration), labels=None, middle=middle)
    sure = _jumps_of_twin(part, own, {k: v[places] for k, v in twisting.items()}, eps)
    return None if sure is None else any(bool(v.any()) for v in sure.values())


def _jumps_of_twin(
    site: Site, outputs: Mapping[str, BatchOutput], twisting: Mapping[str, Tensor], eps: float
) -> dict[str, Tensor] | None:
    """Which samples twist alike in the model's copy in another precision; None where there is no such copy."""
    dtype = torch.float32 if eps == torch.finfo(torch.float64).eps else torch.float64
    other = torch.finfo(dtype).eps
    step = other**0.5 if other < eps else WIDE
    streams = range(NOISE_STREAM, NOISE_STREAM + ARCS * (ARC + 2), ARC + 2)
    try:
        twin = site.in_precision(dtype)
        if twin is None:
            return None
        # Code that insists on its dtype shows in one call.
        computing = watched(lambda: answered(twin, twin.batch.with_fields({})))[1]
        if computing is None or computing.opaque or computing.eps != other:
            return None
        arcs = [next_arc(twin, outputs, step, stream) for stream in streams]
    except Exception:
        # Whatever a foreign model raises in another dtype: then there is no copy to compare with.
        return None
    sure = {}
    for name, own in twisting_of(outputs, arcs).items():
        # Few numbers may be rounded alike in all passes.
        own = torch.maximum(own, other**2 / 6 * row_mean(outputs[name].rows, arcs[0].rows[name].square().mean(0)))
        limit = other / eps * twisting[name]
        sure[name] = own > limit if other < eps else own < limit
    return sure


def _displaced(site: Site, outputs: Mapping[str, BatchOutput], arc: Arc, eps: float) -> dict[str, Tensor]:
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
    return {
        k: row_mean(s.rows, (s.coordinates(back[k]) - arc.rows[k][-1]).square()) for k, s in outputs.items()
    }
