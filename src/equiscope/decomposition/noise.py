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
in one process or many (:func:`chosen`). Of p passes a sample they are a share min(1/4, p / 64), so that the floor takes
about a tenth of a measurement of 64 samples or more; and at least min(12, max(3, p / 2)) of them, where there are so
many. Of batches of one sample the smallest keys are known late, and more samples are measured than count: 64 of them
with eight passes each give 12 to 16 % to it, 256 give 7 %.

A jump is no rounding: where passes whose inputs differ by rounding alone differ by more than the precision allows, the
sample is discontinuous there, is named so, and lends nothing to the floor (:func:`jumps`).

The octahedral group has no small rotations and permutes numbers exactly: there the dtype and the copy are all.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from equiscope.decomposition.arcs import ARC, Arc, Site, answered, coarse_inside, jumps, next_arcs, off_line
from equiscope.decomposition.batches import Batch
from equiscope.decomposition.computing import NAMES, Computing, tf32_effect, watched
from equiscope.decomposition.fold import Folding, input_numbers, rows_at
from equiscope.decomposition.losses import squares
from equiscope.decomposition.orbit import output_middle, output_rows, turned
from equiscope.decomposition.ragged import batch_of
from equiscope.decomposition.samples import FLOOR
from equiscope.decomposition.split import BatchOutput, OutputSplit, add_pass
from equiscope.errors import InputError, RandomModelError
from equiscope.symmetry.declaration import Declaration

Array = NDArray[np.float64]

# Identical calls may differ by this much of an output, or by so many units of the precision the model computes in.
RANDOM_MODEL, RANDOM_UNITS = 1e-3, 4
# Roundings are few and coarse where samples are: the first samples get at least this many arcs together.
FIRST_ARCS = 3
FLOORS = 3
# Of the limits from chi^2 and F. As rounding is no Gaussian, a few in a thousand values of it exceed them.
RARE = 1e-3
# The answer as given stands apart beyond this many mean squares: a function of Wigner degrees 1 to 3 reaches at most
# 9 + 25 + 49 of its mean square in any one orientation. Rounding has tails (eigenvectors, in a few orientations).
APART, TAILS = 83, 1e4
# Numbers of inputs and outputs for which a float64 copy is asked: of large samples a few are enough.
TWIN_NUMBERS = 100_000
# Samples that have a floor, at least where there are so many, and their share of all; of short measurements fewer, at
# least three.
LEAST, SHARE, SHORT = 12, 1 / 4, 3
# Repeats of a part of a batch that differ by more units of the precision are no matter of the order of sums.
ORDER_UNITS = 5


@dataclass
class Known:
    """What was seen of a model's rounding so far, carried from batch to batch.

    Attributes:
        keys: the smallest keys of samples that have their floor.
        batches: how many batches there were.
        computing: the precision the model computes in, from the first batch.
        rounding: each output's relative change in a float64 copy; None before the copy was tried.
        change: the largest relative change between identical calls.
        wanted, passes: samples that get a floor, at most, and passes of each sample, which its cost is measured by.
        stored: eps of the coarsest of the inputs and outputs.
        notes: what a reader must know of an output, by its name.
        device: of the batches.
        folding: how passes share a call of the model.
    """

    keys: list[int] = field(default_factory=list)
    batches: int = 0
    computing: Computing | None = None
    rounding: dict[str, float] | None = None
    change: float = 0.0
    wanted: int = 0
    passes: float = math.inf
    stored: float = 0.0
    notes: dict[str, str] = field(default_factory=dict)
    device: torch.device | None = None
    folding: Folding = field(default_factory=Folding)

    @property
    def float64_change(self) -> float | None:
        """The largest change of an output in a float64 copy; None where no copy was made."""
        return max((self.rounding or {}).values(), default=None)


def keys(seed: int, ids: Sequence[int]) -> NDArray[np.uint64]:
    """A 64-bit hash of (seed, id) for each sample, uniform (the finaliser of SplitMix64)."""
    with np.errstate(over="ignore"):
        z = np.asarray(ids, dtype=np.uint64) + np.uint64(seed + 1) * np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
        return z ^ (z >> np.uint64(31))


def smallest(of: Iterable[int], wanted: int, passes: float = math.inf) -> list[int]:
    """Of the keys, ascending and each once, those whose samples have a floor: the lowest quarter of all possible keys,
    no fewer than the 12 smallest and no more than the ``wanted`` smallest; of short measurements fewer (the module)."""
    ordered = sorted({int(key) for key in of})[: max(wanted, 1)]
    least, below = min(LEAST, max(SHORT, passes / 2)), int(min(SHARE, passes / 64) * 2**64)
    return [key for place, key in enumerate(ordered) if place < least or key < below]


def chosen(
    kept: Sequence[int], new: Sequence[int], wanted: int, passes: float = math.inf
) -> tuple[list[int], list[int]]:
    """(places among ``new``, keys now kept): the samples whose keys are among the :func:`smallest` seen so far.

    Those that are the smallest of a whole stream are among them, whatever its order and length: of n samples one by one
    k (1 + log(n / k)) are measured where k count.
    """
    now = smallest([*kept, *new], wanted, passes)
    fresh = set(now) - set(kept)
    first = {key: place for place, key in reversed(list(enumerate(new)))}
    return sorted(first[key] for key in fresh), now


