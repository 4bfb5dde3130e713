"""Reader of MD17 and revised MD17: one molecule's trajectory, streamed out of an ``.npz`` archive.

Headers first, rows a bounded piece at a time, never through pickle.
"""

from __future__ import annotations

import math
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from equiscope import units
from equiscope.errors import DataError
from equiscope.files import check_size, existing, readable
from equiscope.tasks.datasets.blocks import Block
from equiscope.tasks.datasets.reading import PERIODIC, Reader, block, elements, fits, pieces, reals, whole_charge
from equiscope.tasks.guards import at_least

_LARGEST_WHOLE = 1 << 28


@dataclass(frozen=True)
class Column:
    """An array of which nothing but the header was read."""

    shape: tuple[int, ...]
    dtype: np.dtype


class Archive:
    """An open npz file; ``names`` are those of its arrays."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path, self._archive = path, archive
        self.names = {name.removesuffix(".npy") for name in archive.namelist()}

    def column(self, name: str) -> Column:
        """Shape and dtype of an array; a DataError for objects, columns first, or a size its header does not say."""
        with self._member(name) as (_, column):
            return column

    def whole(self, name: str) -> np.ndarray:
        """A small array; a DataError as :meth:`column`, or for more than 256 MiB."""
        with self._member(name) as (file, column):
            size = math.prod(column.shape) * column.dtype.itemsize
            if size > _LARGEST_WHOLE:
                raise DataError(f"array {name} of {self.path} has shape {column.shape}: far too large for what it is")
            return np.frombuffer(file.read(size), column.dtype).reshape(column.shape)

    def rows(self, name: str, slices: Iterable[slice]) -> Iterator[np.ndarray]:
        """An array, the rows of one slice after another; the slices must follow one another from 0.

        Raises:
            DataError: as :meth:`column`; the array is cut short.
        """
        with self._member(name) as (file, column):
            width = column.dtype.itemsize * math.prod(column.shape[1:])
            for rows in slices:
                count = rows.stop - rows.start
                content = file.read(count * width)
                if len(content) != count * width:
                    raise DataError(f"array {name} of {self.path} is cut short at frame {rows.start}")
                yield np.frombuffer(content, column.dtype).reshape(count, *column.shape[1:])

    @contextmanager
    def _member(self, name: str) -> Iterator[tuple[IO[bytes], Column]]:
        about = self._archive.getinfo(f"{name}.npy")
        where = f"array {name} of {self.path}"
        check_size(about.file_size, about.compress_size, where)
        with self._archive.open(about) as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, columns_first, dtype = read(file)
            if dtype.hasobject:
                raise DataError(f"{where} holds Python objects, which only pickle could read: it is refused")
            if columns_first and len(shape) > 1:
                raise DataError(f"{where} is stored column by column: write it again with numpy.ascontiguousarray")
            size, held = math.prod(shape) * dtype.itemsize, about.file_size - file.tell()
            if size != held:
                raise DataError(f"{where} has shape {shape} of {dtype}, {size:,} bytes, but holds {held:,}")
            yield file, Column(tuple(shape), dtype)


@contextmanager
def opened(path: str | Path) -> Iterator[Archive]:
    """An npz file, for as long as it is read; whatever is wrong with it is a DataError."""
    path = existing(path, "npz file")
    with readable(path, "npz file"), zipfile.ZipFile(path) as archive:
        yield Archive(path, archive)


# Array names: atomic numbers, positions, energies, forces.
LAYOUTS = {"md17": ("z", "R", "E", "F"), "rmd17": ("nuclear_charges", "coords", "energies", "forces")}
_TIME = "old_indices"


@dataclass(frozen=True)
class Md17(Reader):
    """A trajectory of one molecule: MD17 (arrays z, R, E, F) or rMD17 (nuclear_charges, coords, energies, forces).

    The files state no units; MD17's documentation gives Å, kcal/mol and kcal/mol/Å. Files of the sGDML tools carry
    ``r_unit`` and ``e_unit``, either or both, which are obeyed; so are a ``lattice`` (or ``cell``; vectors in rows),
    ``pbc``, a ``charge`` and a ``stress`` in energy/length³.

    Neighbouring frames of a trajectory are nearly equal, so that a random split leaks. ``group`` is therefore a
    piece of the trajectory in time: frame t of T belongs to piece ⌊pieces t / T⌋. rMD17's frames are in random
    order; their time is ``old_indices``.

    Attributes:
        pieces: how many groups the trajectory is cut into.
    """

    pieces: int = 20

    def __post_init__(self) -> None:
        at_least(1, pieces=self.pieces)

    def blocks(self, rejected: Counter[str]) -> Iterator[Block]:
        with opened(self.path) as archive:
            z, r, e, f = _layout(archive)
            numbers = elements(archive.whole(z))
            names = {"positions": r, "energy": e, "forces": f}
            if "stress" in archive.names:
                names["stress"] = "stress"
            count = fits({meaning: archive.column(name) for meaning, name in names.items()}, len(numbers))
            units_ = self._units(archive)
            factors = {"length": units.length(units_["positions"]), "energy_unit": units.energy(units_["energy"])}
            cells, charge, piece_of = _cells(archive, count), _charge(archive), self._pieces(archive, count)
            streams = (archive.rows(name, pieces(count, len(numbers))) for name in names.values())
            for rows, *found in zip(pieces(count, len(numbers)), *streams, strict=True):
                arrays = dict(zip(names, found, strict=True))
                if cells is not None:
                    arrays["cell"] = cells[rows]
                piece = piece_of(np.arange(rows.start, rows.stop))
                for here in np.unique(piece):
                    picked = {meaning: array[piece == here] for meaning, array in arrays.items()}
                    group = f"{Path(self.path).stem} piece {here}"
                    yield block(group, numbers, **picked, charge=charge, **factors)

    def _pieces(self, archive: Archive, count: int) -> Callable[[np.ndarray], np.ndarray]:
        """Frame numbers → pieces."""
        if _TIME not in archive.names:
            return lambda frames: (frames * self.pieces) // count
        # rMD17 has a hundred thousand frames a molecule: their times fit.
        old = reals(archive.whole(_TIME), _TIME).reshape(-1)
        if len(old) != count or not (np.isfinite(old) & (old >= 0) & (old < 2**40)).all():
            raise DataError(f"{self.path}: {_TIME} must have a time >= 0 for each of {count} frames, it has {len(old)}")
        times = old.astype(np.int64)
        end = int(times.max()) + 1
        return lambda frames: (times[frames] * self.pieces) // end

    def units(self) -> dict[str, str]:
        """Of the file where it says them, of MD17's documentation otherwise; each on its own."""
        with opened(self.path) as archive:
            return self._units(archive)

    def _units(self, archive: Archive) -> dict[str, str]:
        stated = [name for name in ("r_unit", "e_unit") if name in archive.names]
        length, energy = (
            _text(archive.whole(name)) if name in stated else usual
            for name, usual in (("r_unit", "Å"), ("e_unit", "kcal/mol"))
        )
        known = (
            "MD17's documentation (the file states none)",
            f"{' '.join(stated)} in the file, the other from MD17's documentation",
            "r_unit and e_unit in the file",
        )[len(stated)]
        return {"positions": length, "energy": energy, "forces": f"{energy}/{length}", "known from": known}


