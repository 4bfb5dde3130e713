"""A published set as training data: batches equal to the file, split by group, the same fit as in memory, refusals."""

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms

from equiscope.errors import DataError, InputError
from equiscope.tasks import build
from equiscope.tasks.datasets import mapped
from equiscope.tasks.datasets.blocks import Block
from equiscope.tasks.forcefield import real
from equiscope.tasks.forcefield.data import composition, reference_energies
from equiscope.tasks.forcefield.task import ForceField
from tests.tasks.datasets import layouts

KINDS = [[8, 1, 1], [6, 1, 1, 1, 1], [7, 1, 1, 1], [8, 1, 9], [6, 8, 8], [17, 1], [6, 1, 1, 8], [7, 7], [9, 9], [1, 1]]
ATOMIC = {1: -13.5, 6: -1030.0, 7: -1485.0, 8: -2043.0, 9: -2713.0, 17: -12520.0}


@pytest.fixture(scope="module")
def molecules():
    made = {}
    for i, numbers in enumerate(KINDS):
        x, e, f = layouts.frames(numbers, 6, i)
        made[f"molecule {i}"] = (numbers, x, e * 0.01 + sum(ATOMIC[z] for z in numbers), f - f.mean(1, keepdims=True))
    made["sodium"] = ([11, 17], *layouts.frames([11, 17], 2, 99))
    made["hydroxide"] = ([8, 1], *layouts.frames([8, 1], 2, 98))
    return made


@pytest.fixture(scope="module")
def path(tmp_path_factory, molecules):
    smiles = {"hydroxide": "[O-:1][H:2]"}
    return str(layouts.spice(tmp_path_factory.mktemp("spice") / "S.hdf5", molecules, smiles=smiles))


def config(path, store, **data):
    return {
        "task": "forcefield",
        "seed": 0,
        "augment": False,
        "batch_size": 6,
        "data": {"format": "spice", "path": path, "store": str(store), "neutral": True, "probe_batch": 4, **data},
        "model": {"name": "edge_transformer", "size": "nano"},
        "loss": {"name": "squared", "forces": 1.0, "energy": 0.01},
    }


@pytest.fixture(scope="module")
def task(path, tmp_path_factory):
    made = build(config(path, tmp_path_factory.mktemp("store") / "s.frames"))
    made.prepare(progress=False)
    return made


