"""A training run from its configuration to its last record; the same call goes on with a run that was stopped."""

from __future__ import annotations

import inspect
import math
import platform
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from equiscope import tasks
from equiscope.decomposition.result import Result
from equiscope.errors import InputError, RunError, first_line, version
from equiscope.records import FORMAT, Record, Records, plain
from equiscope.runs import loggers, progress, tracker
from equiscope.runs.checkpoint import Checkpoints, VerifiedCheckpointIO
from equiscope.runs.clock import Clock
from equiscope.runs.devices import Arithmetic, accelerator, hardware
from equiscope.runs.folder import RunFolder
from equiscope.runs.module import TaskModule, check_optimizer, schedule_factor
from equiscope.runs.trained import check_data, data_checksum
from equiscope.tasks.task import Task
from equiscope.words import without_secrets

# Handed to pytorch_lightning.Trainer as they are.
TRAINER_KEYS = ("accelerator", "devices", "num_nodes", "strategy", "precision", "deterministic", "benchmark")
_PACKAGES = ("equiscope", "torch", "pytorch-lightning", "e3nn", "numpy")


def train(config: Mapping[str, Any], show_progress: bool | None = None, until: float | None = None) -> RunFolder:
    """Train, track, measure; everything in ``root/task/run/``.

    A run that was stopped at any instant goes on from its last checkpoint with the same configuration; on one
    CPU thread it ends with the same weights and records (times exempt) as one that was never stopped.

    Args:
        config: the resolved configuration, see ``conf/config.yaml``.
        show_progress: bars on or off; None for bars in a terminal only.
        until: seconds of the epoch at which training stops with a checkpoint, to be gone on with by another call.

    Raises:
        RunError: the folder is in use or belongs to another configuration; the loss is not finite.
        IntegrityError: damaged records or checkpoint.
        InputError, DataError: from the task.
    """
    for key in ("task", "run", "root", "trainer", "track", "final", "optimizer", "schedule", "batch_size", "seed"):
        if config.get(key) is None:
            raise InputError(f"the configuration has no {key!r}: give {key}=…")
    loggers.chosen(config)
    _check(config)
    progress.quiet()
    if config.get("threads"):
        torch.set_num_threads(int(config["threads"]))
    show = progress.shown(show_progress)
    task = tasks.build(config, trust=True)
    folder = RunFolder(config["root"], task.name, config["run"])
    if getattr(rank_zero_only, "rank", 0):
        _run(config, folder, task, None, show=False, until=until)
        return folder
    with folder.kept_if_used():
        folder.open(config)
        with Records(folder.records, folder.lock) as records:
            if records.torn:
                warnings.warn(
                    f"{folder.records}: the last line was torn ({len(records.torn)} bytes of a record that was "
                    "being written); it is set aside beside the file and made again"
                )
            if records.find("end") is None:
                _run(config, folder, task, records, show, until)
    return folder


def _check(config: Mapping[str, Any]) -> None:
    """What can be refused before a folder or data are made.

    Raises:
        InputError: naming the setting and the value seen.
    """
    options, threads = config["trainer"], config.get("threads")
    for name in ("max_steps", "checkpoint_every", "log_every"):
        if options.get(name) is None or int(options[name]) < 1:
            raise InputError(f"trainer.{name} must be at least 1, got {options.get(name)!r}")
    for name in ("clip", "workers"):
        if not 0 <= float(options.get(name) or 0) < math.inf:
            raise InputError(f"trainer.{name} must be at least 0, got {options[name]!r}")
    if threads is not None and int(threads) < 1:
        raise InputError(f"threads must be at least 1, or null for torch's choice, got {threads!r}")
    Arithmetic.of(options)
    accelerator(options.get("accelerator"), options.get("devices"))
    check_optimizer(config["optimizer"])
    known = set(inspect.signature(schedule_factor).parameters) - {"max_steps"}
    if unknown := sorted(set(config["schedule"]) - known):
        raise InputError(f"schedule has no setting {unknown[0]!r}: it has {', '.join(sorted(known))}")
    schedule_factor(int(options["max_steps"]), **config["schedule"])
    tracker.kept_steps(options.get("keep"), int(options["max_steps"]), _settings(config["track"]).first)
    _settings(config["final"])


