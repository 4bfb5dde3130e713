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


FRAME = '2\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-1.0 pbc="F F F"\nH 0 0 0 0.1 0 0\nH 1 0 0 -0.1 0 0\n'


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("H 1 0", "X 1 0", "atomic numbers must be 1 … 118, got [1, 0]"),
        ("H 1 0", "1 1 0", "KeyError: '1'"),
        ("energy=-1.0", 'energy="not converged"', "energy holds 'not converged', not real numbers"),
        ("energy=-1.0", 'energy="1.0 2.0"', "energy has shape (1, 2), expected (1,)"),
        ("energy=-1.0", "energy=-1.0 charge=0.5", "the total charge must be one whole number, got 0.5"),
        ("forces:R:3", "forces:R:2", "forces has shape (1, 2, 2), expected (1, 2, 3)"),
        ('pbc="F F F"', 'pbc="T T T T"', "could not broadcast input array from shape (4,) into shape (3,)"),
        ("energy=-1.0", 'energy=-1.0 stress="1 2 3 4 5 6"', "stress"),
        ("-0.1 0 0\n", "-0.1 0\n", "inhomogeneous"),
    ],
)
def test_a_bad_frame_among_good_ones_is_counted_with_the_readers_reason(tmp_path, old, new, reason):
    assert old in FRAME
    bad = FRAME.replace(old, new)
    (tmp_path / "a.xyz").write_text(FRAME + bad + FRAME)
    blocks, rejected = layouts.read(ExtXyz(tmp_path / "a.xyz", "eV", "Å"))
    assert len(blocks) == 2
    (why,) = rejected
    assert (rejected[why], reason in why or "Error" in why) == (1, True)
    (tmp_path / "b.xyz").write_text(bad)
    with pytest.raises(DataError) as error:
        layouts.read(ExtXyz(tmp_path / "b.xyz", "eV", "Å"))
    assert "has no frame that can be read" in str(error.value)
    assert why.split("frame 1: ")[1][:40] in str(error.value)


def test_labels_that_are_named_as_something_else(tmp_path):
    matrix = np.array([[64.0, 6, 5], [6, 128, 4], [5, 4, 0]])
    atoms = Atoms("Cu2", [[0.0, 0, 0], [2, 2, 2]], cell=[4, 4, 4], pbc=True)
    atoms.info |= {"virial": matrix, "energy_per_atom": -1.5}
    atoms.arrays["gradient"] = np.array([[1.0, 2, 3], [-1, -2, -3]])
    ase.io.write(tmp_path / "a.extxyz", atoms, format="extxyz")
    (block,), _ = layouts.read(ExtXyz(tmp_path / "a.extxyz", "Hartree", "Bohr"))
    # σ = −virial / V with V = 64 bohr³, F = −gradient, E = 2 e.
    np.testing.assert_allclose(block.stress[0], -matrix / 64 * layouts.HARTREE / layouts.BOHR**3)
    np.testing.assert_allclose(block.forces[0], -atoms.arrays["gradient"] * layouts.HARTREE / layouts.BOHR)
    np.testing.assert_allclose(block.energy, -3.0 * layouts.HARTREE)
    named, _ = layouts.read(ExtXyz(tmp_path / "a.extxyz", "Hartree", "Bohr", energy="energy_per_atom"))
    assert named[0].energy == block.energy
    atoms.pbc, atoms.cell = False, None
    ase.io.write(tmp_path / "b.extxyz", [atoms, *structures()], format="extxyz")
    _, rejected = layouts.read(ExtXyz(tmp_path / "b.extxyz", "eV", "Å"))
    assert "label 'virial' is a virial, and without a cell" in next(iter(rejected))


def test_single_atoms_are_frames(tmp_path):
    (tmp_path / "a.xyz").write_text("1\nProperties=species:S:1:pos:R:3 energy=-1.0\nH 0 0 0\n" * 2)
    blocks, rejected = layouts.read(ExtXyz(tmp_path / "a.xyz", "eV", "Å"))
    assert (len(blocks), rejected) == (2, {})
