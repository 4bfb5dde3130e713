"""Faults done to runs and their files, and the count of what was lost: kills, a full disk, flipped bits, cut files.

Runs are those of the toy task (a second each; training, tracking, records and checkpoints are the real ones), forked;
:mod:`tests.faults.run` also kills runs of the force field.
"""

import builtins
import errno
import hashlib
import os
import pickle
import random
import shutil
import signal
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from equiscope import records
from equiscope.errors import DataError, EquiscopeError, IntegrityError, RunError
from equiscope.runs.checkpoint import load
from equiscope.runs.folder import RunFolder
from equiscope.runs.train import train
from equiscope.tasks.datasets import store
from tests.runs import toy
from tests.runs.ends import assert_same_end


@dataclass
class Tally:
    """How often a fault was done and what became of it; anything in ``lost`` is a failure."""

    name: str
    done: int = 0
    outcomes: Counter = field(default_factory=Counter)
    lost: list = field(default_factory=list)


def in_child(action) -> int:
    """Run ``action`` in a forked process; its exit code, minus the signal that ended it."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 70
        try:
            # What a dying child prints is not worth reading hundreds of times.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            action()
            status = 0
        except RunError:
            status = 71
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kills(root: Path, count: int, seed: int, config=toy.config, longest: float = 0.6) -> Tally:
    """SIGKILL runs at random instants until ``count`` kills were made; each run is then finished and compared.

    After each kill the records verify (a torn last line is set aside), a checkpoint that exists loads, and no record
    that was there before the kill is gone.
    """
    tally, chance = Tally("SIGKILL at a random instant"), random.Random(seed)
    whole = train(config(root / "whole"), show_progress=False)
    attempt = 0
    while tally.done < count:
        place = root / f"run-{attempt}"
        attempt += 1
        before: list = []
        while tally.done < count:
            after = chance.uniform(0.01, longest)
            code = in_child(lambda place=place, after=after: _train_and_die(config(place), after))
            if code != -signal.SIGKILL:
                break
            tally.done += 1
            before = _check_after_kill(place, whole, before, tally)
        _finish_and_compare(config(place), whole, tally)
        shutil.rmtree(place)
    return tally


def _train_and_die(config, after) -> None:
    threading.Timer(after, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
    train(config, show_progress=False)


def _check_after_kill(place: Path, whole: RunFolder, before: list, tally: Tally) -> list:
    folder = RunFolder(place, whole.path.parent.name, whole.name)
    try:
        found, torn = records.scan(folder.records) if folder.records.exists() else ([], b"")
        if folder.checkpoint.exists():
            load(folder.checkpoint)
            tally.outcomes["with a checkpoint"] += 1
    except EquiscopeError as error:
        tally.lost.append(f"after a kill: {error}")
        return before
    tally.outcomes["torn last record"] += bool(torn)
    if found[: len(before)] != before:
        tally.lost.append(f"records changed: {len(before)} before, {len(found)} after")
    return found


def _finish_and_compare(config, whole: RunFolder, tally: Tally) -> None:
    try:
        assert_same_end(train(config, show_progress=False), whole)
        tally.outcomes["finished bit for bit as the undisturbed run"] += 1
    except (AssertionError, EquiscopeError) as error:
        tally.lost.append(f"end differs: {str(error)[:200]}")


class FullDisk:
    """Every write through ``open`` from the n-th on fails with ENOSPC, as on a disk that filled up and stays full."""

    def __init__(self, first: int | None):
        self.first, self.count = first, 0

    def __enter__(self):
        self._open = builtins.open
        builtins.open = self._opened
        return self

    def __exit__(self, *exception):
        builtins.open = self._open

    def _opened(self, file, mode="r", *arguments, **settings):
        made = self._open(file, mode, *arguments, **settings)
        return _Writer(made, self) if set(mode) & set("wax+") else made

    def tick(self) -> None:
        self.count += 1
        if self.first is not None and self.count >= self.first:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class _Writer:
    """A file whose writes ask the disk first; everything else is the file's own."""

    def __init__(self, file, disk: FullDisk):
        self._file, self._disk = file, disk

    def write(self, data):
        self._disk.tick()
        return self._file.write(data)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._file.close()


