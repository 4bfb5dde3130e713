"""The equivariance error by Wigner degree."""

from __future__ import annotations

from dataclasses import dataclass

from equiscope.runs.kinds import Analysis, AnalysisSettings, Probe, Trained, Values, option


@dataclass(frozen=True)
class SpectrumSettings(AnalysisSettings):
    """degrees: highest Wigner degree told apart; None for the set's own."""

    rotations: str = "I"
    degrees: int | None = option(3, "highest Wigner degree told apart")


def make(trained: Trained, probe: Probe, other: Probe, settings: SpectrumSettings) -> Values:
    """The spectrum of :func:`equiscope.measure`, with what it is a spectrum of."""
    from equiscope.decomposition.measure import measured

    result = measured(trained.model, probe.batches, settings.plan(probe, spectrum=settings.degrees or True))
    assert result.spectrum is not None
    return {**result.spectrum, "percent": result.percent, "equivariance": result.equivariance, "r2": result.r2}


ANALYSIS = Analysis(SpectrumSettings, make)
