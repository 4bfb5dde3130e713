"""Analyses that hand their samples and settings on to one function."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from equiscope.errors import UnsuitedModelError
from equiscope.runs.kinds import Analysis, AnalysisSettings, BatchedSettings, Probe, Trained, Values, option

if TYPE_CHECKING:
    from torch import nn

    from equiscope.runs.deal import Batch


@dataclass(frozen=True)
class BruteSettings(AnalysisSettings):
    """The parts of the loss by brute force, beside what is reported. count: independent rotations of each sample."""

    samples: int | None = 2
    count: int = option(100_000, "independent rotations of each sample")


def brute(trained: Trained, probe: Probe, other: Probe, settings: BruteSettings) -> Values:
    """See :func:`equiscope.analysis.brute.brute_force`."""
    from equiscope.analysis.brute import brute_force

    return brute_force(trained.model, probe.batches, probe.declaration, settings.count, forward=probe.forward,
                       rotations=settings.rotations, cosets=settings.cosets, seed=settings.seed)  # fmt: skip


@dataclass(frozen=True)
class ConditioningSettings(BatchedSettings):
    """The head's exact Hessians, in float64: their smallest eigenvalues drown in the rounding of single precision.

    head: name of its layer; None finds it.
    """

    rotations: str = "O"
    cosets: int = 1
    samples: int | None = 32
    head: str | None = option(None, "name of the linear head; found by default", metavar="LAYER")


def conditioning(trained: Trained, probe: Probe, other: Probe, settings: ConditioningSettings) -> Values:
    """See :func:`equiscope.analysis.linear_head.linear_head`; its matrices are too large for a record."""
    from equiscope.analysis.heads import find_head
    from equiscope.analysis.linear_head import linear_head

    model, batches = doubled(trained.model, settings.batches(probe), probe.forward)
    plan = settings.plan(probe, alone=True)
    layer = find_head(model, batches[0], plan, settings.head)
    found = linear_head(model, batches, plan, layer)
    for part in found["parts"].values():
        del part["matrix"]
    return {"layer": layer, "samples": sum(len(next(iter(batch.values()))) for batch in batches), **found}


def doubled(
    model: nn.Module, batches: Sequence[Batch], forward: Callable[[nn.Module, Batch], Any] | None
) -> tuple[nn.Module, list[Batch]]:
    """A copy of the model and the batches in float64.

    Raises:
        UnsuitedModelError: if the model does not run in float64.
    """
    from equiscope.decomposition.orbit import Caller

    exact = copy.deepcopy(model).double()
    made = [{k: v.double() if v.is_floating_point() else v for k, v in batch.items()} for batch in batches]
    try:
        Caller(forward)(exact, made[0])
    except RuntimeError as error:
        raise UnsuitedModelError(
            f"{type(model).__name__} does not run in float64, without which no smallest eigenvalue is known "
            f"({str(error).splitlines()[0]}): make its own tensors in the dtype of its inputs, or look at 'hessian'"
        ) from error
    return exact, made


@dataclass(frozen=True)
class HeadSettings(AnalysisSettings):
    """The head on these samples, and on others: no error explains itself. head: name of its layer; None finds it."""

    samples: int | None = 64
    head: str | None = option(None, "name of the linear head; found by default", metavar="LAYER")


def heads(trained: Trained, probe: Probe, other: Probe, settings: HeadSettings) -> Values:
    """See :func:`equiscope.analysis.heads.heads`; ``elsewhere`` on the samples of the other part."""
    from equiscope.analysis import heads as form

    here, elsewhere = (
        form.heads(trained.model, part.batches, settings.plan(part), head=settings.head) for part in (probe, other)
    )
    return {**here, "elsewhere": elsewhere}


@dataclass(frozen=True)
class HessianSettings(BatchedSettings):
    """Curvature of both losses, as far as a nano model affords it in about two minutes a checkpoint on one core.

    See :func:`equiscope.analysis.hessian.hessian`: matrices are its ``kinds``, vectors its ``probes``.
    """

    cosets: int = 1
    samples: int | None = 16
    matrices: tuple[str, ...] = option(("hessian",), "which curvature", choices=("hessian", "gauss_newton"))
    vectors: int = option(2, "random vectors of its traces and densities")
    which: tuple[str, ...] = ("twirled", "equivariance")
    tolerance: float = 0.02
    steps: int = 40
    depth: int = 14
    bias: bool = False


def hessian(trained: Trained, probe: Probe, other: Probe, settings: HessianSettings) -> Values:
    """See :func:`equiscope.analysis.hessian.hessian`."""
    from equiscope.analysis import hessian as curvature

    return curvature.hessian(
        trained.model, settings.batches(probe), settings.plan(probe, alone=True),
        kinds=settings.matrices, probes=settings.vectors, which=settings.which, tolerance=settings.tolerance,
        steps=settings.steps, depth=settings.depth, bias=settings.bias,
    )  # fmt: skip


@dataclass(frozen=True)
class LandscapeSettings(BatchedSettings):
    """The plane of the two losses' leading eigenvectors: see :func:`equiscope.analysis.landscape.landscape`."""

    cosets: int = 1
    samples: int | None = 16
    points: int = 11
    plane_points: int = 9
    span: float = 0.005
    tolerance: float = 0.1
    steps: int = 15


