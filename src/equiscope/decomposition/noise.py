"""The numerical noise floor: what the split shows for a model whose only fault is rounding.

Inputs are turned there and back, R^-1 (R x), in the model's own dtype: no net rotation, but the network amplifies the
rounding as it does for a real rotation. The split of those passes, plus the spread of identical repeats (atomics,
autotuning), plus the rounding of the output in the turned frame, is the floor. It is at least (2 eps)^2 mean |f|^2, eps
of the output's dtype: a turn there and back may by luck restore the very bits it started from. Where a float64 copy of
the model can be made, the floor of squared error is also at least the mean square of the rounding it shows.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from equiscope.decomposition.batches import Batch, as_batch
from equiscope.decomposition.orbit import Forward, predict, rotated
from equiscope.decomposition.split import JACKKNIFE_COSETS, OutputSplit
from equiscope.errors import InputError, RandomModelError
from equiscope.symmetry.declaration import Declaration
from equiscope.symmetry.rotations import uniform_keyed

RANDOM_MODEL = 1e-3
# A float64 copy doubles the memory of the parameters: not made for models where that could hurt.
FLOAT64_PARAMETERS = 20_000_000
# Far above any coset's stream, so that the floor never shares rotations with the orbit.
NOISE_STREAM = 1 << 40


@dataclass(frozen=True)
class Repeat:
    """Change of an output between two identical calls: mean square change and mean square of the output."""

    change: float
    square: float

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
        repeat = Repeat(float((x - y).square().mean()), float(x.square().mean()))
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
    seed: int,
    ids: list[int],
) -> dict[str, Tensor]:
    """Per-sample floor of each output's equivariance error, (samples,) float64, in the loss's units.

    ``splits`` are fresh splits of this batch, one per output; each there-and-back pass counts as its own coset.
    ``known`` holds each output's change between repeats and its relative rounding in a float64 copy, 0 without one.
    """
    device = next(iter(batch.fields().values())).device
    outputs: dict[str, Tensor] = {}
    turns = torch.eye(3, dtype=torch.float64)
    for stream in range(JACKKNIFE_COSETS):
        turns = uniform_keyed(declaration.group, seed, ids, NOISE_STREAM + stream).to(device)
        there = as_batch(rotated(batch, turns, declaration))
        back = rotated(there, turns.mT, declaration)
        outputs = {k: v.detach() for k, v in predict(model, back, batch, declaration, forward).items()}
        for name, rows in outputs.items():
            splits[name].add(splits[name].coordinates(rows.double()), 1.0)
            splits[name].close_coset()
    floors: dict[str, Tensor] = {}
    for name, split in splits.items():
        rounding = _output_rounding(outputs[name], turns, batch, declaration, name)
        values, eps = split.values(), torch.finfo(outputs[name].dtype).eps
        repeat, copied = known[name]
        floors[name] = values.equivariance + repeat.change / 2 + rounding
        if split.loss.exact:
            # Turned there and back, most roundings inside the network stay as they were; a float64 copy shows them all.
            least = torch.maximum((2 * eps) ** 2 * values.square, values.square.new_tensor(copied**2 * repeat.square))
            floors[name] = torch.maximum(floors[name], least)
    return floors


def _output_rounding(output: Tensor, turns: Tensor, batch: Batch, declaration: Declaration, name: str) -> Tensor:
    """Mean square change of an output that is turned, stored in its dtype and turned back, (samples,)."""
    spec = declaration.outputs[name]
    rows = batch.rows(name, spec.per, spec.mask)
    if getattr(spec.action, "resampling", None) is not None:
        # Interpolation is no rounding: it has a floor of its own, measured with the exact answer as the model.
        return torch.zeros(rows.samples, dtype=torch.float64, device=output.device)
    turned = spec.action.act(turns[rows.sample], output).to(output.dtype)
    back = spec.action.act(turns.mT[rows.sample], turned)
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
