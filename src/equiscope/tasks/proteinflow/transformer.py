"""The ``proteina`` model: a transformer that is fed raw coordinates and knows nothing of rotations.

After Proteina (Geffner et al., ICLR 2025; arXiv 2503.00710): coordinates enter through Linear(3 → width), which
breaks the symmetry; so do the self-conditioning coordinates. Distances enter the attention as bias.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from equiscope.tasks.guards import at_least
from equiscope.tasks.proteinflow.features import PairBias, sinusoids
from equiscope.tasks.proteinflow.trunk import Trunk, TrunkConfig


def relative_neighbours(points: Tensor, mask: Tensor, count: int) -> Tensor:
    """x_{i+k} − x_i for 1 ≤ |k| ≤ count, (B, N, 3) → (B, N, 6 · count); zero where there is no residue i + k."""
    found = []
    for k in range(1, count + 1):
        edges = points[:, k:] - points[:, :-k]
        edges = torch.where(mask[:, k:, None], edges, torch.zeros_like(edges))
        blank = points.new_zeros(len(points), points.shape[1] - edges.shape[1], 3)
        found += [torch.cat([edges, blank], dim=1), torch.cat([blank, -edges], dim=1)]
    return torch.cat(found, dim=-1)


class Proteina(nn.Module):
    """Velocity field of raw coordinates.

    v = Linear(LayerNorm(trunk(Linear(x_t) + Linear(x_sc) + Linear(index), bias(|x_i − x_j|, i − j), t))).
    Batch fields: ``x_t`` and ``x_sc`` (B, N, 3) nm, ``t`` (B,), ``residue`` (B, N) int, ``mask`` (B, N) bool.
    Returns ``{"velocity": (B, N, 3)}`` in nm, zero in padding, and where the sizes ask for one, ``distogram`` (B, N, N,
    bins), the logits of :func:`equiscope.tasks.proteinflow.flow.distogram_loss`.

    Args:
        sizes: width, layers and so on.
        smooth_bins: interpolate between distance bins; the original has hard bins.
        neighbours: on each side of a residue, so many sequence neighbours' x_t relative to its own are read as
            raw coordinates too. The original has none (0) and must learn to form these differences by
            attention, which takes it longer than a short run lasts; the symmetry is broken in the same way.

    Raises:
        InputError: a negative number of neighbours.
    """

    def __init__(self, sizes: TrunkConfig, smooth_bins: bool = False, neighbours: int = 0) -> None:
        super().__init__()
        at_least(0, neighbours=neighbours)
        self.sizes, self.neighbours = sizes, neighbours
        self.read_local = nn.Linear(6 * neighbours, sizes.width, bias=False) if neighbours else None
        self.read_noisy = nn.Linear(3, sizes.width, bias=False)
        self.read_guess = nn.Linear(3, sizes.width, bias=False)
        self.read_index = nn.Linear(sizes.width, sizes.width)
        self.pair = PairBias(sizes.pair, sizes.layers, sizes.heads, smooth_bins)
        self.trunk = Trunk(sizes)
        self.head = nn.Sequential(nn.LayerNorm(sizes.width), nn.Linear(sizes.width, 3, bias=False))
        self.distogram = (
            nn.Sequential(nn.LayerNorm(sizes.pair), nn.Linear(sizes.pair, sizes.distogram)) if sizes.distogram else None
        )

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        x_t, x_sc, residue, mask = batch["x_t"], batch["x_sc"], batch["residue"], batch["mask"]
        index = sinusoids(residue, self.sizes.width, longest=2000.0).to(x_t.dtype)
        tokens = self.read_noisy(x_t) + self.read_guess(x_sc) + self.read_index(index)
        if self.read_local is not None:
            tokens = tokens + self.read_local(relative_neighbours(x_t, mask, self.neighbours))
        pair = self.pair.features(x_t, x_sc, residue)
        tokens, pair, _ = self.trunk(tokens, pair, self.pair, batch["t"].to(x_t.dtype), mask)
        velocity = self.head(tokens)
        answer = {"velocity": torch.where(mask[..., None], velocity, torch.zeros_like(velocity))}
        return answer if self.distogram is None else {**answer, "distogram": self.distogram(pair)}
