"""The one place where every reader's frames are parsed, checked and counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from equiscope.errors import DataError, InputError
from equiscope.files import LARGEST_FRAME, REMARK, Refused, readable, said
from equiscope.tasks.datasets.blocks import FRAMES_AT_ONCE, SYMBOLS, Block

T = TypeVar("T")
Made = TypeVar("Made")
PERIODIC = frozenset({"cell", "cells", "lattice", "lattices", "pbc", "box", "unit_cell", "lattice_vectors"})
"""Names of arrays that say a set is periodic."""
_ATOMS_AT_ONCE = 1 << 22
# Reasons that are told apart; a file of noise has a new one in every frame.
_KINDS = 12
_NUMBERS_AND_NAMES = re.compile(r"'[^']*'|\"[^\"]*\"|\S*\d\S*")


class Rejected(DataError):
    """A molecule or a frame that must not enter a data set; ``reason`` is the key it is counted under."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class Reading(Generic[Made]):
    """One pass over a file.

    A record that cannot be parsed, or whose arrays do not fit, is counted under its reason with the first underlying
    message; the next one is read. What must not be read (:class:`equiscope.files.Refused`) or a wrong setting stops.

    Args:
        path: of the file, for messages. rejected: reason → records; it is added to.
        record: what one is called: "frame", "row", "molecule".
    """

    def __init__(self, path: str | Path, rejected: Counter[str], record: str = "frame") -> None:
        self._path, self.rejected, self._record = path, rejected, record
        self._reasons: dict[tuple[type, str], str] = {}

    def each(self, records: Iterable[T], parse: Callable[[T], Iterable[Made]]) -> Iterator[Made]:
        """What is made of the records that can be parsed, in their order; ``parse`` may call this method again.

        Raises:
            DataError: the records end in an error: the file is damaged or cut short.
        """
        waiting, number = iter(records), 0
        while True:
            with readable(self._path, f"sound file after {number:,} {self._record}s"):
                try:
                    record = next(waiting)
                except StopIteration:
                    return
            try:
                yield from parse(record)
            except (Refused, InputError):
                raise
            except Exception as error:
                self.rejected[self._reason(error, _name(record, number))] += 1
            number += 1

    def _reason(self, error: Exception, name: str) -> str:
        if isinstance(error, Rejected):
            return error.reason
        text = said(error)
        kind = (type(error), _NUMBERS_AND_NAMES.sub("", text))
        if kind not in self._reasons and len(self._reasons) >= _KINDS:
            return f"{self._record} that cannot be read (for other reasons)"
        first = f"{self._record} that cannot be read (first: {self._record} {name}: {text})"
        return self._reasons.setdefault(kind, first)


@dataclass(frozen=True)
class Reader:
    """A reader of frames: its fields are the path and the settings of its format.

    A subclass says what one record is called (``RECORD``), what a file without any lacks (``NOTHING``), in what units
    the numbers are and how that is known (``UNITS``), and gives :meth:`records` and :meth:`parse`. Opening is
    :mod:`equiscope.files`, parsing and counting :class:`Reading`, checking :func:`block`.
    """

    RECORD: ClassVar[str] = "frame"
    NOTHING: ClassVar[str] = "has no frame that can be read"
    UNITS: ClassVar[Mapping[str, str]] = {}

    path: str | Path

    def records(self, reading: Reading[Block]) -> Iterable[Any]:
        """The records of the file in its order; what is remarkable about them is counted in ``reading.rejected``."""
        raise NotImplementedError

    def parse(self, record: Any, reading: Reading[Block]) -> Iterable[Block]:
        """The frames of a record."""
        raise NotImplementedError

    def blocks(self, rejected: Counter[str]) -> Iterator[Block]:
        """The frames in file order; frames that cannot be read are counted under their reason.

        May be called again and then yields the same frames in the same order. Its memory is that of one group or of
        ``FRAMES_AT_ONCE`` frames, never of the file.

        Raises:
            DataError: no such file, a damaged one, or no frame of this layout in it.
        """
        reading, found = Reading[Block](self.path, rejected, self.RECORD), False
        for made in reading.each(self.records(reading), lambda record: self.parse(record, reading)):
            found = True
            yield made
        if not found:
            counts = ", ".join(f"{count:,} {reason}" for reason, count in rejected.items())
            raise DataError(f"{self.path} {self.NOTHING}" + (f" (left out: {counts})" if counts else ""))

    def units(self) -> Mapping[str, str]:
        """The units of the file, and how they are known."""
        return self.UNITS


def told(counts: Mapping[str, int]) -> list[str]:
    """The lines that say what was left out, and what was read all the same."""
    shown = {
        "left out": {reason: count for reason, count in counts.items() if not reason.startswith(REMARK)},
        REMARK.strip(": "): {why.removeprefix(REMARK): n for why, n in counts.items() if why.startswith(REMARK)},
    }
    lines = {head: ", ".join(f"{count:,} {reason}" for reason, count in part.items()) for head, part in shown.items()}
    return [f"{head}: {text or 'nothing'}" for head, text in lines.items() if text or head == "left out"]


def _name(record: Any, number: int) -> str:
    """What a message calls a record: its own name where it comes with one, its number otherwise."""
    first = record[0] if isinstance(record, tuple | list) and record else record
    named = isinstance(first, Path) or (first is not record and isinstance(first, str))
    return (first.name if isinstance(first, Path) else first[:60]) if named else str(number)


