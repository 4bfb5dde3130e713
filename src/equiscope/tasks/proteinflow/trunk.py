"""The transformer trunk that both protein models share: adaptive layer norm on t, pair-biased attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equiscope.errors import InputError
from equiscope.tasks.guards import at_least, heads_fit, one_of
from equiscope.tasks.proteinflow.features import PairUpdate, TimeEmbedding


@dataclass(frozen=True)
class TrunkConfig:
    """Sizes of a protein transformer.

    Attributes:
        width: token dimension; layers, heads; expansion: hidden width of the transition over ``width``.
        pair: dimension of the pair features; condition: dimension of the flow-time vector.
        registers: learned tokens that belong to no residue and take part in attention.
        conditioning: gated transitions that the flow-time vector goes through, with a norm after them.
        qk_norm: queries and keys are normalised by ``"head"``, or over the ``"width"`` of all of them.
        pair_every: pairs are updated after the first layer and every so many from there on, but the last; 0 for never.
        distogram: bins of the distances that the updated pairs predict beside the velocity; 0 for none.
        smooth_bins: interpolate between distance bins; the original has hard bins.
        neighbours: on each side of a residue, so many sequence neighbours' x_t relative to its own are read as raw
            coordinates too. The original has none (0) and must learn to form these differences by attention, which
            takes it longer than a short run lasts; the symmetry is broken in the same way.
    """

    width: int = 128
    layers: int = 4
    heads: int = 4
    expansion: int = 2
    pair: int = 32
    condition: int = 96
    registers: int = 8
    conditioning: int = 0
    qk_norm: str = "head"
    pair_every: int = 0
    distogram: int = 0
    smooth_bins: bool = False
    neighbours: int = 0

    def __post_init__(self) -> None:
        heads_fit(self.width, self.heads)
        for name in ("width", "condition"):
            if getattr(self, name) < 4 or getattr(self, name) % 2:
                raise InputError(f"{name} must be even and at least 4, got {getattr(self, name)}")
        at_least(1, layers=self.layers, expansion=self.expansion, pair=self.pair)
        at_least(0, registers=self.registers, conditioning=self.conditioning, neighbours=self.neighbours)
        at_least(0, pair_every=self.pair_every, distogram=self.distogram)
        one_of(("head", "width"), qk_norm=self.qk_norm)
        if self.distogram and not self.updated:
            raise InputError("a distogram is read from updated pairs: set pair_every, and two layers or more")

    @property
    def updated(self) -> tuple[int, ...]:
        """The layers after which the pairs are updated."""
        return tuple(range(0, self.layers - 1, self.pair_every)) if self.pair_every else ()


# 60M and 400M follow Proteina's published ones, without and with triangle updates; the others are scaled down.
_PUBLISHED: dict[str, Any] = {"expansion": 4, "condition": 512, "registers": 10, "conditioning": 2, "qk_norm": "width"}
SIZES = {
    "nano": TrunkConfig(width=32, layers=2, heads=2, pair=8, condition=16, registers=2),
    "1M": TrunkConfig(),
    "4M": TrunkConfig(width=224, layers=5, heads=7, pair=48, condition=160, registers=8),
    "60M": TrunkConfig(width=512, layers=10, heads=8, pair=256, **_PUBLISHED),
    "400M": TrunkConfig(width=1024, layers=18, heads=16, pair=512, pair_every=5, distogram=64, **_PUBLISHED),
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

    def __init__(self, width: int, heads: int, qk_norm: str = "head") -> None:
        super().__init__()
        self.heads = heads
        self.whole = qk_norm == "width"
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.gate = nn.Linear(width, width)
        self.out = nn.Linear(width, width, bias=False)
        self.norm_q = nn.LayerNorm(width if self.whole else width // heads)
        self.norm_k = nn.LayerNorm(width if self.whole else width // heads)

    def forward(self, tokens: Tensor, bias: Tensor) -> Tensor:
        q, k, v = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        scale = q.shape[-1] ** -0.5
        logits = self._normed(self.norm_q, q) * scale @ self._normed(self.norm_k, k).transpose(-1, -2) + bias
        mixed = (torch.softmax(logits, dim=-1) @ v).transpose(1, 2).flatten(2)
        return self.out(mixed * torch.sigmoid(self.gate(tokens)))

    def _normed(self, norm: nn.Module, x: Tensor) -> Tensor:
        """(B, heads, N, d), normalised over d or over all heads."""
        if not self.whole:
            return norm(x)
        return norm(x.transpose(1, 2).flatten(2)).unflatten(-1, (self.heads, -1)).transpose(1, 2)


class GatedTransition(nn.Module):
    """SwiGLU without biases: B (silu(g) ⊙ w) with (w, g) = A x; (…, width) → (…, width)."""

    def __init__(self, width: int, expansion: int = 2) -> None:
        super().__init__()
        self.widen = nn.Linear(width, 2 * expansion * width, bias=False)
        self.narrow = nn.Linear(expansion * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        wide, gate = self.widen(x).chunk(2, dim=-1)
        return self.narrow(F.silu(gate) * wide)


class TrunkBlock(nn.Module):
    """Attention and gated (SwiGLU) transition, each behind an adaptive norm and before a time-dependent gate."""

    def __init__(self, sizes: TrunkConfig) -> None:
        super().__init__()
        width, hidden = sizes.width, sizes.expansion * sizes.width
        self.norm_attention = AdaptiveNorm(width, sizes.condition)
        self.attention = PairBiasedAttention(width, sizes.heads, sizes.qk_norm)
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
    """Residue tokens (B, N, width) and pair features (B, N, N, pair) → both as the layers leave them, and the bias.

    ``bias_of`` makes that of every layer (layers, B, heads, N, N) from pair features, again after each update.
    """

    def __init__(self, sizes: TrunkConfig) -> None:
        super().__init__()
        self.registers = nn.Parameter(torch.randn(sizes.registers, sizes.width))
        self.time = TimeEmbedding(sizes.condition)
        conditioning = [GatedTransition(sizes.condition) for _ in range(sizes.conditioning)]
        self.conditioning = nn.Sequential(*conditioning, nn.LayerNorm(sizes.condition)) if conditioning else nn.SiLU()
        self.blocks = nn.ModuleList(TrunkBlock(sizes) for _ in range(sizes.layers))
        self.updates = nn.ModuleDict({str(place): PairUpdate(sizes.width, sizes.pair) for place in sizes.updated})

    def forward(
        self, tokens: Tensor, pair: Tensor, bias_of: Callable[[Tensor], Tensor], t: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        extra = len(self.registers)
        tokens = torch.cat([self.registers.expand(len(tokens), -1, -1), tokens], dim=1)
        bias = bias_of(pair)
        framed = self._framed(bias, mask).unbind()
        condition = self.conditioning(self.time(t))
        for place, block in enumerate(self.blocks):
            tokens = block(tokens, condition, framed[place])
            if str(place) in self.updates:
                pair = self.updates[str(place)](tokens[:, extra:], pair, mask)
                bias = bias_of(pair)
                framed = self._framed(bias, mask).unbind()
        return tokens[:, extra:], pair, bias

    def _framed(self, bias: Tensor, mask: Tensor) -> Tensor:
        """Registers see and are seen by every real residue without bias; padding is seen by nobody."""
        extra = len(self.registers)
        hidden = F.pad(~mask, (extra, 0))[:, None, None, :]
        return F.pad(bias, (extra, 0, extra, 0)).masked_fill(hidden, float("-inf"))
