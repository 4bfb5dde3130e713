"""What gradients and curvature at a checkpoint say of training from there.

How much of the equivariance error is the noise of the optimiser, and how the rest begins to fall: where the gradients
lie in the spectrum, and the course of the error under plain descent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from equiscope.analysis.activations import listening
from equiscope.analysis.autograd import Graphs, Predictions, saved_bytes
from equiscope.analysis.gradients import adam_metric
from equiscope.analysis.krylov import Array, Floor, Recursion, lanczos, noise_floor, signs
from equiscope.analysis.pairs import student
from equiscope.analysis.parts import HALVES, Parts
from equiscope.decomposition.pool import added
from equiscope.errors import InputError

#: Mini-batches that a covariance of gradients is known from, at least.
LEAST = 8
ADAMS = ("adam", "adamw")

Loss = Callable[[nn.Module, Any], Tensor]
_ONLY = ""


class Objective:
    """The training loss ``loss(model, batch)`` as a function of the parameters that ``parts`` differentiates by.

    Vectors are flat and float64, as those of :class:`Parts`. Call it inside ``parts.steady()``.

    Args:
        loss: the scalar loss; convex in what the model answers last, which is one tensor or a dict of tensors.
        curved: batches that the Gauss-Newton matrix is the mean of.
    """

    def __init__(self, parts: Parts, loss: Loss, curved: Sequence[Any]):
        self.parts, self._loss, self._curved = parts, loss, list(curved)
        self._graphs = Graphs(parts.own, "auto")

    def gradient(self, batch: Any) -> Tensor:
        """The gradient of the loss of one batch."""
        value = self._loss(self.parts.model, batch)
        return self.parts.flat(torch.autograd.grad(value, self.parts.own, allow_unused=True))

    def product(self, vector: Tensor) -> Tensor:
        """E J^T l'' J v over the batches: the curvature of the loss in the answer, carried to the parameters."""
        v = self.parts.split_vector(vector)
        if self._graphs.memory == "auto":
            with saved_bytes(self.parts.own) as saved:
                self.gradient(self._curved[0])
            self._graphs.choose(2 * sum(saved.values()), 2 * sum(saved.values()) * len(self._curved))
            self._graphs.memory = self._graphs.memory.replace("pass", "batch")
        images = (
            self.parts.flat(self._graphs.product(index, "gauss_newton", v, *self._pieces(batch)))
            for index, batch in enumerate(self._curved)
        )
        return added(images) / len(self._curved)

    def release(self) -> None:
        """Drop the graphs kept between products."""
        self._graphs.release()

    def scale(self, output: str) -> float:
        """s with training loss = s x mean squared error a component + what the ``output`` does not enter; else NaN.

        Of a squared error (l(p + c) - 2 l(p) + l(p - c)) / 2 c^2 is the same for c = 1 and c = 2, added to every
        component.
        """
        run, loss = self._pieces(self._curved[0])
        (rows,) = run()
        name = output if output in rows else _ONLY
        if name not in rows:
            return math.nan
        rows = {key: row.detach() for key, row in rows.items()}
        moved = [float(loss([{**rows, name: rows[name] + shift}])) for shift in (-2.0, -1.0, 0.0, 1.0, 2.0)]
        near, far = (moved[3] - 2 * moved[2] + moved[1]) / 2, (moved[4] - 2 * moved[2] + moved[0]) / 8
        return near if near > 0 and math.isclose(near, far, rel_tol=1e-2) else math.nan

    def _pieces(self, batch: Any) -> tuple[Callable[[], Predictions], Callable[[Predictions], Tensor]]:
        """The model's answer in training, and the loss as a function of it."""

        def run() -> Predictions:
            answers: list[Any] = []
            with listening({"": self.parts.model}, lambda _, answer: answers.append(answer)):
                self._loss(self.parts.model, batch)
            answer = answers[-1] if isinstance(answers[-1], dict) else {_ONLY: answers[-1]}
            return [{n: a for n, a in answer.items() if isinstance(a, Tensor) and a.requires_grad}]

        def loss(rows: Predictions) -> Tensor:
            return self._loss(_Told(rows[0]), batch)

        return run, loss


class _Told(nn.Module):
    """A model that answers what it was told."""

    def __init__(self, rows: dict[str, Tensor]):
        super().__init__()
        self._rows = rows

    def forward(self, *batch: Any, **named: Any) -> Any:
        return self._rows.get(_ONLY, self._rows)


