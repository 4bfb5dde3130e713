"""What a study is: a question, the points along its axis, and one training run for each point and seed.

A run is named by what it is, ``MODEL-SEED-HASH`` with the hash over every setting that may change a figure, so that two
studies which ask for the same run share it, and a study that is started again finds what it has.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equiscope.errors import InputError
from equiscope.records import plain
from equiscope.runs.config import configuration
from equiscope.runs.folder import FREE_KEYS, RunFolder

# Settings that earlier versions did not have: where they are off, a run is called what it was called then.
LATER = (("trainer", "matmul"), ("trainer", "compile"), ("track", "precision"), ("final", "precision"))
# Overrides that every run of a study gets unless told otherwise: runs share the cores of the machine.
ONE_THREAD = "threads=1"


@dataclass(frozen=True)
class Member:
    """One training run of a study.

    Attributes:
        point: its place on the study's axis, as shown; seed: of weights and order of the data.
        overrides: what the training command is given; config: what comes of it.
    """

    point: str
    seed: int
    overrides: tuple[str, ...]
    config: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.config["run"])

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.config["root"], str(self.config["task"]), self.name)


def planned(study: Mapping[str, Any], task: str, user: Sequence[str] = ()) -> list[tuple[str, int, list[str]]]:
    """(point, seed, overrides) of each run of a study on a task, in the order of its points and seeds.

    Args:
        study: ``name``, ``points`` (task -> point -> overrides, or see :class:`PointPlan`), ``seeds``, ``more`` (point
            -> seeds beyond those), ``base`` (overrides of every run, or task -> overrides); with ``toy`` the overrides
            ``toys`` have the last word.
        user: overrides given on the command line for every run; they win over ``base``, points win over them.

    Raises:
        InputError: if the study has no points for the task, or none that ``more`` names, seeds are no integers, or an
            override is no ``key=value``.
    """
    examples = (("points", Mapping, "{task: {point: [key=value]}}"), ("base", list | Mapping, "[key=value]"))
    for key, kind, example in examples:
        if study.get(key) is not None and not isinstance(study[key], kind):
            raise InputError(f"study.{key} must be like {example}, got {study[key]!r}")
    points = described(study, task)
    base = [f"task={task}", ONE_THREAD, *of_task(study.get("base"), task)]
    small = of_task(study.get("toys"), task) if study.get("toy") else []
    return [
        (point.name, seed, merged(base, user, point.overrides, small, point.steps, [f"seed={seed}"]))
        for point in points
        for seed in point.seeds
    ]


@dataclass(frozen=True)
class PointPlan:
    """A point as the study describes it: a list of overrides, or a mapping of these.

    Attributes:
        overrides: ``set``, in which a word of the study's ``named`` stands for its list. seeds: its own, else those of
            the study.
        milliseconds: ``ms``, what a step is expected to take, for the order of runs that have not begun.
        seconds: every run of the point is annealed to so many seconds of training, with step times taken alone on the
            device before; steps: the setting that follows, once they are known.
    """

    name: str
    overrides: tuple[str, ...]
    seeds: tuple[int, ...]
    milliseconds: float
    seconds: float | None
    steps: tuple[str, ...]


def described(study: Mapping[str, Any], task: str) -> list[PointPlan]:
    """The points of a study on a task, in their order.

    Raises:
        InputError: if there are none, or one is described in another way.
    """
    points = (study.get("points") or {}).get(task)
    if not points:
        known = ", ".join(sorted(study.get("points") or {}))
        raise InputError(f"study {study.get('name')!r} has no points for task {task!r}; it has them for {known}")
    found: list[PointPlan] = []
    more = study.get("more") or {}
    if unknown := [name for name in more if name not in points]:
        raise InputError(f"study.more names {unknown[0]!r}, which is no point; those of {task} are {', '.join(points)}")
    for number, (name, told) in enumerate(points.items()):
        own = dict(told) if isinstance(told, Mapping) else {"set": told}
        if unknown := sorted(set(own) - {"set", "seeds", "ms", "seconds"}):
            raise InputError(f"point {str(name)!r} has no {unknown[0]!r}: it has set, seeds, ms, seconds")
        seeds = study.get("seeds", [0]) if own.get("seeds") is None else own["seeds"]
        if isinstance(seeds, list) and isinstance(more.get(name, []), list):
            seeds = list(dict.fromkeys([*seeds, *more.get(name, [])]))
        if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
            raise InputError(f"study.seeds must be a list of integers >= 0, such as [0,1,2], got {seeds!r}")
        seconds = own.get("seconds") if not study.get("toy") else own.get("seconds") and study.get("toy_seconds", 2)
        known = (study.get("steps") or [0] * len(points))[number]
        steps = (f"trainer.max_steps={known}",) if known else ()
        named = {**(study.get("named") or {}), **((study.get("toy") and study.get("toy_named")) or {})}
        overrides = tuple(one for word in own.get("set") or () for one in named.get(word, [word]))
        expected = float(own.get("ms") or 0)
        found.append(PointPlan(str(name), overrides, tuple(seeds), expected, seconds, steps))
    return found


def analyses_of(study: Mapping[str, Any], task: str) -> dict[str, dict[str, Any]]:
    """The analyses of every finished run: kind -> its settings."""
    told = (study.get("analyse") or {}).get(task) or {}
    small = study.get("toy_analyse") or {}
    return {kind: dict(small.get(kind) or {} if study.get("toy") else own or {}) for kind, own in told.items()}


def of_task(told: Any, task: str) -> list[str]:
    """Overrides for every task, or those for this one of a mapping task -> overrides."""
    return list((told.get(task) if isinstance(told, Mapping) else told) or [])


def members(study: Mapping[str, Any], task: str, user: Sequence[str] = ()) -> list[Member]:
    """The runs of :func:`planned` with their names and whole configurations.

    Raises:
        InputError: as there, or if an override is wrong.
    """
    return [member(*run) for run in planned(study, task, user)]


def member(point: str, seed: int, overrides: Sequence[str]) -> Member:
    """A run with its name and whole configuration.

    Raises:
        InputError: if an override is wrong, naming the point.
    """
    try:
        config = configuration([*overrides, "run=unnamed"])
    except InputError as error:
        raise InputError(f"point {point!r}: {error}") from error
    name = run_name(config)
    return Member(point, seed, (*overrides, f"run={name}"), {**config, "run": name})


def run_name(config: Mapping[str, Any]) -> str:
    """``MODEL-sSEED-HASH``; settings that change no figure (:data:`FREE_KEYS`) are left out of the hash."""
    kept = {key: value for key, value in config.items() if key not in (*FREE_KEYS, "run")}
    for group, name in LATER:
        if isinstance(kept.get(group), Mapping) and not kept[group].get(name):
            kept[group] = {key: value for key, value in kept[group].items() if key != name}
    text = json.dumps(plain(kept), sort_keys=True)
    model = str((config.get("model") or {}).get("name", "model"))
    return f"{model}-s{config.get('seed')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def merged(*groups: Sequence[str]) -> list[str]:
    """Overrides of several sources as one list in which the last word on each key counts.

    Raises:
        InputError: for one that is no ``key=value``.
    """
    last: dict[str, str] = {}
    for override in (text for group in groups for text in group):
        key, equals, _ = str(override).partition("=")
        if not equals and not key.startswith("~"):
            raise InputError(f"{override!r} is no setting: write key=value")
        last.pop(key.lstrip("+"), None)
        last[key.lstrip("+")] = str(override)
    return list(last.values())


def study_folder(root: str | Path, task: str, name: str) -> Path:
    """Where the records and the report of a study lie."""
    return Path(root) / "studies" / f"{task}-{name}"