def _text(array: np.ndarray) -> str:
    value = array.reshape(-1)[0] if array.size == 1 else array
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _layout(archive: Archive) -> tuple[str, str, str, str]:
    for names in LAYOUTS.values():
        if set(names) <= archive.names:
            return names
    expected = " or ".join(", ".join(names) for names in LAYOUTS.values())
    found = ", ".join(sorted(archive.names))
    raise DataError(f"{archive.path} has the arrays {found}; MD17 and rMD17 have {expected}")


def _known(archive: Archive, names: Collection[str]) -> dict[str, np.ndarray]:
    """The arrays with one of these names, in any case."""
    return {name: archive.whole(name) for name in sorted(archive.names) if name.lower() in names}


def _cells(archive: Archive, count: int) -> np.ndarray | None:
    """(F, 3, 3) lattice vectors in rows; None for molecules."""
    flags = _known(archive, {"pbc", "periodic"})
    found = {name: array for name, array in _known(archive, PERIODIC - {"pbc"}).items() if array.any()}
    if not (found or flags) or (flags and not any(array.any() for array in flags.values())):
        return None
    if not found:
        raise DataError(f"{archive.path} says {', '.join(flags)}, but has no lattice")
    name, array = next(iter(found.items()))
    cells = reals(array, name)
    if len(found) > 1 or cells.shape not in ((3, 3), (1, 3, 3), (count, 3, 3)):
        shapes = {other: array.shape for other, array in found.items()}
        raise DataError(f"{archive.path} has the cells {shapes}; expected one, (3, 3) or ({count}, 3, 3)")
    return np.broadcast_to(cells, (count, 3, 3))


def _charge(archive: Archive) -> int | None:
    """The total charge that the file states, the same for all frames."""
    values = [np.unique(array) for array in _known(archive, {"charge", "total_charge"}).values()]
    if any(len(value) != 1 for value in values):
        raise DataError(f"{archive.path} has frames of several total charges: write a file for each")
    return whole_charge(values[0]) if values else None