def full_disk(root: Path, every: int = 1) -> Tally:
    """The disk fills up at each write of a run in turn: a clear error, files that verify, a run that goes on."""
    tally = Tally("full disk (ENOSPC) at a write")
    whole = train(toy.config(root / "whole"), show_progress=False)
    with FullDisk(None) as disk:
        train(toy.config(root / "counted"), show_progress=False)
    for first in range(1, disk.count + 1, every):
        place = root / f"full-{first}"
        code = in_child(lambda place=place, first=first: _train_on(FullDisk(first), toy.config(place)))
        tally.done += 1
        if code != 71:
            tally.lost.append(f"write {first}: exit code {code} instead of a RunError")
        _check_after_kill(place, whole, [], tally)
        _finish_and_compare(toy.config(place), whole, tally)
        shutil.rmtree(place)
    return tally


def _train_on(disk: FullDisk, config) -> None:
    with disk:
        train(config, show_progress=False)


def damage(root: Path, count: int, seed: int) -> list[Tally]:
    """Random byte flips and truncations of the files of a finished run and of a data file: each must be noticed."""
    folder = train(toy.config(root), show_progress=False)
    data = store.write(root / "data.npz", {"x": np.arange(3000.0), "z": np.arange(9)}, {"units": "Å"})
    files = {
        "records": (folder.records, lambda: records.read(folder.records)),
        "records count": (folder.records.with_name("records.jsonl.count"), lambda: records.read(folder.records)),
        "checkpoint": (folder.checkpoint, lambda: load(folder.checkpoint)),
        "checkpoint checksum": (
            folder.checkpoint.with_name(folder.checkpoint.name + ".sha256"),
            lambda: load(folder.checkpoint),
        ),
        "data file": (data, lambda: store.read(data)),
    }
    chance = random.Random(seed)
    return [_damaged(name, path, read, count // len(files), chance) for name, (path, read) in files.items()]


def _damaged(name: str, path: Path, read, count: int, chance: random.Random) -> Tally:
    tally, good = Tally(f"flips and truncations: {name}"), path.read_bytes()
    for number in range(count):
        bad = bytearray(good)
        if number % 4 == 3:
            bad = bad[: chance.randrange(len(good))]
        else:
            bad[chance.randrange(len(good))] ^= 1 << chance.randrange(8)
        path.write_bytes(bytes(bad))
        tally.done += 1
        try:
            read()
            tally.lost.append(f"{name}: {'cut' if number % 4 == 3 else 'flip'} {number} went unseen")
        except (IntegrityError, DataError):
            tally.outcomes["noticed"] += 1
        except Exception as error:
            tally.lost.append(f"{name}: {type(error).__name__} instead of an integrity error: {str(error)[:100]}")
    path.write_bytes(good)
    return tally


class _Payload:
    """A pickle that would leave a file behind if it were executed."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return (open, (os.fspath(self.marker), "w"))


def hostile_pickles(root: Path) -> Tally:
    """Files that run code when unpickled, in place of a checkpoint with a right checksum, of records, of data."""
    tally, marker = Tally("hostile pickle"), root / "executed"
    folder = train(toy.config(root), show_progress=False)
    data = root / "data.npz"
    payload = pickle.dumps(_Payload(marker), protocol=2)
    for path, read in (
        (folder.checkpoint, lambda: load(folder.checkpoint)),
        (folder.records, lambda: records.read(folder.records)),
        (data, lambda: store.read(data)),
    ):
        path.write_bytes(payload)
        if path == folder.checkpoint:
            beside = path.with_name(path.name + ".sha256")
            beside.write_text(f"{hashlib.sha256(payload).hexdigest()}  {path.name}\n")
        tally.done += 1
        try:
            read()
            tally.lost.append(f"{path.name} was read")
        except (IntegrityError, DataError):
            tally.outcomes["refused"] += 1
        if marker.exists():
            tally.lost.append(f"{path.name}: code was executed")
            marker.unlink()
    return tally


def two_processes(root: Path) -> Tally:
    """A second process on the folder of a run is refused, and the first goes on undisturbed."""
    tally = Tally("second process on one run folder")
    whole = train(toy.config(root / "whole"), show_progress=False)
    folder = RunFolder(root / "shared", "toy", "a")
    folder.path.mkdir(parents=True)
    folder.acquire()
    tally.done += 1
    code = in_child(lambda: train(toy.config(root / "shared"), show_progress=False))
    if code == 71:
        tally.outcomes["refused"] += 1
    else:
        tally.lost.append(f"the second process ended with {code}")
    folder.release()
    _finish_and_compare(toy.config(root / "shared"), whole, tally)
    return tally
