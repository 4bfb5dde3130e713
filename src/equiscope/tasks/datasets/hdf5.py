"""HDF5 files of molecules, a group for each: SPICE, ANI-1x and ANI-2x, read a bounded piece at a time.

Nothing is followed that leads out of a file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from equiscope import units
from equiscope.errors import DataError
from equiscope.files import Refused, check_size, existing, needed, readable
from equiscope.tasks.datasets.blocks import Block, formula
from equiscope.tasks.datasets.chemistry import rdkit
from equiscope.tasks.datasets.reading import PERIODIC, Reader, Reading, Rejected, block, elements, fits, pieces
from equiscope.units import HARTREE


def groups(path: str | Path) -> Iterator[tuple[str, Any]]:
    """The top groups of an HDF5 file with their names, one open at a time; see :func:`member` for what is refused."""
    h5py = needed("h5py")
    path = existing(path, "HDF5 file")
    with readable(path, "HDF5 file"), h5py.File(path, "r") as file:
        for name in file:
            if isinstance(group := member(file, name), h5py.Group):
                yield name, group


def member(group: Any, name: str) -> Any:
    """A group or dataset of a group, if it lies in the file itself and is no larger than what is stored of it.

    Raises:
        DataError: there is none, or a link leads nowhere.
        FileError: far fewer bytes than it claims. Refused: data in another file.
    """
    h5py = needed("h5py")
    where = f"{group.file.filename}, {group.name.rstrip('/')}/{name}"
    if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
        raise Refused(f"{where} is a link into another file, which is not followed")
    found = group.get(name)
    if found is None:
        raise DataError(f"{where} is a link that leads nowhere, or is damaged")
    if found.file.filename != group.file.filename:
        raise Refused(f"{where} leads into another file, which is not followed")
    if isinstance(found, h5py.Dataset):
        if found.external or found.is_virtual:
            raise Refused(f"{where} has its data in other files, which are not read")
        check_size(found.size * found.dtype.itemsize, found.id.get_storage_size(), where)
    return found


def columns(group: Any, **names: str) -> dict[str, Any]:
    """Meaning → dataset, of the names (meaning=name) that the group has; a DataError for a group that carries
    a cell.
    """
    there = set(group)
    if cell := sorted(name for name in there if name.lower() in PERIODIC):
        raise DataError(f"it has {', '.join(cell)}: a periodic set in a format of molecules is refused")
    return {meaning: member(group, name) for meaning, name in names.items() if name in there}


def read(name: str, numbers: Any, found: Mapping[str, Any], **factors: Any) -> Iterator[Block]:
    """The frames of a group whose atoms are the same in all, in blocks.

    ``name`` is that of what belongs together, ``numbers`` (N,), ``found`` "positions", "energy", "forces" → dataset;
    their lengths, shapes and kinds are compared before any is read. ``factors`` are charge and units, see
    :func:`equiscope.tasks.datasets.reading.block`.
    """
    species = elements(np.asarray(numbers))
    for rows in pieces(fits(found, len(species)), len(species)):
        yield block(name, species, **{meaning: column[rows] for meaning, column in found.items()}, **factors)


# A bracket atom of a SMILES string with a charge: [NH3+:4], [O-], [Ca+2].
_CHARGED = re.compile(r"\[[^\]]*?(\++|-+)(\d*)(?::\d+)?\]")


@dataclass(frozen=True)
class Spice(Reader):
    """A SPICE file, labelled (``dft_total_energy``, ``dft_total_gradient``) or geometries alone; a group a molecule.

    Eastman et al., Scientific Data 10, 11, 2023. The geometry files of SPICE's repository have no ``atomic_numbers``;
    there the mapped SMILES gives the atoms. Forces are minus the gradient. Units are read from every dataset's
    attribute ``units``. Groups come in the file's (alphabetical) order; ``group`` is the group's name.

    Attributes:
        energy: dataset that holds the energy; its forces are those of ``dft_total_gradient`` in either case.
    """

    RECORD = "group"
    NOTHING = "has no group with conformations and atomic_numbers (or smiles): it is no SPICE file"

    energy: str = "dft_total_energy"

    def records(self, reading: Reading[Block]) -> Iterator[tuple[str, Any]]:
        return groups(self.path)

    def parse(self, record: tuple[str, Any], reading: Reading[Block]) -> Iterator[Block]:
        name, group = record
        there, where = set(group), f"{self.path}, group {name}"
        if "conformations" not in there or not {"atomic_numbers", "smiles"} & there:
            raise Rejected("group without conformations or atoms")
        smiles = _text(np.asarray(member(group, "smiles")).reshape(-1)[0]) if "smiles" in there else ""
        found = columns(group, positions="conformations", energy=self.energy, forces="dft_total_gradient")
        unit = {meaning: _unit(column, where) for meaning, column in found.items()}
        yield from read(
            name,
            member(group, "atomic_numbers") if "atomic_numbers" in there else mapped_numbers(smiles, where),
            found,
            charge=smiles_charge(smiles) if smiles else None,
            length=units.length(unit["positions"]),
            energy_unit=units.energy(unit["energy"]) if "energy" in unit else 1.0,
            # Forces are minus the gradient.
            force_unit=-units.force(unit["forces"]) if "forces" in unit else None,
        )

    def units(self) -> dict[str, str]:
        """As the attributes of the first group that can be read say."""

        def stated(named: tuple[str, Any]) -> list[dict[str, str]]:
            where = f"{self.path}, group {named[0]}"
            found = columns(named[1], positions="conformations", energy=self.energy, gradient="dft_total_gradient")
            said = {what: _unit(dataset, where) for what, dataset in found.items()}
            return [{**said, "known from": "attributes in the file"}] if "positions" in said else []

        return next(Reading[dict[str, str]](self.path, Counter(), "group").each(groups(self.path), stated), {})


def smiles_charge(smiles: str) -> int:
    """The sum of the formal charges written in a SMILES string."""
    return sum(
        (1 if signs[0] == "+" else -1) * (int(digits) if digits else len(signs))
        for signs, digits in _CHARGED.findall(smiles)
    )


def mapped_numbers(smiles: str, where: str) -> np.ndarray:
    """(N,) atomic numbers in the order of the atom maps 1 … N of a SMILES string with explicit hydrogens.

    A DataError where RDKit cannot read it or is missing, or an atom has no map number.
    """
    Chem = rdkit("Chem")
    parameters = Chem.SmilesParserParams()
    parameters.removeHs = False
    mol = Chem.MolFromSmiles(smiles, parameters)
    atoms = [] if mol is None else sorted((a.GetAtomMapNum(), a.GetAtomicNum()) for a in mol.GetAtoms())
    if not atoms or [number for number, _ in atoms] != list(range(1, len(atoms) + 1)):
        raise DataError(f"{where}: without atomic_numbers every atom of its SMILES needs a map number: {smiles[:80]!r}")
    return np.array([z for _, z in atoms], dtype=np.int64)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _unit(dataset: Any, where: str) -> str:
    unit = dataset.attrs.get("units")
    if unit is None:
        raise Refused(f"{where}: {dataset.name} has no attribute 'units'; without it the numbers mean nothing")
    return _text(unit)


@dataclass(frozen=True)
class _Ani(Reader):
    """What the files of ANI share: ``group`` is the formula, so that isomers stay together."""

    RECORD = "group"
    UNITS: ClassVar[Mapping[str, str]] = {
        "positions": "Å",
        "energy": "hartree",
        "forces": "hartree/Å",
        "known from": "the data set's documentation (the file states none)",
    }

    def records(self, reading: Reading[Block]) -> Iterator[tuple[str, Any]]:
        return groups(self.path)


@dataclass(frozen=True)
class Ani1x(_Ani):
    """ANI-1x: a group for each formula with ``atomic_numbers`` (N,), ``coordinates`` and labels of several methods.

    Smith et al., Scientific Data 7, 134, 2020. Rows without a label (NaN: not every geometry was computed with every
    method) are counted and left out.

    Attributes:
        method: prefix of the labels: ``wb97x_dz`` (energies and forces) or ``wb97x_tz``.
    """

    method: str = "wb97x_dz"

    @property
    def NOTHING(self) -> str:  # type: ignore[override]
        """With the names that are looked for."""
        return f"has no group with atomic_numbers, coordinates, {self.method}.energy and {self.method}.forces"

    def parse(self, record: tuple[str, Any], reading: Reading[Block]) -> Iterator[Block]:
        names = {"positions": "coordinates", "energy": f"{self.method}.energy", "forces": f"{self.method}.forces"}
        group = record[1]
        if not {"atomic_numbers", *names.values()} <= set(group):
            raise Rejected(f"group without {self.method} labels")
        numbers = elements(np.asarray(member(group, "atomic_numbers")))
        for found in read(formula(numbers), numbers, columns(group, **names), energy_unit=HARTREE):
            assert found.energy is not None
            assert found.forces is not None
            whole = np.isfinite(found.energy) & np.isfinite(found.forces).all((1, 2))
            if lost := int((~whole).sum()):
                reading.rejected[f"no {self.method} label (NaN)"] += lost
            if whole.any():
                yield found.take(whole)


@dataclass(frozen=True)
class Ani2x(_Ani):
    """ANI-2x: a group for each number of atoms with ``species`` (M, N), ``coordinates``, ``energies``, ``forces``.

    Each group is split by its atoms.
    """

    NOTHING = "has no group with species, coordinates, energies and forces"

    def parse(self, record: tuple[str, Any], reading: Reading[Block]) -> Iterator[Block]:
        names = {"positions": "coordinates", "energy": "energies", "forces": "forces"}
        group = record[1]
        if not {"species", *names.values()} <= set(group):
            raise Rejected("group without species, coordinates, energies and forces")
        found, kinds = columns(group, **names), member(group, "species")
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
