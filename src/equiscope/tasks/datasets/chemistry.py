"""Which molecules a data set is made of, accepted or counted as rejected; RDKit, imported where it is first needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equiscope.errors import DataError
from equiscope.files import needed
from equiscope.tasks.datasets.reading import Rejected


def rdkit(name: str) -> Any:
    """The module ``rdkit.<name>``.

    Raises:
        Refused: RDKit is not installed.
    """
    return needed(f"rdkit.{name}", "RDKit")


ELEMENTS = ("H", "C", "N", "O", "F", "S", "Cl")


@dataclass(frozen=True)
class Molecule:
    """An accepted molecule.

    Attributes:
        index: its line in the SMILES file, from 0; with the seed, the only source of its randomness.
        smiles: as it stands in the file.
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
    """The first 5,000 molecules of the NCI open database, a file inside the RDKit wheel (BSD-3-Clause).

    Raises:
        DataError: this RDKit build ships no ``Data`` folder.
    """
    RDConfig = rdkit("RDConfig")
    path = Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi"
    if not path.exists():
        raise DataError(
            f"RDKit's molecule list is not at {path}; install the pip wheel of rdkit, which ships it, "
            "or name a SMILES file of your own"
        )
    return path


def select(
    smiles: Iterable[str], accept: MoleculeFilter | None = None
) -> tuple[list[Molecule], dict[str, int]]:
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
        Rejected: with the first reason that applies (unreadable, fragments, isotopes, radical, charged,
            element, too few atoms, too many atoms, odd electrons, no MMFF parameters).
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
