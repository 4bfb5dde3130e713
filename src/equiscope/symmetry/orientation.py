"""How samples lie in space: the axis along which points spread most, and the orientation tensor, the mean of u u^T."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from equiscope.errors import InputError

# The longest axis must stand out from the second, and from the rounding of points that coincide.
SMALLEST_GAP = 1e-6
COINCIDENT = 1e-24
# Fewer axes, however alike, never reach the level of Bingham's test: S is at most 5 n.
LEVEL, LEAST = 1e-3, 5


def longest_axes(points: Tensor, sample: Tensor, samples: int, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The axis of the smallest moment of inertia of each sample, (samples, 3) float64 unit, and whether it has one.

    It is the last eigenvector of S = sum_i w_i (x_i - m)(x_i - m)^T, m the weighted mean. Its sign means nothing. One
    point, a sphere or a flat disc has no longest axis: the two largest eigenvalues differ by less than 1e-6 of the
    larger, or the larger is rounding, below 1e-24 sum_i w_i x_i^2; what is returned for it is meaningless.

    Args:
        points: (n, 3) float64, all samples' points one after another; sample: (n,) the sample of each point.
        weights: (n,) masses; equal if None.
    """
    # Only directions matter: numbers whose squares would overflow are scaled down first.
    largest = points.abs().max() if points.numel() else torch.ones((), device="cpu")
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


@dataclass(frozen=True)
class Orientation:
    """Mean of u uᵀ over samples, u the longest inertia axis.

    Attributes:
        eigenvalues: three, ascending, sum 1; all 1/3 for isotropic data.
        standard_error: of a diagonal entry of the tensor if the axes were uniform, √(4/(45 n)).
        p_value: of Bingham's uniformity test; small where the data have a preferred direction. Samples that share a
            frame are not independent, and make it smaller still.
        samples: how many axes entered; skipped: those without a longest one (one atom, spherical or flat disc shapes).
    """

    eigenvalues: tuple[float, float, float]
    standard_error: float
    p_value: float
    samples: int
    skipped: int

    def __str__(self) -> str:
        low, mid, high = (abs(value) for value in self.eigenvalues)
        verdict = "isotropic" if self.p_value > LEVEL else "NOT isotropic"
        verdict = f"fewer than {LEAST} samples cannot tell" if self.samples < LEAST else verdict
        return (
            f"orientation tensor {low:.3f} {mid:.3f} {high:.3f}: {verdict} "
            f"(uniform: 0.333 ± {self.standard_error:.3f}, p = {self.p_value:.2g}, {self.samples} samples)"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain types for a record."""
        return {**asdict(self), "eigenvalues": list(self.eigenvalues)}


def orientation(positions: Tensor, mask: Tensor | None = None, weights: Tensor | None = None) -> Orientation:
    """The orientation tensor T = mean u uᵀ of padded positions.

    u is the longest inertia axis of a sample: the axis of the smallest moment of inertia, which is the direction of the
    largest variance of its atoms about their mean. The sign of u drops out. Uniformity is tested with Bingham's
    statistic S = 15 n/2 · (tr T² − 1/3), χ² with 5 degrees of freedom (Mardia & Jupp, Directional Statistics, §10.7.1).

    Args:
        positions: (B, N, 3); whatever stands in the padding is ignored.
        mask: (B, N) true for real atoms; weights: (B, N) masses; all, and equal, if None.

    Raises:
        InputError: shapes or kinds that do not fit, atoms that are not finite, or no sample with a longest axis.
    """
    if positions.ndim != 3 or positions.shape[-1] != 3:
        raise InputError(f"positions must be (samples, atoms, 3), got {tuple(positions.shape)}")
    for name, given in (("mask", mask), ("weights", weights)):
        if given is not None and given.shape != positions.shape[:2]:
            raise InputError(f"{name} must be {tuple(positions.shape[:2])}, got {tuple(given.shape)}")
    if positions.is_complex() or (mask is not None and mask.dtype != torch.bool):
        kinds = [str(given.dtype) for given in (positions, mask) if given is not None]
        raise InputError(f"positions must be real and the mask true or false, got {' and '.join(kinds)}")
    total = OrientationSum()
    total.add(positions, mask, weights)
    if (found := total.result()) is None:
        raise InputError(f"none of the {total.skipped} samples has a longest axis; give at least one molecule")
    return found


class OrientationSum:
    """The orientation tensor of a stream of samples: its memory is a 3 x 3 matrix."""

    def __init__(self) -> None:
        self._outer = torch.zeros(3, 3, dtype=torch.float64, device="cpu")
        self.samples = self.skipped = 0

    def add(self, positions: Tensor, mask: Tensor | None = None, weights: Tensor | None = None) -> None:
        """Take in positions (samples, atoms, 3), as :func:`orientation` does."""
        if mask is None:
            mask = torch.ones(positions.shape[:2], dtype=torch.bool, device=positions.device)
        real, masses = positions[mask].double(), None if weights is None else weights[mask].double()
        if not real.isfinite().all() or not (masses is None or ((masses >= 0) & masses.isfinite()).all()):
            raise InputError("positions of real atoms must be finite, and weights finite and not negative: mask others")
        axes, found = longest_axes(real, mask.nonzero()[:, 0], len(positions), masses)
        u = axes[found]
        self._outer += (u.T @ u).cpu()
        self.samples += len(u)
        self.skipped += len(positions) - len(u)

    def result(self) -> Orientation | None:
        """Of all samples so far; None if none of them has a longest axis."""
        if not (n := self.samples):
            return None
        tensor = self._outer / n
        statistic = (7.5 * n * ((tensor * tensor).sum() - 1 / 3)).clamp_min(0.0)
        p_value = float(torch.special.gammaincc(torch.full_like(statistic, 2.5), statistic / 2))
        return Orientation(eigenvalues(tensor), math.sqrt(4 / (45 * n)), p_value, n, self.skipped)
