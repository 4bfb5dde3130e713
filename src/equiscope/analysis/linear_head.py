"""Exact curvature of both losses in a linear head: dense matrices and their true condition numbers.

With p_g = A_g w (+ a constant) and squared error both losses are quadratic in w,

    H_total = 2 E A_g^T A_g,    H_equiv = 2 E (A_g - A)^T (A_g - A),    H_twirled = H_total - H_equiv,   A = E_g A_g,

estimated with the unbiased split of :mod:`equiscope.decomposition.split`, matrices in place of squares.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from equiscope.analysis.parts import Parts
from equiscope.decomposition.orbit import Forward
from equiscope.errors import InputError
from equiscope.symmetry.declaration import Declaration

# Largest second difference, relative to the first, of an answer that counts as linear.
_LINEAR = 1e-3


def linear_head(
    model: nn.Module,
    batches: Iterable[Any],
    declaration: Declaration,
    head: str,
    *,
    forward: Forward | None = None,
    rotations: str = "T",
    cosets: int = 2,
    seed: int = 0,
    rank_tolerance: float | None = None,
) -> dict[str, Any]:
    """The Hessians of the three parts by the parameters of layer ``head``, dense, with eigenvalues.

    Exact but for rounding on the given rotations: the answer is linear, so the Gauss-Newton matrix is the Hessian, read
    off with unit vectors, one product for each parameter. An eigenvalue counts as zero below ``rank_tolerance`` times
    the largest (default 10 n eps of the parameters' dtype); ``condition`` is the largest over the smallest of the rest.

    Returns:
        ``parameters`` n, ``parts[part]``: ``matrix`` (n, n) tensor, ``eigenvalues`` ascending, ``rank``, ``condition``.

    Raises:
        InputError: a loss other than squared error, an answer that is not linear in the layer, and what
            :class:`equiscope.analysis.parts.Parts` refuses.

    Source: heads and condition numbers in Shen et al., TMLR 2025.
    """
    parts = Parts(
        model, batches, declaration, forward=forward, rotations=rotations, cosets=cosets, seed=seed, parameters=[head]
    )
    if any(spec.loss != "mse" for spec in declaration.outputs.values()):
        raise InputError("a linear head has constant Hessians under squared error only: declare loss='mse'")
    _check_linear(parts, head)
    own = next(iter(parts.parameters.values()))
    zero = torch.zeros(parts.size, dtype=torch.float64, device=own.device)
    names = ("total", "equivariance") if parts.labelled else ("equivariance",)
    found = {part: torch.stack([parts.product(part, _unit(zero, i), "gauss_newton") for i in range(parts.size)])
             for part in names}
    found = {part: (m + m.T) / 2 for part, m in found.items()}
    if parts.labelled:
        found["twirled"] = found["total"] - found["equivariance"]
    tolerance = rank_tolerance or 10 * parts.size * torch.finfo(own.dtype).eps
    return {"parameters": parts.size, "parts": {p: _spectrum(m, tolerance) for p, m in found.items()}}


def _unit(zero: Tensor, index: int) -> Tensor:
    unit = zero.clone()
    unit[index] = 1
    return unit


def _check_linear(parts: Parts, head: str) -> None:
    """H v equals the Gauss-Newton product where and only where the answer has no second derivative along v."""
    generator = torch.Generator().manual_seed(0)
    own = next(iter(parts.parameters.values()))
    v = torch.randn(parts.size, generator=generator, dtype=torch.float64).to(own.device)
    full, gauss = (parts.product("equivariance", v, kind) for kind in ("hessian", "gauss_newton"))
    if not (full - gauss).norm() <= _LINEAR * gauss.norm():
        raise InputError(
            f"the answer is not linear in layer {head!r}: name the model's last linear layer, or use hessian() for "
            "curvature in other parameters"
        )


def _spectrum(matrix: Tensor, tolerance: float) -> dict[str, Any]:
    values = torch.linalg.eigvalsh(matrix)
    kept = values[values > tolerance * values[-1]]
    condition = float(kept[-1] / kept[0]) if len(kept) else float("nan")
    return {"matrix": matrix, "eigenvalues": values.tolist(), "rank": len(kept), "condition": condition}
