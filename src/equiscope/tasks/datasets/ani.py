"""Readers of ANI-1x (Smith et al., Scientific Data 7, 134, 2020) and ANI-2x HDF5 files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equiscope.errors import DataError
from equiscope.tasks.datasets import hdf5
from equiscope.tasks.datasets.blocks import Block, formula
from equiscope.tasks.datasets.reading import Reading, Rejected, block, elements, fits, pieces
from equiscope.units import HARTREE

_UNITS = {
    "positions": "Å",
    "energy": "hartree",
    "forces": "hartree/Å",
    "known from": "the data set's documentation (the file states none)",
}


@dataclass(frozen=True)
class Ani1x:
    """ANI-1x: a group for each formula with ``atomic_numbers`` (N,), ``coordinates`` and labels of several methods.

    Rows without a label (NaN: not every geometry was computed with every method) are counted and left out.

    Attributes:
        path: of the ``.h5`` file.
        method: prefix of the labels: ``wb97x_dz`` (energies and forces) or ``wb97x_tz``.
    """

    path: str | Path
    method: str = "wb97x_dz"

    def blocks(self, rejected: Counter[str]) -> Iterator[Block]:
        """Groups in the file's order; ``group`` is the formula: isomers stay together.

        Raises:
            DataError: no HDF5 file, or no group of ANI-1x's layout.
        """
        energy, forces = f"{self.method}.energy", f"{self.method}.forces"
        names = {"positions": "coordinates", "energy": energy, "forces": forces}

        def parse(named: tuple[str, Any]) -> Iterator[Block]:
            group = named[1]
            if not {"atomic_numbers", *names.values()} <= set(group):
                raise Rejected(f"group without {self.method} labels")
            numbers = elements(np.asarray(hdf5.member(group, "atomic_numbers")))
            for found in hdf5.read(formula(numbers), numbers, hdf5.columns(group, names), energy_unit=HARTREE):
                assert found.energy is not None
                assert found.forces is not None
                whole = np.isfinite(found.energy) & np.isfinite(found.forces).all((1, 2))
                if lost := int((~whole).sum()):
                    rejected[f"no {self.method} label (NaN)"] += lost
                if whole.any():
                    yield found.take(whole)

        nothing = f"has no group with atomic_numbers, coordinates, {energy} and {forces}"
        return Reading[Block](self.path, rejected, "group").all(hdf5.groups(self.path), parse, nothing)

    def units(self) -> dict[str, str]:
        """Of ANI-1x's documentation."""
        return _UNITS


@dataclass(frozen=True)
class Ani2x:
    """ANI-2x: a group for each number of atoms with ``species`` (M, N), ``coordinates``, ``energies``, ``forces``.

    Attributes:
        path: of the ``.h5`` file.
    """

    path: str | Path

    def blocks(self, rejected: Counter[str]) -> Iterator[Block]:
        """Groups in the file's order, split by their atoms; ``group`` is the formula: isomers stay together.

        Raises:
            DataError: no HDF5 file, or no group of ANI-2x's layout.
        """
        return Reading[Block](self.path, rejected, "group").all(
            hdf5.groups(self.path),
            lambda named: self._read(named[1]),
            "has no group with species, coordinates, energies and forces",
        )

    def _read(self, group: Any) -> Iterator[Block]:
        names = {"positions": "coordinates", "energy": "energies", "forces": "forces"}
        if not {"species", *names.values()} <= set(group):
            raise Rejected("group without species, coordinates, energies and forces")
        found, kinds = hdf5.columns(group, names), hdf5.member(group, "species")
        if len(kinds.shape) != 2:
            raise DataError(f"species has shape {kinds.shape}, expected a row a frame")
        frames, atoms = fits(found, kinds.shape[1]), kinds.shape[1]
        if kinds.shape[0] != frames:
            raise DataError(f"species has {kinds.shape[0]} rows, expected {frames}")
        for rows in pieces(frames, atoms):
            x, e, f = (found[meaning][rows] for meaning in names)
            unique, which = np.unique(kinds[rows], axis=0, return_inverse=True)
            for kind, numbers in enumerate(unique):
                here = which.reshape(-1) == kind
                species = elements(numbers)
                yield block(formula(species), species, x[here], energy=e[here], forces=f[here], energy_unit=HARTREE)

    def units(self) -> dict[str, str]:
        """Of ANI-2x's documentation."""
        return _UNITS
