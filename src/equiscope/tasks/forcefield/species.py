"""Chemical elements as indices: which a force field knows, and a clear error for any other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from equiscope.errors import InputError

ORGANIC = (1, 6, 7, 8, 9, 15, 16, 17, 35, 53)
"""H C N O F P S Cl Br I."""


class SpeciesIndex(nn.Module):
    """Atomic numbers (A,) → indices 0 … len(elements) − 1 (A,).

    Raises:
        InputError: an element is not among those the model was built for.
    """

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
