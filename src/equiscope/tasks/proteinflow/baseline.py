"""The flow's baseline: the best denoiser linear in x_t, of chains with the second moments of the training set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class GaussianChain(nn.Module):
    """Velocity of a flow between noise and a Gaussian chain; linear in x_t and exactly rotation equivariant.

    A chain of N residues is taken as Gaussian with covariance C = −½ P D P for each coordinate, D_ij = d(|i − j|) the
    mean squared distance along a coordinate between residues so far apart in the training chains, P the projection
    onto centred chains. With C u = λ u the conditional mean of v = x_1 − x_0 given x_t = (1 − t) x_0 + t x_1 is

        ⟨u, v⟩ = (t λ − (1 − t)) / (t² λ + (1 − t)²) ⟨u, x_t⟩.

    Args:
        squares: (L,) d(s) in nm², of separation s = 0 … L − 1; the last one stands for all beyond.
    """

    def __init__(self, squares: Tensor) -> None:
        super().__init__()
        self.register_buffer("squares", squares.double())
        self._modes: dict[int, tuple[Tensor, Tensor]] = {}

    @classmethod
    def fit(cls, chains: Sequence[Tensor]) -> GaussianChain:
        """The mean squares of ``chains``, each (N, 3) in nm."""
        longest = max(map(len, chains))
        total, count = torch.zeros(longest, dtype=torch.float64), torch.zeros(longest, dtype=torch.float64)
        for chain in chains:
            points = chain.double()
            for apart in range(1, len(points)):
                total[apart] += (points[apart:] - points[:-apart]).square().sum() / 3
                count[apart] += len(points) - apart
        return cls(total / count.clamp_min(1))

    def modes(self, residues: int) -> tuple[Tensor, Tensor]:
        """Eigenvalues λ (N,) and eigenvectors (N, N) of the covariance of a chain of N residues."""
        if residues not in self._modes:
            place = torch.arange(residues, device=self.squares.device)
            apart = (place[:, None] - place).abs().clamp_max(len(self.squares) - 1)
            centred = torch.eye(residues, dtype=torch.float64, device=self.squares.device) - 1 / residues
            values, vectors = torch.linalg.eigh(-0.5 * centred @ self.squares[apart] @ centred)
            self._modes[residues] = values.clamp_min(0), vectors
        return self._modes[residues]

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``velocity`` (B, N, 3) in the dtype of ``x_t``, zero in the padding."""
        x_t, mask, out = batch["x_t"], batch["mask"], torch.zeros_like(batch["x_t"])
        lengths = mask.sum(1)
        for length in torch.unique(lengths).tolist():
            rows = (lengths == length).nonzero()[:, 0]
            points = x_t[rows][mask[rows]].reshape(len(rows), length, 3).double()
            values, vectors = (one.to(x_t.device) for one in self.modes(length))
            time = batch["t"][rows].double()[:, None]
            gain = (time * values - (1 - time)) / (time**2 * values + (1 - time) ** 2)
            answer = vectors @ (gain[..., None] * (vectors.T @ points))
            filled = out[rows]
            filled[mask[rows]] = answer.to(x_t.dtype).flatten(0, 1)
            out[rows] = filled
        return {"velocity": out}
