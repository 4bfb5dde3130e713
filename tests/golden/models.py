"""Models and batches of the golden results: every weight and every input a closed formula, no random stream."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# Every number times 1 + shaken x (a sign that alternates): what one rounding of all weights and inputs does.
shaken = 0.0
PHI, ROOT = (math.sqrt(5) - 1) / 2, math.sqrt(2)


def numbers(*shape: int, start: int = 0) -> Tensor:
    """u_k = 2 frac(k phi + k^2 sqrt 2) - 1 for k = start + 1, start + 2, …: evenly in (-1, 1), float64."""
    k = np.arange(start + 1, start + 1 + math.prod(shape), dtype=np.float64)
    values = 2 * np.modf(k * PHI + k * k * ROOT)[0] - 1
    return torch.from_numpy(values * (1 + shaken * np.sign(np.sin(k * k)))).reshape(shape)


def molecules(samples: int = 12, atoms: int = 4, start: int = 0) -> dict[str, Any]:
    """One batch of everything a test declares: positions, vectors, tensors, charges, labels, masks, clusters, ids."""
    real = torch.ones(samples, atoms, dtype=torch.bool)
    real[::3, -1] = False
    pos = 1.3 * numbers(samples, atoms, 3, start=start)
    return {
        "pos": pos,
        "field": numbers(samples, 3, start=start + 1000),
        "cell": 2 * torch.eye(3, dtype=torch.float64) + 0.3 * numbers(samples, 3, 3, start=start + 2000),
        "charge": numbers(samples, atoms, start=start + 3000),
        "middle": 0.5 * numbers(samples, 3, start=start + 4000),
        "forces": 1.2 * pos + 0.3 * numbers(samples, atoms, 3, start=start + 5000),
        "energy": numbers(samples, start=start + 6000),
        "stress": 0.5 * numbers(samples, 6, start=start + 7000),
        "tensor": 0.5 * numbers(samples, 3, 3, start=start + 8000),
        "kind": (torch.arange(samples * atoms).reshape(samples, atoms) * 7 + start) % 4,
        "family": [f"f{i % 5}" for i in range(samples)],
        "id": 10 + 3 * torch.arange(samples),
        "real": real,
    }


def cut(batch: dict[str, Any], size: int, *fields: str) -> list[dict[str, Any]]:
    """The batch in pieces of ``size`` samples, with the fields named; all by default."""
    names = fields or tuple(batch)
    count = len(batch["pos"])
    return [{n: batch[n][i : i + size] for n in names} for i in range(0, count, size)]


class Net(nn.Module):
    """h = tanh(A x + q c + cell, field) of each atom and the mean h of its sample; every output is linear in both.

    It is nowhere near symmetric, but its forces, x plus such an answer, are not far from the labels. ``mask`` keeps
    padded atoms out of the mean.
    """

    def __init__(self, width: int = 5, start: int = 0, scale: float = 0.9, mask: bool = False):
        super().__init__()
        made = iter(range(start + 100, start + 10_000, 97))

        def weight(*shape: int, size: float = scale) -> nn.Parameter:
            return nn.Parameter(size * numbers(*shape, start=next(made)))

        self.inward, self.charged = weight(width, 3), weight(width, size=0.4)
        self.outward, self.shared = weight(3, width, size=0.4), weight(3, width, size=0.2)
        self.energy, self.stress, self.tensor = weight(width), weight(6, width), weight(3, 3, width)
        self.kinds, self.fielded = weight(4, width), weight(width, 3, size=0.3)
        self.masked = mask

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        inner = batch["pos"] @ self.inward.T
        if "charge" in batch:
            inner = inner + batch["charge"][..., None] * self.charged
        for extra in ("field", "cell"):
            if extra in batch:
                inner = inner + (batch[extra].reshape(len(inner), -1, 3).sum(1) @ self.fielded.T)[:, None]
        h = torch.tanh(inner)
        real = batch["real"][..., None].to(h) if self.masked else torch.ones_like(h[..., :1])
        mean = (h * real).sum(1) / real.sum(1)
        return {
            "forces": batch["pos"] + h @ self.outward.T + (mean @ self.shared.T)[:, None],
            "energy": mean @ self.energy,
            "stress": mean @ self.stress.T,
            "tensor": torch.einsum("ijw,nw->nij", self.tensor, mean),
            "kind": h @ self.kinds.T,
        }


class Rows(nn.Module):
    """A head of three rows on features that turn like vectors, F_c = sum_k W_ck V_kc: see :class:`RowHead`."""

    def __init__(self, width: int = 4):
        super().__init__()
        self.weight = nn.Parameter(1 + 0.2 * numbers(3, width, start=300))
        self.scale = nn.Parameter(numbers(width, start=350))

    def head_weight(self) -> Tensor:
        return self.weight

    def head_features(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        values = self._features(batch["pos"])
        sample = torch.arange(len(values)).repeat_interleave(values.shape[1])
        return values.flatten(0, 1), sample

    def _features(self, pos: Tensor) -> Tensor:
        """V = x exp(-s_k |x|^2 / 4) + the sample's mean, (samples, atoms, width, 3)."""
        square = pos.square().sum(-1, keepdim=True) / 4
        own = pos[..., None, :] * torch.exp(-square * self.scale.square())[..., None]
        return own + own.mean(1, keepdim=True) * self.scale[:, None]

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"forces": torch.einsum("ck,nakc->nac", self.weight, self._features(batch["pos"]))}


class Layered(nn.Module):
    """Linear, LayerNorm, tanh, linear head: what the analyses of layers and heads take apart."""

    def __init__(self, width: int = 4, start: int = 0):
        super().__init__()
        self.first, self.norm = nn.Linear(3, width, dtype=torch.float64), nn.LayerNorm(width, dtype=torch.float64)
        self.head = nn.Linear(width, 3, dtype=torch.float64)
        with torch.no_grad():
            for place, (name, p) in enumerate(self.named_parameters()):
                centre = 1.0 if name == "norm.weight" else 0.0
                p.copy_(centre + 0.7 * numbers(*p.shape, start=start + 500 + 61 * place))

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"forces": self.head(torch.tanh(self.norm(self.first(batch["pos"]))))}


class Voxels(nn.Module):
    """v -> v * k in a periodic box, k a 3^3 kernel without symmetry, then tanh."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(0.5 * numbers(1, 1, 3, 3, 3, start=700))

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        values = batch["grid"]
        padded = torch.nn.functional.pad(values[:, None], (1,) * 6, mode="circular")
        return {"grid": torch.tanh(torch.nn.functional.conv3d(padded, self.kernel)[:, 0] + batch.get("noise", 0.0))}


def grids(samples: int = 6, size: int = 4) -> dict[str, Any]:
    return {
        "grid": numbers(samples, size, size, size, start=11_000),
        "label": 0.5 * numbers(samples, size, size, size, start=12_000),
        "noise": 0.1 * numbers(samples, size, size, size, start=13_000),
        "id": torch.arange(samples),
    }
