"""Conformers in memory, split by molecule, those that fit the grid; voxel noise by seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equiscope.errors import DataError, InputError
from equiscope.tasks.datasets import store
from equiscope.tasks.datasets.molecule_split import PARTS, split_molecules
from equiscope.tasks.datasets.orientation import orientation
from equiscope.tasks.voxels.generate import FORMAT, FORMAT_VERSION
from equiscope.tasks.voxels.voxelise import Grid


@dataclass(frozen=True)
class ConformerSet:
    """Conformers that fit a grid, padded to the largest molecule; F conformers, N atoms.

    Attributes:
        pos: (F, N, 3) float32 Å, centred, zero in the padding; as RDKit left them (along their principal axes).
        species: (F, N) int64, 0 in the padding; mask: (F, N).
        molecule: (F,) int64; part: (F,) int64, index into ``PARTS``.
        metadata: of the data file, and the count of conformers that do not fit the grid.
    """

    pos: Tensor
    species: Tensor
    mask: Tensor
    molecule: Tensor
    part: Tensor
    metadata: dict[str, Any]

    def __len__(self) -> int:
        return len(self.pos)

    def indices(self, part: str) -> Tensor:
        """Conformers of ``"train"``, ``"track"`` or ``"final"``.

        Raises:
            InputError: another name.
        """
        if part not in PARTS:
            raise InputError(f"part must be one of {', '.join(PARTS)}, got {part!r}")
        return torch.nonzero(self.part == PARTS.index(part))[:, 0]

    def batch(self, index: Tensor) -> dict[str, Tensor]:
        """``pos``, ``species``, ``mask``, ``molecule``, ``id`` of some conformers, padded to their largest molecule."""
        most = int(self.mask[index].sum(1).max())
        fields = {"pos": self.pos[index, :most], "species": self.species[index, :most], "mask": self.mask[index, :most]}
        return {**fields, "molecule": self.molecule[index], "id": index}

    def describe(self) -> dict[str, Any]:
        """Plain facts for a run's record."""
        parts = {
            name: {
                "conformers": int((self.part == i).sum()),
                "molecules": int(self.molecule[self.part == i].unique().numel()),
            }
            for i, name in enumerate(PARTS)
        }
        atoms = self.mask.sum(1)
        return {
            "conformers": len(self),
            "molecules": int(self.molecule.unique().numel()),
            "atoms": [int(atoms.min()), int(atoms.max())],
            "parts": parts,
            "orientation as embedded": orientation(self.pos, self.mask).to_dict(),
            **{k: self.metadata[k] for k in ("config", "source", "method", "versions", "counts")},
        }


def load(path: str | Path, grid: Grid) -> ConformerSet:
    """Read a data file and keep the conformers that fit the grid in every orientation.

    A conformer fits if no atom is farther from its centre than ``grid.reach``; the others, and those with an element
    that has no channel, are counted in ``metadata["counts"]["conformers rejected"]``.

    Raises:
        DataError: another kind of file, or a part of the split without a conformer that fits.
        IntegrityError: the file is damaged.
    """
    arrays, metadata = store.read(path)
    if metadata.get("format") != FORMAT or metadata.get("format_version") != FORMAT_VERSION:
        raise DataError(f"{path} holds {metadata.get('format')!r}, not {FORMAT!r} version {FORMAT_VERSION}")
    atoms = np.repeat(arrays["atoms"].astype(np.int64), arrays["conformers"])
    molecule = np.repeat(np.arange(len(arrays["atoms"])), arrays["conformers"])
    mask = np.arange(atoms.max())[None] < atoms[:, None]
    starts = np.cumsum(arrays["atoms"]) - arrays["atoms"]
    species = np.zeros(mask.shape, dtype=np.int64)
    species[mask] = arrays["species"][(starts[molecule][:, None] + np.arange(atoms.max()))[mask]]
    pos = np.zeros((*mask.shape, 3), dtype=np.float32)
    pos[mask] = arrays["positions"]
    unknown = (mask & ~np.isin(species, grid.elements)).any(1)
    outside = np.linalg.norm(pos, axis=-1).max(1) > grid.reach
    kept = ~(unknown | outside)
    counts = {"element without a channel": int(unknown.sum()), "outside the grid": int((outside & ~unknown).sum())}
    metadata["counts"] = {**metadata["counts"], "conformers rejected": counts}
    part = split_molecules(len(arrays["atoms"]), metadata["config"]["seed"]).numpy()[molecule]
    empty = [name for i, name in enumerate(PARTS) if not (kept & (part == i)).any()]
    if empty:
        largest = float(np.linalg.norm(pos, axis=-1).max())
        raise DataError(
            f"no conformer of part {empty[0]!r} fits the grid ({counts} of {len(kept)}): atoms reach {largest:.2f} Å "
            f"from the centre, the grid holds {max(grid.reach, 0.0):.2f} Å; take more voxels, a coarser resolution or "
            "a smaller radius"
        )
    tensors = (torch.from_numpy(a[kept]) for a in (pos, species, mask, molecule, part))
    return ConformerSet(*tensors, metadata)


def noise_grids(seeds: Tensor, grid: Grid, sigma: float, device: torch.device | str = "cpu") -> Tensor:
    """Voxel noise sigma * N(0, 1), (B, *grid.shape) float32: a function of each sample's seed (B,) and the device type.

    Raises:
        InputError: for a sigma that is negative or not finite.
    """
    if not 0 <= sigma < math.inf:
        raise InputError(f"the noise level sigma must be finite and not negative, got {sigma!r}")
    drawn = []
    for seed in seeds.tolist():
        generator = torch.Generator(device).manual_seed(seed)
        drawn.append(torch.randn(grid.shape, generator=generator, device=device))
    return sigma * torch.stack(drawn)
