"""A Lightning callback that follows the equivariance error of any LightningModule while it trains, on all processes.

Our own tasks, whose runs write records and go on after a kill, are followed by :mod:`equiscope.runs.tracker`.
"""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch.utils.data import DistributedSampler

try:
    from pytorch_lightning import Callback, LightningModule, Trainer
    from pytorch_lightning.callbacks import StochasticWeightAveraging, WeightAveraging
    from pytorch_lightning.utilities import move_data_to_device
except ImportError:
    try:
        from lightning.pytorch import Callback, LightningModule, Trainer  # type: ignore[assignment]
        from lightning.pytorch.callbacks import (  # type: ignore[assignment]
            StochasticWeightAveraging,
            WeightAveraging,
        )
        from lightning.pytorch.utilities import move_data_to_device
    except ImportError as error:
        message = "EquivarianceTracker needs pytorch-lightning: pip install equiscope[lightning]"
        raise ImportError(message) from error

from equiscope.adapters.lightning_schedule import Schedule, unmeasured
from equiscope.decomposition.batches import as_batches
from equiscope.decomposition.calling import Call, named
from equiscope.decomposition.measure import NOISE_SAMPLES, resolve_declaration
from equiscope.decomposition.metric import EquivarianceError
from equiscope.decomposition.preserve import untouched
from equiscope.decomposition.ragged import batch_of
from equiscope.decomposition.result import Result
from equiscope.errors import InputError
from equiscope.signatures import handing_on
from equiscope.symmetry.declaration import Declaration, DeclarationSettings

# Of a result, beside the bounds of its interval.
LOGGED = ("percent", "total", "twirled", "equivariance", "r2", "relative_equivariance", "noise_floor")


@dataclass(frozen=True)
class Tracked:
    """One measurement: at which optimizer step and epoch, how long it took (s), and its result."""

    step: int
    epoch: int
    seconds: float
    result: Result


