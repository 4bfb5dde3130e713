"""Makes the frozen runs: 40 steps of every task on tiny data, and a run folder that was stopped on its way.

    python -m tests.golden.runs_make            # runs.json, from the source of today
    python -m tests.golden.runs_make --old-run  # old_run/ too: made once, then kept as that version wrote it

Floats are written by ``float.hex``, so that the file holds every bit. Times, and facts of the machine, are left out;
so are intervals and noise floors, whose definitions have a history of their own.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from equiscope import records, tasks
from equiscope.runs import train as runs
from equiscope.runs.config import configuration
from equiscope.runs.folder import RunFolder
from equiscope.runs.trained import open_run
from equiscope.tasks.datasets import store
from equiscope.words import leaves

HERE = Path(__file__).parent
GOLDEN, OLD_RUN = HERE / "runs.json", HERE / "old_run"
STOPPED_AT, STEPS = 24, 40
MEASURED = ("total", "twirled", "equivariance", "percent")
SMILES = [
    "CCO", "CCN", "CC(C)O", "CCCO", "CCCN", "CCOC", "CC=O", "CC(=O)C", "CCCC", "CCC", "COC", "CNC", "CCF", "CCCl",
    "C1CC1", "CC#C", "CC#N", "CCCF", "CNC=O", "C=CC=C",
]  # fmt: skip
# What a run's description says of the machine and of the place of its files.
_MACHINE = ("path", "versions")

COMMON = [
    "run=golden", "threads=1", "logger=none", f"trainer.max_steps={STEPS}", "trainer.checkpoint_every=20",
    "trainer.log_every=10", "trainer.keep=0", "trainer.accelerator=cpu", "track.points=4", "track.first=5",
]  # fmt: skip
OVERRIDES = {
    "forcefield": [
        "task=forcefield", "batch_size=4", "data.frames=40", "data.frames_per_molecule=2", "data.min_atoms=2",
        "data.max_atoms=14", "data.workers=1", "data.track_frames=4", "data.final_frames=6", "data.probe_batch=3",
        "+model.width=16", "+model.layers=2", "+model.heads=2", "+model.feedforward=24", "+model.radial=8",
    ],
    "proteinflow": [
        "task=proteinflow", "batch_size=4", "data.longest=60", "data.track_chains=3", "data.final_chains=4",
        "track.times=[0.0,0.8]", "track.batch_size=4", "model.size=nano", "+model.width=8", "+model.layers=1",
        "+model.heads=2", "+model.pair=4", "+model.condition=8", "+model.registers=2",
    ],
    "voxels": [
        "task=voxels", "batch_size=3", "grid.size=16", "grid.resolution=0.6", "data.conformers=2", "data.min_atoms=2",
        "data.workers=1", "data.track_conformers=2", "data.final_conformers=2", "data.probe_batch=2",
        "track.so3_rotations=2", "+model.width=4", "+model.multipliers=[1,2]", "+model.attention=[false,true]",
        "+model.heads=1",
    ],
}  # fmt: skip
# Every choice of data, with what it cannot do without.
CHOICES = {
    "generated": [], "ani1x": ["data.path=x"], "ani2x": ["data.path=x"], "ase": ["data.path=x"],
    "extxyz": ["data.path=x", "data.energy_unit=eV", "data.length_unit=Angstrom"], "md17": ["data.path=x"],
    "rmd17": ["data.path=x"], "spice": ["data.path=x"],
}  # fmt: skip


def config(task: str, folder: Path, *changes: str) -> dict[str, Any]:
    """The configuration of the golden run of a task, whose files go to ``folder``."""
    files = [f"root={folder / 'runs'}"]
    if task != "proteinflow":
        (folder / "few.smi").write_text("\n".join(SMILES))
        files += [f"data.smiles={folder / 'few.smi'}", f"data.path={folder / f'{task}.npz'}"]
    return configuration([*OVERRIDES[task], *COMMON, *files, *changes])


def whole(task: str, folder: Path) -> dict[str, Any]:
    """Everything frozen of one task: its data file, batches, description, and the run."""
    settings = config(task, folder)
    run = runs.train(settings, show_progress=False)
    made = tasks.build(settings)
    made.prepare(progress=False)
    facts = {
        "batches": checksum(made.training_batch(step) for step in (0, 1, 7, 39, 100)),
        "probes": {
            part: [[p.name, p.headline, checksum(p.batches)] for p in made.probes(part)] for part in ("track", "final")
        },
        **ending(run),
    }
    if task != "proteinflow":
        arrays, metadata = store.read(folder / f"{task}.npz")
        metadata = {k: v for k, v in metadata.items() if k != "versions"}
        metadata["config"]["smiles"] = Path(metadata["config"]["smiles"]).name
        facts["file"] = {"arrays": checksum([arrays]), "metadata": bits(metadata)}
    return facts


def ending(run: RunFolder) -> dict[str, Any]:
    """Records without times, and the weights at the end, those that are measured and those that are trained."""
    book = records.read(run.records)
    data = {k: v for k, v in book[1].items() if k not in ("n", "sha", "kind", *_MACHINE)}
    if data.get("config", {}).get("smiles"):
        data["config"]["smiles"] = Path(data["config"]["smiles"]).name
    weights = [open_run(run.path, averaged).model.state_dict() for averaged in (True, False)]
    return {
        "parameters": book[0]["parameters"],
        "measured_steps": book[0]["measured_steps"],
        "data": bits(data),
        "train": [bits([r["step"], r["loss"], r["parts"], r["lr"]]) for r in book if r["kind"] == "train"],
        "measure": [
            bits([r["step"], r["part"], r["probe"], r["headline"], *(r["result"][name] for name in MEASURED)])
            for r in book
            if r["kind"] == "measure"
        ],
        "pictures": checksum_of(bits([r["pictures"] for r in book if r["kind"] == "pictures"])),
        "weights": checksum(weights),
    }


def choices() -> dict[str, list[list[Any]]]:
    """The settings of every choice of ``data=`` and every task, by dotted name."""
    found = {f"data={name}": [f"data={name}", *needed] for name, needed in CHOICES.items()}
    found |= {f"task={name}": [f"task={name}"] for name in ("proteinflow", "voxels", "voxels_paper")}
    return {
        name: sorted([key, value] for key, value in leaves(configuration(["run=x", *overrides])))
        for name, overrides in found.items()
    }


def bits(value: Any) -> Any:
    """Plain types with every float as its hexadecimal text."""
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, Mapping):
        return {key: bits(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [bits(item) for item in value]
    return value


def checksum_of(value: Any) -> str:
    """SHA-256 of plain types."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def checksum(parts: Any) -> str:
    """SHA-256 over names, types, shapes and bytes of mappings of tensors or arrays."""
    digest = hashlib.sha256()
    for part in parts:
        for name in sorted(part):
            array = part[name].detach().cpu().numpy() if isinstance(part[name], Tensor) else part[name]
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def arithmetic() -> dict[str, str]:
    """What the last bits depend on beside the source: processor and numerical libraries."""
    cpu = dict(_processor())
    packages = ("torch", "numpy", "scipy", "rdkit", "tblite", "e3nn", "pytorch-lightning")
    return {
        "processor": "/".join(cpu.get(k, "?") for k in ("vendor_id", "cpu family", "model", "stepping")),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def _processor() -> Iterator[tuple[str, str]]:
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else []:
        key, _, value = line.partition(":")
        if not line.strip():
            return
        yield key.strip(), value.strip()


def stop_and_keep(folder: Path) -> RunFolder:
    """The protein run, stopped after step 24: its last checkpoint is that of step 20."""
    settings = config("proteinflow", folder, "root=runs")
    made = tasks.TASKS["proteinflow"].partition(":")
    task = getattr(__import__(made[0], fromlist=[made[2]]), made[2])
    right, calls = task.training_loss, 0

    def stopping(self: Any, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > STOPPED_AT:
            raise KeyboardInterrupt
        return right(self, *arguments)

    task.training_loss = stopping
    try:
        runs.train(settings, show_progress=False)
    except KeyboardInterrupt:
        return RunFolder(settings["root"], "proteinflow", settings["run"])
    finally:
        task.training_loss = right
    raise AssertionError("the run was not stopped")


def keep_old_run(folder: Path) -> None:
    """Write ``old_run/``; the root in its settings is relative."""
    folder.mkdir()
    os.chdir(folder)
    run = stop_and_keep(folder)
    for path in sorted(run.path.rglob("*")):
        if path.is_file() and path.name != ".lock":
            target = OLD_RUN / path.relative_to(run.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())


def main(arguments: list[str]) -> None:
    """Write the frozen files."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = {"arithmetic": arithmetic(), "choices": choices()}
        made["tasks"] = {task: whole(task, folder) for task in OVERRIDES}
        GOLDEN.write_text(json.dumps(made, indent=None, separators=(",", ":"), ensure_ascii=False) + "\n")
        if "--old-run" in arguments:
            keep_old_run(folder / "old")


if __name__ == "__main__":
    main(sys.argv[1:])
