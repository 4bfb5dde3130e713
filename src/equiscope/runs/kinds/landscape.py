"""The plane of the two losses' leading eigenvectors, with the lines along them."""

from __future__ import annotations

from dataclasses import dataclass

from equiscope.runs.kinds import Analysis, BatchedSettings, Probe, Trained, Values


@dataclass(frozen=True)
class LandscapeSettings(BatchedSettings):
    """See :func:`equiscope.analysis.landscape.landscape`."""

    cosets: int = 1
    samples: int | None = 16
    points: int = 11
    plane_points: int = 9
    span: float = 0.005
    tolerance: float = 0.1
    steps: int = 15


def make(trained: Trained, probe: Probe, other: Probe, settings: LandscapeSettings) -> Values:
    """See :func:`equiscope.analysis.landscape.landscape`."""
    from equiscope.analysis.landscape import landscape

    return landscape(
        trained.model, settings.batches(probe), settings.plan(probe, alone=True),
        points=settings.points, plane_points=settings.plane_points, span=settings.span, tolerance=settings.tolerance,
        steps=settings.steps,
    )  # fmt: skip


ANALYSIS = Analysis(LandscapeSettings, make)
