"""Analyses of a trained run at the steps whose checkpoints were kept: each result is a record of the run.

A record has ``kind="analysis"``, ``analysis`` (a name of :mod:`equiscope.runs.kinds`, or ``"relations"``), ``step``,
``probe``, ``settings`` and ``values``. What is recorded with the same settings is not made again, so that an analysis
that was stopped goes on where it was.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from tqdm.auto import tqdm

from equiscope.analysis.relations import LEAST, relation
from equiscope.errors import InputError, UnsuitedModelError
from equiscope.records import Record, Records
from equiscope.runs import progress
from equiscope.runs.deal import thinned
from equiscope.runs.kinds import Analysis, AnalysisSettings, analyses, check, newest
from equiscope.runs.trained import Trained, available_steps, check_data, open_run
from equiscope.tasks.task import Probe


def analyse(
    path: str | os.PathLike[str], kinds: Sequence[str], at: Sequence[int] | None = None,
    probes: Sequence[str] | None = None, changes: Mapping[str, Any] | None = None,
    device: str | torch.device = "cpu", show_progress: bool | None = None, trust: bool = False,
) -> list[Record]:  # fmt: skip
    """Analyse a run's checkpoints and append what is new to its records.

    Args:
        path: the run's folder.
        kinds: names of :mod:`equiscope.runs.kinds`.
        at: training steps; None for every checkpoint the run has.
        probes: names of the run's probes; None for the headline probe.
        changes: settings that differ from the defaults of each kind; one of a single kind concerns it alone.
        device: where the model runs.
        show_progress: bars on or off; None for bars in a terminal only.
        trust: as for :func:`equiscope.runs.trained.open_run`.

    Returns:
        The records asked for, in order of kind, step and probe, and the relations between them.

    Raises:
        InputError: an unknown kind, probe, layer or setting.
        UnsuitedModelError: a model that cannot be analysed so.
        RunError: no checkpoint of a step, a checkpoint of another model, or a run that is in use.
        IntegrityError: damaged records or checkpoints.
    """
    check(kinds)
    settings = _settings(kinds, changes or {})
    first = open_run(path, trust=trust)
    steps = sorted(set(at)) if at is not None else available_steps(first.folder)
    for step in steps:
        if step != first.step:
            # A checkpoint that is damaged or another model's is told of before any work.
            open_run(first.folder.path, step=step, trust=True)
    first.task.prepare(progress=False)
    pairs = _probes(first, probes)
    for kind in kinds:
        for probe, _ in pairs:
            _check_degrees(kind, probe)
    work = [(kind, step, pair) for kind in settings for step in steps for pair in pairs]
    first.folder.acquire()
    found: list[Record] = []
    try:
        with Records(first.folder.records, first.folder.lock) as records:
            check_data(first.task, records.entries)
            with tqdm(total=len(work), unit="analysis", disable=not progress.shown(show_progress)) as bar:
                opened: dict[int, Trained] = {}
                for kind, step, pair in work:
                    bar.set_description(f"{kind}, step {step}, {pair[0].name}")
                    found.append(_one(records, path, opened, kind, step, pair, settings[kind], device))
                    bar.update(1)
            # The relations of every probe whose series has grown since they were last made, and all those there are.
            found += [record for kind, analysis in analyses().items()
                      for probe, steps in newest(records.entries, kind).items()
                      for record in _relations(records, probe, steps, analysis)]  # fmt: skip
    finally:
        first.folder.release()
    return found


def _check_degrees(kind: str, probe: Probe) -> None:
    """Wigner degrees are those of SO(3): a model of the octahedral group alone has none."""
    known = analyses()
    if "degrees" in known[kind].own and probe.declaration.group == "O":
        able = ", ".join(name for name, other in known.items() if "degrees" not in other.own)
        raise UnsuitedModelError(
            f"{kind}: the shares by Wigner degree need a model of all rotations, and probe {probe.name!r} declares the "
            f"octahedral group, group='O', whose 24 rotations cannot tell degrees apart; {able} can be made of it"
        )


def _settings(kinds: Sequence[str], changes: Mapping[str, Any]) -> dict[str, AnalysisSettings]:
    """Of each kind, its defaults with the changes that concern it."""
    known = analyses()
    names = {kind: [one.name for one in fields(known[kind].settings)] for kind in kinds}
    for name, value in changes.items():
        if any(name in own for own in names.values()):
            continue
        if any(name in kind.own for kind in known.values()):
            raise InputError(f"{name}={value!r} means nothing to {', '.join(kinds)}")
        had = ", ".join(dict.fromkeys(one for own in names.values() for one in own))
        raise InputError(f"unknown setting {name!r} of an analysis: {', '.join(kinds)} take {had}")
    return {
        kind: known[kind].settings(**{name: value for name, value in changes.items() if name in own})
        for kind, own in names.items()
    }


def _probes(first: Trained, names: Sequence[str] | None) -> list[tuple[Probe, Probe]]:
    """(tracked probe, the same probe of the final set) for each name."""
    tracked, final = ({p.name: p for p in first.task.probes(part)} for part in ("track", "final"))
    if names is None:
        names = [name for name, probe in tracked.items() if probe.headline][:1]
    unknown = [name for name in names if name not in tracked]
    if unknown:
        raise InputError(f"this run has no probe {unknown[0]!r}; it has {', '.join(tracked)}")
    return [(tracked[name], final[name]) for name in names]


def _one(
    records: Records, path: str | os.PathLike[str], opened: dict[int, Trained], kind: str, step: int,
    pair: tuple[Probe, Probe], settings: AnalysisSettings, device: str | torch.device,
) -> Record:  # fmt: skip
    """The record of one analysis, made if there is none."""
    identity = {"analysis": kind, "step": step, "probe": pair[0].name, "settings": settings.recorded()}
    record = records.find("analysis", **identity)
    if record is not None:
        return record
    if step not in opened:
        opened.clear()
        opened[step] = open_run(path, step=step, trust=True)
        opened[step].model.to(device)
    begun = time.perf_counter()
    ordered = pair if settings.part == "track" else pair[::-1]
    here, other = (replace(probe, batches=thinned(probe.batches, settings.samples, device)) for probe in ordered)
    values = analyses()[kind].make(opened[step], here, other, settings)
    return records.append("analysis", **identity, values=values, seconds=time.perf_counter() - begun)


def _relations(
    records: Records, probe: str, found: Mapping[int, Mapping[str, Any]], analysis: Analysis
) -> list[Record]:
    steps = list(found)
    if len([step for step in steps if step > 0]) < LEAST:
        return []
    told, made = [analysis.series(record["values"]) for record in found.values()], []
    for name, pair in analysis.related.items():
        first, second = ([_at(values, path) for values in told] for path in pair)
        identity = {"analysis": "relations", "probe": probe, "pair": name, "first": first, "second": second}
        values = relation(steps, first, second)
        made.append(records.append_once("analysis", {**identity, "steps": steps}, step=steps[-1], values=values))
    return made


def _at(values: Mapping[str, Any], path: str) -> float | None:
    here: Any = values
    for key in path.split("."):
        here = here.get(key) if isinstance(here, Mapping) else None
    return None if here is None else float(here)
