"""The published settings of the three models: what presets resolve to, and parameter counts beside the published."""

import pytest
import torch

from equiscope.runs.config import configuration
from equiscope.tasks import build

# preset -> dotted key -> what is published (science of the three public repositories).
PUBLISHED = {
    "forcefield_paper": {
        "task": "forcefield", "model.name": "escaip", "model.cutoff": 12.0, "model.nearest": 20, "batch_size": 64,
        "model.norm": "rms", "model.angle": "cosine", "model.aggregation": "mean", "model.dropout": 0.05,
        "model.attention_dropout": 0.1,
        "optimizer.name": "adamw", "optimizer.lr": 1e-5, "optimizer.weight_decay": 0.01, "schedule.min_factor": 0.5,
        "schedule.warmup_factor": 0.2, "trainer.clip": 10.0, "trainer.ema": 0.999, "augment": False,
        "loss.name": "escaip", "loss.forces": 100.0, "loss.energy": 4.0, "trainer.max_steps": 30 * 14849,
        "data.format": "spice",
    },
    "proteinflow_paper": {
        "task": "proteinflow", "model.name": "proteina", "model.neighbours": 0, "model.smooth_bins": False,
        "optimizer.name": "adam", "optimizer.lr": 1e-4, "batch_size": 4, "trainer.ema": 0.999,
        "schedule.min_factor": 1.0, "schedule.warmup": 0.0, "data.shortest": 50, "data.longest": 256,
        "loss.self_conditioning": 0.5, "augment": True,
    },
    "voxels_paper": {
        "task": "voxels", "grid.size": 64, "grid.resolution": 0.25, "grid.radius": 0.5, "grid.sigma": 0.9,
        "batch_size": 64, "optimizer.lr": 2e-5, "optimizer.weight_decay": 0.01, "optimizer.betas": [0.99, 0.999],
        "trainer.ema": 0.999, "model.dropout": 0.1, "trainer.max_steps": 6 * 7290, "data.conformers": 5,
        "model.name": "voxmol", "data.shift": 0.5, "data.max_atoms": 79, "grid.crop": True, "trainer.clip": 0.0,
    },
}  # fmt: skip


def resolved(preset, *changes):
    path = {"forcefield_paper": ["data.path=x"], "voxels_paper": ["data.smiles=x"]}.get(preset, [])
    return configuration([f"task={preset}", "run=x", *path, *changes])


@pytest.mark.parametrize(("preset", "key"), [(preset, key) for preset, keys in PUBLISHED.items() for key in keys])
def test_settings(preset, key):
    found = resolved(preset)
    for part in key.split("."):
        found = found[part]
    assert found == PUBLISHED[preset][key]


# The published counts; how far ours may lie is said, since the networks are not the same in every part.
@pytest.mark.parametrize(
    ("preset", "size", "published"),
    [("forcefield_paper", "6M", 6.1e6), ("proteinflow_paper", "60M", 60e6), ("proteinflow_paper", "400M", 400e6),
     ("voxels_paper", "111M", 111.52e6), ("voxels_paper", "28M", 27.90e6), ("voxels_paper", "7M", 6.98e6)],
)  # fmt: skip
def test_parameters_beside_the_published(preset, size, published):
    task = build(resolved(preset, f"model.size={size}"))
    with torch.device("meta"):
        count = sum(p.numel() for p in task._build().parameters())
    assert abs(count / published - 1) < 0.06
