"""The ``proteina`` model: a transformer that is fed raw coordinates and knows nothing of rotations.

After Proteina (Geffner et al., ICLR 2025; arXiv 2503.00710): coordinates enter through Linear(3 → width), which
breaks the symmetry; so do the self-conditioning coordinates. Distances enter the attention as bias.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
    """

    def __init__(self, sizes: TrunkConfig) -> None:
        super().__init__()
        self.sizes = sizes
        self.read_local = nn.Linear(6 * sizes.neighbours, sizes.width, bias=False) if sizes.neighbours else None
        self.read_noisy = nn.Linear(3, sizes.width, bias=False)
        self.read_guess = nn.Linear(3, sizes.width, bias=False)
        self.read_index = nn.Linear(sizes.width, sizes.width)
        self.pair = PairBias(sizes.pair, sizes.layers, sizes.heads, sizes.smooth_bins)
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
            tokens = tokens + self.read_local(relative_neighbours(x_t, mask, self.sizes.neighbours))
        pair = self.pair.features(x_t, x_sc, residue)
        tokens, pair, _ = self.trunk(tokens, pair, self.pair, batch["t"].to(x_t.dtype), mask)
        velocity = self.head(tokens)
        answer = {"velocity": torch.where(mask[..., None], velocity, torch.zeros_like(velocity))}
        return answer if self.distogram is None else {**answer, "distogram": self.distogram(pair)}


STRIDES = (1, 2, 3)


def handedness(points: Tensor, mask: Tensor, stride: int) -> Tensor:
    """Signed volume of four residues i, i+s, i+2s, i+3s over the product of the edge lengths, (B, N) in [−1, 1].

    The triple product a·(b×c) / (|a||b||c|) of successive differences is invariant under rotations and changes
    sign in a mirror. Distances alone cannot tell a right-handed helix from a left-handed one, and a model
    without handedness would make both. Zero where the four residues reach beyond the chain.
    """
    edges = points[:, stride:] - points[:, :-stride]
    first, second, third = edges[:, : -2 * stride], edges[:, stride:-stride], edges[:, 2 * stride :]
    volume = (first * torch.linalg.cross(second, third)).sum(-1)
    sides = (first.square().sum(-1) * second.square().sum(-1) * third.square().sum(-1)).clamp_min(1e-18).sqrt()
    inside = mask[:, 3 * stride :]
    value = torch.where(inside, volume / sides, torch.zeros_like(volume))
    return F.pad(value, (0, points.shape[1] - value.shape[1]))


class ProteinaEquivariant(nn.Module):
    """Velocity as learned weights times coordinate differences, the weights from invariant features only.

        v_i = Σ_j w_ij (x_j − x_i) + Σ_j u_ij (s_j − x_i),      x = x_t,  s = x_sc

    w_ij = Σ_h c_ih softmax_j(q_ih · k_jh + b_ijh) with signed coefficients c from residue i, and u likewise; the
    second sum is left out (exactly) where s is zero throughout. Tokens see the residue index, the radius
    |x_i|, and the handedness of the trace; pairs see distances and sequence separation. Every feature is
    invariant under rotations and none under reflections-only tricks: the model is SO(3)-equivariant, not
    O(3)-equivariant, as proteins are handed. Fields and units are those of ``Proteina``.
    """

    def __init__(self, sizes: TrunkConfig) -> None:
        super().__init__()
        self.sizes = sizes
        self.read_index = nn.Linear(sizes.width, sizes.width)
        self.read_shape = nn.Linear(2 * len(STRIDES) + 2, sizes.width, bias=False)
        # One set of biases more than the trunk has layers: the last one is for the output weights.
        self.pair = PairBias(sizes.pair, sizes.layers + 2, sizes.heads, sizes.smooth_bins)
        self.trunk = Trunk(sizes)
        self.norm = nn.LayerNorm(sizes.width)
        self.key = nn.Linear(sizes.width, 4 * sizes.width, bias=False)
        self.coefficient = nn.Linear(sizes.width, 2 * sizes.heads)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        x_t, x_sc, residue, mask = batch["x_t"], batch["x_sc"], batch["residue"], batch["mask"]
        index = sinusoids(residue, self.sizes.width, longest=2000.0).to(x_t.dtype)
        tokens = self.read_index(index) + self.read_shape(_shape(x_t, x_sc, mask))
        pair = self.pair.features(x_t, x_sc, residue)
        tokens, _, bias = self.trunk(tokens, pair, self.pair, batch["t"].to(x_t.dtype), mask)
        tokens = self.norm(tokens)
        noisy, guessed = self._weights(tokens, bias[-2:], mask)
        informed = x_sc.abs().amax((1, 2), keepdim=True) > 0
        guessed = torch.where(informed, guessed, torch.zeros_like(guessed))
        total = (noisy + guessed).sum(-1, keepdim=True)
        velocity = noisy @ x_t + guessed @ x_sc - total * x_t
        return {"velocity": torch.where(mask[..., None], velocity, torch.zeros_like(velocity))}

    def _weights(self, tokens: Tensor, bias: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        heads = self.sizes.heads
        q, k = self.key(tokens).unflatten(-1, (2, 2, heads, -1)).permute(3, 2, 0, 4, 1, 5)
        logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias
        shares = torch.softmax(logits.masked_fill(~mask[:, None, None, :], float("-inf")), dim=-1)
        signed = self.coefficient(tokens).unflatten(-1, (2, heads)).permute(2, 0, 3, 1)[..., None]
        noisy, guessed = (shares * signed).sum(2)
        return noisy, guessed


def _shape(x_t: Tensor, x_sc: Tensor, mask: Tensor) -> Tensor:
    """Invariant features of each residue, (B, N, 2 · strides + 2): handedness and radii of both traces."""
    features = [handedness(points, mask, stride) for points in (x_t, x_sc) for stride in STRIDES]
    features += [points.square().sum(-1).clamp_min(1e-12).sqrt() for points in (x_t, x_sc)]
    return torch.stack(features, dim=-1)
