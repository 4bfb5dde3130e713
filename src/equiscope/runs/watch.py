"""How far the runs of a study are, read from their folders: a live table in a terminal, one line a change elsewhere."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from equiscope.runs.study import Member
from equiscope.words import aligned

EVERY = 2.0
_TAIL = 1 << 16


@dataclass(frozen=True)
class State:
    """One run at one moment.

    Attributes:
        status: ``"waiting"``, ``"running"``, ``"finished"`` or ``"failed"``.
        step, steps: done and planned; seconds: of training so far; percent, r2: as last measured, None before that.
    """

    status: str
    step: int
    steps: int
    seconds: float
    percent: float | None = None
    r2: float | None = None


def state(member: Member, since: float = 0.0) -> State:
    """The state of a run by its records; ``running`` if they were touched after ``since`` (seconds of the epoch)."""
    steps = int(member.config["trainer"]["max_steps"])
    path = member.folder.records
    lines = _last_records(path)
    step = max((int(r["step"]) for r in lines if isinstance(r.get("step"), int)), default=0)
    seconds = max((float(r["seconds"]) for r in lines if r["kind"] == "train"), default=0.0)
    measured = [r["result"] for r in lines if r["kind"] == "measure" and r.get("headline")]
    percent, r2 = (measured[-1].get("percent"), measured[-1].get("r2")) if measured else (None, None)
    if any(r["kind"] == "end" for r in lines):
        return State("finished", step, steps, seconds, percent, r2)
    touched = path.stat().st_mtime if path.exists() else 0.0
    return State("running" if touched > since and lines else "waiting", step, steps, seconds, percent, r2)


def _last_records(path: Path) -> list[dict[str, Any]]:
    """The records in the last part of a file that another process writes; an unfinished line is left out.

    The part holds one of training at least: analyses are recorded after its end, and may be long.
    """
    try:
        with open(path, "rb") as file:
            size, part = os.fstat(file.fileno()).st_size, _TAIL
            while True:
                file.seek(max(0, size - part))
                found = _whole(file.read().split(b"\n")[:-1])
                if part >= size or any(record["kind"] != "analysis" for record in found):
                    return found
                part *= 8
    except FileNotFoundError:
        return []


def _whole(lines: Sequence[bytes]) -> list[dict[str, Any]]:
    found = []
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and "kind" in record:
            found.append(record)
    return found


class Watch:
    """Shows the states of the runs while the body of its ``with`` goes on in this thread."""

    def __init__(self, members: Sequence[Member], stream: TextIO | None = None, every: float = EVERY) -> None:
        self._members, self._every = members, every
        self._stream = stream if stream is not None else sys.stderr
        self._terminal = self._stream.isatty()
        self._since = time.time()
        self._shown: dict[str, str] = {}
        self._height = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._show()

    def _follow(self) -> None:
        while not self._stop.wait(self._every):
            self._show()

    def _show(self) -> None:
        states = [state(member, self._since) for member in self._members]
        if self._terminal:
            text = table(self._members, states)
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


def table(members: Sequence[Member], states: Sequence[State]) -> str:
    """What runs, how far, how long, as text."""
    rows = [("point", "seed", "state", "step", "time", "percent", "R²")]
    for member, now in zip(members, states, strict=True):
        minutes, seconds = divmod(int(now.seconds), 60)
        percent = "" if now.percent is None else f"{now.percent:.2g} %"
        skill = "" if now.r2 is None else f"{now.r2:.2f}"
        place = f"{now.step:,}/{now.steps:,}"
        rows.append((member.point, str(member.seed), now.status, place, f"{minutes}:{seconds:02d}", percent, skill))
    done = sum(now.status == "finished" for now in states)
    return "\n".join([*aligned(rows), f"{done} of {len(states)} runs finished"])
