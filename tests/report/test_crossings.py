"""Crossings of a tracked percent: first, last above, sustained, skilled, dip."""

import pytest

from equiscope.errors import InputError
from equiscope.report.crossings import crossings
from equiscope.report.curves import Curve, history
from tests.report import synthetic


def curve(rows: list[tuple[float | None, float | None, float | None]]) -> Curve:
    """A curve at steps 0, 10, 20, ... from rows (percent, upper limit, R²)."""
    records = []
    for place, (percent, high, r2) in enumerate(rows):
        record = synthetic.measure(10 * place, percent=1.0, r2=0.5)
        record["result"] |= {"percent": percent, "percent_interval": [0.0, high], "r2": r2}
        records.append(record)
    return history(records).curves["forces"]


def test_collapse_is_not_the_headline():
    """The zero predictor crosses at step 10; the model that can do something only at step 50."""
    found = crossings(curve([
        (30, 33, -0.5), (0.02, 0.03, 0.0), (0.1, 0.2, 0.01), (3, 3.5, 0.3), (1.5, 1.8, 0.4), (1, 1.2, 0.6),
        (0.5, 0.6, 0.9),
    ]))  # fmt: skip
    assert (found.first.step, found.first.r2, found.first.before) == (10, 0.0, 0)
    assert found.collapse
    assert found.last_above.step == 30
    assert found.sustained.step == 40
    assert found.sustained.unskilled
    assert (found.skilled.step, found.skilled.measurements) == (50, 2)
    assert (found.dip.step, found.dip.percent) == (10, 0.02)
    assert found.skilled_dip.step == 60
    assert (found.later_peak.step, found.later_peak.percent) == (30, 3)
    assert (found.start.step, found.end.step) == (0, 60)


def test_sustained_needs_the_upper_limit_below():
    """Estimates of 1.5 % with an upper limit of 2.5 % are a first crossing, never a sustained one."""
    found = crossings(curve([(5, 6, 0.6), (1.5, 2.5, 0.7), (1.5, 2.5, 0.8)]))
    assert found.first.step == 10
    assert found.sustained is None
    assert found.skilled is None


def test_a_later_rise_or_loss_of_skill_ends_a_crossing():
    rising = crossings(curve([(1, 1.1, 0.9), (1, 1.1, 0.9), (3, 3.3, 0.9)]))
    assert rising.first.step == 0
    assert rising.sustained is None
    forgetting = crossings(curve([(1, 1.1, 0.9), (1, 1.1, 0.9), (0.1, 0.2, 0.0)]))
    assert forgetting.sustained.step == 0
    assert forgetting.skilled is None


def test_threshold_itself_is_first_but_not_sustained():
    found = crossings(curve([(2.0, 2.0, 0.9)]))
    assert found.first.step == 0
    assert found.last_above is None
    assert found.sustained is None


def test_unknown_values_never_count_as_crossing():
    found = crossings(curve([(None, None, None), (1, None, 0.9), (1, 1.1, None)]))
    assert (found.start.step, found.first.step) == (10, 10)
    assert found.sustained.step == 20
    assert found.skilled is None
    nothing = crossings(curve([(None, None, None)]))
    assert nothing.start is nothing.end is nothing.dip is nothing.first is None


def test_negative_and_zero_estimates_are_below():
    found = crossings(curve([(5, 6, 0.0), (-0.01, 0.1, 0.0), (0.0, 0.1, 0.0)]))
    assert found.first.step == 10
    assert found.dip.percent == -0.01


@pytest.mark.parametrize("threshold", [0.0, -1.0, 100.0, float("nan")])
def test_threshold_must_be_a_percentage(threshold):
    with pytest.raises(InputError, match="percentage between 0 and 100"):
        crossings(curve([(1, 1, 1)]), threshold=threshold)
