"""The symmetries that can be measured, by name: what ``symmetry=`` of :func:`equiscope.measure` takes.

    eq.measure(model, batches, …, symmetry="permutation")
    eq.measure(model, batches, …, symmetry=eq.symmetries.Translation(within=1000.0))
    eq.measure(model, batches, …, symmetry=("rotation", "parity"))      # and how much of the error each is
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from equiscope.decomposition.symmetries.crystals import PointGroup, SpaceGroup
from equiscope.decomposition.symmetries.lattices import Lattice, Supercell
from equiscope.decomposition.symmetries.moves import Family, Interpolation, Parity, Reflection, Rotation, Translation
from equiscope.decomposition.symmetries.relabelling import EdgeOrder, Permutation
from equiscope.errors import InputError
from equiscope.symmetry.rotations import rotation_set

__all__ = [
    "EdgeOrder",
    "Lattice",
    "Parity",
    "Permutation",
    "PointGroup",
    "Reflection",
    "Rotation",
    "SpaceGroup",
    "Supercell",
    "Translation",
    "families",
]

Symmetry = str | Family | Sequence[str | Family]

FAMILIES: dict[str, type[Family]] = {
    kind.name: kind
    for kind in (Translation, Parity, Reflection, Permutation, EdgeOrder, Lattice, Supercell, SpaceGroup, PointGroup)
}
# What turns by the set K of the call.
TURNING = {kind.name: kind for kind in (Rotation, Interpolation)}
NAMES = (*TURNING, *FAMILIES)
# The argument, a number, that a name may be given with: "translation=100".
_ARGUMENTS = {"translation": "within", "space group": "symprec", "point group": "symprec"}


def families(given: Any, rotations: str, group: str) -> tuple[Family, ...]:
    """The families that ``symmetry=`` means, innermost first; none for rotations alone, which have their own walk.

    ``rotations`` is the set K, and ``group`` the claim, of rotations among others.

    Raises:
        InputError: for an unknown name, a family twice, or none, and for a set K where nothing turns by it.
    """
    several = isinstance(given, Sequence) and not isinstance(given, str)
    listed = list(given) if several else [given]
    if not listed:
        raise InputError(f"symmetry=() names no symmetry: give one of {', '.join(NAMES)}, or a tuple of them")
    if listed == [Rotation.name]:
        return ()
    found = tuple(_family(one, rotations, group) for one in listed)
    twice = sorted({f.name for f in found if [g.name for g in found].count(f.name) > 1})
    if twice:
        raise InputError(f"symmetry names {', '.join(twice)} twice")
    if rotations not in ("T", group) and not any(f.name in TURNING for f in found):
        raise InputError(f"rotations={rotations!r} turns nothing of symmetry={given!r}: leave it out")
    return found


def _family(given: Any, rotations: str, group: str) -> Family:
    if isinstance(given, Family):
        return given
    if not isinstance(given, str):
        one = f", {given.__name__}(…)" if isinstance(given, type) else ""
        raise InputError(f"a symmetry is a name, such as 'translation', or made by eq.symmetries{one}, got {given!r}")
    name, equals, value = given.replace("_", " ").partition("=")
    if name in TURNING and not equals:
        return TURNING[name](rotation_set(rotations, group), group)
    if "," in given:
        raise InputError(f"symmetry {given!r}: several are a tuple, symmetry={tuple(map(str.strip, given.split(',')))}")
    if name not in FAMILIES:
        near = difflib.get_close_matches(name, NAMES, 1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"there is no symmetry {name!r}: {meant}they are {', '.join(NAMES)}")
    if not equals:
        return FAMILIES[name]()
    if name not in _ARGUMENTS:
        raise InputError(f"symmetry {name!r} takes no value, got {given!r}")
    try:
        number = float(value)
    except ValueError:
        raise InputError(f"symmetry {given!r}: {value!r} is no number, such as in {name + '=10'!r}") from None
    return FAMILIES[name](**{_ARGUMENTS[name]: number})
