"""The configuration of a run, composed by Hydra from the package's ``conf`` folder and ``key=value`` overrides."""

from __future__ import annotations

import difflib
import importlib.resources
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from equiscope.errors import InputError
from equiscope.runs.folder import flatten

CONF = "equiscope.conf"


GROUPS = ("task", "model", "loss", "optimizer", "logger", "data")
_PATHS = ("root", "path", "smiles", "store", "dir")
_SPECIAL = re.compile(r"[^\w./:%+@?|\\$ -]|[^\x00-\x7f]")
# These take several types: devices=2, devices=auto, devices=[0,1]; keep=8, keep=[0,100]. run=7 is a name.
_ANY_TYPE = ("accelerator", "devices", "num_nodes", "strategy", "precision", "deterministic", "benchmark", "keep",
             "compile", "run")  # fmt: skip


def configuration(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The whole configuration as plain dicts, every reference resolved.

    Args:
        overrides: ``task=forcefield``, ``trainer.max_steps=100``, ``+key=value`` for new keys, and so on. A task of
            your own is ``task=module:Class``, its settings ``+data.key=value`` and ``+model.key=value``.

    Raises:
        InputError: in one line, for an unknown key or choice, a value that cannot be read or is of the wrong
            type, a missing value.
    """
    try:
        made = _compose(overrides, complete=True)
    except MissingMandatoryValue as error:
        key = error.full_key or error.key
        raise InputError(f"{key} has no value: add {key}=…") from error
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        # ValueError: what Hydra says to a group that is null, logger=null.
        raise InputError(_one_line(error, overrides)) from error
    _check_types(made, _defaults(overrides))
    if made["run"] is None:
        raise InputError("run is the name of the run's folder: give run=NAME")
    made["run"] = str(made["run"])
    return made


def composed(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The configuration that the overrides choose, in which values may still be missing.

    Raises:
        InputError: in one line, for an unknown key or choice.
    """
    try:
        return _compose(overrides)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise InputError(_one_line(error, overrides)) from error


def known_settings() -> list[str]:
    """The dotted name of every setting of the configuration, of all tasks, sorted; groups by their own name."""
    names = set(GROUPS)
    for task in sorted(file.name for file in (importlib.resources.files(CONF) / "task").iterdir()):
        names |= {name for name, _ in flatten(_compose([f"task={task.removesuffix('.yaml')}"]))}
    return sorted(name for name in names if name not in ("model.name", "loss.name", "optimizer.name", "logger.name"))


def study_definition(name: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The study of that name in ``conf/study``, changed by ``study.key=value`` overrides.

    Raises:
        InputError: in one line, for an unknown study or key.
    """
    try:
        study = _compose([f"+study={name}", *overrides]).get("study")
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(_one_line(error, [])) from error
    if not isinstance(study, dict):
        raise InputError(f"conf/study/{name}.yaml describes no study")
    return study


def spelled(override: str) -> str:
    """An override as given, but the path of a file or folder in quotes where Hydra would read more into it."""
    key, equals, value = override.partition("=")
    special = _SPECIAL.search(value) and not value.startswith(("'", '"')) and "${" not in value
    path = key.lstrip("+").rpartition(".")[2] in _PATHS
    return f"{key}={quoted(value)}" if equals and path and special else override


def quoted(text: str) -> str:
    """A text that Hydra takes as it is."""
    inside = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), text)
    return f"'{inside}'"


def _compose(overrides: Sequence[str], complete: bool = False) -> dict[str, Any]:
    overrides = [spelled(override) for override in overrides]
    own = [override for override in overrides if override.startswith("task=") and ":" in override]
    given = [override for override in overrides if override not in own]
    # A user's own task, task=module:Class, is no file of the group; the models and losses of others mean nothing to it.
    without = [name for name in ("task", "model", "loss") if own and not any(o.startswith(f"{name}=") for o in given)]
    GlobalHydra.instance().clear()
    with initialize_config_module(config_module=CONF, version_base="1.3"):
        config = compose("config", overrides=[*(f"~{name}" for name in without), *given])
    made = OmegaConf.to_container(config, resolve=complete, throw_on_missing=complete)
    assert isinstance(made, dict)
    named = {"task": own[-1].partition("=")[2]} if own else {}
    return {str(key): value for key, value in made.items()} | named


def _defaults(overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration with the groups chosen by the overrides and nothing else changed; empty if impossible."""
    chosen = [override for override in overrides if override.split("=")[0] in GROUPS]
    try:
        return _compose(chosen)
    except (HydraException, OmegaConfBaseException):
        return {}


def _check_types(made: Mapping[str, Any], default: Mapping[str, Any], prefix: str = "") -> None:
    for key, old in default.items():
        new, name = made.get(key), f"{prefix}{key}"
        if isinstance(old, Mapping):
            if not isinstance(new, Mapping):
                raise InputError(f"{name} is a group of settings ({', '.join(old)}), not a value: got {new!r}")
            _check_types(new, old, f"{name}.")
            continue
        if old is None or old == "???" or key in _ANY_TYPE or (new is None and prefix == "data."):
            continue
        kinds: tuple[type, ...] = (int, float, bool) if key == "augment" else _ACCEPTED.get(type(old), (type(old),))
        if not isinstance(new, kinds) or (isinstance(new, bool) and bool not in kinds):
            raise InputError(f"{name} must be like {old!r}, got {new!r}")


_ACCEPTED: dict[type, tuple[type, ...]] = {float: (float, int)}


def _one_line(error: Exception, overrides: Sequence[str]) -> str:
    """Hydra's message without its line breaks, with the nearest known key where one was mistyped."""
    text = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    if text.startswith("Could not override '") and "No match in the defaults list" not in text:
        key = text.split("'")[1]
        known = [*GROUPS, *(name for name, _ in flatten(_defaults(overrides)))]
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        return f"there is no setting {key!r}{meant} (to add a new one, write +{key}=…)"
    if unknown := re.search(r"Could not find '(\w+)/([^']*)' Available options in '\w+': ([\w ]+)", text):
        group, name, known = unknown[1], unknown[2], unknown[3].split()
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        meant = f", did you mean {near[0]!r}?" if near else ","
        return f"there is no {group} {name!r}{meant} there are {', '.join(known)}"
    return f"the settings cannot be read: {text.split(' Config search path')[0].split(' See https')[0]}"
