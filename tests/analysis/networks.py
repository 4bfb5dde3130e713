"""Small float64 networks from vectors to vectors, one per kind of layer whose derivatives must be right."""

import torch
from torch import nn
from torch.nn import functional as F

import equiscope as eq
from tests.decomposition.models import random_batch

DECLARED = eq.Declaration({"pos": "1o"}, {"forces": eq.Output("1o", target="y")})


class Attention(nn.Module):
    """Fused softmax attention among the atoms of a sample."""

    def __init__(self, width):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)

    def forward(self, x):
        q, k, v = self.qkv(x)[:, None].chunk(3, dim=-1)
        return x + F.scaled_dot_product_attention(q, k, v)[:, 0]


class Grouped(nn.Module):
    """GroupNorm over the channels of a sample."""

    def __init__(self, width):
        super().__init__()
        self.norm = nn.GroupNorm(2, width)

    def forward(self, x):
        return self.norm(x.mT).mT


class Net(nn.Module):
    """Linear, the layer in question, tanh, linear."""

    def __init__(self, middle, width=6):
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(3, width), middle, nn.Linear(width, 3)

    def forward(self, batch):
        return {"forces": self.last(torch.tanh(self.middle(self.first(batch["pos"]))))}


LAYERS = {
    "LayerNorm": lambda w: nn.LayerNorm(w),
    "RMSNorm": lambda w: nn.RMSNorm(w, eps=1e-5),
    "GroupNorm": Grouped,
    "SiLU": lambda w: nn.SiLU(),
    "GELU": lambda w: nn.GELU(),
    "attention": Attention,
}


def network(kind, seed=0, dtype=torch.float64, width=6):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Net(LAYERS[kind](width), width).to(dtype)
        with torch.no_grad():
            for p in net.parameters():
                p.add_(0.1 * torch.randn(p.shape, dtype=torch.float64).to(dtype))
    return net


def batches(count=2, samples=2, atoms=3, dtype=torch.float64):
    return [random_batch(samples, atoms, seed=10 + i, dtype=dtype) for i in range(count)]
