"""The numerical noise floor: what the split shows for a model whose only fault is rounding.

Samples are brought to four orientations along a short arc, d_s b with b random and d_s turns by (s - 3/2) sqrt(eps)
about one random axis, each by two turns, (d_s b h^-1)(h x), in the dtype of the inputs; eps is that of the coarsest
precision in which the model computes (:mod:`equiscope.decomposition.computing`). The step is far more than a rounding,
so that none is the same twice, and what varies smoothly with the orientation is a straight line on the arc: what the
passes leave of that line is rounding. A fault of Wigner degree l leaks

    eps^2 / 2 x l (l+1) (3 l^2 + 3 l - 1) / 15

of itself into it, by the curvature of the arc. The orientation is random because that of the data may be a special
one, in which axes along the frame or a cell's mirror planes make roundings cancel.

The floor of a sample is that rounding, plus the rounding of the output in the turned frame; at least eps^2 / 6 |f|^2
with eps of the output's dtype (one rounding of the input and one of the output, each of variance eps^2 / 12 at most),
and at least what a float64 copy of the model shows. The floor of a measurement is relative,

    sum floor / sum |f|^2   over the samples that have one   x   mean |f|^2   over all,

and those samples are the ones of smallest key, a hash of (seed, id): spread over the data whatever its order, the same
in one process or many (:func:`chosen`).

A jump is no rounding: where passes whose inputs differ by rounding alone differ by more than the precision allows, the
sample is discontinuous there, is named so, and lends nothing to the floor (:func:`jumps`).

The octahedral group has no small rotations and permutes numbers exactly: there the dtype and the copy are all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from equiscope.decomposition.batches import Batch, Rows, as_batch
from equiscope.decomposition.computing import NAMES, Computing, in_precision, watched
from equiscope.decomposition.orbit import Forward, input_rows, predict, rotated, rotated_back
from equiscope.decomposition.split import JACKKNIFE_COSETS, OutputSplit
from equiscope.errors import InputError, RandomModelError
from equiscope.symmetry.declaration import Declaration
from equiscope.symmetry.rotations import turned_by, uniform_keyed

Array = NDArray[np.float64]

# Identical calls may differ by this much of an output, or by so many units of the precision the model computes in.
RANDOM_MODEL, RANDOM_UNITS = 1e-3, 4
# Far above any coset's stream, so that the floor never shares rotations with the orbit.
NOISE_STREAM = 1 << 40
# Passes of an arc: a line takes two of them, and the cosets of a jackknifed loss are at least as many.
ARC = JACKKNIFE_COSETS
# Roundings are few and coarse where samples are: the first samples get at least this many arcs together.
FIRST_ARCS = 3
FLOORS = 3
# Of the limits from chi^2 and F. As rounding is no Gaussian, a few in a thousand values of it exceed them.
RARE = 1e-3
# What four passes show beside their mean and their line: a bend, and what is left of a parabola.
BEND = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64) / 2
TWIST = torch.tensor([-1.0, 3.0, -3.0, 1.0], dtype=torch.float64) / 20**0.5
# Larger deviations than this many units are looked into, and than half of the digits are refused without a copy.
SUSPECT_UNITS = 16
# Of what a true displacement moves an output by, at most, rounding may make up this much.
OF_DISPLACEMENT = 0.05
# A smooth function of degree l bends far more than it twists: (l step)^2 / 20 of it.
ROUGH = 0.1
# The answer as given stands apart beyond this many mean squares: a function of Wigner degrees 1 to 3 reaches at most
# 9 + 25 + 49 of its mean square in any one orientation.
APART = 83
COLUMNS = ("loss", "rounding", "square", "freedom", "jump")
# Samples that have a floor, at least where there are so many.
LEAST = 12


@dataclass
class Known:
    """What was seen of a model's rounding so far, carried from batch to batch.

    Attributes:
        keys: the smallest keys of samples that have their floor.
        batches: how many batches there were.
        computing: the precision the model computes in, from the first batch.
        rounding: each output's relative change in a float64 copy; None before the copy was tried.
        change: the largest relative change between identical calls.
    """

    keys: list[int] = field(default_factory=list)
    batches: int = 0
    computing: Computing | None = None
    rounding: dict[str, float] | None = None
    change: float = 0.0


@dataclass(frozen=True)
class Site:
    """Samples whose floor is measured: the model, their batch, what is declared, and the seed and ids of the turns."""

    model: Any
    batch: Batch
    declaration: Declaration
    forward: Forward | None
    key: tuple[int, list[int]]

    def part(self, places: list[int]) -> Site:
        """The same for some of the samples."""
        ids = [self.key[1][i] for i in places]
        return replace(self, batch=as_batch(self.batch.part(places)), key=(self.key[0], ids))

    def in_precision(self, dtype: torch.dtype) -> Site | None:
        """The same with the model and every floating field in another precision; None for a model that is too large."""
        model = in_precision(self.model, dtype)
        if model is None:
            return None
        fields = {k: v.to(dtype) for k, v in self.batch.fields().items() if v.is_floating_point()}
        return replace(self, model=model, batch=as_batch(self.batch.with_fields(fields)))


@dataclass(frozen=True)
class Arc:
    """Four passes: rows turned back (ARC, n, c, *shape) by output, and the last one's input, answer and turns."""

    rows: Mapping[str, Tensor]
    near: Any
    answer: Mapping[str, Tensor]
    turns: Tensor


