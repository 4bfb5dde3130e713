"""Ratio of means: coverage as a statistic, delta against jackknife, limits, clusters."""

import numpy as np
import pytest

from equiscope.decomposition import statistics


def skewed(rng, clusters):
    """Cluster totals of unequal, log-normal clusters whose true ratio is 0.02."""
    b = rng.lognormal(0, 0.8, clusters)
    return 0.02 * rng.lognormal(0, 0.8, clusters), b


@pytest.mark.parametrize("clusters", [40, 200])
def test_intervals_cover_skewed_data(clusters):
    rng, hits = np.random.default_rng(clusters), 0
    for _ in range(3000):
        low, high = statistics.ratio(*skewed(rng, clusters)).interval
        hits += low <= 0.02 <= high
    assert 0.93 <= hits / 3000 <= 0.97


@pytest.mark.parametrize("clusters", [40, 200])
def test_intervals_cover_correlated_heavy_tails(clusters):
    rng, hits = np.random.default_rng(1), 0
    for _ in range(3000):
        b = rng.lognormal(0, 1, clusters)
        low, high = statistics.ratio(0.02 * b * rng.lognormal(-0.125, 0.5, clusters), b).interval
        hits += low <= 0.02 <= high
    assert 0.93 <= hits / 3000 <= 0.97


def test_delta_and_jackknife_agree():
    a, b = skewed(np.random.default_rng(0), 500)
    result = statistics.ratio(a, b)
    assert result.jackknife_error == pytest.approx(result.error, rel=0.03)


def test_the_mean_of_ratios_is_another_number():
    rng = np.random.default_rng(0)
    b = rng.lognormal(0, 1, 4000)
    a = 0.02 * b**2
    assert statistics.ratio(a, b).value == pytest.approx(a.mean() / b.mean())
    assert abs(np.mean(a / b) / (a.mean() / b.mean()) - 1) > 0.2


def test_ignoring_clusters_would_understate_the_error():
    rng = np.random.default_rng(0)
    effect = np.repeat(rng.lognormal(0, 0.5, 50), 20)
    a, b = 0.02 * effect * rng.lognormal(0, 0.2, 1000), np.ones(1000)
    codes = np.repeat(np.arange(50), 20)
    clustered = statistics.ratio(*(statistics.cluster_totals(v, codes, 50) for v in (a, b)))
    assert clustered.error > 3 * statistics.ratio(a, b).error
    assert clustered.value == pytest.approx(statistics.ratio(a, b).value, rel=1e-12)


def test_a_value_under_three_errors_is_an_upper_limit():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.001, 0.1, 50), np.ones(50)
    result = statistics.ratio(a, b)
    assert result.kind == "upper limit"
    assert result.interval[0] == 0
    assert result.interval[1] > max(result.value, 0.001)


def test_one_cluster_has_no_interval():
    result = statistics.ratio(np.array([1.0]), np.array([2.0]))
    assert result.value == 0.5
    assert result.kind == "none"
    assert np.isnan(result.interval).all()


def test_labels_of_any_kind_become_codes():
    codes, count = statistics.encode(["b", 7, "b", (1, 2)])
    assert codes.tolist() == [0, 1, 0, 2]
    assert count == 3


def test_no_spread_gives_a_point():
    result = statistics.ratio(np.full(5, 0.1), np.full(5, 2.0))
    assert result.interval == pytest.approx((0.05, 0.05))
