"""How the equivariance error begins to fall: where it lies in the spectrum, and its course under plain descent."""

from __future__ import annotations

from typing import Any

import numpy as np

from equiscope.analysis.krylov import Array, lanczos
from equiscope.analysis.parts import Parts

#: Products of the Gauss-Newton matrix from each gradient.
PRODUCTS = 5


def gradient_spectra(parts: Parts, products: int = PRODUCTS) -> dict[str, Any]:
    """Spectral measures of the Gauss-Newton matrix of the total loss, seen from the gradient of each part.

    Returns:
        part -> ``nodes`` and ``weights`` (sum 1) of a Lanczos run from its gradient g, ``square`` = |g|^2, ``mean`` =
        g^T H g / g^T g; a part whose gradient vanishes is left out. Plain types.
    """
    slopes = parts.gradient(("twirled", "equivariance"))
    found = {}
    with parts.steady():
        for part, slope in slopes.items():
            if not bool(slope.any()):
                continue
            run = lanczos(lambda v: parts.product("total", v, "gauss_newton"), slope, products)
            found[part] = {"nodes": run.nodes.tolist(), "weights": run.weights.tolist(),
                           "square": float(slope @ slope), "mean": run.first[0]}  # fmt: skip
    parts.release()
    return found


def predicted_decay(nodes: Array, weights: Array, square: float, error: float, rate: float, steps: Array) -> Array:
    """L_E after each number of plain gradient steps, on a quadratic whose symmetry does not couple to the rest.

        L_E(n) = L_E(0) - sum_i c_i^2 (1 - (1 - eta lambda_i)^2n) / (2 lambda_i),    sum_i c_i^2 = |g_E|^2

    with nodes lambda_i and weights c_i^2 / |g_E|^2 of a Lanczos run from g_E; (1 - exp(-2 eta lambda n)) / 2 lambda for
    small eta. No label enters but through the nodes. A mode with eta lambda > 2 grows, as it does in descent.

    Args:
        nodes, weights: (k,) eigenvalues and weights, sum 1, as of :func:`gradient_spectra`.
        square: |g_E|^2.
        error: L_E(0), the equivariance error now.
        rate: eta. steps: (n,) numbers of steps.
    """
    kept = np.maximum(np.asarray(nodes), 0.0)[None]
    passed = (1 - rate * kept) ** (2 * np.asarray(steps, dtype=float)[:, None])
    flat = rate * np.asarray(steps, dtype=float)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        gone = np.where(kept > 0, (1 - passed) / (2 * kept), flat)
    found: Array = error - square * (gone * np.asarray(weights)[None]).sum(1)
    return found
