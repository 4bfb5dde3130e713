"""Molecules are accepted or rejected for the right reason, and every reason is counted."""

import bz2
import gzip
import hashlib
from pathlib import Path

import pytest

from equiscope.errors import DataError
from equiscope.tasks.datasets.chemistry import MoleculeFilter, Smiles, lines, nci_smiles_path, read_smiles, select
from equiscope.tasks.datasets.stream import Sample

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


MOSES = "SMILES,SPLIT\nCCO,train\nc1ccccc1,test\nC[N+](C)(C)C,train\nnonsense,train\n"


def test_lines(tmp_path):
    (tmp_path / "train.csv.gz").write_bytes(gzip.compress(MOSES.encode()))
    assert list(lines(tmp_path / "train.csv.gz")) == [(1, "CCO"), (2, "c1ccccc1"), (3, "C[N+](C)(C)C"), (4, "nonsense")]
    (tmp_path / "a.csv").write_text("id,smiles\n1,CCO\n")
    assert list(lines(tmp_path / "a.csv")) == [(1, "CCO")]
    (tmp_path / "a.smi").write_text("CCO ethanol\n\nC methane\n")
    assert list(lines(tmp_path / "a.smi")) == [(0, "CCO"), (2, "C")]


def test_description(tmp_path):
    (tmp_path / "train.csv").write_text(MOSES)
    found = Smiles(tmp_path / "train.csv").describe(Sample())
    assert (found.molecules, found.atoms) == (3, (9, 17))
    assert found.elements == {"C": 3, "H": 3, "O": 1, "N": 1}
    assert found.charges == {0: 2, 1: 1}
    assert found.rejected == {"SMILES that RDKit cannot read": 1}
    assert "no geometry" in str(found)
    assert Smiles(tmp_path / "train.csv").describe(Sample(2)).to_dict()["molecules"] <= 2


def test_refusals(tmp_path):
    with pytest.raises(DataError, match="there is no SMILES file"):
        list(lines(tmp_path / "none.smi"))
    (tmp_path / "a.csv").write_text("name\nCCO\n")
    with pytest.raises(DataError, match="one must be called SMILES"):
        list(lines(tmp_path / "a.csv"))
    (tmp_path / "a.smi.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match="not compressed as its name says"):
        list(lines(tmp_path / "a.smi.gz"))
    (tmp_path / "b.smi").write_text("nonsense\n")
    with pytest.raises(DataError, match="no molecule that RDKit can read"):
        Smiles(tmp_path / "b.smi").describe(Sample())


def test_what_spreadsheets_write(tmp_path):
    (tmp_path / "a.csv").write_bytes('"id","SMILES"\r\n"a, b","CCO"\r\n"short"\r\n"é","C"\r\n'.encode("utf-8-sig"))
    assert [text for _, text in lines(tmp_path / "a.csv")] == ["CCO", "C"]
    found = Smiles(tmp_path / "a.csv").describe(Sample())
    assert (found.molecules, found.rejected) == (2, {"line without a SMILES": 1})
    assert Smiles(tmp_path / "a.csv").describe(Sample(2)).rejected == {"line without a SMILES": 1}
    (tmp_path / "b.csv.bz2").write_bytes(bz2.compress("name,smiles\ncafé,CCO\n".encode("latin-1")))
    shown = str(Smiles(tmp_path / "b.csv.bz2").describe(Sample()))
    assert "left out: nothing" in shown
    assert "read with a remark: 1 line with bytes that are no UTF-8" in shown


def test_read_smiles(tmp_path: Path) -> None:
    file = tmp_path / "list.smi"
    file.write_text("CCO\tethanol\n\nC methane\n")
    assert read_smiles(file)[0] == ["CCO", "", "C"]
    with pytest.raises(DataError, match="no SMILES file"):
        read_smiles(tmp_path / "absent.smi")


def test_moses_csv_gzipped(tmp_path: Path) -> None:
    path = tmp_path / "train.csv.gz"
    path.write_bytes(gzip.compress(b"SMILES,SPLIT\nCCO,train\nCC=O,test\n"))
    smiles, digest = read_smiles(path)
    assert smiles == ["", "CCO", "CC=O"]
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [m.index for m in select(smiles, MoleculeFilter(2, 20))[0]] == [1, 2]
