"""Every setting of a run with its default and its meaning, read from the comments of the configuration's own files."""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from equiscope.runs.config import CONF, GROUPS, composed

_LINE = re.compile(r"^(?P<indent> *)(?P<key>\w+):(?P<value>[^#]*)(?:#\s*(?P<said>.*))?$")
# Groups are said by what may be chosen.
_GROUP_WORDS = {
    "task": "what is trained",
    "model": "the network",
    "loss": "what it is trained on",
    "optimizer": "of torch",
    "logger": "where losses and percents go beside the records",
    "data": "of the task; a published set for forcefield",
}


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
    for group in GROUPS[1:]:
        for file in _files(group, config):
            said |= {f"{group}.{key}": text for key, text in meanings(_text(f"{group}/{file}.yaml")).items()}
    # A choice such as voxels_paper stands on its task's own file.
    for choice in [str(config["task"]), *(o.partition("=")[2] for o in overrides if o.startswith("task="))]:
        said |= meanings(_text(f"task/{choice}.yaml"))
    groups = [_group(group, config) for group in GROUPS]
    rest = [Setting(key, _typed(value), said.get(key, "")) for key, value in _leaves(config)]
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
    return Setting(group, str(chosen), f"{_GROUP_WORDS[group]}: {', '.join(choices(group))}")


def _leaves(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in config.items():
        found += _leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return found


def _typed(value: Any) -> str:
    """A value as it is typed on the command line."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(_typed, value))}]"
    return str(value)


def _text(file: str) -> str:
    return (importlib.resources.files(CONF) / file).read_text(encoding="utf-8")