def keys(seed: int, ids: Sequence[int]) -> NDArray[np.uint64]:
    """A 64-bit hash of (seed, id) for each sample, uniform (the finaliser of SplitMix64)."""
    with np.errstate(over="ignore"):
        z = np.asarray(ids, dtype=np.uint64) + np.uint64(seed + 1) * np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
        return z ^ (z >> np.uint64(31))


def smallest(of: Iterable[int], wanted: int) -> list[int]:
    """Of the keys, ascending and each once, those whose samples have a floor: the lowest quarter of all possible keys,
    no fewer than the ``LEAST`` smallest and no more than the ``wanted`` smallest."""
    ordered = sorted({int(key) for key in of})[: max(wanted, 1)]
    return [key for place, key in enumerate(ordered) if place < LEAST or key < 1 << 62]


def chosen(kept: Sequence[int], new: Sequence[int], wanted: int) -> tuple[list[int], list[int]]:
    """(places among ``new``, keys now kept): the samples whose keys are among the :func:`smallest` seen so far.

    Those that are the smallest of a whole stream are among them, whatever its order and length: of n samples one by one
    k (1 + log(n / k)) are measured where k count.
    """
    now = smallest([*kept, *new], wanted)
    fresh = set(now) - set(kept)
    first = {key: place for place, key in reversed(list(enumerate(new)))}
    return sorted(first[key] for key in fresh), now


def check_repeat(
    first: Mapping[str, Tensor], second: Mapping[str, Tensor], computing: Computing | None = None
) -> float:
    """The largest relative change between two identical calls.

    Raises:
        RandomModelError: if the root mean square change exceeds 1e-3 of an output, or four units of the precision the
            model computes in, if that is more.
        InputError: if an output changes its shape.
    """
    largest = 0.0
    for name, a in first.items():
        x, y = a.double(), second[name].double()
        if x.shape != y.shape:
            raise InputError(
                f"output {name!r} changes shape between two identical calls: rows of {tuple(x.shape[1:])}, then "
                f"{tuple(y.shape[1:])}"
            )
        change, size = float((x - y).square().mean()), float(x.square().mean())
        relative = (change / size) ** 0.5 if size > 0 else 0.0
        eps = max(torch.finfo(a.dtype).eps, computing.eps if computing else 0.0)
        if not relative <= max(RANDOM_MODEL, RANDOM_UNITS * eps):
            raise RandomModelError(
                f"output {name!r} changes by {relative:.3g} of its size between two identical calls in eval "
                "mode: the model is random (dropout called functionally, sampled noise?). Its spread would be counted "
                "as equivariance error: switch the randomness off, or make the noise a declared input that rotates"
            )
        largest = max(largest, relative)
    return largest


