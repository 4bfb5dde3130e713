"""The loss of a task's baseline on every probe, once a run, and the skill of a model against it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from equiscope.decomposition.result import Result
from equiscope.records import Records
from equiscope.tasks.task import Probe

Measure = Callable[[Any, Probe], Result]


def record_baseline(records: Records, task: Any, probes: Sequence[Probe], part: str, measure: Measure) -> None:
    """A record "baseline" for each probe of a part that has none: ``total``, ``r2``, ``percent`` and the ``model``.

    ``measure`` is given the baseline as it is given the run's model: same samples, noise and rotations. A task without
    ``baseline()`` gets no record, and its models no skill.
    """
    make = getattr(task, "baseline", None)
    missing = [probe for probe in probes if records.find("baseline", part=part, probe=probe.name) is None]
    if make is None or not missing:
        return
    model = make()
    for probe in missing:
        found = measure(model, probe)
        records.append("baseline", part=part, probe=probe.name, model=type(model).__name__, total=found.total,
                       r2=found.r2, percent=found.percent)  # fmt: skip


def skill(records: Records, part: str, probe: str, total: float) -> dict[str, float]:
    """``skill`` = 1 − loss / loss of the baseline on the same probe, or nothing where there is no baseline."""
    found = records.find("baseline", part=part, probe=probe)
    due = None if found is None else found["total"]
    return {"skill": 1 - total / due} if due is not None and due > 0 and math.isfinite(total) else {}
