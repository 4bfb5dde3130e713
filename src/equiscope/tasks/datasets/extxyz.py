"""Reader of extended XYZ files, frame by frame; the file cannot say its units, so the user must."""

from __future__ import annotations

import gzip
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equiscope import units
from equiscope.errors import DataError, InputError
from equiscope.tasks.datasets.blocks import Block, check_shapes, existing, formula, needed, stress_matrix


@dataclass(frozen=True)
class ExtXyz:
    """An extended XYZ file (``.xyz``, ``.extxyz``, also gzipped).

    Attributes:
        path: of the file.
        energy_unit: of energies, required: eV, Hartree, kcal/mol, …
        length_unit: of positions and cells, required: Å, Bohr, nm, …
        force_unit: of forces, such as hartree/bohr; ``energy_unit``/``length_unit`` if None.
        energy: key of the comment line; what ASE reads as the result if None.
        forces: column; what ASE reads as the result if None.
        cluster: key of the comment line that says what belongs together (a molecule's name); the formula if None.
    """

    path: str | Path
    energy_unit: str | None = None
    length_unit: str | None = None
    force_unit: str | None = None
    energy: str | None = None
    forces: str | None = None
    cluster: str | None = None

    def __post_init__(self) -> None:
        for name, table in (("energy_unit", units.ENERGY_UNITS), ("length_unit", units.LENGTH_UNITS)):
            if getattr(self, name) is None:
                raise InputError(
                    f"an extended XYZ file does not say its units: give {name}=…, one of {', '.join(table)}"
                )
            units.factor(getattr(self, name), table)
        units.force(self._force_unit)

    @property
    def _force_unit(self) -> str:
        return self.force_unit or f"{self.energy_unit}/{self.length_unit}"

    def blocks(self, rejected: Counter[str]) -> Iterator[Block]:
        """One frame a block, in file order; ``charge`` from the comment line where it says one.

        Raises:
            DataError: no such file, or no frame in it that can be read.
        """
        read_xyz = needed("ase.io.extxyz", "ase").read_xyz
        found = False
        for number, text in enumerate(frame_texts(self.path)):
            try:
                atoms = next(iter(read_xyz(io.StringIO(text), 0)))
            except Exception:
                # ASE raises many types for damaged frames; whichever it was, the frame is counted.
                rejected["frame that cannot be read"] += 1
                continue
            found = True
            yield check_shapes(self._block(atoms), f"{self.path}, frame {number}")
        if not found:
            raise DataError(f"{self.path} has no frame that can be read as extended XYZ")

    def _block(self, atoms: Any) -> Block:
        length, energy = units.length(self.length_unit or ""), units.energy(self.energy_unit or "")
        value, forces, stress = (self._label(atoms, name) for name in ("energy", "forces", "stress"))
        if stress is not None:
            stress = stress_matrix(stress)[None] * (energy / length**3)
        return Block(
            group=str(atoms.info[self.cluster]) if self.cluster in atoms.info else formula(atoms.numbers),
            numbers=np.asarray(atoms.numbers, dtype=np.int64),
            positions=np.asarray(atoms.positions, dtype=np.float64)[None] * length,
            energy=None if value is None else np.asarray(value, dtype=np.float64).reshape(1) * energy,
            forces=None if forces is None else np.asarray(forces, np.float64)[None] * units.force(self._force_unit),
            stress=stress,
            cell=np.asarray(atoms.cell, dtype=np.float64)[None] * length if atoms.pbc.any() else None,
            charge=total_charge(atoms.info),
        )

    def _label(self, atoms: Any, name: str) -> Any:
        key = getattr(self, name, None)
        if key is None:
            return None if atoms.calc is None else atoms.calc.results.get(name)
        stored = atoms.arrays if name == "forces" else atoms.info
        if key in stored:
            return stored[key]
        # ASE moves the keys it knows to the calculator.
        return None if atoms.calc is None else atoms.calc.results.get(key)

    def units(self) -> dict[str, str]:
        """As the user states them."""
        return {
            "positions": str(self.length_unit),
            "energy": str(self.energy_unit),
            "forces": self._force_unit,
            "known from": "the user (the file states none)",
        }


def frame_texts(path: str | Path) -> Iterator[str]:
    """The text of each frame: a line with the number of atoms N, a comment, N lines and ASE's VEC lines if any.

    Raises:
        DataError: no such file, or a line with something else where a number of atoms must stand.
    """
    path = existing(path, "extended XYZ file")
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open("rt", encoding="utf-8") as file:
        number, line = 1, file.readline()
        while line:
            if not line.strip():
                number, line = number + 1, file.readline()
                continue
            if not line.strip().isdigit():
                raise DataError(f"{path}, line {number}: expected a number of atoms, got {line.strip()[:60]!r}")
            atoms = int(line)
            lines = [line, *(file.readline() for _ in range(atoms + 1))]
            number, line = number + atoms + 2, file.readline()
            while line.startswith("VEC"):
                lines.append(line)
                number, line = number + 1, file.readline()
            yield "".join(lines)


def total_charge(info: Any) -> int | None:
    """The total charge that a structure's info states, if any."""
    for key in ("charge", "total_charge"):
        value = info.get(key)
        if isinstance(value, int | float | np.number) and float(value).is_integer():
            return int(value)
    return None
