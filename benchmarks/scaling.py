"""What the measure costs as a share of training, at the paper's sizes and beyond: measured passes, then arithmetic.

    python benchmarks/scaling.py [--only force-field …]

One training step and one gradient-free pass of the same batch are timed in turn for every size, on the processor at
hand; their ratio rho and the counts of a training give the share of tracking,

    share = points x samples x (rotations + 2) / (steps x batch x rho),

the two being the answer as given and the noise floor. Then a stream of a million samples through a model that costs
nothing shows what the measure itself needs: seconds and memory a sample. Results go to benchmarks/results/scaling.md.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
from dataclasses import dataclass

import numpy as np
import psutil
import torch
from pages import keep

import equiscope as eq
from equiscope.runs.config import configuration
from equiscope.runs.efficiency import Bench, seconds


@dataclass(frozen=True)
class Training:
    """A training as published (or imagined), and the configuration of one sample of it here.

    Attributes:
        batch, steps: of the training; rounds: timings taken, the first not counted; overrides: of ``equiscope train``.
    """

    name: str
    batch: int
    steps: int
    rounds: int
    overrides: tuple[str, ...]
    source: str = ""


_FIELD = ("task=forcefield", "batch_size=16")
_FLOW = ("task=proteinflow", "data.longest=256")
_GRID = ("task=voxels", "batch_size=1")
_PAPER_GRID = ("grid.size=64", "grid.resolution=0.25", "grid.radius=0.5", "grid.sigma=0.9")
TRAININGS = (
    Training("force field, nano, demo", 32, 2400, 15, _FIELD),
    Training("force field, 1M", 64, 445_000, 9, (*_FIELD, "model.size=1M")),
    Training("force field, 6M, 950k structures", 64, 445_000, 5, (*_FIELD, "model=escaip", "model.size=6M"),
             "EScAIP on SPICE, 30 epochs"),
    Training("protein flow, 1M", 16, 4000, 7, (*_FLOW, "batch_size=4")),
    Training("protein flow, 60M, PDB", 4, 1_100_000, 6, (*_FLOW, "batch_size=2", "model.size=60M"), "Proteina"),
    Training("protein flow, 400M, PDB", 4, 123_000, 6, (*_FLOW, "batch_size=1", "model.size=400M"), "Proteina"),
    Training("voxels, nano", 8, 2400, 7, (*_GRID,)),
    Training("voxels 64³, 111M, GEOM-drugs", 64, 94_800, 5, (*_GRID, *_PAPER_GRID, "model.size=111M"),
             "VoxMol, to the last step of its curves"),
)  # fmt: skip

# What one measurement of the tracked set takes: samples, and rotations of each.
SETTINGS = {"64 samples, 2 x T": (64, 24), "256 samples, 2 x D2": (256, 8), "1,000 samples, 2 x T": (1000, 24),
            "the paper's: 500 samples, 10 rotations": (500, 10)}  # fmt: skip

POINTS = 40


class Pass:
    """The gradient-free pass and the training step of one bench's batch, for :func:`seconds`."""

    def __init__(self, bench: Bench):
        self.bench = bench
        self.train_step = bench.train_step

    def infer(self) -> None:
        with torch.no_grad():
            self.bench.task.training_loss(self.bench.model, self.bench.batch)


def measured(training: Training) -> dict:
    """Seconds of a step and of a pass, in turn, and the parameters."""
    bench = Bench.of(configuration(["run=scaling", "logger=none", *training.overrides]))
    taken = Pass(bench)
    steps, passes = [], []
    for _ in range(training.rounds + 1):
        steps.append(float(seconds([taken], "train_step", 1, warmup=0)[0, 0]))
        passes.append(float(seconds([taken], "infer", 1, warmup=0)[0, 0]))
    # The first round allocates: the optimiser's state, the kernels' workspaces.
    ratios = np.array(steps[1:]) / np.array(passes[1:])
    return {
        "name": training.name,
        "parameters": sum(p.numel() for p in bench.model.parameters()),
        "batch": training.batch,
        "steps": training.steps,
        "source": training.source,
        "timed_batch": bench.samples,
        "pass_seconds": float(np.median(passes[1:])) / bench.samples,
        "step_seconds": float(np.median(steps[1:])) / bench.samples,
        "ratio": float(np.median(ratios)),
        "ratios": ratios.tolist(),
    }


