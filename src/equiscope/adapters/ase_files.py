"""Files of structures for the ASE door."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, cast

import ase.io
from ase import Atoms
from ase.io.extxyz import read_xyz
from ase.io.formats import string2index

from equiscope import files
from equiscope.errors import DataError, InputError

UNREADABLE = "why this frame cannot be read"
"""Key of ``info`` of a frame that ASE refused."""
_XYZ = tuple(f"{ending}{packed}" for ending in (".xyz", ".extxyz") for packed in ("", *files.PACKED))


def read(path: str | Path, index: str = ":") -> list[Atoms]:
    """The structures of a file that ASE can read (extended XYZ, .traj, POSCAR, …).

    A frame of an XYZ file that ASE refuses keeps its place: an ``Atoms`` without atoms, with ASE's reason under
    :data:`UNREADABLE` in its ``info``. Such a file may be compressed; bytes in it that are no UTF-8 are replaced.

    Raises:
        InputError: if there is no such file or it holds no structure.
        DataError: if ASE cannot read it, or none of its frames.
    """
    if not Path(path).is_file():
        raise InputError(f"there is no file {str(path)!r}")
    if Path(path).stat().st_size == 0:
        raise InputError(f"{str(path)!r} is empty: there is nothing to measure")
    try:
        if str(path).lower().endswith(_XYZ):
            return _picked([_frame(text) for text in files.frame_texts(path)], index)
        structures = ase.io.read(str(path), index=index)
    except Exception as error:
        raise DataError(f"ASE cannot read {str(path)!r}: {files.said(error)}") from error
    return structures if isinstance(structures, list) else [structures]


def _frame(text: str) -> Atoms:
    try:
        return next(iter(read_xyz(io.StringIO(text), 0)))
    except Exception as error:
        return Atoms(info={UNREADABLE: files.said(error)})


def _picked(structures: list[Atoms], index: str) -> list[Atoms]:
    """What ASE's index picks, "0" or "::10", of frames of which at least one can be read."""
    if not any(len(atoms) for atoms in structures):
        reasons = [atoms.info.get(UNREADABLE, "it has no atoms") for atoms in structures] or ["there is none"]
        raise DataError(f"none of its {len(structures)} frames can be read; the first: {reasons[0]}")
    picked: Any = structures[cast(slice, string2index(index))]
    return picked if isinstance(picked, list) else [picked]
