"""MD17 and rMD17: kcal/mol to eV, streamed out of the archive, cut in time and not in the file's order."""

import io
import zipfile
from collections import Counter

import numpy as np
import pytest

from equiscope.errors import DataError, EquiscopeError, InputError
from equiscope.tasks.datasets import md17, reading
from equiscope.tasks.datasets.md17 import LAYOUTS, Md17
from tests.tasks.datasets import layouts


@pytest.mark.parametrize("names", LAYOUTS.values())
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_frames(tmp_path, names, save, monkeypatch):
    monkeypatch.setattr(reading, "FRAMES_AT_ONCE", 2)
    source = Md17(layouts.md17(tmp_path / "water.npz", names, save=save), pieces=1)
    blocks, rejected = layouts.read(source)
    assert rejected == {}
    assert [len(block) for block in blocks] == [2, 2, 1]
    layouts.assert_frames(blocks, *layouts.MOLECULES["water"], rel=1e-9)
    assert source.units()["energy"] == "kcal/mol"
    assert "documentation" in source.units()["known from"]


def test_units_of_the_file_are_obeyed(tmp_path):
    source = Md17(layouts.md17(tmp_path / "w.npz", r_unit="Ang", e_unit="eV"))
    blocks, _ = layouts.read(source)
    _, _, e, _ = layouts.MOLECULES["water"]
    np.testing.assert_allclose(np.concatenate([b.energy for b in blocks]), e / layouts.KCAL)
    assert source.units()["forces"] == "eV/Ang"


def test_pieces_follow_time(tmp_path):
    plain, _ = layouts.read(Md17(layouts.md17(tmp_path / "w.npz"), pieces=5))
    assert [block.group for block in plain] == [f"w piece {i}" for i in range(5)]
    shuffled = layouts.md17(tmp_path / "r.npz", LAYOUTS["rmd17"], old_indices=np.array([90.0, 10, 99, 15, 55]))
    blocks, _ = layouts.read(Md17(shuffled, pieces=2))
    assert [(block.group, len(block)) for block in blocks] == [("r piece 0", 2), ("r piece 1", 3)]
    np.testing.assert_allclose(blocks[0].energy, layouts.MOLECULES["water"][2][[1, 3]])


def test_refusals(tmp_path):
    with pytest.raises(InputError, match="pieces"):
        Md17("x", pieces=0)
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(DataError, match="has the arrays a; MD17 and rMD17 have z, R, E, F"):
        layouts.read(Md17(tmp_path / "other.npz"))
    (tmp_path / "text.npz").write_text("no")
    with pytest.raises(DataError, match="no npz file"):
        layouts.read(Md17(tmp_path / "text.npz"))
    np.savez(tmp_path / "o.npz", z=np.array([8]), R=np.array([{}], object), E=np.zeros(1), F=np.zeros((1, 1, 3)))
    with pytest.raises(DataError, match="only pickle"):
        layouts.read(Md17(tmp_path / "o.npz"))
    np.savez(tmp_path / "n.npz", z=np.array([8]), R=np.zeros((2, 1, 3)), E=np.zeros(2), F=np.zeros((3, 1, 3)))
    with pytest.raises(DataError, match=r"n\.npz: forces has shape \(3, 1, 3\), expected \(2, 1, 3\)"):
        layouts.read(Md17(tmp_path / "n.npz"))


@pytest.mark.parametrize("stated", [{"r_unit": "Bohr"}, {"e_unit": np.array(b"eV")}, {}])
def test_each_unit_is_obeyed_on_its_own(tmp_path, stated):
    source = Md17(layouts.md17(tmp_path / "w.npz", **stated))
    (block, *_), _ = layouts.read(source)
    _, x, e, f = layouts.MOLECULES["water"]
    length = layouts.BOHR if "r_unit" in stated else 1.0
    energy = 1 / layouts.KCAL if "e_unit" in stated else 1.0
    np.testing.assert_allclose(block.positions[0], x[0] * length)
    np.testing.assert_allclose(block.energy[0], e[0] * energy, rtol=1e-9)
    np.testing.assert_allclose(block.forces[0], f[0] * energy / length, rtol=1e-9)
    assert ("MD17's documentation" in source.units()["known from"]) == (len(stated) < 2)


@pytest.mark.parametrize(
    ("arrays", "cell"),
    [
        ({"lattice": 4 * np.eye(3)}, 4.0),
        ({"cell": np.tile(4 * np.eye(3), (5, 1, 1))}, 4.0),
        ({"lattice": 4 * np.eye(3), "pbc": np.array([True, False, False])}, 4.0),
        ({"lattice": 4 * np.eye(3), "pbc": np.zeros(3, bool)}, None),
        ({"lattice": np.zeros((3, 3))}, None),
    ],
)
def test_periodic_sets_carry_their_cell(tmp_path, arrays, cell):
    blocks, _ = layouts.read(Md17(layouts.md17(tmp_path / "w.npz", r_unit="nm", **arrays)))
    for block in blocks:
        assert (block.cell is None) if cell is None else (block.cell == 10 * cell * np.eye(3)).all()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pbc": np.ones(3, bool)}, "says pbc, but has no lattice"),
        ({"lattice": np.ones((2, 2))}, r"has the cells \{'lattice': \(2, 2\)\}"),
        ({"charge": np.arange(5)}, "several total charges"),
        ({"charge": 0.5}, "one whole number"),
        ({"old_indices": np.full(5, np.nan)}, "a time >= 0 for each of 5 frames"),
        ({"stress": np.ones((5, 5))}, r"stress has shape \(5, 5\)"),
        ({"e_unit": "furlong"}, "'furlong' is not known"),
    ],
)
def test_arrays_with_a_known_meaning_are_refused_where_they_do_not_fit(tmp_path, arrays, message):
    with pytest.raises((DataError, InputError), match=message):
        layouts.read(Md17(layouts.md17(tmp_path / "w.npz", **arrays)))


