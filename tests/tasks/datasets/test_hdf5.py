"""HDF5 files are read without leaving them, and no further than what is stored."""

import h5py
import numpy as np
import pytest

from equiscope.errors import DataError, InputError
from equiscope.files import Refused
from equiscope.tasks.datasets.blocks import FRAMES_AT_ONCE
from equiscope.tasks.datasets.hdf5 import Ani1x, Ani2x, Spice, mapped_numbers, smiles_charge
from tests.tasks.datasets import layouts


def changed(path, name, make):
    """SPICE's file with one dataset of water made anew."""
    layouts.spice(path)
    with h5py.File(path, "a") as file:
        unit = file[name].attrs.get("units")
        del file[name]
        make(file, name)
        if unit is not None and isinstance(file.get(name), h5py.Dataset):
            file[name].attrs["units"] = unit
    return path


def external(file, name):
    file[name] = h5py.ExternalLink("/etc/passwd", "/x")


def through_a_soft_link(file, name):
    file["water/other"] = h5py.ExternalLink(file.filename.replace("a.h5", "b.h5"), "/water")
    file[name] = h5py.SoftLink("/water/other/dft_total_energy")


def raw(file, name):
    file.create_dataset(name, shape=(5,), dtype="f8", external=[("/etc/passwd", 0, 40)])


def virtual(file, name):
    layout = h5py.VirtualLayout((5,), "f8")
    layout[:] = h5py.VirtualSource(file.filename.replace("a.h5", "b.h5"), "water/dft_total_energy", shape=(5,))
    file.create_virtual_dataset(name, layout)


@pytest.mark.parametrize("make", [external, through_a_soft_link, raw, virtual])
def test_other_files_are_not_read(tmp_path, make):
    layouts.spice(tmp_path / "b.h5")
    path = changed(tmp_path / "a.h5", "water/dft_total_energy", make)
    with pytest.raises(Refused, match=r"another file|other files"):
        layouts.read(Spice(path))


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("dft_total_energy", np.zeros(600), "energy has shape (600,), expected (5,)"),
        ("dft_total_energy", np.zeros((5, 2)), "energy has shape (5, 2), expected (5,)"),
        ("dft_total_energy", np.array([b"a"] * 5), "energy holds |S1"),
        ("conformations", np.zeros((5, 3, 3), complex), "positions holds complex128"),
        ("conformations", np.zeros((5, 4, 3)), "positions has shape"),
        ("atomic_numbers", np.array([6.5, 1, 1]), "must be 1 … 118"),
    ],
)
def test_a_group_that_does_not_fit_is_counted(tmp_path, name, value, reason):
    path = changed(tmp_path / "a.h5", f"water/{name}", lambda file, where: file.create_dataset(where, data=value))
    blocks, rejected = layouts.read(Spice(path))
    assert [b.group for b in blocks] == ["ammonia", "methane"]
    (why,) = rejected
    assert rejected[why] == 1
    assert "group water" in why
    assert reason in why


def test_headers_without_content_and_cells_are_counted(tmp_path):
    shape = (10**12, 3, 3)
    path = changed(
        tmp_path / "a.h5",
        "water/conformations",
        lambda file, name: file.create_dataset(name, shape=shape, dtype="f4", chunks=(100, 3, 3)),
    )
    _, rejected = layouts.read(Spice(path))
    assert "claims to unpack to" in next(iter(rejected))
    with h5py.File(layouts.spice(tmp_path / "c.h5"), "a") as file:
        file["water/Lattice"] = np.eye(3)
        file["soft"] = h5py.SoftLink("/methane")
    blocks, rejected = layouts.read(Spice(tmp_path / "c.h5"))
    assert [b.group for b in blocks] == ["ammonia", "methane", "soft"]
    assert "it has Lattice: a periodic set" in next(iter(rejected))
    with h5py.File(tmp_path / "c.h5", "a") as file:
        file["ammonia/cell"] = np.eye(3)
    assert Spice(tmp_path / "c.h5").units()["positions"] == "bohr"


