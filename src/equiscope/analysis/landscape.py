"""The losses along lines and planes in parameter space, under common rotations, noise, batches and mode.

Everything random is the same at every point, so what looks rough is the loss, not its evaluation. Roughness is the
residual of local quadratic fits; its noise level comes from the spread of that residual over independent batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from equiscope.analysis.hessian import CurvatureOperator, largest_eigenvalue
from equiscope.analysis.krylov import Array, signs
from equiscope.analysis.pairs import mean_variance
from equiscope.analysis.parts import PARTS, Parts
from equiscope.decomposition.plan import Plan
from equiscope.decomposition.pool import added
from equiscope.errors import InputError
from equiscope.symmetry.declaration import Declaration

WINDOW_1D, WINDOW_2D = 7, 5
JITTERS = 3


def landscape(
    model: nn.Module,
    batches: Iterable[Any],
    plan: Plan | Declaration,
    *,
    directions: Sequence[str | Mapping[str, Tensor]] = ("eigenvector:twirled", "eigenvector:equivariance"),
    plane: bool = True,
    points: int = 21,
    plane_points: int = 15,
    span: float = 0.05,
    parameters: Sequence[str] | None = None,
    tolerance: float = 0.05,
    steps: int = 30,
    memory: str = "auto",
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
    **design: Any,
) -> dict[str, Any]:
    """Both losses at theta + t d for every direction d, and on the plane of the first two.

    Directions are ``"eigenvector:PART"`` (largest curvature of that part), ``"gradient:PART"`` with PART of
    ``twirled``, ``equivariance``, ``total``; ``"random"`` or ``"random:SEED"`` (each filter as long as the weights'
    own, no biases: Li et al., NeurIPS 2018); or a dict of tensors by parameter name. All but the last are scaled to the
    norm of theta, so t is a relative displacement; the second axis of the plane is made orthogonal to the first.

    Args:
        points, plane_points: grid points a side, odd, at least 7 and 5; the middle one is the model itself.
        span: t runs from -span to span.
        batches: independent batches, whose spread gives the error bars; at least two for them.
        tolerance, steps, memory: of the eigenvectors' Lanczos.
        progress: wraps the iteration over all grid points.
        others: as for :class:`Parts`.

    Returns:
        ``t``; ``lines[direction][part]``: ``value``, ``error`` (standard error over batches of the change from the
        middle point) and the figures of :func:`roughness`; ``plane``: ``x``, ``y``, ``axes`` and the same per part with
        rows along y; ``norm`` of theta; ``rounding``: standard deviation of each loss when every parameter moves by one
        rounding unit. Plain types.

    Raises:
        InputError: an unknown direction or bad counts, a vanishing direction, and what :class:`Parts` refuses.
    """
    for name, value, low in (("points", points, WINDOW_1D), ("plane_points", plane_points, WINDOW_2D)):
        if isinstance(value, bool) or not isinstance(value, int) or value < low or value % 2 == 0:
            raise InputError(f"{name} must be an odd integer >= {low}, got {value!r}")
    if not 0 < span < math.inf:
        raise InputError(f"span must be positive, got {span!r}")
    parts = Parts(model, batches, plan, parameters=parameters, memory=memory, **design)
    seed = parts.plan.design.seed
    labels = [d if isinstance(d, str) else f"given:{place}" for place, d in enumerate(directions)]
    named = [(label, _direction(parts, d, seed, tolerance, steps)) for label, d in zip(labels, directions, strict=True)]
    parts.release()
    t = np.linspace(-span, span, points)
    s = np.linspace(-span, span, plane_points)
    # (length, direction) of the summands of each displacement, which are as large as the model: made one at a time.
    sums_of: list[list[tuple[float, Tensor]]] = [[(float(a), d)] for _, d in named for a in t]
    second = _orthogonal(named[1][1], named[0][1]) if plane and len(named) > 1 else None
    if second is not None:
        sums_of += [[(float(a), named[0][1]), (float(b), second)] for b in s for a in s]
    found = [_at(parts, added(a * d for a, d in sums)) for sums in (progress or iter)(sums_of)]
    weights = np.array(parts.shares)
    tables = {part: np.stack([row[part] for row in found]) for part in parts.values}
    lines = {}
    for place, (label, _) in enumerate(named):
        own = slice(place * points, (place + 1) * points)
        lines[label] = {part: _summary(table[own], weights) for part, table in tables.items()}
    grid: dict[str, Any] | None = None
    if second is not None:
        planes = {part: table[len(named) * points :].reshape(len(s), len(s), -1) for part, table in tables.items()}
        grid = {"x": s.tolist(), "y": s.tolist(), "axes": [named[0][0], named[1][0]],
                "parts": {part: _summary(plane, weights) for part, plane in planes.items()}}  # fmt: skip
    return {
        **parts.described,
        "batches": len(parts),
        "norm": float(parts.flat(parts.own).norm()),
        "t": t.tolist(),
        "lines": lines,
        "plane": grid,
        "rounding": _rounding(parts, seed),
    }


def roughness(values: Array, weights: Array) -> dict[str, float]:
    """Residual of quadratic fits to per-batch values on a regular grid, (points, batches) or (rows, columns, batches).

    With r_b(t) the residual of batch b in the middle of a moving window (7 points, 5 x 5 in the plane) and w its share,

        plug_in = mean_t (sum_b w_b r_b(t))^2,      noise = mean_t sum_b w_b^2 / (1 - w_b) (r_b(t) - mean)^2,

    ``roughness`` is sqrt(plug_in), ``noise`` the square root of the noise (NaN with one batch), ``square`` the unbiased
    plug_in - noise, which may be negative. ``relative`` divides by the range of the mean values; ``anharmonic`` is the
    residual of one quadratic over the whole grid over the same range: the loss's own cubic and higher terms.
    """
    dims = values.ndim - 1
    mean = values @ weights
    window = _windows(values, WINDOW_1D if dims == 1 else WINDOW_2D, dims)
    residual = window @ weights
    plug_in = float((residual**2).mean())
    noise = float(mean_variance(window, weights).mean())
    whole = mean.ravel() - _hat(mean.shape) @ mean.ravel()
    extent = float(np.ptp(mean))
    return {
        "roughness": math.sqrt(plug_in),
        "noise": math.sqrt(noise) if noise >= 0 else math.nan,
        "square": plug_in - noise,
        "relative": math.sqrt(plug_in) / extent if extent > 0 else math.nan,
        "anharmonic": float(np.sqrt((whole**2).mean())) / extent if extent > 0 else math.nan,
        "range": extent,
    }


def _summary(values: Array, weights: Array) -> dict[str, Any]:
    """Mean over batches, its standard error relative to the middle point, and the roughness."""
    middle = values[tuple(n // 2 for n in values.shape[:-1])]
    error = np.sqrt(mean_variance(values - middle, weights))
    return {"value": (values @ weights).tolist(), "error": error.tolist(), **roughness(values, weights)}


def _windows(values: Array, width: int, dims: int) -> Array:
    """Residual in the middle of every window of the grid, (windows, batches)."""
    axes = tuple(range(dims))
    view = np.lib.stride_tricks.sliding_window_view(values, (width,) * dims, axis=axes)
    view = np.moveaxis(view, dims, -1).reshape(-1, width**dims, values.shape[-1])
    hat = _hat((width,) * dims)
    middle = width**dims // 2
    return view[:, middle] - np.einsum("k,wkb->wb", hat[middle], view)


def _hat(shape: tuple[int, ...]) -> Array:
    """Projection of grid values, flattened, onto quadratics."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    flat = [a.ravel() for a in axes]
    columns = [np.ones_like(flat[0]), *flat, *(a * b for i, a in enumerate(flat) for b in flat[i:])]
    q, _ = np.linalg.qr(np.stack(columns, axis=1))
    return q @ q.T


