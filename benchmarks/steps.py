"""Seconds of a training step of every preset, of this code and of another commit's in turn, on a device.

    git worktree add ../before COMMIT
    python benchmarks/steps.py --before ../before [--device cuda] [--sizes paper] [--now trainer.precision=bf16-mixed …]

Each code has a process of its own, and the two train in turn, A B, B A, …; on a CPU every turn has new processes, since
where one puts its tensors makes it faster or slower by some percent for as long as it lives. A run is whole: Lightning,
batches, average of the weights. A step is the difference between a long run and a short one over their steps, in seconds
of the processor's own time on a CPU (which other work on the machine hardly changes) and of the clock on a GPU. The ratio
is the median over turns of pairs side by side. Beside it stands what does not depend on the machine's mood: the operations
of a step that reach torch's kernels, and the bytes that they write. Results go to benchmarks/results/gpu/steps-DEVICE.json
and .md; presets that --only leaves out keep their rows where these were made beside the same commit on the same hardware.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pages import store, table
from torch.utils._python_dispatch import TorchDispatchMode

RESULTS = Path(__file__).parent / "results" / "gpu"
_QUIET = ("logger=none", "trainer.checkpoint_every=100000", "trainer.keep=0", "track.points=2", "threads=1")
_FIELD = ("task=forcefield", "data.frames=96", "data.max_atoms=14", "data.track_frames=2", "data.final_frames=2")
_FLOW = ("task=proteinflow", "data.track_chains=2", "data.final_chains=2", "track.times=[0.5]")
_GRID = ("task=voxels", "data.molecules=40", "data.track_conformers=2", "data.final_conformers=2")
_BIG = ("task=forcefield", "data.frames=2000", "data.max_atoms=24", "batch_size=64", "model.size=6M")
_PAPER_GRID = ("grid.size=64", "grid.resolution=0.25", "grid.radius=0.5", "grid.sigma=0.9", "model.size=28M")
#: Name -> (overrides, steps of the long run).
PRESETS = {
    "default": {
        "forcefield, edge transformer nano": (_FIELD, 40),
        "forcefield, EScAIP nano": ((*_FIELD, "model=escaip"), 30),
        "proteinflow, Proteina 1M": (_FLOW, 40),
        "voxels, U-Net nano": (_GRID, 30),
    },
    "paper": {
        "edge transformer 6M, batch 64": (_BIG, 120),
        "EScAIP 6M, batch 64": ((*_BIG, "model=escaip"), 120),
        "Proteina 60M, 16 × 128": ((*_FLOW, "data.longest=128", "model.size=60M", "batch_size=16"), 40),
        "VoxMol 28M, batch 16": ((*_GRID, *_PAPER_GRID, "batch_size=16"), 20),
    },
}
HEAD = ("preset", "turns", "load", "before, ms", "now, ms", "ratio", "operations", "MB written")
SHORT = 4
COUNT = "count"


class Counted(TorchDispatchMode):
    """Operations that reach the kernels inside, and bytes of their answers."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.written = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.operations += 1
        self.written += out.numel() * out.element_size() if isinstance(out, torch.Tensor) else 0
        return out


def counted(overrides: list[str]) -> dict[str, int]:
    """Of one training step, forward and back."""
    from equiscope.runs.config import configuration
    from equiscope.runs.efficiency import Bench

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as root:
        bench = Bench.of(configuration([*overrides, "run=counted", f"root={root}"]))
        bench.train_step()
        with Counted() as count:
            bench.train_step()
    return {"operations": count.operations, "written": count.written}


def worker() -> None:
    """Train what standard input asks for, a line a run, and answer with its seconds of the clock and of the processor."""
    import time

    from equiscope import records
    from equiscope.runs.config import configuration
    from equiscope.runs.train import train

    for line in sys.stdin:
        overrides = json.loads(line)
        if overrides[0] == COUNT:
            print(json.dumps(counted(overrides[1:])), flush=True)
            continue
        with tempfile.TemporaryDirectory() as root:
            config = configuration([*overrides, "run=timed", f"root={root}"])
            begun = time.process_time()
            folder = train(config, show_progress=False)
            spent = time.process_time() - begun
            end = records.read(folder.records)[-1]
        print(json.dumps({"clock": end["train_seconds"], "processor": spent}), flush=True)