class EquivarianceTracker(Callback):
    """Measures a model on the same batches and the same rotations again and again while it trains.

    Every measurement is kept in ``history`` (saved in Lightning's checkpoints), sent to every logger of the Trainer
    under ``{name}/percent``, ``{name}/interval_low``, ``{name}/interval_high``, ``{name}/total``, ``{name}/twirled``,
    ``{name}/equivariance``, ``{name}/r2``, ``{name}/relative_equivariance`` and ``{name}/noise_floor``, and put among
    ``trainer.callback_metrics``, where ``ModelCheckpoint(monitor="equivariance/percent")`` finds it. Figures that are
    not finite (percent and r2 without labels) are not logged. Training goes on as if nothing had been measured: random
    states, gradients, modes and buffers are restored.

    In a distributed run each process measures its share of the batches and the figures are pooled over all of them.

    The weights measured are those that validation sees, in whatever order callbacks are given: at ``"validation"``
    while the validation batches run, and elsewhere with the average of Lightning's ``WeightAveraging`` in place, as in
    a validation at that step. ``StochasticWeightAveraging`` validates the raw weights, and so they are measured.

    Warns at the start of a fit in which nothing, or not the last step, would be measured.

    Args:
        batches: batches that can be gone through more than once (a list, a DataLoader), or a function that returns
            an iterable of batches. Keep them the same and in the same order, so that the curve has no other noise.
        declaration, inputs, outputs, target, loss, rotations, cosets, seed, noise_samples: as for
            :func:`equiscope.measure`. In a distributed run with a DistributedSampler samples need ``ids``.
        fixed, center, group, mask, batch, per, clusters, ids, weighting, fields: likewise.
        when: ``"validation"``: in every validation; an integer n: at optimizer steps 0, n, 2n, …;
            ``"log"``: at step 0 and ``per_decade`` log-spaced steps a decade; or a sequence of steps.
        per_decade: see ``when``.
        forward: ``forward(module, batch)`` calls the module; ``module(batch)`` by default. It runs in the Trainer's
            precision.
        budget: largest share of the run's time for measuring. The first measurement is always made; a later one that
            is not affordable yet is put off until it is, or to the end of training.
        name: prefix of the logged names, and what tells several trackers apart.
        sharded: whether the iterable already differs between processes; by default, whether its sampler is a
            DistributedSampler. Otherwise process r takes batches r, r + world, ….

    Raises:
        InputError: for arguments out of range, or batches that cannot be gone through twice.
    """

    @handing_on(Declaration)
    def __init__(
        self,
        batches: Iterable[Any] | Callable[[], Iterable[Any]],
        declaration: Declaration | None = None,
        *,
        when: str | int | Sequence[int] = "validation",
        per_decade: int = 8,
        forward: Callable[[Any, Any], Any] | None = None,
        budget: float | None = None,
        name: str = "equivariance",
        sharded: bool | None = None,
        inputs: Mapping[str, Any] | None = None,
        outputs: Mapping[str, Any] | None = None,
        target: str | None = None,
        loss: Any = "mse",
        rotations: str = "T",
        cosets: int | None = None,
        seed: int = 0,
        noise_samples: int = NOISE_SAMPLES,
        **settings: Unpack[DeclarationSettings],
    ):
        super().__init__()
        if isinstance(batches, Iterator):
            raise InputError("batches is a generator, gone after one use: give a list, a DataLoader or a function")
        if budget is not None and not 0 < budget < 1:
            raise InputError(f"budget is the share of time for measuring, between 0 and 1, got {budget!r}")
        self.batches = batches if callable(batches) else as_batches(batches)
        self.declaration = resolve_declaration(declaration, inputs, outputs, target, loss, settings)
        self.forward, self.budget, self.name, self.sharded = forward, budget, name, sharded
        self.when = when
        self._schedule = Schedule(when, per_decade)
        self._design: dict[str, Any] = {
            "rotations": rotations, "cosets": cosets, "seed": seed, "noise_samples": noise_samples
        }  # fmt: skip
        # Made once here so that bad arguments stop before training does.
        EquivarianceError(self.declaration, **self._design)
        self.history: list[Tracked] = []
        self._checked, self._pending = -1, False
        # Whether the weights in place are those that validation sees.
        self._validating = False
        self._rounding: dict[str, float] | None = None
        self._earlier, self._started = 0.0, time.monotonic()

    @property
    def results(self) -> list[Result]:
        """The results so far, in order."""
        return [tracked.result for tracked in self.history]

    @property
    def spent(self) -> float:
        """Seconds spent measuring so far."""
        return sum(tracked.seconds for tracked in self.history)

    @property
    def state_key(self) -> str:
        return self._generate_state_key(name=self.name)

    def state_dict(self) -> dict[str, Any]:
        """Plain types for Lightning's checkpoints."""
        history = [{**vars(t), "result": t.result.to_dict()} for t in self.history]
        return {"history": history, "checked": self._checked, "pending": self._pending, "elapsed": self._elapsed()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the checkpoint was written."""
        stored = state_dict["history"]
        self.history = [Tracked(**{**t, "result": Result.from_dict(t["result"])}) for t in stored]
        self._checked, self._pending = state_dict["checked"], state_dict["pending"]
        self._earlier, self._started = state_dict["elapsed"], time.monotonic()

    def setup(self, trainer: Any, pl_module: LightningModule, stage: str) -> None:
        trainer.callbacks = _in_order(trainer.callbacks, self)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step < self._checked:
            # Another fit from the beginning.
            self._checked, self._pending = -1, False
        self._started = time.monotonic()
        gap = unmeasured(trainer, self.when, self._schedule)
        if gap and trainer.is_global_zero:
            warnings.warn(f"EquivarianceTracker {self.name!r}, when={self.when!r}: {gap}", stacklevel=2)
        self._at_step(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._at_step(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validating = False
        self._pending |= self.when == "validation" and not trainer.sanity_checking

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        # By now every callback has put its weights in place, and none has taken them away yet.
        first, self._validating = not self._validating, True
        if first and self.when == "validation":
            self._measure_if_affordable(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        missed, self._validating = not self._validating, False
        if missed and self.when == "validation":
            # A process without validation batches must join the others.
            self._measure_if_affordable(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._pending:
            self.measure(trainer, pl_module)
        self._earlier, self._started = self._elapsed(), time.monotonic()

    def _at_step(self, trainer: Trainer, module: LightningModule) -> None:
        step = trainer.global_step
        self._pending |= self._schedule.due(self._checked, step)
        self._checked = step
        if self.when != "validation":
            self._measure_if_affordable(trainer, module)

    def _measure_if_affordable(self, trainer: Trainer, module: LightningModule) -> None:
        if not self._pending:
            return
        affordable = True
        if self.budget is not None and self.history and trainer.state.fn == "fit":
            affordable = self.spent + self.history[-1].seconds <= self.budget * self._elapsed()
            # Clocks differ between processes, the decision must not.
            affordable = trainer.strategy.broadcast(affordable)
        if affordable:
            self.measure(trainer, module)

    def _elapsed(self) -> float:
        return self._earlier + time.monotonic() - self._started

    def measure(self, trainer: Trainer, module: LightningModule) -> Tracked:
        """Measure now, log and keep the result; every process of a distributed run must call it."""
        start = time.monotonic()
        metric = EquivarianceError(self.declaration, forward=self._called(trainer), **self._design).to(module.device)
        metric.carry(self._rounding)
        # The random state alone: a DataLoader draws from it when it starts.
        with untouched(None), contextlib.nullcontext() if self._validating else _averaged(trainer, module):
            for first_id, native in self._share(trainer):
                native = named(native, self.declaration.fields)
                native = move_data_to_device(trainer.precision_plugin.convert_input(native), module.device)
                metric.update(module, native, first_id)
            if trainer.world_size == 1 and not metric.ids:
                raise InputError(
                    "there are no batches to measure: a function that returns them must make new ones every time, as "
                    "lambda: iter(loader) does, not hand out the same that are used up"
                )
            with warnings.catch_warnings():
                # A process without batches has nothing to update with.
                warnings.filterwarnings("ignore", message="The ``compute`` method")
                result = metric.result()
        # A float64 pass is slow on a GPU: the first measurement makes it, the others carry its figure.
        self._rounding = metric.rounding
        tracked = Tracked(trainer.global_step, trainer.current_epoch, time.monotonic() - start, result)
        self.history.append(tracked)
        self._pending = False
        self._log(trainer, tracked)
        return tracked

    def _called(self, trainer: Trainer) -> Callable[[Any, Any], Any]:
        call = self.forward if self.forward is not None else Call(self.declaration)

        def called(module: Any, native: Any) -> Any:
            with trainer.precision_plugin.forward_context():
                return call(module, native)

        return called

    def _share(self, trainer: Trainer) -> Iterator[tuple[int | None, Any]]:
        """This process's batches, each with the position of its first sample in the data set if that is known."""
        iterable = as_batches(self.batches() if callable(self.batches) else self.batches)
        sharded = self.sharded
        if sharded is None:
            sharded = isinstance(getattr(iterable, "sampler", None), DistributedSampler)
        first_id = 0
        for number, native in enumerate(iterable):
            if sharded:
                yield None, native
            elif number % trainer.world_size == trainer.global_rank:
                yield first_id, native
            if self.declaration.ids is None and not sharded:
                first_id += batch_of(native, self.declaration).size

    def _log(self, trainer: Trainer, tracked: Tracked) -> None:
        result = tracked.result
        figures = {name: getattr(result, name) for name in LOGGED}
        figures |= zip(("interval_low", "interval_high"), result.percent_interval, strict=True)
        finite = {f"{self.name}/{name}": value for name, value in figures.items() if math.isfinite(value)}
        trainer.callback_metrics.update({k: torch.tensor(v, device="cpu") for k, v in finite.items()})
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.log_metrics(finite, step=tracked.step)


@contextlib.contextmanager
def _averaged(trainer: Any, module: LightningModule) -> Iterator[None]:
    """The averaged weights are in place inside, where a callback keeps any, as in its validation."""
    averaging = [c for c in trainer.callbacks if isinstance(c, WeightAveraging)]
    for callback in averaging:
        callback.on_validation_epoch_start(trainer, module)
    try:
        yield
    finally:
        for callback in reversed(averaging):
            callback.on_validation_epoch_end(trainer, module)


def _in_order(callbacks: list[Callback], tracker: Callback) -> list[Callback]:
    """``tracker`` behind the callbacks whose averages follow a step, and before those that end training with theirs."""
    others = [c for c in callbacks if c is not tracker]
    place = callbacks.index(tracker)
    final = [i for i, c in enumerate(others) if isinstance(c, StochasticWeightAveraging)]
    following = [i for i, c in enumerate(others) if isinstance(c, WeightAveraging)]
    place = max([min([place, *final]), *(i + 1 for i in following)])
    return [*others[:place], tracker, *others[place:]]
