"""Follow a run of one of our tasks into its records: training, the error of the probes, their baseline and skill.

Its figures come from :func:`equiscope.measure` on one process, are written to disk as they come and are found there
again after a restart. A user's own training, whose metric is shared among processes and kept in the checkpoint, is
followed by :class:`equiscope.adapters.lightning.EquivarianceTracker`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from equiscope.decomposition.crossed import measure_crossed
from equiscope.decomposition.losses import loss as find_loss
from equiscope.decomposition.measure import device_of, measure
from equiscope.decomposition.plan import check_cosets, make_design
from equiscope.decomposition.result import Result
from equiscope.errors import InputError, IntegrityError, check_count
from equiscope.records import Record, Records
from equiscope.runs.clock import Clock
from equiscope.runs.deal import thinned
from equiscope.runs.devices import TRAINED
from equiscope.runs.kinds.gradients import GRADIENTS, gradient_identity, probe_gradients
from equiscope.runs.module import TaskModule
from equiscope.symmetry.rotations import rotation_set
from equiscope.tasks.task import Probe

# A training step costs about this many gradient-free passes of its batch (measured; three by counting).
PASSES_PER_STEP = 2.0
# A forward sweep that keeps predictions, then a forward and a backward one.
GRADIENT_PASSES = 4
SPACING = 12


@dataclass(frozen=True)
class Tracking:
    """How probes are measured.

    Attributes:
        rotations, cosets, seed: as for :func:`equiscope.measure`; the same at every step of a run.
        points: steps measured, first and last included; None for as many as ``share`` allows.
        first: the first measured step after 0.
        share: largest share of the run's time that tracking may take.
        gradients: record the gradients of both losses too, as ``equiscope analyse RUN gradients`` would.
        precision: what the measured copy computes in: None for float32 (the run's double in a run in double), whatever
            the training computes in, or ``"trained"`` for the same as the training.
    """

    rotations: str = "T"
    cosets: int = 2
    seed: int = 0
    points: int | None = None
    first: int = 10
    share: float = 0.2
    gradients: bool = False
    precision: str | None = None

    def __post_init__(self) -> None:
        if self.points is not None and self.points < 2:
            raise InputError(f"track.points must be at least 2 (the first and the last step), got {self.points}")
        if not 0 < self.share < 1:
            raise InputError(f"track.share must be in (0, 1), got {self.share}")
        if self.first < 1:
            raise InputError(f"track.first must be at least 1, got {self.first}")
        if self.precision not in (None, TRAINED):
            raise InputError(f"track.precision and final.precision are null or {TRAINED}, got {self.precision!r}")
        check_cosets(self.cosets, fractional=False)
        check_count("seed", self.seed)
        rotation_set(self.rotations)


def measured_steps(max_steps: int, points: int, first: int = 10) -> list[int]:
    """Step 0, then ``points - 1`` log-spaced steps from ``first`` to ``max_steps`` (fewer where they coincide)."""
    first = min(first, max_steps)
    if points <= 2 or first == max_steps:
        return sorted({0, max_steps})
    ratio = (max_steps / first) ** (1 / (points - 2))
    return sorted({0, max_steps, *(round(first * ratio**i) for i in range(points - 1))})


def affordable_points(probes: Sequence[Probe], settings: Tracking, batch_size: int, max_steps: int) -> int:
    """How many steps can be measured within the share q of the run's time, from counts alone.

    One measurement costs C = samples x (rotations + 2) forward passes of a sample (five times the rotations with
    gradients), a training step 2 x batch size, so n = q / (1 - q) x 2 x batch size x steps / C: a function of
    configuration and data, which a restarted run finds again.
    """
    more = 1 + GRADIENT_PASSES * settings.gradients
    cost = sum((more * _passes(probe, settings) + 2) * sum(len(next(iter(batch.values()))) for batch in probe.batches)
               for probe in probes)  # fmt: skip
    budget = settings.share / (1 - settings.share) * PASSES_PER_STEP * batch_size * max_steps
    decades = math.log10(max(10.0, max_steps / settings.first))
    return max(2, min(math.floor(budget / max(cost, 1)), 2 + math.ceil(SPACING * decades)))


def _passes(probe: Probe, settings: Tracking) -> int:
    """Rotated passes of a sample that a probe takes."""
    redraw, group, (rotations, cosets) = probe.design.redraw, probe.declaration.group, _design(probe, settings)
    cosets = 1 if rotations == group else cosets
    return cosets * len(rotation_set(rotations, group)) * (redraw.draws if redraw else 1)


def _design(probe: Probe, settings: Tracking) -> tuple[str, int]:
    """The rotations and cosets of a probe: its own, else those of the settings."""
    return probe.design.rotations or settings.rotations, probe.design.cosets or settings.cosets


def check_designs(probes: Sequence[Probe], settings: Tracking) -> None:
    """Every probe can be measured with these settings.

    Raises:
        InputError: for too few cosets, or rotations that the probe's group does not have.
    """
    for probe in probes:
        if probe.design.redraw is None:
            losses = {name: find_loss(spec.loss) for name, spec in probe.declaration.outputs.items()}
            make_design(*_design(probe, settings), settings.seed, probe.declaration.group, losses)


def _as_weights(batches: Iterable[Mapping[str, Tensor]], net: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Batches where the weights are, and in their precision (trainer.precision=64-true), as in training."""
    parameter = next(net.parameters(), torch.zeros(0, device="cpu"))
    for batch in batches:
        made = ((k, v, parameter.dtype if v.dtype == torch.float32 else v.dtype) for k, v in batch.items())
        yield {k: v.to(parameter.device, dtype) for k, v, dtype in made}


def measure_probe(net: nn.Module, probe: Probe, settings: Tracking, progress: bool = False) -> Result:
    """One probe's result, its batches moved to the model's device."""
    batches = _as_weights(probe.batches, net)
    rotations, cosets = _design(probe, settings)
    shared: dict[str, Any] = {"forward": probe.forward, "rotations": rotations, "seed": settings.seed}
    if probe.design.redraw is not None:
        return measure_crossed(net, batches, probe.declaration, probe.design.redraw, count=cosets, **shared)
    # Records of a run on a CPU are the same bit for bit whatever the size of a batch.
    fold = 1 if device_of(net).type == "cpu" else "auto"
    return measure(net, batches, probe.declaration, cosets=cosets, progress=progress, fold=fold, **shared)


def record_baseline(
    records: Records, task: Any, probes: Sequence[Probe], part: str, measure: Callable[[Any, Probe], Result]
) -> None:
    """A record "baseline" for each probe of a part that has none: ``total``, ``r2``, ``percent`` and the ``model``.

    ``measure`` is given the baseline as it is given the run's model: same samples, noise and rotations. A task without
    ``baseline()`` gets no record, and its models no skill.
    """
    make = getattr(task, "baseline", None)
    missing = [probe for probe in probes if records.find("baseline", part=part, probe=probe.name) is None]
    if make is None or not missing:
        return
    model = make()
    for probe in missing:
        found = measure(model, probe)
        records.append("baseline", part=part, probe=probe.name, model=type(model).__name__, total=found.total,
                       r2=found.r2, percent=found.percent)  # fmt: skip


def skill(records: Records, part: str, probe: str, total: float) -> dict[str, float]:
    """``skill`` = 1 − loss / loss of the baseline on the same probe, or nothing where there is no baseline."""
    found = records.find("baseline", part=part, probe=probe)
    due = None if found is None else found["total"]
    return {"skill": 1 - total / due} if due is not None and due > 0 and math.isfinite(total) else {}


def record_probes(
    records: Records, net: nn.Module, probes: Sequence[Probe], part: str, step: int, settings: Tracking,
    progress: bool = False,
) -> tuple[list[Record], float]:  # fmt: skip
    """Measure what is not yet recorded; the records of this step and the seconds an earlier process spent."""
    written, spent_before = [], 0.0
    for probe in probes:
        identity = {"step": step, "part": part, "probe": probe.name}
        record = records.find("measure", **identity)
        if record is None:
            begun = time.perf_counter()
            result = measure_probe(net, probe, settings, progress)
            seconds, told = time.perf_counter() - begun, skill(records, part, probe.name, result.total)
            record = records.append("measure", **identity, headline=probe.headline, seconds=seconds, **told,
                                    result=result.to_dict())  # fmt: skip
        else:
            spent_before += record["seconds"]
        written.append(record)
    return written, spent_before


def record_gradients(
    records: Records, net: nn.Module, probes: Sequence[Probe], step: int, optimizer_state: Mapping[str, Any]
) -> float:
    """Record the gradients of every probe that has no such record of this step; seconds an earlier process spent."""
    spent_before = 0.0
    for probe in probes:
        identity = gradient_identity(probe.name, step)
        record = records.find("analysis", **identity)
        if record is None:
            begun = time.perf_counter()
            batches = list(_as_weights(thinned(probe.batches, GRADIENTS.samples, device_of(net)), net))
            values = probe_gradients(net, replace(probe, batches=batches), GRADIENTS, optimizer_state)
            records.append("analysis", **identity, values=values, seconds=time.perf_counter() - begun)
        else:
            spent_before += record["seconds"]
    return spent_before


class Tracker(pl.Callback):
    """Writes train and measure records; keeps the clock.

    Records that a killed process wrote before its last checkpoint was reached again are kept as they are.

    Args:
        records: the run's records; None on processes other than the first.
        probes: what is measured along the way.
        settings: with ``points`` set.
        log_every: a train record every so many steps, with the means over those steps.

    Attributes:
        steps: those that are measured, in order. latest: the newest record of the headline probe.
    """

    def __init__(
        self, records: Records | None, probes: Sequence[Probe], settings: Tracking, clock: Clock, max_steps: int,
        log_every: int,
    ) -> None:  # fmt: skip
        if settings.points is None:
            raise InputError("the tracker needs settings.points, see affordable_points")
        self._records, self._probes, self._settings = records, probes, settings
        self._clock, self._max_steps, self._log_every = clock, max_steps, log_every
        self.steps = measured_steps(max_steps, settings.points, settings.first)
        self._measured, self._count = -1, 0
        self._sums: dict[str, Tensor] = {}
        self.latest: Record | None = None

    def state_dict(self) -> dict[str, Any]:
        """Clock, sums since the last train record, and how many records are known to be on disk."""
        known = 0 if self._records is None else len(self._records.entries)
        return {"clock": self._clock.state_dict(), "sums": dict(self._sums), "count": self._count,
                "measured": self._measured, "records": known}  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        written, due = self._records, state_dict["records"]
        if written is not None and len(written.entries) < due:
            raise IntegrityError(
                f"{written.path} is damaged at line {len(written.entries) + 1}: the checkpoint was saved after "
                f"{due} records; restore the file from a copy"
            )
        self._clock.load_state_dict(state_dict["clock"])
        self._sums, self._count = dict(state_dict["sums"]), int(state_dict["count"])
        # Version 0.1.0 did not store it.
        self._measured = int(state_dict.get("measured", -1))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._clock.start()
        measured = [] if self._records is None else self._records.entries
        self.latest = next((r for r in reversed(measured) if r["kind"] == "measure" and r["headline"]), None)
        self._measure_if_due(trainer, pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        self._accumulate(outputs)
        step = trainer.global_step
        if step % self._log_every == 0 or step == self._max_steps:
            self._record_training(trainer, step)
        self._measure_if_due(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._clock.stop()

    def _accumulate(self, outputs: Mapping[str, Tensor]) -> None:
        # Sums stay on the device in float64: reading them every step would stall a GPU.
        for name, value in outputs.items():
            value = value.detach().double()
            self._sums[name] = self._sums[name].to(value.device) + value if name in self._sums else value
        self._count += 1

    def _record_training(self, trainer: pl.Trainer, step: int) -> None:
        reduce = trainer.strategy.reduce
        means = {name: float(reduce(total, reduce_op="mean")) / self._count for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        if self._records is not None:
            self._records.append_once("train", {"step": step}, seconds=self._clock.train, loss=means.pop("loss"),
                                      parts=means, lr=trainer.optimizers[0].param_groups[0]["lr"])  # fmt: skip

    def _measure_if_due(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        step = trainer.global_step
        # What was measured before the checkpoint is in its clock already.
        if step not in self.steps or step <= self._measured:
            return
        self._measured = step
        assert isinstance(module, TaskModule)
        module.check_finite()
        measuring = module.arithmetic.measuring(module.measured, self._settings.precision, module.device)
        with self._clock.tracking(module.device), measuring as net:
            if self._records is not None:
                found, before = record_probes(self._records, net, self._probes, "track", step, self._settings)
                self._clock.track += before
                if self._settings.gradients:
                    state = trainer.optimizers[0].state_dict()
                    self._clock.track += record_gradients(self._records, net, self._probes, step, state)
                self.latest = next(record for record in found if record["headline"])
            trainer.strategy.barrier("tracking")


def kept_steps(keep: int | Sequence[int] | None, max_steps: int, first: int = 10) -> list[int]:
    """The steps whose checkpoints stay: those listed, or so many log-spaced ones with step 0 and the last.

    Raises:
        InputError: for a step outside the run, or anything else.
    """
    if keep is None or keep == 0:
        return []
    whole = not isinstance(keep, bool | str)
    if whole and isinstance(keep, int) and keep >= 2:
        return measured_steps(max_steps, keep, first)
    if whole and isinstance(keep, Sequence):
        wrong = [step for step in keep if type(step) is not int] or [s for s in keep if not 0 <= s <= max_steps]
        if not wrong:
            return sorted(set(keep))
        keep = wrong[0]
    raise InputError(
        f"trainer.keep must be 0, a number of steps >= 2 or a list of steps from 0 to {max_steps}, got {keep!r}"
    )
