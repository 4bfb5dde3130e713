"""Reader of MPtrj, relaxation frames of the Materials Project (Deng et al., Nat. Mach. Intell. 5, 1031, 2023)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equiscope import labels
from equiscope.errors import DataError
from equiscope.files import needed, opened
from equiscope.tasks.datasets.blocks import NUMBER_OF, Block
from equiscope.tasks.datasets.reading import Reader, Reading, block, reals, total_charge
from equiscope.tasks.guards import one_of
from equiscope.units import STRESS_UNITS

_DEEPEST = 1000
_STEP = np.zeros(256, np.int8)
_STEP[[ord("["), ord("{")]], _STEP[[ord("]"), ord("}")]] = 1, -1
ENERGIES = ("energy_per_atom", "uncorrected_total_energy", "corrected_total_energy")


@dataclass(frozen=True)
class MpTrj(Reader):
    """MPtrj's JSON, also compressed: ``{material: {frame: {structure, energy_per_atom, force, stress, magmom}}}``.

    ``group`` is the material's id; one material is in memory at a time. Energies are eV/atom times the number of atoms.
    Stresses are kbar with VASP's sign (positive under pressure) and are given in eV/Å³ with ASE's (positive under
    tension): σ = −s · 0.1 GPa.

    Attributes:
        energy: energy_per_atom, or one of the total energies uncorrected_ and corrected_total_energy.
    """

    NOTHING = "has no frame of MPtrj's layout"

    energy: str = "energy_per_atom"

    def __post_init__(self) -> None:
        one_of(ENERGIES, energy=self.energy)

    def records(self, reading: Reading[Block]) -> Iterator[tuple[str, Any]]:
        for name, found in items(self.path):
            yield from ((name, frame) for frame in (found.values() if isinstance(found, Mapping) else [found]))

    def parse(self, record: tuple[str, Any], reading: Reading[Block]) -> list[Block]:
        material, frame = record
        if not isinstance(frame, Mapping) or not {"structure", self.energy, "force"} <= set(frame):
            raise DataError(f"it lacks one of structure, {self.energy}, force")
        structure = frame["structure"]
        cell = reals(structure["lattice"]["matrix"], "lattice")
        species = [site["species"] for site in structure["sites"]]
        if any(len(kinds) != 1 or kinds[0].get("occu", 1) != 1 for kinds in species):
            raise DataError("a site shared by several elements, or not always occupied")
        stress = frame.get("stress")
        made = block(
            material,
            [NUMBER_OF.get(kinds[0]["element"], 0) for kinds in species],
            reals([site["abc"] for site in structure["sites"]], "positions") @ cell,
            energy=labels.meant("energy", self.energy, reals(frame[self.energy], "energy"), len(species), 0.0),
            forces=frame["force"],
            stress=None if stress is None else -reals(stress, "stress"),
            cell=cell,
            charge=total_charge(structure),
            stress_unit=STRESS_UNITS["kbar"],
        )
        return [made]

    def units(self) -> dict[str, str]:
        """Of the data set's documentation."""
        return {
            "positions": "Å",
            "energy": "eV/atom" if self.energy == "energy_per_atom" else "eV",
            "forces": "eV/Å",
            "stress": "kbar, VASP's sign",
            "known from": "the data set's documentation (the file states none)",
        }


def items(path: str | Path) -> Iterator[tuple[str, Any]]:
    """The members of a JSON file's one object, one in memory at a time; a DataError if it is none, or cut short."""
    ijson = needed("ijson")
    with opened(path, "JSON file") as file:
        yield from ijson.kvitems(_Shallow(file), "", use_float=True)


class _Shallow:
    """Reads a file and refuses nesting that a parser would fill the memory with: a path of names for every level."""

    def __init__(self, file: Any) -> None:
        self._file, self._depth = file, 0

    def read(self, size: int = -1) -> bytes:
        content: bytes = self._file.read(size)
        # Brackets inside text count too; they come in pairs, and what is odd among them is far from the limit.
        depth = self._depth + np.cumsum(_STEP[np.frombuffer(content, np.uint8)], dtype=np.int64)
        if len(depth) and depth.max() > _DEEPEST:
            raise DataError(f"nested {_DEEPEST:,} levels deep or more")
        self._depth = int(depth[-1]) if len(depth) else self._depth
        return content