def check_repeat(
    first: Mapping[str, Tensor], second: Mapping[str, Tensor], computing: Computing | None = None, later: bool = False
) -> float:
    """The largest relative change between two identical calls, ``later`` with others between them.

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
            if later:
                raise RandomModelError(
                    f"output {name!r} changes by {relative:.3g} of its size after other calls of the model: it "
                    "keeps something from one call to the next (a counter, a running mean, a cache?), and its "
                    "predictions for different rotations are those of different models: switch that off in eval mode"
                )
            raise RandomModelError(
                f"output {name!r} changes by {relative:.3g} of its size between two identical calls in eval "
                "mode: the model is random (dropout called functionally, sampled noise?). Its spread would be counted "
                "as equivariance error: switch the randomness off, or make the noise a declared input that rotates"
            )
        largest = max(largest, relative)
    return largest


def again(
    known: Known, first: Mapping[str, Tensor], answer: Callable[[], Mapping[str, Tensor]], later: bool = False
) -> tuple[Computing, float]:
    """The precision in which samples that were answered by ``first`` are answered again, and :func:`check_repeat`."""
    computing = known.computing
    if computing is None:
        second, seen = watched(answer)
        seen = seen or Computing()
        stored = max(torch.finfo(v.dtype).eps for v in first.values())
        computing = replace(seen, eps=max(stored, seen.eps), tf32_effect=tf32_effect(seen.tf32, second, answer))
    else:
        second = answer()
    return computing, check_repeat(first, second, computing, later)


def floor(site: Site, known: Known, arcs: int = 1) -> dict[str, Tensor]:
    """Per-sample figures of each output's floor, (samples, len(FLOOR)) float64.

    ``loss`` is the floor of the equivariance error in the loss's units and ``rounding`` the variance of the output
    from rounding; ``square`` is mean |f|^2, ``freedom`` the degrees of freedom of the rounding, and ``jump`` the mean
    square by which a discontinuous sample jumps, 0 for others. ``known.rounding`` is filled in where it is None,
    ``known.computing`` refined where the model is opaque.
    """
    eps = max(coarsest_input(site.batch, site.declaration), known.computing.eps if known.computing else 0.0)
    seen = next_arcs(site, eps**0.5, arcs)
    opaque = known.computing is None or known.computing.opaque
    if known.rounding is None:
        known.rounding = float64_change(site, seen[-1])
        if not known.rounding and opaque:
            coarser = coarse_inside(site, seen, eps)
            if coarser > eps:
                known.computing = replace(known.computing or Computing(), eps=coarser)
                return floor(site, known, arcs)
    jumped = jumps(site, seen, eps, known.change, opaque)
    if any(bool((j > 0).any()) for j in jumped.values()):
        known.rounding = {name: change for name, change in known.rounding.items() if not bool((jumped[name] > 0).any())}
    return {name: _figures(site, output, seen, eps, known, jumped[name]) for name, output in site.outputs.items()}


def _figures(site: Site, output: BatchOutput, seen: Sequence[Arc], eps: float, known: Known, jump: Tensor) -> Tensor:
    """One output's columns."""
    rows, name = output.rows, output.name
    passes = [arc.rows[name] for arc in seen]
    left = [off_line(p) for p in passes]
    centre, count = passes[0].mean(0), ARC * len(seen)
    # Four passes less a line leave two degrees of freedom an arc.
    variance = sum((part.square().sum(0) for part in left), torch.zeros_like(centre)) / (2 * len(seen))
    seen_rounding = rows.mean(variance)
    flat = variance.flatten(1)
    sums, second = rows.sum(flat.sum(1)), rows.sum(flat.square().sum(1))
    carriers = torch.where(second > 0, sums.square() / second / 2, torch.ones_like(sums)).clamp_min(1)
    degrees = 2 * len(seen) * carriers
    answer = seen[-1].answer[name]
    rounding = seen_rounding + _output_rounding(answer, seen[-1].turns, output, site)
    square = rows.sum(torch.stack([squares(each.flatten(2)) for each in passes]).mean((0, 1))) / rows.counts
    # Few numbers may be rounded alike in all passes; the dtype, a float64 copy and repeats say what is possible.
    copied = (known.rounding or {}).get(name, 0.0)
    least = max(torch.finfo(answer.dtype).eps ** 2 / 6, copied**2, known.change**2 / 2) * square
    rounding = torch.where(jump > 0, least, torch.maximum(rounding, least))
    if output.loss.exact:
        loss = rounding
    else:
        # R passes about one centre have R - 1 degrees of freedom, these have fewer; and the whole rounding is meant.
        grown = torch.where(seen_rounding > 0, rounding / seen_rounding, torch.zeros_like(rounding)).sqrt()
        scale = (math.sqrt((count - 1) / (2 * len(seen))) * grown)[rows.sample]
        wide = scale.reshape(-1, *[1] * (centre.ndim - 1))
        splits: dict[str, OutputSplit] = {}
        for part in (part for arc in left for part in arc):
            add_pass(splits, {name: output}, {name: centre + wide * part}, 1.0, True)
        loss = splits[name].values().equivariance
    return torch.stack([loss, rounding, square, degrees, jump], dim=-1)


