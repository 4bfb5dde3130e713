"""Batches and models that the tests of heads and tangents share."""

import torch

from equiscope import Declaration, Input, Output
from equiscope.tasks.forcefield import models

from ..tasks.forcefield.molecules import random_batch as molecules

VECTORS = Declaration(
    inputs={"x": Input("1o", points=False)}, outputs={"y": Output("1o", target="t", per="sample")}, ids="id"
)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def vectors(count=64, seed=1):
    return {"x": randn(count, 3, seed=seed), "t": randn(count, 3, seed=seed + 1), "id": torch.arange(count)}


def molecular_batch(sizes=(5, 8, 7, 6), seed=3):
    batch = molecules(list(sizes), seed=seed)
    count = len(batch["mask"])
    labels = {"molecule": torch.arange(count), "id": torch.arange(count), "energy": torch.zeros(count).double()}
    return {**batch, "forces": randn(*batch["pos"].shape, seed=9), **labels}


def build(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return models.build(name, size="nano").double()
