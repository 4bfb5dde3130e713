"""How a sample lies in space: the axis along which its points spread most, and the mean of u u^T over samples."""

from __future__ import annotations

import torch
from torch import Tensor

# The longest axis must stand out from the second, and from the rounding of points that coincide.
SMALLEST_GAP = 1e-6
COINCIDENT = 1e-24


def longest_axes(
    points: Tensor, sample: Tensor, samples: int, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The axis of the smallest moment of inertia of each sample, and whether it has one.

    It is the last eigenvector of S = sum_i w_i (x_i - m)(x_i - m)^T, m the weighted mean. Its sign means nothing. One
    point, a sphere or a flat disc has no longest axis: the two largest eigenvalues differ by less than 1e-6 of the
    larger, or the larger is rounding, below 1e-24 sum_i w_i x_i^2.

    Args:
        points: (n, 3) float64, all samples' points one after another; sample: (n,) the sample of each point.
        weights: (n,) masses; equal if None.

    Returns:
        (samples, 3) float64 unit vectors, meaningless where the second, (samples,) boolean, is False.
    """
    # Only directions matter: numbers whose squares would overflow are scaled down first.
    largest = points.abs().max() if points.numel() else torch.ones(())
    points = points / torch.where(largest > 1e100, largest, 1.0)
    weights = torch.ones(len(points), dtype=torch.float64, device=points.device) if weights is None else weights

    def summed(values: Tensor) -> Tensor:
        zeros = torch.zeros(samples, *values.shape[1:], dtype=torch.float64, device=values.device)
        return zeros.index_add(0, sample, values)

    total = summed(weights).clamp_min(torch.finfo(torch.float64).tiny)
    centred = points - (summed(weights[:, None] * points) / total[:, None])[sample]
    spread = summed(weights[:, None, None] * centred[:, :, None] * centred[:, None, :])
    values, vectors = torch.linalg.eigh(spread)
    apart = values[:, 2] - values[:, 1] > SMALLEST_GAP * values[:, 2]
    return vectors[:, :, 2], apart & (values[:, 2] > COINCIDENT * summed(weights * points.square().sum(1)))


def longest_axis_outer(points: Tensor, sample: Tensor, samples: int) -> Tensor:
    """u u^T of each sample, u its longest axis, (samples, 3, 3) float64; I/3 for a sample that has none.

    points, sample, samples: as for :func:`longest_axes`.
    """
    axes, found = longest_axes(points, sample, samples)
    isotropic = torch.eye(3, dtype=torch.float64, device=points.device) / 3
    return torch.where(found[:, None, None], axes[:, :, None] * axes[:, None, :], isotropic)


def eigenvalues(mean_outer: Tensor) -> tuple[float, float, float]:
    """Eigenvalues of the orientation tensor, ascending; (1/3, 1/3, 1/3) for evenly oriented samples."""
    low, middle, high = torch.linalg.eigvalsh(mean_outer).tolist()
    return low, middle, high
