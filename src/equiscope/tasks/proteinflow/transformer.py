"""The ``proteina`` model: a transformer that is fed raw coordinates and knows nothing of rotations.

After Proteina (Geffner et al., ICLR 2025; arXiv 2503.00710): coordinates enter through Linear(3 → width), which
breaks the symmetry; so do the self-conditioning coordinates. Distances enter the attention as bias.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from equiscope.tasks.proteinflow.features import PairBias, sinusoids
from equiscope.tasks.proteinflow.trunk import Trunk, TrunkConfig


class Proteina(nn.Module):
    """Velocity field of raw coordinates.

    v = Linear(LayerNorm(trunk(Linear(x_t) + Linear(x_sc) + Linear(index), bias(|x_i − x_j|, i − j), t))).
    Batch fields: ``x_t`` and ``x_sc`` (B, N, 3) nm, ``t`` (B,), ``residue`` (B, N) int, ``mask`` (B, N) bool.
    Returns ``{"velocity": (B, N, 3)}`` in nm, zero in padding.

    Args:
        sizes: width, layers and so on.
        smooth_bins: interpolate between distance bins; the original has hard bins.
    """

    def __init__(self, sizes: TrunkConfig, smooth_bins: bool = False) -> None:
        super().__init__()
        self.sizes = sizes
        self.read_noisy = nn.Linear(3, sizes.width, bias=False)
        self.read_guess = nn.Linear(3, sizes.width, bias=False)
        self.read_index = nn.Linear(sizes.width, sizes.width)
        self.pair = PairBias(sizes.pair, sizes.layers, sizes.heads, smooth_bins)
        self.trunk = Trunk(sizes)
        self.head = nn.Sequential(nn.LayerNorm(sizes.width), nn.Linear(sizes.width, 3, bias=False))

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        x_t, x_sc, residue, mask = batch["x_t"], batch["x_sc"], batch["residue"], batch["mask"]
        index = sinusoids(residue, self.sizes.width, longest=2000.0).to(x_t.dtype)
        tokens = self.read_noisy(x_t) + self.read_guess(x_sc) + self.read_index(index)
        tokens = self.trunk(tokens, self.pair(x_t, x_sc, residue), batch["t"].to(x_t.dtype), mask)
        velocity = self.head(tokens)
        return {"velocity": torch.where(mask[..., None], velocity, torch.zeros_like(velocity))}
