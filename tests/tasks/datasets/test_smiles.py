"""SMILES files and MOSES' CSV, streamed and sampled."""

import bz2
import gzip
import hashlib
from pathlib import Path

import pytest

from equiscope.errors import DataError
from equiscope.tasks.datasets.chemistry import MoleculeFilter, select
from equiscope.tasks.datasets.smiles import describe, lines, read_smiles
from equiscope.tasks.datasets.stream import Sample

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
    found = describe(tmp_path / "train.csv", Sample())
    assert (found.molecules, found.atoms) == (3, (9, 17))
    assert found.elements == {"C": 3, "H": 3, "O": 1, "N": 1}
    assert found.charges == {0: 2, 1: 1}
    assert found.rejected == {"SMILES that RDKit cannot read": 1}
    assert "no geometry" in str(found)
    assert describe(tmp_path / "train.csv", Sample(2)).to_dict()["molecules"] <= 2


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
        describe(tmp_path / "b.smi", Sample())


def test_what_spreadsheets_write(tmp_path):
    (tmp_path / "a.csv").write_bytes('"id","SMILES"\r\n"a, b","CCO"\r\n"short"\r\n"é","C"\r\n'.encode("utf-8-sig"))
    assert [text for _, text in lines(tmp_path / "a.csv")] == ["CCO", "C"]
    found = describe(tmp_path / "a.csv", Sample())
    assert (found.molecules, found.rejected) == (2, {"line without a SMILES": 1})
    assert describe(tmp_path / "a.csv", Sample(2)).rejected == {"line without a SMILES": 1}
    (tmp_path / "b.csv.bz2").write_bytes(bz2.compress("name,smiles\ncafé,CCO\n".encode("latin-1")))
    shown = str(describe(tmp_path / "b.csv.bz2", Sample()))
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