def _at(parts: Parts, shift: Tensor) -> dict[str, Array]:
    """Each batch's own mean loss of every part at a displacement."""
    rows = [parts.batch_values(index, shift) for index in range(len(parts))]
    return {p: np.array([r[p] / s for r, s in zip(rows, parts.shares, strict=True)]) for p in parts.values}


def _rounding(parts: Parts, seed: int) -> dict[str, float]:
    """Spread of the losses when every parameter is moved by about one unit of its last place."""
    generator = torch.Generator().manual_seed(seed)
    unit = parts.flat(parts.own) * torch.finfo(parts.own[0].dtype).eps
    rows = []
    for _ in range(JITTERS):
        found = _at(parts, unit * signs(generator, parts.size).to(unit.device))
        rows.append({p: float(v @ np.array(parts.shares)) for p, v in found.items()})
    return {part: float(np.std([row[part] for row in rows], ddof=1)) for part in parts.values}


def _direction(
    parts: Parts, direction: str | Mapping[str, Tensor], seed: int, tolerance: float, steps: int
) -> Tensor:
    if isinstance(direction, Mapping):
        unknown = sorted(set(direction) - set(parts.parameters))
        if unknown:
            raise InputError(f"the direction names {unknown[:3]}, which are no parameters that are analysed")
        return parts.flat([direction.get(name) for name in parts.parameters])
    kind, _, detail = direction.partition(":")
    if kind == "random" and (not detail or detail.removeprefix("-").isdecimal()):
        return _filter_normalised(parts, int(detail or seed))
    if kind not in ("eigenvector", "gradient") or detail not in PARTS:
        raise InputError(
            f"unknown direction {direction!r}: use 'eigenvector:PART', 'gradient:PART' with PART of {PARTS}, "
            "'random', 'random:SEED' or a dict of tensors by parameter name"
        )
    if kind == "gradient":
        vector = parts.gradient((detail,))[detail]
    else:
        operator = CurvatureOperator(parts, detail)
        vector = largest_eigenvalue(operator, tolerance=tolerance, steps=steps, seed=seed)["vector"]
    if not vector.norm() > 0:
        raise InputError(f"the direction {direction!r} vanishes: the loss does not change with the parameters")
    return vector * (parts.flat(parts.own).norm() / vector.norm())


def _filter_normalised(parts: Parts, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for parameter in parts.parameters.values():
        drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64, device="cpu")
        noise = drawn.to(parameter.device)
        if parameter.ndim < 2:
            found.append(torch.zeros_like(noise))
            continue
        rows, own = noise.flatten(1), parameter.detach().double().flatten(1)
        found.append((rows * own.norm(dim=1, keepdim=True) / rows.norm(dim=1, keepdim=True)).reshape(noise.shape))
    return parts.flat(found)


def _orthogonal(vector: Tensor, other: Tensor) -> Tensor:
    """``vector`` without its part along ``other``, at its own length."""
    rest = vector - other * (other @ vector / (other @ other))
    if not rest.norm() > 1e-6 * vector.norm():
        raise InputError("the first two directions are parallel: they span no plane; choose others or plane=False")
    return rest * (vector.norm() / rest.norm())