@dataclass(frozen=True)
class Stepper:
    """The optimiser at a checkpoint.

    Attributes:
        name: adam, adamw or sgd. rate: the learning rate of the next step. momentum: beta_1 of Adam, that of SGD.
        weight_decay: as torch has it. clip: largest norm of the gradient, 0 for none. average: decay of the averaged
            weights, 0 for none. state: its ``state_dict``.
    """

    name: str
    rate: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip: float = 0.0
    average: float = 0.0
    state: Mapping[str, Any] | None = None

    @property
    def recursion(self) -> Recursion:
        """Its heavy ball in the coordinates of its preconditioner."""
        decoupled = self.rate * self.weight_decay if self.name == "adamw" else 0.0
        rate = self.rate if self.name in ADAMS else self.rate / (1 - self.momentum)
        return Recursion(rate, self.momentum, decoupled, self.average)

    def metric(self, model: nn.Module, parts: Parts) -> Tensor:
        """Diagonal of P: 1 / (sqrt(v) + eps) of Adam, bias corrected, 1 of SGD."""
        if self.name in ADAMS:
            return adam_metric(model, parts, self.state or {})
        return torch.ones(parts.size, dtype=torch.float64, device=parts.own[0].device)


def noise_share(
    parts: Parts, objective: Objective, minibatches: Sequence[Any], stepper: Stepper, *, steps: int, vectors: int,
    depth: int, seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """The excess of both parts of the loss that gradient noise sustains, see :func:`krylov.noise_floor`.

    The noise is that of the mini-batches: z = P^1/2 sum_b s_b (g_b - mean g) / sqrt(N - 1) with random signs s_b has
    its covariance, and each of the ``vectors`` draws of signs gives an estimate. Clipping scales each gradient, and
    the curvature by the mean of those factors. A weight decay that is added to the gradient is added to A.

    Args:
        parts: the model at the checkpoint, and the parts of its loss.
        objective: what training lowers, on the same parameters.
        minibatches: batches as training draws them, 8 or more, whose gradients give the noise.
        stepper: the optimiser and its state.
        steps: that the noise is followed for, as for :func:`krylov.noise_floor`.
        vectors: draws of signs, two or more; their spread gives the intervals.
        depth: products of the curvature for each vector.
        seed: of the signs.

    Returns:
        ``equivariance``, ``twirled``: excess of the ``weights`` and of their average (``averaged``, None without one),
        each ``value`` with ``interval``, Student's over the vectors; ``of_error``: the share of the equivariance error
        that is noise; ``kappa``: every Ritz value times eta, ``share`` the noise's weight at it; ``kappa_max``,
        ``edge``; ``clipped``: mean factor; ``noise`` = tr(PC), ``pull`` = |P^1/2 mean g|^2, unbiased. ``refused``: why
        there are no excesses, else empty. Plain types.

    Raises:
        InputError: too few mini-batches, fewer than two vectors, or a state that is not this model's.
    """
    if len(minibatches) < LEAST:
        raise InputError(
            f"the noise of the gradient is known from {LEAST} mini-batches or more, got {len(minibatches)}: raise "
            "minibatches"
        )
    if vectors < 2:
        raise InputError(f"the spread over noise vectors needs two of them, got vectors={vectors}")
    root = stepper.metric(parts.model, parts).sqrt()
    with parts.steady():
        drawn = _drawn(objective, minibatches, root, stepper.clip, vectors, seed)
        shrink = stepper.weight_decay if stepper.name != "adamw" else 0.0

        def product(v: Tensor) -> Tensor:
            return drawn.clipped * root * objective.product(root * v) + shrink * root.square() * v

        def forms(basis: Tensor) -> dict[str, Tensor]:
            return parts.form(HALVES, root * basis)

        floors = noise_floor(drawn.vectors, product, forms, stepper.recursion, steps=steps, depth=depth)
    parts.release()
    objective.release()
    return {
        **_told(floors, parts, stepper),
        "clipped": drawn.clipped,
        "noise": drawn.noise,
        "pull": drawn.pull,
        "minibatches": len(minibatches),
    }


@dataclass(frozen=True)
class _Drawn:
    """Noise vectors P^1/2 xi, tr(PC), the unbiased |P^1/2 mean g|^2, and the mean factor of clipping."""

    vectors: list[Tensor]
    noise: float
    pull: float
    clipped: float


def _drawn(
    objective: Objective, minibatches: Sequence[Any], root: Tensor, clip: float, vectors: int, seed: int
) -> _Drawn:
    """One mini-batch at a time: nothing is held but sums, whatever the number of them."""
    count = len(minibatches)
    drawn = signs(torch.Generator().manual_seed(seed), vectors, count).to(root)
    sums, mean, square, clipped = root.new_zeros(vectors, len(root)), torch.zeros_like(root), 0.0, 0.0
    for place, batch in enumerate(minibatches):
        pull = objective.gradient(batch)
        factor = min(1.0, clip / float(pull.norm())) if clip > 0 else 1.0
        pull = factor * root * pull
        sums += drawn[:, place, None] * pull
        mean += pull / count
        square += float(pull.square().sum())
        clipped += factor / count
    sums -= drawn.sum(1, keepdim=True) * mean
    noise = (square - count * float(mean.square().sum())) / (count - 1)
    return _Drawn(list(sums / math.sqrt(count - 1)), noise, float(mean.square().sum()) - noise / count, clipped)


def _told(floors: Sequence[Floor], parts: Parts, stepper: Stepper) -> dict[str, Any]:
    edge, most = stepper.recursion.edge, max(float(one.kappa[-1]) for one in floors)
    found: dict[str, Any] = {
        "kappa_max": most,
        "edge": edge,
        "refused": "",
        "kappa": np.concatenate([one.kappa for one in floors]).tolist(),
        "share": np.concatenate([one.share / len(floors) for one in floors]).tolist(),
    }
    if most >= edge:
        found["refused"] = (
            f"the largest curvature, κ = {most:.3g}, is at or over the edge of stability {edge:.3g}: there is no "
            "stationary state to speak of"
        )
        return found
    for part in ("equivariance", "twirled"):
        weights, averaged = ([getattr(one, which)[part] for one in floors] for which in ("weights", "averaged"))
        found[part] = {"weights": student(weights), "averaged": student(averaged) if stepper.average > 0 else None}
    error = parts.values["equivariance"]
    one = found["equivariance"]["weights"]
    found["of_error"] = {"value": one["value"] / error, "interval": [end / error for end in one["interval"]]}
    return found


def gradient_spectra(parts: Parts, products: int = 5) -> dict[str, Any]:
    """Spectral measures of the Gauss-Newton matrix of the total loss, seen from the gradient of each part.

    Returns:
        part -> ``nodes`` and ``weights`` (sum 1) of a Lanczos run from its gradient g, ``square`` = |g|^2, ``mean`` =
        g^T H g / g^T g; a part whose gradient vanishes is left out. Plain types.
    """
    slopes = parts.gradient(HALVES)
    found = {}
    with parts.steady():
        for part, slope in slopes.items():
            if not bool(slope.any()):
                continue
            run = lanczos(lambda v: parts.product("total", v, "gauss_newton"), slope, products)
            found[part] = {"nodes": run.nodes.tolist(), "weights": run.weights.tolist(),
                           "square": float(slope @ slope), "mean": float(run.nodes @ run.weights)}  # fmt: skip
    parts.release()
    return found


def predicted_decay(nodes: Array, weights: Array, square: float, error: float, rate: float, steps: Array) -> Array:
    """L_E after each number of plain gradient steps, on a quadratic whose symmetry does not couple to the rest.

        L_E(n) = L_E(0) - sum_i c_i^2 (1 - (1 - eta lambda_i)^2n) / (2 lambda_i),    sum_i c_i^2 = |g_E|^2

    with nodes lambda_i and weights c_i^2 / |g_E|^2 of a Lanczos run from g_E; (1 - exp(-2 eta lambda n)) / 2 lambda for
    small eta. No label enters but through the nodes. A mode with eta lambda > 2 grows, as it does in descent.

    Args:
        nodes, weights: (k,) eigenvalues and weights, sum 1, as of :func:`gradient_spectra`.
        square: |g_E|^2.
        error: L_E(0), the equivariance error now.
        rate: eta. steps: (n,) numbers of steps.
    """
    kept = np.maximum(np.asarray(nodes), 0.0)[None]
    passed = (1 - rate * kept) ** (2 * np.asarray(steps, dtype=float)[:, None])
    flat = rate * np.asarray(steps, dtype=float)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        gone = np.where(kept > 0, (1 - passed) / (2 * kept), flat)
    found: Array = error - square * (gone * np.asarray(weights)[None]).sum(1)
    return found
