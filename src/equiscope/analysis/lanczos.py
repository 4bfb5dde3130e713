"""Lanczos with full reorthogonalisation: largest eigenvalue, and the nodes and weights of spectral densities.

After k steps from a unit vector q the symmetric matrix H is seen as the tridiagonal T = Q^T H Q. The largest eigenvalue
of T bounds that of H from below, and |beta_k s_k| (s: last entry of its eigenvector) bounds how far the nearest
eigenvalue of H is. The smallest eigenvalues of T are Ritz values: they say nothing of the smallest ones of H.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Lanczos:
    """Result of :func:`lanczos`.

    Attributes:
        nodes, weights: Ritz values ascending and their weights (squared first entries), summing to 1.
        residual: bound on the error of the largest Ritz value as an eigenvalue.
        vector: its Ritz vector, of norm 1.
        steps: products used. converged: residual within the tolerance asked for.
        first: (q^T H q, |H q|^2) of the start.
        basis: (k, n) Krylov basis Q, its first row q; ritz: (k, k) columns are the Ritz vectors in it. If kept.
    """

    nodes: Array
    weights: Array
    residual: float
    vector: Tensor
    steps: int
    converged: bool
    first: tuple[float, float]
    basis: Tensor | None = None
    ritz: Array | None = None

    @property
    def largest(self) -> float:
        return float(self.nodes[-1])


def lanczos(
    product: Callable[[Tensor], Tensor],
    start: Tensor,
    steps: int,
    tolerance: float | None = None,
    least: int = 1,
    keep: bool = False,
) -> Lanczos:
    """At most ``steps`` products; fewer once the largest Ritz value's residual is under tolerance * |value|.

    Args:
        product: v -> H v, H symmetric. start: (n,), any norm but zero; the basis has its dtype and device.
        least: go on for so many steps in any case. keep: the basis and the Ritz vectors too.
    """
    count = min(steps, len(start))
    basis = torch.zeros(count, len(start), dtype=start.dtype, device=start.device)
    basis[0] = start / start.norm()
    alphas: list[float] = []
    betas: list[float] = []
    first = (0.0, 0.0)
    for k in range(count):
        image = product(basis[k]).to(basis)
        alphas.append(float(basis[k] @ image))
        if k == 0:
            first = (alphas[0], float(image @ image))
        for _ in range(2):  # once more, since one pass leaves rounding along the basis
            image = image - basis[: k + 1].T @ (basis[: k + 1] @ image)
        beta = float(image.norm())
        nodes, vectors = _tridiagonal(alphas, betas)
        residual = beta * abs(float(vectors[-1, -1]))
        scale = float(np.abs(nodes).max())
        exhausted = beta <= 100 * torch.finfo(basis.dtype).eps * max(scale, 1e-300)
        done = tolerance is not None and residual <= tolerance * abs(float(nodes[-1])) and k + 1 >= least
        if exhausted or done or k + 1 == count:
            break
        betas.append(beta)
        basis[k + 1] = image / beta
    vector = basis[: len(alphas)].T @ torch.from_numpy(vectors[:, -1].copy()).to(basis)
    converged = exhausted or len(alphas) == len(start) or (tolerance is not None and done)
    kept = (basis[: len(alphas)], vectors) if keep else (None, None)
    return Lanczos(nodes, vectors[0] ** 2, residual, vector, len(alphas), bool(converged), first, *kept)


def _tridiagonal(alphas: list[float], betas: list[float]) -> tuple[Array, Array]:
    off = betas[: len(alphas) - 1]
    return np.linalg.eigh(np.diag(alphas) + np.diag(off, 1) + np.diag(off, -1))


def quantile(nodes: Array, weights: Array, share: float) -> float:
    """Smallest node below which at least ``share`` of the weight lies."""
    order = np.argsort(nodes)
    mass = np.cumsum(weights[order]) / weights.sum()
    return float(nodes[order][min(int(np.searchsorted(mass, share)), len(nodes) - 1)])


def smoothed(nodes: Array, weights: Array, grid: Array, width: float) -> Array:
    """Density of weighted nodes on a grid, each node a Gaussian of standard deviation ``width``."""
    z = (grid[:, None] - nodes[None, :]) / width
    return (np.exp(-0.5 * z**2) @ weights) / (width * np.sqrt(2 * np.pi))
