"""Paired comparison: shared orbits cancel, the interval covers, unpaired figures do not."""

import numpy as np
import pytest
import torch
from scipy import stats

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
    # Of 20 clusters none tells them apart: a share 1 - 0.05^(1/m) of others might, m the 20 by their losses.
    weight = same.a.per_sample.total.numpy()
    reach = 100 * (1 - 0.05 ** ((weight**2).sum() / weight.sum() ** 2))
    assert same.interval == pytest.approx((-reach, reach))


@pytest.mark.parametrize(("heavy", "larger"), [(1.0, "delta"), (4.0, "jackknife")])
def test_the_interval_by_hand(heavy, larger):
    # A sample with most of the loss moves the ratio more by being left out than its residual says.
    batch = random_batch(6)
    batch["y"][0] *= heavy
    pair = eq.compare(Tanh(), nudged(0.3), [batch], **SHORT)
    totals = [(r.per_sample.equivariance.numpy(), r.per_sample.total.numpy()) for r in (pair.a, pair.b)]
    r_a, r_b = ((a - a.sum() / b.sum() * b) / b.sum() for a, b in totals)
    left = [[(a.sum() - x) / (b.sum() - y) for x, y in zip(a, b, strict=True)] for a, b in totals]
    d, moved = r_b - r_a, np.subtract(left[1], left[0])
    square = (d**2).sum()
    errors = {"delta": (6 / 5 * square) ** 0.5, "jackknife": (5 / 6 * ((moved - moved.mean()) ** 2).sum()) ** 0.5}
    error = max(errors.values())
    assert errors[larger] == error
    freedom = np.clip(1 / (1.5 * (d**4).sum() / square**2 - 1 / 6), 1, 5)
    skewness = (d**3).sum() / square**1.5
    reach = 100 * stats.t.ppf(0.975, freedom) * error
    above = reach * (1 + max(skewness, 0) - max(-skewness, 0) / 2)
    below = reach * (1 + max(-skewness, 0) - max(skewness, 0) / 2)
    assert pair.error == pytest.approx(100 * error)
    assert pair.interval == pytest.approx((max(pair.difference - below, -100), min(pair.difference + above, 100)))
    assert pair.effective_clusters == pytest.approx(square**2 / (d**4).sum())
    assert f"carried by {pair.effective_clusters:.2g} of 6 clusters" in str(pair)


def test_two_clusters_have_one_degree_of_freedom_and_one_has_no_interval():
    pair = eq.compare(Tanh(), nudged(0.02), [random_batch(2)], **SHORT)
    assert pair.interval[1] - pair.difference == pytest.approx(min(12.7062047 * pair.error, 100 - pair.difference))
    assert "few clusters, not trustworthy" in str(pair)
    alone = eq.compare(Tanh(), nudged(0.02), [random_batch(1)], **SHORT)
    assert np.isnan(alone.interval).all()
    assert "carried" not in str(alone)


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
