"""ASE databases: SQLite through ASE; LMDB from its raw layout, and as ase-db-backends writes it."""

import sqlite3
import subprocess
import sys
import zlib

import ase.db
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from equiscope.errors import DataError
from equiscope.tasks.datasets.ase_databases import AseDatabase
from tests.tasks.datasets import layouts


def rows():
    for name, (numbers, x, e, f) in layouts.MOLECULES.items():
        for k in range(len(x)):
            yield name, layouts.ase_row(numbers, x[k], float(e[k]), f[k], data={"source": name, "charge": 0, "spin": 1})


def check(blocks):
    for name, content in layouts.MOLECULES.items():
        layouts.assert_frames([b for b in blocks if b.group == name], *content, rel=1e-12)


def test_raw_lmdb(tmp_path):
    source = AseDatabase(layouts.aselmdb(tmp_path / "a.aselmdb", [row for _, row in rows()]), cluster="source")
    blocks, rejected = layouts.read(source)
    assert rejected == {}
    check(blocks)
    assert {b.charge for b in blocks} == {0}
    assert source.units()["energy"] == "eV"
    again, _ = layouts.read(source)
    assert len(again) == len(blocks) == 12


def test_deleted_rows_and_folders(tmp_path):
    made = [row for _, row in rows()]
    layouts.aselmdb(tmp_path / "data0000.aselmdb", made[:4], deleted=(2,))
    layouts.aselmdb(tmp_path / "data0001.aselmdb", [*made[4:], {"nothing": 1}])
    blocks, rejected = layouts.read(AseDatabase(tmp_path))
    assert [b.group for b in blocks] == ["H3N"] * 3 + ["CH4"] * 3 + ["H2O"] * 5
    assert rejected == {"row that cannot be read (first: row 11: it has no atoms)": 1}


def test_periodic_rows_keep_cell_and_stress(tmp_path):
    numbers, x, e, f = layouts.MOLECULES["water"]
    cell = {"array": layouts.ndarray(np.diag([4.0, 5.0, 6.0])), "__ase_objtype__": "cell"}
    row = layouts.ase_row(numbers, x[0], float(e[0]), f[0], cell=cell, pbc=layouts.ndarray(np.ones(3, bool)))
    row["stress"] = layouts.ndarray(np.arange(6.0))
    (block,), _ = layouts.read(AseDatabase(layouts.aselmdb(tmp_path / "a.aselmdb", [row])))
    assert block.cell[0].tolist() == np.diag([4.0, 5.0, 6.0]).tolist()
    assert block.stress[0].tolist() == [[0, 5, 4], [5, 1, 3], [4, 3, 2]]


WRITE = """
import sys, ase.db
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from tests.tasks.datasets import layouts
with ase.db.connect(sys.argv[1], type="aselmdb") as database:
    for name, (numbers, x, e, f) in layouts.MOLECULES.items():
        for k in range(len(x)):
            atoms = Atoms(numbers, x[k])
            atoms.calc = SinglePointCalculator(atoms, energy=float(e[k]), forces=f[k])
            database.write(atoms, data={"source": name, "charge": 0})
"""


def test_as_ase_db_backends_writes_it(tmp_path):
    pytest.importorskip("ase_db_backends")
    # In a process of its own: the same LMDB file must not be open twice in one.
    path = tmp_path / "a.aselmdb"
    subprocess.run([sys.executable, "-c", WRITE, str(path)], check=True, timeout=100)
    blocks, rejected = layouts.read(AseDatabase(path, cluster="source"))
    assert rejected == {}
    check(blocks)


def test_sqlite(tmp_path):
    with ase.db.connect(tmp_path / "a.db") as database:
        for name, (numbers, x, e, f) in layouts.MOLECULES.items():
            for k in range(len(x)):
                atoms = Atoms(numbers, x[k])
                atoms.calc = SinglePointCalculator(atoms, energy=e[k], forces=f[k])
                database.write(atoms, kind=name)
    blocks, _ = layouts.read(AseDatabase(tmp_path / "a.db", cluster="kind"))
    check(blocks)


