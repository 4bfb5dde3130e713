"""Synthetic records in the layout of a real run: what the report's tests draw."""

from __future__ import annotations

from typing import Any

import numpy as np

PAPER_POINTS = [[20, 20.2], [860, 5.0], [1680, 2.0], [2560, 1.0], [4740, 0.081], [17000, 0.38], [445000, 0.055]]
STEPS = [0, 1, 2, 4, 8, 15, 30, 60, 100, 150, 250, 400, 500, 600, 700, 850, 1000, 1200, 1400, 1700, 2000, 2400]


def result(percent: float, r2: float, width: float = 0.15, **changes: Any) -> dict[str, Any]:
    """A Result.to_dict() whose numbers agree with each other: zero-predictor loss 1.2."""
    total = 1.2 * (1 - r2)
    equivariance = total * percent / 100
    square = max(equivariance, 1e-9) * 3 + 1.2 * max(r2, 0.0)
    return {
        "percent": percent,
        "percent_interval": [percent * (1 - width), percent * (1 + width)],
        "percent_error": abs(percent) * width / 2,
        "interval_kind": "two-sided",
        "mean_of_ratios_percent": percent * 1.2,
        "total": total,
        "twirled": total - equivariance,
        "equivariance": equivariance,
        "r2": r2,
        "relative_equivariance": equivariance / square,
        "noise_floor": 3e-13,
        "noise_floor_percent": 3e-11,
        "distinguishable": percent > 1e-6,
        "loss_as_given": total * 1.01,
        "samples": 96,
        "clusters": 48,
        "passes": 24,
        "model_calls": 2304,
        "rotations": "T",
        "cosets": 2,
        "group": "SO3",
        "seed": 7,
        "weighting": "sample",
        "loss": "mse",
        "center": "origin",
        "rotated": {"pos": "1o"},
        "held_fixed": ["energy"],
        "orientation": [0.31, 0.335, 0.355],
        "outputs": {
            "forces": {
                "percent": percent, "contribution_percent": percent, "total": total,
                "twirled": total - equivariance, "equivariance": equivariance, "r2": r2, "weight": 1.0, "loss": "mse",
            }
        },
        "notes": ["T cosets are exact to Wigner degree 2."],
        **changes,
    }


def measure(step: int, probe: str = "forces", part: str = "track", headline: bool = True, **kwargs: Any) -> dict:
    """A record of kind "measure"."""
    return {
        "kind": "measure", "step": step, "part": part, "probe": probe, "headline": headline, "seconds": 1.3,
        "result": result(**kwargs),
    }  # fmt: skip


def run_record(**changes: Any) -> dict[str, Any]:
    """The record that opens a run."""
    return {
        "kind": "run",
        "name": "demo",
        "task": "forcefield",
        "model": "edge_transformer (nano)",
        "parameters": 59203,
        "config": {"seed": 0, "augment": True, "batch_size": 32, "trainer": {"max_steps": 2400, "threads": 2},
                   "model": {"name": "edge_transformer", "hidden": 48, "layers": 3}},
        "versions": {"equiscope": "0.1.0", "torch": "2.13.0", "python": "3.11.2"},
        "threads": 2,
        "device": "cpu",
        "time": "2026-11-23T22:00:00+00:00",
        "reference": {
            "label": "paper: EScAIP on SPICE, replicate 1",
            "points": {"forces": PAPER_POINTS},
            "table": [["start", "20.2 % at step 20"], ["first ≤ 2 %", "1,680 (last above 1,920)"],
                      ["dip", "0.081 % at step 4,740"], ["end", "about 0.055 % at step 445k"]],
            "source": "Shen et al., TMLR 12/2025, arXiv 2512.02303; digitised from the published figures",
        },
        **changes,
    }  # fmt: skip


def data_record(**changes: Any) -> dict[str, Any]:
    """What a task says of itself."""
    return {
        "kind": "data",
        "molecules": {"train": 340, "validation": 32, "test": 40},
        "frames": {"train": 4000, "validation": 320, "test": 480},
        "orientation": {"train": [0.331, 0.333, 0.336], "test": [0.322, 0.334, 0.344]},
        "rejected": {"SCF not converged": 12, "bond broken": 3},
        **changes,
    }


def force_field_run(steps: list[int] = STEPS, **changes: Any) -> list[dict[str, Any]]:
    """A run that collapses to the zero predictor from step 30 to 500 and then learns forces."""
    generator = np.random.default_rng(0)
    skill = np.interp(np.log(np.maximum(steps, 0.5)), np.log([0.5, 4, 30, 500, 850, 1400, 2400]),
                      [-1.4, -0.3, 0.0, 0.01, 0.42, 0.76, 0.93])
    percent = np.exp(np.interp(np.log(np.maximum(steps, 0.5)), np.log([0.5, 4, 30, 100, 500, 700, 2400]),
                               np.log([52, 35, 3, 0.02, 0.25, 2.6, 0.4])))
    records: list[dict[str, Any]] = [run_record(**changes), data_record()]
    for step, value, r2 in zip(steps, percent, skill, strict=True):
        if step:
            records.append({"kind": "train", "step": step, "seconds": 0.115 * step, "loss": 1.4 * (1 - r2),
                            "parts": {"forces": 1.2 * (1 - r2)}, "lr": 1e-3})
        noisy = float(value * np.exp(0.08 * generator.standard_normal()))
        records.append(measure(step, percent=noisy, r2=float(r2)))
    last = steps[-1]
    records.append(measure(last, part="final", percent=0.41, r2=0.921, width=0.05, samples=480, clusters=40))
    records.append({"kind": "end", "step": last, "train_seconds": 0.115 * last, "track_seconds": 38.0,
                    "wall_seconds": 0.115 * last + 51})  # fmt: skip
    return records


TIMES = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99)


def flow_run(steps: list[int] = STEPS[1:]) -> list[dict[str, Any]]:
    """A flow-matching run with a probe per flow time and a pooled one, rising again at middle times."""
    probes = [f"t={t:g}" for t in TIMES]
    points = [[114, 12.5], [1000, 2.0], [2050, 0.5], [11700, 18.1], [1100000, 6.5]]
    reference = {
        "label": "paper: Proteina 60M",
        "points": {probe: points for probe in probes[2:6]},
        "source": "digitised from the published figures",
    }
    records = [run_record(task="proteinflow", model="proteina (1M)", parameters=1_020_000, reference=reference),
               data_record(chains={"train": 900, "test": 100})]
    for step in steps:
        for t, probe in [(0.5, "pooled"), *zip(TIMES, probes, strict=True)]:
            middle = np.exp(-((t - 0.6) ** 2) / 0.08)
            percent = 16 * np.exp(-((step / 40) ** 0.7)) + 6 * middle * step / (step + 400) + 0.05
            records.append(measure(step, probe, headline=probe == "pooled", percent=float(percent),
                                   r2=float(step / (step + 200) * (0.95 - 0.8 * t))))
    for probe in ["pooled", *probes]:
        records.append(measure(steps[-1], probe, "final", headline=probe == "pooled", percent=3.1, r2=0.6))
    records.append({"kind": "end", "step": steps[-1], "train_seconds": 480.0, "track_seconds": 80.0,
                    "wall_seconds": 581.0})  # fmt: skip
    return records