def test_species_must_have_a_row_a_frame(tmp_path):
    path = layouts.ani2x(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        rows = file["003/species"][:-1]
        del file["003/species"]
        file["003/species"] = rows
    _, rejected = layouts.read(Ani2x(path))
    assert list(rejected.values()) == [1]
    assert "species has 4 rows, expected 5" in next(iter(rejected))


def test_every_frame_in_ev_and_angstrom(tmp_path):
    source = Spice(layouts.spice(tmp_path / "s.hdf5"))
    blocks, rejected = layouts.read(source)
    assert rejected == {}
    assert [block.group for block in blocks] == ["ammonia", "methane", "water"]
    for block in blocks:
        layouts.assert_frames([block], *layouts.MOLECULES[block.group])
        assert block.charge == 0
    assert source.units() == {
        "positions": "bohr",
        "energy": "hartree",
        "gradient": "hartree/bohr",
        "known from": "attributes in the file",
    }
    again, _ = layouts.read(source)
    assert all(np.array_equal(a.forces, b.forces) for a, b in zip(blocks, again, strict=True))


def test_units_are_obeyed(tmp_path):
    # The same numbers under other names of units are other positions and forces.
    source = Spice(layouts.spice(tmp_path / "s.hdf5", units=("nanometers", "eV", "eV/nm")))
    (block, *_), _ = layouts.read(source)
    _, x, e, f = layouts.MOLECULES["ammonia"]
    layouts.assert_frames(
        [block], layouts.AMMONIA, x / layouts.BOHR * 10, e / layouts.HARTREE, f / layouts.HARTREE * layouts.BOHR / 10
    )


@pytest.mark.parametrize(
    ("units", "error", "message"),
    [
        ((None, "hartree", "hartree/bohr"), DataError, "conformations has no attribute 'units'"),
        (("bohr", "hartree", "furlong"), InputError, "'furlong' is no unit of force"),
        (("cubits", "hartree", "hartree/bohr"), InputError, "'cubits' is not known"),
    ],
)
def test_unknown_units_stop(tmp_path, units, error, message):
    with pytest.raises(error, match=message):
        layouts.read(Spice(layouts.spice(tmp_path / "s.hdf5", units=units)))


def test_long_groups_are_cut(tmp_path):
    x, e, f = layouts.frames(layouts.WATER, 2 * FRAMES_AT_ONCE + 3, 5)
    source = Spice(layouts.spice(tmp_path / "s.hdf5", {"water": (layouts.WATER, x, e, f)}))
    blocks, _ = layouts.read(source)
    assert [len(block) for block in blocks] == [FRAMES_AT_ONCE, FRAMES_AT_ONCE, 3]
    layouts.assert_frames(blocks, layouts.WATER, x, e, f)


def test_geometry_files_without_labels(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "g.hdf5", "w") as file:
        group = file.create_group("glycine zwitterion")
        group["smiles"] = [b"[N+:1]([H:2])([H:3])([H:4])[H:5]"]
        group["conformations"] = np.full((2, 5, 3), 0.1, dtype=np.float32)
        group["conformations"].attrs["units"] = "nanometers"
        file.create_group("other")
    (block,), rejected = layouts.read(Spice(tmp_path / "g.hdf5"))
    assert (block.energy, block.forces, block.charge) == (None, None, 1)
    assert block.numbers.tolist() == [7, 1, 1, 1, 1]
    np.testing.assert_allclose(block.positions, 1.0, rtol=1e-6)
    assert rejected == {"group without conformations or atoms": 1}


@pytest.mark.parametrize(
    ("smiles", "charge"),
    [
        ("CCO", 0),
        ("[O-:1][C:2](=[O:3])[H:4]", -1),
        ("[Ca+2:1]", 2),
        ("[Mg++]", 2),
        ("[NH3+]CC([O-])=O", 0),
        ("[O--]", -2),
    ],
)
def test_charge_of_smiles(smiles, charge):
    from rdkit import Chem

    assert smiles_charge(smiles) == charge == Chem.GetFormalCharge(Chem.MolFromSmiles(smiles))


def test_atoms_without_map_numbers_are_refused():
    with pytest.raises(DataError, match="map number"):
        mapped_numbers("CCO", "here")


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text.hdf5").write_text("no")
    with pytest.raises(DataError, match="no HDF5 file"):
        layouts.read(Spice(tmp_path / "text.hdf5"))
    with pytest.raises(DataError, match="there is no HDF5 file at"):
        layouts.read(Spice(tmp_path / "none.hdf5"))
    with pytest.raises(DataError, match="no SPICE file"):
        layouts.read(Spice(layouts.ani1x(tmp_path / "ani.h5")))
    import h5py

    with h5py.File(layouts.spice(tmp_path / "short.hdf5"), "a") as file:
        del file["water/dft_total_energy"]
        file["water/dft_total_energy"] = np.zeros(2)
        file["water/dft_total_energy"].attrs["units"] = "hartree"
    blocks, rejected = layouts.read(Spice(tmp_path / "short.hdf5"))
    assert [block.group for block in blocks] == ["ammonia", "methane"]
    reason = "group that cannot be read (first: group water: energy has shape (2,), expected (5,))"
    assert rejected == {reason: 1}


FORMULAS = {"H3N": "ammonia", "CH4": "methane", "H2O": "water"}


def test_ani1x(tmp_path):
    blocks, rejected = layouts.read(Ani1x(layouts.ani1x(tmp_path / "a.h5")))
    assert rejected == {}
    assert [block.group for block in blocks] == list(FORMULAS)
    for block in blocks:
        layouts.assert_frames([block], *layouts.MOLECULES[FORMULAS[block.group]])


def test_rows_without_a_label_are_counted(tmp_path):
    numbers, x, e, f = layouts.MOLECULES["water"]
    e, f = e.copy(), f.copy()
    e[1], f[3, 0, 0] = np.nan, np.nan
    path = layouts.ani1x(tmp_path / "a.h5", {"water": (numbers, x, e, f)})
    (block,), rejected = layouts.read(Ani1x(path))
    layouts.assert_frames([block], numbers, x[[0, 2, 4]], e[[0, 2, 4]], f[[0, 2, 4]])
    assert rejected == {"no wb97x_dz label (NaN)": 2}
    with pytest.raises(DataError, match=r"hf_dz\.forces"):
        layouts.read(Ani1x(path, method="hf_dz"))


def test_ani2x(tmp_path):
    both = {**layouts.MOLECULES, "phosphine": ([15, 1, 1, 1], *layouts.frames([15, 1, 1, 1], 6, 9))}
    blocks, rejected = layouts.read(Ani2x(layouts.ani2x(tmp_path / "a.h5", both)))
    assert rejected == {}
    formulas = {**FORMULAS, "H3P": "phosphine"}
    assert sorted(block.group for block in blocks) == sorted(formulas)
    for block in blocks:
        numbers, x, e, f = both[formulas[block.group]]
        order, found = np.argsort(e), np.argsort(block.energy)
        layouts.assert_frames([block.take(found)], numbers, x[order], e[order], f[order])
    with pytest.raises(DataError, match="no group with species"):
        layouts.read(Ani2x(layouts.ani1x(tmp_path / "other.h5")))


def test_arrays_of_different_length(tmp_path):
    import h5py

    with h5py.File(layouts.ani1x(tmp_path / "a.h5"), "a") as file:
        del file["water/wb97x_dz.energy"]
        file["water/wb97x_dz.energy"] = np.zeros(2)
    blocks, rejected = layouts.read(Ani1x(tmp_path / "a.h5"))
    assert [block.group for block in blocks] == ["H3N", "CH4"]
    reason = "group that cannot be read (first: group water: energy has shape (2,), expected (5,))"
    assert rejected == {reason: 1}
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["ammonia"], file["methane"]
    with pytest.raises(DataError, match=r"left out: 1 group .*energy has shape \(2,\), expected \(5,\)"):
        layouts.read(Ani1x(tmp_path / "a.h5"))