def test_refusals(tmp_path):
    with pytest.raises(DataError, match="there is no ASE database"):
        layouts.read(AseDatabase(tmp_path / "none.db"))
    with pytest.raises(DataError, match=r"no \.aselmdb file"):
        layouts.read(AseDatabase(tmp_path))
    (tmp_path / "a.db").write_text("no database" * 100)
    with pytest.raises(DataError, match="no file that can be read as an ASE database"):
        layouts.read(AseDatabase(tmp_path / "a.db"))
    (tmp_path / "a.aselmdb").write_text("no database" * 1000)
    with pytest.raises(DataError, match="no LMDB file"):
        layouts.read(AseDatabase(tmp_path / "a.aselmdb"))
    import lmdb

    with lmdb.open(str(tmp_path / "b.aselmdb"), subdir=False) as empty, empty.begin(write=True) as put:
        put.put(b"a", b"b")
    with pytest.raises(DataError, match="no key 'nextid'"):
        layouts.read(AseDatabase(tmp_path / "b.aselmdb"))


def test_what_the_file_claims_is_not_believed(tmp_path):
    import lmdb

    made = [row for _, row in rows()]
    path = layouts.aselmdb(tmp_path / "a.aselmdb", made)
    with lmdb.open(str(path), subdir=False, map_size=1 << 24) as environment, environment.begin(write=True) as put:
        put.put(b"nextid", layouts.encoded(10**15))
        put.put(b"20", b"rubbish")
        put.put(b"21", zlib.compress(b"[" * 100_000))
        put.put(b"22", zlib.compress(bytes(1 << 29)))
    blocks, rejected = layouts.read(AseDatabase(path))
    assert len(blocks) == 12
    assert list(rejected.values()) == [1, 1, 1]
    for reason, why in zip(("incorrect header", "RecursionError", "larger than any row"), rejected, strict=True):
        assert reason in why


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_cut_file_is_an_error_and_not_the_end_of_the_process(tmp_path, share):
    row = next(row for _, row in rows())
    content = layouts.aselmdb(tmp_path / "a.aselmdb", [row] * 500).read_bytes()
    (tmp_path / "b.aselmdb").write_bytes(content[: int(len(content) * share)])
    code = "import sys; from equiscope import cli; sys.exit(cli.main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "data", "describe", str(tmp_path / "b.aselmdb"), "--format", "ase"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert "is cut short: it has" in done.stderr


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"energy": "failed"}, "energy holds 'failed'"),
        ({"numbers": layouts.ndarray(np.array([6.5, 1, 1, 1]))}, "must be 1 … 118"),
        ({"stress": layouts.ndarray(np.ones(4))}, "stress has shape (1, 4)"),
        ({"data": {"charge": 0.5}}, "one whole number, got 0.5"),
        ({"forces": layouts.ndarray(np.ones((3, 3)))}, "forces has shape (1, 3, 3), expected (1, 4, 3)"),
    ],
)
def test_bad_rows_are_counted_with_their_reason(tmp_path, changed, reason):
    made = [row for _, row in rows()]
    path = layouts.aselmdb(tmp_path / "a.aselmdb", [{**made[0], **changed}, *made[1:]])
    blocks, rejected = layouts.read(AseDatabase(path))
    assert (len(blocks), list(rejected.values())) == (11, [1])
    assert reason in next(iter(rejected))


def test_a_damaged_row_of_sqlite_is_counted(tmp_path):
    with ase.db.connect(tmp_path / "a.db") as database:
        for numbers, x, *_ in layouts.MOLECULES.values():
            database.write(Atoms(numbers, x[0]))
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("update systems set positions = ? where id = 2", (b"abc",))
    blocks, rejected = layouts.read(AseDatabase(tmp_path / "a.db"))
    assert ([b.group for b in blocks], list(rejected.values())) == (["H3N", "H2O"], [1])
    assert "row 1: ValueError: buffer size" in next(iter(rejected))
