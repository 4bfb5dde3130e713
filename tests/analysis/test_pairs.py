import math

import numpy as np
import pytest

from equiscope.analysis import pairs


def contributions(generator, mean, groups, weights, noise):
    return weights[:, None] * (mean + noise * generator.standard_normal((groups, len(mean))))


def test_squares_are_unbiased_and_their_intervals_cover():
    generator = np.random.default_rng(0)
    mean, groups = np.array([0.3, -0.2, 0.1, 0.0]), 12
    weights = np.full(groups, 1 / groups)
    found, naive, covered = [], [], 0
    for _ in range(1500):
        c = contributions(generator, mean, groups, weights, 1.0)
        square = pairs.pair_product(c @ c.T, weights)
        low, high = pairs.interval(square)
        covered += low <= mean @ mean <= high
        found.append(square[0])
        naive.append(c.sum(0) @ c.sum(0))
    error = np.std(found) / math.sqrt(len(found))
    assert abs(np.mean(found) - mean @ mean) < 4 * error
    assert np.mean(naive) - mean @ mean > 10 * error
    assert covered / 1500 > 0.94


def test_deleting_a_group_is_the_product_without_it_for_unequal_weights():
    generator = np.random.default_rng(1)
    weights = np.array([0.1, 0.2, 0.3, 0.4])
    c = contributions(generator, np.ones(3), 4, weights, 0.5)
    square = pairs.pair_product(c @ c.T, weights)
    rest = c[1:] / 0.9
    again = pairs.pair_product(rest @ rest.T, weights[1:] / 0.9)
    assert square[1] == pytest.approx(again[0], rel=1e-12)
    assert pairs.mean_value(c[:, 0], weights)[2] == pytest.approx(c[[0, 2, 3], 0].sum() / 0.8, rel=1e-12)


def test_fieller_covers_a_ratio_and_is_unbounded_without_a_denominator():
    generator = np.random.default_rng(2)
    covered = 0
    for _ in range(1000):
        a, b = 1 + generator.standard_normal(20), 3 + 2 * generator.standard_normal(20)
        weights = np.full(20, 0.05)
        low, high = pairs.fieller(pairs.mean_value(a * 0.05, weights), pairs.mean_value(b * 0.05, weights))
        covered += low <= 1 / 3 <= high
    assert 0.93 < covered / 1000 < 0.97
    nothing = pairs.mean_value(generator.standard_normal(20) * 0.05, np.full(20, 0.05))
    assert pairs.fieller(nothing, 0 * nothing) == (-math.inf, math.inf)


def test_no_silent_square_root():
    negative = np.array([-1.0, -1.1, -0.9, -1.0])
    assert math.isnan(pairs.norm(negative)["value"])
    assert pairs.norm(negative)["square"] == -1
    assert math.isnan(pairs.norm_ratio(negative, -negative)["value"])
    assert pairs.cosine(negative, negative, negative)["interval"] == [-1, 1]
