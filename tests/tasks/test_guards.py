"""Refusals: what passes, what does not, and that the message names setting, value and choices."""

import math
from dataclasses import dataclass

import pytest

from equiscope.errors import InputError
from equiscope.tasks.guards import at_least, chosen, heads_fit, one_of, share


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
