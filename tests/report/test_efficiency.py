"""Which model is there first: ratios as intervals, verdicts only where they part."""

import numpy as np
import pytest

from equiscope.report import chart, efficiency
from equiscope.report.curves import history
from equiscope.report.views import view
from tests.report import synthetic

STEPS = [0, 10, 20, 50, 100, 200, 500, 1000]


def _curve(skill):
    measured = [synthetic.measure(s, percent=1.0, r2=r) for s, r in zip(STEPS, skill, strict=True)]
    return history([synthetic.run_record(), *measured]).headline


SLOW = _curve([0, 0, 0, 0.1, 0.3, 0.6, 0.85, 0.96])
WORSE = _curve([0, 0, 0, 0, 0, 0, 0.1, 0.2])
FAST = _curve([0, 0.1, 0.6, 0.85, 0.92, 0.96, 0.97, 0.98])


def _cost(seconds, spread=0.0):
    rounds = seconds * (1 + spread * np.linspace(-1, 1, 11))
    told = {"step_seconds": rounds.tolist(), "infer_seconds": [seconds / 3] * 11, "samples": 32, "infer_samples": 64,
            "flops": 2e9, "parameters": 1000, "peak_mib": 12.0}  # fmt: skip
    return view(efficiency.Cost, told)


def _contenders(curves, costs):
    """Curves in lists are those of seeds 0, 1, …"""
    return efficiency.contenders({point: dict(enumerate(seeds)) for point, seeds in curves.items()}, costs)


def _found(cost_of_fast, spread=0.0):
    # Three seeds each, the best rate inside of three.
    curves = {f"{name} @ {rate}": [curve if rate == "1e-3" else WORSE] * 3
              for name, curve in (("free", SLOW), ("eq", FAST)) for rate in ("1e-4", "1e-3", "1e-2")}  # fmt: skip
    return _contenders(curves, {"free": _cost(1.0), "eq": _cost(cost_of_fast, spread)})


def test_the_best_learning_rate_of_each_model_is_taken():
    curves = {"free @ 1e-3": [SLOW], "free @ 1e-2": [FAST], "eq @ 1": [SLOW], "unknown @ 1": [FAST]}
    found = _contenders(curves, {"free": _cost(1.0), "eq": _cost(1.0)})
    assert [(one.name, one.rate) for one in found] == [("free", "1e-2"), ("eq", "1")]


def test_steps_are_given_as_the_measured_steps_around_them():
    assert efficiency.reached(SLOW, 0.5) == (100, 200)
    assert efficiency.reached(SLOW, 0.99) is None
    assert efficiency.reached(FAST, -1.0) == (0, 0)


@pytest.mark.parametrize(
    ("cost", "verdict"), [(2.0, "eq is there first"), (30.0, "free is there first"), (10.0, "cannot be told apart")]
)
def test_verdict_at_one_level(cost, verdict):
    # R² 0.5: free within (100, 200], eq within (10, 20], so the ratio of steps is between 5 and 20.
    row = next(r for r in efficiency.break_even(_found(cost), ["free"]) if r[2] == "0.5")
    assert row[3:6] == ("10–20", "100–200", "5.00–20.00")
    assert row[7] == verdict


def test_ratio_of_times_is_paired_and_has_a_spread():
    eq, free = (next(o for o in _found(2.0, spread=0.1) if o.name == n) for n in ("eq", "free"))
    middle, low, high = efficiency.ratio_of_times(eq, free)
    assert middle == pytest.approx(2.0)
    assert low == pytest.approx(1.84)
    assert high == pytest.approx(2.16)


def test_a_level_that_was_not_reached_is_said():
    never = _curve([0, 0, 0, 0, 0, 0, 0.1, 0.2])
    found = _contenders({"free @ 1": [SLOW], "eq @ 1": [never]}, {"free": _cost(1.0), "eq": _cost(1.0)})
    assert all(row[7] == "eq never got there" for row in efficiency.break_even(found, ["free"]))
    assert efficiency.break_even(found, ["another"]) == []


def test_costs_and_picture(tmp_path):
    found = _found(0.5)
    row = dict(zip(efficiency.COST_COLUMNS, efficiency.cost_rows(found)[1], strict=True))
    assert row["ms a step"] == "500"
    assert row["samples/s trained"] == "64"
    assert row["samples/s inferred"] == "384"
    assert row["GFLOP a step"] == "2.00"
    drawn = chart.save({"a": efficiency.chart(found)}, tmp_path)["a"]
    assert drawn.read_bytes()[:4] == b"\x89PNG"


def test_one_seed_or_an_edge_of_the_grid_decide_nothing():
    rates = {"free @ 1e-3": [SLOW] * 3, "free @ 3e-3": [FAST] * 3, "free @ 1e-2": [SLOW] * 3}
    inside, at_edge, single = (
        _contenders(curves, {"free": _cost(1.0)})[0]
        for curves in (rates, {**rates, "free @ 3e-2": [FAST] * 3, "free @ 3e-3": [SLOW] * 3}, {"free @ 3e-3": [FAST]})
    )
    assert (inside.rate, inside.caution) == ("3e-3", "")
    assert (at_edge.rate, at_edge.caution) == ("3e-2", "at the edge of the learning rates")
    assert single.caution == "1 seed, at the edge of the learning rates"
    assert "3e-2 (at the edge of the learning rates)" in efficiency.cost_rows([at_edge])[0]
    one = _contenders({"free @ 1": [SLOW], "eq @ 1": [FAST]}, {"free": _cost(1.0), "eq": _cost(2.0)})
    row = next(r for r in efficiency.break_even(one, ["free"]) if r[2] == "0.5")
    assert row[7] == "open: eq is there first by these runs"


def test_the_best_rate_is_that_of_the_mean_over_seeds():
    curves = {"free @ 1e-3": [FAST, WORSE], "free @ 1e-2": [SLOW, SLOW]}
    assert _contenders(curves, {"free": _cost(1.0)})[0].rate == "1e-2"


def test_rates_are_compared_over_the_seeds_that_all_of_them_have():
    by_rate = {"1e-3": {0: 2.0, 1: 0.5, 2: 0.5}, "1e-2": {0: 1.0}}
    assert efficiency.best_rate(by_rate) == "1e-2"
    assert efficiency.best_rate({"1e-3": {0: 2.0}, "1e-2": {1: 1.0, 2: 2.5}}) == "1e-2"


def test_a_rate_whose_loss_is_not_finite_is_not_the_best():
    nan, inf = float("nan"), float("inf")
    for by_rate in (
        {"bad": {0: nan, 1: 0.1}, "good": {0: 2.0, 1: 2.0}},
        {"bad": {0: nan}, "good": {1: 2.0}},
        {"bad": {0: inf}, "good": {0: 2.0}, "worse": {0: nan}},
    ):
        assert efficiency.best_rate(by_rate) == "good"
    # Nothing to choose among: the first.
    assert efficiency.best_rate({"1e-3": {0: nan}, "1e-2": {0: nan}}) == "1e-3"
