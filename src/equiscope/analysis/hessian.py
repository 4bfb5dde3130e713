"""Curvature of each part of the loss: largest eigenvalue, trace, spectral density, conditioning, with intervals.

Hessian products by double backward, on batches and rotations held fixed. The spectrum of a large network is known
through Ritz values: no smallest eigenvalue and no condition number built on one is given, only quantiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from scipy import stats
from scipy.sparse.linalg import LinearOperator
from torch import Tensor, nn

from equiscope.analysis.krylov import Array, Lanczos, lanczos, quantile, signs, smoothed
from equiscope.analysis.pairs import around, figure, student
from equiscope.analysis.parts import KINDS, PARTS, Parts
from equiscope.decomposition.plan import Plan
from equiscope.errors import InputError, check_count
from equiscope.symmetry.declaration import Declaration

QUANTILES = (0.5, 0.9, 0.99)
GRID = 101


class CurvatureOperator(LinearOperator):
    """H v of one part of the loss (or its Gauss-Newton matrix) for scipy, float64.

    Attributes:
        shares: weight of each batch averaged over, by its index.
        products: calls so far, and those of its halves.
        calls: v^T H_b v of every batch in each call, H_b the mean over the batch's own samples.

    Args:
        batches: indices of the batches averaged over; all by default.
    """

    def __init__(self, parts: Parts, part: str, kind: str = "hessian", batches: Sequence[int] | None = None):
        super().__init__(np.float64, (parts.size, parts.size))
        self.parts, self.part, self.kind = parts, part, kind
        self.batches = list(range(len(parts)) if batches is None else batches)
        self.shares = {i: parts.shares[i] for i in self.batches}
        self._rescale = 1 / sum(self.shares.values())
        self.products = 0
        self.calls: list[dict[int, float]] = []

    def apply(self, vector: Tensor) -> Tensor:
        """H v for a torch vector."""
        total = torch.zeros(self.parts.size, dtype=torch.float64, device=vector.device)
        self.products += 1
        self.calls.append({})
        for index in self.batches:
            image = self.parts.batch_product(index, self.part, vector, self.kind)
            self.calls[-1][index] = float(vector.double() @ image) / self.shares[index]
            total += image
        return total * self._rescale

    def spread(self) -> dict[str, Any]:
        """v^T H v of the last call, with Student's interval over the batches."""
        return student(list(self.calls[-1].values()), list(self.shares.values()))

    def _matvec(self, vector: Array) -> Array:
        device = self.parts.own[0].device
        return self.apply(torch.from_numpy(np.ravel(vector)).to(device)).cpu().numpy()

    _rmatvec = _matvec


