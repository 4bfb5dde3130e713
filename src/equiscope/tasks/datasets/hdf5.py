"""HDF5 files of molecules, a group for each: opened without leaving the file, and read a bounded piece at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from equiscope.errors import DataError
from equiscope.files import Refused, check_size, existing, needed, readable
from equiscope.tasks.datasets.blocks import Block
from equiscope.tasks.datasets.reading import PERIODIC, block, elements, fits, pieces


def groups(path: str | Path) -> Iterator[tuple[str, Any]]:
    """The top groups of an HDF5 file with their names, one open at a time.

    Raises:
        DataError: no such file, or no HDF5 file; a link into another file.
    """
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


def columns(group: Any, names: Mapping[str, str]) -> dict[str, Any]:
    """Meaning → dataset, of the names (meaning → name) that the group has.

    Raises:
        DataError: see :func:`member`; a group that carries a cell, which formats of molecules have no place for.
    """
    there = set(group)
    if cell := sorted(name for name in there if name.lower() in PERIODIC):
        raise DataError(f"it has {', '.join(cell)}: a periodic set in a format of molecules is refused")
    return {meaning: member(group, name) for meaning, name in names.items() if name in there}


def read(name: str, numbers: Any, found: Mapping[str, Any], **factors: Any) -> Iterator[Block]:
    """The frames of a group whose atoms are the same in all, in blocks.

    Args:
        name: of what belongs together; numbers: (N,); found: "positions", "energy", "forces" → dataset.
        factors: charge and units, see :func:`equiscope.tasks.datasets.reading.block`.

    Raises:
        DataError: lengths, shapes or kinds that do not fit each other; they are compared before any is read.
    """
    species = elements(np.asarray(numbers))
    for rows in pieces(fits(found, len(species)), len(species)):
        yield block(name, species, **{meaning: column[rows] for meaning, column in found.items()}, **factors)
