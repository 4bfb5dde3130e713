"""What force fields make of atoms and edges: species as indices, lengths, directions, smooth cutoff, attention."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from equiscope.errors import InputError
from equiscope.tasks.forcefield.neighbours import FlatAtoms, Neighbours


def lengths_and_units(displacement: Tensor) -> tuple[Tensor, Tensor]:
    """(E, 3) displacements in Å → (E,) lengths and (E, 3) unit vectors (zero, not NaN, for a zero vector)."""
    length = displacement.square().sum(-1).clamp_min(1e-12).sqrt()
    return length, displacement / length[:, None]


def log_envelope(length: Tensor, cutoff: float) -> Tensor:
    """log u(r / cutoff), u a polynomial that falls from 1 to 0 with two vanishing derivatives at the cutoff.

    u(x) = 1 − 28 x⁶ + 48 x⁷ − 21 x⁸ with x = r / cutoff (Gasteiger et al., "Directional message passing", arXiv
    2003.03123, eq. 8 with p = 6, times x), evaluated as (1 − x)³ (1 + 3x + 6x² + 10x³ + 15x⁴ + 21x⁵), which is positive
    in any precision. Bounded below (u ≳ 6·10⁻¹⁷) so that no gradient is infinite. Same shape as ``length``.
    """
    x = length / cutoff
    rest = (1 - x).clamp_min(1e-6)
    series = 1 + x * (3 + x * (6 + x * (10 + x * (15 + x * 21))))
    return 3 * rest.log() + series.log()


def geometry(atoms: FlatAtoms, found: Neighbours, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """Lengths (E,) in Å, unit vectors (E, 3) from atom to neighbour, and log envelopes (E,) of the edges found."""
    displacement = atoms.pos.index_select(0, found.neighbour) - atoms.pos.index_select(0, found.centre)
    length, unit = lengths_and_units(displacement)
    return length, unit, log_envelope(length, cutoff)


class RadialBasis(nn.Module):
    """Gaussians of width equal to their spacing on a grid that is finer where bonds are.

    b_k(r) = exp(−(s(r) − k)² / 2), k = 0 … count − 1, with s(r) = (count − 1) · log(1 + r / r₀) / log(1 + cutoff / r₀)
    and r₀ = 1 Å: about three times finer at 1 Å than at 5 Å. (E,) → (E, count).
    """

    centres: Tensor

    def __init__(self, count: int, cutoff: float) -> None:
        super().__init__()
        self.scale = (count - 1) / math.log1p(cutoff)
        self.register_buffer("centres", torch.arange(count, dtype=torch.get_default_dtype()), persistent=False)

    def forward(self, length: Tensor) -> Tensor:
        return torch.exp(-0.5 * (self.scale * torch.log1p(length)[:, None] - self.centres).square())


class EdgeAttention(nn.Module):
    """Softmax attention among the tokens of each atom, logits q·k / √d plus whatever biases are given.

    With the log of the cutoff envelope w as a bias, a_qk = w_k exp(q·k / √d) / Σ_k' w_k' exp(q·k' / √d): an edge that
    reaches the cutoff (w → 0) leaves continuously. Plain products and softmax, because fused attention has no second
    derivative.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = nn.Dropout(dropout)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, table: Tensor, slot: Tensor, *biases: Tensor) -> Tensor:
        """(T, H) tokens → (T, H); ``table`` (A, K) the tokens of each atom, ``slot`` (T,) its inverse, biases
        (A, heads or 1, K or 1, K)."""
        atoms, places = table.shape
        taken = self.qkv(x).index_select(0, table.flatten())
        q, k, v = taken.reshape(atoms, places, 3, self.heads, x.shape[1] // self.heads).permute(2, 0, 3, 1, 4)
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        for bias in biases:
            logits = logits + bias
        mixed = (self.dropout(logits.softmax(-1)) @ v).transpose(1, 2).reshape(atoms * places, x.shape[1])
        return self.out(mixed.index_select(0, slot))


ORGANIC = (1, 6, 7, 8, 9, 15, 16, 17, 35, 53)
"""H C N O F P S Cl Br I."""


class SpeciesIndex(nn.Module):
    """Atomic numbers (A,) → indices 0 … len(elements) − 1 (A,); an InputError for an element the model has not."""

    index: Tensor

    def __init__(self, elements: tuple[int, ...]) -> None:
        super().__init__()
        self.elements = tuple(elements)
        index = torch.full((max(elements) + 1,), -1, dtype=torch.int64)
        index[list(elements)] = torch.arange(len(elements))
        self.register_buffer("index", index, persistent=False)

    def forward(self, species: Tensor, known: bool = False) -> Tensor:
        """The indices; with ``known`` nothing is checked, for which a GPU would have to be waited for."""
        if known:
            return self.index[species]
        index = self.index[species.clamp(0, len(self.index) - 1)]
        right = (index >= 0) & (species >= 0) & (species < len(self.index))
        if not bool(right.all()):
            refuse(species[~right], self.elements)
        return index


def refuse(species: Tensor, elements: Sequence[int]) -> None:
    """Say which atomic numbers a model does not know."""
    raise InputError(
        f"atomic numbers {sorted(set(species.tolist()))} are not among the elements of this model {list(elements)}: "
        "build it with elements=… that contain them"
    )
