"""Molecules as text: SMILES files, streamed, and which of them a data set is made of (RDKit, where first needed)."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from equiscope.errors import DataError
from equiscope.files import PACKED, needed, readable, text_lines
from equiscope.tasks.datasets import store
from equiscope.tasks.datasets.reading import Rejected, told
from equiscope.tasks.datasets.stream import Sample, chosen


def rdkit(name: str) -> Any:
    """The module ``rdkit.<name>``; Refused where RDKit is not installed."""
    return needed(f"rdkit.{name}", "RDKit")


ELEMENTS = ("H", "C", "N", "O", "F", "S", "Cl")


@dataclass(frozen=True)
class Molecule:
    """An accepted molecule: its SMILES, and its line in the file, from 0, with the seed the only source of its
    randomness.
    """

    index: int
    smiles: str


@dataclass(frozen=True)
class MoleculeFilter:
    """What is accepted: ``min_atoms`` to ``max_atoms`` atoms with hydrogens, all of ``elements``."""

    min_atoms: int = 10
    max_atoms: int = 20
    elements: tuple[str, ...] = ELEMENTS


def nci_smiles_path() -> Path:
    """The first 5,000 molecules of the NCI database, a file inside RDKit's wheel (BSD-3-Clause); DataError
    without it.
    """
    RDConfig = rdkit("RDConfig")
    path = Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi"
    if not path.exists():
        raise DataError(
            f"RDKit's molecule list is not at {path}; install the pip wheel of rdkit, which ships it, "
            "or name a SMILES file of your own"
        )
    return path


def select(smiles: Iterable[str], accept: MoleculeFilter | None = None) -> tuple[list[Molecule], dict[str, int]]:
    """The molecules that pass, in file order, and how many were rejected for each reason.

    A repeated molecule is dropped even when only its stereochemistry differs: mirror images and double-bond
    isomers have almost the same local geometry, and a split by molecule must not put them on both sides.
    """
    accept = accept or MoleculeFilter()
    Chem = rdkit("Chem")
    quiet = rdkit("rdBase").BlockLogs()
    accepted: list[Molecule] = []
    rejected: Counter[str] = Counter()
    seen: set[str] = set()
    for index, text in enumerate(smiles):
        if not text:
            continue
        try:
            mol = Chem.MolFromSmiles(text)
            check_molecule(mol, accept)
            key = Chem.MolToSmiles(mol, isomericSmiles=False)
            if key in seen:
                raise Rejected("duplicate")
        except Rejected as rejection:
            rejected[rejection.reason] += 1
            continue
        seen.add(key)
        accepted.append(Molecule(index, text))
    del quiet
    return accepted, dict(sorted(rejected.items()))


def check_molecule(mol: Any, accept: MoleculeFilter) -> None:
    """Nothing if an RDKit molecule is accepted.

    Raises:
        Rejected: with the first reason that applies (unreadable, fragments, isotopes, radical, charged, element, too
            few atoms, too many atoms, odd electrons, no MMFF parameters).
    """
    if mol is None:
        raise Rejected("unreadable")
    Chem, AllChem = rdkit("Chem"), rdkit("Chem.AllChem")
    atoms = list(mol.GetAtoms())
    if len(Chem.GetMolFrags(mol)) > 1:
        raise Rejected("fragments")
    if any(atom.GetIsotope() for atom in atoms):
        raise Rejected("isotopes")
    if any(atom.GetNumRadicalElectrons() for atom in atoms):
        raise Rejected("radical")
    if sum(atom.GetFormalCharge() for atom in atoms):
        raise Rejected("charged")
    outside = {atom.GetSymbol() for atom in atoms} - set(accept.elements)
    if outside:
        raise Rejected("element", ", ".join(sorted(outside)))
    full = Chem.AddHs(mol)
    if full.GetNumAtoms() < accept.min_atoms:
        raise Rejected("too few atoms", str(full.GetNumAtoms()))
    if full.GetNumAtoms() > accept.max_atoms:
        raise Rejected("too many atoms", str(full.GetNumAtoms()))
    if sum(atom.GetAtomicNum() for atom in full.GetAtoms()) % 2:
        # GFN2-xTB would return an open-shell energy for it without a word.
        raise Rejected("odd electrons")
    if not AllChem.MMFFHasAllMoleculeParams(full):
        raise Rejected("no MMFF parameters")


def lines(path: str | Path, rejected: Counter[str] | None = None) -> Iterator[tuple[int, str]]:
    """Line number and SMILES of every molecule of a file (``.smi``, ``.txt``, ``.csv``, also compressed).

    A CSV's first line is its header; its column is the one called SMILES (in any case), MOSES' first (Polykovskiy et
    al., Front. Pharmacol. 11, 2020). In other files it is the first word of a line. Lines of a CSV that end before that
    column are counted in ``rejected``.

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
        names = [name.strip().lower() for name in next(rows, [])]
        if "smiles" not in names:
            raise DataError(f"{path} has the columns {', '.join(names)}: one must be called SMILES")
        column = names.index("smiles")
        for number, row in enumerate(rows, start=1):
            if len(row) > column and row[column].strip():
                yield number, row[column].strip()
            elif any(row):
                counts["line without a SMILES"] += 1


def read_smiles(path: str | Path) -> tuple[list[str], str]:
    """The SMILES of a file as by :func:`lines`, also its errors, and its SHA-256; a line without one is kept as ""."""
    found = dict(lines(path))
    return [found.get(number, "") for number in range(max(found, default=-1) + 1)], store.checksum(path)


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
        lines = [
            f"{self.molecules:,} molecules, {fewest} to {most} atoms with hydrogens (no geometry: make it with "
            "`equiscope data forcefield --smiles`)",
            "elements (molecules): " + ", ".join(f"{name} {count:,}" for name, count in self.elements.items()),
            "total charge (molecules): " + ", ".join(f"{q:+d} {n:,}" for q, n in self.charges.items()),
        ]
        return "\n".join([*lines, *told(self.rejected)])

    def to_dict(self) -> dict[str, Any]:
        """Plain types for a record."""
        charges = {str(charge): count for charge, count in self.charges.items()}
        return {**asdict(self), "atoms": list(self.atoms), "charges": charges}


@dataclass(frozen=True)
class Smiles:
    """A file of SMILES as a format of the catalogue; ``path`` as for :func:`lines`."""

    path: str | Path

    def describe(self, sample: Sample) -> SmilesDescription:
        """Read a sample with RDKit and count; a DataError where there is no molecule that it can read."""
        Chem, quiet = rdkit("Chem"), rdkit("rdBase").BlockLogs()
        sizes, elements, charges, rejected = Counter[int](), Counter[str](), Counter[int](), Counter[str]()
        # A first pass, where a number of molecules is asked for, only counts them.
        passes = iter([None, rejected] if sample.frames is not None else [rejected])
        for _, text in chosen(lambda: lines(self.path, next(passes)), sample):
            if (mol := Chem.MolFromSmiles(text)) is None:
                rejected["SMILES that RDKit cannot read"] += 1
                continue
            full = Chem.AddHs(mol)
            sizes[full.GetNumAtoms()] += 1
            elements.update({atom.GetSymbol() for atom in full.GetAtoms()})
            charges[Chem.GetFormalCharge(mol)] += 1
        del quiet
        if not sizes:
            raise DataError(f"{self.path} has no molecule that RDKit can read (left out: {dict(rejected)})")
        return SmilesDescription(
            molecules=sizes.total(),
            atoms=(min(sizes), max(sizes)),
            elements=dict(elements.most_common()),
            charges=dict(sorted(charges.items())),
            rejected=dict(rejected),
        )
