"""What a voxel run's equivariance error is made of, the floors of interpolation, the voxeliser's share of a step.

    python benchmarks/voxels.py runs/voxels/NAME [--conformers 16] [--molecules 3]

Results go to benchmarks/results/voxels.json; without a run the page is written from there again.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pages import keep, table

import equiscope as eq
from equiscope import records
from equiscope.runs.tracker import Tracking, measure_probe
from equiscope.runs.trained import Trained, open_run
from equiscope.tasks.voxels import probes
from equiscope.tasks.voxels.data import ConformerSet, load
from equiscope.tasks.voxels.generate import ConformerData, generate
from equiscope.tasks.voxels.task import ATOMIC_NUMBERS, Voxels
from equiscope.tasks.voxels.voxelise import Grid, voxelise

VOXMOL = ("C", "H", "O", "N", "F", "S", "Cl", "Br")
#: The three quantities along training, by letter, and every probe at the end as the page calls it.
ALONG = {"a": probes.OCTAHEDRAL, "b": probes.SO3, "c": probes.AVERAGED}
NAMES = {
    probes.OCTAHEDRAL: "(a) octahedral", probes.OCTAHEDRAL_AVERAGED: "(a) of the noise-averaged model",
    probes.SO3: "(b) SO(3), cubic", probes.TRILINEAR: "(b) SO(3), trilinear",
    probes.AVERAGED: "(c) SO(3), cubic, noise averaged", probes.oracle_name("cubic"): "oracle, cubic",
    probes.oracle_name("trilinear"): "oracle, trilinear",
}  # fmt: skip


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


def figures(result: dict[str, Any]) -> dict[str, Any]:
    """What the page shows of a result; low is 0 where the error is not told from none."""
    low, high = result["percent_interval"]
    return {"percent": result["percent"], "low": low, "high": high, "told": low > 0, "error": result["equivariance"],
            "total": result["total"], "r2": result["r2"]}  # fmt: skip


def along(folder: Path) -> list[dict[str, Any]]:
    """The three quantities along training, from the run's records."""
    steps: dict[int, dict[str, dict]] = {}
    for entry in records.read(folder / "records.jsonl"):
        if entry["kind"] == "measure" and entry["part"] == "track":
            steps.setdefault(entry["step"], {})[entry["probe"]] = entry["result"]
    return [
        {"step": step, **{letter: figures(found[name]) for letter, name in ALONG.items()},
         "crossed": found[probes.AVERAGED]["variance_parts"]["rotation x noise"]}
        for step, found in sorted(steps.items()) if set(ALONG.values()) <= set(found)
    ]  # fmt: skip


def everything(folder: Path, conformers: int, molecules: int) -> dict[str, Any]:
    """The record of a run."""
    run = open_run(folder)
    found = measured(run, conformers)
    settings = run.task.settings  # type: ignore[attr-defined]
    papers = paper_grid(molecules)
    grids, whole = share_of_voxeliser(Voxels(settings))
    (first,) = (e for e in records.read(folder / "records.jsonl") if e["kind"] == "run")
    (last,) = (e for e in records.read(folder / "records.jsonl") if e["kind"] == "end")
    return {
        "model": settings.model, "size": settings.size, "parameters": first["parameters"],
        "grid": {name: getattr(settings.grid, name) for name in ("size", "resolution", "radius")},
        "sigma": settings.sigma, "batch": settings.batch_size, "steps": run.step, "threads": torch.get_num_threads(),
        "train_seconds": last["train_seconds"], "track_seconds": last["track_seconds"], "along": along(folder),
        "conformers": found[probes.OCTAHEDRAL].samples,
        "end": {NAMES[name]: figures(result.to_dict()) for name, result in found.items()},
        "paper_grid": {"molecules": papers["cubic"].samples, "rotations": 4,
                       **{kind: result.equivariance for kind, result in papers.items()}},
        "voxeliser_seconds": grids, "step_seconds": whole,
    }  # fmt: skip


