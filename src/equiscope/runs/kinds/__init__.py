"""The analyses of a trained run: for each a file with its settings, how it is made, and what it is related to.

An analysis is found by its file's name: :data:`ANALYSIS` of ``runs/kinds/NAME.py`` makes it, and :data:`KIND` of
``report/kinds/NAME.py`` shows it; a file of several has ``ANALYSES`` (``KINDS``) by name. A file imports what computes
only when an analysis is made, so that the command line has choices, options and help at once.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from equiscope.errors import InputError, check_count
from equiscope.records import plain

if TYPE_CHECKING:
    from equiscope.decomposition.plan import Plan
    from equiscope.runs.trained import Trained
    from equiscope.tasks.task import Probe
else:
    Trained = Probe = Any

PARTS = ("track", "final")
Values = dict[str, Any]
#: The smallest value of settings that are whole numbers; of the others one.
LEAST = {"samples": 2, "draws": 2, "seed": 0, "degrees": 0}


def option(default: Any, text: str, **more: Any) -> Any:
    """A setting that ``equiscope analyse`` offers too, with the arguments of its option."""
    return field(default=default, metadata={"help": text, **more})


@dataclass(frozen=True)
class AnalysisSettings:
    """What every analysis is told; each has a class of its own with its defaults and what else it is told.

    Attributes:
        rotations, cosets, seed: as for :func:`equiscope.measure`.
        samples: held-out samples used, evenly spread; None for all of them.
        part: ``"track"``, the samples measured along training, or ``"final"``, the independent and often larger set of
            the final figure.

    Raises:
        InputError: a whole number that is too small, or no such part.
    """

    rotations: str = option("T", "set of rotations: T, O, I, D2, haar, …")
    cosets: int = option(2, "random cosets of it for each sample")
    seed: int = option(0, "of the rotations")
    samples: int | None = option(None, "held-out samples used")
    part: str = option("track", "of the held-out samples: those measured along training (default), or the larger "
                       "final set", choices=PARTS)  # fmt: skip

    def __post_init__(self) -> None:
        # Asked before anything is computed, which may take minutes.
        for one in fields(self):
            count, least = getattr(self, one.name), LEAST.get(one.name, 1)
            if one.type not in ("int", "int | None") or (count is None and one.type != "int"):
                continue
            check_count(one.name, count, least)
        if self.part not in PARTS:
            raise InputError(f"part must be one of {', '.join(PARTS)}, got {self.part!r}")

    def plan(self, probe: Probe, **more: Any) -> Plan:
        """What is measured, with further arguments of :func:`equiscope.decomposition.plan.make_plan`."""
        from equiscope.decomposition.plan import make_plan

        return make_plan(probe.declaration, probe.forward, self.rotations, self.cosets, self.seed, **more)

    def recorded(self) -> dict[str, Any]:
        """The settings as a record has them, which tell it from others; the usual part goes without saying."""
        found: dict[str, Any] = plain(asdict(self))
        return {name: value for name, value in found.items() if (name, value) != ("part", PARTS[0])}


@dataclass(frozen=True)
class BatchedSettings(AnalysisSettings):
    """batch: samples in each of the independent batches, whose spread gives the error bars."""

    batch: int = option(4, "samples in each independent batch")

    def batches(self, probe: Probe) -> list[dict[str, Any]]:
        """The samples dealt into independent batches."""
        from equiscope.runs.deal import dealt

        return dealt(probe.batches, probe.declaration, self.batch, self.seed)


@dataclass(frozen=True)
class Analysis:
    """One analysis.

    Attributes:
        settings: the class of its settings.
        make: (trained run, probe of the part asked for, the same probe of the other part, settings) -> values.
        related: what is related along training: name -> names, joined by dots, of two of the ``series``.
        series: values -> the numbers that are related.
    """

    settings: type[AnalysisSettings]
    make: Callable[[Trained, Probe, Probe, Any], Values]
    related: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    series: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda values: values

    @property
    def own(self) -> dict[str, Field[Any]]:
        """The settings that not every analysis has."""
        return {one.name: one for one in fields(self.settings) if one.name not in COMMON}


COMMON = {one.name: one for one in fields(AnalysisSettings)}


def registered(package: str, one: str, several: str) -> dict[str, Any]:
    """name -> what the files of a package register, by name: ``one`` under the file's own, or the dict ``several``."""
    found: dict[str, Any] = {}
    for file in pkgutil.iter_modules(importlib.import_module(package).__path__):
        module = importlib.import_module(f"{package}.{file.name}")
        found |= getattr(module, several, None) or {file.name: getattr(module, one)}
    return dict(sorted(found.items()))


def analyses() -> dict[str, Analysis]:
    """name -> analysis, in the order of the names."""
    return registered(__name__, "ANALYSIS", "ANALYSES")


def settable() -> dict[str, tuple[Field[Any], list[str]]]:
    """Setting -> (its field, the analyses it is for; none for all of them), of those that the command offers."""
    found: dict[str, tuple[Field[Any], list[str]]] = {name: (one, []) for name, one in COMMON.items()}
    for kind, analysis in analyses().items():
        for name, one in analysis.own.items():
            if "help" in one.metadata:
                found.setdefault(name, (one, []))[1].append(kind)
    return found


def newest(entries: Iterable[Mapping[str, Any]], analysis: str) -> dict[str, dict[int, Mapping[str, Any]]]:
    """probe -> step -> record of an analysis, steps ascending: those with the settings of the probe's last one."""
    mine = [entry for entry in entries if entry["kind"] == "analysis" and entry["analysis"] == analysis]
    settings = {entry["probe"]: entry["settings"] for entry in mine}
    found: dict[str, dict[int, Mapping[str, Any]]] = {probe: {} for probe in settings}
    for entry in mine:
        if entry["settings"] == settings[entry["probe"]]:
            found[entry["probe"]][entry["step"]] = entry
    return {probe: dict(sorted(steps.items())) for probe, steps in found.items()}


def check(kinds: Sequence[str]) -> None:
    """All of them are names of analyses, and there is at least one.

    Raises:
        InputError: naming those there are.
    """
    known = analyses()
    unknown = [kind for kind in kinds if kind not in known]
    if unknown or not kinds:
        what = f"unknown analysis {unknown[0]!r}" if unknown else "no analysis given"
        raise InputError(f"{what}: name one or more of {', '.join(known)}")
