"""One LightningModule that trains any task: optimiser, learning-rate schedule, gradient clipping, EMA."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from equiscope.errors import InputError, RunError
from equiscope.records import plain
from equiscope.runs.checkpoint import check_fit
from equiscope.runs.devices import Arithmetic
from equiscope.tasks.task import Task

OPTIMIZERS = ("adamw", "adam", "sgd")
# Reading the loss from a GPU stalls it, so there it is looked at once in so many steps.
GPU_CHECK_EVERY = 25
# Batches that a thread has made before they are asked for.
AHEAD = 3


class TaskModule(pl.LightningModule):
    """Trains ``task.build_model()`` on ``task.training_batch(step)`` by ``task.training_loss``.

    Attributes:
        net: the trained model.
        averaged: its exponential moving average, if ``ema`` > 0.

    Args:
        optimizer: ``name`` (adamw, adam, sgd), ``lr``, ``weight_decay``, ``betas``, ``momentum``.
        schedule: ``warmup``, ``warmup_factor``, ``min_factor``, see :func:`schedule_factor`.
        clip: largest norm of the gradient; 0 leaves it alone.
        ema: decay of the average of the weights that is measured; 0 measures the weights themselves.
        seed: of the random state each step starts from (dropout).
        workers: processes that prepare batches; with none a GPU gets a thread that is a few batches ahead.
        arithmetic: what the steps compute in, and whether the model is compiled for them. What is measured, averaged
            and stored is the model itself.

    Raises:
        InputError: for a setting out of range, or a model that cannot be compiled.
    """

    _bad_step: Tensor

    def __init__(
        self, task: Task, optimizer: Mapping[str, Any], schedule: Mapping[str, Any], max_steps: int, clip: float = 0.0,
        ema: float = 0.0, seed: int = 0, workers: int = 0, arithmetic: Arithmetic = Arithmetic(),  # noqa: B008
    ) -> None:  # fmt: skip
        super().__init__()
        if not 0 <= ema < 1:
            raise InputError(f"trainer.ema must be in [0, 1), got {ema}")
        told = {"optimizer": dict(optimizer), "schedule": dict(schedule), "max_steps": max_steps, "clip": clip,
                "ema": ema, "seed": seed}  # fmt: skip
        # Loggers are shown the whole configuration instead.
        self.save_hyperparameters(plain(told), logger=False)
        self._task, self._workers, self.arithmetic = task, workers, arithmetic
        self._optimizer, self._schedule = dict(optimizer), dict(schedule)
        self._max_steps, self._clip, self._seed = max_steps, clip, seed
        self.net = task.build_model()
        self.averaged = copy.deepcopy(self.net).requires_grad_(False) if ema > 0 else None
        self._ema = ema
        # In a tuple, since a module in a module would be stored with it.
        self._called = (compiled(self.net, arithmetic.backend),)
        self.register_buffer("_bad_step", torch.tensor(-1), persistent=False)

    @property
    def measured(self) -> nn.Module:
        """The model whose figures count: the average of the weights where one is kept."""
        return self.net if self.averaged is None else self.averaged

    def configure_optimizers(self) -> Any:
        # Gradient scaling of 16-mixed would be undone inside a fused step, after they have been clipped.
        fused = self.device.type == "cuda" and self.arithmetic.precision != "16-mixed"
        optimizer = build_optimizer(self.net.parameters(), self._optimizer, fused)
        factor = schedule_factor(self._max_steps, **self._schedule)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_fit(self.state_dict(), checkpoint["state_dict"], "this run")

    def train_dataloader(self) -> DataLoader[Batch]:
        trainer, device = self.trainer, self.trainer.strategy.root_device
        arranged = None
        if device.type != "cpu" or self.arithmetic.backend:
            arranged = partial(arrange, self._task, self.arithmetic.backend is not None)
        steps: Dataset[Batch] = Steps(self._task, self._max_steps, trainer.global_rank, trainer.world_size, arranged)
        ahead = device.type == "cuda" and not self._workers
        steps = Ahead(steps, self._max_steps) if ahead else steps
        return loader(steps, self._max_steps, trainer.global_step, self._workers, device.type == "cuda" and not ahead)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        stays = getattr(self._task, "host_fields", ())
        moved = {name: value for name, value in batch.items() if name not in stays}
        kept = {name: value for name, value in batch.items() if name in stays}
        return {**super().transfer_batch_to_device(moved, device, dataloader_idx), **kept}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # Dropout and the like become a function of (seed, step, process), so a resumed run replays them.
        key = f"{self._seed} {self.trainer.global_step} {self.trainer.global_rank}"
        torch.manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big"))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        losses = self._task.training_loss(self._called[0], batch)
        loss = losses["loss"]
        self._note_bad(loss)
        return {"loss": loss, **{k: v.detach() for k, v in losses.items() if k != "loss"}}

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:  # fmt: skip
        parameters = [p for p in self.net.parameters() if p.grad is not None]
        limit = self._clip if self._clip > 0 else math.inf
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
        # With 16-bit gradient scaling an infinite norm only means that this step is skipped.
        if self.trainer.precision != "16-mixed":
            self._note_bad(norm)
        if self.device.type == "cpu" or self.trainer.global_step % GPU_CHECK_EVERY == 0:
            self.check_finite()

    def optimizer_step(self, *arguments: Any, **settings: Any) -> None:
        super().optimizer_step(*arguments, **settings)
        if self.averaged is not None:
            update_average(self.averaged, self.net, self.trainer.global_step, self._ema)

    def _note_bad(self, value: Tensor) -> None:
        step = torch.full_like(self._bad_step, self.trainer.global_step)
        fresh = ~torch.isfinite(value.detach()).all() & (self._bad_step < 0)
        self._bad_step = torch.where(fresh, step, self._bad_step)

    def check_finite(self) -> None:
        """Stop a run whose loss or gradient is no longer finite.

        Raises:
            RunError: naming the step at which it happened.
        """
        step = int(self._bad_step)
        if step >= 0:
            raise RunError(
                f"the training loss or its gradient is NaN or infinite at step {step}: lower optimizer.lr "
                f"(now {self._optimizer.get('lr')}), set trainer.clip, or look for bad labels in the data"
            )


@torch.no_grad()
def update_average(averaged: nn.Module, net: nn.Module, step: int, decay: float) -> None:
    """a <- d a + (1 - d) w with d = min(decay, step / (9 + step)) after ``step`` steps; buffers are copied.

    The smaller d of the first steps keeps the average from lagging behind while everything still moves.
    """
    kept = min(decay, step / (9 + step))
    torch._foreach_lerp_(list(averaged.parameters()), list(net.parameters()), 1 - kept)
    for mine, theirs in zip(averaged.buffers(), net.buffers(), strict=True):
        mine.copy_(theirs)


def compiled(net: nn.Module, backend: str | None) -> nn.Module:
    """The model as a training step calls it, with the same parameters.

    Raises:
        InputError: if it takes derivatives or calls code of its own on the way, which torch does not follow.
    """
    if backend is None:
        return net
    if not getattr(net, "compilable", True):
        raise InputError(f"trainer.compile: {type(net).__name__} cannot be compiled; leave it out for this model")
    return torch.compile(net, backend=backend)  # type: ignore[return-value]


def arrange(task: Task, padded: bool, batch: Batch) -> Batch:
    """A batch as the task arranges it on the host, if it does."""
    make = getattr(task, "arranged", None)
    return batch if make is None else make(batch, padded)


def build_optimizer(
    parameters: Iterable[nn.Parameter], settings: Mapping[str, Any], fused: bool = False
) -> torch.optim.Optimizer:
    """AdamW, Adam or SGD; ``fused`` in one kernel, which rounds differently.

    Raises:
        InputError: for another name, or a setting that is unknown or out of range.
    """
    check_optimizer(settings)
    name, lr, decay = str(settings["name"]).lower(), float(settings["lr"]), float(settings.get("weight_decay", 0.0))
    if name == "sgd":
        momentum = float(settings.get("momentum", 0.0))
        return torch.optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=decay, fused=fused or None)
    first, second = settings.get("betas", (0.9, 0.999))
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    return kind(parameters, lr=lr, betas=(float(first), float(second)), weight_decay=decay, fused=fused or None)


def check_optimizer(settings: Mapping[str, Any]) -> None:
    """Name and ranges: lr and weight_decay at least 0, momentum and both betas in [0, 1).

    Raises:
        InputError: naming the setting and the value seen.
    """
    if str(settings.get("name")).lower() not in OPTIMIZERS:
        raise InputError(f"optimizer.name must be one of {', '.join(OPTIMIZERS)}, got {settings.get('name')!r}")
    known = ("name", "lr", "weight_decay", "betas", "momentum")
    if unknown := sorted(set(settings) - set(known)):
        raise InputError(f"optimizer has no setting {unknown[0]!r}: it has {', '.join(known)}")
    for key in ("lr", "weight_decay", "momentum"):
        limit = 1.0 if key == "momentum" else math.inf
        value = settings.get(key, math.nan if key == "lr" else 0.0)
        if not (_is_number(value) and 0 <= value < limit):
            span = "in [0, 1)" if key == "momentum" else "a finite number >= 0"
            raise InputError(f"optimizer.{key} must be {span}, got {value!r}")
    betas = settings.get("betas", (0.9, 0.999))
    if not (isinstance(betas, Sequence) and len(betas) == 2 and all(_is_number(b) and 0 <= b < 1 for b in betas)):
        raise InputError(f"optimizer.betas must be two numbers in [0, 1), such as [0.9,0.99], got {betas!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def schedule_factor(
    max_steps: int, warmup: float = 0.0, warmup_factor: float = 0.2, min_factor: float = 0.0, hold: float = 0.0
) -> Callable[[int], float]:
    """Factor of the learning rate at step s: linear warm-up, a constant rate while it is held, then half a cosine.

    With S = max_steps, W = warmup S, H = max(W, hold S), w = warmup_factor and m = min_factor,

        s < W:       w + (1 - w) s / W
        W <= s < H:  1
        s >= H:      m + (1 - m) (1 + cos(pi (s - H) / (S - H))) / 2

    Raises:
        InputError: if the share of the warm-up is not in [0, 1), that of the hold not in [0, 1], or a factor negative.
    """
    if not 0 <= warmup < 1:
        raise InputError(f"schedule.warmup is the share of the steps spent warming up, in [0, 1), got {warmup}")
    if not 0 <= hold <= 1:
        raise InputError(f"schedule.hold is the share of the steps after which the rate falls, in [0, 1], got {hold}")
    for key, value in (("warmup_factor", warmup_factor), ("min_factor", min_factor)):
        if not 0 <= value < math.inf:
            raise InputError(f"schedule.{key} is a factor of the learning rate, at least 0, got {value}")
    ramp = warmup * max_steps
    held = max(ramp, hold * max_steps)

    def factor(step: int) -> float:
        if step < ramp:
            return warmup_factor + (1 - warmup_factor) * step / ramp
        done = min(1.0, max(0.0, step - held) / max(1.0, max_steps - held))
        return min_factor + (1 - min_factor) * (1 + math.cos(math.pi * done)) / 2

    return factor


Batch = dict[str, Tensor]


class Steps(Dataset[Batch]):
    """Item s is the batch of step s, or this process's share of it: every ``processes``-th sample.

    Equal shares make the mean of the processes' gradients the gradient of the whole batch. ``arranged`` is done to a
    share.

    Raises:
        InputError: on access, if the batch does not divide evenly among the processes.
    """

    def __init__(
        self, task: Task, max_steps: int, process: int = 0, processes: int = 1,
        arranged: Callable[[Batch], Batch] | None = None,
    ) -> None:  # fmt: skip
        self._task, self._max_steps, self._arranged = task, max_steps, arranged
        self._process, self._processes = process, processes

    def __len__(self) -> int:
        return self._max_steps

    def __getitem__(self, step: int) -> Batch:
        batch = self._share(self._task.training_batch(step))
        return batch if self._arranged is None else self._arranged(batch)

    def _share(self, batch: Batch) -> Batch:
        if self._processes == 1:
            return batch
        for name, tensor in batch.items():
            if len(tensor) % self._processes:
                raise InputError(
                    f"batch field {name!r} has {len(tensor)} samples, which {self._processes} processes cannot "
                    "share evenly: choose a batch_size that is a multiple of the number of processes"
                )
        return {name: tensor[self._process :: self._processes] for name, tensor in batch.items()}


class Ahead(Dataset[Batch]):
    """The same batches, made by a thread while the steps before are taken, in memory that a GPU copies from by itself.

    Batches are functions of the step, so that they are equal whoever makes them, and whenever.
    """

    def __init__(self, steps: Dataset[Batch], max_steps: int, pinned: bool = True) -> None:
        self._steps, self._max_steps, self._pinned = steps, max_steps, pinned
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._made: dict[int, Future[Batch]] = {}

    def __len__(self) -> int:
        return self._max_steps

    def __getitem__(self, step: int) -> Batch:
        for coming in range(step, min(step + AHEAD + 1, self._max_steps)):
            if coming not in self._made:
                self._made[coming] = self._thread.submit(self._make, coming)
        return self._made.pop(step).result()

    def _make(self, step: int) -> Batch:
        batch = self._steps[step]
        return {name: value.pin_memory() for name, value in batch.items()} if self._pinned else batch


class Remaining(Sampler[int]):
    """The steps from ``start`` on; its length is that of the whole run, as Lightning counts the steps done."""

    def __init__(self, start: int, max_steps: int) -> None:
        self._start, self._max_steps = start, max_steps

    def __len__(self) -> int:
        return self._max_steps

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._start, self._max_steps))


def loader(
    steps: Dataset[Batch], max_steps: int, start: int, workers: int = 0, pinned: bool = False
) -> DataLoader[Batch]:
    """The loader of a run that has ``start`` steps behind it."""
    sampler = Remaining(start, max_steps)
    return DataLoader(steps, batch_size=None, sampler=sampler, num_workers=workers, pin_memory=pinned)