def coarsest_input(batch: Batch, declaration: Declaration) -> float:
    """eps of the coarsest among the inputs."""
    return max(torch.finfo(batch.fields()[name].dtype).eps for name in declaration.inputs)


def arcs_needed(samples: int, wanted: int) -> int:
    """Arcs of each sample for its floor, where ``samples`` have one by now: more where they are few."""
    return max(1, math.ceil(FIRST_ARCS / max(1, min(samples, wanted))))


def _output_rounding(answer: Tensor, turns: Tensor, output: BatchOutput, site: Site) -> Tensor:
    """Mean square change of an answer that is turned, stored in its dtype and turned back, (samples,)."""
    action, rows = output.action, output.rows
    if getattr(action, "resampling", None) is not None:
        # Interpolation is no rounding: it has a floor of its own, measured with the exact answer as the model.
        return torch.zeros(rows.samples, dtype=torch.float64, device=answer.device)
    middle = output_middle(site.batch, output.name, site.declaration)
    there = turned(action, turns[rows.sample], answer.double(), middle).to(answer.dtype)
    back = turned(action, turns.mT[rows.sample], there.double(), middle)
    return rows.mean((back - answer.double()).square())


def float64_change(site: Site, arc: Arc) -> dict[str, float]:
    """Root mean square change of each output, relative to its size, between the model and its float64 copy.

    Empty where no copy can be made: not a module, float64 already, too large, or code that insists on its dtype.
    """
    parameters = list(site.model.parameters()) if isinstance(site.model, nn.Module) else []
    if not parameters or all(p.dtype == torch.float64 for p in parameters):
        return {}
    near, places = replace(site, batch=batch_of(arc.near, site.declaration)), list(range(site.batch.size))
    numbers = input_numbers(near.batch, site.declaration) + sum(rows.numel() for rows in arc.answer.values())
    few = max(1, TWIN_NUMBERS * len(places) // numbers)
    try:
        # A large grid alone says enough, and float64 is slow.
        if few < len(places):
            with contextlib.suppress(InputError):
                near, places = near.part(places[:few]), places[:few]
        twin = near.in_precision(torch.float64)
        answer = answered(twin, twin.batch.with_fields({})) if twin is not None else {}
    except Exception:
        # Whatever a foreign model raises in another dtype, the measurement itself does not depend on this check.
        return {}
    changes = {}
    for name, rows in answer.items():
        exact = rows.double()
        single = arc.answer[name][rows_at(output_rows(site.batch, name, site.declaration), places)].double()
        size = exact.square().mean()
        changes[name] = float(((exact - single).square().mean() / size).sqrt()) if size > 0 else 0.0
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


def pooled(
    floors: Array, weights: Array, sample_keys: NDArray[np.uint64], wanted: int, passes: float = math.inf
) -> Pooled:
    """Pool the columns (samples, len(FLOOR)), NaN for samples without a floor, of those with the smallest keys."""
    has = np.flatnonzero(~np.isnan(floors[:, FLOOR.index("rounding")]))
    counting = np.array(smallest(sample_keys[has].tolist(), wanted, passes), dtype=np.uint64)
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


def stands_apart(
    deviation: Array, spread: Array, rounding: Array, passes: float, worth: Array | float = math.inf
) -> NDArray[np.bool_]:
    """Samples whose answer as given is none of those they give when turned, (samples,) as all arguments.

    ``deviation`` is the mean square of f(x) less the twirled prediction, ``spread`` the variance of the twisted ones
    over n = ``passes`` rotations (n = ``worth`` if fewer are independent), ``rounding`` that of rounding. Apart is what
    exceeds the larger max(83, F) times, and rounding 10,000 times; one of all exceeds F(1, n - 1) once in 1,000 sets.
    """
    count = np.where(spread > rounding, np.minimum(worth, passes), passes)
    limit = stats.f.isf(RARE / max(len(deviation), 1), 1, np.maximum(count - 1, 1)) * (1 + 1 / count)
    return deviation > np.maximum(np.maximum(APART, limit) * np.maximum(spread, rounding), TAILS * rounding)


def computing_notes(known: Known) -> list[str]:
    """What must be said of the precision a model computes in."""
    notes, declared = [], known.stored
    eps = known.computing.eps if known.computing else 0.0
    if eps > declared > 0:
        name = NAMES.get(eps, f"a precision of {eps:.1g}")
        notes.append(f"the model computes in {name} inside, more coarsely than its inputs and outputs are stored: the "
                     "noise floor is that of this precision")  # fmt: skip
    if known.change > RANDOM_MODEL:
        notes.append(f"identical calls differ by {100 * known.change:.2g} % of an output, which the precision that the "
                     f"model computes in allows (up to {100 * RANDOM_UNITS * max(eps, declared):.2g} %)")  # fmt: skip
    return notes