def floor(
    site: Site, splits: Mapping[str, OutputSplit], known: Known, arcs: int = 1
) -> dict[str, Tensor]:
    """Per-sample figures of each output's floor, (samples, len(COLUMNS)) float64.

    ``loss`` is the floor of the equivariance error in the loss's units and ``rounding`` the variance of the output
    from rounding; ``square`` is mean |f|^2, ``freedom`` the degrees of freedom of the rounding, and ``jump`` the mean
    square by which a discontinuous sample jumps, 0 for others. ``splits`` are fresh splits of the site's batch.
    ``known.rounding`` is filled in where it is None, ``known.computing`` refined where the model is opaque.
    """
    eps = _coarsest(site, known)
    seen = [next_arc(site, splits, eps**0.5, NOISE_STREAM + i * (ARC + 2)) for i in range(arcs)]
    if known.rounding is None:
        known.rounding = float64_change(site, seen[-1])
        if not known.rounding and (known.computing is None or known.computing.opaque):
            coarser = coarse_inside(site, splits, seen, eps)
            if coarser > eps:
                known.computing = replace(known.computing or Computing(), eps=coarser)
                return floor(site, splits, known, arcs)
    jumped = jumps(site, splits, seen, eps)
    if any(bool((j > 0).any()) for j in jumped.values()):
        known.rounding = {name: change for name, change in known.rounding.items() if not bool((jumped[name] > 0).any())}
    return {name: _figures(name, site, split, seen, eps, known, jumped[name]) for name, split in splits.items()}


def _figures(
    name: str, site: Site, split: OutputSplit, seen: Sequence[Arc], eps: float, known: Known, jump: Tensor
) -> Tensor:
    """One output's columns."""
    rows = split.rows
    passes = [arc.rows[name] for arc in seen]
    left = [off_line(p) for p in passes]
    centre, count = passes[0].mean(0), ARC * len(seen)
    # Four passes less a line leave two degrees of freedom an arc.
    variance = sum((part.square().sum(0) for part in left), torch.zeros_like(centre)) / (2 * len(seen))
    seen_rounding = row_mean(rows, variance)
    flat = variance.flatten(1)
    sums, squares = rows.sum(flat.sum(1)), rows.sum(flat.square().sum(1))
    carriers = torch.where(squares > 0, sums.square() / squares / 2, torch.ones_like(sums)).clamp_min(1)
    degrees = 2 * len(seen) * carriers
    output = seen[-1].answer[name]
    rounding = seen_rounding + _output_rounding(output, seen[-1].turns, split, site, name)
    square = row_mean(rows, torch.stack(passes).square().mean((0, 1)))
    # Few numbers may be rounded alike in all passes; the dtype and a float64 copy say what is possible.
    least = max(torch.finfo(output.dtype).eps ** 2 / 6, (known.rounding or {}).get(name, 0.0) ** 2) * square
    rounding = torch.where(jump > 0, least, torch.maximum(rounding, least))
    if split.loss.exact:
        loss = rounding
    else:
        # R passes about one centre have R - 1 degrees of freedom, these have fewer; and the whole rounding is meant.
        grown = torch.where(seen_rounding > 0, rounding / seen_rounding, torch.zeros_like(rounding)).sqrt()
        scale = (math.sqrt((count - 1) / (2 * len(seen))) * grown)[rows.sample]
        for part in (part for arc in left for part in arc):
            split.add(centre + scale.reshape(-1, *[1] * (part.ndim - 1)) * part, 1.0)
            split.close_coset()
        loss = split.values().equivariance
    return torch.stack([loss, rounding, square, degrees, jump], dim=-1)


def _coarsest(site: Site, known: Known) -> float:
    """eps of the coarsest among the inputs and what the model was seen to compute in."""
    fields = site.batch.fields()
    inputs = (torch.finfo(fields[name].dtype).eps for name in site.declaration.inputs)
    return max([*inputs, known.computing.eps if known.computing else 0.0])


def next_arc(site: Site, splits: Mapping[str, OutputSplit], step: float, stream: int) -> Arc:
    """The passes of one arc, ``step`` radians apart about one axis a sample; see the module."""
    passes: dict[str, list[Tensor]] = {name: [] for name in splits}
    for turns, near in _along_arc(site, step, stream):
        answer = _answer(site, near)
        for name, rows in rotated_back(answer, site.batch, turns, site.declaration).items():
            passes[name].append(splits[name].coordinates(rows))
    return Arc({name: torch.stack(rows) for name, rows in passes.items()}, near, answer, turns)


def _answer(site: Site, native: Any) -> dict[str, Tensor]:
    answer = predict(site.model, native, site.batch, site.declaration, site.forward)
    return {name: rows.detach() for name, rows in answer.items()}


def _along_arc(site: Site, step: float, stream: int) -> Iterator[tuple[Tensor, Any]]:
    """(orientations, the samples in them)."""
    group, device = site.declaration.group, next(iter(site.batch.fields().values())).device
    base = uniform_keyed(group, *site.key, stream).to(device)
    for place in range(ARC):
        turns = base
        if group != "O":
            turns = turned_by((place - (ARC - 1) / 2) * step, *site.key, stream + 1).to(device) @ base
        halfway = uniform_keyed(group, *site.key, stream + 2 + place).to(device)
        there = as_batch(rotated(site.batch, halfway, site.declaration))
        yield turns, rotated(there, turns @ halfway.mT, site.declaration)


