"""Functions of an edge's length: the smooth cutoff envelope and the radial basis."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def lengths_and_units(displacement: Tensor) -> tuple[Tensor, Tensor]:
    """(E, 3) displacements in Å → (E,) lengths and (E, 3) unit vectors (zero, not NaN, for a zero vector)."""
    length = displacement.square().sum(-1).clamp_min(1e-12).sqrt()
    return length, displacement / length[:, None]


def envelope(length: Tensor, cutoff: float) -> Tensor:
    """Polynomial that falls from 1 at zero to 0 at the cutoff, with two vanishing derivatives there.

    u(x) = 1 − 28 x⁶ + 48 x⁷ − 21 x⁸ with x = r / cutoff (Gasteiger et al., "Directional message passing",
    arXiv 2003.03123, eq. 8 with p = 6, times x), evaluated as (1 − x)³ (1 + 3x + 6x² + 10x³ + 15x⁴ + 21x⁵),
    which is positive in any precision. Same shape as ``length``.
    """
    return log_envelope(length, cutoff).exp()


def log_envelope(length: Tensor, cutoff: float) -> Tensor:
    """log u(r / cutoff) of :func:`envelope`, bounded below (u ≳ 6·10⁻¹⁷) so that no gradient is infinite."""
    x = length / cutoff
    rest = (1 - x).clamp_min(1e-6)
    series = 1 + x * (3 + x * (6 + x * (10 + x * (15 + x * 21))))
    return 3 * rest.log() + series.log()


class RadialBasis(nn.Module):
    """Gaussians of width equal to their spacing on a grid that is finer where bonds are.

    b_k(r) = exp(−(s(r) − k)² / 2), k = 0 … count − 1, with s(r) = (count − 1) · log(1 + r / r₀) / log(1 + cutoff / r₀)
    and r₀ = 1 Å: about three times finer at 1 Å than at 5 Å. (E,) → (E, count).
    """

    def __init__(self, count: int, cutoff: float) -> None:
        super().__init__()
        self.scale = (count - 1) / math.log1p(cutoff)
        self.register_buffer("centres", torch.arange(count, dtype=torch.get_default_dtype()), persistent=False)

    def forward(self, length: Tensor) -> Tensor:
        return torch.exp(-0.5 * (self.scale * torch.log1p(length)[:, None] - self.centres).square())
