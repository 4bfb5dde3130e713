"""Doors to other libraries, one file each, imported only when they are used."""

from __future__ import annotations

import importlib
from typing import Any

_DOORS = ("ase", "lightning", "metatomic", "pyg", "torch_sim")


def __getattr__(name: str) -> Any:
    if name in _DOORS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; the doors are {', '.join(_DOORS)}")
