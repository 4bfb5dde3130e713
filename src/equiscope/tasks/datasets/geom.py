"""Readers of GEOM (Axelrod, Gómez-Bombarelli, Scientific Data 9, 185, 2022) and of MiDi's split of it.

Their pickles are read without executing anything: containers, numbers and RDKit molecules, nothing else.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from equiscope.errors import DataError
from equiscope.files import FileError, Refused, existing, needed, opened
from equiscope.tasks.datasets.blocks import Block
from equiscope.tasks.datasets.chemistry import rdkit
from equiscope.tasks.datasets.mptrj import items
from equiscope.tasks.datasets.reading import Reader, Reading, Rejected, block, reals
from equiscope.tasks.guards import at_least
from equiscope.units import HARTREE


class _Forbidden(pickle.UnpicklingError):
    """A pickle asks for what could run a program."""


class MoleculeBytes:
    """Stands for an RDKit molecule while a pickle is read: its bytes (``content``) are kept, RDKit is not called."""

    __slots__ = ("content",)

    def __init__(self, content: bytes) -> None:
        if not isinstance(content, bytes):
            raise _Forbidden(f"a molecule made of {type(content).__name__}, not of bytes")
        self.content = content

    def __setstate__(self, state: Any) -> None:
        """RDKit adds an empty state; anything in it is left out."""

    def molecule(self) -> Any:
        """The RDKit molecule; a DataError where RDKit cannot read the bytes, or is not installed."""
        Chem = rdkit("Chem")
        try:
            return Chem.Mol(self.content)
        except Exception as error:
            raise DataError(f"a molecule of the pickle is damaged: {error}") from error


def _encode(text: str, encoding: str) -> bytes:
    """What Python 2 pickles call ``_codecs.encode`` for: bytes written as latin-1 text."""
    if not isinstance(text, str) or encoding != "latin1":
        raise _Forbidden(f"encode({type(text).__name__}, {encoding!r})")
    return text.encode("latin1")


# A name of a pickle -> what stands for it here; every other name is refused, dotted ones included.
_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("rdkit.Chem.rdchem", "Mol"): MoleculeBytes,
    ("_codecs", "encode"): _encode,
}


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _ALLOWED.get((module, name))
        if found is None:
            raise _Forbidden(f"it asks for {module}.{name}")
        return found

    def persistent_load(self, pid: Any) -> Any:
        raise _Forbidden("it asks for an object outside the file")


def load_pickle(path: str | Path) -> Any:
    """The content of a pickle of lists, dicts, numbers, text and RDKit molecules (as :class:`MoleculeBytes`).

    A pickle is a program. This reader knows two names, and both stand for functions of this file that only keep
    bytes: whatever else a pickle asks for is refused before it could be called. A pickle is one object, so its
    memory is about the size of the file.

    Raises:
        Refused: it asks for anything else than the above. DataError: no such file, or a damaged one.
    """
    path = existing(path, "pickle")
    with opened(path, "pickle") as file:
        try:
            return _Restricted(file).load()
        except _Forbidden as error:
            raise Refused(
                f"{path} is refused: {error}, and a pickle can run any program when it is opened. Only lists, dicts, "
                "numbers, text and RDKit molecules are read; if you trust the file, write its geometries as "
                "extended XYZ yourself and read that"
            ) from error
        except Exception as error:
            raise DataError(f"{path} is no sound pickle: {type(error).__name__}: {error}") from error


_UNITS = {"positions": "Å", "energy": "hartree (GFN2-xTB)", "known from": "the data set's documentation"}


@dataclass(frozen=True)
class GeomCrude(Reader):
    """GEOM's ``*_crude.msgpack``: a stream of dicts, SMILES → conformers with ``xyz`` rows [Z, x, y, z] in Å.

    One conformer a block, with its total energy; ``group`` is the SMILES. One dict (about a thousand molecules in the
    published file) is in memory at a time.
    """

    RECORD, NOTHING, UNITS = "conformer", "has no conformer of GEOM's layout", _UNITS

    def records(self, reading: Reading[Block]) -> Iterator[tuple[str, Any]]:
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

    def parse(self, record: tuple[str, Any], reading: Reading[Block]) -> Iterator[Block]:
        return reading.each(_conformers(record[1]), lambda found: [_crude(*record, found)])


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
class GeomFolder(Reader):
    """GEOM's ``rdkit_folder``: ``summary_*.json`` and a pickle of RDKit conformers for each molecule.

    ``path`` is that of the summary, for example ``rdkit_folder/summary_drugs.json``; ``pickle_path`` in it is beside
    it. One conformer a block, with its total energy; ``group`` is the SMILES. One pickle, read by :func:`load_pickle`,
    is in memory at a time.
    """

    RECORD, NOTHING, UNITS = "molecule", "leads to no conformer", _UNITS

    def records(self, reading: Reading[Block]) -> Iterator[tuple[str, Any]]:
        return items(self.path)

    def parse(self, record: tuple[str, Any], reading: Reading[Block]) -> Iterator[Block]:
        smiles, about = record
        conformers = _pickled(Path(self.path).parent, about)

        def made(found: Any) -> list[Block]:
            return [_rdkit_block(str(smiles), found.get("rd_mol"), found.get("totalenergy"), about.get("charge"))]

        return reading.each(conformers, made)


def _pickled(folder: Path, about: Any) -> list[Any]:
    name = about.get("pickle_path") if isinstance(about, Mapping) else None
    if not name:
        raise Rejected("molecule without pickle_path")
    file = (folder / str(name)).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise Rejected("pickle_path outside the folder")
    if not file.is_file():
        raise Rejected("pickle that is missing")
    return _conformers(load_pickle(file))


@dataclass(frozen=True)
class Midi(Reader):
    """MiDi's ``{train,val,test}_data.pickle``: a list of (SMILES, [RDKit molecule with one conformer, …]).

    One conformer a block, without labels; ``group`` is the SMILES. Read by :func:`load_pickle`; the file is one pickled
    object, so memory grows with it: about the size of the file.

    Attributes:
        conformers: of one molecule, the first so many (VoxMol uses five).
    """

    RECORD, NOTHING = "molecule", "is no list of (SMILES, molecules)"
    UNITS: ClassVar[Mapping[str, str]] = {"positions": "Å", "known from": "RDKit's convention"}

    conformers: int = 5

    def __post_init__(self) -> None:
        at_least(1, conformers=self.conformers)

    def records(self, reading: Reading[Block]) -> list[Any]:
        content = load_pickle(self.path)
        return content if isinstance(content, list) else []

    def parse(self, record: Any, reading: Reading[Block]) -> Iterator[Block]:
        if not (isinstance(record, tuple | list) and len(record) == 2 and isinstance(record[1], list | tuple)):
            raise Rejected("entry that is not (SMILES, molecules)")
        return reading.each(record[1][: self.conformers], lambda mol: [_rdkit_block(str(record[0]), mol)])


def _rdkit_block(group: str, stored: Any, energy: Any = None, charge: Any = None) -> Block:
    """The block of one pickled molecule; its formal charges where no charge is stated."""
    if not isinstance(stored, MoleculeBytes):
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
