"""Molecules as text: SMILES files and the CSV of MOSES (Polykovskiy et al., Front. Pharmacol. 11, 2020), streamed."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from equiscope.errors import DataError
from equiscope.tasks.datasets.blocks import existing
from equiscope.tasks.datasets.chemistry import rdkit
from equiscope.tasks.datasets.stream import Sample, chosen


def lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Line number and SMILES of every molecule of a file (``.smi``, ``.txt``, ``.csv``, also gzipped).

    A CSV's first line is its header; its column is the one called SMILES (in any case), MOSES' first. In other files
    it is the first word of a line.

    Raises:
        DataError: no such file, one that is no text, or a CSV without such a column.
    """
    path = existing(path, "SMILES file")
    names = path.name.lower().removesuffix(".gz")
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open("rt", encoding="utf-8") as file:
        try:
            column = _column(file.readline(), path) if names.endswith(".csv") else None
            for number, line in enumerate(file, start=0 if column is None else 1):
                words = line.split() if column is None else line.rstrip("\n").split(",")
                if words and words[column or 0]:
                    yield number, words[column or 0].strip()
        except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
            raise DataError(f"{path} is no text, or is cut short: {error}") from error


def _column(header: str, path: Path) -> int:
    names = [name.strip().lower() for name in header.rstrip("\n").split(",")]
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
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in self.rejected.items())
        return "\n".join(
            [
                f"{self.molecules:,} molecules, {fewest} to {most} atoms with hydrogens (no geometry: make it with "
                "`equiscope data forcefield --smiles`)",
                "elements (molecules): " + ", ".join(f"{name} {count:,}" for name, count in self.elements.items()),
                "total charge (molecules): " + ", ".join(f"{q:+d} {n:,}" for q, n in self.charges.items()),
                f"left out: {dropped or 'nothing'}",
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
    for _, text in chosen(lambda: lines(path), sample):
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
