"""The formats of data sets by name, and the reader each name stands for."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from equiscope.errors import InputError
from equiscope.tasks.datasets.ani import Ani1x, Ani2x
from equiscope.tasks.datasets.ase_databases import AseDatabase
from equiscope.tasks.datasets.blocks import Source
from equiscope.tasks.datasets.extxyz import ExtXyz
from equiscope.tasks.datasets.geom import GeomCrude, GeomFolder, Midi
from equiscope.tasks.datasets.md17 import Md17
from equiscope.tasks.datasets.mptrj import MpTrj
from equiscope.tasks.datasets.qm9 import Qm9
from equiscope.tasks.datasets.spice import Spice

FORMATS: dict[str, Any] = {
    "spice": Spice,
    "md17": Md17,
    "rmd17": Md17,
    "ani1x": Ani1x,
    "ani2x": Ani2x,
    "qm9": Qm9,
    "extxyz": ExtXyz,
    "ase": AseDatabase,
    "mptrj": MpTrj,
    "geom_crude": GeomCrude,
    "geom": GeomFolder,
    "midi": Midi,
}
"""Name → reader; its fields are the settings of the format."""


def settings(name: str) -> tuple[str, ...]:
    """The settings of a format besides the path.

    Raises:
        InputError: there is no such format.
    """
    if name not in FORMATS:
        near = difflib.get_close_matches(str(name), FORMATS, n=1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"there is no format {name!r}: the formats are {', '.join(FORMATS)}{meant}")
    return tuple(f.name for f in fields(FORMATS[name]) if f.name != "path")


def source(name: str, path: str, options: Mapping[str, Any] | None = None) -> Source:
    """The reader of a file.

    Raises:
        InputError: an unknown format or setting, or one that is missing.
    """
    known = settings(name)
    options = {key: value for key, value in (options or {}).items() if value is not None}
    if unknown := sorted(set(options) - set(known)):
        raise InputError(f"the format {name} has no setting {unknown}: it has {', '.join(known) or 'none'}")
    made: Source = FORMATS[name](path, **options)
    return made
