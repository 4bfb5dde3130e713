"""The orientation test: its false alarms, what it finds that the orientation tensor cannot, and its arithmetic."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import sph_harm_y

from equiscope.symmetry.orientation import orientation
from equiscope.symmetry.rotations import haar
from equiscope.tasks.datasets import orientation_bias
from equiscope.tasks.datasets.orientation_bias import BiasTest, harmonics

NUMBERS = np.array([6, 6, 8, 1, 1, 1, 7, 1, 1, 6])
SHAPE = torch.tensor([2.0, 1.2, 0.8], dtype=torch.float64)


def molecules(count, seed):
    """(count, 10, 3): blobs of three unlike axes, along them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, len(NUMBERS), 3, generator=generator, dtype=torch.float64) * SHAPE
    return x - x.mean(1, keepdim=True)


def turned(x, turns):
    return torch.einsum("nij,naj->nai", turns, x)


def at_random(x, seed, per=1):
    turns = haar(len(x) // per, torch.Generator().manual_seed(1000 + seed)).repeat_interleave(per, 0)
    return turned(x, turns)


def cubic(x, seed, strength=6.0):
    """Oriented with a density exp(strength h), h the cubic harmonic of degree 4 of the longest axis."""
    axes = torch.linalg.svd(x, full_matrices=False).Vh[:, 0]
    generator = torch.Generator().manual_seed(seed)
    found, left = torch.zeros_like(x), torch.ones(len(x), dtype=torch.bool)
    while left.any():
        turns = haar(len(x), generator)
        harmonic = torch.einsum("nij,nj->ni", turns, axes).pow(4).sum(-1) - 0.6
        took = left & (torch.rand(len(x), generator=generator) < torch.exp(strength * (harmonic - 0.4)))
        found[took], left = turned(x, turns)[took], left & ~took
    return found


def ask(x, per=1, seed=0, cell=None):
    test = BiasTest(seed)
    for first in range(0, len(x), per):
        here = slice(first, first + per)
        test.add(str(first), NUMBERS, x[here].numpy(), None if cell is None else cell[here].numpy())
    return test.result()


@pytest.mark.parametrize(("count", "per", "repeats"), [(60, 1, 200), (150, 5, 100)])
def test_false_alarms_are_as_nominal(monkeypatch, count, per, repeats):
    # Right for any score; fewer sums are faster.
    monkeypatch.setattr(orientation_bias, "SUMS", 32)
    found = []
    for seed in range(repeats):
        x = molecules(count // per, seed).repeat_interleave(per, 0)
        x = x + 0.05 * molecules(count, 10_000 + seed)
        found.append(ask(at_random(x, seed, per), per))
    assert {r.by for r in found} == {"groups"}
    missed = sum(not r.interval[0] <= 0.5 <= r.interval[1] for r in found)
    assert stats.binom.cdf(missed, repeats, 0.05) > 0.001
    assert stats.binom.sf(missed - 1, repeats, 0.05) > 0.001
    values = np.array([r.auc for r in found])
    assert abs(values.mean() - 0.5) < 4 * values.std() / np.sqrt(repeats)
    # The width says how far the values lie.
    widths = np.array([r.interval[1] - r.interval[0] for r in found])
    assert 0.8 < widths.mean() / (2 * 1.96 * values.std()) < 1.35


def test_degree_4_is_found_and_the_tensor_does_not_see_it():
    x = cubic(molecules(1500, 0), 0)
    assert orientation(x).p_value > 0.01
    found = ask(x)
    assert found.biased
    assert found.auc > 0.55
    assert "NOT randomly oriented: a classifier tells frames from turned copies" in str(found)


def test_principal_axes():
    x = molecules(400, 1)
    aligned = x @ torch.linalg.eigh(x.mT @ x).eigenvectors
    found = ask(aligned)
    assert found.auc > 0.93
    # The axes in any order: the tensor is even, and degree 2 alone has no mean.
    order = torch.argsort(torch.rand(400, 3, generator=torch.Generator().manual_seed(2)), 1)
    shuffled = torch.gather(aligned, 2, order[:, None].expand_as(aligned))
    assert orientation(shuffled).p_value > 0.01
    assert ask(shuffled).interval[0] > 0.6


def test_a_cell_in_standard_orientation_is_found():
    x = at_random(molecules(200, 3), 3)
    random = torch.randn(200, 3, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    cell = torch.linalg.cholesky(random @ random.mT + 3 * torch.eye(3, dtype=torch.float64))
    assert ask(x, cell=cell).auc > 0.95
    assert not ask(x, cell=at_random(cell, 5)).biased


def test_few_groups_are_said_and_few_frames_are_not_judged():
    x = at_random(molecules(40, 0), 0)
    assert ask(x[:19]) is None
    found = ask(x, per=8)
    assert (found.by, found.units) == ("frames", found.frames)
    assert "fewer than 10 groups, frames taken as independent" in str(found)
    assert BiasTest().result() is None
    # One atom has no direction.
    test = BiasTest()
    test.add("a", np.array([1]), np.random.default_rng(0).normal(size=(50, 1, 3)))
    assert test.result() is None


def test_the_frames_used_do_not_depend_on_blocks(monkeypatch):
    monkeypatch.setattr(orientation_bias, "FRAMES", 100)
    monkeypatch.setattr(orientation_bias, "ATOMS_AT_ONCE", 300)
    x = molecules(400, 0)
    one, other = BiasTest(), BiasTest()
    for i in range(400):
        one.add(str(i // 2), NUMBERS, x[i : i + 1].numpy())
    for i in range(0, 400, 2):
        other.add(str(i // 2), NUMBERS, x[i : i + 2].numpy())
    assert one.result() == other.result()
    assert one.result().frames <= 60


def test_harmonics_are_those_of_scipy():
    v = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = harmonics(v).numpy()
    assert found.shape == (7, 48)
    x, y, z = (v / v.norm(dim=-1, keepdim=True)).numpy().T
    # e3nn's axes: its y is the polar one. The norm of each degree holds whatever the order of m.
    theta, phi = np.arccos(y), np.arctan2(x, z)
    start = 0
    for degree in range(1, 7):
        own = found[:, start : start + 2 * degree + 1]
        m0 = sph_harm_y(degree, 0, theta, phi).real * np.sqrt(4 * np.pi)
        assert own[:, degree] == pytest.approx(m0, abs=1e-12)
        assert (own**2).sum(-1) == pytest.approx(2 * degree + 1, rel=1e-12)
        start += 2 * degree + 1
    assert (harmonics(torch.zeros(2, 3)) == 0).all()
