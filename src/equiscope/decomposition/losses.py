"""Convex losses of one sample, and whether they are rotation invariant and split exactly.

Every loss is a function of the rows of a sample in canonical coordinates; a sample's loss is the mean over its
real components (squared error, L1, Huber) or rows (vector norm, cross-entropy).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from equiscope.errors import InputError
from equiscope.symmetry.actions import Action
from equiscope.symmetry.rotations import uniform_keyed


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
