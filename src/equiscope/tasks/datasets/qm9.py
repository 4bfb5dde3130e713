"""Reader of QM9 (Ramakrishnan et al., Scientific Data 1, 140022, 2014): the ``dsgdb9nsd_*.xyz`` files."""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from equiscope.errors import DataError, InputError
from equiscope.tasks.datasets.blocks import NUMBER_OF, Block, existing
from equiscope.units import HARTREE

# Columns of the second line after "gdb" and the number; energies in hartree.
PROPERTIES = ("A", "B", "C", "mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "U0", "U", "H", "G", "Cv")
ENERGIES = ("U0", "U", "H", "G")


@dataclass(frozen=True)
class Qm9:
    """QM9's relaxed molecules: positions and an energy, no forces.

    Attributes:
        path: the published ``.tar`` / ``.tar.bz2``, a folder of the ``.xyz`` files, or one of them.
        energy: U0 (at 0 K), U, H or G.
        exclude: the published list of molecules whose geometry is doubtful (``uncharacterized.txt``), to be left out.
    """

    path: str | Path
    energy: str = "U0"
    exclude: str | Path | None = None

    def __post_init__(self) -> None:
        if self.energy not in ENERGIES:
            raise InputError(f"energy must be one of {', '.join(ENERGIES)}, got {self.energy!r}")

    def blocks(self, rejected: Counter[str]) -> Iterator[Block]:
        """One frame a molecule; ``group`` is "gdb" and its number.

        Raises:
            DataError: nothing at the path, or no file of QM9's layout there.
        """
        excluded = _numbers(self.exclude) if self.exclude else set()
        found = False
        for text in self._texts():
            try:
                number, block = _parse(text, self.energy)
            except (ValueError, IndexError, KeyError):
                rejected["file that is no QM9 molecule"] += 1
                continue
            found = True
            if number in excluded:
                rejected["uncharacterized (excluded list)"] += 1
                continue
            yield block
        if not found:
            raise DataError(f"{self.path} has no molecule in QM9's layout (dsgdb9nsd_*.xyz)")

    def units(self) -> dict[str, str]:
        """Of the data set's paper."""
        return {"positions": "Å", "energy": f"hartree ({self.energy})", "known from": "the data set's paper"}

    def _texts(self) -> Iterator[str]:
        path = existing(self.path, "QM9 archive, folder or file")
        if path.is_dir():
            for file in sorted(path.glob("*.xyz")):
                yield file.read_text("utf-8", "replace")
        elif path.name.endswith(".xyz"):
            yield path.read_text("utf-8", "replace")
        else:
            try:
                # "r|*" reads forward only: nothing is unpacked to disk, and no list of members is kept.
                with tarfile.open(path, "r|*") as archive:
                    for member in archive:
                        if member.isfile() and member.name.endswith(".xyz"):
                            content = archive.extractfile(member)
                            assert content is not None
                            yield content.read().decode("utf-8", "replace")
                        archive.members = []  # type: ignore[attr-defined]
            except (tarfile.TarError, EOFError, OSError) as error:
                raise DataError(f"{path} is no tar archive, or is cut short: {error}") from error


def _parse(text: str, energy: str) -> tuple[int, Block]:
    lines = text.splitlines()
    atoms = int(lines[0])
    words = lines[1].split()
    if words[0] != "gdb" or len(words) != 2 + len(PROPERTIES):
        raise ValueError(lines[1])
    number = int(words[1])
    rows = [line.split() for line in lines[2 : 2 + atoms]]
    value = _number(words[2 + PROPERTIES.index(energy)]) * HARTREE
    return number, Block(
        group=f"gdb {number}",
        numbers=np.array([NUMBER_OF[row[0]] for row in rows], dtype=np.int64),
        positions=np.array([[_number(v) for v in row[1:4]] for row in rows]).reshape(1, atoms, 3),
        energy=np.array([value]),
    )


def _number(text: str) -> float:
    """A number as QM9 writes it: also ``1.2*^-6``, the way Mathematica prints powers of ten."""
    return float(text.replace("*^", "e"))


def _numbers(path: str | Path) -> set[int]:
    """Molecule numbers: the first word of the lines that start with one."""
    lines = existing(path, "list of excluded molecules").read_text("utf-8", "replace").splitlines()
    first = [line.split()[0] for line in lines if line.split()]
    return {int(word) for word in first if word.isdigit()}
