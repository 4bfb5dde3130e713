"""Refusals: what passes, what does not, and that the message names setting, value and choices."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from equiscope.errors import InputError
from equiscope.tasks.guards import at_least, chosen, heads_fit, one_of, positive, share, typed


@dataclass(frozen=True)
class Widths:
    width: int = 4
    steps: tuple[int, ...] = (1, 2)


def test_least_values():
    at_least(2, "data.", frames=2, workers=None, rate=2.5)
    for value in (1, -3, math.nan):
        with pytest.raises(InputError, match=rf"^data\.frames must be at least 2, got {value}$"):
            at_least(2, "data.", workers=None, frames=value)


def test_choices():
    one_of(("euler", "heun"), method="heun")
    with pytest.raises(InputError, match=r"^track\.method must be one of euler, heun, got 'rk4'$"):
        one_of(("euler", "heun"), "track.", method="rk4")


def test_shares():
    share(augment=0, part=1.0)
    for value in (-0.1, 1.5, math.nan):
        with pytest.raises(InputError, match=rf"^augment must be a share between 0 and 1, got {value}$"):
            share(part=0.5, augment=value)


def test_positive_numbers():
    positive(cutoff=1e-9, width=3)
    for value in (0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match=rf"^grid\.radius must be positive and finite, got {value}$"):
            positive("grid.", radius=value)


def test_heads():
    heads_fit(12, 4)
    with pytest.raises(InputError, match="width 14 is not a multiple of heads 4"):
        heads_fit(14, 4)
    with pytest.raises(InputError, match="heads must be at least 1, got 0"):
        heads_fit(12, 0)


def test_keys_of_a_section_are_known_or_named():
    given = {"width": 3, "steps": None, "workers": 2}
    assert chosen(Widths, "data", given) == chosen(Widths, "data", given, others=("workers",)) == {"width": 3}
    with pytest.raises(InputError, match=r"unknown data settings \['workers'\]; the known ones are .*'cores'.*'width'"):
        chosen(Widths, "data", given, others=("cores",))


@dataclass(frozen=True)
class Everything:
    count: int
    share: float | None = None
    crop: bool = False
    name: str | None = None
    sizes: tuple[int, ...] = ()
    path: str | Path = ""
    inner: Any = None


def test_values_are_of_the_kind_of_their_fields():
    given = {"count": "3", "share": 1, "crop": True, "name": 7, "sizes": [1, 2.0], "path": Path("a"), "inner": [1]}
    made = typed(Everything, given)
    assert made == given | {"count": 3, "share": 1.0, "name": "7", "sizes": (1, 2)}
    assert [type(made[name]) for name in ("count", "share", "name")] == [int, float, str]
    assert [type(size) for size in made["sizes"]] == [int, int]
    assert typed(Everything, {"share": None, "name": None}) == {"share": None, "name": None}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": 2.5}, "data.count must be a whole number, got 2.5"),
        ({"count": True}, "data.count must be a whole number, got True"),
        ({"count": None}, "data.count must be a whole number, got None"),
        ({"count": "many"}, "data.count must be a whole number, got 'many'"),
        ({"count": math.inf}, "data.count must be a whole number, got inf"),
        ({"share": "half"}, "data.share must be a number, got 'half'"),
        ({"crop": "yes"}, "data.crop must be true or false, got 'yes'"),
        ({"crop": 1}, "data.crop must be true or false, got 1"),
        ({"sizes": "12"}, "data.sizes must be a list, got '12'"),
        ({"sizes": [1, 2.5]}, "every one of data.sizes must be a whole number, got 2.5"),
    ],
)
def test_values_of_another_kind_are_named(given, message):
    with pytest.raises(InputError) as caught:
        typed(Everything, given, "data.{}")
    assert str(caught.value) == message
