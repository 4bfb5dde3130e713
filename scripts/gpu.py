"""What `make gpu` does: on a machine with a card, tests, a short run of each task, overheads and step times.

    python scripts/gpu.py [--before CHECKOUT]

Where there is no card it says so in one line and does nothing. It ends after five minutes: tables come last, and keep
the rows that are done by then.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
# Seconds after which a part is given up, and all of it. The first run compiles its model.
LIMITS = {"tests": 150, "forcefield": 90, "proteinflow": 45, "voxels": 45, "overheads": 90, "steps": 90}
ALL = 300
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
    """The exit status; 124 where time ran out, after which nothing that it started is left."""
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return 124


def main() -> int:
    """Run every part; 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", help="a checkout of the code that step times are compared with")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print(f"make gpu: no card here that torch {torch.__version__} can use; nothing was run")
        return 0
    print(f"make gpu: {torch.cuda.get_device_name()}, torch {torch.__version__}")
    failed, begun = [], time.time()
    with tempfile.TemporaryDirectory() as root:
        for name, command in commands(options.before, root).items():
            print(f"\n{name}: {' '.join(command[1:])}", flush=True)
            started = time.time()
            status = run(command, min(LIMITS[name], max(begun + ALL - started, 0)))
            what = "done" if status == 0 else "out of time" if status == 124 else f"failed with {status}"
            print(f"{name}: {what} after {time.time() - started:.0f} s", flush=True)
            failed += [name] if status else []
    print(f"\nmake gpu: {time.time() - begun:.0f} s; {'failed: ' + ', '.join(failed) if failed else 'all done'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
