"""Every figure is the one that was frozen, to 1e-12; a change of any is named with its old and its new value."""

import pytest

from tests.golden import models
from tests.golden.make import steady
from tests.golden.registry import PARTS, Case, differences, every_case, stored

CASES = every_case()


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.part}-{c.name}")
def test_figures_are_as_they_were(case):
    lines = differences(stored(case.part)[case.name], case.figures())
    assert not lines, f"{case.part}/{case.name}:\n" + "\n".join(lines)


def test_no_case_was_lost():
    assert {(part, name) for part in PARTS for name in stored(part)} == {(c.part, c.name) for c in CASES}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ({"a": 1.0}, {"a": 1.0 + 1e-11}, "a: was 1.0, is 1.00000000001, 1.0e-11 of the largest"),
        ({"a": [1.0, 1e-9]}, {"a": [1.0, 2e-9]}, "a: was 1e-09, is 2e-09 in 1 of 2 places, first at 1"),
        ({"a": 1.0}, {"a": float("nan")}, "a: was 1.0, is nan"),
        ({"a": float("inf")}, {"a": 1.0}, "a: was inf, is 1.0"),
        ({"a": "x"}, {"a": "y"}, "a: was 'x', is 'y'"),
        ({"a": True}, {"a": 1}, "a: was True, is 1"),
        ({"a": None}, {"a": 0.0}, "a: was None, is 0.0"),
        ({"a": [1.0, 2.0]}, {"a": [1.0]}, "a: 2 entries were [1.0, 2.0], 1 are 1.0"),
        ({"a": 1.0, "b": 2.0}, {"a": 1.0}, "b: gone, was 2.0"),
        ({"a": 1.0}, {"a": 1.0, "b": 2.0}, "b: new, 2.0"),
    ],
)
def test_a_change_is_seen_and_named(old, new, said):
    lines = differences(old, new)
    assert len(lines) == 1
    assert lines[0].startswith(said)


def test_roundings_pass():
    assert differences({"a": 1.0, "b": [1.0, 0.0]}, {"a": 1.0 + 4e-16, "b": [1.0, 9e-13]}) == []
    assert differences({"a": float("nan")}, {"a": float("nan")}) == []


def test_what_does_not_agree_with_itself_is_refused():
    def unsteady(size):
        value = float(models.numbers(1))
        return {"size": size, "cancelled": value - round(value, 5), "fine": value}

    figures, lines = steady(Case("here", "unsteady", unsteady, (1, 2)))
    assert figures["size"] == 1
    assert [line.split(" was")[0] for line in lines] == ["batches of 2: size:", *["one rounding: cancelled:"] * 2]