def landscape(trained: Trained, probe: Probe, other: Probe, settings: LandscapeSettings) -> Values:
    """See :func:`equiscope.analysis.landscape.landscape`, with the lines along the plane's directions."""
    from equiscope.analysis import landscape as surface

    return surface.landscape(
        trained.model, settings.batches(probe), settings.plan(probe, alone=True), points=settings.points,
        plane_points=settings.plane_points, span=settings.span, tolerance=settings.tolerance, steps=settings.steps,
    )  # fmt: skip


@dataclass(frozen=True)
class LayerSettings(AnalysisSettings):
    """The variance of each layer's features by Wigner degree. layers: patterns of names; degrees: the highest of these.

    With content of degree l in a set of degree t, degrees up to t − l come without noise from it, hence the defaults.
    """

    rotations: str = "O"
    samples: int | None = 16
    layers: tuple[str, ...] | None = option(None, "names of layers, such as 'layers.*.mlp'", metavar="PATTERN")
    degrees: int | None = option(2, "highest Wigner degree told apart")


def layers(trained: Trained, probe: Probe, other: Probe, settings: LayerSettings) -> Values:
    """See :func:`equiscope.analysis.layers.layers`."""
    from equiscope.analysis import layers as inside

    plan = settings.plan(probe, spectrum=True if settings.degrees is None else settings.degrees, judged=False)
    return inside.layers(trained.model, probe.batches, plan, names=settings.layers)


@dataclass(frozen=True)
class SpectrumSettings(AnalysisSettings):
    """The equivariance error by Wigner degree. degrees: highest one told apart; None for the set's own."""

    rotations: str = "I"
    degrees: int | None = option(3, "highest Wigner degree told apart")


def spectrum(trained: Trained, probe: Probe, other: Probe, settings: SpectrumSettings) -> Values:
    """The spectrum of :func:`equiscope.measure`, with what it is a spectrum of."""
    from equiscope.decomposition.measure import measured

    result = measured(trained.model, probe.batches, settings.plan(probe, spectrum=settings.degrees or True))
    assert result.spectrum is not None
    return {**result.spectrum, "percent": result.percent, "equivariance": result.equivariance, "r2": result.r2}


RELATED = {
    "equivariance error ~ weight variance": ("equivariance", "elsewhere.variance"),
    "equivariance error ~ exact form": ("equivariance", "elsewhere.form"),
    "equivariance error ~ size of the features": ("equivariance", "elsewhere.features"),
    "equivariance error ~ alignment": ("equivariance", "elsewhere.alignment"),
    "percent ~ weight variance": ("percent", "elsewhere.variance"),
    "percent ~ exact form": ("percent", "elsewhere.form"),
}
ANALYSES = {
    "brute": Analysis(BruteSettings, brute),
    "conditioning": Analysis(ConditioningSettings, conditioning),
    "heads": Analysis(HeadSettings, heads, RELATED),
    "hessian": Analysis(HessianSettings, hessian),
    "landscape": Analysis(LandscapeSettings, landscape),
    "layers": Analysis(LayerSettings, layers),
    "spectrum": Analysis(SpectrumSettings, spectrum),
}