def _run(
    config: Mapping[str, Any], folder: RunFolder, task: Task, records: Records | None, show: bool,
    until: float | None = None,
) -> None:  # fmt: skip
    clock = Clock()
    task.prepare(progress=show)
    tasks.check_batch(task, int(config["batch_size"]))
    options = config["trainer"]
    max_steps = int(options["max_steps"])
    module = TaskModule(
        task, config["optimizer"], config["schedule"], max_steps, float(options.get("clip") or 0.0),
        float(options.get("ema") or 0.0), int(config["seed"]), int(options.get("workers") or 0), Arithmetic.of(options),
    )  # fmt: skip
    probes, settings = task.probes("track"), _settings(config["track"])
    for chosen in (settings, _settings(config["final"])):
        tracker.check_designs(probes, chosen)
    if settings.points is None:
        points = tracker.affordable_points(probes, settings, int(config["batch_size"]), max_steps)
        settings = replace(settings, points=points)
    follower = tracker.Tracker(records, probes, settings, clock, max_steps, int(options["log_every"]))
    keep = tracker.kept_steps(options.get("keep"), max_steps, settings.first)
    checkpoints = Checkpoints(folder, int(options["checkpoint_every"]), max_steps, keep, until)
    callbacks = [follower, checkpoints, progress.Bar(follower, max_steps, show)]
    state = loggers.read_state(folder, loggers.chosen(config))
    logger = loggers.build(config, folder, state)
    mirror = loggers.Mirror(logger, records, folder, state, config) if logger and records is not None else None
    checkpoint_io = VerifiedCheckpointIO()
    trainer = _trainer(options, max_steps, [*callbacks, mirror] if mirror else callbacks, logger, checkpoint_io)
    if records is not None:
        _open_records(records, config, task, module, trainer, follower.steps)
        checkpoint_io.run = records.entries[0]["sha"]
        tracker.record_baseline(records, task, probes, "track", partial(tracker.measure_probe, settings=settings))
    with module.arithmetic.training():
        _fit(trainer, module, folder)
    if records is not None and trainer.global_step >= max_steps:
        _finish(records, config, task, module, trainer, clock, show)
    if mirror:
        mirror.finish()


def _settings(section: Mapping[str, Any]) -> tracker.Tracking:
    """The settings of the measure; a task may have settings of its own in the same section."""
    return tracker.Tracking(**{f.name: section[f.name] for f in fields(tracker.Tracking) if f.name in section})


def _trainer(
    options: Mapping[str, Any], max_steps: int, callbacks: list[pl.Callback], logger: Logger | None,
    checkpoint_io: VerifiedCheckpointIO,
) -> pl.Trainer:  # fmt: skip
    """The Lightning Trainer: ``trainer.*`` of the configuration passes through, everything it prints is off."""
    given = {key: options.get(key) for key in TRAINER_KEYS}
    given |= accelerator(given["accelerator"], given["devices"])
    try:
        return pl.Trainer(
            max_steps=max_steps, max_epochs=-1, callbacks=callbacks, plugins=[checkpoint_io], logger=logger or False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            use_distributed_sampler=False, num_sanity_val_steps=0,
            **{key: value for key, value in given.items() if value is not None},
        )  # fmt: skip
    except (ValueError, TypeError, RuntimeError, pl.utilities.exceptions.MisconfigurationException) as error:
        raise InputError(f"the Trainer refuses trainer.*: {error}") from error