def test_charges_and_stresses_are_obeyed(tmp_path):
    path = layouts.md17(tmp_path / "w.npz", charge=np.full(5, -1), stress=np.tile(np.arange(6.0), (5, 1)), e_unit="eV")
    blocks, _ = layouts.read(Md17(path))
    assert {block.charge for block in blocks} == {-1}
    assert blocks[0].stress[0].tolist() == [[0, 5, 4], [5, 1, 3], [4, 3, 2]]


def test_two_energies_a_frame(tmp_path):
    np.savez(tmp_path / "n.npz", z=np.array([8]), R=np.zeros((2, 1, 3)), E=np.zeros((2, 2)), F=np.zeros((2, 1, 3)))
    with pytest.raises(DataError, match=r"energy has shape \(2, 2\), expected \(2,\)"):
        layouts.read(Md17(tmp_path / "n.npz"))


def header(shape, dtype="<f8", content=b""):
    made = io.BytesIO()
    np.lib.format.write_array_header_1_0(made, {"descr": dtype, "fortran_order": False, "shape": shape})
    return made.getvalue() + content


def archive(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back(tmp_path, save):
    x = np.random.default_rng(0).normal(size=(7, 2, 3))
    save(tmp_path / "a.npz", x=x, word="eV")
    with md17.opened(tmp_path / "a.npz") as found:
        assert found.names == {"x", "word"}
        assert (found.column("x").shape, found.column("x").dtype) == ((7, 2, 3), np.float64)
        assert str(found.whole("word")) == "eV"
        rows = list(found.rows("x", [slice(0, 3), slice(3, 6), slice(6, 7)]))
    assert [len(piece) for piece in rows] == [3, 3, 1]
    assert np.array_equal(np.concatenate(rows), x)


SOUND = {"z": header((1,), "|u1", b"\x01"), "E": header((2,), content=bytes(16))}


@pytest.mark.parametrize(
    "changed",
    [
        {"R": header((10**12, 1, 3)), "E": header((10**12,)), "F": header((10**12, 1, 3))},
        {"R": header((2, 1, 3), content=bytes(40))},
        {"R": header((2, 1, 3), content=bytes(56))},
        {"z": header((10**9,), "|u1"), "R": header((2, 10**9, 3))},
        {"z": header((0,), "|u1"), "R": header((10**12, 0, 3)), "F": header((10**12, 0, 3))},
        {"R": b"no array"},
        {"R": b"\x93NUMPY\x01\x00\xff\xff{'descr'"},
    ],
)
def test_headers_that_lie_are_typed(tmp_path, changed):
    members = {**SOUND, "R": header((2, 1, 3), content=bytes(48)), "F": header((2, 1, 3), content=bytes(48)), **changed}
    with pytest.raises(DataError, match=r"a\.npz"):
        layouts.read(Md17(archive(tmp_path / "a.npz", **members)))


def test_bombs(tmp_path, monkeypatch):
    from equiscope import files

    monkeypatch.setattr(files, "LARGEST_UNPACKED", 1 << 20)
    path = archive(tmp_path / "a.npz", R=header((1 << 20,), content=bytes(8 << 20)))
    with md17.opened(path) as found, pytest.raises(DataError, match="claims to unpack"):
        found.column("R")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_flips_and_cuts_are_typed_or_harmless(tmp_path, save):
    path = layouts.md17(tmp_path / "w.npz", save=save)
    content, sound = path.read_bytes(), layouts.read(Md17(path, pieces=1))[0]
    rng = np.random.default_rng(0)
    seen = Counter()
    for trial in range(120):
        damaged = bytearray(content)
        if trial % 4:
            damaged[rng.integers(len(content))] ^= 1 << rng.integers(8)
        else:
            del damaged[rng.integers(len(content)) :]
        path.write_bytes(bytes(damaged))
        try:
            blocks = layouts.read(Md17(path, pieces=1))[0]
        except EquiscopeError:
            seen["typed"] += 1
            continue
        # A flip in a time or an attribute of the archive changes no number.
        seen["read"] += 1
        for name in ("positions", "energy", "forces"):
            expected = np.concatenate([getattr(b, name) for b in sound])
            assert np.array_equal(np.concatenate([getattr(b, name) for b in blocks]), expected)
    assert seen["typed"] > 90
