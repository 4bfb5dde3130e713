"""Precision on demand: goals are met or it is said why not; samples before rotations."""

import pytest
import torch

import equiscope as eq
from equiscope.decomposition.precision import half_width
from equiscope.errors import InputError

from .models import Linear, Tanh, random_batch

SHORT = dict(inputs={"pos": "1o"}, outputs={"forces": "1o"}, target="y")


def stream(batches, size=16, spread=1.0):
    for i in range(batches):
        yield {k: v * spread for k, v in random_batch(size, seed=i).items()}


def test_samples_are_read_until_the_interval_is_narrow():
    read = []

    def counted():
        for batch in stream(500):
            read.append(1)
            yield batch

    result = eq.measure(Tanh(), counted(), rtol=0.03, **SHORT)
    assert half_width(result) <= 0.03
    assert len(read) < 200
    assert any("rtol=0.03 reached" in n for n in result.notes)


def test_when_samples_run_out_more_rotations_are_tried_where_they_help():
    one = random_batch(1, atoms=1)
    same = [{k: v.expand(64, -1, -1) for k, v in one.items()}]
    coarse = eq.measure(Tanh(), same, rotations="haar", cosets=2, **SHORT)
    result = eq.measure(Tanh(), same, rotations="haar", cosets=2, rtol=0.05, **SHORT)
    assert half_width(coarse) > 0.1
    assert half_width(result) <= 0.05
    assert result.cosets > 2


def test_when_the_samples_differ_more_rotations_are_not_wasted():
    result = eq.measure(Linear(torch.eye(3).double() + torch.ones(3, 3).triu()), stream(2), rtol=0.001, **SHORT)
    assert result.cosets == 2
    assert any("only more samples" in n for n in result.notes)


def test_the_budget_is_kept_and_said():
    result = eq.measure(Tanh(), stream(100), rtol=0.0001, max_passes=2000, **SHORT)
    assert result.samples * result.passes < 3000
    assert any("max_passes=2000" in n for n in result.notes)


def test_added_cosets_equal_a_direct_measurement():
    one = [{k: v.expand(64, -1, -1) for k, v in random_batch(1, atoms=1).items()}]
    grown = eq.measure(Tanh(), one, rotations="haar", rtol=0.05, **SHORT)
    direct = eq.measure(Tanh(), one, rotations="haar", cosets=grown.cosets, **SHORT)
    assert grown.percent == pytest.approx(direct.percent, rel=1e-12)


@pytest.mark.parametrize("arguments", [dict(rtol=0.0), dict(rtol=1.5), dict(rtol=0.1, max_passes=0)])
def test_senseless_goals_are_refused(arguments):
    with pytest.raises(InputError):
        eq.measure(Tanh(), stream(1), **SHORT, **arguments)


def test_nothing_to_measure_is_said():
    with pytest.raises(InputError, match="empty"):
        eq.measure(Tanh(), [], rtol=0.1, **SHORT)
