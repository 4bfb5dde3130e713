"""GFN2-xTB labels against finite differences, rotations and ASE's interface; every refusal."""

from contextlib import nullcontext

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from equiscope.errors import InputError
from equiscope.tasks.datasets import xtb
from equiscope.tasks.datasets.chemistry import Rejected
from equiscope.tasks.datasets.conformers import Conformers, covalent_radii, embed
from equiscope.tasks.datasets.xtb import check_geometry, label


@pytest.fixture(scope="module")
def acetamide() -> Conformers:
    return embed("CC(N)=O", seed=5, count=1)


@pytest.fixture(scope="module")
def geometry(acetamide: Conformers) -> np.ndarray:
    return acetamide.positions[0] + 0.05 * np.random.default_rng(0).normal(size=acetamide.positions[0].shape)


def test_forces_are_minus_the_gradient_of_the_energy(acetamide: Conformers, geometry: np.ndarray) -> None:
    forces = label(acetamide.species, geometry).forces
    for atom, axis in [(0, 0), (1, 2), (3, 1), (8, 0)]:
        step = np.zeros_like(geometry)
        step[atom, axis] = 1e-3
        slope = label(acetamide.species, geometry + step).energy - label(acetamide.species, geometry - step).energy
        assert forces[atom, axis] == pytest.approx(-slope / 2e-3, abs=5e-4)
    assert np.abs(forces.sum(0)).max() < 1e-9


def test_labels_turn_with_the_molecule(acetamide: Conformers, geometry: np.ndarray) -> None:
    rotation = Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()
    here, there = label(acetamide.species, geometry), label(acetamide.species, geometry @ rotation.T)
    assert there.energy == pytest.approx(here.energy, abs=1e-10)
    assert np.abs(there.forces - here.forces @ rotation.T).max() < 1e-9


def test_units_agree_with_ase(acetamide: Conformers, geometry: np.ndarray) -> None:
    from ase import Atoms
    from tblite.ase import TBLite

    atoms = Atoms(numbers=acetamide.species, positions=geometry, calculator=TBLite(method="GFN2-xTB", verbosity=0))
    found = label(acetamide.species, geometry)
    assert found.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
    assert np.abs(found.forces - atoms.get_forces()).max() < 1e-5


def test_a_label_does_not_depend_on_earlier_ones(acetamide: Conformers, geometry: np.ndarray) -> None:
    first = label(acetamide.species, geometry)
    label(acetamide.species, acetamide.positions[0])
    again = label(acetamide.species, geometry)
    assert again.energy == first.energy
    assert np.array_equal(again.forces, first.forces)


def test_overlapping_atoms(acetamide: Conformers) -> None:
    x = acetamide.positions[0].copy()
    x[1] = x[0] + [0.0, 0.0, 5e-4]
    with pytest.raises(Rejected, match="atoms too near"):
        label(acetamide.species, x)


def test_stretched_bond(acetamide: Conformers) -> None:
    with pytest.raises(Rejected, match="bond stretched"):
        label(acetamide.species, 1.8 * acetamide.positions[0], acetamide.bonds)


def test_the_longest_bond_is_1_45_covalent_sums(acetamide: Conformers) -> None:
    hydrogen = 3
    carbon = next(int(i) for i, j in acetamide.bonds if j == hydrogen)
    direction = acetamide.positions[0, hydrogen] - acetamide.positions[0, carbon]
    radii = covalent_radii(acetamide.species)
    for factor, allowed in [(1.44, True), (1.46, False)]:
        x = acetamide.positions[0].copy()
        length = factor * (radii[hydrogen] + radii[carbon])
        x[hydrogen] = x[carbon] + length * direction / np.linalg.norm(direction)
        with nullcontext() if allowed else pytest.raises(Rejected, match=r"1\.46 x covalent radii > 1\.45"):
            check_geometry(acetamide.species, x, acetamide.bonds)


def test_odd_electrons() -> None:
    methyl = np.array([[0, 0, 0], [1.08, 0, 0], [-0.54, 0.935, 0], [-0.54, -0.935, 0]], dtype=float)
    with pytest.raises(Rejected, match="odd electrons: 9"):
        label(np.array([6, 1, 1, 1]), methyl)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_positions(acetamide: Conformers, value: float) -> None:
    x = acetamide.positions[0].copy()
    x[2, 1] = value
    with pytest.raises(Rejected, match="position not finite"):
        label(acetamide.species, x)


def test_unconverged_scf(acetamide: Conformers, geometry: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xtb, "MAX_CYCLES", 2)
    with pytest.raises(Rejected) as caught:
        label(acetamide.species, geometry)
    assert caught.value.reason == "SCF not converged"


def test_large_force(acetamide: Conformers) -> None:
    x = acetamide.positions[0].copy()
    i, j = acetamide.bonds[0]
    x[i] += 0.25 * (x[j] - x[i])
    with pytest.raises(Rejected, match="force too large"):
        label(acetamide.species, x, acetamide.bonds)


def test_wrong_shape(acetamide: Conformers) -> None:
    with pytest.raises(InputError, match=r"must be \(9, 3\), got \(8, 3\)"):
        check_geometry(acetamide.species, acetamide.positions[0][:8])
