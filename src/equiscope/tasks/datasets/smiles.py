"""Molecules as text: SMILES files and the CSV of MOSES (Polykovskiy et al., Front. Pharmacol. 11, 2020), streamed."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from equiscope.errors import DataError
from equiscope.files import PACKED, readable, text_lines
from equiscope.tasks.datasets.chemistry import rdkit
from equiscope.tasks.datasets.reading import told
from equiscope.tasks.datasets.stream import Sample, chosen


def lines(path: str | Path, rejected: Counter[str] | None = None) -> Iterator[tuple[int, str]]:
    """Line number and SMILES of every molecule of a file (``.smi``, ``.txt``, ``.csv``, also compressed).

    A CSV's first line is its header; its column is the one called SMILES (in any case), MOSES' first. In other files
    it is the first word of a line. Lines of a CSV that end before that column are counted in ``rejected``.

    Raises:
        DataError: no such file, one that is damaged, or a CSV without such a column.
    """
    name = Path(path).name.lower()
    counts: Counter[str] = Counter() if rejected is None else rejected
    content = text_lines(path, "SMILES file", counts)
    if not name.endswith((".csv", *(f".csv{ending}" for ending in PACKED))):
        yield from ((number, line.split()[0]) for number, line in enumerate(content) if line.split())
        return
    with readable(path, "SMILES file"):
        rows = csv.reader(content)
        column = _column(next(rows, []), path)
        for number, row in enumerate(rows, start=1):
            if len(row) > column and row[column].strip():
                yield number, row[column].strip()
            elif any(row):
                counts["line without a SMILES"] += 1


def read_smiles(path: str | Path) -> tuple[list[str], str]:
    """The SMILES of a file as :func:`lines` reads it, and its SHA-256.

    A line without one is kept as "", so that an index is a line.

    Raises:
        DataError: there is no such file, or a CSV has no column of SMILES.
    """
    found = dict(lines(path))
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return [found.get(number, "") for number in range(max(found, default=-1) + 1)], digest


def _column(header: list[str], path: str | Path) -> int:
    names = [name.strip().lower() for name in header]
    if "smiles" not in names:
        raise DataError(f"{path} has the columns {', '.join(names)}: one must be called SMILES")
    return names.index("smiles")


@dataclass(frozen=True)
class SmilesDescription:
    """Counts of the molecules that were taken, hydrogens included.

    Attributes:
        molecules: that RDKit reads; atoms: fewest and most atoms; elements: symbol → molecules that hold it.
        charges: total charge → molecules; rejected: reason → lines.
    """

    molecules: int
    atoms: tuple[int, int]
    elements: Mapping[str, int]
    charges: Mapping[int, int]
    rejected: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        fewest, most = self.atoms
        return "\n".join(
            [
                f"{self.molecules:,} molecules, {fewest} to {most} atoms with hydrogens (no geometry: make it with "
                "`equiscope data forcefield --smiles`)",
                "elements (molecules): " + ", ".join(f"{name} {count:,}" for name, count in self.elements.items()),
                "total charge (molecules): " + ", ".join(f"{q:+d} {n:,}" for q, n in self.charges.items()),
                *told(self.rejected),
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain types for a record."""
        return {
            "molecules": self.molecules,
            "atoms": list(self.atoms),
            "elements": dict(self.elements),
            "charges": {str(charge): count for charge, count in self.charges.items()},
            "rejected": dict(self.rejected),
        }


@dataclass(frozen=True)
class Smiles:
    """A file of SMILES as a format of the catalogue; ``path`` as for :func:`lines`."""

    path: str | Path

    def describe(self, sample: Sample) -> SmilesDescription:
        """See :func:`describe`."""
        return describe(self.path, sample)


def describe(path: str | Path, sample: Sample) -> SmilesDescription:
    """Read a sample of a SMILES file with RDKit and count.

    Raises:
        DataError: see :func:`lines`; or no molecule that RDKit can read.
    """
    Chem, quiet = rdkit("Chem"), rdkit("rdBase").BlockLogs()
    elements: Counter[str] = Counter()
    charges: Counter[int] = Counter()
    rejected: Counter[str] = Counter()
    molecules, fewest, most = 0, 2**31, 0
    # A first pass, where a number of molecules is asked for, only counts them.
    passes = iter([None, rejected] if sample.frames is not None else [rejected])
    for _, text in chosen(lambda: lines(path, next(passes)), sample):
        mol = Chem.MolFromSmiles(text)
        if mol is None:
            rejected["SMILES that RDKit cannot read"] += 1
            continue
        full = Chem.AddHs(mol)
        molecules += 1
        fewest, most = min(fewest, full.GetNumAtoms()), max(most, full.GetNumAtoms())
        elements.update({atom.GetSymbol() for atom in full.GetAtoms()})
        charges[Chem.GetFormalCharge(mol)] += 1
    del quiet
    if not molecules:
        raise DataError(f"{path} has no molecule that RDKit can read (left out: {dict(rejected)})")
    return SmilesDescription(
        molecules, (fewest, most), dict(elements.most_common()), dict(sorted(charges.items())), dict(rejected)
    )
