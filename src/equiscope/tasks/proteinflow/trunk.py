"""The transformer trunk that both protein models share: adaptive layer norm on t, pair-biased attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equiscope.errors import InputError
from equiscope.tasks.guards import heads_fit
from equiscope.tasks.proteinflow.features import TimeEmbedding


@dataclass(frozen=True)
class TrunkConfig:
    """Sizes of a protein transformer.

    Attributes:
        width: token dimension; layers, heads; expansion: hidden width of the transition over ``width``.
        pair: dimension of the pair features; condition: dimension of the flow-time vector.
        registers: learned tokens that belong to no residue and take part in attention.
    """

    width: int = 128
    layers: int = 4
    heads: int = 4
    expansion: int = 2
    pair: int = 32
    condition: int = 96
    registers: int = 8

    def __post_init__(self) -> None:
        heads_fit(self.width, self.heads)
        for name in ("width", "condition"):
            if getattr(self, name) < 4 or getattr(self, name) % 2:
                raise InputError(f"{name} must be even and at least 4, got {getattr(self, name)}")


# 60M and 400M follow Proteina's published widths without triangle updates; the others are scaled down.
SIZES = {
    "nano": TrunkConfig(width=32, layers=2, heads=2, pair=8, condition=16, registers=2),
    "1M": TrunkConfig(),
    "4M": TrunkConfig(width=224, layers=5, heads=7, pair=48, condition=160, registers=8),
    "60M": TrunkConfig(width=512, layers=10, heads=8, expansion=4, pair=256, condition=512, registers=10),
    "400M": TrunkConfig(width=1024, layers=18, heads=16, expansion=4, pair=512, condition=512, registers=10),
}


class AdaptiveNorm(nn.Module):
    """LayerNorm whose scale and shift depend on the flow time: (1 + s(c)) · LN(h) + b(c)."""

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulate = nn.Linear(condition, 2 * width)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.modulate(condition)[:, None].chunk(2, dim=-1)
        return self.norm(tokens) * (1 + scale) + shift


class Gate(nn.Module):
    """What a block adds to the residual stream, scaled by sigmoid(Linear(c) − 2): small at the start."""

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.linear = nn.Linear(condition, width)
        nn.init.zeros_(self.linear.weight)
        nn.init.constant_(self.linear.bias, -2.0)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        return tokens * torch.sigmoid(self.linear(condition))[:, None]


class PairBiasedAttention(nn.Module):
    """softmax(LN(q) · LN(k) / √d + bias) v with an output gate, over the registers and residues of a chain.

    The softmax is written out: the fused kernels have no second derivative, which landscape analysis needs.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.gate = nn.Linear(width, width)
        self.out = nn.Linear(width, width, bias=False)
        self.norm_q = nn.LayerNorm(width // heads)
        self.norm_k = nn.LayerNorm(width // heads)

    def forward(self, tokens: Tensor, bias: Tensor) -> Tensor:
        q, k, v = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        scale = q.shape[-1] ** -0.5
        logits = self.norm_q(q) * scale @ self.norm_k(k).transpose(-1, -2) + bias
        mixed = (torch.softmax(logits, dim=-1) @ v).transpose(1, 2).flatten(2)
        return self.out(mixed * torch.sigmoid(self.gate(tokens)))


class TrunkBlock(nn.Module):
    """Attention and gated (SwiGLU) transition, each behind an adaptive norm and before a time-dependent gate."""

    def __init__(self, sizes: TrunkConfig) -> None:
        super().__init__()
        width, hidden = sizes.width, sizes.expansion * sizes.width
        self.norm_attention = AdaptiveNorm(width, sizes.condition)
        self.attention = PairBiasedAttention(width, sizes.heads)
        self.gate_attention = Gate(width, sizes.condition)
        self.norm_transition = AdaptiveNorm(width, sizes.condition)
        self.widen = nn.Linear(width, 2 * hidden, bias=False)
        self.narrow = nn.Linear(hidden, width, bias=False)
        self.gate_transition = Gate(width, sizes.condition)

    def forward(self, tokens: Tensor, condition: Tensor, bias: Tensor) -> Tensor:
        attended = self.attention(self.norm_attention(tokens, condition), bias)
        tokens = tokens + self.gate_attention(attended, condition)
        wide, gate = self.widen(self.norm_transition(tokens, condition)).chunk(2, dim=-1)
        return tokens + self.gate_transition(self.narrow(F.silu(gate) * wide), condition)


class Trunk(nn.Module):
    """Residue tokens (B, N, width) and pair bias (layers, B, heads, N, N) → updated tokens (B, N, width)."""

    def __init__(self, sizes: TrunkConfig) -> None:
        super().__init__()
        self.registers = nn.Parameter(torch.randn(sizes.registers, sizes.width))
        self.time = TimeEmbedding(sizes.condition)
        self.blocks = nn.ModuleList(TrunkBlock(sizes) for _ in range(sizes.layers))

    def forward(self, tokens: Tensor, bias: Tensor, t: Tensor, mask: Tensor) -> Tensor:
        extra = len(self.registers)
        tokens = torch.cat([self.registers.expand(len(tokens), -1, -1), tokens], dim=1)
        # Registers see and are seen by every real residue without bias; padding is seen by nobody.
        bias = F.pad(bias, (extra, 0, extra, 0))
        hidden = F.pad(~mask, (extra, 0))[:, None, None, :]
        bias = bias.masked_fill(hidden, float("-inf"))
        condition = F.silu(self.time(t))
        for block, layer_bias in zip(self.blocks, bias, strict=True):
            tokens = block(tokens, condition, layer_bias)
        return tokens[:, extra:]
