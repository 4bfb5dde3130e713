"""Readers of MD17 and revised MD17 (``.npz``, one molecule's trajectory a file), streamed out of the archive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from equiscope import units
from equiscope.errors import DataError, InputError
from equiscope.tasks.datasets import npz
from equiscope.tasks.datasets.blocks import Block
from equiscope.tasks.datasets.reading import PERIODIC, block, elements, fits, pieces, reals, whole_charge

# Array names: atomic numbers, positions, energies, forces.
LAYOUTS = {
    "md17": ("z", "R", "E", "F"),
    "rmd17": ("nuclear_charges", "coords", "energies", "forces"),
}
_TIME = "old_indices"


@dataclass(frozen=True)
class Md17:
    """A trajectory of one molecule: MD17 (arrays z, R, E, F) or rMD17 (nuclear_charges, coords, energies, forces).

    The files state no units; MD17's documentation gives Å, kcal/mol and kcal/mol/Å. Files of the sGDML tools carry
    ``r_unit`` and ``e_unit``, either or both, which are obeyed; so are a ``lattice`` (or ``cell``; vectors in rows),
    ``pbc``, a ``charge`` and a ``stress`` in energy/length³.

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
        with npz.opened(self.path) as archive:
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

    def _pieces(self, archive: npz.Archive, count: int) -> Callable[[np.ndarray], np.ndarray]:
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
        with npz.opened(self.path) as archive:
            return self._units(archive)

    def _units(self, archive: npz.Archive) -> dict[str, str]:
        stated = [name for name in ("r_unit", "e_unit") if name in archive.names]
        length, energy = (
            _text(archive.whole(name)) if name in stated else usual
            for name, usual in (("r_unit", "Å"), ("e_unit", "kcal/mol"))
        )
        known = {
            0: "MD17's documentation (the file states none)",
            1: f"{' '.join(stated)} in the file, the other from MD17's documentation",
            2: "r_unit and e_unit in the file",
        }[len(stated)]
        return {"positions": length, "energy": energy, "forces": f"{energy}/{length}", "known from": known}


def _text(array: np.ndarray) -> str:
    value = array.reshape(-1)[0] if array.size == 1 else array
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _layout(archive: npz.Archive) -> tuple[str, str, str, str]:
    for names in LAYOUTS.values():
        if set(names) <= archive.names:
            return names
    expected = " or ".join(", ".join(names) for names in LAYOUTS.values())
    found = ", ".join(sorted(archive.names))
    raise DataError(f"{archive.path} has the arrays {found}; MD17 and rMD17 have {expected}")


def _known(archive: npz.Archive, names: Collection[str]) -> dict[str, np.ndarray]:
    """The arrays with one of these names, in any case."""
    return {name: archive.whole(name) for name in sorted(archive.names) if name.lower() in names}


def _cells(archive: npz.Archive, count: int) -> np.ndarray | None:
    """(F, 3, 3) lattice vectors in rows; None for molecules.

    Raises:
        DataError: periodic without a lattice, or a lattice of another shape.
    """
    flags = _known(archive, {"pbc", "periodic"})
    found = {name: array for name, array in _known(archive, PERIODIC - {"pbc"}).items() if array.any()}
    if flags and not any(array.any() for array in flags.values()):
        return None
    if not found:
        if flags:
            raise DataError(f"{archive.path} says {', '.join(flags)}, but has no lattice")
        return None
    name, array = next(iter(found.items()))
    cells = reals(array, name)
    if len(found) > 1 or cells.shape not in ((3, 3), (1, 3, 3), (count, 3, 3)):
        shapes = {other: array.shape for other, array in found.items()}
        raise DataError(f"{archive.path} has the cells {shapes}; expected one, (3, 3) or ({count}, 3, 3)")
    return np.broadcast_to(cells, (count, 3, 3))


def _charge(archive: npz.Archive) -> int | None:
    """The total charge that the file states, the same for all frames.

    Raises:
        DataError: it differs from frame to frame, or is no whole number.
    """
    values = [np.unique(array) for array in _known(archive, {"charge", "total_charge"}).values()]
    if any(len(value) != 1 for value in values):
        raise DataError(f"{archive.path} has frames of several total charges: write a file for each")
    return whole_charge(values[0]) if values else None
