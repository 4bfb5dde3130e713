"""Networks, batches and the plain loss that all tools of curvature_peers.py differentiate, and the true derivatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from curvature_peers_page import CURVLINOPS, OURS
from curvlinops import GGNLinearOperator, HessianLinearOperator
from hessian_eigenthings import GGNOperator, HessianOperator
from predicted_gain import headline
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import equiscope as eq
from equiscope.analysis.hessian import CurvatureOperator
from equiscope.analysis.parts import Parts
from equiscope.decomposition.orbit import rotated
from equiscope.runs.deal import dealt
from equiscope.runs.trained import open_run

VECTORS = eq.Declaration({"pos": "1o"}, {"forces": eq.Output("1o", target="y")})


class Attention(nn.Module):
    """Softmax attention among the atoms of a sample."""

    def __init__(self, width: int):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x)[:, None].chunk(3, dim=-1)
        return x + F.scaled_dot_product_attention(q, k, v)[:, 0]


class Grouped(nn.Module):
    """GroupNorm over the features of every atom."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.GroupNorm(4, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.flatten(0, -2)).reshape(x.shape)


MIDDLES: dict[str, Callable[[int], nn.Module]] = {
    "MLP": lambda w: nn.Sequential(nn.Linear(w, w), nn.GELU()),
    "LayerNorm": lambda w: nn.LayerNorm(w),
    "RMSNorm": lambda w: nn.RMSNorm(w, eps=1e-5),
    "GroupNorm": Grouped,
    "attention": Attention,
}


class Net(nn.Module):
    """Linear, the layer in question, tanh, linear."""

    def __init__(self, kind: str, width: int):
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(3, width), MIDDLES[kind](width), nn.Linear(width, 3)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"forces": self.last(torch.tanh(self.middle(self.first(batch["pos"]))))}


class Rows(nn.Module):
    """The forces of the real atoms of a batch, (rows, 3)."""

    def __init__(self, net: nn.Module, index: Tensor):
        super().__init__()
        self.net, self.index = net, index

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.net(batch)["forces"].flatten(0, 1).index_select(0, self.index)


class SquaredError(nn.Module):
    """Mean over samples of the mean squared error of their rows."""

    reduction = "mean"

    def __init__(self, weights: Tensor):
        super().__init__()
        self.weights = weights

    def forward(self, rows: Tensor, target: Tensor) -> Tensor:
        return (self.weights * (rows - target).square()).sum()


