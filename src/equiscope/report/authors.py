"""The authors' own published curves, as shipped numbers, under the rules that judge our runs.

Each curve of ``authors.json`` is made into the records of a run, so that :mod:`claims` reads it like any other. A point
that is read off a figure has no interval: :data:`READING` of its value to each side is taken for one.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from typing import Any

from equiscope.report import paper
from equiscope.report.claims import Claim, claims
from equiscope.report.curves import history
from equiscope.report.evidence import UNDECIDED, Evidence, Row, run_of

#: Of a percent, to each side: the error of reading a figure, in place of an interval.
READING = 0.1
#: R² of the Wiener filter on the authors' grids of 64³, which is the baseline of their voxel models.
WIENER = 0.015


@functools.cache
def data() -> Mapping[str, Any]:
    """``source``, ``reading``, ``curves`` and ``told`` of the shipped file."""
    return json.loads(resources.files(__package__).joinpath("authors.json").read_text())


def evidence() -> Evidence:
    """The published curves as runs."""
    runs = (run_of(f"{one['task']}/{one['name']}", history(records(one)), ()) for one in data()["curves"])
    return Evidence(tuple(runs), ())


def records(curve: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records of a run that would draw a published curve."""
    last = curve["points"][-1][0]
    config = {"seed": curve["seed"], "data": {"train_frames": curve["samples"]},
               "model": {"name": curve["model"]}, "trainer": {"max_steps": last},
              "optimizer": {"name": curve["optimizer"], "lr": curve["lr"]}}  # fmt: skip
    run = {"kind": "run", "name": curve["name"], "task": curve["task"], "model": curve["model"],
           "parameters": curve["parameters"], "config": config}  # fmt: skip
    probe = paper.TASKS[curve["task"]].probe or "published"
    voxels = curve["task"] == "voxels"
    measured = [
        {"kind": "measure", "skill": 1 - (1 - r2) / (1 - WIENER) if voxels and r2 is not None else None,
         "step": step, "part": "track", "probe": probe, "headline": True, "seconds": 0.0,
         "result": {"percent": percent, "percent_interval": [percent * (1 - READING), percent * (1 + READING)],
                    "interval_kind": "two-sided", "r2": r2}}
        for step, percent, r2 in curve["points"]
    ]  # fmt: skip
    used = {"train": curve["samples"]} if curve["samples"] else {}
    return [run, {"kind": "data", "used": used}, *measured, {"kind": "end", "step": last}]


@functools.cache
def judged() -> tuple[Claim, ...]:
    """Every claim on the authors' own curves; claims that no curve decides have what is published instead."""
    told: dict[str, list[Row]] = {}
    for row in data()["told"]:
        told.setdefault(row["claim"], []).append(
            Row(row["task"], "the authors’ repository", "published", row["ours"], row["interval"], "", UNDECIDED,
                "the paper’s own runs", row["change"])
        )  # fmt: skip
    found = claims(evidence())
    return tuple(
        Claim(one.key, tuple(_as_read(row) for row in told.get(one.key, one.rows)), one.missing)
        for one in found
    )


def _as_read(row: Row) -> Row:
    """What stands for an interval is said to be the error of reading; voxels are measured the authors' own way."""
    probe = paper.TASKS[row.task].probe
    ours = row.ours.replace(f" on “{probe}”", " on their probe, with noise of its own for each rotation,")
    return replace(row, ours=ours, interval=row.interval.replace("95 % interval", "as read"))
