"""Records -> arrays: order, repeated steps, missing records, times."""

import numpy as np
import pytest

from equiscope.report.curves import history, seconds_at
from tests.report import synthetic


def test_curves_are_sorted_and_repeated_steps_count_once():
    records = [synthetic.measure(step, percent=percent, r2=0.5) for step, percent in ((10, 3.0), (0, 9.0), (10, 4.0))]
    curve = history(records).curves["forces"]
    assert curve.step.tolist() == [0, 10]
    assert curve.percent.tolist() == [9.0, 4.0]


def test_null_becomes_nan():
    record = synthetic.measure(1, percent=1.0, r2=0.5)
    record["result"] |= {"percent": None, "percent_interval": [None, None], "r2": None}
    curve = history([record]).curves["forces"]
    assert np.isnan([curve.percent[0], curve.low[0], curve.high[0], curve.r2[0]]).all()


def test_finished_run():
    told = history(synthetic.force_field_run())
    assert told.finished
    assert told.remarks == ()
    assert told.last_step == 2400 == told.planned_steps
    assert told.headline.probe == "forces"
    assert told.headline_record is told.headline_final
    assert told.headline_final.part == "final"
    assert told.times["track"] == 38.0
    assert np.all(np.diff(told.seconds) > 0)


def test_killed_run_says_so_and_uses_the_last_tracked_measurement():
    records = [r for r in synthetic.force_field_run() if r["kind"] not in ("end",) and r.get("part") != "final"][:20]
    told = history(records)
    assert not told.finished
    assert any("has not ended" in remark and "of 2,400 planned" in remark for remark in told.remarks)
    assert any("independent set has not been made" in remark for remark in told.remarks)
    assert told.headline_record.step == told.curves["forces"].step[-1]
    assert told.times["train"] > 0


def test_a_resume_after_the_end_is_unfinished():
    told = history([*synthetic.force_field_run(), {"kind": "resume", "step": 2400, "time": 0}])
    assert not told.finished
    assert told.resumes == 1


def test_no_records_at_all():
    told = history([])
    assert told.headline is None
    assert told.headline_record is None
    assert any("describes the run" in remark for remark in told.remarks)


def test_headline_probe_is_the_marked_one():
    told = history(synthetic.flow_run())
    assert list(told.curves)[:2] == ["pooled", "t=0"]
    assert told.headline.probe == "pooled"
    assert told.headline_final.probe == "pooled"
    reordered = [r for r in synthetic.flow_run() if r.get("probe") != "pooled"] + [
        r for r in synthetic.flow_run() if r.get("probe") == "pooled"
    ]
    assert history(reordered).headline.probe == "pooled"


def test_seconds_are_those_of_training():
    book = [{"kind": "train", "step": s, "seconds": t} for s, t in ((10, 1.0), (20, 3.0))]
    assert seconds_at(book, np.array([0, 5, 10, 15, 20])) == pytest.approx([0, 0.5, 1, 2, 3])