def _open_records(
    records: Records, config: Mapping[str, Any], task: Task, module: TaskModule, trainer: pl.Trainer,
    steps: Sequence[int],
) -> None:  # fmt: skip
    """Run and data records of a new run; a resume record of one that goes on, with the data it began with."""
    if records.find("run") is not None:
        check_data(task, records.entries)
        reached = [record["step"] for record in records.entries if record["kind"] == "train"]
        records.append("resume", step=max(reached, default=0), time=time.time(), torn_bytes=len(records.torn),
                       data_sha256=data_checksum(task))  # fmt: skip
    else:
        versions = {**{name: version(name) or "unknown" for name in _PACKAGES}, "python": platform.python_version()}
        device, precisions = trainer.strategy.root_device, [_settings(config[p]).precision for p in ("track", "final")]
        records.append(
            "run", format=FORMAT, name=config["run"], task=task.name,
            model=config.get("model", {}).get("name", type(module.net).__name__),
            parameters=sum(p.numel() for p in module.net.parameters()), config=without_secrets(config),
            versions=versions, threads=torch.get_num_threads(), device=str(device), hardware=hardware(device),
            computing=module.arithmetic.recorded(*precisions), processes=trainer.world_size,
            measured_steps=list(steps), reference=task.reference(), data_sha256=data_checksum(task), time=time.time(),
        )  # fmt: skip
    if records.find("data") is None:
        records.append("data", **plain(task.describe(), "data"))


def _fit(trainer: pl.Trainer, module: TaskModule, folder: RunFolder) -> None:
    checkpoint = str(folder.checkpoint) if folder.checkpoint.exists() else None
    if trainer.precision == "64-true":
        # Lightning converts after it has loaded a checkpoint, whose weights would be rounded on their way.
        module.double()
    try:
        trainer.fit(module, ckpt_path=checkpoint, weights_only=True)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error) and "shared memory" not in str(error):
            raise
        raise RunError(
            f"a process that prepares batches died ({first_line(error)}); where /dev/shm is small or full, give "
            "trainer.workers=0; run it again to go on"
        ) from error
    except SystemExit as error:
        # Lightning turns Ctrl-C into exit code 1.
        raise KeyboardInterrupt from error
    if trainer.interrupted:
        raise KeyboardInterrupt
    if trainer.global_step < int(trainer.max_steps) and not trainer.should_stop:
        raise RunError(f"training stopped at step {trainer.global_step} of {trainer.max_steps}: run it again to go on")


def _finish(
    records: Records, config: Mapping[str, Any], task: Task, module: TaskModule, trainer: pl.Trainer, clock: Clock,
    show: bool,
) -> None:  # fmt: skip
    """The final figure on its independent set, and the end record."""
    step, device = trainer.global_step, trainer.strategy.root_device
    net = module.measured.to(device)
    probes, settings = task.probes("final"), _settings(config["final"])
    tracker.record_baseline(records, task, probes, "final", partial(tracker.measure_probe, settings=settings))
    with module.arithmetic.measuring(net, settings.precision, device) as judged:
        tracker.record_probes(records, judged, probes, "final", step, settings, progress=show)
    pictures = getattr(task, "pictures", None)
    if pictures is not None and records.find("pictures") is None:
        records.append("pictures", step=step, pictures=plain(pictures(net)))
    # Time in which the card was this run's, or shared with runs beside it.
    gpu = {"gpu_seconds": (clock.train + clock.track) * trainer.world_size} if device.type == "cuda" else {}
    records.append("end", step=step, train_seconds=clock.train, track_seconds=clock.track, track_share=clock.share,
                   wall_seconds=clock.wall, **gpu)  # fmt: skip


def headline(records: list[Record]) -> str:
    """One line for the terminal: the final percent with its interval and R².

    Raises:
        RunError: if the run has no final figure yet.
    """
    final = [r for r in records if r["kind"] == "measure" and r["part"] == "final" and r["headline"]]
    if not final:
        raise RunError("the run has no final figure yet: start it again with the same command to finish it")
    return str(Result.from_dict(final[-1]["result"])).splitlines()[0]
