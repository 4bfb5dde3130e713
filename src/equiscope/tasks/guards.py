"""Refusals of impossible settings, in one form of words: an InputError that names the setting and its value.

Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from equiscope.errors import InputError


def at_least(least: float, section: str = "", **values: float | None) -> None:
    """Refuse values below ``least``, and NaN; None passes. Names are given as ``section`` and keyword."""
    for name, value in values.items():
        if value is not None and not value >= least:
            raise InputError(f"{section}{name} must be at least {least}, got {value!r}")


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
    """The given values that are fields of ``kind``, a dataclass of settings, and not None.

    Keys that are neither fields nor among ``others``, which belong elsewhere, are refused; with None for ``others``
    none is. ``section`` and ``task`` are named in the message.
    """
    known = {found.name for found in fields(kind)}
    if others is not None and (unknown := sorted(set(given) - known - {*others})):
        told = f"{unknown} for task {task!r}" if task else f"{unknown}"
        raise InputError(f"unknown {section} settings {told}; the known ones are {sorted({*known, *others})}")
    return {name: value for name, value in given.items() if name in known and value is not None}
