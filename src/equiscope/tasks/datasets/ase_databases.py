"""Readers of ASE databases: SQLite (``.db``) and LMDB (``.aselmdb``, as OMol25 and OMat24 are published)."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from equiscope.errors import DataError
from equiscope.files import FileError, existing, needed, readable
from equiscope.tasks.datasets.blocks import Block, formula
from equiscope.tasks.datasets.reading import Reader, Reading, block, elements, total_charge

_LARGEST_ROW = 1 << 28


@dataclass(frozen=True)
class AseDatabase(Reader):
    """An ASE database file (``.db``, ``.json``), or a folder of LMDB files or one of them (``.aselmdb``).

    One frame a block, in the order of the row numbers; periodic rows carry their cell. LMDB files are read directly
    (compressed JSON rows): neither ASE nor pickle takes part.

    Attributes:
        cluster: key of a row's ``key_value_pairs`` or ``data`` that says what belongs together; the formula if None.
    """

    RECORD, NOTHING = "row", "has no row that can be read"
    UNITS: ClassVar[Mapping[str, str]] = {
        "positions": "Å",
        "energy": "eV",
        "forces": "eV/Å",
        "stress": "eV/Å³",
        "known from": "the convention of ASE's databases",
    }

    cluster: str | None = None

    def records(self, reading: Reading[Block]) -> Iterator[Callable[[], Any]]:
        path = existing(self.path, "ASE database")
        files = sorted(path.glob("*.aselmdb")) if path.is_dir() else [path]
        if not files:
            raise DataError(f"the folder {path} has no .aselmdb file")
        for file in files:
            yield from _lmdb_rows(file) if file.suffix in (".aselmdb", ".lmdb") else _ase_rows(file)

    def parse(self, record: Callable[[], Any], reading: Reading[Block]) -> list[Block]:
        row = record()
        if not isinstance(row, Mapping) or "numbers" not in row or "positions" not in row:
            raise DataError("it has no atoms")
        info = {**_dict(row.get("key_value_pairs")), **_dict(row.get("data"))}
        made = block(
            str(info[self.cluster]) if self.cluster in info else formula(elements(row["numbers"])),
            row["numbers"],
            row["positions"],
            energy=row.get("energy"),
            forces=row.get("forces"),
            stress=row.get("stress"),
            cell=row.get("cell") if np.asarray(row.get("pbc", False)).any() else None,
            charge=total_charge(info),
        )
        return [made]


def _lmdb_rows(path: Path) -> Iterator[Callable[[], Any]]:
    """Rows of an LMDB file: keys b"1", b"2", …; values are zlib-compressed JSON."""
    lmdb = needed("lmdb")
    with (
        readable(path, "LMDB file"),
        lmdb.open(str(path), subdir=False, readonly=True, lock=False, readahead=False, max_dbs=1) as environment,
    ):
        # Pages beyond the end of the file would be read from the memory map: the process would be killed.
        pages = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        if pages > path.stat().st_size:
            raise FileError(f"{path} is cut short: it has {path.stat().st_size:,} bytes, its pages need {pages:,}")
        with environment.begin() as transaction:
            if transaction.get(b"nextid") is None:
                raise FileError(f"{path} has no key 'nextid': it is an LMDB file, but no ASE database")
            gone = set(_decode(transaction.get(b"deleted_ids") or zlib.compress(b"[]")))
            # The keys that are there, and not all numbers to 'nextid', which may be anything.
            found = (key for key in transaction.cursor().iternext(values=False) if key.isdigit())
            for number in sorted(int(key) for key in found):
                if number not in gone:
                    yield partial(_decode, bytes(transaction.get(str(number).encode()) or b""))


def _decode(content: bytes) -> Any:
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(content, _LARGEST_ROW)
    if not unpacker.eof:
        raise DataError("its compressed content is cut short, or larger than any row")
    return json.loads(text, object_hook=_array)


def _array(found: dict[str, Any]) -> Any:
    """ASE's way to write arrays and cells in JSON."""
    if "__ndarray__" in found:
        shape, dtype, flat = found["__ndarray__"]
        return np.array(flat, dtype=np.dtype(dtype)).reshape(shape)
    if found.get("__ase_objtype__") == "cell":
        return found["array"]
    return found


def _ase_rows(path: Path) -> Iterator[Callable[[], Any]]:
    with readable(path, "file that can be read as an ASE database"):
        database = needed("ase.db", "ase").connect(str(path), append=True)
        if path.suffix != ".db":
            yield from (partial(_plain, row) for row in database.select())
            return
        with database:
            # One row after another by its number: a damaged one ends a selection.
            for number in [row.id for row in database.select(columns=["id"], include_data=False)]:
                yield partial(_fetched, database, number)


def _fetched(database: Any, number: int) -> dict[str, Any]:
    return _plain(database.get(id=number))


def _plain(row: Any) -> dict[str, Any]:
    names = ("numbers", "positions", "cell", "pbc", "energy", "forces", "stress", "key_value_pairs", "data")
    return {name: value for name in names if (value := row.get(name)) is not None}


def _dict(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