class Code:
    """One checkout in a process of its own."""

    def __init__(self, source: Path, place: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(source.resolve() / "src"), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(Path(__file__).resolve()), "--worker"]
        self._process = subprocess.Popen(
            command, env=environment, cwd=place, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def end(self) -> None:
        """End the process."""
        self._process.communicate()

    def step(self, overrides: list[str], steps: int, which: str) -> float:
        """Seconds of a step: long run minus short run."""
        long, short = (self.run([*overrides, f"trainer.max_steps={count}"])[which] for count in (steps + SHORT, SHORT))
        return (long - short) / steps

    def run(self, overrides: list[str]) -> dict[str, float]:
        """Seconds of a run, of the clock and of the processor."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(overrides) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit("the process that trains ended; see what it said above")


def measured(options: argparse.Namespace, done: Callable[[list[dict]], None]) -> None:
    """A row a preset, told to ``done`` as they come."""
    rows = []
    fresh = options.device == "cpu"
    which, codes = "processor" if fresh else "clock", dict[int, Code]()
    with tempfile.TemporaryDirectory() as place:
        # Without another code the figures of this one stand alone.
        sources = [options.before or Path(__file__).parent.parent, Path(__file__).parent.parent]
        for name, (overrides, steps) in PRESETS[options.sizes].items():
            if options.only and options.only not in name:
                continue
            common = [*_QUIET, *overrides, f"trainer.accelerator={options.device}"]
            found: list[list[float]] = [[], []]
            counts: list[dict[str, float]] = []
            settings = [common, [*common, *options.now]]
            for turn in range(options.turns):
                codes = codes or {i: Code(sources[i], place) for i in (0, 1) if i or options.before}
                for warm in (True, False) if fresh or not turn else (False,):
                    for i in sorted(codes, reverse=bool(turn % 2)):
                        if warm:  # makes data
                            codes[i].run([*settings[i], f"trainer.max_steps={SHORT}"])
                        else:
                            found[i].append(codes[i].step(settings[i], steps, which))
                if turn + 1 == options.turns:
                    counts = [codes[i].run([COUNT, *settings[i]]) for i in sorted(codes)]
                while fresh and codes:
                    codes.popitem()[1].end()
            if not options.before:
                found[0] = [float("nan")] * options.turns
            ratios = [new / old for old, new in zip(*found, strict=True)]
            row = {"preset": name, "before": statistics.median(found[0]), "now": statistics.median(found[1]),
                   "ratio": statistics.median(ratios), "ratios": ratios, "settings": options.now,
                   "operations": [count["operations"] for count in counts],
                   "written": [count["written"] for count in counts], "load": os.getloadavg()[0]}  # fmt: skip
            rows.append(row)
            done(rows)
    for code in codes.values():
        code.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--before", type=Path, help="a checkout of the code compared with")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--sizes", default="default", choices=tuple(PRESETS))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--only", help="part of the name of the presets")
    parser.add_argument("--now", nargs="*", default=[], metavar="key=value", help="settings of this code alone")
    options = parser.parse_args()
    if options.worker:
        worker()
        return
    commit = "none"
    if options.before is not None:
        asked = ["git", "-C", str(options.before), "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    from equiscope.runs.devices import hardware

    about = {"device": options.device, "hardware": hardware(torch.device(options.device)), "against": commit}
    told = {**about, "threads": 1}
    measured(options, lambda rows: write({**told, "rows": rows}, list(PRESETS[options.sizes])))


def cells(row: dict) -> tuple[str, ...]:
    """What a row says under ``HEAD``; where no other code was timed there is nothing before."""
    before = "–" if row["before"] != row["before"] else f"{1000 * row['before']:.1f}"
    ratio = f"{row['ratio']:.3f} ({min(row['ratios']):.3f}–{max(row['ratios']):.3f})"
    counts = (" → ".join(f"{n / unit:,.0f}" for n in row[what]) for what, unit in (("operations", 1), ("written", 1e6)))
    return row["preset"], str(len(row["ratios"])), f"{row['load']:.1f}", before, f"{1000 * row['now']:.1f}", ratio, *counts


def write(report: dict, order: list[str]) -> None:
    """The two files of results; the column of a GPU is open where none was at hand."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    name = f"steps-{report['device']}"
    place = RESULTS / f"{name}.json"
    kept = json.loads(place.read_text()) if place.exists() else {}
    if all(kept.get(what) == report[what] for what in ("hardware", "against")):
        rows = {row["preset"]: row for row in [*kept["rows"], *report["rows"]]}
        report = {**report, "rows": [rows[name] for name in order if name in rows]}
    store(place, report)
    open_here = "open" if report["device"] == "cpu" else "here"
    seconds = "seconds of the processor" if report["device"] == "cpu" else "seconds of the clock"
    lines = [
        f"# A training step beside commit {report['against']}, {report['device']}",
        "",
        f"{report['hardware']}, one thread; {seconds}, whole runs in turn; the ratio is the median of pairs, with the "
        "lowest and the highest. Asked on a CPU: at most 1.02.",
        "",
        *table((*HEAD, "on a GPU"), [(*cells(row), open_here) for row in report["rows"]]),
    ]
    (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
