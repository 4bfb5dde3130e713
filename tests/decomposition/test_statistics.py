"""Ratio of means: coverage as a statistic, delta against jackknife, limits, effective clusters."""

import math

import numpy as np
import pytest
from scipy import stats

from equiscope.decomposition import statistics


def skewed(rng, clusters):
    """Cluster totals of unequal, log-normal clusters whose true ratio is 0.02."""
    b = rng.lognormal(0, 0.8, clusters)
    return 0.02 * rng.lognormal(0, 0.8, clusters), b


def shares(a, b, truth):
    """Shares of the intervals of totals (repeats, clusters) that hold the truth, and the median effective number."""
    found = statistics.ratios(a, b)
    return float(((found.low <= truth) & (truth <= found.high)).mean()), float(np.median(found.effective))


@pytest.mark.parametrize("clusters", [40, 200])
def test_intervals_cover_skewed_data(clusters):
    rng = np.random.default_rng(clusters)
    a, b = skewed(rng, (3000, clusters))
    covered, effective = shares(a, b, 0.02)
    # Wider than nominal where few clusters carry the spread, as they should be.
    assert 0.94 <= covered <= (0.98 if effective < 20 else 0.97)


@pytest.mark.parametrize("clusters", [40, 200])
def test_intervals_cover_correlated_heavy_tails(clusters):
    rng = np.random.default_rng(1)
    b = rng.lognormal(0, 1, (3000, clusters))
    covered, _ = shares(0.02 * b * rng.lognormal(-0.125, 0.5, b.shape), b, 0.02)
    assert 0.94 <= covered <= 0.98


LAWS = {
    "normal": lambda rng, shape: 1 + 0.3 * rng.normal(size=shape),
    "log-normal": lambda rng, shape: rng.lognormal(-0.125, 0.5, shape),
    "heavy": lambda rng, shape: rng.lognormal(-0.5, 1, shape),
    "Pareto": lambda rng, shape: (rng.pareto(3, shape) + 1) / 1.5,
    "mostly zero": lambda rng, shape: np.where(rng.random(shape) < 0.1, 10 * rng.lognormal(-0.125, 0.5, shape), 0),
}


@pytest.mark.parametrize("clusters", [2, 3, 5, 8, 20, 80])
@pytest.mark.parametrize("law", LAWS)
def test_few_or_heavy_clusters_cover_as_their_effective_number_promises(law, clusters):
    rng = np.random.default_rng(clusters)
    covered, effective = shares(0.02 * LAWS[law](rng, (4000, clusters)), np.ones((4000, clusters)), 0.02)
    # Under three effective clusters results say "not trustworthy", and heavy laws are why.
    least = 0.93 if effective >= 8 else 0.90 if effective >= 3 else 0.80
    assert covered >= (0.935 if law in ("normal", "log-normal") else least)


def test_two_clusters_have_one_degree_of_freedom():
    rng = np.random.default_rng(0)
    a, b = 1 + 0.1 * rng.normal(size=(20000, 2)), np.full((20000, 2), 10.0)
    assert shares(a, b, 0.1)[0] == pytest.approx(0.95, abs=0.006)
    found = statistics.ratio(a[0], b[0])
    # Two residuals have no skewness: value exp(+-t s / value), Student's t of one degree of freedom 12.706.
    reach = 12.7062047 * max(found.error, found.jackknife_error) / found.value
    assert np.log(found.interval[1] / found.value) == pytest.approx(reach, rel=1e-6)
    assert np.log(found.value / found.interval[0]) == pytest.approx(reach, rel=1e-6)


def test_the_effective_number_counts_those_that_carry_the_spread():
    # One cluster far off among n: its residual is (1 - 1/n) x, the others' -x / n.
    n = 40
    a = np.ones(n)
    a[0] += 0.3
    rest = (n - 1) / n
    square, fourth = rest**2 + rest / n, rest**4 + rest / n**3
    assert statistics.ratio(a, np.full(n, 50.0)).effective == pytest.approx(square**2 / fourth, rel=1e-9)
    # Half above, half below: all of them.
    assert statistics.ratio(np.tile([1.0, 1.2], 20), np.full(n, 50.0)).effective == pytest.approx(40)


