"""Reader of MPtrj, relaxation frames of the Materials Project (Deng et al., Nat. Mach. Intell. 5, 1031, 2023)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equiscope.errors import DataError, InputError
from equiscope.tasks.datasets.blocks import NUMBER_OF, Block, check_shapes, existing, needed
from equiscope.units import STRESS_UNITS

ENERGIES = ("energy_per_atom", "uncorrected_total_energy", "corrected_total_energy")


@dataclass(frozen=True)
class MpTrj:
    """MPtrj's JSON: ``{material: {frame: {structure, energy_per_atom, force, stress, magmom}}}``.

    One material is in memory at a time. Energies are eV/atom times the number of atoms. Stresses are kbar with
    VASP's sign (positive under pressure) and are given in eV/Å³ with ASE's (positive under tension): σ = −s · 0.1 GPa.

    Attributes:
        path: of the ``.json`` file.
        energy: energy_per_atom, or one of the total energies uncorrected_ and corrected_total_energy.
    """

    path: str | Path
    energy: str = "energy_per_atom"

    def __post_init__(self) -> None:
        if self.energy not in ENERGIES:
            raise InputError(f"energy must be one of {', '.join(ENERGIES)}, got {self.energy!r}")

    def blocks(self, rejected: Counter[str]) -> Iterator[Block]:
        """One frame a block, in file order; ``group`` is the material's id.

        Raises:
            DataError: no such file, or no JSON of this layout.
        """
        ijson = needed("ijson")
        found = False
        with existing(self.path, "MPtrj file").open("rb") as file:
            try:
                for material, frames in ijson.kvitems(file, "", use_float=True):
                    for block in self._material(material, frames, rejected):
                        found = True
                        yield block
            except ijson.JSONError as error:
                raise DataError(f"{self.path} is no JSON, or is cut short: {error}") from error
        if not found:
            raise DataError(f"{self.path} has no frame of MPtrj's layout (left out: {dict(rejected)})")

    def _material(self, material: str, frames: Any, rejected: Counter[str]) -> Iterator[Block]:
        for frame in frames.values() if isinstance(frames, Mapping) else ():
            try:
                block = check_shapes(_block(material, frame, self.energy), f"{self.path}, material {material}")
            except (DataError, KeyError, IndexError, TypeError, ValueError):
                rejected["frame without structure or labels"] += 1
                continue
            yield block

    def units(self) -> dict[str, str]:
        """Of the data set's documentation."""
        return {
            "positions": "Å",
            "energy": "eV/atom" if self.energy == "energy_per_atom" else "eV",
            "forces": "eV/Å",
            "stress": "kbar, VASP's sign",
            "known from": "the data set's documentation (the file states none)",
        }


def _block(material: str, frame: Mapping[str, Any], energy: str) -> Block:
    structure = frame["structure"]
    cell = np.array(structure["lattice"]["matrix"], dtype=np.float64)
    sites = structure["sites"]
    elements = [site["species"] for site in sites]
    if any(len(species) != 1 for species in elements):
        raise ValueError("a site shared by several elements")
    value = float(frame[energy]) * (len(sites) if energy == "energy_per_atom" else 1)
    stress = frame.get("stress")
    return Block(
        group=material,
        numbers=np.array([NUMBER_OF[species[0]["element"]] for species in elements], dtype=np.int64),
        positions=(np.array([site["abc"] for site in sites], dtype=np.float64) @ cell)[None],
        energy=np.array([value]),
        forces=np.array(frame["force"], dtype=np.float64)[None],
        stress=None if stress is None else -np.array(stress, dtype=np.float64)[None] * STRESS_UNITS["kbar"],
        cell=cell[None],
    )
