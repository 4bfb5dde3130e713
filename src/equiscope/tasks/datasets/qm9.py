"""Reader of QM9 (Ramakrishnan et al., Scientific Data 1, 140022, 2014): the ``dsgdb9nsd_*.xyz`` files."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from equiscope.errors import DataError
from equiscope.files import LARGEST_FRAME, PACKED, existing, opened, text_lines
from equiscope.tasks.datasets.blocks import NUMBER_OF, Block
from equiscope.tasks.datasets.reading import Reader, Reading, Rejected, block
from equiscope.tasks.guards import one_of
from equiscope.units import HARTREE

# Columns of the second line after "gdb" and the number; energies in hartree.
PROPERTIES = ("A", "B", "C", "mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "U0", "U", "H", "G", "Cv")
ENERGIES = ("U0", "U", "H", "G")
_LARGEST_FILE = 1 << 24


@dataclass(frozen=True)
class Qm9(Reader):
    """QM9's relaxed molecules: positions and an energy, no forces; ``group`` is "gdb" and its number.

    Attributes:
        path: the published ``.tar`` / ``.tar.bz2``, a folder of the ``.xyz`` files, or one of them.
        energy: U0 (at 0 K), U, H or G.
        exclude: the published list of molecules whose geometry is doubtful (``uncharacterized.txt``), to be left out.
    """

    RECORD, NOTHING = "file", "has no molecule in QM9's layout"

    energy: str = "U0"
    exclude: str | Path | None = None

    def __post_init__(self) -> None:
        one_of(ENERGIES, energy=self.energy)

    def records(self, reading: Reading[Block]) -> Iterator[str]:
        _ = self._excluded  # read before the molecules: an error there is none of a record
        return self._texts()

    def parse(self, record: str, reading: Reading[Block]) -> list[Block]:
        lines = record.splitlines()
        words = lines[1].split() if len(lines) > 1 else []
        if len(words) != 2 + len(PROPERTIES) or words[0] != "gdb":
            raise Rejected("file that is no QM9 molecule")
        atoms, number = int(lines[0]), int(words[1])
        rows = [line.split() for line in lines[2 : 2 + atoms]]
        # The line of frequencies shows that the last atom's line is whole.
        if len(rows) != atoms or any(len(row) < 4 for row in rows) or len(lines) <= 2 + atoms:
            raise DataError(f"{atoms} atoms announced, but it is cut short among or after their lines")
        if number in self._excluded:
            raise Rejected("uncharacterized (excluded list)")
        made = block(
            f"gdb {number}",
            [NUMBER_OF.get(row[0], 0) for row in rows],
            [[_number(v) for v in row[1:4]] for row in rows],
            energy=_number(words[2 + PROPERTIES.index(self.energy)]),
            energy_unit=HARTREE,
        )
        return [made]

    @cached_property
    def _excluded(self) -> frozenset[int]:
        """The first word of the lines that start with a number."""
        lines = text_lines(self.exclude, "list of excluded molecules") if self.exclude else ()
        first = [line.split()[0] for line in lines if line.split()]
        return frozenset(int(word) for word in first if word.isascii() and word.isdigit())

    def units(self) -> dict[str, str]:
        """Of the data set's paper."""
        return {"positions": "Å", "energy": f"hartree ({self.energy})", "known from": "the data set's paper"}

    def _texts(self) -> Iterator[str]:
        path = existing(self.path, "QM9 archive, folder or file")
        if not path.is_dir() and not path.name.endswith((".xyz", *(f".xyz{ending}" for ending in PACKED))):
            yield from _members(path)
            return
        for file in sorted(path.glob("*.xyz")) if path.is_dir() else [path]:
            yield "".join(islice(text_lines(file, "QM9 file"), LARGEST_FRAME))


def _members(path: Path) -> Iterator[str]:
    # "r|" reads forward only: nothing is unpacked to disk, and no list of members is kept.
    with opened(path, "tar archive", False) as file, tarfile.open(fileobj=file, mode="r|", tarinfo=_Member) as archive:
        for member in archive:
            if member.isfile() and member.name.endswith(".xyz"):
                content = archive.extractfile(member)
                assert content is not None
                yield content.read(_LARGEST_FILE).decode("utf-8", "replace")
            archive.members = []  # type: ignore[attr-defined]


class _Member(tarfile.TarInfo):
    """A member's header; an archive that ends without its block of zeros is cut short, which tarfile does not say."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Any:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"no header where one must stand ({error})") from error


def _number(text: str) -> float:
    """A number as QM9 writes it: also ``1.2*^-6``, the way Mathematica prints powers of ten."""
    return float(text.replace("*^", "e"))
