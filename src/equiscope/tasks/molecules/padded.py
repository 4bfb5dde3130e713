"""Molecules in memory as dense tensors, split by molecule, and their padded batches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from equiscope.errors import DataError, InputError
from equiscope.symmetry.orientation import Orientation, orientation
from equiscope.tasks.datasets import store
from equiscope.tasks.datasets.splits import PARTS
from equiscope.tasks.guards import one_of
from equiscope.tasks.molecules.recipe import Recipe


class Parted:
    """A set of molecules' geometries, however stored, whose ``part`` (F,) says where each belongs, as in ``PARTS``."""

    part: Tensor

    def indices(self, part: str) -> Tensor:
        """Geometries (n,) of ``"train"``, ``"track"`` or ``"final"`` in file order; an InputError for another name."""
        one_of(PARTS, part=part)
        return torch.nonzero(self.part == PARTS.index(part))[:, 0]


@dataclass(frozen=True, kw_only=True)
class PaddedSet(Parted):
    """Geometries of molecules, padded to the largest; F geometries, N atoms.

    Attributes:
        pos: (F, N, 3) float32 Å, each centred on its mean; zero in the padding.
        species: (F, N) int64 atomic numbers, 0 in the padding; mask: (F, N) true for atoms.
        molecule: (F,) int64, the molecule (the cluster) of each; part: (F,) int64, index into ``PARTS``.
        atoms: (F,) int64 atoms of each.
        metadata: of the data file: configuration, counts of every rejection, versions.
    """

    #: What one geometry is called; fields of a batch with and without atoms.
    NOUN: ClassVar[str] = "frames"
    PER_ATOM: ClassVar[tuple[str, ...]] = ("pos", "species", "mask")
    PER_SAMPLE: ClassVar[tuple[str, ...]] = ("molecule",)

    pos: Tensor
    species: Tensor
    mask: Tensor
    molecule: Tensor
    part: Tensor
    atoms: Tensor
    metadata: dict[str, Any]

    def __len__(self) -> int:
        return len(self.pos)

    def batch(self, indices: Tensor | list[int]) -> dict[str, Tensor]:
        """Some geometries as a dense batch, padded to its largest molecule, see :func:`check_batch`.

        It has the fields of ``PER_ATOM`` (B, N, …) and ``PER_SAMPLE`` (B,), and ``id`` (B,), the number in the set.
        """
        index, atoms = check_batch(indices, self.atoms)
        per_atom = {name: getattr(self, name)[index, :atoms] for name in self.PER_ATOM}
        return {**per_atom, **{name: getattr(self, name)[index] for name in self.PER_SAMPLE}, "id": index}

    def orientation(self) -> Orientation:
        """The orientation tensor of all geometries."""
        return orientation(self.pos, self.mask)

    def checksum(self) -> str:
        """SHA-256 of the arrays of the data file."""
        return str(self.metadata["sha256"])

    def describe(self) -> dict[str, Any]:
        """Plain facts for a run's record: counts, split, and what the data file says of itself."""
        return describe_split(self, self.NOUN) | {
            name: self.metadata[name] for name in ("config", "source", "method", "versions", "counts")
        }


def describe_split(made: Any, noun: str = "frames") -> dict[str, Any]:
    """How many geometries, molecules and atoms there are, and in which part, of a set however stored."""
    return {
        noun: len(made),
        "molecules": int(torch.unique(made.molecule).numel()),
        "atoms": [int(made.atoms.min()), int(made.atoms.max())],
        "parts": {
            name: {noun: int(here.sum()), "molecules": int(torch.unique(made.molecule[here]).numel())}
            for name, here in ((name, made.part == i) for i, name in enumerate(PARTS))
        },
    }


def check_batch(indices: Tensor | list[int], atoms: Tensor) -> tuple[Tensor, int]:
    """Frame numbers (B,) on the CPU and the atoms of the largest of them, of a set with ``atoms`` (F,) in its frames.

    Raises:
        InputError: no index, or one out of range.
    """
    index = torch.as_tensor(indices, dtype=torch.int64, device="cpu")
    if index.ndim != 1 or index.numel() == 0:
        raise InputError(f"indices must be a non-empty list of frames, got shape {tuple(index.shape)}")
    low, high = int(index.min()), int(index.max())
    if low < 0 or high >= len(atoms):
        raise InputError(f"frame numbers must be in 0..{len(atoms) - 1}, got {low}..{high}")
    return index, int(atoms[index].max())


def read(path: str | Path, recipe: type[Recipe], counted: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a data file made by a recipe, dense, and its metadata.

    In the file the geometries of a molecule share one list of atomic numbers and follow one another: ``atoms`` (M,) and
    ``counted`` (M,) say how many atoms and geometries molecule m has. Returned are ``atoms``, ``molecule`` (F,);
    ``species``, ``mask`` (F, N); every array with a row of three for each atom as (F, N, 3) float32; the others as they
    are.

    Raises:
        DataError: no such file, or another kind of file. IntegrityError: the file is damaged.
    """
    arrays, metadata = store.read(path)
    if metadata.get("format") != recipe.FORMAT or metadata.get("format_version") != recipe.FORMAT_VERSION:
        raise DataError(
            f"{path} holds {metadata.get('format')!r} version {metadata.get('format_version')}, "
            f"not {recipe.FORMAT!r} version {recipe.FORMAT_VERSION}; make it again with this version"
        )
    metadata = {**metadata, "sha256": store.digest(arrays)}
    each = arrays.pop("atoms").astype(np.int64)
    molecule = np.repeat(np.arange(len(each)), arrays.pop(counted))
    atoms, starts = each[molecule], np.cumsum(each) - each
    place = np.arange(atoms.max())
    mask = place < atoms[:, None]
    dense = {"atoms": atoms, "molecule": molecule, "mask": mask, "species": np.zeros(mask.shape, dtype=np.int64)}
    dense["species"][mask] = arrays.pop("species")[(starts[molecule][:, None] + place)[mask]]
    for name, array in arrays.items():
        dense[name] = array if array.ndim != 2 else np.zeros((*mask.shape, 3), dtype=np.float32)
        if array.ndim == 2:
            dense[name][mask] = array
    return dense, metadata
