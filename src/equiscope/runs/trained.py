"""Open a finished or running run for use: its configuration, task and trained model; its data must be the same."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from equiscope import tasks
from equiscope.errors import IntegrityError, RunError
from equiscope.records import Record, plain
from equiscope.runs import checkpoint
from equiscope.runs.folder import RunFolder, run_folder
from equiscope.tasks.task import Task

# Facts of a data set that another machine or place may change.
_FREE = ("path", "versions", "n", "kind", "sha")


@dataclass(frozen=True)
class Trained:
    """A run opened for use.

    Attributes:
        folder: its folder; config: the resolved configuration.
        task: built from the configuration, not yet prepared.
        model: in eval mode on the CPU, with the averaged weights where the run keeps an average.
        step: the training step of its checkpoint.
        optimizer_state: ``state_dict`` of the optimiser over the trained model's parameters.
    """

    folder: RunFolder
    config: dict[str, Any]
    task: Task
    model: nn.Module
    step: int
    optimizer_state: dict[str, Any] = field(default_factory=dict, repr=False)


def open_run(
    path: str | os.PathLike[str], averaged: bool = True, step: int | None = None, trust: bool = False
) -> Trained:
    """The run in folder ``path`` with the weights of its last checkpoint, or of one that ``trainer.keep`` kept.

    Args:
        path: the run's folder, ``root/task/name``.
        averaged: take the exponential moving average of the weights if there is one.
        step: the training step; None for the last checkpoint.
        trust: import the task that the configuration names even if it is not one of equiscope's own.

    Raises:
        InputError: a task of others without ``trust``.
        RunError: if it is no run's folder, has no checkpoint of that step, or the checkpoint does not fit its
            configuration.
        IntegrityError: if its configuration or checkpoint is damaged.
    """
    place = Path(path)
    folder = run_folder(place)
    if not folder.config.exists() and not folder.started:
        raise RunError(f"{place} is no run's folder: it has no config.yaml")
    config = folder.stored_config()
    task = tasks.build(config, trust)
    record = folder.first_record()
    stored = _stored(folder, step, record["sha"] if record else "")
    model = task.build_model()
    states = stored["state_dict"]
    prefix = "averaged." if averaged and any(k.startswith("averaged.") for k in states) else "net."
    weights = {k.removeprefix(prefix): v for k, v in states.items() if k.startswith(prefix)}
    checkpoint.check_fit(model.state_dict(), weights, place)
    model.load_state_dict(weights)
    optimizer = (stored.get("optimizer_states") or [{}])[0]
    return Trained(folder, config, task, model.eval(), int(stored["global_step"]), optimizer)


def available_steps(folder: RunFolder) -> list[int]:
    """The steps of the checkpoints a run has: those kept, and the last one.

    Raises:
        IntegrityError: if the last checkpoint is damaged.
    """
    steps = set(folder.kept_steps())
    if folder.checkpoint.exists():
        steps.add(int(checkpoint.load(folder.checkpoint)["global_step"]))
    return sorted(steps)


def _stored(folder: RunFolder, step: int | None, run: str) -> dict[str, Any]:
    """The checkpoint of a step."""
    if step is None:
        return checkpoint.load(folder.checkpoint, run=run)
    if step in folder.kept_steps():
        stored = checkpoint.load(folder.kept(step), run=run)
        if stored["global_step"] != step:
            raise IntegrityError(
                f"{folder.kept(step)} is the checkpoint of step {stored['global_step']}: restore that of step {step}"
            )
        return stored
    if folder.checkpoint.exists():
        stored = checkpoint.load(folder.checkpoint, run=run)
        if int(stored["global_step"]) == step:
            return stored
    kept = ", ".join(map(str, available_steps(folder))) or "none"
    raise RunError(
        f"{folder.path} has no checkpoint of step {step}; it has those of steps {kept}: "
        "train with trainer.keep=[…] to keep others"
    )


def data_checksum(task: Any) -> str | None:
    """SHA-256 of the data of a prepared task; None for one that gives none."""
    found = getattr(task, "checksum", None)
    return str(found()) if found is not None else None


def check_data(task: Any, entries: Sequence[Record]) -> None:
    """The data of a prepared task are those of its run.

    A run of before, or of a task without a checksum, is told by its description alone, which may differ for other
    reasons: then a warning says so.

    Raises:
        RunError: they are others.
    """
    due = next((r["data_sha256"] for r in entries if r["kind"] in ("run", "resume") and r.get("data_sha256")), None)
    found = data_checksum(task)
    if due is not None and found is not None:
        if found != due:
            raise RunError(
                f"the data are not those the run began with: their SHA-256 is {found[:16]}…, the records say "
                f"{due[:16]}…; put the former data back, or begin another run=NAME"
            )
        return
    written = next((r for r in entries if r["kind"] == "data"), None)
    if written is None:
        return
    now = plain(task.describe(), "data")
    differs = [k for k in sorted(written.keys() | now.keys()) if k not in _FREE and written.get(k) != now.get(k)]
    if differs:
        warnings.warn(
            f"the data may not be those the run began with, which recorded no checksum of them: {', '.join(differs)} "
            "differ from its records"
        )
