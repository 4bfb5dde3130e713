"""Pair features that layers change: what their tokens say about two residues, triangles, and a transition.

After Proteina's 400M (Geffner et al., arXiv 2503.00710) and AlphaFold 2 (Jumper et al., Nature 596, 2021, supplementary
algorithms 11, 12 and 15).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

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
