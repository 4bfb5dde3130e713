"""Records read by name: old and new ones, whatever of them is there."""

import math
from dataclasses import dataclass

from equiscope.decomposition.result import Result
from equiscope.report.views import Figure, RunRecord, view
from tests.report import synthetic


@dataclass(frozen=True)
class Inner:
    number: float
    words: tuple[str, ...]


@dataclass(frozen=True)
class Outer:
    count: int
    maybe: int | None
    inner: Inner
    missing: Inner | None
    by_name: dict[str, dict[str, Figure]]
    default: str = "own"


def test_a_record_nests():
    record = {"count": 3, "maybe": 2, "inner": {"number": 1, "words": ["a", 2]}, "missing": {"number": None},
              "by_name": {"x": {"y": {"value": 1, "interval": [None, 2]}}}, "unknown": 9}  # fmt: skip
    made = view(Outer, record)
    assert (made.count, made.maybe, made.inner) == (3, 2, Inner(1.0, ("a", "2")))
    assert math.isnan(made.missing.number)
    assert math.isnan(made.by_name["x"]["y"].interval[0])
    assert made.by_name["x"]["y"].interval[1] == 2


def test_what_is_absent_is_empty():
    for record in (None, {}, {"count": None, "default": None}):
        made = view(Outer, record)
        assert (made.count, made.maybe, made.missing, made.by_name, made.default) == (0, None, None, {}, "own")
        assert math.isnan(made.inner.number)
        assert made.inner.words == ()


def test_a_result_of_this_version_and_one_with_fields_of_another():
    result = synthetic.result(0.4, 0.9)
    made = view(Result, result | {"effective_clusters": 12.5})
    assert (made.percent, *made.percent_interval) == (0.4, *result["percent_interval"])
    assert made.rotated == {"pos": "1o"}
    old = view(Result, {"percent": 1.0})
    assert math.isnan(old.percent_interval[1])
    assert (old.interval_kind, old.samples, old.notes) == ("", 0, ())


def test_planned_steps():
    assert view(RunRecord, synthetic.run_record()).planned_steps == 2400
    assert view(RunRecord, {}).planned_steps is None
