"""Relations along a run's training between percent, gradients and head, from its records alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from equiscope.analysis.relations import LEAST, relation
from equiscope.records import Record, Records

#: what is related: name -> (analysis of both series, path of the first, path of the second).
HEAD = {
    "equivariance error ~ weight variance": ("equivariance", "elsewhere.variance"),
    "equivariance error ~ exact form": ("equivariance", "elsewhere.form"),
    "equivariance error ~ size of the features": ("equivariance", "elsewhere.features"),
    "equivariance error ~ alignment": ("equivariance", "elsewhere.alignment"),
    "percent ~ weight variance": ("percent", "elsewhere.variance"),
    "percent ~ exact form": ("percent", "elsewhere.form"),
}
GRADIENTS = {
    "percent ~ gradient ratio": ("percent", "ratio"),
    "percent ~ gradient ratio in Adam’s metric": ("percent", "adam_ratio"),
}


def relate(records: Records) -> list[Record]:
    """Append the relations of every probe whose series has grown since they were last made; all those there are now."""
    made = []
    for probe, found in _series(records, "heads").items():
        made += _relations(records, probe, found, HEAD)
    for probe, found in _series(records, "gradients").items():
        made += _relations(records, probe, {step: _compared(values) for step, values in found.items()}, GRADIENTS)
    return made


def _series(records: Records, analysis: str) -> dict[str, dict[int, Mapping[str, Any]]]:
    """probe -> step -> values of an analysis, of the records with the settings of the last one."""
    mine = [r for r in records.entries if r["kind"] == "analysis" and r["analysis"] == analysis]
    settings = {record["probe"]: record["settings"] for record in mine}
    found: dict[str, dict[int, Mapping[str, Any]]] = {}
    for record in mine:
        if record["settings"] == settings[record["probe"]]:
            found.setdefault(record["probe"], {})[record["step"]] = record["values"]
    return {probe: dict(sorted(steps.items())) for probe, steps in found.items()}


def _relations(
    records: Records, probe: str, found: Mapping[int, Mapping[str, Any]], pairs: Mapping[str, tuple[str, str]]
) -> list[Record]:
    steps = list(found)
    if len([step for step in steps if step > 0]) < LEAST:
        return []
    made = []
    for name, (first, second) in pairs.items():
        series = [[_at(values, path) for values in found.values()] for path in (first, second)]
        identity = {"analysis": "relations", "probe": probe, "pair": name, "first": series[0], "second": series[1]}
        made.append(
            records.append_once(
                "analysis", {**identity, "steps": steps}, step=steps[-1], values=relation(steps, *series)
            )
        )
    return made


def _compared(values: Mapping[str, Any]) -> dict[str, float | None]:
    """Percent of the loss on the samples of the gradients, and the ratio of the two norms."""
    losses, adam = values["losses"], values["adam"]
    total = losses["twirled"] + losses["equivariance"]
    return {
        "percent": 100 * losses["equivariance"] / total if total > 0 else None,
        "ratio": values["whole"]["ratio"]["value"],
        "adam_ratio": adam["ratio"]["value"] if adam else None,
    }


def _at(values: Mapping[str, Any], path: str) -> float | None:
    here: Any = values
    for key in path.split("."):
        here = here.get(key) if isinstance(here, Mapping) else None
    return None if here is None else float(here)
