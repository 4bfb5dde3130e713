"""Krylov spaces of a curvature: Lanczos, spectral densities, and what the noise of an optimiser leaves of a loss.

After k steps from a unit vector q the symmetric matrix H is seen as the tridiagonal T = Q^T H Q, with Q orthogonalised
in full. The largest eigenvalue of T bounds that of H from below, and |beta_k s_k| (s: last entry of its eigenvector)
bounds how far the nearest eigenvalue of H is. The smallest eigenvalues of T are Ritz values: they say nothing of the
smallest ones of H.

Near its path, in the coordinates x = P^-1/2 theta of its preconditioner P, an optimiser with momentum obeys

    m <- beta m + (1 - beta) (A x + P^1/2 xi),    x <- (1 - delta) x - eta m,    A = P^1/2 H P^1/2,

with H the Gauss-Newton matrix of the training loss, xi the gradient noise of a mini-batch, white in time, and delta a
decoupled weight decay. The answer to one noise vector stays in the space that A spans from it, so that the expected
excess of a quadratic part of the loss is a double sum over a few Ritz pairs (theory.md, "The floor that noise leaves").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
        basis: (k, n) Krylov basis Q, its first row q; ritz: (k, k) columns are the Ritz vectors in it. If kept.
    """

    nodes: Array
    weights: Array
    residual: float
    vector: Tensor
    steps: int
    converged: bool
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
    for k in range(count):
        image = product(basis[k]).to(basis)
        alphas.append(float(basis[k] @ image))
        for _ in range(2):  # once more, since one pass leaves rounding along the basis
            image = image - basis[: k + 1].T @ (basis[: k + 1] @ image)
        beta = float(image.norm())
        nodes, vectors = np.linalg.eigh(np.diag(alphas) + np.diag(betas, 1) + np.diag(betas, -1))
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
    return Lanczos(nodes, vectors[0] ** 2, residual, vector, len(alphas), bool(converged), *kept)


def quantile(nodes: Array, weights: Array, share: float) -> float:
    """Smallest node below which at least ``share`` of the weight lies."""
    order = np.argsort(nodes)
    mass = np.cumsum(weights[order]) / weights.sum()
    return float(nodes[order][min(int(np.searchsorted(mass, share)), len(nodes) - 1)])


def smoothed(nodes: Array, weights: Array, grid: Array, width: float) -> Array:
    """Density of weighted nodes on a grid, each node a Gaussian of standard deviation ``width``."""
    z = (grid[:, None] - nodes[None, :]) / width
    return (np.exp(-0.5 * z**2) @ weights) / (width * np.sqrt(2 * np.pi))


def signs(generator: torch.Generator, *shape: int) -> Tensor:
    """Independent +1 and -1 alike likely, float64 on the CPU (Rademacher vectors)."""
    return torch.randint(0, 2, shape, generator=generator, device="cpu").double() * 2 - 1


@dataclass(frozen=True)
class Recursion:
    """A heavy ball: rate eta, momentum beta, decoupled decay delta a step, and the decay d of the averaged weights.

    torch's SGD, m <- mu m + g and theta <- theta - lr m, is the one with beta = mu and eta = lr / (1 - mu).
    """

    rate: float
    momentum: float = 0.0
    decay: float = 0.0
    average: float = 0.0

    @property
    def edge(self) -> float:
        """kappa = eta lambda from which on a mode grows without bound, 2 (1 + beta) / (1 - beta) (delta = 0)."""
        return 2 * (1 + self.momentum) / (1 - self.momentum)

    def responses(self, curvature: Array, steps: int) -> tuple[Array, Array]:
        """(T, k) x of the weights and of their average, 0 … T - 1 steps after a unit impulse in the gradient.

        Args:
            curvature: (k,) eigenvalues of A. steps: T; less where all has died out before.
        """
        x, average = np.zeros_like(curvature), np.zeros_like(curvature)
        m = np.full_like(curvature, 1 - self.momentum)
        weights, averages = [], []
        for _ in range(steps):
            x = (1 - self.decay) * x - self.rate * m
            average = self.average * average + (1 - self.average) * x
            m = self.momentum * m + (1 - self.momentum) * curvature * x
            weights.append(x)
            averages.append(average)
            if np.abs(np.stack([x, average, self.rate * m])).max() < 1e-14 * self.rate:
                break
        return np.stack(weights), np.stack(averages)


@dataclass(frozen=True)
class Floor:
    """The excess that one noise vector leaves, were it drawn anew at every step.

    Attributes:
        weights, averaged: part of the loss -> excess in it, of the weights and of their average.
        kappa: eta times the Ritz values, ascending; share: of the noise's square at each of them, sum 1.
    """

    weights: dict[str, float]
    averaged: dict[str, float]
    kappa: Array
    share: Array


def noise_floor(
    noise: Sequence[Tensor],
    product: Callable[[Tensor], Tensor],
    forms: Callable[[Tensor], Mapping[str, Tensor]],
    recursion: Recursion,
    *,
    steps: int,
    depth: int = 18,
) -> list[Floor]:
    """For each vector z = P^1/2 xi the excess 1/2 sum_t h(t)^T A_part h(t), with h(t) the answer t steps after it.

    With Ritz pairs (lambda_i, u_i) of A from z, c_i = u_i . z and h_i(t) as in :meth:`Recursion.responses`,

        excess = 1/2 sum_ij c_i c_j (sum_t h_i(t) h_j(t)) u_i^T A_part u_j.

    The mean over vectors whose covariance is that of P^1/2 xi is the stationary excess 1/2 tr(A_part S); exact for a
    quadratic loss, white noise and a whole Krylov space. Negative Ritz values, of rounding, count as zero.

    Args:
        noise: vectors z, each in the coordinates of the preconditioner.
        product: v -> A v. forms: U (k, n) -> part -> U A_part U^T (k, k), in the same coordinates.
        recursion: what the optimiser does with a gradient.
        steps: since the noise is what it is; more than every mode remembers for the stationary state.
        depth: products of A for each vector.
    """
    found = []
    for z in noise:
        run = lanczos(product, z, depth, keep=True)
        assert run.basis is not None
        assert run.ritz is not None
        nodes = np.maximum(run.nodes, 0.0)
        shares = [answers.T @ answers for answers in recursion.responses(nodes, steps)]
        start = float(z.norm()) * run.ritz[0]
        seen = {name: run.ritz.T @ form.cpu().numpy() @ run.ritz for name, form in forms(run.basis).items()}
        weights, averaged = (
            {name: float(0.5 * start @ (share * (form + form.T) / 2) @ start) for name, form in seen.items()}
            for share in shares
        )
        found.append(Floor(weights, averaged, recursion.rate * run.nodes, run.weights))
    return found
