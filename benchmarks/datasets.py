"""Memory and speed of reading a large data set: a synthetic file in SPICE 2's layout, streamed, converted, used.

python benchmarks/datasets.py [--frames 1000000] [--folder FOLDER] [--out benchmarks/results/datasets.md]
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch

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


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--frames", type=int, default=1_000_000)
    options.add_argument("--folder", type=Path)
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        path, lines = Path(folder) / "synthetic.hdf5", []
        # In a process of its own: what writing needs is no part of what reading needs.
        if (child := os.fork()) == 0:
            write(path, given.frames)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        load = os.getloadavg()[0]
        size = path.stat().st_size / 2**30
        import h5py  # noqa: F401  (its memory belongs to the baseline)

        base = peak_gb()
        lines += [
            f"{given.frames:,} frames in SPICE 2's layout, {size:.2f} GB; {torch.get_num_threads()} thread(s), "
            f"load {load:.1f}",
            "",
            "| what | seconds | frames/s | peak memory above the baseline |",
            "| --- | --- | --- | --- |",
        ]

        def row(what: str, seconds: float) -> None:
            speed = f"{given.frames / seconds:,.0f}"
            lines.append(f"| {what} | {seconds:.1f} | {speed} | {peak_gb() - base:.2f} GB |")

        started, rejected = time.perf_counter(), Counter()
        found = describe(stream.read(Spice(path), stream.Rules(), stream.Sample(), rejected), {}, rejected)
        assert found.frames == given.frames
        row("describe (one pass)", time.perf_counter() - started)
        task = build(
            {
                "task": "forcefield", "seed": 0, "augment": True, "batch_size": 32,
                "data": {"format": "spice", "path": str(path), "store": f"{folder}/s.frames", "track_frames": 48},
                "model": {"name": "edge_transformer", "size": "nano"},
                "loss": {"name": "squared", "forces": 1.0, "energy": 0.01},
            }
        )  # fmt: skip
        started = time.perf_counter()
        task.prepare(progress=False)
        row("convert, check, open for training (once)", time.perf_counter() - started)
        loader = throughput(task)
        memory = peak_gb() - base
        used = consumption(task)
        lines += [
            "",
            f"Memory while describing, converting and drawing batches: {memory:.2f} GB above the baseline of "
            f"{base:.2f} GB (asked: under {LIMIT_GB:g} GB; memory-mapped pages count). With the model in training: "
            f"{peak_gb() - base:.2f} GB.",
            f"Loader: {loader:,.0f} samples/s; the nano model takes {used:,.0f} samples/s in training: "
            f"{loader / used:.1f} times (asked: at least {LIMIT_TIMES:g}).",
        ]
    text = "# Reading a large data set\n\n`make datasets`\n\n" + "\n".join(lines) + "\n"
    print(text)
    if given.out:
        given.out.write_text(text)
    assert memory < LIMIT_GB, f"{memory:.2f} GB above the baseline"
    assert loader > LIMIT_TIMES * used, f"loader {loader:.0f}/s, model {used:.0f}/s"


if __name__ == "__main__":
    main()
