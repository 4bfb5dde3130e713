"""Cost of the largest eigenvalue of both losses of a 1M force field: 32 samples x one T coset, on the demo's data.

    python benchmarks/curvature.py RUN [--threads 2] [--size 1M] [--batch 8]

Writes benchmarks/results/curvature.json. The frames are RUN's held-out ones; the network has the weights of RUN where
RUN has that size, else fresh ones.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import torch

from equiscope.analysis.hessian import CurvatureOperator, largest_eigenvalue
from equiscope.analysis.parts import Parts
from equiscope.runs.trained import open_run
from equiscope.tasks.forcefield import models


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", default="1M")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--memory", default="batch")
    parser.add_argument("--tolerance", type=float, default=0.05)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    run = open_run(given.run)
    run.task.prepare(progress=False)
    probe = run.task.probes("final")[0]
    frames = {k: torch.cat([_padded(b, probe.batches)[k] for b in probe.batches]) for k in probe.batches[0]}
    torch.manual_seed(0)
    order = torch.randperm(len(frames["pos"]))[: given.samples]
    batches = [{k: v[rows] for k, v in frames.items()} for rows in order.split(given.batch)]
    name = run.config["model"]["name"]
    own = run.config["model"]["size"] == given.size
    model = run.model if own else models.build(name, given.size)
    began = time.perf_counter()
    parts = Parts(model, batches, probe.declaration, forward=probe.forward, cosets=1, memory=given.memory)
    found = {}
    for part in ("twirled", "equivariance"):
        start = time.perf_counter()
        operator = CurvatureOperator(parts, part)
        top = largest_eigenvalue(operator, tolerance=given.tolerance, steps=given.steps)
        top.pop("vector")
        parts.release()
        found[part] = {**top, "products": operator.products, "seconds": time.perf_counter() - start}
        print(part, found[part], flush=True)
    result = {
        "model": name, "size": given.size, "weights": "trained" if own else "fresh", "parameters": parts.size,
        "samples": given.samples, "batch": given.batch, "rotations": "one T coset", "memory": given.memory,
        "tolerance": given.tolerance, "threads": given.threads, "load": os.getloadavg()[0],
        "losses": parts.values, "parts": found, "seconds": time.perf_counter() - began,
    }
    print(f"{result['seconds']:.0f} s in all")
    place = Path(__file__).parent / "results" / "curvature.json"
    place.write_text(json.dumps(result, indent=1) + "\n")


def _padded(batch: dict, batches: list) -> dict:
    """A batch padded to the most atoms of all."""
    most = max(b["pos"].shape[1] for b in batches)

    def widen(value: torch.Tensor) -> torch.Tensor:
        if value.ndim < 2 or value.shape[1] != batch["pos"].shape[1]:
            return value
        shape = (value.shape[0], most - value.shape[1], *value.shape[2:])
        return torch.cat([value, value.new_zeros(shape)], dim=1)

    return {k: widen(v) for k, v in batch.items()}


if __name__ == "__main__":
    main()
