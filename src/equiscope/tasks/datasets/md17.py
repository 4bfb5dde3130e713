"""Readers of MD17 and revised MD17 (``.npz``, one molecule's trajectory a file), streamed out of the archive."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from equiscope import units
from equiscope.errors import DataError, InputError
from equiscope.tasks.datasets.blocks import FRAMES_AT_ONCE, Block, check_shapes, existing

# Array names: atomic numbers, positions, energies, forces.
LAYOUTS = {
    "md17": ("z", "R", "E", "F"),
    "rmd17": ("nuclear_charges", "coords", "energies", "forces"),
}
_TIME = "old_indices"


@dataclass(frozen=True)
class Md17:
    """A trajectory of one molecule: MD17 (arrays z, R, E, F) or rMD17 (nuclear_charges, coords, energies, forces).

    The files state no units; MD17's documentation gives Å, kcal/mol and kcal/mol/Å. Files of the sGDML tools
    carry ``r_unit`` and ``e_unit``, which are obeyed.

    Neighbouring frames of a trajectory are nearly equal, so that a random split leaks. ``group`` is therefore a
    piece of the trajectory in time: frame t of T belongs to piece ⌊pieces t / T⌋. rMD17's frames are in random
    order; their time is ``old_indices``.

    Attributes:
        path: of the ``.npz`` file.
        pieces: how many groups the trajectory is cut into.
    """

    path: str | Path
    pieces: int = 20

    def __post_init__(self) -> None:
        if self.pieces < 1:
            raise InputError(f"pieces must be at least 1, got {self.pieces}")

    def blocks(self, rejected: Counter[str]) -> Iterator[Block]:
        """Frames in file order, cut into blocks of one piece each.

        Raises:
            DataError: no such file, no npz, arrays missing or of the wrong shape, objects that only pickle could read.
        """
        with _archive(self.path) as archive:
            members = _members(archive)
            z, r, e, f = _layout(members, self.path)
            numbers = _whole(archive, z).astype(np.int64)
            if numbers.ndim != 1:
                raise DataError(f"{self.path}: {z} has shape {numbers.shape}, expected one number an atom")
            length, energy = (units.length(self.units()["positions"]), units.energy(self.units()["energy"]))
            count, piece_of = self._pieces(archive, members, r)
            streams = [_rows(archive, name, count) for name in (r, e, f)]
            for first, (x, y, g) in zip(range(0, count, FRAMES_AT_ONCE), zip(*streams, strict=True), strict=True):
                piece = piece_of(np.arange(first, first + len(x)))
                for here in np.unique(piece):
                    rows = piece == here
                    block = Block(
                        group=f"{Path(self.path).stem} piece {here}",
                        numbers=numbers,
                        positions=x[rows].astype(np.float64) * length,
                        energy=y.reshape(len(x), -1)[rows, 0].astype(np.float64) * energy,
                        forces=g[rows].astype(np.float64) * (energy / length),
                    )
                    yield check_shapes(block, str(self.path))

    def _pieces(
        self, archive: zipfile.ZipFile, members: set[str], positions: str
    ) -> tuple[int, Callable[[np.ndarray], np.ndarray]]:
        """How many frames, and frame numbers → pieces."""
        with archive.open(f"{positions}.npy") as file:
            count = _header(file, positions)[0][0]
        if _TIME not in members:
            return count, lambda frames: (frames * self.pieces) // count
        # rMD17 has a hundred thousand frames a molecule: their times fit.
        old = _whole(archive, _TIME).reshape(-1).astype(np.int64)
        if len(old) != count:
            raise DataError(f"{self.path}: {_TIME} has {len(old)} entries for {count} frames")
        end = int(old.max()) + 1
        return count, lambda frames: (old[frames] * self.pieces) // end

    def units(self) -> dict[str, str]:
        """Of the file where it says them, of MD17's documentation otherwise."""
        with _archive(self.path) as archive:
            members = _members(archive)
            stated = {"r_unit", "e_unit"} <= members
            length, energy = (
                (str(_whole(archive, "r_unit")), str(_whole(archive, "e_unit"))) if stated else ("Å", "kcal/mol")
            )
        known = "r_unit and e_unit in the file" if stated else "MD17's documentation (the file states none)"
        return {"positions": length, "energy": energy, "forces": f"{energy}/{length}", "known from": known}


def _archive(path: str | Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(existing(path, "npz file"))
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path} is no npz file, or is cut short: {error}") from error


def _members(archive: zipfile.ZipFile) -> set[str]:
    return {name.removesuffix(".npy") for name in archive.namelist()}


def _layout(members: set[str], path: str | Path) -> tuple[str, str, str, str]:
    for names in LAYOUTS.values():
        if set(names) <= members:
            return names
    expected = " or ".join(", ".join(names) for names in LAYOUTS.values())
    raise DataError(f"{path} has the arrays {', '.join(sorted(members))}; MD17 and rMD17 have {expected}")


def _header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of an array about to be read.

    Raises:
        DataError: objects, or columns stored first, which cannot be streamed.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise DataError(f"array {name} holds Python objects, which only pickle could read: it is refused")
    if fortran and len(shape) > 1:
        raise DataError(f"array {name} is stored column by column: write it again with numpy.ascontiguousarray")
    return shape, dtype


def _whole(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(f"{name}.npy") as file:
        try:
            return np.lib.format.read_array(file, allow_pickle=False)
        except ValueError as error:
            raise DataError(f"array {name} of {archive.filename} cannot be read: {error}") from error


def _rows(archive: zipfile.ZipFile, name: str, count: int) -> Iterator[np.ndarray]:
    """An array of the archive, so many rows at a time.

    Raises:
        DataError: another number of rows than ``count``, or the array is cut short.
    """
    with archive.open(f"{name}.npy") as file:
        shape, dtype = _header(file, name)
        if not shape or shape[0] != count:
            raise DataError(f"array {name} of {archive.filename} has shape {shape}, but there are {count} frames")
        width = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
        for first in range(0, count, FRAMES_AT_ONCE):
            rows = min(FRAMES_AT_ONCE, count - first)
            content = file.read(rows * width)
            if len(content) != rows * width:
                raise DataError(f"array {name} of {archive.filename} is cut short at frame {first}")
            yield np.frombuffer(content, dtype).reshape(rows, *shape[1:])
