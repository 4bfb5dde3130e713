"""Memory and speed of reading a large data set: a synthetic file in SPICE 2's layout, streamed, converted, used.

    python benchmarks/datasets.py [--frames 1000000] [--folder FOLDER] [--page]

Results go to benchmarks/results/datasets.json and .md; ``--page`` writes the page from there again, and no more.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pages import keep, table

from equiscope.tasks import build
from equiscope.tasks.datasets import stream
from equiscope.tasks.datasets.description import describe
from equiscope.tasks.datasets.hdf5 import Spice
from equiscope.units import BOHR, HARTREE

PER_GROUP = 50
LIMIT_GB, LIMIT_TIMES = 1.0, 5.0


def write(path: Path, frames: int, seed: int = 0) -> None:
    """So many frames in SPICE 2's layout: groups of 50 conformations of 10 to 30 atoms H, C, N, O."""
    import h5py

    rng = np.random.default_rng(seed)
    with h5py.File(path, "w") as file:
        for number in range(-(-frames // PER_GROUP)):
            atoms, count = int(rng.integers(10, 31)), min(PER_GROUP, frames - number * PER_GROUP)
            z = rng.choice([1, 6, 7, 8], atoms, p=[0.5, 0.35, 0.07, 0.08])
            # A lattice with noise: distances of a molecule, so that neighbour lists have their real length.
            lattice = np.argwhere(np.ones((4, 4, 4)))[rng.permutation(64)[:atoms]] * 1.5
            x = lattice + 0.15 * rng.normal(size=(count, atoms, 3))
            group = file.create_group(f"{number:07d}")
            group["smiles"] = [b"C"]
            group["atomic_numbers"] = z.astype(np.int16)
            for name, value, dtype, unit in (
                ("conformations", x / BOHR, np.float32, "bohr"),
                ("dft_total_energy", rng.normal(size=count) * 0.01 - z.sum(), np.float64, "hartree"),
                ("dft_total_gradient", rng.normal(size=x.shape) * BOHR / HARTREE, np.float32, "hartree/bohr"),
            ):
                group.create_dataset(name, data=value.astype(dtype)).attrs["units"] = unit


def peak_gb() -> float:
    """The largest resident memory of this process so far, memory-mapped pages included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def consumption(task: object, steps: int = 60) -> float:
    """Samples a second that training takes: forward, backward, optimiser, its batches included."""
    model = task.build_model()
    optimizer = torch.optim.AdamW(model.parameters())
    started = None
    for step in range(steps + 5):
        if step == 5:
            started = time.perf_counter()
        loss = task.training_loss(model, task.training_batch(step))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return 32 * steps / (time.perf_counter() - started)


def throughput(task: object, steps: int = 1000) -> float:
    """Samples a second of training batches alone: random access, padding, each sample turned."""
    started = time.perf_counter()
    for step in range(5, steps + 5):
        task.training_batch(step)
    return 32 * steps / (time.perf_counter() - started)


def measured(frames: int, folder: str) -> dict[str, Any]:
    """Seconds and memory of reading, converting and drawing so many frames, written into ``folder`` first."""
    path = Path(folder) / "synthetic.hdf5"
    # In a process of its own: what writing needs is no part of what reading needs.
    if (child := os.fork()) == 0:
        write(path, frames)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    import h5py  # noqa: F401  (its memory belongs to the baseline)

    base, rows = peak_gb(), []
    record = {"frames": frames, "gb": path.stat().st_size / 2**30, "threads": torch.get_num_threads(),
              "load": os.getloadavg()[0], "base_gb": base, "rows": rows}  # fmt: skip

    def row(what: str, begun: float) -> None:
        rows.append({"what": what, "seconds": time.perf_counter() - begun, "gb": peak_gb() - base})

    begun, rejected = time.perf_counter(), Counter()
    found = describe(stream.read(Spice(path), stream.Rules(), stream.Sample(), rejected), {}, rejected)
    assert found.frames == frames
    row("describe (one pass)", begun)
    task = build(
        {
            "task": "forcefield", "seed": 0, "augment": True, "batch_size": 32,
            "data": {"format": "spice", "path": str(path), "store": f"{folder}/s.frames", "track_frames": 48},
            "model": {"name": "edge_transformer", "size": "nano"},
            "loss": {"name": "squared", "forces": 1.0, "energy": 0.01},
        }
    )  # fmt: skip
    begun = time.perf_counter()
    task.prepare(progress=False)
    row("convert, check, open for training (once)", begun)
    record["loader"] = throughput(task)
    record["drawing_gb"] = peak_gb() - base
    record["used"] = consumption(task)
    return record | {"training_gb": peak_gb() - base}


def page(record: dict[str, Any]) -> str:
    """The table, and the two figures that are asked for."""
    rows = [
        (row["what"], f"{row['seconds']:.1f}", f"{record['frames'] / row['seconds']:,.0f}", f"{row['gb']:.2f} GB")
        for row in record["rows"]
    ]
    return "\n".join([
        "# Reading a large data set",
        "",
        "`make datasets`",
        "",
        f"{record['frames']:,} frames in SPICE 2's layout, {record['gb']:.2f} GB; {record['threads']} thread(s), "
        f"load {record['load']:.1f}",
        "",
        *table(("what", "seconds", "frames/s", "peak memory above the baseline"), rows),
        "",
        f"Memory while describing, converting and drawing batches: {record['drawing_gb']:.2f} GB above the baseline of "
        f"{record['base_gb']:.2f} GB (asked: under {LIMIT_GB:g} GB; memory-mapped pages count). With the model in training: "
        f"{record['training_gb']:.2f} GB.",
        f"Loader: {record['loader']:,.0f} samples/s; the nano model takes {record['used']:,.0f} samples/s in training: "
        f"{record['loader'] / record['used']:.0f} times (asked: at least {LIMIT_TIMES:g}).",
        "",
    ])  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--frames", type=int, default=1_000_000)
    options.add_argument("--folder", type=Path)
    options.add_argument("--page", action="store_true", help="measure nothing")
    given = options.parse_args()
    if given.page:
        keep("datasets", page)
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        record = measured(given.frames, folder)
    keep("datasets", page, record)
    memory, loader, used = record["drawing_gb"], record["loader"], record["used"]
    assert memory < LIMIT_GB, f"{memory:.2f} GB above the baseline"
    assert loader > LIMIT_TIMES * used, f"loader {loader:.0f}/s, model {used:.0f}/s"


if __name__ == "__main__":
    main()
