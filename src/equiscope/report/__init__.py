"""Figures and one HTML page of a run, from its records alone; several runs on the same axes or against the paper.

Imported when they are asked for: tables for a terminal need none of the packages that make pages.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from equiscope.report.claims_page import build_paper
    from equiscope.report.figures import beside
    from equiscope.report.page import build

__all__ = ["beside", "build", "build_paper"]
_PLACES = {"beside": "figures", "build": "page", "build_paper": "claims_page"}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
