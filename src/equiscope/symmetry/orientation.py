"""How evenly a data set's samples are oriented in space: the mean of u u^T over the longest inertia axes."""

from __future__ import annotations

import torch
from torch import Tensor


def longest_axis_outer(points: Tensor, sample: Tensor, samples: int) -> Tensor:
    """u u^T of each sample, u the direction of largest spread of its points about their mean.

    points: (n, 3) float64, all samples' points one after another; sample: (n,) the sample of each point.
    Returns (samples, 3, 3) float64. For a sample of one point, where no axis is longest, I/3.
    """
    # Only directions matter: numbers whose squares would overflow are scaled down first.
    largest = points.abs().max() if points.numel() else torch.ones(())
    points = points / torch.where(largest > 1e100, largest, 1.0)
    ones = torch.ones(len(points), dtype=torch.float64, device=points.device)
    counts = torch.zeros(samples, dtype=torch.float64, device=points.device).index_add(0, sample, ones)
    sums = torch.zeros(samples, 3, dtype=torch.float64, device=points.device).index_add(0, sample, points)
    centred = points - (sums / counts[:, None])[sample]
    outer = centred[:, :, None] * centred[:, None, :]
    spread = torch.zeros(samples, 3, 3, dtype=torch.float64, device=points.device).index_add(0, sample, outer)
    values, vectors = torch.linalg.eigh(spread)
    longest = vectors[:, :, -1]
    axes = longest[:, :, None] * longest[:, None, :]
    isotropic = torch.eye(3, dtype=torch.float64, device=points.device) / 3
    return torch.where((values[:, -1] > 1e-12)[:, None, None], axes, isotropic)


def eigenvalues(mean_outer: Tensor) -> tuple[float, float, float]:
    """Eigenvalues of the orientation tensor, ascending; (1/3, 1/3, 1/3) for evenly oriented samples."""
    low, middle, high = torch.linalg.eigvalsh(mean_outer).tolist()
    return low, middle, high
