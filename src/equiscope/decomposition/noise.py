"""The numerical noise floor: what the split shows for a model whose only fault is rounding.

Each sample is brought to four orientations along a short arc, d_s b with b random and d_s turns by (s - 3/2) sqrt(eps)
about one random axis, each by two turns, (d_s b h^-1)(h x), in the model's own dtype. The step is far more than a
rounding, so that none is the same twice, and what varies smoothly with the orientation is a straight line on the arc:
what the passes leave of that line is rounding. A fault of Wigner degree l leaks

    eps^2 / 2 x l (l+1) (3 l^2 + 3 l - 1) / 15

of itself into it, by the curvature of the arc. The orientation is random because that of the data may be a special one,
in which axes along the frame or a cell's mirror planes make roundings cancel. The split of those passes, plus the
spread of identical repeats (atomics, autotuning), plus the rounding of the output in the turned frame, is the floor. It
is at least (2 eps)^2 mean |f|^2, eps of the output's dtype; and where a float64 copy of the model can be made, the
floor of squared error is also at least the mean square of the rounding it shows.

The octahedral group has no small rotations and permutes numbers exactly: there the copy and the repeats are all.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from equiscope.decomposition.batches import Batch
from equiscope.decomposition.orbit import Forward, output_middle, predict, rotated, rotated_back, turned
from equiscope.decomposition.ragged import batch_of
from equiscope.decomposition.split import JACKKNIFE_COSETS, OutputSplit
from equiscope.errors import InputError, RandomModelError
from equiscope.symmetry.declaration import Declaration
from equiscope.symmetry.rotations import turned_by, uniform_keyed

RANDOM_MODEL = 1e-3
# A float64 copy doubles the memory of the parameters: not made for models where that could hurt.
FLOAT64_PARAMETERS = 20_000_000
# Far above any coset's stream, so that the floor never shares rotations with the orbit.
NOISE_STREAM = 1 << 40
# Passes of an arc: a line takes two of them, and the cosets of a jackknifed loss are at least as many.
ARC = JACKKNIFE_COSETS
# Roundings are few and coarse where samples are: the first samples get at least this many arcs together.
FIRST_ARCS = 3
FLOORS = 3
# Of the chi^2 limit. As the floor itself is measured, a few in a thousand values of pure rounding exceed it.
RARE = 1e-3


@dataclass(frozen=True)
class Repeat:
    """Change of an output between two identical calls: mean square change, mean square and eps of the output."""

    change: float
    square: float
    eps: float

    @property
    def relative(self) -> float:
        return (self.change / self.square) ** 0.5 if self.square > 0 else 0.0


def check_repeat(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Repeat]:
    """Compare two identical calls, output by output.

    Raises:
        RandomModelError: if the root mean square change exceeds 1e-3 of the output.
        InputError: if an output changes its shape.
    """
    repeats: dict[str, Repeat] = {}
    for name, a in first.items():
        x, y = a.double(), second[name].double()
        if x.shape != y.shape:
            raise InputError(
                f"output {name!r} changes shape between two identical calls: rows of {tuple(x.shape[1:])}, then "
                f"{tuple(y.shape[1:])}"
            )
        repeat = Repeat(float((x - y).square().mean()), float(x.square().mean()), torch.finfo(a.dtype).eps)
        if repeat.relative > RANDOM_MODEL:
            raise RandomModelError(
                f"output {name!r} changes by {repeat.relative:.3g} of its size between two identical calls in eval "
                "mode: the model is random (dropout called functionally, sampled noise?). Its spread would be counted "
                "as equivariance error: switch the randomness off, or make the noise a declared input that rotates"
            )
        repeats[name] = repeat
    return repeats


def floor(
    model: Any,
    batch: Batch,
    declaration: Declaration,
    forward: Forward | None,
    splits: Mapping[str, OutputSplit],
    known: Mapping[str, tuple[Repeat, float]],
    key: tuple[int, list[int]],
    arcs: int = 1,
) -> dict[str, Tensor]:
    """Per-sample floor of each output's equivariance error, (samples,) float64, in the loss's units.

    ``splits`` are fresh splits of this batch, one per output; each pass counts as its own coset. ``known`` holds each
    output's change between repeats and its relative rounding in a float64 copy, 0 without one. ``key`` is the seed and
    the ids of the samples.
    """
    fields = batch.fields()
    inputs = (torch.finfo(fields[name].dtype).eps for name in declaration.inputs)
    step = max([*inputs, *(repeat.eps for repeat, _ in known.values())]) ** 0.5
    # Of R passes that are straight lines but for their rounding, R/2 degrees of freedom are left, not R - 1.
    lost = math.sqrt(2 * (ARC * arcs - 1) / (ARC * arcs))
    centres: dict[str, Tensor] = {}
    for arc in range(arcs):
        passes: dict[str, list[Tensor]] = {name: [] for name in splits}
        for turns, near in _along_arc(batch, declaration, step, key, NOISE_STREAM + arc * (ARC + 2)):
            outputs = {k: v.detach() for k, v in predict(model, near, batch, declaration, forward, True).items()}
            for name, rows in rotated_back(outputs, batch, turns, declaration).items():
                passes[name].append(splits[name].coordinates(rows))
        for name, rows in passes.items():
            centre = centres.setdefault(name, torch.stack(rows).mean(0))
            for left in off_line(torch.stack(rows)):
                splits[name].add(centre + lost * left, 1.0)
                splits[name].close_coset()
    floors: dict[str, Tensor] = {}
    for name, split in splits.items():
        rounding = _output_rounding(outputs[name], turns, batch, declaration, name)
        values, (repeat, copied) = split.values(), known[name]
        floors[name] = values.equivariance + repeat.change / 2 + rounding
        if split.loss.exact:
            # Few numbers may be rounded alike in all passes; the dtype and a float64 copy say what is possible.
            least = (2 * repeat.eps) ** 2 * values.square
            least = torch.maximum(least, values.square.new_tensor(copied**2 * repeat.square))
            floors[name] = torch.maximum(floors[name], least)
    return floors


def _along_arc(
    batch: Batch, declaration: Declaration, step: float, key: tuple[int, list[int]], stream: int
) -> Iterator[tuple[Tensor, Any]]:
    """(orientations, the samples in them), ``step`` radians apart about one axis a sample; see the module."""
    device = next(iter(batch.fields().values())).device
    base = uniform_keyed(declaration.group, *key, stream).to(device)
    for place in range(ARC):
        turns = base
        if declaration.group != "O":
            turns = turned_by((place - (ARC - 1) / 2) * step, *key, stream + 1).to(device) @ base
        halfway = uniform_keyed(declaration.group, *key, stream + 2 + place).to(device)
        there = batch_of(rotated(batch, halfway, declaration), declaration)
        yield turns, rotated(there, turns @ halfway.mT, declaration)


def off_line(passes: Tensor) -> Tensor:
    """What equally spaced passes (n, ...) leave of their straight lines: v - mean v - s (s . v) / (s . s)."""
    places = torch.arange(len(passes), dtype=passes.dtype, device=passes.device) - (len(passes) - 1) / 2
    slope = torch.tensordot(places, passes, dims=1) / places.square().sum()
    return passes - passes.mean(0) - places.reshape(-1, *[1] * slope.ndim) * slope


def arcs_needed(samples: int, first: bool) -> int:
    """Arcs of each of ``samples`` samples for their floor: more for the first ones where they are few."""
    return max(1, math.ceil(FIRST_ARCS / samples)) if first else 1


def floors_allowed(values: NDArray[np.float64]) -> float:
    """How many floors the mean of values (samples,) of pure rounding stays under, but for a few times in a thousand.

        max(3, chi^2_{0.999}(n) / n),        n = (sum v)^2 / sum v^2

    n is the number of samples that carry the mean, and each has one degree of freedom at least: the rounding of one
    small molecule is a random figure itself, that of many is their mean. 3 from ten samples on, 10.8 for one.
    """
    largest = float(np.abs(values).max(initial=0.0))
    shares = values / largest if largest > 0 else values
    carrying = max(float(shares.sum()) ** 2 / float(shares @ shares), 1.0) if largest > 0 else 1.0
    return max(FLOORS, float(stats.chi2.isf(RARE, carrying)) / carrying)


def _output_rounding(output: Tensor, turns: Tensor, batch: Batch, declaration: Declaration, name: str) -> Tensor:
    """Mean square change of an output that is turned, stored in its dtype and turned back, (samples,)."""
    spec = declaration.outputs[name]
    rows = batch.rows(name, spec.per, spec.mask)
    if getattr(spec.action, "resampling", None) is not None:
        # Interpolation is no rounding: it has a floor of its own, measured with the exact answer as the model.
        return torch.zeros(rows.samples, dtype=torch.float64, device=output.device)
    middle = output_middle(batch, name, declaration)
    there = turned(spec.action, turns[rows.sample], output.double(), middle).to(output.dtype)
    back = turned(spec.action, turns.mT[rows.sample], there.double(), middle)
    change = (back - output.double()).square().flatten(2).mean(-1).mean(1)
    return rows.sum(change) / rows.counts


def float64_change(
    model: Any, batch: Batch, declaration: Declaration, forward: Forward | None, first: Mapping[str, Tensor]
) -> dict[str, float]:
    """Root mean square change of each output, relative to its size, between the model and its float64 copy.

    Empty where no copy can be made: not a module, float64 already, too large, or code that insists on its dtype.
    """
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
    if not parameters or all(p.dtype == torch.float64 for p in parameters):
        return {}
    if sum(p.numel() for p in parameters) > FLOAT64_PARAMETERS:
        return {}
    doubled = {k: v.double() for k, v in batch.fields().items() if v.is_floating_point()}
    try:
        answer = predict(copy.deepcopy(model).double(), batch.with_fields(doubled), batch, declaration, forward)
    except Exception:
        # Whatever a foreign model raises in another dtype, the measurement itself does not depend on this check.
        return {}
    changes = {}
    for name, rows in answer.items():
        exact = rows.detach().double()
        size = exact.square().mean()
        changes[name] = float(((exact - first[name].double()).square().mean() / size).sqrt()) if size > 0 else 0.0
    return changes


def hardware_notes(device: torch.device) -> list[str]:
    """Settings of the machine that raise the floor, named."""
    notes = []
    if device.type == "cuda":
        if torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32:
            notes.append("TF32 is allowed on this GPU (10-bit mantissa): it raises the noise floor")
        if not torch.are_deterministic_algorithms_enabled():
            notes.append("GPU kernels may add in varying order (atomics); the spread of repeats is in the floor")
    return notes
