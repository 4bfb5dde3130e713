"""Curvature of both losses, as far as a nano model affords it in about two minutes a checkpoint on one core."""

from __future__ import annotations

from dataclasses import dataclass

from equiscope.runs.kinds import Analysis, BatchedSettings, Probe, Trained, Values, option


@dataclass(frozen=True)
class HessianSettings(BatchedSettings):
    """See :func:`equiscope.analysis.hessian.hessian`: matrices are its ``kinds``, vectors its ``probes``."""

    cosets: int = 1
    samples: int | None = 16
    matrices: tuple[str, ...] = option(("hessian",), "which curvature", choices=("hessian", "gauss_newton"))
    vectors: int = option(2, "random vectors of its traces and densities")
    which: tuple[str, ...] = ("twirled", "equivariance")
    tolerance: float = 0.02
    steps: int = 40
    depth: int = 14
    bias: bool = False


def make(trained: Trained, probe: Probe, other: Probe, settings: HessianSettings) -> Values:
    """See :func:`equiscope.analysis.hessian.hessian`."""
    from equiscope.analysis.hessian import hessian

    return hessian(
        trained.model, settings.batches(probe), settings.plan(probe, alone=True),
        kinds=settings.matrices, probes=settings.vectors, which=settings.which, tolerance=settings.tolerance,
        steps=settings.steps, depth=settings.depth, bias=settings.bias,
    )  # fmt: skip


ANALYSIS = Analysis(HessianSettings, make)
