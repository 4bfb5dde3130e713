"""Data in memory: tensors equal to the file, a split by molecule, reference energies, padded batches."""

from pathlib import Path

import numpy as np
import pytest
import torch

from equiscope.errors import DataError, InputError, IntegrityError
from equiscope.tasks.datasets import store
from equiscope.tasks.datasets.chemistry import Molecule
from equiscope.tasks.datasets.splits import PARTS
from equiscope.tasks.forcefield.data import FrameSet, composition, load, reference_energies
from equiscope.tasks.forcefield.frames import sample_molecule
from equiscope.tasks.forcefield.generate import ForceFieldData
from equiscope.tasks.molecules.recipe import join

MOLECULES = ["CO", "CCO", "C=O", "CN", "CF", "CC", "CCC", "CC=O"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = [sample_molecule(Molecule(i, s), 3, seed=0).arrays() for i, s in enumerate(MOLECULES)]
    metadata = {
        "format": ForceFieldData.FORMAT,
        "format_version": ForceFieldData.FORMAT_VERSION,
        "config": ForceFieldData().content(),
        "source": {},
        "method": "GFN2-xTB (tblite)",
        "versions": {},
        "counts": {"frames": 24},
    }
    return store.write(tmp_path_factory.mktemp("data") / "set.npz", join(made, "frames"), metadata)


@pytest.fixture(scope="module")
def frames(path: Path) -> FrameSet:
    return load(path, verbose=False)


def test_tensors_are_those_of_the_file(path: Path, frames: FrameSet) -> None:
    arrays, _ = store.read(path)
    assert len(frames) == 24
    assert frames.pos.shape == (24, 11, 3)
    assert frames.molecule.tolist() == [i for i in range(8) for _ in range(3)]
    start = 0
    for i, smiles in enumerate(MOLECULES):
        made = sample_molecule(Molecule(i, smiles), 3, seed=0)
        n = len(made.species)
        for k in range(3):
            frame = 3 * i + k
            assert frames.mask[frame].tolist() == [True] * n + [False] * (11 - n)
            assert frames.species[frame, :n].tolist() == made.species.tolist()
            assert np.array_equal(frames.pos[frame, :n].numpy(), made.positions[k])
            assert np.array_equal(frames.forces[frame, :n].numpy(), made.forces[k])
            assert float(frames.total_energy[frame]) == made.energy[k]
        start += n
    assert start == len(arrays["species"])
    for field in (frames.pos, frames.forces, frames.species):
        assert not field[~frames.mask].any()


def test_batches(frames: FrameSet) -> None:
    batch = frames.batch([0, 17, 3])
    assert {name: (str(t.dtype), tuple(t.shape)) for name, t in batch.items()} == {
        "pos": ("torch.float32", (3, 9, 3)),
        "species": ("torch.int64", (3, 9)),
        "mask": ("torch.bool", (3, 9)),
        "energy": ("torch.float32", (3,)),
        "forces": ("torch.float32", (3, 9, 3)),
        "molecule": ("torch.int64", (3,)),
        "id": ("torch.int64", (3,)),
    }
    assert batch["id"].tolist() == [0, 17, 3]
    assert batch["molecule"].tolist() == [0, 5, 1]
    assert batch["mask"].sum(1).tolist() == [6, 8, 9]
    for name in ("pos", "species", "mask", "forces", "energy"):
        stored = getattr(frames, name)[torch.tensor([0, 17, 3])]
        assert torch.equal(batch[name], stored[:, :9] if stored.ndim > 1 else stored)
    batch["pos"].zero_()
    assert frames.pos[0].any()


@pytest.mark.parametrize(
    ("indices", "message"), [([], "non-empty"), ([24], r"0\.\.23, got 24"), ([-1], "got -1")]
)
def test_wrong_batches(frames: FrameSet, indices: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        frames.batch(indices)


def test_parts_share_no_molecule_and_cover_all(frames: FrameSet) -> None:
    indices = [frames.indices(part) for part in PARTS]
    assert sorted(torch.cat(indices).tolist()) == list(range(24))
    owners = [set(frames.molecule[i].tolist()) for i in indices]
    assert [len(o) for o in owners] == [6, 1, 1]
    assert set.union(*owners) == set(range(8))
    with pytest.raises(InputError, match="'test'"):
        frames.indices("test")


def test_reference_energies_recover_a_sum_over_atoms() -> None:
    truth = torch.zeros(119, dtype=torch.float64)
    truth[torch.tensor([1, 6, 8])] = torch.tensor([-13.0, -50.0, -100.0]).double()
    species = torch.tensor([[6, 1, 1, 1, 1], [8, 1, 1, 0, 0], [6, 8, 0, 0, 0], [6, 8, 8, 0, 0]])
    energy = truth[species].sum(1)
    everything = torch.ones(4, dtype=torch.bool)
    assert torch.allclose(reference_energies(composition(species), energy, everything), truth, atol=1e-10, rtol=0)
    # A held-out frame has no say in the elements of the training part ...
    spoiled = energy + torch.tensor([0.0, 0.0, 0.0, 55.0])
    train = torch.tensor([True, True, True, False])
    assert torch.allclose(reference_energies(composition(species), spoiled, train), truth, atol=1e-10, rtol=0)
    # ... but gives the only information on an element that is nowhere else.
    no_oxygen = torch.tensor([True, False, False, False])
    assert float(reference_energies(composition(species), energy, no_oxygen)[8]) != 0.0


def test_energy_is_relative_to_the_training_fit(frames: FrameSet) -> None:
    train = frames.indices("train")
    composition = torch.nn.functional.one_hot(frames.species, 119).sum(1).double()[:, 1:]
    residual = frames.total_energy - composition @ frames.reference[1:]
    assert torch.equal(frames.energy, residual.float())
    # Normal equations of the least-squares fit.
    assert (composition[train].T @ residual[train]).abs().max() < 1e-8
    assert frames.energy.abs().max() < 5.0 < frames.total_energy.abs().min()


def test_loading_prints_the_orientation_tensor(path: Path, frames: FrameSet, capsys: pytest.CaptureFixture) -> None:
    load(path)
    line = capsys.readouterr().out
    assert f"24 frames of 8 molecules (jitter), {frames.orientation()}" in line
    assert "orientation tensor" in line


def test_describe_is_plain(frames: FrameSet) -> None:
    import json

    facts = json.loads(json.dumps(frames.describe()))
    assert facts["parts"]["train"] == {"frames": 18, "molecules": 6}
    assert facts["atoms"] == [4, 11]
    assert facts["elements"] == [1, 6, 7, 8, 9]
    assert sum(facts["orientation"]["eigenvalues"]) == pytest.approx(1)
    train = frames.forces[frames.indices("train")]
    real = train[frames.mask[frames.indices("train")]]
    assert facts["force_rms"] == pytest.approx(float(real.square().mean().sqrt()))


def test_other_files_are_refused(path: Path, tmp_path: Path) -> None:
    arrays, metadata = store.read(path)
    newer = store.write(tmp_path / "newer.npz", arrays, metadata | {"format_version": 99})
    with pytest.raises(DataError, match="version 99"):
        load(newer)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    (tmp_path / "flipped.npz").write_bytes(content)
    with pytest.raises(IntegrityError, match="damaged"):
        load(tmp_path / "flipped.npz")
