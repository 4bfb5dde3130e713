"""The best constant equivariant predictor under a loss that is not squared error: what skill is measured against.

The constants that respect the symmetry are B theta with B the invariants of the output's action, and

    baseline = min over theta of the weighted mean of loss(B theta, y)

is a convex problem: the median for L1 of a scalar, class frequencies for cross-entropy, zero for vectors. It is solved
by Brent's line search, and by Powell's directions of such searches where there are several invariants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch import Tensor

from equiscope.decomposition.losses import Loss
from equiscope.decomposition.samples import LabelRows
from equiscope.decomposition.split import BatchOutput
from equiscope.symmetry.actions import Action

Array = NDArray[np.float64]
Whole = Sequence[tuple[BatchOutput, torch.Size]]


def constant_loss(loss: Loss, targets: LabelRows | Whole, action: Action, group: str, weights: Array) -> float:
    """Loss of the best constant equivariant prediction; NaN without labels.

    Args:
        targets: the rows of all labels; or for a user's loss, which acts on whole tensors, a batch each: the output
            that holds the labels, and the shape of its prediction's rows.
        weights: of the samples, (samples,) with mean 1.
    """
    if not isinstance(targets, LabelRows):
        return _of_whole(targets, action, group, weights) if targets else math.nan
    rows = targets.rows[:, None]
    counts = torch.bincount(targets.sample, minlength=len(weights))
    share = (torch.as_tensor(weights, device=rows.device) / counts)[targets.sample]
    share = share / share.sum()
    if not rows.is_floating_point():
        return _of_classes(loss, rows, share, int(action.shape[0]))
    basis = action.invariants(group).to(rows.device)
    seen = torch.einsum("ncd,dk->nck", rows, basis).flatten(0, 1)

    def mean_loss(theta: Array) -> float:
        constant = basis @ torch.as_tensor(theta, device=rows.device)
        return float((share * loss.per_row(constant.expand_as(rows), rows).mean(dim=1)).sum())

    return least(mean_loss, _start(seen, share), _spread(seen))


def least(function: Callable[[Array], float], start: Array, scale: Array) -> float:
    """Smallest value of a convex function of theta (k,) near ``start``, where ``scale`` (k,) is the size of a step."""
    if len(start) == 0:
        return function(start)
    best = function(start)
    if len(start) == 1:
        bracket = (start[0] - scale[0], start[0] + scale[0])
        found = optimize.minimize_scalar(lambda t: function(np.array([t])), bracket=bracket, tol=1e-10)
        return min(best, float(found.fun))
    directions = np.diag(scale)
    found = optimize.minimize(
        function, start, method="Powell", options={"direc": directions, "xtol": 1e-8, "ftol": 1e-12, "maxiter": 100}
    )
    return min(best, float(found.fun))


def _of_classes(loss: Loss, rows: Tensor, share: Tensor, count: int) -> float:
    """Cross-entropy of the class frequencies."""
    classes = torch.zeros(count, dtype=torch.float64, device=rows.device)
    classes.index_add_(0, rows[:, 0].flatten().long(), share)
    constant = classes if loss.name.endswith("probabilities") else classes.clamp_min(1e-300).log()
    per_row = loss.per_row(constant.expand(*rows.shape[:2], len(constant)), rows).mean(dim=1)
    return float((share * per_row).sum())


def _of_whole(targets: Whole, action: Action, group: str, weights: Array) -> float:
    basis = _raw(action, action.invariants(group))
    labels = [output.labels.target for output, _ in targets if output.labels is not None]
    if all(target.is_floating_point() for target in labels):
        seen = torch.cat([(action.canonical(y) @ action.invariants(group).to(y)).flatten(0, 1) for y in labels])
    else:
        seen = torch.tensor([[-1.0], [1.0]], dtype=torch.float64, device="cpu").expand(2, basis.shape[1])
    shares = torch.as_tensor(weights / weights.sum(), device="cpu")

    def mean_loss(theta: Array) -> float:
        constant, values = basis @ torch.as_tensor(theta, device="cpu"), []
        for output, shape in targets:
            rows = constant.reshape(action.shape).to(output.rows.sample.device).expand(shape).clone()
            values.append(output.sample_loss(rows).detach().cpu())
        return float(shares @ torch.cat(values))

    even = torch.full((len(seen),), 1 / len(seen), dtype=torch.float64, device="cpu")
    return least(mean_loss, _start(seen, even), _spread(seen))


def _raw(action: Action, canonical: Tensor) -> Tensor:
    """Invariants (d, k) in canonical coordinates as flat elements of the action's own shape."""
    size = math.prod(action.shape)
    eye = torch.eye(size, dtype=torch.float64, device="cpu").reshape(1, size, *action.shape)
    return torch.linalg.lstsq(action.canonical(eye)[0].T, canonical).solution


def _start(seen: Tensor, share: Tensor) -> Array:
    return (share[:, None].to(seen) * seen).sum(0).cpu().numpy()


def _spread(seen: Tensor) -> Array:
    """Standard deviation of each invariant part, or 1 where all are alike."""
    spread: Any = (seen - seen.mean(0)).square().mean(0).sqrt().cpu().numpy()
    return np.where(spread > 0, spread, 1.0)
