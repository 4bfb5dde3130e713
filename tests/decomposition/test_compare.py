"""Paired comparison: shared orbits cancel, the interval covers, unpaired figures do not."""

import pytest
import torch

import equiscope as eq
from equiscope.errors import InputError

from .models import Tanh, random_batch

SHORT = dict(inputs={"pos": "1o"}, outputs={"forces": "1o"}, target="y")


def nudged(size, seed=0):
    model = Tanh(1.0)
    with torch.no_grad():
        model.a += size * torch.randn(8, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return model


def test_a_model_does_not_differ_from_itself():
    same = eq.compare(Tanh(), Tanh(), [random_batch(20)], **SHORT)
    assert same.difference == 0
    assert same.error == 0


def test_pairing_narrows_the_interval():
    pair = eq.compare(Tanh(), nudged(0.02), [random_batch(40)], **SHORT)
    assert pair.error < 0.2 * pair.unpaired_error
    assert pair.difference == pytest.approx(pair.b.percent - pair.a.percent)
    assert pair.interval[0] < pair.difference < pair.interval[1]


def test_paired_intervals_cover():
    a, b = Tanh(), nudged(0.3)
    large = eq.compare(a, b, [random_batch(4000, atoms=1, seed=999)], rotations="O", **SHORT)
    hits = 0
    for seed in range(200):
        low, high = eq.compare(
            a, b, [random_batch(40, atoms=1, seed=seed)], rotations="D2", seed=seed, **SHORT
        ).interval
        hits += low <= large.difference <= high
    assert hits >= 182


def test_batches_may_be_a_generator():
    pair = eq.compare(Tanh(), nudged(0.1), (random_batch(8, seed=i) for i in range(3)), **SHORT)
    assert pair.a.samples == pair.b.samples == 24


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(InputError, match="cosets instead"):
        eq.compare(Tanh(), Tanh(), [random_batch()], rtol=0.1, **SHORT)
    with pytest.raises(InputError, match="labels"):
        eq.compare(
            Tanh(),
            Tanh(),
            [{"pos": random_batch()["pos"]}],
            inputs={"pos": "1o"},
            outputs={"f": "1o"},
            forward=lambda m, b: m(b)["forces"],
        )
