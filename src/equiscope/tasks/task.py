"""What training runs know of a task: its batches, model, loss and what is measured along the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from equiscope.decomposition.crossed import Redraw
from equiscope.symmetry.declaration import Declaration


@dataclass(frozen=True)
class ProbeDesign:
    """How a probe wants to be measured where the run's own settings do not fit it.

    Attributes:
        rotations: the set of rotations; None for the run's.
        cosets: independent cosets, or with ``redraw`` the number of rotations; None for the run's.
        redraw: noise to be crossed with the rotations and averaged out (:mod:`equiscope.decomposition.crossed`).
    """

    rotations: str | None = None
    cosets: int | None = None
    redraw: Redraw | None = None


@dataclass(frozen=True)
class Probe:
    """One quantity followed through training: held-out batches and what rotates in them.

    Attributes:
        name: shown in records and figures, for example ``"forces"`` or ``"t=0.4"``.
        batches: the held-out batches, the same at every step.
        declaration: which fields rotate, which are held fixed, and the loss of each output.
        forward: how the model is called on a batch; ``None`` for ``model(batch)``.
        headline: whether this probe's percent is the headline of the run (exactly one is).
        design: rotations and estimator of its own, if any.
    """

    name: str
    batches: Sequence[Mapping[str, Tensor]]
    declaration: Declaration
    forward: Callable[[nn.Module, Mapping[str, Tensor]], Any] | None = None
    headline: bool = True
    design: ProbeDesign = ProbeDesign()


class Task(Protocol):
    """A task is plain description: training, tracking, records and report are the same for all.

    It may also have ``losses`` (name -> settings) and ``models`` (names), so that those of other tasks are refused, and
    ``training_samples``, so that no batch is larger, where noise does not make another sample of each visit;
    ``checksum()`` of its data, so that a run does not go on with others; ``baseline()``, the best linear equivariant
    predictor as a module, against which the model's ``skill`` is recorded; ``arranged(batch, padded)``, a training
    batch with whatever the model would have to count on the device, filled up to few sizes where it is compiled;
    ``host_fields``, the names of those fields of a training batch that stay on the host.
    """

    name: str

    def prepare(self, progress: bool = True) -> None:
        """Make or load the data; called once before anything below."""

    def build_model(self) -> nn.Module:
        """A freshly initialised model; its weights are a pure function of the seed."""

    def training_batch(self, step: int) -> dict[str, Tensor]:
        """The batch of a step: samples, augmentation and noise are pure functions of (seed, step)."""

    def training_loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The scalar ``"loss"`` to be minimised and its parts."""

    def probes(self, part: str) -> list[Probe]:
        """What is measured: ``part`` is ``"track"`` (along training) or ``"final"`` (an independent set)."""

    def describe(self) -> dict[str, Any]:
        """Plain facts about data and model for the run's records."""

    def pictures(self, model: nn.Module) -> list[dict[str, Any]]:
        """Pictures for the report, in plain types, or none: ``{"title", "panels": [{"title", "image"}]}``, images as
        rows of numbers on one scale within a picture."""

    def reference(self) -> dict[str, Any]:
        """The published curve to compare with: ``{"label", "points": {probe: [[step, percent]]}, "source"}``."""
