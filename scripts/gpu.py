"""What `make gpu` does: on a machine with a card, tests, a short run of each task, overheads and step times.

    python scripts/gpu.py [--before CHECKOUT]

Where there is no card it says so in one line and does nothing. It ends after five minutes: every part has seconds of
its own, and what the parts before it left. A part that is cut off is named at the end; tests tell what failed until
then, and tables, which come last, keep the rows that are done.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
# Seconds of every part, five minutes together. The first run compiles its model.
LIMITS = {"tests": 80, "forcefield": 45, "proteinflow": 20, "voxels": 20, "overheads": 75, "steps": 60}
# Of these the last ones, in which a part that was asked to end may say what it has.
GRACE = 4
CUT_OFF = 124
SHORT = {
    "forcefield": ["data.frames=400", "data.max_atoms=14", "data.track_frames=16", "data.final_frames=16",
                   "trainer.precision=bf16-mixed", "trainer.compile=true"],
    "proteinflow": ["data.track_chains=4", "data.final_chains=4", "track.times=[0.5,0.95]", "trainer.matmul=high"],
    "voxels": ["data.molecules=40", "data.track_conformers=4", "data.final_conformers=4",
               "trainer.precision=bf16-mixed"],
}  # fmt: skip


def commands(before: str | None, root: str) -> dict[str, list[str]]:
    """Name -> command of every part."""
    python, equiscope = sys.executable, [sys.executable, "-m", "equiscope.cli"]
    steps = [python, "benchmarks/steps.py", "--device", "cuda", "--sizes", "paper", "--turns", "1"]
    return {
        "tests": [python, "-m", "pytest", "-q", "-m", "gpu", "tests/gpu"],
        **{
            task: [*equiscope, "train", f"task={task}", "run=gpu", f"root={root}", "trainer.accelerator=cuda",
                   "trainer.max_steps=60", "track.points=3", "logger=none", *settings]
            for task, settings in SHORT.items()
        },
        "overheads": [python, "benchmarks/overhead.py", "--device", "cuda", "--rounds", "3"],
        "steps": [*steps, *(["--before", before] if before else [])],
    }  # fmt: skip


def run(command: list[str], seconds: float) -> int:
    """The exit status; :data:`CUT_OFF` where time ran out, after which nothing that it started is left."""
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        return process.wait(max(seconds - GRACE, 0))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        return CUT_OFF
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main() -> int:
    """Run every part; 1 if one of them failed or was cut off."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", help="a checkout of the code that step times are compared with")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print(f"make gpu: no card here that torch {torch.__version__} can use; nothing was run")
        return 0
    print(f"make gpu: {torch.cuda.get_device_name()}, torch {torch.__version__}")
    found: dict[str, str] = {}
    begun = until = time.time()
    with tempfile.TemporaryDirectory() as root:
        for name, command in commands(options.before, root).items():
            print(f"\n{name}: {' '.join(command[1:])}", flush=True)
            started = time.time()
            until += LIMITS[name]
            status = run(command, until - started)
            what = "done" if status == 0 else "cut off" if status == CUT_OFF else f"failed with {status}"
            found[name] = f"{what} after {time.time() - started:.0f} s"
            print(f"{name}: {found[name]}", flush=True)
    print(f"\nmake gpu: {time.time() - begun:.0f} s; {'; '.join(f'{name} {what}' for name, what in found.items())}")
    return 0 if all(what.startswith("done") for what in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
