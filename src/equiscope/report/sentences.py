"""What the report says in words: the headline, the verdict on the crossing, what the number means."""

from __future__ import annotations

import math
from dataclasses import dataclass

from equiscope import tasks
from equiscope.decomposition.result import Result
from equiscope.decomposition.statistics import TOO_FEW
from equiscope.report.crossings import COLLAPSE, SKILL, Crossing, Crossings
from equiscope.report.curves import RunHistory
from equiscope.words import percent, r2


@dataclass(frozen=True)
class Notice:
    """A boxed message of the page: a bold title and its text."""

    title: str
    text: str


def squared_unit(told: RunHistory) -> str:
    """The unit of the run's squared errors, with a blank before it: `` (eV/Å)²``; nothing where it is not known."""
    unit = tasks.words(told.run.task).unit if told.result.loss == "mse" else ""
    return "" if not unit else f" ({unit})²" if "/" in unit else f" {unit}²"


def share_text(result: Result) -> str:
    """"0.37 % (95 % interval 0.34–0.41 %)", "at most 0.02 % (95 % upper limit)" or the bare percent."""
    if not math.isfinite(result.percent):
        return "an unknown share"
    low, high = result.percent_interval
    if result.interval_kind == "upper limit" and math.isfinite(high):
        return f"at most {percent(high)[0]} % (95 % upper limit)"
    if result.interval_kind == "two-sided" and math.isfinite(low) and math.isfinite(high):
        return "{} % (95 % interval {}–{} %)".format(*percent(result.percent, low, high))
    return f"{percent(result.percent)[0]} % (no interval: too few independent samples)"


def headline(told: RunHistory) -> str:
    """The result of the run in one sentence that a newcomer understands."""
    record = told.headline_record
    if record is None:
        return "Nothing has been measured in this run yet."
    steps, samples = f"{record.step:,}", tasks.words(told.run.task).samples
    return (
        f"{f'After {steps} training steps' if told.headline_final is not None else f'So far, at step {steps}'}, "
        f"{share_text(record.result)} of the model’s loss is there only because it has not learned rotation "
        f"symmetry perfectly{_group_clause(record.result)}{_skill_clause(record.result.r2, samples)} "
        f"and the value is {_noise_clause(record.result)}.{_few(record.result)}"
    )


def _group_clause(result: Result) -> str:
    """What a smaller group than all rotations means for the share."""
    if result.group != "O":
        return ""
    return (
        " (measured exactly for the octahedral group O, the 24 turns of the grid, noise and all: a lower bound for all "
        "rotations of the same grids)"
    )


def _few(result: Result) -> str:
    """What is said of an interval that too few clusters carry."""
    carry = result.effective_clusters
    if carry is None or not carry < TOO_FEW or result.interval_kind == "none":
        return ""
    return f" Only {carry:.2g} of {result.clusters} independent clusters carry the interval, too few to trust it."


def _skill_clause(value: float, samples: str) -> str:
    name = f"R² {r2(value)} on {samples} it has never seen"
    if not math.isfinite(value):
        return f"; how well it predicts {samples} it has never seen is unknown,"
    if value < COLLAPSE:
        return f", but the model is no better than a constant answer ({name}), so this says nothing about learning;"
    if value < SKILL:
        return f", but the model explains little yet ({name});"
    return f"; the model {'predicts well' if value >= 0.85 else 'has skill'} ({name}),"


def _noise_clause(result: Result) -> str:
    floor = result.noise_floor_percent
    if result.distinguishable:
        return "clearly above numerical noise"
    return "not distinguishable from numerical noise" + (
        f" (noise floor {percent(floor)[0]} %)" if math.isfinite(floor) else ""
    )


def verdict(found: Crossings) -> str:
    """Whether and when the symmetry was learned by a model that can do something."""
    limit, crossing = f"{found.threshold:g} %", found.skilled
    if crossing is not None:
        count = f"{crossing.measurements} measurement{'s' if crossing.measurements > 1 else ''}"
        before = "" if crossing.before is None else f"; the measurement before was at step {crossing.before:,}"
        return (
            f"Skilled crossing at step {crossing.step:,}: from there to the end ({count}) the whole 95 % "
            f"interval lies under {limit} and R² is at least {SKILL:g} ({crossing.ability} at the crossing{before})."
        )
    if found.sustained is not None:
        reached = found.end.ability if found.end else "R² unknown"
        baseline = ", and better than its baseline," if found.end and math.isfinite(found.end.skill) else ""
        return (
            f"No skilled crossing: the share stays under {limit} from step {found.sustained.step:,} on, but not with "
            f"R² of at least {SKILL:g}{baseline} up to the end ({reached} at the last measurement)."
        )
    if found.start is None:
        return "No percent has been recorded in this run (it needs labels), so there is no crossing to speak of."
    if found.first is not None:
        return (
            f"No skilled crossing: the share was under {limit} at some steps, but it is not certain (95 %) to have "
            "stayed there until the end."
        )
    return f"No crossing: no measurement of this run is at or under {limit}."


def crossing_step(crossing: Crossing | None, skill: bool = True) -> str:
    """``1,000 (R² 0.53)``, a dash for none."""
    if crossing is None:
        return "–"
    return f"{crossing.step:,}" + (f" ({crossing.ability})" if skill else "")


def crossing_warning(found: Crossings) -> Notice | None:
    """The warning about an end or a first crossing that means nothing, None where both are sound."""
    end, first = found.end, found.first
    if end is not None and end.collapsed and end.percent <= found.threshold:
        like = "worse than a constant answer" if end.r2 < -COLLAPSE else "practically the zero predictor"
        return Notice(
            "Collapse",
            f"At the end, step {end.step:,}, R² is {r2(end.r2)}: the model is {like}. An answer that is the same "
            "for every input has no equivariance error, so the small share there is void.",
        )
    if first is None or not first.unskilled:
        return None
    ahead = f"The naive first crossing of {found.threshold:g} % is at step {first.step:,}, where R² was {r2(first.r2)}"
    if not math.isfinite(first.r2):
        return Notice("Skill unknown", f"{ahead}: whether the model could do anything by then is not recorded.")
    if first.r2 < -COLLAPSE:
        return Notice("Collapse", f"{ahead}: the model was worse than a constant answer, so this crossing is void.")
    if first.collapsed:
        return Notice(
            "Collapse",
            f"{ahead}: the model was practically the zero predictor. A model that answers zero for every input has no "
            "equivariance error, so this crossing is void and says nothing about symmetry being learned.",
        )
    return Notice("Caution", f"{ahead}: the model had little skill by then, so this crossing is not the headline.")
