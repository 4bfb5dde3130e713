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
        "loss.self_conditioning": 0.5, "loss.distogram": 1.0, "augment": True,
    },
    "voxels_paper": {
        "task": "voxels", "grid.size": 64, "grid.resolution": 0.25, "grid.radius": 0.5, "grid.sigma": 0.9,
        "batch_size": 64, "optimizer.lr": 2e-5, "optimizer.weight_decay": 0.01, "optimizer.betas": [0.99, 0.999],
        "trainer.ema": 0.999, "model.dropout": 0.1, "trainer.max_steps": 6 * 7290, "data.conformers": 5,
        "model.name": "voxmol", "data.shift": 0.5, "data.max_atoms": 79, "grid.crop": True, "trainer.clip": 0.0,
    },
}  # fmt: skip


def resolved(preset, *changes):
    path = ["data.path=x"] if preset == "forcefield_paper" else []
    return configuration([f"task={preset}", "run=x", *path, *changes])


@pytest.mark.parametrize(("preset", "key"), [(preset, key) for preset, keys in PUBLISHED.items() for key in keys])
def test_settings(preset, key):
    found = resolved(preset)
    for part in key.split("."):
        found = found[part]
    assert found == PUBLISHED[preset][key]


def proteina(width, layers, heads, pair, updates=0, condition=512, time=256, index=128, triangle=196):
    """Parameters of Proteina's public code without fold labels, added up from the shapes of its layers."""
    linear = lambda inner, outer, bias=True: inner * outer + outer * bias  # noqa: E731
    norm = lambda size: 2 * size  # noqa: E731
    adaptive = lambda size: norm(condition) + linear(condition, size) + linear(condition, size, False)  # noqa: E731
    attention = norm(width) + linear(width, 3 * width) + 2 * linear(width, width) + 2 * norm(width)
    attention += norm(pair) + linear(pair, heads, False)
    transition = linear(width, 8 * width, False) + linear(4 * width, width, False)
    layer = 2 * adaptive(width) + 2 * linear(condition, width) + attention + transition
    conditioning = linear(time, condition, False) + 6 * condition**2 * 2
    pairs = linear(127 + 128 + 64, pair, False) + norm(pair) + linear(time, condition, False) + norm(condition)
    pairs += adaptive(pair)
    ends = 3 * width + linear(index + 1 + 3, width, False) + norm(width) + 3 * width + 10 * width
    c = min(pair, triangle)
    triangles = norm(pair) + norm(c) + 4 * linear(pair, c) + linear(pair, pair) + linear(c, pair)
    update = norm(width) + linear(width, 2 * pair, False) + 2 * triangles
    update += norm(pair) + linear(pair, 2 * pair) + linear(2 * pair, pair)
    distogram = norm(pair) + linear(pair, 64)
    return layers * layer + conditioning + pairs + ends + updates * update + (distogram if updates else 0)


# The counts of the published code; how far ours may lie is said, since the networks are not the same in every part.
@pytest.mark.parametrize(
    ("preset", "size", "published", "apart"),
    [("forcefield_paper", "6M", 6.1e6, 0.06),
     ("proteinflow_paper", "60M", proteina(512, 10, 8, 256), 0.005),
     ("proteinflow_paper", "400M", proteina(1024, 18, 16, 512, updates=4), 0.005),
     ("voxels_paper", "111M", 111.52e6, 1e-4), ("voxels_paper", "28M", 27.90e6, 5e-4),
     ("voxels_paper", "7M", 6.98e6, 1e-3)],
)  # fmt: skip
def test_parameters_beside_the_published(preset, size, published, apart):
    task = build(resolved(preset, f"model.size={size}"))
    with torch.device("meta"):
        count = sum(p.numel() for p in task._build().parameters())
    assert abs(count / published - 1) < apart


def test_the_400m_alone_updates_its_pairs_and_predicts_distances():
    sizes = {size: build(resolved("proteinflow_paper", f"model.size={size}")) for size in ("60M", "400M")}
    with torch.device("meta"):
        made = {size: task._build() for size, task in sizes.items()}
    assert list(made["60M"].trunk.updates) == []
    assert list(made["400M"].trunk.updates) == ["0", "5", "10", "15"]
    assert made["60M"].distogram is None
    assert made["400M"].distogram[1].out_features == 64
    for network in made.values():
        assert network.trunk.blocks[0].attention.norm_q.normalized_shape == (network.sizes.width,)
        assert len(network.trunk.conditioning) == 2 + 1
