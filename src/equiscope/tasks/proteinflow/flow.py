"""The flow: interpolation between noise and chain, its velocity, the law of flow times, and the loss.

Lengths are nm throughout the task; chains and noise are centred at the mean of their real residues.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

UNIFORM_PART, BETA_SHAPE = 0.02, 1.9
# Flow time after which distances are predicted, and the last edge of their bins in nm.
DISTOGRAM_FROM, DISTOGRAM_END = 0.3, 1.0
FLOW_TIMES = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99)


def centre(points: Tensor, mask: Tensor) -> Tensor:
    """Points (B, N, 3) minus the mean over the real residues of each chain; padding becomes exactly zero."""
    real = mask[..., None]
    points = torch.where(real, points, torch.zeros_like(points))
    mean = points.sum(1, keepdim=True) / mask.sum(1).clamp_min(1)[:, None, None]
    return torch.where(real, points - mean, torch.zeros_like(points))


def draw_noise(mask: Tensor, generator: torch.Generator) -> Tensor:
    """Centred standard normal noise x_0 in nm, (B, N, 3) float32 for a mask (B, N)."""
    return centre(torch.randn(*mask.shape, 3, generator=generator), mask)


def draw_times(count: int, generator: torch.Generator) -> Tensor:
    """Flow times (count,) of training: 0.02 · U(0, 1) + 0.98 · Beta(1.9, 1), a mixture (Proteina).

    Beta(a, 1) has the distribution function t^a, so that u^(1/a) of a uniform u is a draw. Times stay below 1.
    """
    uniform = torch.rand(2, count, generator=generator, dtype=torch.float64)
    beta = uniform[1].pow(1 / BETA_SHAPE)
    times = torch.where(uniform[0] < UNIFORM_PART, uniform[1], beta)
    return times.to(torch.float32).clamp_max(1 - 2**-20)


def time_quantile(probability: Tensor) -> Tensor:
    """Flow times at which the training law 0.02 t + 0.98 t^1.9 reaches ``probability``, same shape, float64.

    Inverted on a grid of 1e-5 in t; equally spaced probabilities give a stratified sample of the law.
    """
    grid = np.linspace(0.0, 1.0, 100_001)
    law = UNIFORM_PART * grid + (1 - UNIFORM_PART) * grid**BETA_SHAPE
    return torch.from_numpy(np.interp(probability.double().cpu().numpy(), law, grid)).clamp_max(1 - 2**-20)


def interpolate(noise: Tensor, chain: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The point on the path and its velocity, both (B, N, 3) in nm.

        x_t = (1 − t) x_0 + t x_1,        v = dx_t/dt = x_1 − x_0

    with noise x_0 at t = 0 and the chain x_1 at t = 1; ``t`` is (B,).
    """
    time = t[:, None, None]
    return (1 - time) * noise + time * chain, chain - noise


def clean_estimate(x_t: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
    """The chain that a velocity points at: x̂_1 = x_t + (1 − t) v, (B, N, 3) in nm."""
    return x_t + (1 - t)[:, None, None] * velocity


def flow_loss(velocity: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Loss of each chain, (B,) in nm²: mean over real residues and coordinates of |v̂ − v|².

    Proteina's loss is the squared error of the predicted chain with weight 1/(1 − t)²,

        |x̂_1 − x_1|² / (1 − t)²,        x̂_1 = x_t + (1 − t) v̂,        x_1 = x_t + (1 − t) v,

    and x̂_1 − x_1 = (1 − t)(v̂ − v): with velocity prediction it is exactly the unweighted velocity error,
    finite at every t. The paper's curves show |x̂_1 − x_1|², which is this value times (1 − t)²; a percent at
    one t is the same in both, a percent pooled over t is not.
    """
    square = torch.where(mask[..., None], velocity - target, torch.zeros_like(target)).square()
    return square.sum((1, 2)) / (3 * mask.sum(1).clamp_min(1))


def distogram_loss(logits: Tensor, chain: Tensor, t: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of the binned distances of a chain (B, N, 3) in nm under ``logits`` (B, N, N, bins), (B,).

    The mean over pairs of real residues, at t > 0.3 alone; the bins divide 0 to 1 nm, the last is open (Proteina).
    """
    bins = logits.shape[-1]
    edges = torch.linspace(0.0, DISTOGRAM_END, bins - 1, device=chain.device, dtype=chain.dtype)
    target = torch.bucketize(torch.cdist(chain, chain, compute_mode="donot_use_mm_for_euclid_dist"), edges)
    entropy = nn.functional.cross_entropy(logits.flatten(0, 2), target.flatten(), reduction="none").view(target.shape)
    real = mask[:, :, None] & mask[:, None, :]
    mean = torch.where(real, entropy, 0.0).sum((1, 2)) / real.sum((1, 2)).clamp_min(1)
    return torch.where(t > DISTOGRAM_FROM, mean, 0.0)


def first_pass(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Self-conditioning coordinates (B, N, 3): the chain estimated from x_t alone, without gradient.

    x_sc = x_t + (1 − t) f(x_t, x_sc = 0, t), centred.
    """
    with torch.no_grad():
        blank = {**batch, "x_sc": torch.zeros_like(batch["x_t"])}
        estimate = clean_estimate(batch["x_t"], model(blank)["velocity"], batch["t"])
        return centre(estimate, batch["mask"])
