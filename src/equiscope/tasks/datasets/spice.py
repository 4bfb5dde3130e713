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
from equiscope.tasks.datasets.blocks import FRAMES_AT_ONCE, Block, check_shapes, existing, needed
from equiscope.tasks.datasets.chemistry import rdkit

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
        found = False
        for name, group in groups(self.path):
            if "conformations" not in group or not {"atomic_numbers", "smiles"} & set(group):
                rejected["group without conformations or atoms"] += 1
                continue
            found = True
            yield from self._read(name, group)
        if not found:
            raise DataError(
                f"{self.path} has no group with conformations and atomic_numbers (or smiles): it is no SPICE file"
            )

    def _read(self, name: str, group: Any) -> Iterator[Block]:
        where = f"{self.path}, group {name}"
        smiles = _text(group["smiles"]) if "smiles" in group else ""
        stated = group.get("atomic_numbers")
        numbers = mapped_numbers(smiles, where) if stated is None else np.asarray(stated, dtype=np.int64)
        charge = smiles_charge(smiles) if smiles else None
        positions = group["conformations"]
        scale = units.length(_unit(positions, where))
        gradient, energy = group.get("dft_total_gradient"), group.get(self.energy)
        force = None if gradient is None else -units.force(_unit(gradient, where))
        label = None if energy is None else units.energy(_unit(energy, where))
        for first in range(0, positions.shape[0], FRAMES_AT_ONCE):
            rows = slice(first, first + FRAMES_AT_ONCE)
            block = Block(
                group=name,
                numbers=numbers,
                positions=positions[rows].astype(np.float64) * scale,
                energy=None if label is None else energy[rows].astype(np.float64) * label,
                forces=None if force is None else gradient[rows].astype(np.float64) * force,
                charge=charge,
            )
            yield check_shapes(block, where)

    def units(self) -> dict[str, str]:
        """As the attributes of the first group say."""
        for name, group in groups(self.path):
            where = f"{self.path}, group {name}"
            names = {"positions": "conformations", "energy": self.energy, "gradient": "dft_total_gradient"}
            read = {what: _unit(group[key], where) for what, key in names.items() if key in group}
            return {**read, "known from": "attributes in the file"}
        return {}


def groups(path: str | Path) -> Iterator[tuple[str, Any]]:
    """The top groups of an HDF5 file with their names, one open at a time.

    Raises:
        DataError: no such file, or no HDF5 file.
    """
    h5py = needed("h5py")
    existing(path, "HDF5 file")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"{path} is no HDF5 file, or is damaged: {error}") from error
    with file:
        for name in file:
            if isinstance(group := file[name], h5py.Group):
                yield name, group


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
        raise DataError(f"{where}: {dataset.name} has no attribute 'units'; without it the numbers mean nothing")
    return unit.decode() if isinstance(unit, bytes) else str(unit)
