"""The head on these samples, and on others: an error must not be explained by its own samples."""

from __future__ import annotations

from dataclasses import dataclass

from equiscope.runs.kinds import Analysis, AnalysisSettings, Probe, Trained, Values, option


@dataclass(frozen=True)
class HeadSettings(AnalysisSettings):
    """head: name of the head's layer; None finds it."""

    samples: int | None = 64
    head: str | None = option(None, "name of the linear head; found by default", metavar="LAYER")


def make(trained: Trained, probe: Probe, other: Probe, settings: HeadSettings) -> Values:
    """See :func:`equiscope.analysis.heads.heads`; ``elsewhere`` on the samples of the other part."""
    from equiscope.analysis.heads import heads

    here, elsewhere = (
        heads(trained.model, part.batches, settings.plan(part), head=settings.head)
        for part in (probe, other)
    )
    return {**here, "elsewhere": elsewhere}


RELATED = {
    "equivariance error ~ weight variance": ("equivariance", "elsewhere.variance"),
    "equivariance error ~ exact form": ("equivariance", "elsewhere.form"),
    "equivariance error ~ size of the features": ("equivariance", "elsewhere.features"),
    "equivariance error ~ alignment": ("equivariance", "elsewhere.alignment"),
    "percent ~ weight variance": ("percent", "elsewhere.variance"),
    "percent ~ exact form": ("percent", "elsewhere.form"),
}
ANALYSIS = Analysis(HeadSettings, make, RELATED)