def hessian(
    model: nn.Module,
    batches: Iterable[Any],
    plan: Plan | Declaration,
    *,
    parameters: Sequence[str] | None = None,
    which: Sequence[str] = PARTS,
    kinds: Sequence[str] = KINDS,
    tolerance: float = 0.01,
    steps: int = 60,
    probes: int = 4,
    depth: int = 20,
    bias: bool = True,
    memory: str = "auto",
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
    **design: Any,
) -> dict[str, Any]:
    """Spectral figures of the Hessian and the Gauss-Newton matrix of each part of the loss.

    ``probes`` Lanczos runs of ``depth`` products from Rademacher vectors z give the trace (Hutchinson: mean z^T H z),
    |H|_F^2 (mean |H z|^2) and the density (stochastic Lanczos quadrature); the first run goes on until the largest
    eigenvalue has a residual under ``tolerance`` of itself, at most ``steps`` products.

    The largest eigenvalue of a loss sampled on n samples is biased upwards (a largest eigenvalue is convex in H). Its
    size is shown by halves A, B of the batches: E[halves] >= E[lambda_max] >= true >= E[cross], with halves the mean of
    lambda_max(H_A), lambda_max(H_B) and cross the mean of v_A^T H_B v_A, v_B^T H_A v_B.

    The unbiased twirled loss uses products of different cosets, so its Gauss-Newton matrix may have small negative
    eigenvalues; with one coset it is the plug-in |P - y|^2, positive but with the leak of what the set does not see.

    Args:
        which, kinds: of ``("twirled", "equivariance", "total")`` and ``("hessian", "gauss_newton")``.
        bias: run the halves (needs two batches; about as many products again as the largest eigenvalue).
        memory: as for :class:`Parts`; ``"all"`` is fastest, ``"pass"`` smallest.
        progress: wraps the iteration over (part, kind) pairs.
        others: as for :class:`Parts`.

    Returns:
        ``losses``, design, and ``parts[part][kind]``: ``lambda_max`` (``value``, ``residual``, ``converged``,
        ``steps``, ``interval`` over batches at the eigenvector, ``bias`` or None), ``trace`` and ``frobenius_square``
        (``value``, ``interval`` over probes, which covers at least 95 %: the wider of Student's and of the one from
        Hutchinson's variance 2 tr f(H)^2; for the trace ``interval_samples`` over probes and batches), ``stable_rank``,
        ``smallest_ritz``, ``quantiles`` of |lambda| and ``conditioning`` = lambda_max over them, ``over_mean`` =
        lambda_max n / trace, ``over_loss`` = (lambda_max, trace) / L, ``along_gradient`` = g^T H g / g^T g of the
        part's own and of the total gradient, ``density`` (grid, value, error, width: smoothed by the
        Gaussian that ``depth`` products resolve; value +- 1.96 error likewise), ``products``. Plain types.

    Raises:
        InputError: bad counts, or what :class:`Parts` refuses.

    Source: landscapes and condition numbers in Shen et al., TMLR 2025; Ubaru, Chen, Saad, SIAM J. Matrix Anal. 38
    (2017) 1075; Hutchinson 1990.
    """
    for name, value, low in (("steps", steps, 1), ("probes", probes, 2), ("depth", depth, 2)):
        check_count(name, value, low)
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance must lie between 0 and 1, got {tolerance!r}")
    parts = Parts(model, batches, plan, parameters=parameters, memory=memory, **design)
    seed = parts.plan.design.seed
    parts.check_parts(which)
    slopes = parts.gradient(tuple({*which, *(["total"] if parts.labelled else [])}))
    found: dict[str, Any] = {part: {} for part in which}
    for part, kind in (progress or iter)([(part, kind) for part in which for kind in kinds]):
        operator = CurvatureOperator(parts, part, kind)
        vectors = {"own": slopes[part], **({"total": slopes["total"]} if "total" in slopes else {})}
        with parts.steady():
            figures = _spectrum(operator, tolerance, steps, probes, depth, seed)
            figures["along_gradient"] = {name: _along(operator, g) for name, g in vectors.items()}
            halves = _halves(operator, tolerance, steps, seed) if bias and len(parts) > 1 else None
        figures["lambda_max"]["bias"] = halves
        loss = parts.values[part]
        scaled = {"lambda_max": figures["lambda_max"]["value"], "trace": figures["trace"]["value"]}
        figures["over_loss"] = {name: value / loss if loss else math.nan for name, value in scaled.items()}
        found[part][kind] = {**figures, "products": operator.products}
        parts.release()
    return {
        **parts.described,
        "batches": len(parts),
        "parameters": parts.size,
        "unused": list(parts.unused),
        "tolerance": tolerance,
        "probes": probes,
        "depth": depth,
        "parts": found,
    }


def largest_eigenvalue(
    operator: CurvatureOperator, *, tolerance: float = 0.01, steps: int = 60, seed: int = 0
) -> dict[str, Any]:
    """Largest eigenvalue alone, by Lanczos from a random vector: ``value``, ``residual``, ``converged``, ``steps``,
    ``interval`` (Student over batches at the eigenvector) and ``vector``, flat.
    """
    with operator.parts.steady():
        run = lanczos(operator.apply, _rademacher(operator.parts, seed, 0), steps, tolerance)
        return {**_largest(operator, run), "vector": run.vector.double()}


def _spectrum(
    operator: CurvatureOperator, tolerance: float, steps: int, probes: int, depth: int, seed: int
) -> dict[str, Any]:
    runs: list[Lanczos] = []
    size, tables = operator.parts.size, []
    for probe in range(probes):
        first, before = probe == 0, len(operator.calls)
        runs.append(lanczos(
            operator.apply, _rademacher(operator.parts, seed, probe), max(steps, depth) if first else depth,
            tolerance if first else None, least=depth if first else 1,
        ))  # fmt: skip
        tables.append([size * value for value in operator.calls[before].values()])
    top, squares = _largest(operator, runs[0]), around(*_probed(runs, size, np.square))
    trace, reach = _probed(runs, size, np.copy)
    low, high = student(np.mean(tables, axis=0).tolist(), list(operator.shares.values()))["interval"]
    both = around(trace, math.hypot(reach, (high - low) / 2))
    quantiles = {
        str(q): student([quantile(np.abs(run.nodes), run.weights, q) for run in runs]) for q in QUANTILES
    }
    value = top["value"]
    return {
        "lambda_max": top,
        "trace": {**around(trace, reach), "interval_samples": both["interval"]},
        "frobenius_square": squares,
        "stable_rank": squares["value"] / max(value**2, float(runs[0].nodes[0]) ** 2) if value else math.nan,
        "smallest_ritz": float(runs[0].nodes[0]),
        "quantiles": quantiles,
        "conditioning": {q: value / found["value"] if found["value"] else math.inf for q, found in quantiles.items()},
        "over_mean": value * size / trace if trace else math.inf,
        "density": _density(runs, size, depth),
    }