def block(
    group: str,
    numbers: Any,
    positions: Any,
    *,
    energy: Any = None,
    forces: Any = None,
    stress: Any = None,
    cell: Any = None,
    charge: Any = None,
    length: float = 1.0,
    energy_unit: float = 1.0,
    force_unit: float | None = None,
    stress_unit: float | None = None,
) -> Block:
    """A block from arrays as a file holds them: of one frame, positions (N, 3), or of F frames, (F, N, 3).

    Args:
        energy: a number or (F,), also (F, 1); forces as positions; stress as :func:`stress_matrix` takes it, for each
            frame; cell (3, 3), for each frame; charge a whole number.
        length, energy_unit, force_unit, stress_unit: Å, eV, eV/Å, eV/Å³ in one unit of the file; of forces and stresses
            ``energy_unit``/``length`` and ``energy_unit``/``length``³ if None.

    Raises:
        DataError: arrays that do not fit each other, or hold what they must not (:func:`fits`); no element.
    """
    x = reals(positions, "positions")
    found = {"positions": x[None] if x.ndim == 2 else x}
    for name, value in (("energy", energy), ("forces", forces), ("stress", stress), ("cell", cell)):
        if value is not None:
            array = reals(value, name)
            found[name] = array[None] if x.ndim == 2 else array
    species = elements(numbers)
    frames = fits(found, len(species))
    if "energy" in found:
        found["energy"] = found["energy"].reshape(frames)
    if "stress" in found:
        found["stress"] = np.array([stress_matrix(value) for value in found["stress"]])
    per_length = energy_unit / length if force_unit is None else force_unit
    per_volume = energy_unit / length**3 if stress_unit is None else stress_unit
    factor = {"positions": length, "cell": length, "energy": energy_unit, "forces": per_length, "stress": per_volume}
    scaled = {name: array * factor[name] for name, array in found.items()}
    return Block(group=group, numbers=species, charge=None if charge is None else whole_charge(charge), **scaled)


def fits(columns: Mapping[str, Any], atoms: int) -> int:
    """How many frames F these columns have; each has ``shape`` and ``dtype``, and none is read.

    Positions and forces must be (F, N, 3), energies (F,) or (F, 1), stresses (F, 3, 3), (F, 9) or (F, 6), cells (F, 3,
    3), all of real numbers; a DataError with the name, the shape seen and the one expected.
    """
    shape = tuple(columns["positions"].shape)
    if shape and shape[0] == 0:
        raise Rejected("group without a frame")
    if atoms > LARGEST_FRAME:
        raise DataError(f"{atoms:,} atoms, more than the {LARGEST_FRAME:,} a frame may have")
    frames = shape[0] if shape else 0
    wanted: dict[str, tuple[tuple[int, ...], ...]] = {"energy": ((), (1,)), "stress": ((3, 3), (9,), (6,))}
    wanted |= {"positions": ((atoms, 3),), "forces": ((atoms, 3),), "cell": ((3, 3),)}
    for name, column in columns.items():
        if column.dtype.kind not in "iuf":
            raise DataError(f"{name} holds {column.dtype}, not real numbers")
        if tuple(column.shape) not in {(frames, *each) for each in wanted[name]}:
            raise DataError(f"{name} has shape {tuple(column.shape)}, expected {(frames, *wanted[name][0])}")
    return frames


def pieces(frames: int, atoms: int) -> Iterator[slice]:
    """The rows of F frames, so many at a time that their memory is bounded."""
    step = max(1, min(FRAMES_AT_ONCE, _ATOMS_AT_ONCE // max(1, atoms)))
    for first in range(0, frames, step):
        yield slice(first, min(first + step, frames))


def reals(value: Any, name: str) -> np.ndarray:
    """float64 of real numbers; a DataError for text, complex numbers, truth values, objects, rows of other lengths."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: {said(error)}") from error
    if array.dtype.kind not in "iuf":
        shown = str(array.reshape(-1)[:1].tolist())[1:-1][:60]
        raise DataError(f"{name} holds {shown or array.dtype}, not real numbers")
    return array.astype(np.float64)


def elements(numbers: Any) -> np.ndarray:
    """(N,) int64 atomic numbers; a DataError for what is not one whole number an atom, none at all, or no elements."""
    z = reals(numbers, "atomic numbers")
    if z.ndim != 1:
        raise DataError(f"atomic numbers have shape {z.shape}, expected one number an atom")
    if not len(z) or not (np.isfinite(z) & (z == np.rint(z)) & (z >= 1) & (z < len(SYMBOLS))).all():
        raise DataError(f"atomic numbers must be 1 … {len(SYMBOLS) - 1}, got {np.asarray(numbers)[:8].tolist()}")
    return z.astype(np.int64)


def whole_charge(charge: Any) -> int:
    """A total charge as an integer; a DataError if it is none, to 1e-4."""
    value = reals(charge, "charge").reshape(-1)
    if value.size != 1 or not abs(value[0] - np.rint(value[0])) < 1e-4:
        raise DataError(f"the total charge must be one whole number, got {np.asarray(charge).tolist()}")
    return int(np.rint(value[0]))


def total_charge(info: Mapping[str, Any]) -> Any:
    """What a structure states as its total charge, if anything."""
    return next((info[key] for key in ("charge", "total_charge") if np.ndim(info.get(key, ())) == 0), None)


def stress_matrix(stress: Any) -> np.ndarray:
    """(3, 3) from a matrix, nine numbers, or six in ASE's Voigt order xx yy zz yz xz xy.

    A DataError for another count, or a matrix that is not symmetric to 1e-3.
    """
    value = reals(stress, "stress")
    if value.size == 6:
        return value.reshape(6)[[[0, 5, 4], [5, 1, 3], [4, 3, 2]]]
    if value.size != 9:
        raise DataError(f"stress has shape {value.shape}, expected (3, 3), (9,) or (6,)")
    matrix = value.reshape(3, 3)
    if np.abs(matrix - matrix.T).max() > 1e-3 * np.abs(matrix).max():
        raise DataError(f"stress is not symmetric: {matrix.tolist()}")
    return matrix
