"""SPICE: bohr, hartree and minus the gradient to Å, eV and eV/Å; units from the attributes alone."""

import numpy as np
import pytest

from equiscope.errors import DataError, InputError
from equiscope.tasks.datasets.blocks import FRAMES_AT_ONCE
from equiscope.tasks.datasets.spice import Spice, mapped_numbers, smiles_charge
from tests.tasks.datasets import layouts


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
