"""Small batches and models for the tests of the protein task."""

from __future__ import annotations

from typing import Any

import torch

from equiscope.symmetry.rotations import haar
from equiscope.tasks.proteinflow.flow import draw_noise
from equiscope.tasks.proteinflow.task import ProteinFlow, build

# Tokens of the smallest model there is any point in: everything in it is exercised.
TINY = {"width": 16, "layers": 2, "heads": 2, "pair": 8, "condition": 8, "registers": 2}


def make(model: str, seed: int = 0, **changes: Any) -> torch.nn.Module:
    torch.manual_seed(seed)
    net = build(model, "nano", **{**TINY, **changes})
    # Gates start nearly closed and biases at zero; random values everywhere make every path matter.
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return net.eval()


def batch(lengths=(14, 9, 12), seed: int = 0, dtype=torch.float64, guess: bool = True) -> dict[str, torch.Tensor]:
    longest = max(lengths)
    mask = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
    generator = torch.Generator().manual_seed(seed)
    x_t, x_sc, velocity = (draw_noise(mask, generator).to(dtype) for _ in range(3))
    count = len(lengths)
    return {
        "x_t": x_t,
        "x_sc": x_sc if guess else torch.zeros_like(x_t),
        "t": torch.linspace(0.1, 0.9, count, dtype=dtype),
        "velocity": velocity,
        "residue": torch.arange(longest).repeat(count, 1),
        "mask": mask,
        "chain": torch.arange(count),
        "id": torch.arange(count),
    }


def turned(sample: dict[str, torch.Tensor], rotations: torch.Tensor) -> dict[str, torch.Tensor]:
    """x_t and x_sc turned by one rotation (or any matrix) a chain."""
    matrices = rotations.to(sample["x_t"].dtype)
    return {**sample, **{name: sample[name] @ matrices.mT for name in ("x_t", "x_sc")}}


def rotations(count: int, seed: int = 1) -> torch.Tensor:
    return haar(count, torch.Generator().manual_seed(seed))


def small_task(**changes: Any) -> ProteinFlow:
    """The real task on the shipped chains, small enough for a test."""
    config: dict[str, Any] = {
        "seed": 3,
        "batch_size": 4,
        "model": {"name": "proteina", "size": "nano", **TINY},
        "data": {"longest": 60, "track_chains": 6, "final_chains": 8},
        "track": {"times": [0.0, 0.8], "draws": 3, "batch_size": 4},
    }
    for key, value in changes.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) and key in config else value
    task = ProteinFlow.from_config(config)
    task.prepare(progress=False)
    return task
