"""The tasks by name, imported only when they are built."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from equiscope.errors import InputError

if TYPE_CHECKING:
    # A process that makes data needs neither torch nor the seconds of its import.
    from equiscope.tasks.task import Task

TASKS = {
    "forcefield": "equiscope.tasks.forcefield.task:ForceField",
    "proteinflow": "equiscope.tasks.proteinflow.task:ProteinFlow",
    "voxels": "equiscope.tasks.voxels.task:Voxels",
}


@dataclass(frozen=True)
class Words:
    """What a report calls a task, from ``WORDS`` of its package.

    Attributes:
        title: in a sentence. samples: the plural of what it learns from. less_data: a setting that trains on less.
        symmetric: a run of it with a model that is symmetric by construction.
    """

    title: str
    samples: str = "samples"
    less_data: str = ""
    symmetric: str = ""


def words(name: str) -> Words:
    """The words of a task; of one that says nothing, its name."""
    if name not in TASKS:
        return Words(name)
    package = importlib.import_module(TASKS[name].rpartition(".")[0])
    return getattr(package, "WORDS", Words(name))


def build(config: Mapping[str, Any]) -> Task:
    """The task of a configuration, whose key ``task`` names one of :data:`TASKS` or a ``"module:Class"``.

    The class is asked by ``from_config(config)``.

    Raises:
        InputError: if there is no such task.
    """
    name = str(config.get("task"))
    if name not in TASKS and ":" not in name:
        near = difflib.get_close_matches(name, TASKS, n=1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"unknown task {name!r}: the tasks are {', '.join(TASKS)}{meant}")
    module, _, attribute = TASKS.get(name, name).partition(":")
    try:
        made = getattr(importlib.import_module(module), attribute)
    except (ModuleNotFoundError, AttributeError) as error:
        raise InputError(f"task {name!r} cannot be loaded: {error}") from error
    return made.from_config(config)
