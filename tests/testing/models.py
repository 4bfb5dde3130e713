"""Small models and batches with known symmetry, for the tests of the checks."""

import torch
from torch import nn

import equiscope as eq


def batch(samples=6, atoms=5, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    pos = torch.randn(samples, atoms, 3, generator=g, dtype=torch.float64)
    mask = torch.arange(atoms)[None] < torch.randint(2, atoms + 1, (samples, 1), generator=g)
    return {
        "pos": torch.where(mask[..., None], pos, 0.0).to(dtype),
        "mask": mask,
        "species": torch.where(mask, torch.randint(1, 9, (samples, atoms), generator=g), 0),
        "id": torch.arange(samples) + 100 * seed,
    }


def batches(**settings):
    return [batch(seed=seed, **settings) for seed in (1, 2)]


def declaration(**settings):
    outputs = {"forces": "1o", "energy": eq.Output("0e", per="sample")}
    return eq.Declaration({"pos": "1o"}, outputs, **({"mask": "mask", "ids": "id"} | settings))


class PairModel(nn.Module):
    """Invariant energies and equivariant forces from pairs; ``fault`` plants one error."""

    def __init__(self, fault=None):
        super().__init__()
        self.fault = fault
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Linear(1, 8), nn.SiLU(), nn.Linear(8, 2))
        self.dropout = nn.Dropout(0.2)

    def forward(self, batch):
        pos, real = batch["pos"], batch["mask"]
        if self.fault == "sees padding":
            real = torch.ones_like(real)
        pair = real[:, :, None] & real[:, None, :]
        delta = pos[:, :, None] - pos[:, None, :]
        weight = self.net(delta.square().sum(-1, keepdim=True).exp().reciprocal())
        if self.fault == "order":
            weight = weight * torch.arange(pos.shape[1]).to(pos)[:, None, None]
        forces = torch.where(pair[..., None], weight[..., :1] * delta, 0.0).sum(2)
        if self.fault == "mean over padding":
            forces = forces + torch.where(real[..., None], pos.mean(1, keepdim=True), 0.0)
        if self.fault == "axis":
            forces = forces + 1e-3 * torch.where(real[..., None], torch.eye(3)[2].to(pos), 0.0)
        if self.fault == "random":
            forces = torch.nn.functional.dropout(forces, 0.2, training=True)
        return {"forces": forces, "energy": torch.where(pair, weight[..., 1], 0.0).sum((1, 2))}
