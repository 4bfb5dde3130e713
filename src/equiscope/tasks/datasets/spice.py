"""Reader of SPICE's HDF5 files (Eastman et al., Scientific Data 10, 11, 2023): a group for each molecule or complex."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equiscope import units
from equiscope.errors import DataError
from equiscope.files import Refused
from equiscope.tasks.datasets import hdf5
from equiscope.tasks.datasets.blocks import Block
from equiscope.tasks.datasets.chemistry import rdkit
from equiscope.tasks.datasets.reading import Reading, Rejected

# A bracket atom of a SMILES string with a charge: [NH3+:4], [O-], [Ca+2].
_CHARGED = re.compile(r"\[[^\]]*?(\++|-+)(\d*)(?::\d+)?\]")


@dataclass(frozen=True)
class Spice:
    """A SPICE file, labelled (``dft_total_energy``, ``dft_total_gradient``) or geometries alone.

    The geometry files of SPICE's repository have no ``atomic_numbers``; there the mapped SMILES gives the atoms.

    Forces are minus the gradient. Units are read from every dataset's attribute ``units``.

    Attributes:
        path: of the ``.hdf5`` file.
        energy: dataset that holds the energy; its forces are those of ``dft_total_gradient`` in either case.
    """

    path: str | Path
    energy: str = "dft_total_energy"

    def blocks(self, rejected: Counter[str]) -> Iterator[Block]:
        """Groups in the file's (alphabetical) order; ``group`` is the group's name.

        Raises:
            DataError: no HDF5 file, no group of SPICE's layout in it, a dataset without units.
        """
        return Reading[Block](self.path, rejected, "group").all(
            hdf5.groups(self.path),
            lambda named: self._read(*named),
            "has no group with conformations and atomic_numbers (or smiles): it is no SPICE file",
        )

    def _read(self, name: str, group: Any) -> Iterator[Block]:
        there, where = set(group), f"{self.path}, group {name}"
        if "conformations" not in there or not {"atomic_numbers", "smiles"} & there:
            raise Rejected("group without conformations or atoms")
        smiles = _text(hdf5.member(group, "smiles")) if "smiles" in there else ""
        names = {"positions": "conformations", "energy": self.energy, "forces": "dft_total_gradient"}
        found = hdf5.columns(group, names)
        unit = {meaning: _unit(column, where) for meaning, column in found.items()}
        yield from hdf5.read(
            name,
            hdf5.member(group, "atomic_numbers") if "atomic_numbers" in there else mapped_numbers(smiles, where),
            found,
            charge=smiles_charge(smiles) if smiles else None,
            length=units.length(unit["positions"]),
            energy_unit=units.energy(unit["energy"]) if "energy" in unit else 1.0,
            # Forces are minus the gradient.
            force_unit=-units.force(unit["forces"]) if "forces" in unit else None,
        )

    def units(self) -> dict[str, str]:
        """As the attributes of the first group that can be read say."""
        names = {"positions": "conformations", "energy": self.energy, "gradient": "dft_total_gradient"}

        def parse(named: tuple[str, Any]) -> list[dict[str, str]]:
            where = f"{self.path}, group {named[0]}"
            found = {what: _unit(dataset, where) for what, dataset in hdf5.columns(named[1], names).items()}
            return [{**found, "known from": "attributes in the file"}] if "positions" in found else []

        reading = Reading[dict[str, str]](self.path, Counter(), "group")
        return next(reading.each(hdf5.groups(self.path), parse), {})


def smiles_charge(smiles: str) -> int:
    """The sum of the formal charges written in a SMILES string."""
    return sum(
        (1 if signs[0] == "+" else -1) * (int(digits) if digits else len(signs))
        for signs, digits in _CHARGED.findall(smiles)
    )


def mapped_numbers(smiles: str, where: str) -> np.ndarray:
    """(N,) atomic numbers in the order of the atom maps 1 … N of a SMILES string with explicit hydrogens.

    Raises:
        DataError: RDKit cannot read it, or is not installed; an atom without a map number.
    """
    Chem = rdkit("Chem")
    parameters = Chem.SmilesParserParams()
    parameters.removeHs = False
    mol = Chem.MolFromSmiles(smiles, parameters)
    atoms = [] if mol is None else sorted((a.GetAtomMapNum(), a.GetAtomicNum()) for a in mol.GetAtoms())
    if not atoms or [number for number, _ in atoms] != list(range(1, len(atoms) + 1)):
        raise DataError(f"{where}: without atomic_numbers every atom of its SMILES needs a map number: {smiles[:80]!r}")
    return np.array([z for _, z in atoms], dtype=np.int64)


def _text(dataset: Any) -> str:
    value = np.asarray(dataset).reshape(-1)[0]
    return value.decode() if isinstance(value, bytes) else str(value)


def _unit(dataset: Any, where: str) -> str:
    unit = dataset.attrs.get("units")
    if unit is None:
        raise Refused(f"{where}: {dataset.name} has no attribute 'units'; without it the numbers mean nothing")
    return unit.decode() if isinstance(unit, bytes) else str(unit)
