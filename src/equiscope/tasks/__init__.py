"""The tasks by name, imported only when they are built."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from equiscope.errors import InputError
from equiscope.words import nearest

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

    ``title`` in a sentence, ``samples`` the plural of what it learns from, ``less_data`` a setting that trains on less,
    ``symmetric`` a run of it with a model that is symmetric by construction, ``unit`` of what its models answer.
    """

    title: str
    samples: str = "samples"
    less_data: str = ""
    symmetric: str = ""
    unit: str = ""


def words(name: str) -> Words:
    """The words of a task; of one that says nothing, its name."""
    if name not in TASKS:
        return Words(name)
    package = importlib.import_module(TASKS[name].rpartition(".")[0])
    return getattr(package, "WORDS", Words(name))


# Tasks of others that somebody asked for in this process: their code has run already.
_trusted: set[str] = set()


def build(config: Mapping[str, Any], trust: bool = False) -> Task:
    """The task of a configuration, whose key ``task`` names one of :data:`TASKS` or a ``"module:Class"``.

    The class is asked by ``from_config(config)``. Where it says which ``losses`` (name -> settings) and ``models`` it
    has, it is given no other. A ``"module:Class"`` is imported with ``trust`` alone: where the configuration is the
    user's own and no stored one.

    Raises:
        InputError: if there is no such task, it is of others and not trusted, or it has no such loss or model.
    """
    name = str(config.get("task"))
    if name not in TASKS and ":" not in name:
        raise InputError(f"unknown task {name!r}: the tasks are {', '.join(TASKS)}{nearest(name, TASKS)}")
    if name not in TASKS and not trust and name not in _trusted:
        raise InputError(
            f"the stored configuration names the task {name!r}, code that is not equiscope's: it is not imported; if "
            "you know where it comes from, say --trust (in Python trust=True)"
        )
    module, _, attribute = TASKS.get(name, name).partition(":")
    try:
        made = getattr(importlib.import_module(module), attribute)
    except (ModuleNotFoundError, AttributeError) as error:
        raise InputError(f"task {name!r} cannot be loaded: {error}") from error
    _trusted.add(name)
    _check_groups(made, config)
    return made.from_config(config)


def _check_groups(task: Any, config: Mapping[str, Any]) -> None:
    """Loss and model belong to the task, which would ignore those of another, or misread them."""
    for group in ("loss", "model"):
        known, chosen = getattr(task, "losses" if group == "loss" else "models", None), config.get(group)
        if known is None or not isinstance(chosen, Mapping) or "name" not in chosen:
            continue
        if chosen["name"] not in known:
            raise InputError(
                f"{group}.name must be one of {', '.join(known)} for task {task.name!r}, got {chosen['name']!r}"
            )
        if isinstance(known, Mapping) and (unknown := sorted(set(chosen) - {"name", *known[chosen["name"]]})):
            settings = ", ".join(known[chosen["name"]]) or "none"
            raise InputError(f"{group} {chosen['name']!r} has no setting {unknown[0]!r}: it has {settings}")


def check_batch(task: Any, batch_size: int) -> None:
    """No batch is larger than a pass: an InputError, where a task says how many ``training_samples`` it has."""
    count = getattr(task, "training_samples", None)
    if count is not None and batch_size > count:
        raise InputError(
            f"batch_size={batch_size} is more than the {count} training samples of task {task.name!r}: give a smaller "
            "batch_size, or more data"
        )
