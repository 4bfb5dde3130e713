"""Golden results: named cases, how their figures are stored, and how an old and a new one are compared.

A case is a function from a batch size to a dict of entries: text, flags, whole numbers, single figures or lists of
them. A list is one vector: its entries are compared on the scale of the largest, so that what is small by cancellation
stands beside what it came from. To add a case, decorate a function in one of the modules ``PARTS`` with :func:`case`.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

PARTS = ("measuring", "designs", "analysing", "doors")
FOLDER = Path(__file__).resolve().parent / "numbers"
TOLERANCE = 1e-12
Entry = Any
Figures = dict[str, Entry]


@dataclass(frozen=True)
class Case:
    """One case: its part (module) and name, and the batch sizes that must give the same figures."""

    part: str
    name: str
    make: Callable[[int], Mapping[str, Any]]
    sizes: tuple[int, ...]

    def figures(self, size: int | None = None) -> Figures:
        """The entries as they are stored."""
        return {k: plain(v) for k, v in self.make(self.sizes[0] if size is None else size).items()}


CASES: list[Case] = []


def case(*sizes: int, name: str = "") -> Callable[[Callable[[int], Mapping[str, Any]]], Any]:
    """Register a function ``case(batch size) -> entries`` under its own name, run with the first of ``sizes``."""

    def register(make: Callable[[int], Mapping[str, Any]]) -> Callable[[int], Mapping[str, Any]]:
        add(make, name or make.__name__, sizes)
        return make

    return register


def add(make: Callable[[int], Mapping[str, Any]], name: str, sizes: Iterable[int]) -> None:
    """Register one of a family of cases."""
    part = make.__module__.rsplit(".", 1)[-1]
    if any(c.part == part and c.name == name for c in CASES):
        raise ValueError(f"two golden cases are called {name!r} in {part}")
    CASES.append(Case(part, name, make, tuple(sizes) or (4,)))


def every_case(parts: Iterable[str] = PARTS) -> list[Case]:
    """The cases of some parts, in their order."""
    chosen = tuple(parts)
    for part in chosen:
        importlib.import_module(f"tests.golden.{part}")
    return [c for part in chosen for c in CASES if c.part == part]


def plain(value: Any) -> Entry:
    """An entry as JSON holds it: tensors and arrays flat."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().double().flatten().tolist() if value.ndim else value.item()
    elif hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        parts = [plain(v) for v in value]
        return [e for part in parts for e in (part if isinstance(part, list) else [part])]
    if isinstance(value, str | bool | int | float) or value is None:
        return value
    raise TypeError(f"a golden entry must be text, a flag, a number or a list of them, got {type(value).__name__}")


def differs(old: Entry, new: Entry, tolerance: float = TOLERANCE) -> str:
    """What is different between two entries, in words; empty if nothing."""
    rows_old, rows_new = (v if isinstance(v, list) else [v] for v in (old, new))
    if len(rows_old) != len(rows_new):
        return f"{len(rows_old)} entries were {_shown(rows_old)}, {len(rows_new)} are {_shown(rows_new)}"
    scale = max((abs(v) for v in rows_old if _figure(v) and math.isfinite(v)), default=0.0)
    pairs = list(zip(rows_old, rows_new, strict=True))
    apart = [i for i, (a, b) in enumerate(pairs) if not _same(a, b, tolerance * scale)]
    if not apart:
        return ""
    where = f" in {len(apart)} of {len(pairs)} places, first at {apart[0]}" if isinstance(old, list) else ""
    a, b = pairs[apart[0]]
    size = f", {abs(a - b) / scale:.1e} of the largest" if _figure(a) and _figure(b) and scale else ""
    return f"was {a!r}, is {b!r}{where}{size}"


def differences(old: Mapping[str, Entry], new: Mapping[str, Entry], tolerance: float = TOLERANCE) -> list[str]:
    """One line for every entry that is gone, new or different."""
    lines = [f"{name}: gone, was {_shown([old[name]])}" for name in old if name not in new]
    lines += [f"{name}: new, {_shown([new[name]])}" for name in new if name not in old]
    changed = {name: differs(old[name], new[name], tolerance) for name in old if name in new}
    return lines + [f"{name}: {what}" for name, what in changed.items() if what]


def _figure(value: Any) -> bool:
    return isinstance(value, float)


def _same(old: Any, new: Any, most: float) -> bool:
    if not (_figure(old) and _figure(new)):
        return type(old) is type(new) and old == new
    if math.isfinite(old) and math.isfinite(new):
        return abs(old - new) <= most
    return repr(old) == repr(new)


def _shown(values: list[Any]) -> str:
    text = repr(values[0] if len(values) == 1 else values)
    return text if len(text) < 90 else f"{text[:87]}…"


def path(part: str) -> Path:
    """The committed file of a part."""
    return FOLDER / f"{part}.json"


def stored(part: str) -> dict[str, Figures]:
    """The committed figures of a part, by case."""
    return json.loads(path(part).read_text())


def written(figures: Mapping[str, Figures]) -> str:
    """The text of a part's file: one line an entry, so that a difference is read line by line."""
    cases = []
    for name, entries in figures.items():
        rows = [f"  {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in entries.items()]
        cases.append(f" {json.dumps(name)}: {{\n" + ",\n".join(rows) + "\n }")
    return "{\n" + ",\n".join(cases) + "\n}\n"
