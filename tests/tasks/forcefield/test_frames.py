"""One molecule's frames: labels of the stored positions, turned or not, with every refusal counted."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from equiscope.tasks.datasets import xtb
from equiscope.tasks.datasets.chemistry import Molecule
from equiscope.tasks.forcefield.frames import MoleculeFrames, sample_molecule

ETHANOL = Molecule(17, "CCO")


@pytest.fixture(scope="module")
def frames() -> MoleculeFrames:
    return sample_molecule(ETHANOL, 5, seed=3)


def test_labels_belong_to_the_stored_positions(frames: MoleculeFrames) -> None:
    assert frames.positions.shape == frames.forces.shape == (5, 9, 3)
    for x, energy, forces in zip(frames.positions, frames.energy, frames.forces, strict=True):
        again = xtb.label(frames.species.astype(int), x.astype(np.float64))
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
    monkeypatch.setattr(xtb, "MAX_FORCE", float(largest[3:].mean()))
    made = sample_molecule(ETHANOL, 5, seed=3)
    assert made.counts["frames"]["force too large"] >= 1
    assert len(made.energy) == 5
    assert np.linalg.norm(made.forces, axis=-1).max() < xtb.MAX_FORCE


def test_a_molecule_without_frames_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xtb, "MAX_FORCE", 1e-6)
    made = sample_molecule(ETHANOL, 2, seed=3)
    assert made.positions.shape == (0, 9, 3)
    assert made.counts["frames"] == {"force too large": 4}
    assert made.counts["molecules"] == {"no frame accepted": 1}


def test_a_molecule_that_cannot_be_embedded_is_dropped() -> None:
    made = sample_molecule(Molecule(0, "F[C@]12CC[C@@](F)(C1)C2"), 2, seed=0)
    assert made.counts["molecules"] == {"embedding failed": 1}
    assert len(made.energy) == 0