def share(row: dict, samples: int, rotations: int, points: int) -> float:
    """Of the time of training that ``points`` measurements add."""
    return points * samples * (rotations + 2) / (row["steps"] * row["batch"] * row["ratio"])


def stream(samples: int, batch: int = 4096) -> dict:
    """Seconds and resident bytes a sample that ``eq.measure`` adds, with a model that answers at once."""
    pos, forces = torch.randn(batch, 4, 3), torch.randn(batch, 4, 3)

    def batches():
        for first in range(0, samples, batch):
            size = min(batch, samples - first)
            yield {"pos": pos[:size], "forces": forces[:size], "id": torch.arange(first, first + size)}

    process = psutil.Process()
    gc.collect()
    before, begun = process.memory_info().rss, time.perf_counter()
    result = eq.measure(
        lambda b: {"forces": b["pos"]}, batches(), inputs={"pos": "1o"}, outputs={"forces": "1o"}, target="forces",
        ids="id", rotations="D2", cosets=2,
    )  # fmt: skip
    held = process.memory_info().rss - before
    spent = time.perf_counter() - begun
    return {"samples": result.samples, "passes": result.passes, "seconds": spent, "bytes": held / samples}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="parts of the names of the trainings to time")
    parser.add_argument("--stream", type=int, default=1_000_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    # First, while the process is small: what it holds afterwards is then the stream's.
    report = {"stream": stream(options.stream), "trainings": [], "threads": 1}
    print(json.dumps(report["stream"]), flush=True)
    for training in TRAININGS:
        if options.only and not any(text in training.name for text in options.only):
            continue
        report["trainings"].append(measured(training))
        print(json.dumps(report["trainings"][-1]), flush=True)
        gc.collect()
    report["load"] = os.getloadavg()
    keep("scaling", as_markdown, report)


def _short(value: float) -> str:
    """Two digits, or all before the point."""
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}"


def as_markdown(report: dict) -> str:
    """Ratios, then shares for some settings, then what keeps the share under one percent."""
    stream, rows = report["stream"], report["trainings"]
    lines = [
        "# What the measure costs at scale",
        "",
        f"One thread, load {report['load'][0]:.1f}. A pass is gradient-free; steps and passes of one batch in turn.",
        "",
        "| training | parameters | batch x steps | ms a sample and pass | step / pass | source |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {r['name']} | {r['parameters']:,} | {r['batch']} x {r['steps']:,} | {1e3 * r['pass_seconds']:.1f} | "
        f"{r['ratio']:.1f} ({min(r['ratios']):.1f}–{max(r['ratios']):.1f}) | {r['source'] or 'ours'} |"
        for r in rows
    ]
    lines += ["", f"Share of the training's time that {POINTS} measurements take:", "",
              "| training | " + " | ".join(SETTINGS) + " |", "| --- |" + " --- |" * len(SETTINGS)]  # fmt: skip
    for r in rows:
        shares = [share(r, samples, rotations, POINTS) for samples, rotations in SETTINGS.values()]
        lines.append(f"| {r['name']} | " + " | ".join(f"{_short(100 * s)} %" for s in shares) + " |")
    lines += [
        "",
        "Sample passes a measurement may take if that many measurements are to stay under 1 %, and what they buy:",
        "",
        "| training | sample passes | samples at 2 x T | samples at 2 x D2 |",
        "| --- | --- | --- | --- |",
    ]
    for r in rows:
        passes = 0.01 * r["steps"] * r["batch"] * r["ratio"] / POINTS
        lines.append(f"| {r['name']} | {passes:,.0f} | {passes / 26:,.0f} | {passes / 10:,.0f} |")
    each = stream["seconds"] / stream["samples"]
    lines += [
        "",
        f"The measure itself: {stream['samples']:,} samples of four atoms through a model that answers at once, "
        f"{stream['passes']} passes each: {1e6 * each:.0f} µs and {stream['bytes']:.0f} bytes a sample.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
