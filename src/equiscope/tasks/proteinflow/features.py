"""What both protein models are told: flow time, residue index, and invariant features of residue pairs."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NEAREST, FARTHEST = 0.1, 3.0  # nm, between the first and the last edge of the distance bins
LARGEST_SEPARATION = 63


def sinusoids(values: Tensor, width: int, longest: float) -> Tensor:
    """cos and sin of ``values`` at width/2 geometric wavelengths from 2π to 2π · longest: (…) → (…, width)."""
    rates = torch.exp(-math.log(longest) * torch.arange(width // 2, device=values.device) / (width // 2 - 1))
    angles = values[..., None].to(torch.float32) * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def distances(points: Tensor) -> Tensor:
    """Distances of all pairs, (B, N, 3) → (B, N, N) in nm, differentiable at zero."""
    difference = points[:, :, None] - points[:, None, :]
    return difference.square().sum(-1).clamp_min(1e-12).sqrt()


class DistanceTable(nn.Module):
    """A learned vector for each distance bin: (…) nm → (…, width).

    ``count`` bins divide 0.1 to 3 nm, the last ones on both sides are open. ``smooth`` interpolates linearly
    between the vectors at neighbouring bin centres, so that a rounding error of the distance stays one: with
    hard bins it can flip a bin, which shows as numerical noise in an otherwise invariant model.
    """

    def __init__(self, count: int, width: int, smooth: bool) -> None:
        super().__init__()
        self.count, self.smooth = count, smooth
        self.table = nn.Parameter(torch.randn(count, width) / math.sqrt(3))

    def forward(self, distance: Tensor) -> Tensor:
        position = (distance - NEAREST) * ((self.count - 1) / (FARTHEST - NEAREST))
        if not self.smooth:
            return self.table[position.round().clamp(0, self.count - 1).long()]
        position = position.clamp(0, self.count - 1)
        below = position.detach().floor().clamp_max(self.count - 2)
        part = (position - below)[..., None]
        index = below.long()
        slope = self.table[1:] - self.table[:-1]
        return self.table[index] + part * slope[index]


class PairBias(nn.Module):
    """Attention bias of every layer and head from invariant pair features: (layers, B, heads, N, N).

    bias = Linear(LayerNorm(a[|x_t,i − x_t,j|] + b[|x_sc,i − x_sc,j|] + c[i − j])) with learned tables a (64
    bins), b (128 bins) and c (sequence separation cut at ±63). One linear map serves all layers at once, which
    is the same as one per layer.
    """

    def __init__(self, width: int, layers: int, heads: int, smooth: bool) -> None:
        super().__init__()
        self.layers, self.heads = layers, heads
        self.noisy = DistanceTable(64, width, smooth)
        self.guessed = DistanceTable(128, width, smooth)
        self.separation = nn.Embedding(2 * LARGEST_SEPARATION + 1, width)
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, layers * heads, bias=False)

    def features(self, x_t: Tensor, x_sc: Tensor, residue: Tensor) -> Tensor:
        """(B, N, N, width), before the norm."""
        apart = (residue[:, None, :] - residue[:, :, None]).clamp(-LARGEST_SEPARATION, LARGEST_SEPARATION)
        pair = self.noisy(distances(x_t)) + self.separation(apart + LARGEST_SEPARATION)
        return pair + self.guessed(distances(x_sc))

    def forward(self, pair: Tensor) -> Tensor:
        """The bias of pair features."""
        bias = self.project(self.norm(pair))
        return bias.unflatten(-1, (self.layers, self.heads)).permute(3, 0, 4, 1, 2)


class TimeEmbedding(nn.Module):
    """Flow time (B,) → conditioning vector (B, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.widen = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, t: Tensor) -> Tensor:
        waves = sinusoids(1000 * t, self.width, longest=10_000.0)
        return self.out(F.silu(self.widen(waves.to(self.widen.weight.dtype))))


#: Channels of a triangle multiplication at most, and the hidden width of the transition over the pairs' own.
TRIANGLE_CHANNELS, EXPANSION = 196, 2


class Triangle(nn.Module):
    """What the two other edges of every triangle say about an edge.

        z_ij ← g_ij ⊙ Linear(LayerNorm(Σ_k a_ik ⊙ b_jk))   outgoing,      Σ_k a_ki ⊙ b_kj   incoming,

    with a, b = sigmoid(Linear z) ⊙ Linear z and g = sigmoid(Linear z) of the normalised z (B, N, N, P). Pairs with
    padding take no part in the sum.
    """

    def __init__(self, pair: int, outgoing: bool) -> None:
        super().__init__()
        self.outgoing = outgoing
        channels = min(pair, TRIANGLE_CHANNELS)
        self.norm, self.norm_sum = nn.LayerNorm(pair), nn.LayerNorm(channels)
        self.sides, self.open = nn.Linear(pair, 2 * channels), nn.Linear(pair, 2 * channels)
        self.gate, self.out = nn.Linear(pair, pair), nn.Linear(channels, pair)

    def forward(self, pair: Tensor, real: Tensor) -> Tensor:
        """``real`` (B, N, N, 1): both residues are no padding."""
        z = self.norm(pair)
        sides = torch.where(real, torch.sigmoid(self.open(z)) * self.sides(z), 0.0)
        a, b = sides.chunk(2, dim=-1)
        summed = torch.einsum("bikc,bjkc->bijc" if self.outgoing else "bkic,bkjc->bijc", a, b)
        return torch.sigmoid(self.gate(z)) * self.out(self.norm_sum(summed))


class PairUpdate(nn.Module):
    """Pairs (B, N, N, P) from the tokens (B, N, W) of both residues, triangles out and in, and a transition.

    z_ij ← z_ij + A LN s_i + B LN s_j;  z ← z + Triangle_out(z);  z ← z + Triangle_in(z);  z ← z + FFN(LN z)
    """

    def __init__(self, width: int, pair: int) -> None:
        super().__init__()
        self.norm_tokens = nn.LayerNorm(width)
        self.from_tokens = nn.Linear(width, 2 * pair, bias=False)
        self.outgoing, self.incoming = Triangle(pair, outgoing=True), Triangle(pair, outgoing=False)
        self.transition = nn.Sequential(
            nn.LayerNorm(pair), nn.Linear(pair, EXPANSION * pair), nn.ReLU(), nn.Linear(EXPANSION * pair, pair)
        )

    def forward(self, tokens: Tensor, pair: Tensor, mask: Tensor) -> Tensor:
        real = (mask[:, :, None] & mask[:, None, :])[..., None]
        left, right = self.from_tokens(self.norm_tokens(tokens)).chunk(2, dim=-1)
        pair = pair + left[:, :, None] + right[:, None]
        pair = pair + self.outgoing(pair, real)
        pair = pair + self.incoming(pair, real)
        return pair + self.transition(pair)
