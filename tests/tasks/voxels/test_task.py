"""The task: batches are functions of (seed, step), probes are what they say, and the oracle shows its floors."""

import pytest
import torch

import equiscope as eq
from equiscope.errors import InputError
from equiscope.records import plain
from equiscope.runs.config import configuration
from equiscope.tasks import build
from equiscope.tasks.voxels.probes import AVERAGED, OCTAHEDRAL, SO3, oracle_name

SMILES = ["CCO", "CCN", "CC(C)O", "CCCO", "CCCN", "CCOC", "CC=O", "CC(=O)C", "CCCC", "CCC", "COC", "CNC"]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("voxels")
    (folder / "few.smi").write_text("\n".join(SMILES))
    return configuration([
        "task=voxels", "run=x", "batch_size=3", "grid.size=16", "grid.resolution=0.6",
        "data.conformers=2", "data.min_atoms=2",
        f"data.smiles={folder / 'few.smi'}", f"data.path={folder / 'few.npz'}", "data.workers=1",
        "data.track_conformers=2", "data.final_conformers=2", "data.probe_batch=2", "+model.width=4",
        "+model.multipliers=[1,2]", "+model.attention=[false,true]", "+model.heads=1",
    ])  # fmt: skip


@pytest.fixture(scope="module")
def task(config):
    made = build(config)
    made.prepare(progress=False)
    return made


def test_batches_and_weights_are_functions_of_seed_and_step(task, config):
    other = build(config)
    other.prepare(progress=False)
    for step in (0, 7, 100):
        first, second = task.training_batch(step), other.training_batch(step)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(task.training_batch(1)["noise_seed"], task.training_batch(2)["noise_seed"])
    weights = [torch.cat([p.flatten() for p in t.build_model().parameters()]) for t in (task, other)]
    assert torch.equal(*weights)


def test_the_zero_predictor_has_a_loss_of_about_one(task):
    class Zero(torch.nn.Module):
        def forward(self, batch):
            return {"clean": torch.zeros_like(batch["noisy"])}

    losses = [float(task.training_loss(Zero(), task.training_batch(step))["loss"]) for step in range(8)]
    assert sum(losses) / 8 == pytest.approx(1, abs=0.15)
    model = task.build_model()
    parts = task.training_loss(model, task.training_batch(0))
    parts["loss"].backward()
    assert all(p.grad is not None for p in model.parameters())


def test_probes_are_fixed_and_molecules_of_parts_differ(task):
    track, final = task.probes("track"), task.probes("final")
    assert [p.name for p in track] == [OCTAHEDRAL, SO3, AVERAGED]
    assert [p.name for p in track if p.headline] == [OCTAHEDRAL]
    again = task.probes("track")
    assert torch.equal(track[0].batches[0]["noisy"], again[0].batches[0]["noisy"])
    trained = {int(m) for step in range(20) for m in task.training_batch(step)["molecule"]}
    held = [{int(m) for p in probes for b in p.batches for m in b["molecule"]} for probes in (track, final)]
    assert not held[0] & held[1]
    assert not trained & (held[0] | held[1])
    with pytest.raises(InputError, match="part must be"):
        task.probes("test")


def test_octahedral_quantity_is_that_of_turned_molecules(task):
    """Grid and noise permuted is the same as voxelising the turned molecule with turned noise: no interpolation."""
    model, probe = task.build_model().eval(), task.probes("track")[0]
    result = eq.measure(model, probe.batches, probe.declaration, rotations="O")
    assert result.passes == 24
    assert result.distinguishable
    assert any("lower bound of the SO(3) error" in note for note in result.notes)
    tied = build({**_plain_config(task), "model": {**_model(), "name": "unet_tied"}})
    tied.prepare(progress=False)
    twin = eq.measure(tied.build_model().eval(), probe.batches, probe.declaration, rotations="O")
    assert not twin.distinguishable


def _model():
    return {"size": "nano", "width": 4, "multipliers": [1, 2], "attention": [False, True], "heads": 1}


def _plain_config(task):
    settings = task.settings
    return {
        "task": "voxels", "seed": 0, "batch_size": 3, "grid": {"size": 16, "resolution": 0.6},
        "data": {"conformers": 2, "min_atoms": 2, "smiles": settings.data.smiles, "path": settings.data.path},
    }  # fmt: skip


def test_oracle_shows_the_interpolations_own_error(task):
    final = {p.name: p for p in task.probes("final")}
    results = {}
    for kind in ("trilinear", "cubic"):
        probe = final[oracle_name(kind)]
        model = task.build_model()
        results[kind] = eq.measure(model, probe.batches, probe.declaration, forward=probe.forward, rotations="haar",
                                   cosets=4)  # fmt: skip
    assert results["trilinear"].r2 > 0.8
    assert 0 < results["cubic"].equivariance < results["trilinear"].equivariance
    assert results["cubic"].total < results["trilinear"].total / 3


