"""Open a finished or running run for use: its configuration, task and trained model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from equiscope import tasks
from equiscope.errors import RunError
from equiscope.runs import checkpoint
from equiscope.runs.folder import RunFolder
from equiscope.tasks.task import Task


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


def open_run(path: str | os.PathLike[str], averaged: bool = True, step: int | None = None) -> Trained:
    """The run in folder ``path`` with the weights of its last checkpoint, or of one that ``trainer.keep`` kept.

    Args:
        path: the run's folder, ``root/task/name``.
        averaged: take the exponential moving average of the weights if there is one.
        step: the training step; None for the last checkpoint.

    Raises:
        RunError: if it is no run's folder, has no checkpoint of that step, or the checkpoint does not fit its
            configuration.
        IntegrityError: if its configuration or checkpoint is damaged.
    """
    place = Path(path)
    folder = RunFolder(place.parent.parent, place.parent.name, place.name)
    if not folder.config.exists():
        raise RunError(f"{place} is no run's folder: it has no config.yaml")
    config = folder.stored_config()
    task = tasks.build(config)
    stored = _stored(folder, step)
    model = task.build_model()
    states = stored["state_dict"]
    prefix = "averaged." if averaged and any(k.startswith("averaged.") for k in states) else "net."
    weights = {k.removeprefix(prefix): v for k, v in states.items() if k.startswith(prefix)}
    _check_fit(model, weights, place)
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


def _stored(folder: RunFolder, step: int | None) -> dict[str, Any]:
    """The checkpoint of a step."""
    if step is None:
        return checkpoint.load(folder.checkpoint)
    if step in folder.kept_steps():
        return checkpoint.load(folder.kept(step))
    if folder.checkpoint.exists():
        stored = checkpoint.load(folder.checkpoint)
        if int(stored["global_step"]) == step:
            return stored
    kept = ", ".join(map(str, available_steps(folder))) or "none"
    raise RunError(
        f"{folder.path} has no checkpoint of step {step}; it has those of steps {kept}: "
        "train with trainer.keep=[…] to keep others"
    )


def _check_fit(model: nn.Module, weights: Mapping[str, Tensor], place: Path) -> None:
    """Names and shapes agree.

    Raises:
        RunError: naming the first layer that differs.
    """
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    for name in [*wanted, *found]:
        if wanted.get(name) != found.get(name):
            raise RunError(
                f"the checkpoint of {place} is of another model: {name!r} is {found.get(name, 'missing')} in the "
                f"checkpoint and {wanted.get(name, 'missing')} in the model that config.yaml describes; restore the "
                "config.yaml and checkpoints of one and the same run"
            )
