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
        study: ``name``, ``points`` (task -> point -> overrides), ``seeds``, ``base`` (overrides of every run).
        user: overrides given on the command line for every run; they win over ``base``, points win over them.

    Raises:
        InputError: if the study has no points for the task, seeds are no integers, or an override is no ``key=value``.
    """
    for key, kind, example in (("points", Mapping, "{task: {point: [key=value]}}"), ("base", list, "[key=value]")):
        if study.get(key) is not None and not isinstance(study[key], kind):
            raise InputError(f"study.{key} must be like {example}, got {study[key]!r}")
    points = (study.get("points") or {}).get(task)
    if not points:
        known = ", ".join(sorted(study.get("points") or {}))
        raise InputError(f"study {study.get('name')!r} has no points for task {task!r}; it has them for {known}")
    seeds = study.get("seeds", [0])
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise InputError(f"study.seeds must be a list of integers >= 0, such as [0,1,2], got {seeds!r}")
    base = [f"task={task}", ONE_THREAD, *(study.get("base") or [])]
    return [
        (str(point), int(seed), merged(base, user, overrides or [], [f"seed={seed}"]))
        for point, overrides in points.items()
        for seed in seeds
    ]


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
