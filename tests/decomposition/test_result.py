"""Results: what they print, what they store, what they refuse."""

import dataclasses
import json
import math

import pytest

import equiscope as eq
from equiscope.decomposition.result import _digits
from equiscope.records import plain

from .models import Tanh, random_batch

RESULT = eq.measure(
    Tanh(), [random_batch(20)], inputs={"pos": "1o"}, outputs={"forces": "1o"}, target="y", spectrum=True
)


def test_the_first_line_says_number_interval_skill_and_effort():
    line = str(RESULT).splitlines()[0]
    assert "% of the loss is equivariance error (95 % CI" in line
    assert "R² " in line
    assert "24 rotations x 20 samples" in line


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"interval_kind": "upper limit", "percent_interval": (0.0, 0.5)}, "95 % upper limit 0.50"),
        ({"interval_kind": "none"}, "no interval"),
        ({"percent": math.nan}, "percent needs labels"),
        ({"distinguishable": False}, "not distinguishable from numerical noise"),
        ({"loss": "l1"}, "skill"),
        ({"notes": ("beware",)}, "\n  note: beware"),
        ({"effective_clusters": 4.2, "clusters": 40}, "); carried by 4.2 of 40 clusters; R²"),
        ({"effective_clusters": 2.1, "clusters": 5}, "carried by 2.1 of 5 clusters (few clusters, not trustworthy)"),
        ({"drawn": "drawn at random from 900"}, "x 20 samples, drawn at random from 900"),
    ],
)
def test_special_cases_are_said(changes, words):
    assert words in str(dataclasses.replace(RESULT, **changes))


@pytest.mark.parametrize(
    ("value", "text"), [(0.3712, "0.37"), (12.34, "12"), (0.00456, "0.0046"), (1.2e-5, "1.2e-05"), (0.0, "0")]
)
def test_two_significant_digits(value, text):
    assert _digits(value) == text


@pytest.mark.parametrize("effective", [20.0, 90.0, None])
def test_many_clusters_are_not_counted_aloud(effective):
    assert "carried" not in str(dataclasses.replace(RESULT, effective_clusters=effective, clusters=100))
    assert "carried" not in str(dataclasses.replace(RESULT, interval_kind="none", effective_clusters=1.0))


def test_records_of_before_are_still_read():
    old = RESULT.to_dict()
    for name in ("effective_clusters", "drawn"):
        del old[name]
    read = eq.Result.from_dict(old)
    assert (read.effective_clusters, read.drawn, read.percent) == (None, "", RESULT.percent)
    assert str(read).startswith(str(RESULT).split(";")[0])


def test_null_is_nan_again():
    alone = eq.measure(Tanh(), [random_batch(1)], inputs={"pos": "1o"}, outputs={"forces": "1o"}, target="y")
    stored = json.loads(json.dumps(plain(alone.to_dict())))
    assert stored["percent_interval"] == [None, None]
    read = eq.Result.from_dict(stored)
    assert str(read) == str(alone)
    assert math.isnan(read.percent_error)
    assert "one cluster: no interval" in str(read)


def test_missing_fields_are_not_invented():
    data = RESULT.to_dict()
    del data["total"]
    with pytest.raises(TypeError):
        eq.Result.from_dict(data)
    with pytest.raises(TypeError):
        eq.Result.from_dict(RESULT.to_dict() | {"extra": 1})


def test_null_of_a_record_is_nan():
    one = dataclasses.replace(RESULT, percent_interval=(math.nan, math.nan), r2=math.nan, interval_kind="none")
    again = eq.Result.from_dict(json.loads(json.dumps(plain(one.to_dict()))))
    assert all(math.isnan(v) for v in (*again.percent_interval, again.r2))
    assert again.float64_change is None
    assert str(again) == str(one)


def test_per_sample_figures_stay_out_of_storage():
    assert "per_sample" not in RESULT.to_dict()
    assert len(RESULT.per_sample.ids) == 20
    assert float(RESULT.per_sample.equivariance.mean()) == pytest.approx(RESULT.equivariance, rel=1e-12)
