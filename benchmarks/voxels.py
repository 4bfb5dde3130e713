"""What a voxel run's equivariance error is made of, the floors of interpolation, the voxeliser's share of a step.

    python benchmarks/voxels.py runs/voxels/NAME [--conformers 16] [--molecules 3]

Writes benchmarks/results/voxels.md.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from dataclasses import replace
from pathlib import Path

import torch

import equiscope as eq
from equiscope import records
from equiscope.runs.tracker import Tracking, measure_probe
from equiscope.runs.trained import Trained, open_run
from equiscope.tasks.voxels import probes
from equiscope.tasks.voxels.data import ConformerSet, load
from equiscope.tasks.voxels.generate import ConformerData, generate
from equiscope.tasks.voxels.task import ATOMIC_NUMBERS, Voxels
from equiscope.tasks.voxels.voxelise import Grid, voxelise

PAGE = Path(__file__).parent / "results" / "voxels.md"
VOXMOL = ("C", "H", "O", "N", "F", "S", "Cl", "Br")
EARLIER = {"trilinear": 2.9e-7, "cubic": 3.8e-9}


def floors(grid: Grid, conformers: ConformerSet, molecules: int, rotations: int = 4) -> dict[str, eq.Result]:
    """The oracle's split with each resampling, on the first conformers of as many molecules."""
    first = [int((conformers.molecule == m).nonzero()[0]) for m in conformers.molecule.unique()[:molecules].tolist()]
    batches = probes.gridded([conformers.batch(torch.tensor([i])) for i in first], grid, 0.0, 0)
    found = {}
    for kind in ("trilinear", "cubic"):
        declared = probes.so3_declaration(grid.size, kind)
        found[kind] = eq.measure(torch.nn.Identity(), batches, declared, forward=probes.exact(grid),
                                 rotations="haar", cosets=rotations, noise_samples=0)  # fmt: skip
    return found


def paper_grid(molecules: int) -> dict[str, eq.Result]:
    """The floors at 64³, 0.25 Å, radius 0.5 Å on molecules of 30 to 46 atoms."""
    grid = Grid(64, 0.25, 0.5, tuple(ATOMIC_NUMBERS[e] for e in VOXMOL))
    data = ConformerData(molecules=60, conformers=1, min_atoms=30, max_atoms=46, elements=VOXMOL)
    return floors(grid, load(generate(data, workers=1, progress=False), grid), molecules)


def measured(run: Trained, conformers: int) -> dict[str, eq.Result]:
    """Every final probe on some conformers of the run's final part."""
    assert isinstance(run.task, Voxels)
    task = Voxels(replace(run.task.settings, final_conformers=conformers))
    task.prepare(progress=False)
    return {probe.name: measure_probe(run.model, probe, Tracking(seed=1)) for probe in task.probes("final")}


