"""Exact curvature of both losses in a linear head: dense matrices and their true condition numbers.

With p_g = A_g w (+ a constant) and squared error both losses are quadratic in w,

    H_total = 2 E A_g^T A_g,    H_equiv = 2 E (A_g - A)^T (A_g - A),    H_twirled = H_total - H_equiv,   A = E_g A_g,

estimated with the unbiased split of :mod:`equiscope.decomposition.split`, matrices in place of squares.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from equiscope.analysis.heads import refuse_other_losses
from equiscope.analysis.pairs import Array, interval
from equiscope.analysis.parts import Parts
from equiscope.decomposition.plan import Plan, make_plan
from equiscope.errors import InputError, UnsuitedModelError
from equiscope.signatures import handing_on
from equiscope.symmetry.declaration import Declaration

# Largest second difference, relative to the first, of an answer that counts as linear.
_LINEAR = 1e-3
# Most parameters of a head whose matrices are made: n products for each, n^2 entries.
MOST = 2048


@handing_on(make_plan, without=("symmetry",))
def linear_head(
    model: nn.Module,
    batches: Iterable[Any],
    plan: Plan | Declaration,
    head: str,
    *,
    rank_tolerance: float | None = None,
    **design: Any,
) -> dict[str, Any]:
    """The Hessians of the three parts by the parameters of layer ``head``, dense, with eigenvalues.

    Exact but for rounding on the given rotations: the answer is linear, so the Gauss-Newton matrix is the Hessian, read
    off with unit vectors, one product for each parameter. An eigenvalue counts as zero below ``rank_tolerance`` times
    the largest (default 10 n eps of the parameters' dtype); ``condition`` is the largest over the smallest of the rest.
    Of a sampled loss it is biased upwards: its largest eigenvalue is too large, its smallest too small.

    Two cosets or more make the twirled Hessian unbiased, but its small eigenvalues then scatter about zero: for a
    condition number give one coset of a large set.

    Args:
        model: as for :func:`equiscope.measure`.
        plan: what is measured, or a declaration with the arguments below.
        head: name of the layer.
        rank_tolerance: eigenvalues below it, relative to the largest, count as zero.
        forward, rotations, cosets, seed, shift, spectrum, alone, judged, fold: as for
            :func:`equiscope.decomposition.plan.make_plan`.
        batches: independent ones, whose spread gives the intervals: jackknife of the logarithm, rank held fixed.

    Returns:
        ``parameters`` n, ``parts[part]``: ``matrix`` (n, n) tensor, ``eigenvalues`` ascending, ``rank``, ``condition``
        and its 95 % ``interval``; ``ratio`` of the condition number of the equivariance error to that of the twirled
        loss, ``value`` and ``interval``, or None without labels. Intervals of a single batch are NaN.

    Raises:
        InputError: a loss other than squared error, an answer that is not linear in the layer, more than 2,048
            parameters, and what :class:`equiscope.analysis.parts.Parts` refuses.

    Source: heads and condition numbers in Shen et al., TMLR 2025.
    """
    parts = Parts(model, batches, plan, parameters=[head], **design)
    refuse_other_losses(parts.declaration, "a linear head has constant Hessians")
    if parts.size > MOST:
        raise InputError(
            f"layer {head!r} has {parts.size:,} parameters, too many for a dense matrix of at most {MOST:,} rows: use "
            f"hessian(parameters=[{head!r}])"
        )
    _check_linear(parts, head)
    own = parts.own[0]
    names = ("total", "equivariance") if parts.labelled else ("equivariance",)
    found = _matrices(parts, names)
    if parts.labelled:
        found["twirled"] = found["total"] - found["equivariance"]
    tolerance = rank_tolerance or 10 * parts.size * torch.finfo(own.dtype).eps
    shares = torch.tensor(parts.shares, dtype=torch.float64, device=own.device)
    conditions = {part: _conditions(matrices, shares, tolerance) for part, matrices in found.items()}
    ratio = None
    if parts.labelled:
        both = conditions["equivariance"] - conditions["twirled"]
        ratio = {"value": math.exp(both[0]), "interval": _bounds(both)}
    return {
        "parameters": parts.size,
        "parts": {p: _spectrum(m.sum(0), tolerance, conditions[p]) for p, m in found.items()},
        "ratio": ratio,
    }


def _matrices(parts: Parts, names: Sequence[str]) -> dict[str, Tensor]:
    """Each batch's contribution to the Gauss-Newton matrix of every part, (batches, n, n) float64."""
    units = torch.eye(parts.size, dtype=torch.float64, device=parts.own[0].device)
    with parts.steady():
        found = [parts.batch_form(index, names, units) for index in range(len(parts))]
    parts.release()
    matrices = {part: torch.stack([one[part] for one in found]) for part in names}
    return {part: (matrix + matrix.mT) / 2 for part, matrix in matrices.items()}


def _conditions(matrices: Tensor, shares: Tensor, tolerance: float) -> Array:
    """[log condition, without batch 1, without batch 2, …]; infinite where the rank is lost, NaN without curvature."""
    whole = matrices.sum(0)
    values = torch.linalg.eigvalsh(whole)
    rank = int((values > tolerance * values[-1]).sum())
    pairs = zip(matrices, shares, strict=True) if len(matrices) > 1 else ()
    kept = [values, *(torch.linalg.eigvalsh((whole - own) / (1 - share)) for own, share in pairs)]
    if not rank:
        return np.full(len(kept), math.nan)
    return np.array([math.log(v[-1] / v[-rank]) if v[-rank] > 0 else math.inf for v in kept])


def _bounds(logs: Array) -> list[float]:
    """95 % interval of a figure from its logarithm's value and delete-one values."""
    if len(logs) < 3 or not np.isfinite(logs).all():
        return [math.nan, math.nan]
    return [math.exp(bound) for bound in interval(logs)]


def _check_linear(parts: Parts, head: str) -> None:
    """H v equals the Gauss-Newton product where and only where the answer has no second derivative along v."""
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(parts.size, generator=generator, dtype=torch.float64, device="cpu").to(parts.own[0].device)
    full, gauss = (parts.product("equivariance", v, kind) for kind in ("hessian", "gauss_newton"))
    if not (full - gauss).norm() <= _LINEAR * gauss.norm():
        raise UnsuitedModelError(
            f"the answer is not linear in layer {head!r}: name the model's last linear layer, or use hessian() for "
            "curvature in other parameters"
        )


def _spectrum(matrix: Tensor, tolerance: float, conditions: Array) -> dict[str, Any]:
    values = torch.linalg.eigvalsh(matrix)
    return {
        "matrix": matrix,
        "eigenvalues": values.tolist(),
        "rank": int((values > tolerance * values[-1]).sum()),
        "condition": math.exp(conditions[0]),
        "interval": _bounds(conditions),
    }
