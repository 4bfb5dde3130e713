"""Relaxed conformers, the jitter's size, MMFF gradients free of RDKit's stale caches, and Langevin statistics."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem

from equiscope.tasks.datasets import conformers
from equiscope.tasks.datasets.chemistry import Rejected
from equiscope.tasks.datasets.conformers import (
    BOLTZMANN,
    Conformers,
    embed,
    jittered,
    langevin,
    mmff_gradient,
    near_pairs,
)


@pytest.fixture(scope="module")
def ethanol() -> Conformers:
    return embed("CCO", seed=1, count=3)


def test_conformers_are_relaxed_and_bonded(ethanol: Conformers) -> None:
    assert ethanol.positions.shape == (3, 9, 3)
    assert ethanol.species.tolist() == [6, 6, 8, 1, 1, 1, 1, 1, 1]
    assert len(ethanol.bonds) == 8
    gradient = mmff_gradient(ethanol.mol)
    for x in ethanol.positions:
        assert np.abs(gradient(x)).max() < 0.1  # kcal/mol/Å
        assert near_pairs(ethanol.species, x) == {tuple(sorted(b)) for b in ethanol.bonds.tolist()}


def test_embedding_is_a_function_of_the_seed(ethanol: Conformers) -> None:
    assert np.array_equal(embed("CCO", seed=1).positions, ethanol.positions)
    assert not np.allclose(embed("CCO", seed=2).positions, ethanol.positions)


def test_impossible_stereochemistry_is_rejected() -> None:
    with pytest.raises(Rejected, match="embedding failed"):
        embed("F[C@]12CC[C@@](F)(C1)C2", seed=0)


def test_changed_bonds_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    # With a reach of twice the covalent radii, second neighbours look bonded.
    monkeypatch.setattr(conformers, "BOND_FACTOR", 2.0)
    with pytest.raises(Rejected, match="bonds changed"):
        embed("CCO", seed=0)


def test_near_pairs_sees_a_broken_and_a_formed_bond(ethanol: Conformers) -> None:
    x = ethanol.positions[0].copy()
    x[8] = x[1] + [0.9, 0.0, 0.0]
    pairs = near_pairs(ethanol.species, x)
    assert (1, 8) in pairs
    assert (2, 8) not in pairs


def mmff_energy(molecule: Conformers, positions: np.ndarray) -> float:
    """Of a force field made for these positions, kcal/mol."""
    mol = Chem.Mol(molecule.mol)
    mol.GetConformer().SetPositions(np.ascontiguousarray(positions, dtype=np.float64))
    properties = AllChem.MMFFGetMoleculeProperties(mol)
    return AllChem.MMFFGetMoleculeForceField(mol, properties, confId=mol.GetConformer().GetId()).CalcEnergy()


def test_mmff_gradient_at_moved_geometries(ethanol: Conformers) -> None:
    gradient_at, rng = mmff_gradient(ethanol.mol), np.random.default_rng(0)
    for _ in range(3):
        x = ethanol.positions[0] + 0.1 * rng.normal(size=(9, 3))
        gradient = gradient_at(x)
        for atom, axis in [(0, 0), (3, 1), (8, 2)]:
            step = np.zeros((9, 3))
            step[atom, axis] = 1e-4
            slope = (mmff_energy(ethanol, x + step) - mmff_energy(ethanol, x - step)) / 2e-4
            assert gradient[atom, axis] == pytest.approx(slope, abs=1e-4)


def test_jitter_has_the_stated_size(ethanol: Conformers) -> None:
    frames = itertools.islice(jittered(ethanol, np.random.default_rng(0)), 3000)
    shift = np.array([x - ethanol.positions[i % 3] for i, x in enumerate(frames)])
    # E sigma² of a uniform sigma in [a, b] is (a² + ab + b²)/3; sigma varies between frames, not within one.
    assert np.mean(shift**2) == pytest.approx((0.03**2 + 0.03 * 0.07 + 0.07**2) / 3, rel=0.02)
    sigma = np.sqrt(np.mean(shift**2, axis=(1, 2)))
    uniform = 0.04 / np.sqrt(12)
    sampling = np.sqrt(np.mean(sigma**2) / (2 * 27))
    assert np.std(sigma) == pytest.approx(np.hypot(uniform, sampling), rel=0.05)


def trajectory(molecule: Conformers, **changes: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    settings = {"temperature": 300.0, "step": 0.5, "friction": 0.02, "equilibrate": 500, "every": 20} | changes
    return conformers._trajectory(molecule, molecule.positions[0], np.random.default_rng(3), **settings)


def masses(molecule: Conformers) -> np.ndarray:
    return np.array([atom.GetMass() for atom in molecule.mol.GetAtoms()])[:, None]


def test_dynamics_without_friction_conserve_energy_to_second_order(ethanol: Conformers) -> None:
    mass = masses(ethanol)

    def spread(step: float) -> float:
        run = trajectory(ethanol, step=step, friction=0.0, equilibrate=0, every=round(2 / step))
        energies = [
            mmff_energy(ethanol, x) + 0.5 * (mass * v**2).sum() / conformers.ACCELERATION
            for x, v in itertools.islice(run, 60)
        ]
        return float(np.std(energies))

    coarse, fine = spread(0.5), spread(0.25)
    assert coarse < 0.1  # kcal/mol, of 8 kcal/mol of kinetic energy
    assert fine == pytest.approx(coarse / 4, rel=0.3)


def test_frames_are_taken_at_the_stated_steps(ethanol: Conformers) -> None:
    dense = [x for x, _ in itertools.islice(trajectory(ethanol, equilibrate=0, every=5), 12)]
    sparse = [x for x, _ in itertools.islice(trajectory(ethanol, equilibrate=20, every=20), 2)]
    assert np.array_equal(sparse, [dense[7], dense[11]])


@pytest.mark.parametrize("temperature", [300.0, 500.0])
def test_langevin_equipartition(ethanol: Conformers, temperature: float) -> None:
    run = trajectory(ethanol, temperature=temperature)
    mass = masses(ethanol)
    lowest = mmff_energy(ethanol, ethanol.positions[0])
    kinetic, potential = [], []
    for x, v in itertools.islice(run, 250):
        kinetic.append(0.5 * (mass * v**2).sum() / conformers.ACCELERATION)
        potential.append(mmff_energy(ethanol, x) - lowest)
    thermal = 0.5 * BOLTZMANN * temperature
    assert np.mean(kinetic) == pytest.approx(27 * thermal, rel=0.15)
    assert np.mean(potential) == pytest.approx(21 * thermal, rel=0.25)


def test_langevin_frames(ethanol: Conformers) -> None:
    def first(seed: int) -> np.ndarray:
        return np.array(list(itertools.islice(langevin(ethanol, np.random.default_rng(seed), every=20), 4)))

    frames = first(0)
    assert np.array_equal(frames, first(0))
    assert not np.allclose(frames, first(1))
    assert np.abs(frames.mean(1)).max() < 1e-12
    assert np.isfinite(frames).all()


def test_exploding_dynamics_are_rejected(ethanol: Conformers) -> None:
    with pytest.raises(Rejected, match="not finite"):
        next(langevin(ethanol, np.random.default_rng(0), step=1e3))
