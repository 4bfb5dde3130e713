"""Readers of GEOM (Axelrod, Gómez-Bombarelli, Scientific Data 9, 185, 2022) and of MiDi's split of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equiscope.errors import DataError, InputError
from equiscope.tasks.datasets import pickles
from equiscope.tasks.datasets.blocks import Block, check_shapes, existing, needed
from equiscope.units import HARTREE

_UNITS = {"positions": "Å", "energy": "hartree (GFN2-xTB)", "known from": "the data set's documentation"}


@dataclass(frozen=True)
class GeomCrude:
    """GEOM's ``*_crude.msgpack``: a stream of dicts, SMILES → conformers with ``xyz`` rows [Z, x, y, z] in Å.

    One dict (about a thousand molecules in the published file) is in memory at a time.

    Attributes:
        path: of the ``.msgpack`` file.
    """

    path: str | Path

    def blocks(self, rejected: Counter[str]) -> Iterator[Block]:
        """One conformer a block, with its total energy; ``group`` is the SMILES.

        Raises:
            DataError: no such file, or nothing of this layout in it.
        """
        msgpack = needed("msgpack")
        found = False
        with existing(self.path, "GEOM msgpack file").open("rb") as file:
            # The published dicts are far larger than msgpack's default of 100 MB.
            stream = msgpack.Unpacker(file, strict_map_key=False, max_buffer_size=2**31 - 1)
            try:
                for molecules in stream:
                    for block in _crude(molecules, str(self.path), rejected):
                        found = True
                        yield block
            except (msgpack.UnpackException, ValueError) as error:
                raise DataError(f"{self.path} is no msgpack stream, or is cut short: {error}") from error
        if not found:
            raise DataError(f"{self.path} has no conformer of GEOM's layout (left out: {dict(rejected)})")

    def units(self) -> dict[str, str]:
        """Of the data set's documentation."""
        return _UNITS


def _crude(molecules: Any, where: str, rejected: Counter[str]) -> Iterator[Block]:
    if not isinstance(molecules, Mapping):
        rejected["object that is no dict of molecules"] += 1
        return
    for smiles, content in molecules.items():
        for conformer in content.get("conformers", ()) if isinstance(content, Mapping) else ():
            try:
                rows = np.array(conformer["xyz"], dtype=np.float64)
                energy = conformer.get("totalenergy")
                block = Block(
                    group=str(smiles),
                    numbers=rows[:, 0].astype(np.int64),
                    positions=rows[None, :, 1:],
                    energy=None if energy is None else np.array([float(energy) * HARTREE]),
                    charge=content.get("charge"),
                )
                yield check_shapes(block, where)
            except (DataError, KeyError, IndexError, TypeError, ValueError):
                rejected["conformer that cannot be read"] += 1


@dataclass(frozen=True)
class GeomFolder:
    """GEOM's ``rdkit_folder``: ``summary_*.json`` and a pickle of RDKit conformers for each molecule.

    The pickles are read by :mod:`equiscope.tasks.datasets.pickles`, which executes nothing; one is in memory at a time.

    Attributes:
        path: of the summary, for example ``rdkit_folder/summary_drugs.json``; ``pickle_path`` in it is beside it.
    """

    path: str | Path

    def blocks(self, rejected: Counter[str]) -> Iterator[Block]:
        """One conformer a block, with its total energy; ``group`` is the SMILES.

        Raises:
            DataError: no such file, no JSON, or nothing of this layout.
        """
        ijson = needed("ijson")
        path, found = existing(self.path, "GEOM summary"), False
        with path.open("rb") as file:
            try:
                for smiles, about in ijson.kvitems(file, "", use_float=True):
                    for block in self._molecule(path.parent, smiles, about, rejected):
                        found = True
                        yield block
            except ijson.JSONError as error:
                raise DataError(f"{path} is no JSON, or is cut short: {error}") from error
        if not found:
            raise DataError(f"{path} leads to no conformer (left out: {dict(rejected)})")

    def _molecule(self, folder: Path, smiles: str, about: Any, rejected: Counter[str]) -> Iterator[Block]:
        name = about.get("pickle_path") if isinstance(about, Mapping) else None
        if not name:
            rejected["molecule without pickle_path"] += 1
            return
        file = (folder / str(name)).resolve()
        if not file.is_relative_to(folder.resolve()):
            rejected["pickle_path outside the folder"] += 1
            return
        if not file.is_file():
            rejected["pickle that is missing"] += 1
            return
        content = pickles.load(file)
        for conformer in content.get("conformers", ()) if isinstance(content, Mapping) else ():
            energy = conformer.get("totalenergy")
            yield from _rdkit_block(smiles, conformer.get("rd_mol"), energy, about.get("charge"), rejected)

    def units(self) -> dict[str, str]:
        """Of the data set's documentation."""
        return _UNITS


@dataclass(frozen=True)
class Midi:
    """MiDi's ``{train,val,test}_data.pickle``: a list of (SMILES, [RDKit molecule with one conformer, …]).

    Read by :mod:`equiscope.tasks.datasets.pickles`, which executes nothing. The file is one pickled object, so memory
    grows with it: about the size of the file.

    Attributes:
        path: of the pickle.
        conformers: of one molecule, the first so many (VoxMol uses five).
    """

    path: str | Path
    conformers: int = 5

    def __post_init__(self) -> None:
        if self.conformers < 1:
            raise InputError(f"conformers must be at least 1, got {self.conformers}")

    def blocks(self, rejected: Counter[str]) -> Iterator[Block]:
        """One conformer a block, without labels; ``group`` is the SMILES.

        Raises:
            DataError: no such file, a pickle with anything else in it, or another layout.
        """
        found = False
        content = pickles.load(self.path)
        for entry in content if isinstance(content, list) else ():
            if not (isinstance(entry, tuple | list) and len(entry) == 2 and isinstance(entry[1], list | tuple)):
                rejected["entry that is not (SMILES, molecules)"] += 1
                continue
            for mol in entry[1][: self.conformers]:
                for block in _rdkit_block(str(entry[0]), mol, None, None, rejected):
                    found = True
                    yield block
        if not found:
            raise DataError(f"{self.path} is no list of (SMILES, molecules) (left out: {dict(rejected)})")

    def units(self) -> dict[str, str]:
        """RDKit's own."""
        return {"positions": "Å", "known from": "RDKit's convention"}


def _rdkit_block(group: str, stored: Any, energy: Any, charge: Any, rejected: Counter[str]) -> Iterator[Block]:
    """The block of one pickled molecule; nothing where it has no geometry."""
    if not isinstance(stored, pickles.MoleculeBytes):
        rejected["conformer without molecule"] += 1
        return
    try:
        mol = stored.molecule()
    except DataError:
        rejected["molecule that RDKit cannot read"] += 1
        return
    if not mol.GetNumConformers():
        rejected["molecule without conformer"] += 1
        return
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], dtype=np.int64)
    total = sum(atom.GetFormalCharge() for atom in mol.GetAtoms()) if charge is None else int(charge)
    yield check_shapes(
        Block(
            group=group,
            numbers=numbers,
            positions=np.array(mol.GetConformer().GetPositions(), dtype=np.float64)[None],
            energy=None if energy is None else np.array([float(energy) * HARTREE]),
            charge=total,
        ),
        group,
    )
