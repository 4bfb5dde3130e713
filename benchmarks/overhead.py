"""What ``eq.measure`` costs beside as many bare passes of the model, and what folding gains.

    python benchmarks/overhead.py [--device cuda] [--only edge-nano …] [--rounds 5]

For every model one batch of its task's held-out samples is measured with two cosets of T (voxels: the whole octahedral
group, and SO(3) with cubic resampling), and the samples that went through the model are counted. Beside it stand bare
passes, ``model(batch)`` without gradients, of as many samples: with so many copies of the batch a call as the measure
folds, and one batch a call. The measure is taken between two stretches of bare passes, whose mean it is divided by, and
the ratio is the median over rounds. Of 64^3 voxels the processor is given one grid, with two cosets of D2. On a CPU
seconds are those of the processor, which other processes stretch less; on a GPU the clock is read when the device has
finished.

Results go to benchmarks/results/overhead.json, by device, and overhead.md, row by row; other rows stay.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import equiscope as eq
from equiscope.runs.config import configuration
from equiscope.runs.devices import hardware
from equiscope.runs.efficiency import Bench

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Case:
    """A model of a task, a probe of it, and the most that the measure may take of as many bare passes, if said.

    ``large`` models run on a GPU only, unless asked for by name; ``slow`` ones there with one sample and few passes.
    """

    name: str
    asked: float | None
    overrides: tuple[str, ...]
    probe: str | None = None
    large: bool = False
    slow: bool = False


_FIELD = ("task=forcefield", "batch_size=16")
_ESCAIP = (*_FIELD, "model=escaip")
_GRID = ("task=voxels", "grid.size=64", "grid.resolution=0.25", "grid.radius=0.5", "grid.sigma=0.9", "model.size=28M",
         "data.molecules=40", "data.track_conformers=2", "data.final_conformers=2")  # fmt: skip
CASES = (
    Case("edge-nano", 1.10, _FIELD),
    Case("escaip-nano", 1.10, _ESCAIP),
    Case("edge-6M", 1.10, (*_FIELD, "model.size=6M"), large=True),
    Case("escaip-6M", 1.10, (*_ESCAIP, "model.size=6M"), large=True),
    Case("voxels-24", 1.15, ("task=voxels",)),
    Case("voxels-24-cubic", None, ("task=voxels",), probe="cubic"),
    Case("voxels-64-28M", 1.15, _GRID, large=True, slow=True),
    Case("flow-60M", 1.10, ("task=proteinflow", "model.size=60M", "batch_size=16"), large=True),
)


def clock(device: torch.device) -> float:
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds(call: Callable[[], Any], device: torch.device) -> float:
    begun = clock(device)
    call()
    return clock(device) - begun


def measured(case: Case, device: torch.device, rounds: int) -> dict[str, Any]:
    """Seconds of the measure and of bare passes, in turn."""
    bench = Bench.of(configuration(["run=overhead", "logger=none", *case.overrides]), device)
    probes = bench.task.probes("track")
    chosen = next(p for p in probes if (p.headline if case.probe is None else case.probe in p.name))
    slow = case.slow and device.type == "cpu"
    batch = {name: value[: 1 if slow else None].to(device) for name, value in chosen.batches[0].items()}
    model, samples = bench.model.eval(), len(next(iter(batch.values())))
    forward = chosen.forward or (lambda model, batch: model(batch))
    counted: list[int] = []

    def counting(model: Any, batch: dict[str, torch.Tensor]) -> Any:
        counted.append(len(next(iter(batch.values()))))
        return forward(model, batch)

    design, cosets = ("D2", 2) if slow else (chosen.design.rotations or "T", chosen.design.cosets or 2)

    def measure(fold: int | str = "auto") -> None:
        counted.clear()
        eq.measure(model, [batch], chosen.declaration, forward=counting, rotations=design, cosets=cosets, fold=fold)

    if not slow:
        measure()
    folded = max(counted, default=samples) // samples
    copies = {k: v.repeat(folded, *[1] * (v.ndim - 1)) for k, v in batch.items()}

    def bare(native: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            forward(model, dict(native))

    bare(copies)
    stretch = 2 if slow else max(8 // folded, 1)
    ratios, whole, a_pass = [], [], []
    for _ in range(rounds):
        before = seconds(lambda: [bare(copies) for _ in range(stretch)], device)
        whole.append(seconds(measure, device))
        after = seconds(lambda: [bare(copies) for _ in range(stretch)], device)
        a_pass.append((before + after) / 2 / stretch / folded)
        passes, calls = sum(counted) / samples, len(counted)
        ratios.append(whole[-1] / (passes * a_pass[-1]))
    alone = [seconds(lambda: bare(batch), device) for _ in range(1 if slow else 5)]
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "samples": samples, "rotations_a_call": folded, "calls": calls, "sample_passes": passes * samples,
        "measure_seconds": float(np.median(whole)), "pass_seconds": float(np.median(a_pass)),
        "single_pass_seconds": float(np.median(alone)), "ratio": float(np.median(ratios)), "ratios": ratios,
        "asked": case.asked, "load": os.getloadavg()[0],
    }  # fmt: skip


def page(found: dict[str, Any]) -> str:
    """The table, one column a device."""
    lines = [
        "# What the measure costs beside as many bare passes",
        "",
        "`python benchmarks/overhead.py [--device cuda]`, which says how. `ratio` is the time of `eq.measure` on one "
        "batch over that of bare passes of as many samples, folded alike.",
        "",
    ]
    for kind, run in sorted(found.items()):
        where = f"{run['machine']}; torch {run['torch']}, Python {run['python']}, {run['clock']}. `load`: processes at "
        where += "work on the machine then; far above the cores it makes ratios uncertain by a quarter."
        lines += [f"## {kind}", "", where, ""]
        lines += ["| model | parameters | samples | rotations a call | a pass, ms | alone, ms | load | ratio | asked |",
                  "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]  # fmt: skip
        for name, row in run["cases"].items():
            asked = f"≤ {row['asked']:.2f}" if row["asked"] else "interpolates every answer"
            lines.append(
                f"| {name} | {row['parameters']:,} | {row['samples']} | {row['rotations_a_call']} | "
                f"{1e3 * row['pass_seconds']:.3g} | {1e3 * row['single_pass_seconds']:.3g} | {row['load']:.0f} | "
                f"{row['ratio']:.2f} | "
                f"{asked} |"
            )
        lines.append("")
    if "cuda" not in found:
        lines += ["## cuda", "", "Not measured yet: no card was at hand.", ""]
    return "\n".join(lines)


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{hardware(device)}, {torch.get_num_threads()} of {os.cpu_count()} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="*", default=[], help="names of cases; by default all, large ones on a GPU only")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    options = parser.parse_args()
    device = torch.device(options.device)
    for case in CASES:
        if case.name in options.only or (not options.only and (device.type != "cpu" or not case.large)):
            row = measured(case, device, options.rounds)
            print(case.name, json.dumps(row), flush=True)
            if not options.dry:
                keep(case.name, row, device)


def keep(name: str, row: dict[str, Any], device: torch.device) -> None:
    """Write a row as soon as it is known; those of the other cases stay where they are of the same machine."""
    stored = RESULTS / "overhead.json"
    found = json.loads(stored.read_text()) if stored.is_file() else {}
    about = {
        "machine": machine(device), "torch": torch.__version__, "python": platform.python_version(),
        "clock": "processor seconds" if device.type == "cpu" else "seconds",
    }  # fmt: skip
    before = found.get(device.type, {})
    rows = (before["cases"] if before.get("machine") == about["machine"] else {}) | {name: row}
    found[device.type] = {**about, "cases": {c.name: rows[c.name] for c in CASES if c.name in rows}}
    stored.write_text(json.dumps(found, indent=1) + "\n")
    (RESULTS / "overhead.md").write_text(page(found))


if __name__ == "__main__":
    main()
