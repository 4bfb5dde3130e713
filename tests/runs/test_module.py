"""Optimisers, the learning-rate schedule, clipping, the average of the weights; batches by step, and their shares."""

import math

import pytest
import torch
from torch import nn

from equiscope.errors import InputError
from equiscope.runs.module import Steps, TaskModule, build_optimizer, loader, schedule_factor, update_average
from tests.runs.toy import Toy


def test_schedule_closed_form():
    factor = schedule_factor(100, warmup=0.2, warmup_factor=0.1, min_factor=0.5)
    assert factor(0) == pytest.approx(0.1, abs=1e-15)
    assert factor(10) == pytest.approx(0.55, abs=1e-15)
    assert factor(20) == pytest.approx(1.0, abs=1e-15)
    assert factor(60) == pytest.approx(0.75, abs=1e-15)
    assert factor(80) == pytest.approx(0.5 + 0.25 * (1 + math.cos(0.75 * math.pi)), abs=1e-15)
    assert factor(100) == pytest.approx(0.5, abs=1e-15)
    assert schedule_factor(100)(0) == 1.0


def test_a_rate_is_held_before_it_falls():
    factor = schedule_factor(100, warmup=0.2, min_factor=0.5, hold=0.6)
    assert [factor(step) for step in (20, 40, 60)] == [1.0, 1.0, 1.0]
    assert factor(80) == pytest.approx(0.75, abs=1e-15)
    assert factor(100) == pytest.approx(0.5, abs=1e-15)
    assert schedule_factor(100, hold=1.0)(100) == 1.0
    assert schedule_factor(100, warmup=0.5, hold=0.1)(50) == 1.0
    with pytest.raises(InputError, match=r"schedule\.hold .* got 1.5"):
        schedule_factor(100, hold=1.5)


@pytest.mark.parametrize("warmup", [-0.1, 1.0])
def test_schedule_refuses(warmup):
    with pytest.raises(InputError, match=r"schedule\.warmup"):
        schedule_factor(100, warmup=warmup)


@pytest.mark.parametrize(("name", "kind"), [("adamw", "AdamW"), ("adam", "Adam"), ("sgd", "SGD")])
def test_optimizers(name, kind):
    made = build_optimizer(nn.Linear(2, 2).parameters(), {"name": name, "lr": 0.1, "weight_decay": 0.01})
    assert type(made).__name__ == kind
    assert made.param_groups[0]["lr"] == 0.1
    assert made.param_groups[0]["weight_decay"] == 0.01


def test_unknown_optimizer():
    with pytest.raises(InputError, match="adamw, adam, sgd"):
        build_optimizer([], {"name": "lion", "lr": 1.0})


def _module(**settings):
    return TaskModule(Toy(0, 4), {"name": "sgd", "lr": 0.1}, {}, max_steps=10, **settings)


def test_initial_weights_and_what_is_measured():
    plain, averaged = _module(), _module(ema=0.9)
    assert plain.measured is plain.net
    assert averaged.measured is not averaged.net
    for a, b in zip(plain.net.parameters(), averaged.measured.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not any(p.requires_grad for p in averaged.measured.parameters())


def test_average_is_the_exponential_one():
    averaged, net = nn.Linear(1, 1), nn.Linear(1, 1)
    net.register_buffer("count", torch.tensor(3))
    averaged.register_buffer("count", torch.tensor(0))
    expected = averaged.weight.item()
    for step in (1, 2, 5, 40):
        with torch.no_grad():
            net.weight.fill_(float(step))
        update_average(averaged, net, step, 0.75)
        kept = {1: 1 / 10, 2: 2 / 11, 5: 5 / 14, 40: 0.75}[step]
        expected = kept * expected + (1 - kept) * step
        assert averaged.weight.item() == pytest.approx(expected, rel=1e-6)
    assert averaged.count == 3
    assert net.weight.item() == 40


def test_ema_out_of_range():
    with pytest.raises(InputError, match=r"trainer\.ema"):
        _module(ema=1.0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lr": -1}, r"optimizer\.lr must be a finite number >= 0, got -1"),
        ({"lr": math.nan}, r"optimizer\.lr must be a finite number"),
        ({"lr": math.inf}, r"optimizer\.lr must be a finite number"),
        ({"lr": None}, r"optimizer\.lr must be a finite number"),
        ({"lr": 1.0, "weight_decay": -1}, r"optimizer\.weight_decay"),
        ({"lr": 1.0, "momentum": 1.0}, r"optimizer\.momentum must be in \[0, 1\)"),
        ({"lr": 1.0, "betas": [1, 2]}, r"optimizer\.betas must be two numbers in \[0, 1\)"),
        ({"lr": 1.0, "betas": 0.9}, r"optimizer\.betas must be two numbers"),
        ({"lr": 1.0, "nesterov": True}, "optimizer has no setting 'nesterov'"),
    ],
)
def test_optimizer_settings_out_of_range(settings, words):
    with pytest.raises(InputError, match=words):
        build_optimizer(nn.Linear(2, 2).parameters(), {"name": "adamw", **settings})


def test_loader_goes_on_at_the_given_step():
    task = Toy(0, 4)
    batches = list(loader(Steps(task, 6), 6, start=4))
    assert len(batches) == 2
    for step, batch in zip((4, 5), batches, strict=True):
        assert all(torch.equal(batch[k], v) for k, v in task.training_batch(step).items())
    assert len(loader(Steps(task, 6), 6, start=4)) == 6


def test_shares_make_up_the_batch():
    task = Toy(0, 6)
    parts = [Steps(task, 3, process, 3)[1] for process in range(3)]
    ids = torch.cat([part["id"] for part in parts])
    assert sorted(ids.tolist()) == list(range(6))
    assert {len(part["x"]) for part in parts} == {2}


def test_uneven_shares_are_refused():
    with pytest.raises(InputError, match="multiple of the number of processes"):
        Steps(Toy(0, 5), 3, 0, 2)[0]
