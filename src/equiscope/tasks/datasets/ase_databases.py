"""Readers of ASE databases: SQLite (``.db``) and LMDB (``.aselmdb``, as OMol25 and OMat24 are published)."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equiscope.errors import DataError
from equiscope.tasks.datasets.blocks import Block, check_shapes, existing, formula, needed, stress_matrix
from equiscope.tasks.datasets.extxyz import total_charge

_UNITS = {
    "positions": "Å",
    "energy": "eV",
    "forces": "eV/Å",
    "stress": "eV/Å³",
    "known from": "the convention of ASE's databases",
}


@dataclass(frozen=True)
class AseDatabase:
    """An ASE database file (``.db``, ``.json``), or a folder of LMDB files or one of them (``.aselmdb``).

    LMDB files are read directly (compressed JSON rows): neither ASE nor pickle takes part.

    Attributes:
        path: of the file or folder.
        cluster: key of a row's ``key_value_pairs`` or ``data`` that says what belongs together; the formula if None.
    """

    path: str | Path
    cluster: str | None = None

    def blocks(self, rejected: Counter[str]) -> Iterator[Block]:
        """One frame a block, in the order of the row numbers; periodic rows carry their cell.

        Raises:
            DataError: no such file, not a database, or no readable row.
        """
        found = False
        for row in self._rows(rejected):
            try:
                block = check_shapes(_block(row, self.cluster), str(self.path))
            except (DataError, KeyError, TypeError, ValueError):
                rejected["row without atoms, or of the wrong shape"] += 1
                continue
            found = True
            yield block
        if not found:
            raise DataError(f"{self.path} has no row that can be read (left out: {dict(rejected)})")

    def units(self) -> dict[str, str]:
        """ASE's own."""
        return _UNITS

    def _rows(self, rejected: Counter[str]) -> Iterator[Mapping[str, Any]]:
        path = existing(self.path, "ASE database")
        files = sorted(path.glob("*.aselmdb")) if path.is_dir() else [path]
        if not files:
            raise DataError(f"the folder {path} has no .aselmdb file")
        for file in files:
            yield from _lmdb_rows(file, rejected) if file.suffix in (".aselmdb", ".lmdb") else _ase_rows(file)


def _lmdb_rows(path: Path, rejected: Counter[str]) -> Iterator[Mapping[str, Any]]:
    """Rows of an LMDB file: keys b"1", b"2", …; values are zlib-compressed JSON."""
    lmdb = needed("lmdb")
    try:
        environment = lmdb.open(str(path), subdir=False, readonly=True, lock=False, readahead=False, max_dbs=1)
    except lmdb.Error as error:
        raise DataError(f"{path} is no LMDB file, or is damaged: {error}") from error
    with environment, environment.begin() as transaction:
        last = transaction.get(b"nextid")
        if last is None:
            raise DataError(f"{path} has no key 'nextid': it is an LMDB file, but no ASE database")
        gone = set(_decode(transaction.get(b"deleted_ids") or zlib.compress(b"[]")))
        for number in range(1, int(_decode(last))):
            content = transaction.get(str(number).encode())
            if content is None or number in gone:
                continue
            try:
                row = _decode(content)
            except (zlib.error, ValueError):
                rejected["row that cannot be read"] += 1
                continue
            yield row


def _decode(content: bytes) -> Any:
    return json.loads(zlib.decompress(content), object_hook=_array)


def _array(found: dict[str, Any]) -> Any:
    """ASE's way to write arrays and cells in JSON."""
    if "__ndarray__" in found:
        shape, dtype, flat = found["__ndarray__"]
        return np.array(flat, dtype=np.dtype(dtype)).reshape(shape)
    if found.get("__ase_objtype__") == "cell":
        return found["array"]
    return found


def _ase_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    database = needed("ase.db", "ase")
    names = ("numbers", "positions", "cell", "pbc", "energy", "forces", "stress", "key_value_pairs", "data")
    try:
        rows = iter(database.connect(str(path), append=True).select())
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            yield {name: value for name in names if (value := row.get(name)) is not None}
    except Exception as error:
        # The backends raise many types (sqlite3, json, KeyError, ValueError) for files that are none of theirs.
        raise DataError(f"{path} cannot be read as an ASE database: {type(error).__name__}: {error}") from error


def _block(row: Mapping[str, Any], cluster: str | None) -> Block:
    numbers = np.asarray(row["numbers"], dtype=np.int64)
    info = {**_dict(row.get("key_value_pairs")), **_dict(row.get("data"))}
    periodic = bool(np.asarray(row.get("pbc", False)).any())
    energy, forces, stress = (row.get(name) for name in ("energy", "forces", "stress"))
    return Block(
        group=str(info[cluster]) if cluster in info else formula(numbers),
        numbers=numbers,
        positions=np.asarray(row["positions"], dtype=np.float64)[None],
        energy=None if energy is None else np.array([energy], dtype=np.float64),
        forces=None if forces is None else np.asarray(forces, dtype=np.float64)[None],
        stress=None if stress is None else stress_matrix(stress)[None],
        cell=np.asarray(row["cell"], dtype=np.float64).reshape(1, 3, 3) if periodic else None,
        charge=total_charge(info),
    )


def _dict(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
