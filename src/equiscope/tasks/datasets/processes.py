"""Spread deterministic jobs over processes: one thread in each, results in order, none left behind."""

from __future__ import annotations

import contextlib
import fcntl
import math
import multiprocessing
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from equiscope.errors import DataError, InputError
from equiscope.writing import open_own

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
AHEAD = 4
"""Jobs in hand per process: enough that none waits for the slowest, few enough to stop soon."""


def available_cores() -> int:
    """The cores this process may use: of its affinity, and of the quota of its control group, at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *map(math.ceil, _quotas())]))


def _quotas(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[float]:
    """Cores that the control groups of this process grant, version 2 or 1; none where nothing limits them."""
    folders = [root, root / "cpu"]
    with contextlib.suppress(OSError):
        for line in filter(None, own.read_text().splitlines()):
            _, controllers, path = line.split(":", 2)
            top = root / "cpu" if "cpu" in controllers.split(",") else root
            inside = top / path.lstrip("/")
            folders += [inside, *(p for p in inside.parents if top in p.parents)]
    found = []
    for folder in dict.fromkeys(folders):
        for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
            # OSError: there is no such file; ValueError: it says "max".
            with contextlib.suppress(OSError, ValueError):
                quota, period = map(float, " ".join((folder / name).read_text() for name in names).split())
                found += [quota / period] if quota > 0 and period > 0 else []
    return found


def ordered(function: Callable[[Any], Any], jobs: Iterable[Any], workers: int) -> Generator[tuple[Any, Any]]:
    """(job, function(job)) in the order of the jobs; a caller that stops early cancels the rest.

    Processes are spawned, so ``function`` must stand in an importable module and jobs must pickle. They do not run the
    caller's script again, so that it needs no ``if __name__ == "__main__":``.

    Raises:
        DataError: a worker process died. InputError: ``function`` is defined in the script itself. Exception: whatever
            ``function`` raised.
    """
    if function.__module__ == "__main__":
        raise InputError(f"{function.__name__} must stand in an importable module, not in the script itself")
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent)
    waiting: deque[tuple[Any, Future[Any]]] = deque()
    try:
        for job in jobs:
            # A submission may start a process.
            with one_thread_each(), _without_script():
                waiting.append((job, pool.submit(function, job)))
            if len(waiting) > AHEAD * workers:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process died (killed, or out of memory); what is finished is kept, call it again"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Spawned processes inherit the environment: one BLAS and OpenMP thread each, for equal bytes."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name in THREAD_VARIABLES:
            os.environ.pop(name, None)
        os.environ.update({name: value for name, value in before.items() if value is not None})


@contextlib.contextmanager
def _without_script() -> Iterator[None]:
    """Hide the running script from multiprocessing, which would import it in every new process."""
    main = sys.modules["__main__"].__dict__
    before: dict[str, Any] = {name: main[name] for name in ("__spec__", "__file__") if name in main}
    main.update(dict.fromkeys(before))
    try:
        yield
    finally:
        main.update(before)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a lock file beside ``path`` until it exists; the system releases it however this process ends.

    The lock file goes once ``path`` is there: whoever still waits on the old one finds the file made.
    """
    lock = path.with_name(f".{path.name}.lock")
    with open(open_own(lock), "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
        if path.exists():
            lock.unlink(missing_ok=True)


def made_once(path: Path, make: Callable[[], None]) -> bool:
    """Call ``make``, which makes ``path``, unless it is there; whether this call made it. Two calls for one path wait
    for one another.
    """
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(path):
        if path.exists():
            return False
        make()
    return True


def _end_with_parent() -> None:
    """Let a worker die with its parent: a killed parent never tells it to stop."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
