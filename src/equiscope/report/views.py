"""Records read by name: a record's mapping as a frozen dataclass, whatever of it is there."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from equiscope.decomposition.result import Result
from equiscope.words import number, ranged

T = TypeVar("T")
Record = Mapping[str, Any]
NAN = math.nan
Interval = tuple[float, float]


def view(kind: type[T], record: Record | None) -> T:
    """A record, or a part of one, as the dataclass ``kind``, field by field and whatever it nests.

    A number that is absent or null is NaN (a count 0), or None where the field allows that; an absent mapping or list
    is empty; what the class does not name is left aside: records of other versions open as well.
    """
    told: dict[str, Any] = {}
    for name, (hint, default) in _fields(kind).items():  # type: ignore[arg-type]
        value = (record or {}).get(name)
        told[name] = default if value is None and default is not dataclasses.MISSING else _read(hint, value)
    return kind(**told)


@functools.cache
def _fields(kind: Any) -> dict[str, tuple[Any, Any]]:
    """name -> (type, default) of a dataclass's fields."""
    hints = typing.get_type_hints(kind)
    return {field.name: (hints[field.name], field.default) for field in dataclasses.fields(kind)}


def _read(hint: Any, value: Any) -> Any:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _read(next(part for part in inner if part is not type(None)), value)
    if dataclasses.is_dataclass(hint):
        return view(typing.cast(type, hint), value)
    if origin is dict:
        return {str(key): _read(inner[1], item) for key, item in (value or {}).items()}
    if origin is tuple and inner[-1] is not Ellipsis:
        return tuple(map(_read, inner, value or [None] * len(inner)))
    if origin is tuple:
        return tuple(_read(inner[0], item) for item in value or ())
    if hint is float:
        return number(value)
    return value if hint is Any else hint() if value is None else hint(value)


@dataclass(frozen=True)
class Figure:
    """A number with its 95 % interval, NaN where it is missing."""

    value: float
    interval: Interval

    @property
    def words(self) -> str:
        return ranged(self.value, self.interval)


NOTHING = Figure(NAN, (NAN, NAN))


@dataclass(frozen=True)
class Measurement:
    """A record of kind "measure"; skill: 1 − loss / loss of the task's baseline, NaN where there was none."""

    step: int
    part: str
    probe: str
    headline: bool
    result: Result
    skill: float


@dataclass(frozen=True)
class Reference:
    """The published curve that a run is drawn beside: (step, percent) points of each probe, rows of a table."""

    points: dict[str, Any]
    table: tuple[Any, ...]
    source: str
    label: str = "paper"


@dataclass(frozen=True)
class RunRecord:
    """The record that opens a run."""

    name: str
    task: str
    model: str
    parameters: int | None
    config: dict[str, Any]
    versions: dict[str, str]
    device: str | None
    hardware: str | None
    computing: dict[str, Any]
    threads: int | None
    processes: int | None
    time: Any
    reference: Reference

    @property
    def planned_steps(self) -> int | None:
        """The steps that the configuration asks for."""
        steps = (self.config.get("trainer") or {}).get("max_steps")
        return None if steps is None else int(steps)


@dataclass(frozen=True)
class Cost:
    """What a profile recorded of a model: seconds of each round of a training step and of an answer, and the rest."""

    step_seconds: tuple[float, ...]
    infer_seconds: tuple[float, ...]
    samples: int
    infer_samples: int
    flops: float
    parameters: int
    peak_mib: float

    @property
    def step(self) -> float:
        """Median seconds of a training step."""
        return float(np.median(self.step_seconds))


@dataclass(frozen=True)
class Profile:
    """A record of kind "profile": costs of each model, and the names of those without symmetry."""

    costs: dict[str, Cost]
    against: Any
    device: str
    threads: int
    load: tuple[float, ...]