def off_line(passes: Tensor) -> Tensor:
    """What equally spaced passes (n, ...) leave of their straight lines: v - mean v - s (s . v) / (s . s)."""
    places = torch.arange(len(passes), dtype=passes.dtype, device=passes.device) - (len(passes) - 1) / 2
    slope = torch.tensordot(places, passes, dims=1) / places.square().sum()
    return passes - passes.mean(0) - places.reshape(-1, *[1] * slope.ndim) * slope


def row_mean(rows: Rows, values: Tensor) -> Tensor:
    """Mean over rows and components (n, ...) of each sample, (samples,)."""
    return rows.sum(values.flatten(1).mean(1)) / rows.counts


def _contrast(weights: Tensor, split: OutputSplit, passes: Tensor) -> Tensor:
    """Mean square of a contrast of the passes of each sample, (samples,)."""
    return row_mean(split.rows, torch.tensordot(weights.to(passes.device), passes, dims=1).square())


def _twisting(splits: Mapping[str, OutputSplit], arcs: Sequence[Arc]) -> dict[str, Tensor]:
    """What the arcs twist by, mean square of each sample and output."""
    return {k: torch.stack([_contrast(TWIST, s, a.rows[k]) for a in arcs]).mean(0) for k, s in splits.items()}


def coarse_inside(site: Site, splits: Mapping[str, OutputSplit], seen: Sequence[Arc], eps: float) -> float:
    """The precision that larger steps show inside a model that torch does not see through; ``eps`` if none is coarser.

    At the step sqrt(eps') of a coarser precision, rounding in it is as rough as noise is, and larger than at the small
    step; what varies smoothly bends and hardly twists. More than eps'^(3/4) of the output is no rounding.
    """
    found = eps
    if site.declaration.group == "O":
        return found
    small = _twisting(splits, seen)
    for place, coarser in enumerate((torch.finfo(torch.float32).eps, torch.finfo(torch.float16).eps)):
        if coarser <= eps:
            continue
        first = NOISE_STREAM + (1 << 20) * (place + 1)
        arcs = [next_arc(site, splits, coarser**0.5, first + i * (ARC + 2)) for i in range(FIRST_ARCS)]
        twisting = _twisting(splits, arcs)
        for name, split in splits.items():
            bend = torch.stack([_contrast(BEND, split, a.rows[name]) for a in arcs]).mean()
            twist, square = twisting[name].mean(), row_mean(split.rows, arcs[0].rows[name].square().mean(0)).mean()
            rough = twist > ROUGH * bend and twist > FLOORS**2 * small[name].mean()
            if bool(rough and twist <= coarser**1.5 * square):
                found = coarser
    return found


def jumps(site: Site, splits: Mapping[str, OutputSplit], seen: Sequence[Arc], eps: float) -> dict[str, Tensor]:
    """Mean square by which each sample jumps where its input changes by rounding alone, (samples,); else 0.

    Passes that twist by more than 16 units of the precision are looked into. Rounding follows the precision: in a copy
    of the model in another one, on an arc of that precision's own step, a rounding changes by the ratio of the two and
    a jump stays. Without such a copy a jump is more than half of the digits, and more than a twentieth (mean squares)
    of what a true displacement of the inputs by sqrt(eps) of their size does.
    """
    twisting = _twisting(splits, seen)
    squares = {k: row_mean(s.rows, seen[0].rows[k].square().mean(0)) for k, s in splits.items()}
    suspect = {k: v > (SUSPECT_UNITS * eps) ** 2 * squares[k] for k, v in twisting.items()}
    found = {k: torch.zeros_like(v) for k, v in twisting.items()}
    places = torch.stack([*suspect.values()]).any(0).nonzero().flatten().tolist()
    if not places or site.declaration.group == "O":
        return found
    sure = _jumps_of_twin(site, splits, twisting, eps)
    if sure is None:
        moved = _displaced(site, splits, seen[0], eps)
        sure = {
            k: (v > eps * squares[k]) & (v > OF_DISPLACEMENT * moved[k]) for k, v in twisting.items()
        }
    return {k: torch.where(sure[k] & suspect[k], v, found[k]) for k, v in twisting.items()}


