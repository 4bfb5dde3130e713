"""Correlations along training: against scipy, on series that share only a trend, and the coverage of intervals."""

import math

import numpy as np
import pytest
from scipy import stats

from equiscope.analysis.relations import relation
from equiscope.errors import InputError

STEPS = np.unique(np.geomspace(20, 2400, 24).round())


def series(seed, link=0.0, memory=0.0):
    """Two positive series that fall with the step; deviations from the fall are linked, with lag-one memory."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((2, len(STEPS)))
    for i in range(1, len(STEPS)):
        noise[:, i] = memory * noise[:, i - 1] + math.sqrt(1 - memory**2) * noise[:, i]
    x, own = noise
    y = link * x + math.sqrt(1 - link**2) * own
    fall = -1.5 * np.log(STEPS)
    return np.exp(fall + 0.3 * x), np.exp(0.7 * fall + 0.3 * y)


def test_plain_correlations_are_those_of_the_logs():
    x, y = series(0, 0.4)
    found = relation(STEPS, x, y)
    assert found["pearson"]["value"] == pytest.approx(stats.pearsonr(np.log(x), np.log(y)).statistic, abs=1e-12)
    assert found["spearman"]["value"] == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    t = np.log(STEPS)
    r = np.corrcoef([t, np.log(x), np.log(y)])
    partial = (r[1, 2] - r[0, 1] * r[0, 2]) / math.sqrt((1 - r[0, 1] ** 2) * (1 - r[0, 2] ** 2))
    assert found["partial"]["value"] == pytest.approx(partial, abs=1e-10)
    steps = np.corrcoef(np.diff(np.log(x)), np.diff(np.log(y)))[0, 1]
    assert found["differences"]["value"] == pytest.approx(steps, abs=1e-12)


def test_a_shared_trend_makes_plain_correlations_only():
    plain, partial, differences = [], [], []
    for seed in range(200):
        found = relation(STEPS, *series(seed))
        plain.append(found["pearson"]["value"])
        partial.append(found["partial"]["value"])
        differences.append(found["differences"]["value"])
    assert np.mean(plain) > 0.9
    assert abs(np.mean(partial)) < 0.06
    assert abs(np.mean(differences)) < 0.06


@pytest.mark.parametrize(("memory", "link"), [(0.0, 0.0), (0.0, 0.7), (0.6, 0.0), (0.6, 0.7)])
def test_intervals_cover(memory, link):
    covered = {"partial": 0, "differences": 0, "partial_spearman": 0}
    repeats = 300
    for seed in range(repeats):
        found = relation(STEPS, *series(seed, link, memory))
        for name in covered:
            truth = 6 / math.pi * math.asin(link / 2) if "spearman" in name else link
            covered[name] += found[name]["low"] <= truth <= found[name]["high"]
    for name, count in covered.items():
        assert 0.9 <= count / repeats <= 1.0, name


def test_points_that_have_no_log_are_left_out_and_counted():
    x, y = series(1)
    steps = np.concatenate([[0], STEPS])
    first, second = [1.0, *x], [1.0, *y]
    second[5], first[7], second[9] = -0.1, None, 0.0
    found = relation(steps, first, second)
    assert (found["points"], found["left_out"]) == (len(STEPS) - 3, 4)


def test_few_points_give_no_interval_and_no_error():
    found = relation([1, 2, 3], [1, 2, 3], [3, 2, 1])
    assert found["points"] == 3
    assert math.isnan(found["pearson"]["value"])
    six = relation(range(1, 7), [1, 2, 3, 4, 5, 6.5], [2, 1, 3, 4, 5, 7])
    assert six["pearson"]["low"] < 0 < six["pearson"]["value"] < 1
    assert math.isnan(relation(range(1, 9), [1] * 8, range(1, 9))["pearson"]["value"])


def test_series_that_do_not_belong_together():
    with pytest.raises(InputError, match="one length"):
        relation([1, 2], [1], [1, 2])
    with pytest.raises(InputError, match="increase"):
        relation([2, 1], [1, 1], [1, 2])