def test_a_formula_by_hand():
    a, b = np.array([1.0, 2.0, 1.5, 4.0, 2.0]), np.array([30.0, 50.0, 40.0, 60.0, 70.0])
    value = 10.5 / 250
    r = (a - value * b) / 250
    error = max(math.sqrt(5 / 4 * (r**2).sum()), _jackknife(a, b))
    freedom = 1 / (1.5 * (r**4).sum() / (r**2).sum() ** 2 - 1 / 5)
    skewness = (r**3).sum() / (r**2).sum() ** 1.5
    assert skewness > 0
    reach = stats.t.ppf(0.975, freedom) * error / value
    found = statistics.ratio(a, b)
    assert found.interval[1] == pytest.approx(value * math.exp(reach * (1 + skewness)), rel=1e-9)
    if found.kind == "two-sided":
        assert found.interval[0] == pytest.approx(value * math.exp(-reach * (1 - skewness / 2)), rel=1e-9)


def _jackknife(a, b):
    left = [(a.sum() - x) / (b.sum() - y) for x, y in zip(a, b, strict=True)]
    return math.sqrt(4 / 5 * sum((x - np.mean(left)) ** 2 for x in left))


@pytest.mark.parametrize("seed", range(5))
def test_no_interval_is_inverted_of_zero_width_or_above_all(seed):
    rng = np.random.default_rng(seed)
    for clusters in (2, 3, 5, 30):
        b = rng.lognormal(0, 1, (2000, clusters)) * (rng.random((2000, clusters)) < 0.7)
        b[:, 0] += 0.1
        for level in (-0.5, -1e-3, 0.0, 1e-9, 0.02, 0.9, 1.2):
            for noise in (0.0, 1e-12, 0.1, 1.0):
                found = statistics.ratios(b * (level + noise * rng.normal(size=b.shape)), b)
                assert (found.low >= 0).all()
                assert (found.high <= 1).all()
                assert (found.low < found.high).all()
                assert (found.low[found.limit] == 0).all()


def test_estimates_about_nothing_keep_their_coverage():
    # Unbiased estimates of a small value, the noise as likely below zero as above: limits, two-sided, and in between.
    rng = np.random.default_rng(0)
    for clusters in (8, 20, 200):
        for times in (0.0, 1.0, 2.0, 3.0, 4.0, 6.0):
            truth = 0.01 * times
            a = truth + 0.01 * clusters**0.5 * rng.normal(size=(4000, clusters))
            assert shares(a, np.ones_like(a), truth)[0] >= 0.94


def test_many_at_once_are_those_one_by_one():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.1, 0.2, (50, 6)), rng.lognormal(0, 1, (50, 6))
    together = statistics.ratios(a, b)
    for i in range(50):
        one = statistics.ratio(a[i], b[i])
        assert one.interval == (together.low[i], together.high[i])
        assert (one.value, one.effective) == pytest.approx((together.value[i], together.effective[i]))
        assert (one.kind == "upper limit") == together.limit[i]


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_units_do_not_matter(size):
    a, b = skewed(np.random.default_rng(0), 12)
    plain, scaled = statistics.ratio(a, b), statistics.ratio(a * size, b * size)
    assert scaled.interval == pytest.approx(plain.interval, rel=1e-9)
    assert scaled.effective == pytest.approx(plain.effective, rel=1e-9)


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


@pytest.mark.parametrize("value", [0.0, 0.05, 0.9])
def test_clusters_alike_leave_room_for_others_unseen(value):
    # A share p of other clusters is missed by 5 clusters with probability (1 - p)^5, 5 % at p = 1 - 0.05^(1/5).
    found = statistics.ratio(np.full(5, value * 2), np.full(5, 2.0))
    p = 1 - 0.05**0.2
    assert found.interval == pytest.approx((value * (1 - p), value * (1 - p) + p))
    assert found.kind == ("two-sided" if value else "upper limit")
    assert found.effective == pytest.approx(5)


def test_one_cluster_with_all_the_loss_says_as_much_as_one_cluster():
    found = statistics.ratio(np.array([0.3, 0, 0, 0, 0]), np.array([1.0, 0, 0, 0, 0]))
    assert found.interval == pytest.approx((0.3 * 0.05, 0.3 * 0.05 + 0.95))
    assert found.effective == pytest.approx(1)


def test_a_loss_that_is_not_positive_has_no_interval():
    assert statistics.ratio(np.array([1.0, 2.0]), np.array([-1.0, -3.0])).kind == "none"
    assert statistics.ratio(np.zeros(2), np.zeros(2)).kind == "none"
