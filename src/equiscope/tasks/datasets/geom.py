"""Readers of GEOM (Axelrod, Gómez-Bombarelli, Scientific Data 9, 185, 2022) and of MiDi's split of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equiscope.errors import DataError, InputError
from equiscope.files import FileError, needed, opened
from equiscope.tasks.datasets import pickles
from equiscope.tasks.datasets.blocks import Block
from equiscope.tasks.datasets.mptrj import items
from equiscope.tasks.datasets.reading import Reading, Rejected, block, reals
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
            DataError: no such file, or nothing of this layout in it; a file that is cut short.
        """
        reading = Reading[Block](self.path, rejected, "conformer")
        return reading.all(
            self._molecules(),
            lambda named: reading.each(_conformers(named[1]), lambda found: [_crude(*named, found)]),
            "has no conformer of GEOM's layout",
        )

    def _molecules(self) -> Iterator[tuple[str, Any]]:
        msgpack = needed("msgpack")
        with opened(self.path, "msgpack stream") as file:
            # The published dicts are far larger than msgpack's default of 100 MB; a header may claim any length.
            stream = msgpack.Unpacker(
                file, strict_map_key=False, max_buffer_size=2**31 - 1, max_array_len=10**6, max_map_len=10**6
            )
            whole = 0
            for molecules in stream:
                # The unpacker stops in silence where the bytes end, also in the middle of an object.
                whole = stream.tell()
                yield from molecules.items() if isinstance(molecules, Mapping) else [("", molecules)]
            if left := file.tell() - whole:
                raise FileError(f"{self.path} is cut short: its last {left:,} bytes are no whole object")

    def units(self) -> dict[str, str]:
        """Of the data set's documentation."""
        return _UNITS


def _conformers(content: Any) -> list[Any]:
    if not isinstance(content, Mapping) or not isinstance(content.get("conformers"), list | tuple):
        raise DataError("a molecule without a list of conformers")
    return list(content["conformers"])


def _crude(smiles: str, content: Mapping[str, Any], conformer: Any) -> Block:
    rows = reals(conformer["xyz"], "xyz")
    if rows.ndim != 2 or rows.shape[1] != 4:
        raise DataError(f"xyz has shape {rows.shape}, expected rows [Z, x, y, z]")
    return block(
        str(smiles),
        rows[:, 0],
        rows[:, 1:],
        energy=conformer.get("totalenergy"),
        charge=content.get("charge"),
        energy_unit=HARTREE,
    )


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
            DataError: no such file, no JSON, or nothing of this layout; a pickle that asks to run something.
        """
        reading, folder = Reading[Block](self.path, rejected, "molecule"), Path(self.path).parent
        return reading.all(
            items(self.path),
            lambda named: reading.each(_pickled(folder, named[1]), lambda found: [_folder(*named, found)]),
            "leads to no conformer",
        )

    def units(self) -> dict[str, str]:
        """Of the data set's documentation."""
        return _UNITS


def _pickled(folder: Path, about: Any) -> list[Any]:
    name = about.get("pickle_path") if isinstance(about, Mapping) else None
    if not name:
        raise Rejected("molecule without pickle_path")
    file = (folder / str(name)).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise Rejected("pickle_path outside the folder")
    if not file.is_file():
        raise Rejected("pickle that is missing")
    return _conformers(pickles.load(file))


def _folder(smiles: str, about: Mapping[str, Any], conformer: Any) -> Block:
    return _rdkit_block(str(smiles), conformer.get("rd_mol"), conformer.get("totalenergy"), about.get("charge"))


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
        reading, content = Reading[Block](self.path, rejected, "molecule"), pickles.load(self.path)
        return reading.all(
            content if isinstance(content, list) else [],
            lambda entry: reading.each(self._first(entry), lambda mol: [_rdkit_block(str(entry[0]), mol)]),
            "is no list of (SMILES, molecules)",
        )

    def _first(self, entry: Any) -> list[Any]:
        if not (isinstance(entry, tuple | list) and len(entry) == 2 and isinstance(entry[1], list | tuple)):
            raise Rejected("entry that is not (SMILES, molecules)")
        return list(entry[1][: self.conformers])

    def units(self) -> dict[str, str]:
        """RDKit's own."""
        return {"positions": "Å", "known from": "RDKit's convention"}


def _rdkit_block(group: str, stored: Any, energy: Any = None, charge: Any = None) -> Block:
    """The block of one pickled molecule; its formal charges where no charge is stated."""
    if not isinstance(stored, pickles.MoleculeBytes):
        raise Rejected("conformer without molecule")
    mol = stored.molecule()
    if not mol.GetNumConformers():
        raise Rejected("molecule without conformer")
    return block(
        group,
        [atom.GetAtomicNum() for atom in mol.GetAtoms()],
        mol.GetConformer().GetPositions(),
        energy=energy,
        charge=sum(atom.GetFormalCharge() for atom in mol.GetAtoms()) if charge is None else charge,
        energy_unit=HARTREE,
    )
