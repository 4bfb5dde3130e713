"""Small models with known answers, shared by the tests of the measure."""

import torch
from torch import nn

from equiscope.symmetry.rotations import haar, rotation_set


class Linear(nn.Module):
    """f(x) = A x on every vector."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def forward(self, batch):
        return batch["pos"] @ self.matrix.T


class Tanh(nn.Module):
    """A smooth model with every Wigner degree: f(x) = B tanh(A x)."""

    def __init__(self, scale=1.0, seed=0, dtype=torch.float64):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.a = nn.Parameter(scale * torch.randn(8, 3, generator=generator, dtype=torch.float64).to(dtype))
        self.b = nn.Parameter(torch.randn(3, 8, generator=generator, dtype=torch.float64).to(dtype))

    def forward(self, batch):
        return {"forces": torch.tanh(batch["pos"] @ self.a.T) @ self.b.T}


def linear_error(matrix, x):
    """Equivariance error per component of A x: |x|^2 / 9 (|A|^2 - (tr A)^2 / 3)."""
    return x.square().sum(-1) / 9 * (matrix.square().sum() - matrix.trace() ** 2 / 3)


def brute_split(function, x, y, name="lebedev-15"):
    """Total, twirled and equivariance of squared error per component by quadrature, for x, y (n, 3)."""
    chosen = rotation_set(name)
    g = chosen.matrices
    p = torch.einsum("kji,knj->kni", g, function(torch.einsum("kij,nj->kni", g, x)))
    mean = torch.einsum("k,kni->ni", chosen.weights, p)
    total = torch.einsum("k,kni->n", chosen.weights, (p - y).square()) / 3
    twirled = (mean - y).square().mean(-1)
    return total, twirled, total - twirled


def random_batch(samples=6, atoms=4, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, atoms, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(samples, atoms, 3, generator=generator, dtype=torch.float64)
    return {"pos": x.to(dtype), "y": y.to(dtype)}


def repeated(sample, count=2000):
    """``count`` samples that are all this one: as many independent estimates of the same variance."""
    return {name: value[None].expand(count, *value.shape).clone() for name, value in sample.items()}


def z_score(estimates, truth):
    """How many standard errors the mean of independent estimates lies from the truth."""
    estimates = torch.as_tensor(estimates).double()
    return float((estimates.mean() - truth) / (estimates.std() / len(estimates) ** 0.5))


__all__ = ["Linear", "Tanh", "brute_split", "haar", "linear_error", "random_batch", "repeated", "z_score"]
