"""Readers of ANI-1x (Smith et al., Scientific Data 7, 134, 2020) and ANI-2x HDF5 files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equiscope.errors import DataError
from equiscope.tasks.datasets.blocks import FRAMES_AT_ONCE, Block, check_shapes, formula
from equiscope.tasks.datasets.spice import groups
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
        found = False
        for name, group in groups(self.path):
            if not {"atomic_numbers", "coordinates", energy, forces} <= set(group):
                rejected[f"group without {self.method} labels"] += 1
                continue
            found = True
            numbers = np.asarray(group["atomic_numbers"], dtype=np.int64)
            for x, e, f in _chunks(group, "coordinates", energy, forces, f"{self.path}, group {name}"):
                block = _labelled(formula(numbers), numbers, x, e, f)
                block = check_shapes(block, f"{self.path}, group {name}")
                whole = np.isfinite(block.energy) & np.isfinite(block.forces).all((1, 2))
                if lost := int((~whole).sum()):
                    rejected[f"no {self.method} label (NaN)"] += lost
                if whole.any():
                    yield block.take(whole)
        if not found:
            raise DataError(f"{self.path} has no group with atomic_numbers, coordinates, {energy} and {forces}")

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
        found = False
        for name, group in groups(self.path):
            if not {"species", "coordinates", "energies", "forces"} <= set(group):
                rejected["group without species, coordinates, energies and forces"] += 1
                continue
            found = True
            where = f"{self.path}, group {name}"
            chunks = _chunks(group, "coordinates", "energies", "forces", where)
            for first, (x, e, f) in zip(range(0, len(group["coordinates"]), FRAMES_AT_ONCE), chunks, strict=True):
                species = group["species"][first : first + len(x)].astype(np.int64)
                kinds, which = np.unique(species, axis=0, return_inverse=True)
                for kind, numbers in enumerate(kinds):
                    rows = which.reshape(-1) == kind
                    yield check_shapes(_labelled(formula(numbers), numbers, x[rows], e[rows], f[rows]), where)
        if not found:
            raise DataError(f"{self.path} has no group with species, coordinates, energies and forces")

    def units(self) -> dict[str, str]:
        """Of ANI-2x's documentation."""
        return _UNITS


def _chunks(group: Any, x: str, e: str, f: str, where: str) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    count = len(group[x])
    if len(group[e]) != count or len(group[f]) != count:
        raise DataError(f"{where}: {count} geometries, {len(group[e])} energies and {len(group[f])} forces")
    for first in range(0, count, FRAMES_AT_ONCE):
        rows = slice(first, first + FRAMES_AT_ONCE)
        yield group[x][rows], group[e][rows], group[f][rows]


def _labelled(name: str, numbers: np.ndarray, x: np.ndarray, e: np.ndarray, f: np.ndarray) -> Block:
    return Block(
        group=name,
        numbers=numbers,
        positions=x.astype(np.float64),
        energy=e.reshape(-1).astype(np.float64) * HARTREE,
        forces=f.astype(np.float64) * HARTREE,
    )