def test_batches_are_the_file(task, molecules):
    names = sorted(name for name in molecules if name.startswith("molecule"))
    reference = task.data.reference
    seen = set()
    for step in range(16):
        batch = task.training_batch(step)
        for i, frame in enumerate(batch["id"].tolist()):
            numbers, x, e, f = molecules[names[frame // 6]]
            k, n = frame % 6, len(numbers)
            assert batch["mask"][i].tolist() == [True] * n + [False] * (batch["mask"].shape[1] - n)
            assert batch["species"][i, :n].tolist() == numbers
            np.testing.assert_allclose(batch["pos"][i, :n], x[k] - x[k].mean(0), atol=1e-5)
            np.testing.assert_allclose(batch["forces"][i, :n], f[k], atol=1e-4)
            assert float(batch["energy"][i]) == pytest.approx(e[k] - float(reference[numbers].sum()), abs=1e-3)
            assert not batch["pos"][i, n:].any()
            assert int(batch["molecule"][i]) == frame // 6
            seen.add(frame)
    assert len(seen) == 48
    with pytest.raises(InputError, match=r"0\.\.59, got 60"):
        task.data.batch([60])


def test_split_by_group(task):
    frames = task.data
    owners = [set(frames.molecule[frames.indices(part)].tolist()) for part in ("train", "track", "final")]
    assert [len(o) for o in owners] == [8, 1, 1]
    assert set.union(*owners) == set(range(10))
    assert len(task.probes("final")[0].batches) == 2


def test_reference_energies_are_those_of_all_frames(task):
    frames = task.data
    every = frames.batch(list(range(60)))
    total = torch.from_numpy(frames.store.energy.copy())
    expected = reference_energies(composition(every["species"]), total, frames.part == 0)
    assert torch.allclose(frames.reference, expected, atol=1e-6, rtol=1e-9)
    assert torch.allclose(frames.energy, (total - composition(every["species"]) @ expected).float(), atol=1e-4)
    assert frames.energy.abs().max() < 10


def test_more_atoms_of_an_element_than_two_bytes_can_count(tmp_path):
    blocks = [
        Block(f"{n} atoms", np.ones(n, dtype=int), np.zeros((1, n, 3)), np.array([-2.0 * n]), np.zeros((1, n, 3)))
        for n in (66_000, 2, 3)
    ]
    mapped.write(tmp_path / "s.frames", blocks, {"description": {"orientation": None}})
    frames = real.load(tmp_path / "s.frames", seed=0, verbose=False)
    assert float(frames.reference[1]) == pytest.approx(-2)
    assert frames.energy.abs().max() < 1e-3


def test_weighted_rows_are_repeated_rows():
    counts = composition(torch.tensor([[6, 1, 1], [8, 1, 0], [6, 8, 0]]))
    energy, train = torch.tensor([-3.0, -7.0, 2.0]).double(), torch.ones(3, dtype=torch.bool)
    weight = torch.tensor([3.0, 1.0, 2.0]).double()
    repeated = torch.tensor([0, 0, 0, 1, 2, 2])
    plain = reference_energies(counts[repeated], energy[repeated], train[repeated])
    assert torch.allclose(reference_energies(counts, energy, train, weight), plain, atol=1e-10)


def test_what_was_left_out_is_told(task):
    facts = task.describe()
    assert facts["counts"]["frames rejected"] == {"element Na": 2, "charged": 2}
    assert facts["used"] == {"train": 48, "track": 6, "final": 6}
    assert facts["frames"] == 60
    assert facts["source"]["units"]["energy"] == "hartree"
    assert sum(facts["orientation"]["eigenvalues"]) == pytest.approx(1)
    forces = torch.cat([task.data.batch([i])["forces"].flatten() for i in task.data.indices("train")])
    assert facts["force_rms"] == pytest.approx(float(forces.square().mean().sqrt()), rel=1e-5)


def test_converted_once(path, tmp_path, monkeypatch):
    settings = dict(config(path, tmp_path / "s.frames")["data"])
    del settings["probe_batch"]
    first = real.convert(real.RealData.from_settings(settings), progress=False)
    monkeypatch.setattr(real.mapped, "write", None)
    assert real.convert(real.RealData.from_settings(settings), progress=False) == first
    other = real.RealData.from_settings(settings | {"frames": 30})
    with pytest.raises(DataError, match="converted with other settings"):
        real.convert(other, progress=False)
    named = real.RealData.from_settings(settings | {"store": None})
    assert named.resolved_store().name.startswith("spice-S-")
    assert named.resolved_store() != real.RealData.from_settings(settings | {"store": None, "seed": 1}).resolved_store()


def test_sampled_frames(path, tmp_path):
    made = build(config(path, tmp_path / "s.frames", frames=40, seed=3))
    made.prepare(progress=False)
    assert len(made.data) == 40
    # Molecules now have different numbers of frames, so that their weights in the fit count.
    frames = made.data
    counts = composition(frames.batch(list(range(40)))["species"])
    expected = reference_energies(counts, torch.from_numpy(frames.store.energy.copy()), frames.part == 0)
    assert torch.allclose(frames.reference, expected, atol=1e-6, rtol=1e-9)


def test_model_trains_on_it(task):
    model = task.build_model()
    loss = task.training_loss(model, task.training_batch(0))["loss"]
    loss.backward()
    assert torch.isfinite(loss)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "spicy"}, "there is no format 'spicy'.*did you mean 'spice'"),
        ({"pieces": 3}, r"unknown data settings \['pieces'\]"),
        ({"path": None}, "data.path="),
        ({"frames": 0}, "frames must be at least 1"),
        ({"format": "extxyz"}, "does not say its units"),
    ],
)
def test_refusals_before_anything_is_read(changes, message):
    made = config("nowhere.hdf5", "s.frames")
    made["data"] |= changes
    with pytest.raises(InputError, match=message):
        ForceField.from_config(made)


def test_sets_that_cannot_be_trained_on(tmp_path):
    with pytest.raises(DataError, match="there is no data set at"):
        build(config(str(tmp_path / "none.hdf5"), tmp_path / "s")).prepare(progress=False)
    crystal = Atoms("NaCl", [[0, 0, 0], [2, 2, 2]], cell=[4, 4, 4], pbc=True)
    ase.io.write(tmp_path / "c.extxyz", [crystal], format="extxyz")
    units = {"format": "extxyz", "energy_unit": "eV", "length_unit": "Å", "elements": [11, 17]}
    with pytest.raises(DataError, match="periodic, and this task has no cell"):
        build(config(str(tmp_path / "c.extxyz"), tmp_path / "s", **units)).prepare(progress=False)
    ase.io.write(tmp_path / "m.extxyz", [Atoms("OH2", np.eye(3))], format="extxyz")
    with pytest.raises(DataError, match="no energy and no forces"):
        build(config(str(tmp_path / "m.extxyz"), tmp_path / "s", **units | {"elements": None})).prepare(progress=False)
    with pytest.raises(DataError, match=r"no frame is left to write.*element"):
        build(config(str(tmp_path / "c.extxyz"), tmp_path / "s", **units | {"elements": [1]})).prepare(progress=False)
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith(".s.")) == ["c.extxyz", "m.extxyz"]


@pytest.mark.parametrize(
    "setting", [{"share": "half"}, {"max_atoms": "few"}, {"frames": [1]}, {"elements": ["H"]}, {"seed": "x"}]
)
def test_settings_that_are_no_numbers(setting):
    with pytest.raises(InputError, match=rf"data\.{next(iter(setting))} must be a (whole )?number, got"):
        real.RealData.from_settings({"format": "spice", "path": "x", **setting})
