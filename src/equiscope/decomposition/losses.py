"""Convex losses of one sample, and whether they are rotation invariant and split exactly.

Every loss is a function of the rows of a sample in canonical coordinates; a sample's loss is the mean over its
real components (squared error, L1, Huber) or rows (vector norm, cross-entropy).

Skill is measured against the best constant that respects the symmetry, B theta with B the invariants of the output's
action: min over theta of the weighted mean of loss(B theta, y) is convex (the median for L1 of a scalar, class
frequencies for cross-entropy, zero for vectors), and found by Brent's line search, or Powell's directions of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch import Tensor
from torch.nn import functional as F

from equiscope.decomposition.samples import LabelRows, WholeLabels
from equiscope.errors import InputError
from equiscope.symmetry.actions import Action
from equiscope.symmetry.rotations import uniform_keyed

Array = NDArray[np.float64]


def _identity(prediction: Tensor) -> Tensor:
    return prediction


@dataclass(frozen=True)
class Loss:
    """A convex loss.

    Attributes:
        name: as shown in results.
        per_row: (prediction, target) rows (n, c, d) -> (n, c) mean loss of each row.
        exact: True for squared error, whose split is exactly unbiased at any number of passes.
        invariant: whether loss(g a, g b) = loss(a, b) for every orthogonal action; see :func:`invariant_under`.
        prepare: map applied to a prediction before it is averaged over rotations.
        per_sample: a user's loss on whole tensors, in place of ``per_row``.
        classes: True if targets are integer classes.
    """

    name: str
    per_row: Callable[[Tensor, Tensor], Tensor]
    exact: bool = False
    invariant: bool = True
    prepare: Callable[[Tensor], Tensor] = _identity
    per_sample: Callable[[Tensor, Tensor], Tensor] | None = None
    classes: bool = False


# Numbers of a row from which a copy of their squares costs more than another way of summing them.
LONG = 1024


def squares(values: Tensor) -> Tensor:
    """Mean square over the last axis; of grids in one sweep, without a copy, where no graph is recorded."""
    if values.requires_grad or values.shape[-1] < LONG:
        return values.square().mean(dim=-1)
    return torch.linalg.vector_norm(values, dim=-1).square() / values.shape[-1]


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """|p - y|^2 / d: mean over the d components of a row."""
    return squares(prediction - target)


def absolute_error(prediction: Tensor, target: Tensor) -> Tensor:
    """|p - y|_1 / d, componentwise; depends on the frame."""
    return (prediction - target).abs().mean(dim=-1)


def huber(prediction: Tensor, target: Tensor, delta: float = 1.0) -> Tensor:
    """Componentwise Huber loss r^2/2 for |r| < delta, delta (|r| - delta/2) beyond; depends on the frame."""
    return F.huber_loss(prediction, target, reduction="none", delta=delta).mean(dim=-1)


def vector_norm(prediction: Tensor, target: Tensor) -> Tensor:
    """|p - y|_2 of each row (per-atom force error; the training loss of EScAIP)."""
    return (prediction - target).norm(dim=-1)


def cross_entropy_logits(logits: Tensor, target: Tensor) -> Tensor:
    """-log softmax(z)_y; the twirled prediction averages logits."""
    return torch.logsumexp(logits, dim=-1) - _pick(logits, target)


def cross_entropy_probabilities(probabilities: Tensor, target: Tensor) -> Tensor:
    """-log p_y; the twirled prediction averages probabilities."""
    return -_pick(probabilities, target).log()


def _pick(values: Tensor, target: Tensor) -> Tensor:
    return values.gather(-1, target.long()).squeeze(-1)


def _softmax(logits: Tensor) -> Tensor:
    return torch.softmax(logits.double(), dim=-1)


LOSSES = {
    "mse": Loss("mse", squared_error, exact=True),
    "l1": Loss("l1", absolute_error, invariant=False),
    "huber": Loss("huber", huber, invariant=False),
    "l2_norm": Loss("l2_norm", vector_norm),
    "cross_entropy_logits": Loss("cross_entropy_logits", cross_entropy_logits, classes=True),
    "cross_entropy_probabilities": Loss(
        "cross_entropy_probabilities", cross_entropy_probabilities, prepare=_softmax, classes=True
    ),
}


def loss(spec: str | Loss | Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """The loss named, or a user's callable ``loss(prediction, target) -> (samples,)``.

    Raises:
        InputError: for an unknown name; ``"cross_entropy"`` must say what is averaged.
    """
    if isinstance(spec, Loss):
        return spec
    spec = _of_torch(spec)
    if callable(spec):
        return Loss(getattr(spec, "__name__", type(spec).__name__), squared_error, per_sample=spec)
    if spec == "cross_entropy":
        raise InputError(_TWO_MEANINGS)
    if not isinstance(spec, str) or spec not in LOSSES:
        word = _WORDS.get(str(spec).lower())
        meant = f"; {spec!r} is {word!r} here" if word else ""
        raise InputError(
            f"unknown loss {spec!r}{meant}: use one of {', '.join(LOSSES)} or a callable loss(prediction, target)"
        )
    return LOSSES[spec]


_TWO_MEANINGS = (
    "cross-entropy has two symmetric versions of a model, and so two percents (31 % and 7.6 % on one classifier): "
    "loss='cross_entropy_probabilities' averages the class probabilities over rotations, as test-time augmentation "
    "does; loss='cross_entropy_logits' averages the logits, as a symmetric network of the same kind would. Say which"
)
_WORDS = {"mae": "l1", "l1loss": "l1", "absolute": "l1", "l2": "mse", "rmse": "mse", "mseloss": "mse",
          "squared": "mse", "smooth_l1": "huber", "norm": "l2_norm", "l2norm": "l2_norm", "l2mae": "l2_norm",
          "ce": "cross_entropy_probabilities", "nll": "cross_entropy_probabilities"}  # fmt: skip
# torch's means over all components, which here are the mean of each sample's.
_FUNCTIONS = {F.mse_loss: "mse", F.l1_loss: "l1", F.huber_loss: "huber", F.smooth_l1_loss: "huber",
              F.cross_entropy: "cross_entropy"}  # fmt: skip
_MODULES = {torch.nn.MSELoss: "mse", torch.nn.L1Loss: "l1", torch.nn.HuberLoss: "huber",
            torch.nn.SmoothL1Loss: "huber", torch.nn.CrossEntropyLoss: "cross_entropy"}  # fmt: skip


def _of_torch(spec: Any) -> Any:
    """The name of a loss of torch's own, which would average over the batch; anything else as it is.

    Raises:
        InputError: for one of torch's with settings that the named loss does not have.
    """
    name: str | None
    if isinstance(spec, torch.nn.Module) and type(spec) in _MODULES:
        plain = type(spec)()
        shown = {k: v for k, v in vars(spec).items() if not k.startswith("_") and k != "training"}
        if any(vars(plain).get(k) != v for k, v in shown.items()):
            raise InputError(
                f"{type(spec).__name__} with settings of its own averages over the batch: give a function of one value "
                "a sample, loss=lambda prediction, target: …"
            )
        name = _MODULES[type(spec)]
    else:
        name = _FUNCTIONS.get(spec) if callable(spec) else None
    if name == "cross_entropy":
        raise InputError(_TWO_MEANINGS)
    return name or spec


def invariant_under(loss: Loss, action: Action, group: str) -> bool:
    """Whether loss(g a, g b) = loss(a, b) for this action of this group.

    A componentwise loss is where every element permutes the components, up to signs: scalars, pseudoscalars, and
    whatever the octahedral group permutes.
    """
    if loss.invariant:
        return True
    elements, size = uniform_keyed(group, 0, range(24)), math.prod(action.shape)
    # Of the grids of voxels, which have thousands of components, a few say it all.
    some = torch.arange(0, size, max(1, size // 64), device="cpu")
    each = torch.zeros(len(some), size, dtype=torch.float64, device="cpu").scatter_(1, some[:, None], 1.0)
    each = each.reshape(1, -1, *action.shape).expand(len(elements), -1, *action.shape)
    moved = action.canonical(action.act(elements, each)).abs()
    return bool(torch.minimum(moved, (moved - 1).abs()).max() < 1e-9)


def constant_loss(
    loss: Loss, targets: LabelRows | Sequence[WholeLabels], action: Action, group: str, weights: Array
) -> float:
    """Loss of the best constant equivariant prediction; NaN without labels.

    Args:
        targets: the rows of all labels, or a batch each for a user's loss.
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


def _of_whole(targets: Sequence[WholeLabels], action: Action, group: str, weights: Array) -> float:
    basis = _raw(action, action.invariants(group))
    labels = [whole.rows for whole in targets]
    if all(rows.is_floating_point() for rows in labels):
        seen = torch.cat([(action.canonical(y) @ action.invariants(group).to(y)).flatten(0, 1) for y in labels])
    else:
        seen = torch.tensor([[-1.0], [1.0]], dtype=torch.float64, device="cpu").expand(2, basis.shape[1])
    shares = torch.as_tensor(weights / weights.sum(), device="cpu")

    def mean_loss(theta: Array) -> float:
        constant, values = basis @ torch.as_tensor(theta, device="cpu"), []
        for whole in targets:
            rows = constant.reshape(action.shape).to(whole.rows.device).expand(whole.shape).clone()
            values.append(whole.sample_loss(rows).detach().cpu())
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
