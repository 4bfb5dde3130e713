"""Conformers in memory, those that fit the grid; voxel noise by seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from equiscope.errors import DataError, InputError
from equiscope.tasks.datasets.splits import PARTS, split_molecules
from equiscope.tasks.molecules.padded import PaddedSet, read
from equiscope.tasks.voxels.generate import ConformerData
from equiscope.tasks.voxels.voxelise import Grid


@dataclass(frozen=True, kw_only=True)
class ConformerSet(PaddedSet):
    """Conformers that fit a grid, as RDKit left them (along principal axes); ``metadata`` also counts the others."""

    NOUN: ClassVar[str] = "conformers"

    def describe(self) -> dict[str, Any]:
        """Plain facts for a run's record."""
        return super().describe() | {"orientation as embedded": self.orientation().to_dict()}


def load(path: str | Path, grid: Grid) -> ConformerSet:
    """Read a data file and keep the conformers that fit the grid in every orientation.

    A conformer fits if no atom is farther from its centre than ``grid.reach``, or if the grid crops; the others, and
    those with an element that has no channel, are counted in ``metadata["counts"]["conformers rejected"]``.

    Raises:
        DataError: another kind of file, or a part of the split without a conformer that fits. IntegrityError: it is
            damaged.
    """
    arrays, metadata = read(path, ConformerData, "conformers")
    distance = np.linalg.norm(arrays["positions"], axis=-1).max(1)
    unknown = (arrays["mask"] & ~np.isin(arrays["species"], grid.elements)).any(1)
    outside = (distance > grid.reach) & (not grid.crop)
    kept = ~(unknown | outside)
    counts = {"element without a channel": int(unknown.sum()), "outside the grid": int((outside & ~unknown).sum())}
    metadata["counts"] = {**metadata["counts"], "conformers rejected": counts}
    molecule = arrays["molecule"]
    part = split_molecules(int(molecule[-1]) + 1, metadata["config"]["seed"]).numpy()[molecule]
    empty = [name for i, name in enumerate(PARTS) if not (kept & (part == i)).any()]
    if empty:
        raise DataError(
            f"no conformer of part {empty[0]!r} fits the grid ({counts} of {len(kept)}): atoms reach "
            f"{float(distance.max()):.2f} Å from the centre, the grid holds {max(grid.reach, 0.0):.2f} Å; take more "
            "voxels, a coarser resolution or a smaller radius"
        )
    tensors = {name: torch.from_numpy(array[kept]) for name, array in {**arrays, "part": part}.items()}
    return ConformerSet(pos=tensors.pop("positions"), **tensors, metadata=metadata)


def noise_grids(seeds: Tensor, grid: Grid, sigma: float, device: torch.device | str = "cpu") -> Tensor:
    """Voxel noise sigma * N(0, 1), (B, *grid.shape) float32: a function of each sample's seed (B,) and device type.

    A sigma that is negative or not finite is an InputError.
    """
    if not 0 <= sigma < math.inf:
        raise InputError(f"the noise level sigma must be finite and not negative, got {sigma!r}")
    draws = [torch.Generator(device).manual_seed(seed) for seed in seeds.tolist()]
    return sigma * torch.stack([torch.randn(grid.shape, generator=one, device=device) for one in draws])
