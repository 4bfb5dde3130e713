"""Inside the network: the variance of each layer's features by Wigner degree."""

from __future__ import annotations

from dataclasses import dataclass

from equiscope.runs.kinds import Analysis, AnalysisSettings, Probe, Trained, Values, option


@dataclass(frozen=True)
class LayerSettings(AnalysisSettings):
    """layers: patterns of layer names. degrees: highest Wigner degree told apart.

    With content of degree l in a set of degree t, degrees up to t − l come without noise from it, hence the defaults.
    """

    rotations: str = "O"
    samples: int | None = 16
    layers: tuple[str, ...] | None = option(None, "names of layers, such as 'layers.*.mlp'", metavar="PATTERN")
    degrees: int | None = option(2, "highest Wigner degree told apart")


def make(trained: Trained, probe: Probe, other: Probe, settings: LayerSettings) -> Values:
    """See :func:`equiscope.analysis.layers.layers`."""
    from equiscope.analysis.layers import layers

    asked = True if settings.degrees is None else settings.degrees
    plan = settings.plan(probe, spectrum=asked, judged=False)
    return layers(trained.model, probe.batches, plan, names=settings.layers)


ANALYSIS = Analysis(LayerSettings, make)