def _largest(operator: CurvatureOperator, run: Lanczos) -> dict[str, Any]:
    if len(operator.batches) > 1:
        operator.apply(run.vector)
    return {
        "value": run.largest,
        "residual": run.residual,
        "converged": run.converged,
        "steps": run.steps,
        "interval": operator.spread()["interval"],
    }


def _along(operator: CurvatureOperator, gradient: Tensor) -> dict[str, Any]:
    norm = gradient.norm()
    if not norm > 0:
        return figure(math.nan, (math.nan, math.nan))
    operator.apply(gradient / norm)
    return operator.spread()


def _halves(operator: CurvatureOperator, tolerance: float, steps: int, seed: int) -> dict[str, float]:
    """What sampling does to the largest eigenvalue: its mean over two halves, and each vector judged on the other."""
    parts, part, kind = operator.parts, operator.part, operator.kind
    halves = [CurvatureOperator(parts, part, kind, operator.batches[i::2]) for i in (0, 1)]
    runs = [lanczos(half.apply, _rademacher(parts, seed, 0), steps, tolerance) for half in halves]
    cross = [float(run.vector.double() @ half.apply(run.vector)) for run, half in zip(runs, halves[::-1], strict=True)]
    operator.products += sum(half.products for half in halves)
    return {"halves": float(np.mean([run.largest for run in runs])), "cross": float(np.mean(cross))}


def _density(runs: list[Lanczos], size: int, depth: int) -> dict[str, Any]:
    low, high = min(r.nodes[0] for r in runs), max(r.nodes[-1] for r in runs)
    # k products resolve no Gaussian narrower than about 1/k of the range; all of them resolve any.
    width = (high - low) / (50 if depth >= size else min(depth, 50)) or max(abs(high), 1e-300) / 50
    grid = np.linspace(low - 3 * width, high + 3 * width, GRID)
    one = np.ones(1)
    value, reach = _probed(
        runs, size, lambda nodes: np.stack([smoothed(x[None], one, grid, width) for x in nodes], -1) / size
    )
    return {
        "grid": grid.tolist(),
        "value": value.tolist(),
        "error": (reach / float(stats.norm.ppf(0.975))).tolist(),
        "width": float(width),
        "nodes": [run.nodes.tolist() for run in runs],
        "weights": [run.weights.tolist() for run in runs],
    }


def _probed(runs: list[Lanczos], size: int, f: Callable[[Array], Array]) -> tuple[Any, Any]:
    """tr f(H) from the quadratures z^T f(H) z = n sum_k w_k f(t_k), and a 95 % reach that does not undercover.

    Few skewed values (a dominant eigenvalue makes z^T H z a chi-square of one degree) are too often all small, with a
    small scatter. But the variance of one is at most 2 tr f(H)^2, estimated likewise and never below sum_k f(t_k)^2 of
    a run's own Ritz values. The reach is the larger of Student's t s and of 1.96 times that bound, over sqrt(probes).
    ``f`` maps nodes (k,) to (…, k).
    """
    images = [f(run.nodes) for run in runs]
    each = np.stack([size * (image @ run.weights) for image, run in zip(images, runs, strict=True)])
    squares = np.mean([size * (i**2 @ run.weights) for i, run in zip(images, runs, strict=True)], axis=0)
    bound = 2 * np.maximum(squares, np.max([(i**2).sum(-1) for i in images], axis=0))
    student = float(stats.t.ppf(0.975, len(runs) - 1)) * each.std(axis=0, ddof=1)
    reach = np.maximum(student, float(stats.norm.ppf(0.975)) * np.sqrt(bound)) / math.sqrt(len(runs))
    return each.mean(axis=0), reach


def _rademacher(parts: Parts, seed: int, probe: int) -> Tensor:
    generator = torch.Generator().manual_seed((seed * 1_000_003 + probe) % 2**63)
    return signs(generator, parts.size).to(parts.own[0].device, parts.own[0].dtype)