def share_of_voxeliser(task: Voxels, steps: int = 5) -> tuple[float, float]:
    """Median seconds of process time of voxelising one training batch and of a whole training step."""
    task.prepare(progress=False)
    model = task.build_model()
    optimiser = torch.optim.AdamW(model.parameters())
    grids, whole = [], []
    for step in range(steps):
        batch = task.training_batch(step)
        begun = time.process_time()
        voxelise(batch["pos"], batch["species"], batch["mask"], task.settings.grid)
        grids.append(time.process_time() - begun)
        begun = time.process_time()
        optimiser.zero_grad()
        task.training_loss(model, batch)["loss"].backward()
        optimiser.step()
        whole.append(time.process_time() - begun)
    return sorted(grids)[steps // 2], sorted(whole)[steps // 2]


def tracked(folder: Path) -> list[str]:
    """Rows of the three quantities along training."""
    rows: dict[int, dict[str, dict]] = {}
    for entry in records.read(folder / "records.jsonl"):
        if entry["kind"] == "measure" and entry["part"] == "track":
            rows.setdefault(entry["step"], {})[entry["probe"]] = entry["result"]
    head = "| step | R² | (a) octahedral | (b) SO(3) | (c) noise averaged | rotation x noise |"
    lines = [head, "|---|---|---|---|---|---|"]
    for step, found in sorted(rows.items()):
        if len(found) == 3:
            a, b, c = (found[name] for name in (probes.OCTAHEDRAL, probes.SO3, probes.AVERAGED))
            cells = (f"{r['equivariance']:.2e} ({r['percent']:.2f} %)" for r in (a, b, c))
            both = f"{c['variance_parts']['rotation x noise']:.2e}"
            lines.append(f"| {step:,} | {a['r2']:.3f} | {' | '.join(cells)} | {both} |")
    return lines


def parts_table(found: dict[str, eq.Result]) -> list[str]:
    """What the SO(3) error of the trained model is made of, in units of the loss and as shares of (b)."""
    b, c = found[probes.SO3], found[probes.AVERAGED]
    oracle = found[probes.oracle_name("cubic")]
    whole = b.equivariance
    rows = [("(b) SO(3), cubic", whole), ("(c) noise averaged", c.equivariance),
            ("noise, (b) - (c)", whole - c.equivariance),
            ("interpolation, the oracle's own (cubic)", oracle.equivariance),
            ("(a) octahedral, no interpolation", found[probes.OCTAHEDRAL].equivariance),
            ("(a) of the noise-averaged model", found[probes.OCTAHEDRAL_AVERAGED].equivariance)]  # fmt: skip
    lines = ["| part | mean square | share of (b) |", "|---|---|---|"]
    return lines + [f"| {name} | {value:.2e} | {100 * value / whole:.1f} % |" for name, value in rows]


def page(folder: Path, conformers: int, molecules: int) -> str:
    """The whole page."""
    run = open_run(folder)
    found = measured(run, conformers)
    settings = run.task.settings  # type: ignore[attr-defined]
    own = {kind: found[probes.oracle_name(kind)] for kind in EARLIER}
    papers = paper_grid(molecules)
    grids, whole = share_of_voxeliser(Voxels(settings))
    load_average = os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan
    lines = [
        "# Voxels: network, noise and interpolation", "",
        f"Run of {settings.model} ({settings.size}) on {settings.grid.size}³ voxels of {settings.grid.resolution} Å, "
        f"sigma {settings.sigma}, at step {run.step:,}; (a), (b), (c) as in `equiscope/tasks/voxels/probes.py`; "
        "(a) is exact for the group O and a lower bound of the SO(3) error.", "",
        f"## At step {run.step:,}: {found[probes.OCTAHEDRAL].samples} final conformers", "",
        "| probe | percent (95 % interval) | equivariance error | total loss | R² |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for name, r in found.items():
        low, high = r.percent_interval
        lines.append(f"| {name} | {r.percent:.3g} ({low:.3g}–{high:.3g}) | {r.equivariance:.2e} | {r.total:.2e} | "
                     f"{r.r2:.3f} |")  # fmt: skip
    lines += ["", *parts_table(found), "", "## Along training", "", *tracked(folder), "",
              "## Interpolation's own error", "", "| grid | trilinear | cubic |", "|---|---|---|",
              f"| {settings.grid.size}³, {settings.grid.resolution} Å, radius {settings.grid.radius} Å | "
              f"{own['trilinear'].equivariance:.2e} | {own['cubic'].equivariance:.2e} |",
              f"| 64³, 0.25 Å, radius 0.5 Å ({papers['cubic'].samples} molecules) | "
              f"{papers['trilinear'].equivariance:.2e} | {papers['cubic'].equivariance:.2e} |",
              f"| the same, an earlier simulation | {EARLIER['trilinear']:.2e} | {EARLIER['cubic']:.2e} |", "",
              "Equivariance error of the exact answer turned back by each resampling, mean square per voxel.", "",
              "## The voxeliser's share of a training step", "",
              f"{1e3 * grids:.0f} ms of {1e3 * whole:.0f} ms process time ({100 * grids / whole:.1f} %), batch "
              f"{settings.batch_size}, {torch.get_num_threads()} thread(s), load {load_average:.1f}."]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--conformers", type=int, default=16)
    parser.add_argument("--molecules", type=int, default=3)
    given = parser.parse_args()
    text = page(given.run, given.conformers, given.molecules)
    PAGE.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
