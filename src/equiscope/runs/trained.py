"""Open a finished or running run for use: its configuration, task and trained model."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from equiscope import tasks
from equiscope.errors import IntegrityError, RunError
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
    """

    folder: RunFolder
    config: dict[str, Any]
    task: Task
    model: nn.Module
    step: int


def open_run(path: str | os.PathLike[str], averaged: bool = True) -> Trained:
    """The run in folder ``path`` with the weights of its last checkpoint.

    Args:
        path: the run's folder, ``root/task/name``.
        averaged: take the exponential moving average of the weights if there is one.

    Raises:
        RunError: if it is no run's folder, or the checkpoint does not fit its configuration.
        IntegrityError: if its configuration or checkpoint is damaged.
    """
    place = Path(path)
    folder = RunFolder(place.parent.parent, place.parent.name, place.name)
    if not folder.config.exists():
        raise RunError(f"{place} is no run's folder: it has no config.yaml")
    try:
        config = yaml.safe_load(folder.config.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise IntegrityError(f"{folder.config} is damaged: {error}") from error
    task = tasks.build(config)
    stored = checkpoint.load(folder.checkpoint)
    model = task.build_model()
    states = stored["state_dict"]
    prefix = "averaged." if averaged and any(k.startswith("averaged.") for k in states) else "net."
    weights = {k.removeprefix(prefix): v for k, v in states.items() if k.startswith(prefix)}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise RunError(
            f"the checkpoint of {place} does not fit the model its configuration describes: {error}"
        ) from error
    return Trained(folder, config, task, model.eval(), int(stored["global_step"]))