def _jumps_of_twin(
    site: Site, splits: Mapping[str, OutputSplit], twisting: Mapping[str, Tensor], eps: float
) -> dict[str, Tensor] | None:
    """Which samples twist alike in the model's copy in another precision; None where there is no such copy."""
    dtype = torch.float32 if eps == torch.finfo(torch.float64).eps else torch.float64
    other = torch.finfo(dtype).eps
    streams = range(NOISE_STREAM, NOISE_STREAM + FIRST_ARCS * (ARC + 2), ARC + 2)
    try:
        twin = site.in_precision(dtype)
        if twin is None:
            return None
        arcs, computing = watched(lambda: [next_arc(twin, splits, other**0.5, stream) for stream in streams])
    except Exception:
        # Whatever a foreign model raises in another dtype: then there is no copy to compare with.
        return None
    if computing is None or computing.opaque or computing.eps != other:
        return None
    sure = {}
    for name, own in _twisting(splits, arcs).items():
        # Few numbers may be rounded alike in all passes.
        own = torch.maximum(own, other**2 / 6 * row_mean(splits[name].rows, arcs[0].rows[name].square().mean(0)))
        limit = other / eps * twisting[name]
        sure[name] = own > limit if other < eps else own < limit
    return sure


def _displaced(site: Site, splits: Mapping[str, OutputSplit], arc: Arc, eps: float) -> dict[str, Tensor]:
    """Mean square by which each output moves when the inputs are displaced by sqrt(eps) of their size, (samples,)."""
    near = as_batch(arc.near)
    generator = torch.Generator().manual_seed(0)
    changed: dict[str, Tensor] = {}
    for name, spec in site.declaration.inputs.items():
        values, rows = near.fields()[name], input_rows(near, name, site.declaration)
        real = rows.select(values, spec.action.shape).double()
        away = torch.randn(real.shape, generator=generator, dtype=torch.float64).to(real.device)
        moved = real + eps**0.5 * real.square().mean().sqrt() * away
        changed[name] = rows.scatter(moved, values, fill=values).to(values.dtype)
    answer = _answer(site, near.with_fields(changed))
    back = rotated_back(answer, site.batch, arc.turns, site.declaration)
    return {
        k: row_mean(s.rows, (s.coordinates(back[k]) - arc.rows[k][-1]).square()) for k, s in splits.items()
    }


def arcs_needed(samples: int, wanted: int) -> int:
    """Arcs of each of a batch's ``samples`` samples for their floor: more where few are wanted in all."""
    return max(1, math.ceil(FIRST_ARCS / max(1, min(samples, wanted))))


def _output_rounding(output: Tensor, turns: Tensor, split: OutputSplit, site: Site, name: str) -> Tensor:
    """Mean square change of an output that is turned, stored in its dtype and turned back, (samples,)."""
    spec, rows = site.declaration.outputs[name], split.rows
    if getattr(spec.action, "resampling", None) is not None:
        # Interpolation is no rounding: it has a floor of its own, measured with the exact answer as the model.
        return torch.zeros(rows.samples, dtype=torch.float64, device=output.device)
    turned = spec.action.act(turns[rows.sample], output).to(output.dtype)
    back = spec.action.act(turns.mT[rows.sample], turned)
    return row_mean(rows, (back - output.double()).square())


def float64_change(site: Site, arc: Arc) -> dict[str, float]:
    """Root mean square change of each output, relative to its size, between the model and its float64 copy.

    Empty where no copy can be made: not a module, float64 already, too large, or code that insists on its dtype.
    """
    parameters = list(site.model.parameters()) if isinstance(site.model, nn.Module) else []
    if not parameters or all(p.dtype == torch.float64 for p in parameters):
        return {}
    try:
        twin = replace(site, batch=as_batch(arc.near)).in_precision(torch.float64)
        answer = _answer(twin, twin.batch.with_fields({})) if twin is not None else {}
    except Exception:
        # Whatever a foreign model raises in another dtype, the measurement itself does not depend on this check.
        return {}
    changes = {}
    for name, rows in answer.items():
        exact = rows.double()
        size = exact.square().mean()
        changes[name] = float(((exact - arc.answer[name].double()).square().mean() / size).sqrt()) if size > 0 else 0.0
    return changes