@dataclass
class Problem:
    """One batch, one model: what all tools differentiate.

    Attributes:
        parts: ours. rows, loss, batch, target: the same for the peers.
    """

    name: str
    parts: Parts
    rows: Rows
    loss: SquaredError
    batch: dict[str, Tensor]
    target: Tensor

    @staticmethod
    def make(name: str, net: nn.Module, batch: Any, declaration: eq.Declaration, rotations: str = "haar") -> Problem:
        parts = Parts(net, [batch], declaration, rotations=rotations, cosets=1)
        fixed = parts._fixed[0]
        turned = [rotated(fixed.batch, one.turns, declaration) for one in fixed.passes]
        field = declaration.outputs["forces"].target
        labels = [torch.einsum("nij,naj->nai", one.turns.to(batch[field]), batch[field]) for one in fixed.passes]
        whole = {k: torch.cat([t[k] for t in turned]) for k in turned[0] if k != field}
        labels = torch.cat(labels)
        mask = whole.get("mask", torch.ones(labels.shape[:2], dtype=torch.bool))
        index = mask.flatten().nonzero()[:, 0]
        share = (1 / (3 * len(mask) * mask.sum(1).double())).to(labels)
        weights = share[:, None].expand(mask.shape).flatten()[index, None]
        target = labels.flatten(0, 1)[index]
        made = Problem(name, parts, Rows(net, index), SquaredError(weights), whole, target)
        apart = abs(float(made.value().detach()) / parts.values["total"] - 1)
        assert apart < 1e-5, f"{name}: the losses differ by {apart:.1e}"
        return made

    def value(self) -> Tensor:
        return self.loss(self.rows(self.batch), self.target)

    @property
    def parameters(self) -> list[nn.Parameter]:
        return list(self.rows.parameters())

    def direction(self, seed: int = 1) -> Tensor:
        made = torch.randn(self.parts.size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return made / made.norm()

    def gradient(self) -> Tensor:
        return self.parts.flat(torch.autograd.grad(self.value(), self.parameters))

    def difference(self, function: Callable[[], Tensor], vector: Tensor, step: float = 1e-4) -> Tensor:
        """Fourth-order central difference of a function of the weights along a vector; float64 models only."""
        own = [p.detach().clone() for p in self.parameters]
        found = {}
        for k in (-2, -1, 1, 2):
            with torch.no_grad():
                for p, start, part in zip(self.parameters, own, self.parts.split_vector(vector), strict=True):
                    p.copy_(start + k * step * part)
            found[k] = function()
        with torch.no_grad():
            for p, start in zip(self.parameters, own, strict=True):
                p.copy_(start)
        return (8 * (found[1] - found[-1]) - (found[2] - found[-2])) / (12 * step)

    def hessian_reference(self, vector: Tensor) -> Tensor:
        return self.difference(self.gradient, vector)

    def gauss_newton_reference(self, vector: Tensor) -> Tensor:
        moved = self.difference(lambda: self.rows(self.batch).detach(), vector)
        slopes = 2 * self.loss.weights * moved
        return self.parts.flat(torch.autograd.grad(self.rows(self.batch), self.parameters, slopes))

    def product(self, tool: str, kind: str) -> Callable[[Tensor], Tensor]:
        """v -> H v or G v of a tool, v in the model's dtype."""
        if tool == OURS:
            operator = CurvatureOperator(self.parts, "total", kind)
            return operator.apply
        operator = self.operator(tool, kind)
        if tool == CURVLINOPS:
            return math_attention(lambda v: operator @ v)
        return math_attention(operator.matvec)

    def operator(self, tool: str, kind: str) -> Any:
        data = [(self.batch, self.target)]
        if tool == CURVLINOPS:
            made = HessianLinearOperator if kind == "hessian" else GGNLinearOperator
            return made(
                self.rows, self.loss, self.parameters, data, check_deterministic=False, num_data=1,
                batch_size_fn=lambda _: 1,
            )  # fmt: skip
        if kind == "hessian":
            return HessianOperator(self.rows, data, lambda model, pair: self.loss(model(pair[0]), pair[1]))
        return GGNOperator(
            self.rows, data, lambda model, pair: model(pair[0]), lambda rows, pair: self.loss(rows, pair[1])
        )


def math_attention(call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def inside(*given: Any) -> Any:
        with sdpa_kernel(SDPBackend.MATH):
            return call(*given)

    return inside


def problems(run: str, dtype: torch.dtype) -> list[Problem]:
    """The networks, in float64 for what is right, in float32 for what is fast."""
    made = []
    for kind in MIDDLES:
        torch.manual_seed(0)
        net = Net(kind, 64)
        with torch.no_grad():
            for p in net.parameters():
                p.add_(0.1 * torch.randn_like(p))
        batch = {"pos": torch.randn(32, 16, 3), "y": torch.randn(32, 16, 3)}
        made.append(Problem.make(kind, net.to(dtype), {k: v.to(dtype) for k, v in batch.items()}, VECTORS))
    opened = open_run(run)
    opened.task.prepare(progress=False)
    opened.model.requires_grad_(True).to(dtype)
    for samples, rotations, name in ((24, "haar", "force field"), (4, "T", "force field, one T coset")):
        probe, frames = headline(opened.task, samples)
        assert probe.forward is None
        (batch,) = dealt(frames, probe.declaration, samples)
        batch = {k: v.to(dtype) if v.is_floating_point() else v for k, v in batch.items()}
        made.append(Problem.make(name, opened.model, batch, probe.declaration, rotations))
    return made
