"""Damaged data files of every format: frames or a typed error, never a bare exception, a crash or a hang."""

import os
import random
import signal
from pathlib import Path

from equiscope.errors import EquiscopeError
from equiscope.tasks.datasets import catalogue, stream
from tests.faults.harness import holds
from tests.tasks.datasets.smallest import SMALLEST

# Of each format. Formats without checksums cannot notice every flip; frames are a right answer then.
DAMAGES = 24
LONGEST = 20.0  # seconds


def _read(name: str, path: Path, settings: dict) -> int:
    """Exit status of reading: 0 for frames, 71 for a typed error, 70 for any other."""
    try:
        catalogue.describe(name, str(path), settings, stream.Rules(), stream.Sample())
    except EquiscopeError:
        return 71
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        return 70
    return 0


def _in_time(action, said: Path) -> int:
    """The exit status of an action in a child, minus the signal that ended it; -SIGALRM after too long."""
    child = os.fork()
    if child == 0:
        signal.alarm(int(LONGEST))
        with said.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os._exit(action())
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def damaged_files(root: Path):
    """Flips, cuts, runs of zeros, repeats and swaps of blocks at random places of the smallest file of every format."""
    chance = random.Random(0)
    for name, make in SMALLEST.items():
        folder = root / f"damaged-{name}"
        folder.mkdir()
        path, settings = make(folder)
        files = [path] if path.is_file() else sorted(path.glob("*"))
        for number in range(DAMAGES):

            def attempt(name=name, path=path, settings=settings, files=files, number=number):
                file = files[number % len(files)]
                good = file.read_bytes()
                file.write_bytes(_damaged(good, number, chance))
                said = root / "said"
                try:
                    status = _in_time(lambda: _read(name, path, settings), said)
                finally:
                    file.write_bytes(good)
                holds(status in (0, 71), f"status {status}: {said.read_text()[-300:]}")

            yield f"{name}: damage {number}", attempt


def _damaged(good: bytes, number: int, chance: random.Random) -> bytes:
    bad, length = bytearray(good), len(good)
    at = chance.randrange(length)
    kind = number % 6
    if kind == 0:
        return bytes(bad[:at])
    if kind == 1:
        bad[at : at + 64] = bytes(min(64, length - at))
    elif kind == 2:
        bad[at:at] = bad[max(0, at - 32) : at]
    elif kind == 3:
        other = chance.randrange(length)
        bad[at : at + 16], bad[other : other + 16] = bad[other : other + 16], bad[at : at + 16]
    else:
        bad[at] ^= 1 << chance.randrange(8)
    return bytes(bad)