def story(record: dict[str, Any]) -> list[str]:
    """What the errors along training and at the end are made of, in words."""
    rows, end, lines = record["along"], record["end"], []
    dip, last = min(rows, key=lambda row: row["a"]["percent"]), rows[-1]
    lowest, highest = (f(row["a"]["error"] for row in rows[rows.index(dip) :]) for f in (min, max))
    if dip["a"]["percent"] < 2 and dip["a"]["r2"] < 0.5:
        lines += [
            f"A dip under 2 % while the model predicts little (step {dip['step']}, R² {dip['a']['r2']:.2f}), then a percent",
            f"that climbs to {last['a']['percent']:.1f} % while the absolute error (a) lies between {lowest:.1e} and "
            f"{highest:.1e}, and the loss falls.",
            "",
        ]
    a, mean, b, c = (end[NAMES[n]] for n in (probes.OCTAHEDRAL, probes.OCTAHEDRAL_AVERAGED, probes.SO3, probes.AVERAGED))
    noise, own = b["error"] - c["error"], end[NAMES[probes.oracle_name("cubic")]]["error"]
    return [
        *lines,
        f"- Of the SO(3) error (b) at the end, {b['error']:.1e}, {100 * noise / b['error']:.0f} % ({noise:.1e}, (b) less (c)) "
        "is noise that stays on its",
        f"  lattice while the molecule turns. {c['error']:.1e} is left; interpolating the exact answer costs {own:.1e}.",
        f"- Of the octahedral error (a), {a['error']:.1e}, where nothing is interpolated and the noise turns along, "
        f"{100 * (1 - mean['error'] / a['error']):.0f} % goes",
        "  when the noise is averaged out: the network answers the same noise differently in another orientation. "
        f"{mean['error']:.1e},",
        f"  or {mean['percent']:.1f} % of the loss, is left.",
        "",
        "One run, one size of model and data; other sizes were not measured so.",
    ]


def page(record: dict[str, Any]) -> str:
    """The whole page."""
    grid, papers, rows, end = record["grid"], record["paper_grid"], record["along"], record["end"]
    oracle = {kind: end[NAMES[probes.oracle_name(kind)]]["error"] for kind in ("trilinear", "cubic")}
    above = {letter: sum(row["a"]["error"] > row[letter]["error"] for row in rows) for letter in "bc"}

    def cell(one: dict[str, Any]) -> str:
        return f"{one['error']:.2e} ({one['percent']:.3g} %{'' if one['told'] else ', not told from 0'})"

    return "\n".join([
        "# Voxels: network, noise and interpolation", "",
        f"A `{record['model']}` ({record['size']}, {record['parameters']:,} parameters) on {grid['size']}³ voxels of "
        f"{grid['resolution']} Å, radius {grid['radius']} Å, sigma {record['sigma']}, batch {record['batch']}, "
        f"{record['steps']:,} steps:",
        f"training {record['train_seconds'] / 60:.1f} min, tracking {record['track_seconds'] / 60:.1f} min, "
        f"{record['threads']} thread(s). (a), (b), (c) as in `equiscope/tasks/voxels/probes.py`;",
        "(a) is exact for the group O, and a lower bound of the SO(3) error of grids that turn noise and all. (b) and (c) are "
        "not that",
        f"error: their noise stays on its lattice and the answer is resampled, so that (a) exceeds (b) in {above['b']} and (c) "
        f"in {above['c']} of the {len(rows)}",
        "measurements along training. Mean squares per voxel; percent of the total loss.", "",
        "## Along training", "",
        *table(("step", "R²", "(a) octahedral", "(b) SO(3)", "(c) SO(3), noise averaged", "rotation x noise"),
               [(f"{row['step']:,}", f"{row['a']['r2']:.3f}", *(cell(row[letter]) for letter in ALONG),
                 f"{row['crossed']:.2e}") for row in rows]), "",
        f"## At the end ({record['conformers']} conformers of molecules of their own)", "",
        *table(("probe", "percent (95 % interval)", "equivariance error", "total loss", "R²"),
               [(name, f"{one['percent']:.3g} ({one['low']:.2g}–{one['high']:.2g})", f"{one['error']:.2e}",
                 f"{one['total']:.2e}", f"{one['r2']:.3f}") for name, one in end.items()]), "",
        "## What it is made of", "", *story(record), "",
        "## Interpolation's own error (the exact answer as model)", "",
        *table(("grid", "trilinear", "cubic"), [
            (f"{grid['size']}³, {grid['resolution']} Å, radius {grid['radius']} Å ({record['conformers']} conformers)",
             f"{oracle['trilinear']:.1e}", f"{oracle['cubic']:.1e}"),
            (f"64³, 0.25 Å, radius 0.5 Å ({papers['molecules']} molecules, {papers['rotations']} rotations)",
             f"{papers['trilinear']:.1e}", f"{papers['cubic']:.1e}")]), "",
        f"Voxelising takes {1e3 * record['voxeliser_seconds']:.0f} ms of {1e3 * record['step_seconds']:.0f} ms process time "
        f"of a training step ({100 * record['voxeliser_seconds'] / record['step_seconds']:.1f} %).",
        "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--conformers", type=int, default=16)
    parser.add_argument("--molecules", type=int, default=3)
    given = parser.parse_args()
    keep("voxels", page, everything(given.run, given.conformers, given.molecules) if given.run else None)


if __name__ == "__main__":
    main()
