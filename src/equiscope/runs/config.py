"""The configuration of a run, composed by Hydra from the package's ``conf`` folder and ``key=value`` overrides.

Every setting with its default and its meaning is read from the comments of the configuration's own files.
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from equiscope.errors import InputError
from equiscope.words import leaves, nearest

CONF = "equiscope.conf"
#: The groups of the configuration, said by what may be chosen.
GROUPS = {
    "task": "what is trained", "model": "the network", "loss": "what it is trained on", "optimizer": "of torch",
    "logger": "where losses and percents go beside the records", "data": "of the task; a published set for forcefield",
}  # fmt: skip
_PATHS = ("root", "path", "smiles", "store", "dir")
_SPECIAL = re.compile(r"[^\w./:%+@?|\\$ -]|[^\x00-\x7f]")
# These take several types: devices=2, devices=auto, devices=[0,1]; keep=8, keep=[0,100]. run=7 is a name.
_ANY_TYPE = ("accelerator", "devices", "num_nodes", "strategy", "precision", "deterministic", "benchmark", "keep",
             "compile", "run")  # fmt: skip
_LINE = re.compile(r"^(?P<indent> *)(?P<key>\w+):(?P<value>[^#]*)(?:#\s*(?P<said>.*))?$")


def configuration(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The whole configuration as plain dicts, every reference resolved.

    Args:
        overrides: ``task=forcefield``, ``trainer.max_steps=100``, ``+key=value`` for new keys, and so on. A task of
            your own is ``task=module:Class``, its settings ``+data.key=value`` and ``+model.key=value``.

    Raises:
        InputError: in one line, for an unknown key or choice, a value that cannot be read or is of the wrong
            type, a missing value.
    """
    made = composed(overrides, complete=True)
    _check_types(made, _defaults(overrides))
    if made["run"] is None:
        raise InputError("run is the name of the run's folder: give run=NAME")
    made["run"] = str(made["run"])
    return made


def composed(overrides: Sequence[str] = (), complete: bool = False) -> dict[str, Any]:
    """The configuration that the overrides choose, in which values may be missing unless it is to be complete.

    Raises:
        InputError: in one line, for an unknown key or choice, a value that cannot be read, a missing value.
    """
    try:
        return _compose(overrides, complete)
    except MissingMandatoryValue as error:
        key = error.full_key or error.key
        raise InputError(f"{key} has no value: add {key}=…") from error
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        # ValueError: what Hydra says to a group that is null, logger=null.
        raise InputError(_one_line(error, overrides)) from error


def known_settings() -> list[str]:
    """The dotted name of every setting of the configuration, of all tasks, sorted; groups by their own name."""
    names = set(GROUPS)
    for task in choices("task"):
        names |= {name for name, _ in leaves(_compose([f"task={task}"]))}
    return sorted(name for name in names if name not in ("model.name", "loss.name", "optimizer.name", "logger.name"))


def study_definition(name: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The study of that name in ``conf/study``, changed by ``study.key=value`` overrides.

    Raises:
        InputError: in one line, for an unknown study or key.
    """
    study = composed([f"+study={name}", *overrides]).get("study")
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
    return QuotedString(text, Quote.single).with_quotes()


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
        # A float may be given as a whole number.
        own: tuple[type, ...] = (float, int) if type(old) is float else (type(old),)
        kinds = (int, float, bool) if key == "augment" else own
        if not isinstance(new, kinds) or (isinstance(new, bool) and bool not in kinds):
            raise InputError(f"{name} must be like {old!r}, got {new!r}")


def _one_line(error: Exception, overrides: Sequence[str]) -> str:
    """Hydra's message without its line breaks, with the nearest known key where one was mistyped."""
    text = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    if text.startswith("Could not override '") and "No match in the defaults list" not in text:
        key = text.split("'")[1]
        known = [*GROUPS, *(name for name, _ in leaves(_defaults(overrides)))]
        return f"there is no setting {key!r}{nearest(key, known, 0.5)} (to add a new one, write +{key}=…)"
    if unknown := re.search(r"Could not find '(\w+)/([^']*)' Available options in '\w+': ([\w ]+)", text):
        group, name, known = unknown[1], unknown[2], unknown[3].split(" Config search path")[0].split()
        known = [word for word in known if not word.startswith("_")]
        return f"there is no {group} {name!r}{nearest(name, known, 0.5, ',') or ','} there are {', '.join(known)}"
    return f"the settings cannot be read: {text.split(' Config search path')[0].split(' See https')[0]}"


@dataclass(frozen=True)
class Setting:
    """One ``key=value`` of ``equiscope train``: its dotted name, its default as it is typed, and what it means."""

    name: str
    default: str
    meaning: str


def settings(overrides: Sequence[str] = ()) -> list[Setting]:
    """Every setting of the configuration that ``overrides`` (``task=voxels``, ``data=spice``, …) choose, in its order.

    Raises:
        InputError: for a group or choice that does not exist.
    """
    config = composed(overrides)
    said = meanings(_text("config.yaml"))
    for group in list(GROUPS)[1:]:
        for file in _files(group, config):
            said |= {f"{group}.{key}": text for key, text in meanings(_text(f"{group}/{file}.yaml")).items()}
    # A choice such as voxels_paper stands on its task's own file.
    for choice in [str(config["task"]), *(o.partition("=")[2] for o in overrides if o.startswith("task="))]:
        said |= meanings(_text(f"task/{choice}.yaml"))
    groups = [_group(group, config) for group in GROUPS]
    rest = [Setting(key, _typed(value), said.get(key, "")) for key, value in leaves(config) if value != {}]
    return [*groups, *(s for s in rest if s.name not in GROUPS and s.name.split(".")[-1] not in ("name", "format"))]


def meanings(text: str) -> dict[str, str]:
    """Dotted key -> the comment on its line (and on lines of comment alone that follow it), of a YAML file."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in text.splitlines():
        read = _LINE.match(line)
        if read is None:
            more = re.match(r"^\s{8,}#\s*(.*)$", line)
            if more and path:
                found[".".join(key for _, key in path)] += f" {more[1]}"
            continue
        depth = len(read["indent"])
        path = [*((d, key) for d, key in path if d < depth), (depth, read["key"])]
        found[".".join(key for _, key in path)] = (read["said"] or "").strip()
    return {key: said for key, said in found.items() if said}


def _files(group: str, config: Mapping[str, Any]) -> list[str]:
    """The files that the settings of a group come from."""
    chosen = config.get(group) or {}
    if group == "data":
        return ["_published", chosen["format"]] if "format" in chosen else ["generated"]
    return [chosen["name"]] if "name" in chosen else []


def choices(group: str) -> list[str]:
    """What ``group=…`` may be."""
    names = (file.name.removesuffix(".yaml") for file in (importlib.resources.files(CONF) / group).iterdir())
    return sorted(name for name in names if name.isidentifier() and not name.startswith("_"))


def _group(group: str, config: Mapping[str, Any]) -> Setting:
    chosen = config[group] if group == "task" else (config.get(group) or {}).get("name", "")
    if group == "data":
        chosen = (config.get("data") or {}).get("format") or ("generated" if config["task"] == "forcefield" else "")
    return Setting(group, str(chosen), f"{GROUPS[group]}: {', '.join(choices(group))}")


def _typed(value: Any) -> str:
    """A value as it is typed on the command line."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(_typed, value))}]"
    return str(value)


def _text(file: str) -> str:
    return (importlib.resources.files(CONF) / file).read_text(encoding="utf-8")
