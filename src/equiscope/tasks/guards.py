"""Refusals of impossible settings, in one form of words: an InputError that names the setting and its value.

Nothing here needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from equiscope.errors import InputError

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def at_least(least: float, section: str = "", **values: float | None) -> None:
    """Refuse values below ``least``, and NaN; None passes. Names are given as ``section`` and keyword."""
    for name, value in values.items():
        if value is not None and not value >= least:
            raise InputError(f"{section}{name} must be at least {least}, got {value!r}")


def positive(section: str = "", **values: float) -> None:
    """Refuse values that are not positive and finite."""
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise InputError(f"{section}{name} must be positive and finite, got {value!r}")


def one_of(choices: Iterable[str], section: str = "", **values: str) -> None:
    """Refuse values that are none of the choices."""
    for name, value in values.items():
        if value not in choices:
            raise InputError(f"{section}{name} must be one of {', '.join(choices)}, got {value!r}")


def share(section: str = "", **values: float) -> None:
    """Refuse values that are no share of a whole."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise InputError(f"{section}{name} must be a share between 0 and 1, got {value!r}")


def heads_fit(width: int, heads: int) -> None:
    """Refuse a network's width that its attention heads, one or more, do not divide."""
    at_least(1, heads=heads)
    if width % heads:
        raise InputError(f"width {width} is not a multiple of heads {heads}: change one of them")


def chosen(
    kind: Any, section: str, given: Mapping[str, Any], task: str = "", others: Iterable[str] | None = None
) -> dict[str, Any]:
    """The given values that are fields of ``kind``, a dataclass of settings, and not None, see :func:`typed`.

    Keys that are neither fields nor among ``others``, which belong elsewhere, are refused; with None for ``others``
    none is. ``section`` and ``task`` are named in the message.
    """
    known = {found.name for found in fields(kind)}
    if others is not None and (unknown := sorted(set(given) - known - {*others})):
        told = f"{unknown} for task {task!r}" if task else f"{unknown}"
        raise InputError(f"unknown {section} settings {told}; the known ones are {sorted({*known, *others})}")
    own = {name: value for name, value in given.items() if name in known and value is not None}
    return typed(kind, own, f"{section}.{{}}")


def typed(kind: Any, given: Mapping[str, Any], called: str = "{}") -> dict[str, Any]:
    """The given values as the fields of ``kind``, a dataclass of settings, are annotated: 3 for ``"3"`` or 3.0.

    A list becomes a tuple; fields of other kinds than numbers, text and tuples of them are left as they are. What is of
    another kind, or no whole number where one must stand, is an InputError; ``called`` is what it calls a setting.
    """
    hints = get_type_hints(kind)
    return {name: _as(hints[name], value, called.format(name)) for name, value in given.items()}


def _as(hint: Any, value: Any, name: str) -> Any:
    if get_origin(hint) is UnionType:
        kinds = [kind for kind in get_args(hint) if kind is not NoneType]
        return value if value is None or len(kinds) > 1 else _as(kinds[0], value, name)
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise InputError(f"{name} must be a list, got {value!r}")
        return tuple(_as(get_args(hint)[0], one, f"every one of {name}") for one in value)
    if hint not in _KINDS:
        return value
    made = None
    with suppress(TypeError, ValueError, OverflowError):
        made = hint(value)
    whole = isinstance(value, str) or (made == value and not isinstance(value, bool))
    if made is None or (hint is int and not whole) or (hint is bool and made is not value):
        raise InputError(f"{name} must be {_KINDS[hint]}, got {value!r}")
    return made
