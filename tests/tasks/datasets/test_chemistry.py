"""Molecules are accepted or rejected for the right reason, and every reason is counted."""


import pytest

from equiscope.tasks.datasets.chemistry import MoleculeFilter, nci_smiles_path, select
from equiscope.tasks.datasets.smiles import read_smiles

REASONS = {
    "not a molecule": "unreadable",
    "CC=O.O": "fragments",
    "[2H]CC=O": "isotopes",
    "C[CH2]": "radical",
    "CC(=O)[O-]": "charged",
    "CBr": "element",
    "C": "too few atoms",
    "CCCCCCCC": "too many atoms",
}


@pytest.mark.parametrize(("smiles", "reason"), REASONS.items())
def test_each_reason(smiles: str, reason: str) -> None:
    accepted, rejected = select([smiles], MoleculeFilter(6, 20))
    assert (accepted, rejected) == ([], {reason: 1})


def test_missing_mmff_parameters() -> None:
    # No MMFF94 atom type covers sulfur with six bonds.
    accepted, rejected = select(["FS(F)(F)(F)(F)F"], MoleculeFilter(2, 20))
    assert (accepted, rejected) == ([], {"no MMFF parameters": 1})


def test_size_limits_are_inclusive_and_count_hydrogens() -> None:
    ethanol = "CCO"
    assert len(select([ethanol], MoleculeFilter(9, 9))[0]) == 1
    assert select([ethanol], MoleculeFilter(10, 20))[1] == {"too few atoms": 1}
    assert select([ethanol], MoleculeFilter(2, 8))[1] == {"too many atoms": 1}


def test_accepted_keep_their_line_and_nitro_groups_are_neutral() -> None:
    accepted, rejected = select(["", "CCO", "C", "C[N+](=O)[O-]"], MoleculeFilter(5, 20))
    assert [(m.index, m.smiles) for m in accepted] == [(1, "CCO"), (2, "C"), (3, "C[N+](=O)[O-]")]
    assert rejected == {}


def test_duplicates_and_stereoisomers_are_one_molecule() -> None:
    accepted, rejected = select(["C[C@H](O)F", "OC(C)F", "C[C@@H](O)F", "F/C=C/F", "F/C=C\\F"], MoleculeFilter(5, 20))
    assert [m.index for m in accepted] == [0, 3]
    assert rejected == {"duplicate": 3}


def test_the_nci_list_is_fully_accounted_for() -> None:
    smiles, digest = read_smiles(nci_smiles_path())
    accepted, rejected = select(smiles)
    assert len(accepted) + sum(rejected.values()) == sum(bool(s) for s in smiles)
    assert len(accepted) > 900
    assert len(digest) == 64
