"""Gradients of both losses: after training, or along it with the weights that are measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from equiscope.runs.kinds import Analysis, BatchedSettings, Probe, Trained, Values

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class GradientSettings(BatchedSettings):
    """Few samples, as they are also tracked along training."""

    samples: int | None = 48


#: Of gradients tracked along training, and the default of those analysed afterwards.
GRADIENTS = GradientSettings()


def gradient_identity(probe: str, step: int) -> dict[str, Any]:
    """What tells a record of tracked gradients from others: that of an analysis with the default settings."""
    return {"analysis": "gradients", "step": step, "probe": probe, "settings": GRADIENTS.recorded()}


def adam_state(state: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The optimiser's state if it holds Adam's second moments, else None (SGD, or before the first step)."""
    return state if any("exp_avg_sq" in own for own in state.get("state", {}).values()) else None


def probe_gradients(
    net: nn.Module, probe: Probe, settings: GradientSettings, optimizer_state: Mapping[str, Any]
) -> Values:
    """Gradients of both losses on a probe; the weights of an average, which are frozen, are let go for it."""
    from equiscope.analysis.gradients import gradients
    from equiscope.decomposition.preserve import untouched

    with untouched(net):
        if not any(p.requires_grad for p in net.parameters()):
            net.requires_grad_(True)
        return gradients(net, settings.batches(probe), settings.plan(probe, alone=True),
                         optimizer_state=adam_state(optimizer_state))  # fmt: skip


def make(trained: Trained, probe: Probe, other: Probe, settings: GradientSettings) -> Values:
    """See :func:`equiscope.analysis.gradients.gradients`."""
    return probe_gradients(trained.model, probe, settings, trained.optimizer_state)


def series(values: Mapping[str, Any]) -> dict[str, float | None]:
    """Percent of the loss on the samples of the gradients, and the ratio of the two norms."""
    losses, adam = values["losses"], values["adam"]
    total = losses["twirled"] + losses["equivariance"]
    return {
        "percent": 100 * losses["equivariance"] / total if total > 0 else None,
        "ratio": values["whole"]["ratio"]["value"],
        "adam_ratio": adam["ratio"]["value"] if adam else None,
    }


RELATED = {
    "percent ~ gradient ratio": ("percent", "ratio"),
    "percent ~ gradient ratio in Adam’s metric": ("percent", "adam_ratio"),
}
ANALYSIS = Analysis(GradientSettings, make, RELATED, series)
