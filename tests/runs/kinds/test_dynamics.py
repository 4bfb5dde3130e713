"""What a trained run foretells, and why it does not where its state gives no ground for it."""

import math
import shutil

import pytest
import torch

from equiscope.errors import InputError, RunError
from equiscope.runs.analyse import analyse
from equiscope.runs.checkpoint import VerifiedCheckpointIO
from equiscope.runs.kinds.dynamics import stepper
from equiscope.runs.train import train
from equiscope.runs.trained import open_run
from tests.runs.toy import config

CONSTANT = {"schedule": {"warmup": 0.0, "hold": 1.0}, "data": {"dropout": 0.0}}
KEPT = 300  # the loss is steady from there on
LENGTH = {"trainer__max_steps": KEPT + 5, "trainer__checkpoint_every": 1000, "trainer__clip": 0.0, "track__points": 14}


def trained(folder, name, **changes):
    return train(config(folder, run=name, **{**CONSTANT, **LENGTH, "trainer__keep": [0, KEPT], **changes}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def adam(folder):
    return trained(folder, "adam", optimizer={"name": "adam", "lr": 0.01})


def values(run, step, **changes):
    return analyse(run.path, ["dynamics"], at=[step], changes={"minibatches": 12, "draws": 3, **changes})[0]["values"]


def test_every_part_of_a_run_at_a_constant_rate(adam):
    found = values(adam, KEPT)
    noise, annealing, twirling = found["noise"], found["annealing"], found["twirling"]
    assert noise["refused"] == annealing["refused"] == twirling["refused"] == ""
    assert 0 < noise["equivariance"]["averaged"]["value"] < noise["equivariance"]["weights"]["value"]
    assert 0 < noise["kappa_max"] < noise["edge"] == pytest.approx(38)
    assert sum(noise["share"]) == pytest.approx(1)
    assert noise["clipped"] == 1
    low, high = annealing["averaged"]["interval"]
    assert low < annealing["averaged"]["value"] < high
    assert twirling["twirled"] < twirling["total"]
    assert twirling["answers"]["steps"] == pytest.approx(3 * 8 * twirling["worth"]["steps"] / 11)


def test_seconds_are_those_of_a_device_that_is_done(adam, monkeypatch):
    waited = []
    monkeypatch.setattr("equiscope.runs.clock.settle", waited.append)
    assert values(adam, KEPT, seed=11)["twirling"]["cost"] > 1
    assert waited == 4 * [torch.device("cpu")]


def test_the_start_has_a_spectrum_and_no_noise(adam):
    found = values(adam, 0)
    assert "no state of the optimiser" in found["noise"]["refused"]
    assert "plain gradient descent alone" in found["spectrum"]["refused"]
    assert len(found["spectrum"]["parts"]["equivariance"]["nodes"]) == 5


def test_the_decay_of_plain_descent_is_that_of_the_run(folder):
    run = trained(folder, "sgd", optimizer={"name": "sgd", "lr": 0.01, "momentum": 0.0}, trainer__max_steps=60,
                  trainer__keep=[0], trainer__ema=0.0)  # fmt: skip
    found = values(run, 0)["spectrum"]
    assert found["refused"] == ""
    assert len(found["decay"]) == len(found["steps"])
    assert found["decay"][0] > found["decay"][-1]


def test_optimisers_are_read_as_torch_steps_them(folder, adam):
    ours = stepper(open_run(adam.path, averaged=False, step=KEPT))
    assert (ours.name, ours.rate, ours.momentum, ours.average) == ("adam", 0.01, 0.9, 0.9)
    assert ours.recursion.rate == 0.01
    heavy = trained(folder, "heavy", optimizer={"name": "sgd", "lr": 0.02, "momentum": 0.5, "weight_decay": 0.1},
                    trainer__max_steps=20, trainer__keep=[10])  # fmt: skip
    ours = stepper(open_run(heavy.path, averaged=False, step=10))
    assert ours.recursion.rate == pytest.approx(0.04)
    assert ours.recursion.decay == 0
    # Its state is its own; only the steps are too few.
    assert "10 steps are too few" in values(heavy, 10)["noise"]["refused"]


def test_states_that_are_not_stationary_are_refused(folder):
    falling = trained(folder, "falling", schedule={"warmup": 0.0}, trainer__max_steps=210, trainer__keep=[200])
    assert "learning rate went from" in values(falling, 200)["noise"]["refused"]


def test_bad_input_is_a_sentence(folder, adam):
    with pytest.raises(InputError, match="8 mini-batches or more, got 3"):
        values(adam, KEPT, minibatches=3)
    with pytest.raises(InputError, match="one rotation per sample has no equivariance error"):
        values(adam, KEPT, rotations="haar")
    with pytest.raises(InputError, match="draws must be an integer >= 2, got 1"):
        values(adam, KEPT, draws=1)
    adam.acquire()
    try:
        with pytest.raises(RunError, match=r"in use|already"):
            values(adam, KEPT, seed=7)
    finally:
        adam.release()


@pytest.mark.parametrize(
    ("state", "words"),
    [({}, "no state of the optimiser"), ({"momentum_buffer": torch.zeros(3)}, "no second moments")],
)
def test_a_checkpoint_without_its_optimiser_says_so(folder, adam, state, words):
    path = folder / f"bare{len(state)}" / adam.path.name
    shutil.copytree(adam.path, path)
    stored = torch.load(path / "checkpoints" / f"step-{KEPT}.ckpt", weights_only=True)
    stored["optimizer_states"] = [{"state": {0: state}, "param_groups": [{"params": [0]}] if state else []}]
    VerifiedCheckpointIO().save_checkpoint(stored, path / "checkpoints" / f"step-{KEPT}.ckpt")
    # Another seed, so that no record of the whole run answers for it.
    (found,) = analyse(path, ["dynamics"], at=[KEPT], changes={"minibatches": 12, "draws": 3, "seed": 5})
    assert words in found["values"]["noise"]["refused"]
    assert math.isfinite(found["values"]["annealing"]["averaged"]["value"])
