"""The flow's baseline: the best denoiser linear in x_t, of chains with the second moments of the training set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

#: Bins of frequency in which the variances of the modes are averaged.
BINS = 48


class GaussianChain(nn.Module):
    """Velocity of a flow between noise and a Gaussian chain; linear in x_t and exactly rotation equivariant.

    A chain of N residues is taken as Gaussian, its modes of motion independent with a variance λ that depends on their
    frequency alone: u_k(i) = √(2/N) cos(π k (i + ½) / N), k = 1 … N − 1, those of a free chain, λ_k = λ(k / N). The
    conditional mean of v = x_1 − x_0 given x_t = (1 − t) x_0 + t x_1 is then

        ⟨u_k, v⟩ = (t λ_k − (1 − t)) / (t² λ_k + (1 − t)²) ⟨u_k, x_t⟩.

    For a random walk of unit steps λ(q) = 1 / (4 sin²(π q / 2)), exactly.

    Args:
        frequencies, variances: (K,) where λ is known, ascending, nm² a coordinate; log-linear between them.
    """

    frequencies: Tensor
    variances: Tensor

    def __init__(self, frequencies: Tensor, variances: Tensor) -> None:
        super().__init__()
        self.register_buffer("frequencies", frequencies.double())
        self.register_buffer("variances", variances.double())
        self._modes: dict[int, tuple[Tensor, Tensor]] = {}

    @classmethod
    def fit(cls, chains: Sequence[Tensor]) -> GaussianChain:
        """The mean squares of the modes of ``chains``, each (N, 3) in nm, in bins of frequency."""
        edges = np.geomspace(1 / max(map(len, chains)), 1, BINS + 1)
        count, places, squares = (np.zeros(BINS) for _ in range(3))
        for chain in chains:
            modes, frequency = cosines(len(chain)), np.arange(1, len(chain)) / len(chain)
            found = (modes @ chain.double()).square().mean(1).numpy()
            inside = np.clip(np.searchsorted(edges, frequency, side="right") - 1, 0, BINS - 1)
            for total, values in ((count, None), (places, np.log(frequency)), (squares, found)):
                total += np.bincount(inside, values, BINS)
        known = count > 0
        middle, mean = (torch.from_numpy(one[known] / count[known]) for one in (places, squares))
        return cls(middle.exp(), mean)

    def modes(self, residues: int) -> tuple[Tensor, Tensor]:
        """Variances λ_k (N − 1,) and modes u_k (N − 1, N) of a chain of N residues."""
        if residues not in self._modes:
            wanted = np.log(np.arange(1, residues) / residues)
            known = np.log(self.frequencies.cpu().numpy())
            values = np.exp(np.interp(wanted, known, np.log(self.variances.cpu().numpy().clip(1e-300))))
            self._modes[residues] = torch.from_numpy(values), cosines(residues)
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
            answer = vectors.T @ (gain[..., None] * (vectors @ points))
            filled = out[rows]
            filled[mask[rows]] = answer.to(x_t.dtype).flatten(0, 1)
            out[rows] = filled
        return {"velocity": out}


def cosines(residues: int) -> Tensor:
    """The modes of a free chain, (N − 1, N) float64 with orthonormal rows that sum to zero."""
    place, number = torch.arange(residues, dtype=torch.float64), torch.arange(1, residues, dtype=torch.float64)
    return (2 / residues) ** 0.5 * torch.cos(torch.pi * number[:, None] * (place + 0.5) / residues)
