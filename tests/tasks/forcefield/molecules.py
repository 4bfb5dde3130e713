"""Random padded molecules for the tests of the force-field models."""

from __future__ import annotations

import torch
from torch import Tensor


def random_batch(sizes: list[int], seed: int = 0, pad: float = 0.0, dtype: torch.dtype = torch.float64) -> dict:
    """Molecules of the given sizes in a box that holds about ten atoms per neighbour sphere; ``pad`` in the padding."""
    generator = torch.Generator().manual_seed(seed)
    length = max(sizes)
    mask = torch.arange(length) < torch.tensor(sizes)[:, None]
    pos = (torch.rand(len(sizes), length, 3, generator=generator, dtype=torch.float64) - 0.5) * 7.0
    species = torch.tensor([1, 6, 7, 8])[torch.randint(4, (len(sizes), length), generator=generator)]
    return {
        "pos": torch.where(mask[..., None], pos, pad).to(dtype),
        "species": torch.where(mask, species, 0),
        "mask": mask,
    }


def rotated(batch: dict, rotation: Tensor) -> dict:
    """The batch with every position rotated by one matrix."""
    return {**batch, "pos": batch["pos"] @ rotation.T.to(batch["pos"])}
