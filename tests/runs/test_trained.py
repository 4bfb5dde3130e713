"""Opening a run: the weights that were measured, and clear words where there is no run."""

import pytest
import torch

from equiscope import records
from equiscope.errors import InputError, IntegrityError, RunError
from equiscope.runs.tracker import kept_steps, measured_steps
from equiscope.runs.train import train
from equiscope.runs.trained import available_steps, open_run

from .toy import Toy, config


def test_the_opened_model_is_the_one_that_was_measured(tmp_path):
    folder = train(config(tmp_path))
    opened = open_run(folder.path)
    book = records.read(folder.records)
    final = next(r for r in book if r["kind"] == "measure" and r["part"] == "final")
    opened.task.prepare(progress=False)
    from equiscope.runs.tracker import Tracking, measure_probe

    settings = Tracking(seed=opened.config["final"]["seed"])
    result = measure_probe(opened.model, opened.task.probes("final")[0], settings)
    assert result.percent == final["result"]["percent"]
    assert opened.step == opened.config["trainer"]["max_steps"]
    trained = open_run(folder.path, averaged=False).model
    assert any(not torch.equal(a, b) for a, b in zip(trained.parameters(), opened.model.parameters(), strict=True))


def test_what_is_no_run_is_said(tmp_path):
    with pytest.raises(RunError, match="no run's folder"):
        open_run(tmp_path / "a" / "b")


def test_damage_is_said(tmp_path):
    folder = train(config(tmp_path))
    data = bytearray(folder.checkpoint.read_bytes())
    data[len(data) // 2] ^= 1
    folder.checkpoint.write_bytes(data)
    with pytest.raises(IntegrityError, match="damaged"):
        open_run(folder.path)


def test_kept_steps_are_opened_as_they_were_then(tmp_path):
    keep = [0, 15, 40]
    folder = train(config(tmp_path, trainer__keep=keep, trainer__ema=0.0))
    assert folder.kept_steps() == keep
    assert available_steps(folder) == keep
    fresh = open_run(folder.path).task.build_model()
    first, middle, last = (open_run(folder.path, step=step) for step in keep)
    assert [run.step for run in (first, middle, last)] == keep
    short = train(config(tmp_path, run="b", trainer__checkpoint_every=15, trainer__keep=[], trainer__ema=0.0))
    assert short.kept_steps() == []
    for model, same in ((first, fresh), (last, open_run(short.path).model)):
        for mine, theirs in zip(model.model.parameters(), same.parameters(), strict=True):
            assert torch.equal(mine, theirs)
    assert any(not torch.equal(a, b) for a, b in zip(first.model.parameters(), middle.model.parameters(), strict=True))


def test_a_number_keeps_log_spaced_steps(tmp_path):
    whole = train(config(tmp_path, run="whole", trainer__keep=5))
    assert whole.kept_steps() == measured_steps(40, 5, 3)
    for part in ("step-40.ckpt", "last.ckpt"):
        assert (whole.checkpoint.parent / f"{part}.sha256").exists()
    opened = open_run(whole.path, step=40)
    for mine, theirs in zip(opened.model.parameters(), open_run(whole.path).model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_the_optimizer_state_is_that_of_the_step(tmp_path):
    folder = train(config(tmp_path, trainer__keep=[0, 1, 40], trainer__clip=0.0, data={"dropout": 0.0}))
    assert open_run(folder.path, step=0).optimizer_state["state"] == {}
    start = open_run(folder.path, step=0, averaged=False)
    start.task.training_loss(start.model, start.task.training_batch(0))["loss"].backward()
    found = open_run(folder.path, step=1).optimizer_state
    beta = found["param_groups"][0]["betas"][1]
    for place, parameter in enumerate(start.model.parameters()):
        moment = found["state"][place]["exp_avg_sq"] / (1 - beta)
        torch.testing.assert_close(moment, parameter.grad.square(), rtol=1e-4, atol=1e-12)


def test_a_step_that_was_not_kept_is_said(tmp_path):
    folder = train(config(tmp_path, trainer__keep=[0, 20]))
    with pytest.raises(RunError, match=r"no checkpoint of step 7; it has those of steps 0, 20, 40.*trainer\.keep"):
        open_run(folder.path, step=7)
    folder.kept(20).rename(folder.kept(7))
    (folder.checkpoint.parent / "step-20.ckpt.sha256").rename(folder.checkpoint.parent / "step-7.ckpt.sha256")
    with pytest.raises(IntegrityError, match=r"step-7\.ckpt"):
        open_run(folder.path, step=7)


def test_a_checkpoint_of_another_model_names_the_layer(tmp_path, monkeypatch):
    folder = train(config(tmp_path))
    monkeypatch.setattr(Toy, "build_model", lambda self: torch.nn.Sequential(torch.nn.Linear(3, 8)))
    with pytest.raises(RunError, match=r"of another model: '0.weight' is \(32, 3\) in the checkpoint and \(8, 3\)"):
        open_run(folder.path)


@pytest.mark.parametrize("keep", [1, -1, "all", [0, 41], [0.5], True, {"a": 1}])
def test_keep_that_means_nothing(keep):
    with pytest.raises(InputError, match=r"trainer\.keep must be"):
        kept_steps(keep, 40)
