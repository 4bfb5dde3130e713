"""Which molecules are trained on, followed along training, and kept for the final figure."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from equiscope.errors import DataError, InputError

PARTS = ("train", "track", "final")
FRACTIONS = (0.8, 0.1, 0.1)


def split_molecules(molecules: int, seed: int, fractions: tuple[float, float, float] = FRACTIONS) -> Tensor:
    """(molecules,) part of every molecule, 0 train, 1 track, 2 final: a pure function of its arguments.

    Raises:
        DataError: fewer than three molecules, so that a part would be empty.
        InputError: fractions that are not positive or do not sum to 1.
    """
    if min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-9:
        raise InputError(f"fractions must be positive and sum to 1, got {fractions}")
    if molecules < 3:
        raise DataError(
            f"{molecules} molecules cannot be split into {', '.join(PARTS)}; ask for more frames, "
            "or fewer frames_per_molecule"
        )
    held = [max(1, round(f * molecules)) for f in fractions[1:]]
    order = torch.from_numpy(np.random.default_rng([seed, 2]).permutation(molecules))
    part = torch.zeros(molecules, dtype=torch.int64)
    part[order[: held[0]]] = 1
    part[order[held[0] : held[0] + held[1]]] = 2
    return part
