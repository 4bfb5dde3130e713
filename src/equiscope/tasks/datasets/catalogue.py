"""The formats of data sets by name, and the reader each name stands for; one is imported when it is asked for."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from equiscope.errors import InputError
from equiscope.tasks.guards import typed
from equiscope.words import nearest

if TYPE_CHECKING:
    from equiscope.tasks.datasets.blocks import Block
    from equiscope.tasks.datasets.reading import Reader
    from equiscope.tasks.datasets.stream import Rules, Sample

FORMATS: dict[str, str] = {
    "spice": "hdf5:Spice",
    "md17": "md17:Md17",
    "rmd17": "md17:Md17",
    "ani1x": "hdf5:Ani1x",
    "ani2x": "hdf5:Ani2x",
    "qm9": "qm9:Qm9",
    "extxyz": "extxyz:ExtXyz",
    "ase": "ase_databases:AseDatabase",
    "mptrj": "mptrj:MpTrj",
    "geom_crude": "geom:GeomCrude",
    "geom": "geom:GeomFolder",
    "midi": "geom:Midi",
    "made": "store:Made",
    "smiles": "chemistry:Smiles",
    "structures": "structures:Structures",
}
"""Name → module and class of the reader, whose fields are the path and the settings of the format.

A reader has ``blocks`` (:class:`equiscope.tasks.datasets.reading.Reader`), or, where its content is no frames,
``describe(sample)``.
"""


def _reader(name: str) -> Any:
    if name not in FORMATS:
        meant = nearest(str(name), FORMATS)
        raise InputError(f"there is no format {name!r}: the formats are {', '.join(FORMATS)}{meant}")
    module, _, attribute = FORMATS[name].partition(":")
    return getattr(importlib.import_module(f"{__package__}.{module}"), attribute)


def settings(name: str) -> tuple[str, ...]:
    """The settings of a format besides the path; an InputError if there is no such format."""
    return tuple(f.name for f in fields(_reader(name)) if f.name != "path")


def source(name: str, path: str, options: Mapping[str, Any] | None = None) -> Reader:
    """The reader of a file of frames; an InputError where format or settings are unknown, or it has no frames."""
    made: Reader = _made(name, path, options or {})
    if not hasattr(made, "blocks"):
        raise InputError(f"the format {name} has no frames: it can be described only")
    return made


def describe(
    name: str,
    path: str,
    options: Mapping[str, Any],
    rules: Rules,
    sample: Sample,
    watched: Callable[[Iterator[Block]], Iterable[Block]] = iter,
) -> Any:
    """What a data set holds: text by ``str``, plain types by ``to_dict()``. ``watched`` may follow the frames.

    Errors are those of :func:`source`, or a DataError where the file cannot be read.
    """
    made = _made(name, path, options)
    if not hasattr(made, "blocks"):
        return made.describe(sample)
    from equiscope.tasks.datasets import description, stream

    rejected: Counter[str] = Counter()
    return description.describe(watched(stream.read(made, rules, sample, rejected)), made.units(), rejected)


def _made(name: str, path: str, options: Mapping[str, Any]) -> Any:
    reader, known = _reader(name), settings(name)
    given = {key: value for key, value in options.items() if value is not None}
    if unknown := sorted(set(given) - set(known)):
        raise InputError(f"the format {name} has no setting {unknown}: it has {', '.join(known) or 'none'}")
    return reader(path, **typed(reader, given, f"the setting {{}} of {name}"))