def test_pictures_are_plain_and_the_target_is_last(task):
    pictures = task.pictures(task.build_model())
    assert plain(pictures) == pictures
    for picture in pictures:
        assert [p["title"] for p in picture["panels"]] == ["input", "output", "twirled output", "target"]
        assert len(picture["panels"][0]["image"]) == 16
        assert max(map(max, picture["panels"][-1]["image"])) > 0.1


def test_description_counts_what_was_left_out(task):
    described = plain(task.describe())
    assert described["counts"]["conformers rejected"].keys() == {"element without a channel", "outside the grid"}
    assert described["channels"] == ["H", "C", "N", "O", "F", "S", "Cl"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("grid.size=15", "multiple of 2"),
        ("grid.size=1", "grid.size must be an integer >= 2"),
        ("grid.sigma=0.0", "noise level"),
        ("data.elements=[C,Xx]", "unknown elements"),
        ("data.probe_batch=0", "probe_batch must be at least 1"),
        ("track.draws=1", "at least 2"),
        ("model.size=4M", "no size '4M'"),
        ("+grid.spacing=1", "unknown grid settings"),
    ],
)
def test_bad_settings_are_refused_before_data_is_made(changes, message):
    levels = ["+model.multipliers=[1,2]", "+model.attention=[false,true]"]
    made = configuration(["task=voxels", "run=x", changes, *levels])
    with pytest.raises(InputError, match=message):
        build(made)


def test_the_papers_configuration_is_whole():
    made = build(configuration(["task=voxels_paper", "run=x"]))
    assert made.name == "voxels"
    assert made.settings.grid.shape == (8, 64, 64, 64)
    assert (made.settings.grid.resolution, made.settings.grid.radius, made.settings.sigma) == (0.25, 0.5, 0.9)
    assert (made.settings.model, made.settings.size) == ("voxmol", "111M")
    assert made.settings.grid.crop


def test_training_molecules_are_shifted_along_each_axis_and_held_out_ones_are_not(task, config):
    shifted = build({**config, "data": {**config["data"], "shift": 0.5}})
    shifted.prepare(progress=False)
    moved = []
    for step in range(40):
        here, there = task.training_batch(step), shifted.training_batch(step)
        difference = (there["pos"] - here["pos"])[here["mask"]]
        moved.append(torch.stack([(there["pos"] - here["pos"])[i][here["mask"][i]].mean(0) for i in range(3)]))
        assert torch.allclose(difference, moved[-1].repeat_interleave(here["mask"].sum(1), 0), atol=1e-5)
        assert torch.equal(there["pos"], shifted.training_batch(step)["pos"])
    every = torch.cat(moved)
    # Uniform in ±0.5: 360 numbers of variance 1/12, whose own standard error is 0.0039.
    assert every.abs().max() <= 0.5 + 1e-5
    assert abs(float(every.square().mean()) - 1 / 12) < 4 * 0.0039
    assert abs(float(every.mean())) < 4 * 12**-0.5 / 360**0.5
    # Each axis by itself: correlations of 120 pairs.
    assert torch.corrcoef(every.T).triu(1).abs().max() < 4 / 120**0.5
    for ours, theirs in zip(shifted.probes("track")[0].batches, task.probes("track")[0].batches, strict=True):
        assert torch.equal(ours["clean"], theirs["clean"])


def test_a_shift_off_the_grid_is_refused_unless_it_crops(config):
    with pytest.raises(InputError, match=r"data\.shift of 2 Å moves molecules off the grid, which has 1\.116 Å"):
        build({**config, "data": {**config["data"], "shift": 2.0}})
    build({**config, "data": {**config["data"], "shift": 2.0}, "grid": {**config["grid"], "crop": True}})


def test_nothing_can_be_had_before_the_data(config):
    with pytest.raises(InputError, match=r"call prepare\(\) first"):
        build(config).training_batch(0)


def test_fewer_training_conformers_leave_the_held_out_ones_as_they_are(task, config):
    few = build({**config, "data": {**config["data"], "train_conformers": 3}})
    few.prepare(progress=False)
    drawn = {int(i) for step in range(4) for i in few.training_batch(step)["id"]}
    assert len(drawn) == 3
    assert drawn < set(task.data.indices("train").tolist())
    assert few.describe()["used"] == {"train": 3}
    for part in ("track", "final"):
        ours, theirs = (made.probes(part)[0].batches for made in (few, task))
        assert all(torch.equal(a["clean"], b["clean"]) for a, b in zip(ours, theirs, strict=True))
    with pytest.raises(InputError, match="train_conformers must be at least 1"):
        build({**config, "data": {**config["data"], "train_conformers": 0}})
