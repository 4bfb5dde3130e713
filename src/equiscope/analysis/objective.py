"""The loss that training lowers, on mini-batches: their gradients, and Gauss-Newton products of their mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from equiscope.analysis.autograd import Graphs, Predictions, saved_bytes
from equiscope.analysis.parts import Parts
from equiscope.decomposition.pool import added

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
        self._own = list(parts.parameters.values())
        self._graphs = Graphs(self._own, "auto")

    def gradient(self, batch: Any) -> Tensor:
        """The gradient of the loss of one batch."""
        value = self._loss(self.parts.model, batch)
        return self.parts.flat(torch.autograd.grad(value, self._own, allow_unused=True))

    def product(self, vector: Tensor) -> Tensor:
        """E J^T l'' J v over the batches: the curvature of the loss in the answer, carried to the parameters."""
        v = self.parts.split_vector(vector)
        if self._graphs.memory == "auto":
            with saved_bytes(self._own) as saved:
                self.gradient(self._curved[0])
            self._graphs.choose(2 * sum(saved.values()), 2 * sum(saved.values()) * len(self._curved))
            self._graphs.memory = self._graphs.memory.replace("pass", "batch")
        images = (
            self.parts.flat(self._graphs.product(index, "gauss_newton", v, *self._pieces(batch)))
            for index, batch in enumerate(self._curved)
        )
        return added(images) / len(self._curved)

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
            heard = _Heard(self.parts.model)
            self._loss(heard, batch)
            answer = heard.answer if isinstance(heard.answer, dict) else {_ONLY: heard.answer}
            return [{n: a for n, a in answer.items() if isinstance(a, Tensor) and a.requires_grad}]

        def loss(rows: Predictions) -> Tensor:
            return self._loss(_Told(rows[0]), batch)

        return run, loss


class _Heard(nn.Module):
    """The model, whose last answer is kept."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.answer: Any = None

    def forward(self, *batch: Any, **named: Any) -> Any:
        self.answer = self.model(*batch, **named)
        return self.answer


class _Told(nn.Module):
    """A model that answers what it was told."""

    def __init__(self, rows: dict[str, Tensor]):
        super().__init__()
        self._rows = rows

    def forward(self, *batch: Any, **named: Any) -> Any:
        return self._rows.get(_ONLY, self._rows)
