"""What a curve foretells: exact laws, intervals that hold in repeats, and refusals."""

import math

import numpy as np
import pytest

from equiscope.analysis.forecast import cheaper_below, crossing, steps_worth
from equiscope.errors import InputError


def test_an_exponential_is_met_where_it_meets_the_threshold():
    steps = np.array([10, 20, 30, 40, 60, 90, 200])
    percents = 50 * np.exp(-steps / 25)
    found = crossing(steps, percents)
    assert found["step"] == pytest.approx(25 * math.log(25), rel=1e-9)
    assert found["low"] == pytest.approx(found["step"], rel=1e-6)
    assert found["high"] == pytest.approx(found["step"], rel=1e-6)
    # 50 e^(-60 / 25) = 4.5 is the last above twice the threshold, what comes later is not used.
    assert (found["points"], found["until"]) == (5, 60)
    assert crossing(steps, np.where(steps > 60, 0.3, percents))["step"] == pytest.approx(found["step"])


def test_a_rising_percent_never_gets_there():
    found = crossing([10, 20, 30, 40], [10, 12, 13, 15])
    assert found["step"] == found["high"] == math.inf


def test_intervals_of_the_crossing_hold_in_repeats():
    steps, truth, rng, inside = np.arange(10, 70, 6), 25 * math.log(25), np.random.default_rng(0), 0
    for _ in range(400):
        percents = 50 * np.exp(-steps / 25 + 0.1 * rng.normal(size=len(steps)))
        # The points used depend on the noise: keep them the same.
        found = crossing(steps, np.maximum(percents, 4.01))
        inside += found["low"] <= truth <= found["high"]
    assert 0.92 < inside / 400 < 0.985


def test_a_power_law_says_how_many_steps_a_gain_is_worth():
    steps = np.array([100, 200, 300, 400, 800])
    found = steps_worth(steps, 3 * steps**-0.5, share=0.1)
    # L falls by a tenth where n grows by 0.9^-2.
    assert found["steps"] == pytest.approx(800 * (0.9**-2 - 1), rel=1e-9)
    assert found["alpha"] == pytest.approx(0.5)
    assert found["low"] <= found["steps"] <= found["high"]
    flat = steps_worth(steps, [1.0, 1.1, 0.9, 1.0, 1.05], share=0.1)
    assert flat["high"] == math.inf
    assert steps_worth(steps, 3 * steps**-0.5, share=0.0)["steps"] == 0
    # More steps than a float holds.
    assert steps_worth(steps, 3 * steps**-1e-5, share=0.1)["steps"] == math.inf


def test_twirling_is_cheaper_up_to_as_many_passes():
    # 10 steps of 8 samples, three passes each, against 11 more passes an answer.
    assert cheaper_below(10, 8, 12) == pytest.approx(240 / 11)


def test_too_little_is_said():
    with pytest.raises(InputError, match="only 2 measurements lie above 4 %"):
        crossing([10, 20, 30], [30, 10, 1])
    with pytest.raises(InputError, match="got 2: track more"):
        steps_worth([1, 500, 1000], [3.0, 2.0, 1.0], 0.1)
    with pytest.raises(InputError, match=r"in \[0, 1\), got 1"):
        steps_worth([250, 500, 1000], [3.0, 2.0, 1.0], 1)
    with pytest.raises(InputError, match="points at different places, got 3 at 1"):
        crossing([1.0, 1.0, 1.0], [10.0, 20.0, 30.0])
