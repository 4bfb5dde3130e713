"""Reader of extended XYZ files, frame by frame; the file cannot say its units, so the user must."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from equiscope import labels, units
from equiscope.errors import InputError
from equiscope.files import frame_texts, needed
from equiscope.tasks.datasets.blocks import Block, formula
from equiscope.tasks.datasets.reading import Reader, Reading, block, reals, stress_matrix, total_charge


@dataclass(frozen=True)
class ExtXyz(Reader):
    """An extended XYZ file (``.xyz``, ``.extxyz``, also compressed with gzip, bzip2, xz or Zstandard), a frame a block.

    Labels that are named as something else are converted: gradients, energies per atom, virials
    (:mod:`equiscope.labels`); where a frame has no such label as ASE reads it, one so named is taken.

    Attributes:
        energy_unit: of energies, required: eV, Hartree, kcal/mol, …
        length_unit: of positions and cells, required: Å, Bohr, nm, …
        force_unit: of forces, such as hartree/bohr; ``energy_unit``/``length_unit`` if None.
        energy: key of the comment line; what ASE reads as the result if None.
        forces: column; what ASE reads as the result if None.
        cluster: key of the comment line that says what belongs together (a molecule's name); the formula if None.
    """

    NOTHING = "has no frame that can be read as extended XYZ"

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

    def records(self, reading: Reading[Block]) -> Iterator[str]:
        needed("ase.io.extxyz", "ase")
        return frame_texts(self.path, reading.rejected)

    def parse(self, record: str, reading: Reading[Block]) -> list[Block]:
        atoms = next(iter(needed("ase.io.extxyz", "ase").read_xyz(io.StringIO(record), 0)))
        made = block(
            str(atoms.info[self.cluster]) if self.cluster in atoms.info else formula(atoms.numbers),
            atoms.numbers,
            atoms.positions,
            **{name: self._label(atoms, name) for name in ("energy", "forces", "stress")},
            cell=atoms.cell.array if atoms.pbc.any() else None,
            charge=total_charge(atoms.info),
            length=units.length(self.length_unit or ""),
            energy_unit=units.energy(self.energy_unit or ""),
            force_unit=units.force(self._force_unit),
        )
        return [made]

    def _label(self, atoms: Any, name: str) -> Any:
        """A label in the file's units, converted where its name says that it is something else."""
        key = getattr(self, name, None)
        results = {} if atoms.calc is None else atoms.calc.results
        stored: Mapping[str, Any] = atoms.arrays if name == "forces" else atoms.info
        if key is None and name not in results:
            key = next((other for other in stored if labels.kind(name, other)), None)
        # ASE moves the keys it knows to the calculator.
        value = stored.get(key, results.get(key)) if key is not None else results.get(name)
        if value is None or not labels.kind(name, key):
            return value
        value = stress_matrix(value) if name == "stress" else reals(value, name)
        return labels.meant(name, key, value, len(atoms), atoms.get_volume() if atoms.cell.rank == 3 else 0.0)

    def units(self) -> dict[str, str]:
        """As the user states them."""
        return {
            "positions": str(self.length_unit),
            "energy": str(self.energy_unit),
            "forces": self._force_unit,
            "known from": "the user (the file states none)",
        }
