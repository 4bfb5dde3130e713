"""What ``equiscope doctor`` says that a measurement takes, beside what it takes, in seconds of the processor.

    python benchmarks/predicted_cost.py [--rounds 5]

Of each model the measure of one batch of its task's held-out samples (two cosets of T; grids under their 24 turns) is
timed in turn with the two estimates: the model itself timed, as ``equiscope doctor task=… model=…`` does, and the stack
of residual blocks of as many parameters on as many tokens. Results go to benchmarks/results/predicted_cost.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import equiscope as eq
from equiscope.runs import doctor
from equiscope.runs.config import configuration
from equiscope.runs.devices import hardware
from equiscope.runs.efficiency import Bench

RESULTS = Path(__file__).parent / "results"
# Settings of the model, and its tokens a sample: edges within the cutoff, atoms, residues, voxels.
MODELS = {
    "edge transformer nano": (["task=forcefield", "batch_size=16"], 250),
    "EScAIP nano": (["task=forcefield", "batch_size=16", "model=escaip"], 250),
    "Proteina nano": (["task=proteinflow", "model.size=nano", "batch_size=16"], 74),
    "voxel U-Net nano": (["task=voxels"], 24**3),
}


class Mlp(nn.Module):
    """Vectors of atoms through four layers of 256 features."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 256), nn.SiLU(), nn.Linear(256, 256), nn.SiLU(), nn.Linear(256, 256),
                                 nn.SiLU(), nn.Linear(256, 3))  # fmt: skip

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"forces": self.net(batch["pos"])}


def of_task(settings: list[str]) -> tuple[nn.Module, dict[str, torch.Tensor], dict[str, Any], Any]:
    """Model, batch, what the measure is told, and the model's answer to be timed."""
    bench = Bench.of(configuration(["run=doctor", "logger=none", *settings]), torch.device("cpu"))
    probe = next(probe for probe in bench.task.probes("track") if probe.headline)
    told = {"declaration": probe.declaration, "forward": probe.forward}
    if probe.design.rotations:
        told |= {"rotations": probe.design.rotations, "cosets": probe.design.cosets}
    return bench.model, bench.asked, told, bench.infer


def mlp() -> tuple[nn.Module, dict[str, torch.Tensor], dict[str, Any], Any]:
    model, batch = Mlp(), {"pos": torch.randn(64, 100, 3), "forces": torch.randn(64, 100, 3)}

    def infer() -> None:
        with torch.no_grad():
            model(batch)

    return model, batch, {"inputs": {"pos": "1o"}, "outputs": {"forces": "1o"}, "target": "forces"}, infer


def row(name: str, rounds: int) -> dict[str, Any]:
    """Median ratios seen / told, in turn."""
    settings, tokens = MODELS.get(name, ([], 100))
    model, batch, told, infer = of_task(settings) if settings else mlp()
    samples, size = len(next(iter(batch.values()))), sum(p.numel() for p in model.parameters())
    asked = doctor.Asked(size, tokens, samples, 24, samples)
    eq.measure(model, [batch], **told)
    seen, named, stack = [], [], []
    for _ in range(rounds):
        named.append(doctor.cost(asked, doctor._timed("cpu", infer, 1) / samples))
        stack.append(doctor.cost(asked, doctor._stack(asked, "cpu")))
        begun = time.process_time()
        eq.measure(model, [batch], **told)
        seen.append(time.process_time() - begun)
    ratios = {
        f"over_{way}": statistics.median(s / t for s, t in zip(seen, times, strict=True))
        for way, times in (("named", named), ("stack", stack))
    }
    return {"model": name, "parameters": size, "samples": samples, "tokens": tokens, "seen": statistics.median(seen),
            "named": statistics.median(named), "stack": statistics.median(stack), **ratios}  # fmt: skip


def page(report: dict[str, Any]) -> str:
    lines = [
        "# What `equiscope doctor` says that a measurement takes",
        "",
        f"`python benchmarks/predicted_cost.py`: {report['hardware']}, one thread, load {report['load']:.0f}; seconds of "
        "the processor, 24 rotations of one batch; a ratio is what was seen over what was said, the median of "
        f"{report['rounds']} rounds in turn.",
        "",
        "| model | parameters | samples | tokens | seen, s | the model named, s | ratio | the stack, s | ratio |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {r['model']} | {r['parameters']:,} | {r['samples']} | {r['tokens']:,} | {r['seen']:.2f} | {r['named']:.2f} | "
        f"{r['over_named']:.2f} | {r['stack']:.2f} | {r['over_stack']:.2f} |"
        for r in report["rows"]
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    # What other processes take is none of the model's.
    doctor.time.perf_counter = time.process_time  # type: ignore[attr-defined]
    rows = []
    for name in [*MODELS, "MLP"]:
        rows.append(row(name, options.rounds))
        print(rows[-1], flush=True)
    about = {"hardware": hardware(torch.device("cpu")), "load": os.getloadavg()[0], "rounds": options.rounds}
    report = {**about, "rows": rows}
    (RESULTS / "predicted_cost.json").write_text(json.dumps(report, indent=1) + "\n")
    (RESULTS / "predicted_cost.md").write_text(page(report))


if __name__ == "__main__":
    main()
