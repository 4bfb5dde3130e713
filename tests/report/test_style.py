"""Where points lie on the log axes: step 0, zero and negative percents, ticks."""

import numpy as np

from equiscope.report import style
from equiscope.report.crossings import SKILL, crossings
from equiscope.report.curves import history
from tests.report import synthetic


def curve_of(percents, r2=0.5):
    records = []
    for step, percent in enumerate(percents):
        record = synthetic.measure(step, percent=1.0, r2=r2)
        record["result"] |= {"percent": percent, "percent_interval": [0.0, 0.5], "interval_kind": "upper limit"}
        records.append(record)
    return history(records).curves["forces"]


def test_zero_and_negative_estimates_are_drawn_at_the_floor():
    curve = curve_of([10.0, 0.3, 0.0, -0.2])
    floor, top = style.percent_ends([curve], np.array([]))
    drawn = style.clipped(curve, floor)
    assert (floor, top) == (0.1, 14.0)
    assert drawn.percent.tolist() == [10.0, 0.3, floor, floor]
    assert (drawn.low >= floor).all()
    assert np.isfinite(np.log10(drawn.percent)).all()
    assert style.percent_ends([curve], np.array([1e-3, 30.0])) == (1e-4, 42.0)


def test_unknown_percent_is_a_gap_not_a_floor_point():
    curve = curve_of([10.0, None])
    assert (curve.percent <= 0.1).tolist() == [False, False]
    assert np.isnan(style.clipped(curve, 0.1).percent[1])


def test_step_zero_has_a_place_left_of_the_first_step():
    axis = style.step_axis([0, 5, 1000])
    places = axis.place([0, 5, 1000])
    assert 0 < axis.low < places[0] < places[1] == 5
    assert axis.labels[0] == "0"
    assert axis.ticks[0] == places[0]
    assert np.isnan(style.step_axis([1, 10]).zero)


def test_crossings_at_one_step_have_a_label_each():
    found = crossings(history(synthetic.force_field_run()).curves["forces"])
    labels = [text for text, *_ in style.marked(found)]
    assert len(labels) == len(set(labels)) == 4
    assert labels[0] == "first ≤ 2 %: step 60 (R² 0.00)"


def test_span_before_skill():
    curve = history(synthetic.force_field_run()).curves["forces"]
    start, end = style.collapse_span(curve, SKILL)
    assert start == 0
    assert end == curve.step[curve.r2 >= SKILL][0]
    assert style.collapse_span(curve_of([1.0, 1.0], r2=0.9), SKILL) is None


def test_ticks_of_few_steps_do_not_stand_in_one_another():
    assert style.step_axis([0, 900, 2400]).labels == ["0", "900", "2.4k"]
    assert style.step_axis([300, 3000]).labels == ["300", "1k", "3k"]
