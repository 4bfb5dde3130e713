"""Curvature of both losses, as far as a nano model affords it in about two minutes a checkpoint on one core."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from equiscope.runs.kinds import Analysis, BatchedSettings, Values, option

if TYPE_CHECKING:
    from equiscope.runs.trained import Trained
    from equiscope.tasks.task import Probe


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
    from equiscope.runs.deal import dealt

    return hessian(
        trained.model, dealt(probe.batches, probe.declaration, settings.batch, settings.seed), probe.declaration,
        kinds=settings.matrices, probes=settings.vectors, which=settings.which, tolerance=settings.tolerance,
        steps=settings.steps, depth=settings.depth, bias=settings.bias, **settings.design(probe),
    )  # fmt: skip


ANALYSIS = Analysis(HessianSettings, make)
