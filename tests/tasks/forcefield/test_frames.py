"""One molecule's frames: labels of the stored positions, turned or not, with every refusal counted."""

from contextlib import nullcontext

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from equiscope.errors import InputError
from equiscope.tasks.datasets.chemistry import Molecule, Rejected
from equiscope.tasks.datasets.conformers import Conformers, covalent_radii, embed
from equiscope.tasks.forcefield import frames as making
from equiscope.tasks.forcefield.frames import MoleculeFrames, check_geometry, label, sample_molecule

ETHANOL = Molecule(17, "CCO")


@pytest.fixture(scope="module")
def frames() -> MoleculeFrames:
    return sample_molecule(ETHANOL, 5, seed=3)


def test_labels_belong_to_the_stored_positions(frames: MoleculeFrames) -> None:
    assert frames.positions.shape == frames.forces.shape == (5, 9, 3)
    for x, energy, forces in zip(frames.positions, frames.energy, frames.forces, strict=True):
        again = making.label(frames.species.astype(int), x.astype(np.float64))
        assert again.energy == energy
        assert np.array_equal(again.forces.astype(np.float32), forces)
    assert np.abs(frames.positions.mean(1)).max() < 1e-6
    assert frames.counts["notes"]["conformers"] == 2


def test_a_function_of_seed_and_molecule(frames: MoleculeFrames) -> None:
    again = sample_molecule(ETHANOL, 5, seed=3)
    assert all(np.array_equal(a, again.arrays()[name]) for name, a in frames.arrays().items())
    assert not np.allclose(sample_molecule(ETHANOL, 5, seed=4).positions, frames.positions)
    assert not np.allclose(sample_molecule(Molecule(18, "CCO"), 5, seed=3).positions, frames.positions)


@pytest.mark.parametrize("sampler", ["jitter", "langevin"])
def test_haar_and_embedded_differ_by_one_rotation_a_frame(sampler: str) -> None:
    turned = sample_molecule(ETHANOL, 3, seed=3, sampler=sampler)
    embedded = sample_molecule(ETHANOL, 3, seed=3, sampler=sampler, orientation="embedded")
    angles = []
    for i in range(3):
        rotation, _ = Rotation.align_vectors(turned.positions[i], embedded.positions[i])
        angles.append(rotation.magnitude())
        assert np.abs(rotation.apply(embedded.positions[i]) - turned.positions[i]).max() < 1e-6
        assert np.abs(rotation.apply(embedded.forces[i]) - turned.forces[i]).max() < 1e-4
        assert turned.energy[i] == pytest.approx(embedded.energy[i], abs=1e-5)
    assert min(angles) > 0.05
    assert np.ptp(angles) > 0.01


def test_refused_frames_are_counted_and_replaced(frames: MoleculeFrames, monkeypatch: pytest.MonkeyPatch) -> None:
    largest = np.sort(np.linalg.norm(frames.forces, axis=-1).max(1))
    monkeypatch.setattr(making, "MAX_FORCE", float(largest[3:].mean()))
    made = sample_molecule(ETHANOL, 5, seed=3)
    assert made.counts["frames"]["force too large"] >= 1
    assert len(made.energy) == 5
    assert np.linalg.norm(made.forces, axis=-1).max() < making.MAX_FORCE


def test_a_molecule_without_frames_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "MAX_FORCE", 1e-6)
    made = sample_molecule(ETHANOL, 2, seed=3)
    assert made.positions.shape == (0, 9, 3)
    assert made.counts["frames"] == {"force too large": 4}
    assert made.counts["molecules"] == {"no frame accepted": 1}


def test_a_molecule_that_cannot_be_embedded_is_dropped() -> None:
    made = sample_molecule(Molecule(0, "F[C@]12CC[C@@](F)(C1)C2"), 2, seed=0)
    assert made.counts["molecules"] == {"embedding failed": 1}
    assert len(made.energy) == 0


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
    monkeypatch.setattr(making, "MAX_CYCLES", 2)
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
