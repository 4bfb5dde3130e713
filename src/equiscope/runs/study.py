"""What a study is: a question, the points along its axis, and one training run for each point and seed.

A run is named by what it is, ``MODEL-SEED-HASH`` with the hash over every setting that may change a figure, so that two
studies which ask for the same run share it, and a study that is started again finds what it has. How far runs are is
read from their folders: a live table in a terminal, one line a change elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from equiscope.errors import InputError
from equiscope.records import Record, json_object, plain
from equiscope.runs.config import configuration
from equiscope.runs.folder import FREE_KEYS, RunFolder
from equiscope.words import aligned

# Settings that earlier versions did not have: where they are off, a run is called what it was called then.
LATER = (("trainer", "matmul"), ("trainer", "compile"), ("track", "precision"), ("final", "precision"))
# Overrides that every run of a study gets unless told otherwise: runs share the cores of the machine.
ONE_THREAD = "threads=1"
# Seconds between two looks at the runs, and bytes at the end of their records that are read.
EVERY, _TAIL = 2.0, 1 << 16


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


@dataclass(frozen=True)
class State:
    """One run at one moment.

    Attributes:
        status: ``"waiting"``, ``"running"`` or ``"finished"``.
        step, steps: done and planned; seconds: of training so far; percent, r2: as last measured, None before that.
    """

    status: str
    step: int
    steps: int
    seconds: float
    percent: float | None = None
    r2: float | None = None


def state(member: Member, since: float = 0.0, records: Sequence[Record] | None = None) -> State:
    """The state of a run by its records; ``running`` if they were touched after ``since`` (seconds of the epoch).

    Args:
        records: of the run, where they have been read already; None reads the last of them.
    """
    steps = int(member.config["trainer"]["max_steps"])
    path = member.folder.records
    lines = _last_records(path) if records is None else records
    step = max((int(r["step"]) for r in lines if isinstance(r.get("step"), int)), default=0)
    seconds = max((float(r["seconds"]) for r in lines if r["kind"] == "train"), default=0.0)
    measured = [r["result"] for r in lines if r["kind"] == "measure" and r.get("headline")]
    percent, r2 = (measured[-1].get("percent"), measured[-1].get("r2")) if measured else (None, None)
    if any(r["kind"] == "end" for r in lines):
        return State("finished", step, steps, seconds, percent, r2)
    touched = path.stat().st_mtime if path.exists() else 0.0
    return State("running" if touched > since and lines else "waiting", step, steps, seconds, percent, r2)


def _last_records(path: Path) -> list[Record]:
    """The records in the last part of a file that another process writes; an unfinished line is left out.

    The part holds one of training at least: analyses are recorded after its end, and may be long.
    """
    try:
        with open(path, "rb") as file:
            size, part = os.fstat(file.fileno()).st_size, _TAIL
            while True:
                file.seek(max(0, size - part))
                lines = map(json_object, file.read().split(b"\n")[:-1])
                found = [record for record in lines if record is not None and "kind" in record]
                if part >= size or any(record["kind"] not in ("analysis", "refusal") for record in found):
                    return found
                part *= 8
    except FileNotFoundError:
        return []


class Watch:
    """Shows the states of the runs while the body of its ``with`` goes on in this thread."""

    def __init__(self, members: Sequence[Member], stream: TextIO | None = None, every: float = EVERY) -> None:
        self._members, self._every = members, every
        self._stream = stream if stream is not None else sys.stderr
        self._terminal = self._stream.isatty()
        self._since, self._height, self._stop = time.time(), 0, threading.Event()
        self._shown: dict[str, str] = {}
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()
        self._show()

    def _follow(self) -> None:
        while not self._stop.wait(self._every):
            self._show()

    def _show(self) -> None:
        states = [state(member, self._since) for member in self._members]
        if self._terminal:
            text = table(self._members, states, shutil.get_terminal_size())
            # Up to the first line of the table before, and clear from there on.
            up = f"\x1b[{self._height}A\x1b[J" if self._height else ""
            self._stream.write(up + text + "\n")
            self._height = text.count("\n") + 1
        else:
            for member, now in zip(self._members, states, strict=True):
                if self._shown.get(member.name, "waiting") != now.status:
                    self._stream.write(f"{member.point}, seed {member.seed}: {now.status}\n")
                self._shown[member.name] = now.status
        self._stream.flush()


def table(members: Sequence[Member], states: Sequence[State], within: os.terminal_size | None = None) -> str:
    """What runs, how far, how long, as text; on a terminal too small for all runs only those under way."""
    rows = [("point", "seed", "state", "step", "time", "percent", "R²")]
    pairs = list(zip(members, states, strict=True))
    if within is not None and len(pairs) + 3 > within.lines:
        pairs = [pair for pair in pairs if pair[1].status == "running"][: within.lines - 3]
    for member, now in pairs:
        minutes, seconds = divmod(int(now.seconds), 60)
        percent = "" if now.percent is None else f"{now.percent:.2g} %"
        skill = "" if now.r2 is None else f"{now.r2:.2f}"
        place = f"{now.step:,}/{now.steps:,}"
        rows.append((member.point, str(member.seed), now.status, place, f"{minutes}:{seconds:02d}", percent, skill))
    done = sum(now.status == "finished" for now in states)
    lines = [*aligned(rows), f"{done} of {len(states)} runs finished"]
    return "\n".join(line if within is None else line[: within.columns - 1] for line in lines)
