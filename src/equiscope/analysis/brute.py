"""The parts of a squared error by brute force: many independent rotations of a few samples, beside what is reported.

Nothing here uses the estimators of :func:`equiscope.measure`: plain means and the variance of the twisted predictions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from equiscope.decomposition.batches import Batch, as_batch, repeated
from equiscope.decomposition.calling import Call
from equiscope.decomposition.fold import copies_of
from equiscope.decomposition.measure import device_of, measure
from equiscope.decomposition.orbit import Forward, rows_of, twisted
from equiscope.decomposition.preserve import untouched
from equiscope.errors import InputError, check_count
from equiscope.symmetry.declaration import Declaration
from equiscope.symmetry.rotations import group, haar

PARTS = ("total", "twirled", "equivariance")
Figure = tuple[float, float]


def brute_force(
    model: nn.Module,
    batches: Sequence[Mapping[str, Tensor]],
    declaration: Declaration,
    count: int = 100_000,
    repeats: int = 100,
    at_once: int = 500,
    forward: Forward | None = None,
    rotations: str = "T",
    cosets: int = 2,
    seed: int = 0,
) -> dict[str, Any]:
    """Every part of the loss of a few samples, as reported and by brute force, with standard errors.

    With p_1 … p_n the twisted predictions of a sample for n independent Haar rotations, p̄ their mean, y its target,
    and every norm a mean over its components,

        total = mean |p_i − y|²,   equivariance = Σ |p_i − p̄|² / (n − 1),   twirled = |p̄ − y|² − equivariance / n.

    For the octahedral group all 24 rotations are taken, n = 24 is then the whole orbit and the figures are exact.
    Reported is the mean over ``repeats`` measurements of ``rotations`` and ``cosets``, its error from their spread.

    Args:
        batches: dense, of few samples; all are taken.
        count: rotations of each sample; at_once: of one call of the model.

    Returns:
        ``rotations``, ``samples``, ``exact`` and ``parts``: part -> ``reported``, ``reported_error``, ``brute``,
        ``brute_error``, means over samples in the unit of the loss.

    Raises:
        InputError: for a loss that is not squared, several outputs, or an output without target.
    """
    (name, spec), *others = declaration.outputs.items()
    if others or spec.loss != "mse" or spec.target is None:
        raise InputError(f"brute force compares one output with a target and loss 'mse', got {declaration.outputs}")
    check_count("count", count, 2)
    check_count("repeats", repeats, 2)
    exact = declaration.group == "O"
    device, generator = device_of(model), torch.Generator().manual_seed(seed)
    samples = [{k: v[i : i + 1].to(device) for k, v in batch.items()}
               for batch in batches for i in range(len(next(iter(batch.values()))))]  # fmt: skip
    orbits, call = [], forward or Call(declaration)
    with untouched(model):
        for one in samples:
            # Rotations of its own for each sample, so that their errors are independent.
            turns = group("O").matrices.double() if exact else haar(count, generator)
            orbits.append(_orbit(model, as_batch(one), name, declaration, call, turns.to(device), at_once))
    by_force = [_by_force(*orbit, exact) for orbit in orbits]
    reported = [_reported(model, one, declaration, repeats, forward, "O" if exact else rotations, cosets, seed)
                for one in samples]  # fmt: skip
    parts = {}
    for part in PARTS:
        (told, told_error), (force, force_error) = (_mean([one[part] for one in some]) for some in (reported, by_force))
        parts[part] = {"reported": told, "reported_error": told_error, "brute": force, "brute_error": force_error}
    return {"rotations": len(orbits[0][0]), "samples": len(samples), "exact": exact, "parts": parts}


@torch.no_grad()
def _orbit(
    model: nn.Module, sample: Batch, name: str, declaration: Declaration, forward: Forward | None, turns: Tensor,
    at_once: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Twisted predictions (n, components) and target (components,) of one sample, float64."""
    spec, found = declaration.outputs[name], []
    for some in turns.split(at_once):
        rows = twisted(model, copies_of(sample, len(some), declaration), some, declaration, forward)[name]
        found.append(spec.action.canonical(rows).reshape(len(some), -1))
    target = rows_of(sample.fields()[spec.target or ""].double(), name, sample, declaration)
    return torch.cat(found), spec.action.canonical(target).flatten()


def _by_force(passes: Tensor, target: Tensor, exact: bool) -> dict[str, Figure]:
    n, middle = len(passes), passes.mean(0)
    losses, scatter = (passes - target).square().mean(1), (passes - middle).square().mean(1)
    equivariance = float(scatter.sum()) / (n if exact else n - 1)
    twirled = float((middle - target).square().mean()) - (0.0 if exact else equivariance / n)
    # |p̄ − y|² has the influence 2 ⟨p_i − p̄, p̄ − y⟩.
    pull = 2 * ((passes - middle) * (middle - target)).mean(1)
    values = {"total": float(losses.mean()), "twirled": twirled, "equivariance": equivariance}
    spread = {"total": losses, "twirled": pull, "equivariance": scatter}
    return {part: (values[part], 0.0 if exact else float(spread[part].std()) / math.sqrt(n)) for part in PARTS}


def _reported(
    model: nn.Module, sample: Mapping[str, Tensor], declaration: Declaration, repeats: int, forward: Forward | None,
    rotations: str, cosets: int, seed: int,
) -> dict[str, Figure]:  # fmt: skip
    """Mean and standard error of what :func:`equiscope.measure` says of a sample under as many ids."""
    copies = {name: repeated(value, repeats) for name, value in sample.items()}
    for field in (declaration.ids, declaration.clusters):
        if field is not None:
            copies[field] = torch.arange(repeats, device=next(iter(sample.values())).device)
    found = measure(model, [copies], declaration, forward=forward, rotations=rotations,
                    cosets=1 if rotations == declaration.group else cosets, seed=seed, noise_samples=1).per_sample
    assert found is not None  # fmt: skip
    values = {"total": found.total, "equivariance": found.equivariance, "twirled": found.total - found.equivariance}
    return {part: (float(v.mean()), float(v.std()) / math.sqrt(repeats)) for part, v in values.items()}


def _mean(figures: Sequence[Figure]) -> Figure:
    """The mean of independent figures and its standard error."""
    values, errors = zip(*figures, strict=True)
    return sum(values) / len(values), math.sqrt(sum(error**2 for error in errors)) / len(errors)
