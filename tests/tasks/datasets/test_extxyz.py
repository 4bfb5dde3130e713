"""Extended XYZ: what ASE writes comes back, in the units the user states; without them nothing is read."""

import gzip

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from equiscope.errors import DataError, InputError
from equiscope.tasks.datasets.extxyz import ExtXyz, frame_texts
from tests.tasks.datasets import layouts


def structures(periodic=False):
    made = []
    for name, (numbers, x, e, f) in layouts.MOLECULES.items():
        for k in range(len(x)):
            atoms = Atoms(numbers, x[k], info={"name": name})
            results = {"energy": e[k], "forces": f[k]}
            if periodic:
                atoms.set_cell([9.0, 10.0, 11.0])
                atoms.pbc = True
                results["stress"] = np.arange(6.0) * 0.01
            atoms.calc = SinglePointCalculator(atoms, **results)
            made.append(atoms)
    return made


def write(path, periodic=False, **more):
    ase.io.write(path, structures(periodic), format="extxyz", **more)
    return path


def test_frames_of_ase(tmp_path):
    path = write(tmp_path / "a.extxyz")
    source = ExtXyz(path, "eV", "Å", cluster="name")
    blocks, rejected = layouts.read(source)
    assert rejected == {}
    for name, content in layouts.MOLECULES.items():
        layouts.assert_frames([b for b in blocks if b.group == name], *content)
    assert all(b.cell is None and b.stress is None for b in blocks)
    (tmp_path / "a.xyz.gz").write_bytes(gzip.compress(path.read_bytes()))
    packed, _ = layouts.read(ExtXyz(tmp_path / "a.xyz.gz", "eV", "Å"))
    assert [b.group for b in packed] == ["H3N"] * 4 + ["CH4"] * 3 + ["H2O"] * 5


def test_units(tmp_path):
    path = write(tmp_path / "a.extxyz", periodic=True)
    plain, _ = layouts.read(ExtXyz(path, "eV", "Å"))
    source = ExtXyz(path, "kcal/mol", "Bohr", force_unit="hartree/bohr")
    (block, *_), _ = layouts.read(source)
    np.testing.assert_allclose(block.positions, plain[0].positions * layouts.BOHR)
    np.testing.assert_allclose(block.cell, plain[0].cell * layouts.BOHR)
    np.testing.assert_allclose(block.energy, plain[0].energy * layouts.KCAL)
    np.testing.assert_allclose(block.forces, plain[0].forces * layouts.HARTREE / layouts.BOHR)
    np.testing.assert_allclose(block.stress, plain[0].stress * layouts.KCAL / layouts.BOHR**3)
    np.testing.assert_allclose(plain[0].stress[0], [[0, 0.05, 0.04], [0.05, 0.01, 0.03], [0.04, 0.03, 0.02]])
    assert source.units()["forces"] == "hartree/bohr"


def test_units_are_required():
    with pytest.raises(InputError, match="does not say its units: give energy_unit="):
        ExtXyz("a.xyz")
    with pytest.raises(InputError, match="give length_unit="):
        ExtXyz("a.xyz", energy_unit="eV")
    with pytest.raises(InputError, match="'furlong' is not known"):
        ExtXyz("a.xyz", "eV", "furlong")


def test_named_labels(tmp_path):
    made = structures()
    for atoms in made:
        atoms.info["REF_energy"] = 7.0
        atoms.arrays["REF_forces"] = np.full((len(atoms), 3), 2.0)
        atoms.info["charge"] = -1
    ase.io.write(tmp_path / "a.extxyz", made, format="extxyz")
    blocks, _ = layouts.read(ExtXyz(tmp_path / "a.extxyz", "eV", "Å", energy="REF_energy", forces="REF_forces"))
    assert {float(b.energy[0]) for b in blocks} == {7.0}
    assert all((b.forces == 2).all() and b.charge == -1 for b in blocks)
    unlabelled, _ = layouts.read(ExtXyz(tmp_path / "a.extxyz", "eV", "Å", energy="other"))
    assert all(b.energy is None for b in unlabelled)


def test_ten_atoms_and_more(tmp_path):
    # The number of atoms is the whole line, not its first digit.
    atoms = Atoms("H12", np.random.default_rng(0).normal(size=(12, 3)))
    ase.io.write(tmp_path / "a.extxyz", [atoms, atoms, Atoms("H", [[0, 0, 0]])], format="extxyz")
    assert [len(text.splitlines()) for text in frame_texts(tmp_path / "a.extxyz")] == [14, 14, 3]


def test_damaged_frames_are_counted(tmp_path):
    text = write(tmp_path / "a.extxyz").read_text()
    (tmp_path / "b.extxyz").write_text("1\nProperties=species:S:1:pos:R:3\nH 0 zero 0\n\n" + text)
    blocks, rejected = layouts.read(ExtXyz(tmp_path / "b.extxyz", "eV", "Å"))
    assert len(blocks) == 12
    reason = "ValueError: could not convert string to float: 'zero'"
    assert rejected == {f"frame that cannot be read (first: frame 0: {reason})": 1}
    (tmp_path / "c.extxyz").write_text(text + "three\n")
    with pytest.raises(DataError, match="expected a number of atoms, got 'three'"):
        layouts.read(ExtXyz(tmp_path / "c.extxyz", "eV", "Å"))
