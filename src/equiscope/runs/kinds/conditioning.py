"""The head's exact Hessians, in float64: their smallest eigenvalues drown in the rounding of single precision."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from equiscope.errors import UnsuitedModelError
from equiscope.runs.kinds import Analysis, BatchedSettings, Probe, Trained, Values, option

if TYPE_CHECKING:
    from torch import nn

    from equiscope.runs.deal import Batch


@dataclass(frozen=True)
class ConditioningSettings(BatchedSettings):
    """head: name of the head's layer; None finds it."""

    rotations: str = "O"
    cosets: int = 1
    samples: int | None = 32
    head: str | None = option(None, "name of the linear head; found by default", metavar="LAYER")


def make(trained: Trained, probe: Probe, other: Probe, settings: ConditioningSettings) -> Values:
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
    import torch

    exact = copy.deepcopy(model).double()
    made = [{k: v.double() if v.is_floating_point() else v for k, v in batch.items()} for batch in batches]
    try:
        with torch.no_grad():
            exact(made[0]) if forward is None else forward(exact, made[0])
    except RuntimeError as error:
        raise UnsuitedModelError(
            f"{type(model).__name__} does not run in float64, without which no smallest eigenvalue is known "
            f"({str(error).splitlines()[0]}): make its own tensors in the dtype of its inputs, or look at 'hessian'"
        ) from error
    return exact, made


ANALYSIS = Analysis(ConditioningSettings, make)