@dataclass(frozen=True)
class Pooled:
    """The floor of one output over the samples that have one.

    Attributes:
        rounding, loss: relative to |f|^2: variance from rounding, and the floor in the loss's units.
        freedom: degrees of freedom it rests on.
        checked, jumped: places of the samples that have a floor, and of those among them that jump.
        jump: root mean square jump of the latter, relative to their size.
    """

    rounding: float
    loss: float
    freedom: float
    checked: NDArray[np.int64]
    jumped: NDArray[np.int64]
    jump: float


def pooled(floors: Array, weights: Array, sample_keys: NDArray[np.uint64], wanted: int) -> Pooled:
    """Pool the columns (samples, len(COLUMNS)), NaN for samples without a floor, of those with the smallest keys."""
    has = np.flatnonzero(~np.isnan(floors[:, COLUMNS.index("rounding")]))
    counting = np.array(smallest(sample_keys[has].tolist(), wanted), dtype=np.uint64)
    checked = has[np.isin(sample_keys[has], counting)]
    loss, rounding, square, degrees, jump = floors[checked].T
    w, jumped = weights[checked], jump > 0
    sound = ~jumped if not jumped.all() else jumped
    share, size = w[sound] * rounding[sound], float((w[sound] * square[sound]).sum())
    largest = float(share.max(initial=0.0))
    shares = share / largest if largest > 0 else np.ones_like(share)
    freedom = float(shares.sum()) ** 2 / float((shares**2 / degrees[sound]).sum())
    moved, of = float((w * jump).sum()), float((w * np.maximum(square, jump))[jumped].sum())
    return Pooled(
        rounding=largest * float(shares.sum()) / size if size > 0 else 0.0,
        loss=max(float((w[sound] * loss[sound]).sum()), 0.0) / size if size > 0 else 0.0,
        freedom=freedom,
        checked=checked,
        jumped=checked[jumped],
        jump=math.sqrt(moved / of) if of > 0 else 0.0,
    )


def floors_allowed(values: Array, freedom: float = math.inf) -> float:
    """How many floors the mean of values (samples,) of pure rounding stays under, but for a few times in a thousand.

        max(3, F_{0.999}(n, m)),        n = (sum v)^2 / sum v^2

    n is the number of samples that carry the mean, and each has one degree of freedom at least; m is the ``freedom`` of
    the floor itself. The rounding of one small molecule is a random figure, that of many is their mean: with a floor
    that is known well, 3 from ten samples on and 10.8 for one.
    """
    largest = float(np.abs(values).max(initial=0.0))
    shares = values / largest if largest > 0 else values
    carrying = max(float(shares.sum()) ** 2 / float(shares @ shares), 1.0) if largest > 0 else 1.0
    if math.isinf(freedom):
        return max(FLOORS, float(stats.chi2.isf(RARE, carrying)) / carrying)
    return max(FLOORS, float(stats.f.isf(RARE, carrying, freedom)))


def stands_apart(deviation: Array, spread: Array, rounding: Array, passes: float) -> NDArray[np.bool_]:
    """Samples whose answer as given is none of those they give when turned.

    ``deviation`` is the mean square of f(x) less the twirled prediction, ``spread`` the variance of the twisted
    predictions over ``passes`` rotations and ``rounding`` that of rounding alone, each (samples,). A sample stands
    apart beyond max(83, F) of the larger of the two, F the limit of the F distribution of 1 and passes - 1 degrees of
    freedom that one of all samples exceeds once in a thousand sets.
    """
    limit = float(stats.f.isf(RARE / max(len(deviation), 1), 1, max(passes - 1, 1))) * (1 + 1 / passes)
    return deviation > max(APART, limit) * np.maximum(spread, rounding)


def computing_notes(known: Known, declared: float) -> list[str]:
    """What must be said of the precision a model computes in; ``declared`` is the eps of its inputs and outputs."""
    notes = []
    eps = known.computing.eps if known.computing else 0.0
    if eps > declared > 0:
        name = NAMES.get(eps, f"a precision of {eps:.1g}")
        notes.append(f"the model computes in {name} inside, more coarsely than its inputs and outputs are stored: the "
                     "noise floor is that of this precision")  # fmt: skip
    if known.change > RANDOM_MODEL:
        notes.append(f"identical calls differ by {100 * known.change:.2g} % of an output, which the precision that the "
                     f"model computes in allows (up to {100 * RANDOM_UNITS * max(eps, declared):.2g} %)")  # fmt: skip
    return notes
