"""Symmetries by name: each is found, with its value, and names that are none are refused with the nearest."""

import pytest

import equiscope as eq
from equiscope.decomposition.symmetries import FAMILIES, families
from equiscope.errors import InputError


@pytest.mark.parametrize("name", [*FAMILIES, "space_group"])
def test_every_name(name):
    (found,) = families(name, "T", "SO3")
    assert found.name == name.replace("_", " ")
    assert found == FAMILIES[found.name]()


def test_values_and_several():
    assert families("translation=2.5", "T", "SO3") == (eq.symmetries.Translation(2.5),)
    assert families("space_group=0.01", "T", "SO3")[0].symprec == 0.01
    both = families(["rotation", eq.symmetries.Parity()], "O", "SO3")
    assert [f.name for f in both] == ["rotation", "parity"]
    assert len(both[0].chosen) == 24
    assert families("rotation", "T", "SO3") == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("translations", "there is no symmetry 'translations': did you mean 'translation'"),
        ("scale", "there is no symmetry 'scale': they are rotation, interpolation, translation"),
        (3, "a symmetry is a name, such as 'translation', or made by eq.symmetries, got 3"),
        ((), r"symmetry=\(\) names no symmetry"),
        (("parity", "parity"), "names parity twice"),
        ("parity=2", "takes no value"),
        ("translation=far", "'far' is no number"),
        ("translation=0", "range above zero"),
    ],
)
def test_names_that_are_none(given, message):
    with pytest.raises(InputError, match=message):
        families(given, "T", "SO3")
