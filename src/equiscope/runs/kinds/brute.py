"""The parts of the loss by brute force, beside what is reported."""

from __future__ import annotations

from dataclasses import dataclass

from equiscope.runs.kinds import Analysis, AnalysisSettings, Probe, Trained, Values, option


@dataclass(frozen=True)
class BruteSettings(AnalysisSettings):
    """count: independent rotations of each sample."""

    samples: int | None = 2
    count: int = option(100_000, "independent rotations of each sample")


def make(trained: Trained, probe: Probe, other: Probe, settings: BruteSettings) -> Values:
    """See :func:`equiscope.analysis.brute.brute_force`."""
    from equiscope.analysis.brute import brute_force

    return brute_force(trained.model, probe.batches, probe.declaration, settings.count, forward=probe.forward,
                       rotations=settings.rotations, cosets=settings.cosets, seed=settings.seed)  # fmt: skip


ANALYSIS = Analysis(BruteSettings, make)
