"""What the report says in words: the headline, the verdict on the crossing, what the number means."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from equiscope.report.crossings import COLLAPSE, SKILL, Crossing, Crossings
from equiscope.report.curves import RunHistory, number
from equiscope.report.style import r2_text

#: What a task's samples are called in a sentence.
SAMPLES = {"forcefield": "molecules", "proteinflow": "protein chains", "voxels": "molecules"}

MEANING = (
    "Turn an input, ask the model, turn its answer back. A perfectly symmetric model gives the same answer for "
    "every turn; a model that learned symmetry from data gives slightly different ones.",
    "For squared error the loss over all turns splits exactly into two parts: the loss of the answer averaged over "
    "turns (the <em>twirled</em> loss) and the scatter of the answers around that average (the <em>equivariance "
    "error</em>).",
    "The percent is the second part as a share of the whole: how much of the loss would go away if the same model "
    "were perfectly symmetric. It is a ratio of means over samples.",
    "It says nothing about skill: a model that always answers zero is perfectly symmetric and useless. So read it "
    "together with R², which is 0 for the best constant answer and 1 for a perfect one.",
    "It is an estimate from finitely many turns and samples, so it has a 95 % interval; and rounding in the computer "
    "leaves a noise floor below which no value can be told from zero.",
)


@dataclass(frozen=True)
class Notice:
    """A boxed message of the page: a bold title and its text."""

    title: str
    text: str


def samples_name(history: RunHistory) -> str:
    """The plural word for the samples of the run's task."""
    return SAMPLES.get(str(history.run.get("task")), "samples")


def percent_text(value: float, low: float = math.nan, high: float = math.nan) -> tuple[str, str, str]:
    """(value, low, high) as digits without the sign of percent, all with the decimals that the interval warrants."""
    if not math.isfinite(value):
        return "unknown", "?", "?"
    # As fine as the interval's half width and as two significant digits of the value; no bound rounds to 0.
    scale = (high - low) / 2 if math.isfinite(low) and math.isfinite(high) and high > low else abs(value) / 10
    smallest = min((abs(v) for v in (value, low, high) if math.isfinite(v) and v != 0), default=1.0)
    if smallest < 1e-4 and abs(value) < 1e-3:
        return tuple(_scientific(v) for v in (value, low, high))  # type: ignore[return-value]
    digits = 1 - math.floor(math.log10(abs(value) or 1.0))
    decimals = max(0, -math.floor(math.log10(scale or 1.0)), -math.floor(math.log10(smallest)), digits)
    return tuple(f"{v:.{min(decimals, 6)}f}".replace("-", "−") for v in (value, low, high))  # type: ignore[return-value]


def _scientific(value: float) -> str:
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "?"
    mantissa, exponent = f"{value:.1e}".split("e")
    power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa} × 10{power}".replace("-", "−")


def share_text(result: Mapping) -> str:
    """"0.37 % (95 % interval 0.34–0.41 %)", "at most 0.02 % (95 % upper limit)" or the bare percent."""
    value = number(result.get("percent"))
    low, high = (number(v) for v in result.get("percent_interval") or (None, None))
    kind = result.get("interval_kind")
    if not math.isfinite(value):
        return "an unknown share"
    if kind == "upper limit" and math.isfinite(high):
        return f"at most {percent_text(high)[0]} % (95 % upper limit)"
    if kind == "two-sided" and math.isfinite(low) and math.isfinite(high):
        text, low_text, high_text = percent_text(value, low, high)
        return f"{text} % (95 % interval {low_text}–{high_text} %)"
    return f"{percent_text(value)[0]} % (no interval: too few independent samples)"


def headline(history: RunHistory) -> str:
    """The result of the run in one sentence that a newcomer understands."""
    record = history.headline_record
    if record is None:
        return "Nothing has been measured in this run yet."
    result = record["result"]
    r2 = number(result.get("r2"))
    done = f"{record['step']:,}"
    steps = f"After {done} training steps" if history.headline_final is not None else f"So far, at step {done}"
    return (
        f"{steps}, {share_text(result)} of the model’s loss is there only because it has not learned rotation "
        f"symmetry perfectly{_group_clause(result)}{_skill_clause(r2, samples_name(history))} "
        f"and the value is {_noise_clause(result)}."
    )


def _group_clause(result: Mapping) -> str:
    """What a smaller group than all rotations means for the share."""
    if result.get("group") != "O":
        return ""
    return " (measured exactly for the octahedral group O, the 24 turns of the grid: a lower bound for all rotations)"


def _skill_clause(r2: float, samples: str) -> str:
    name = f"R² {r2_text(r2)} on {samples} it has never seen"
    if not math.isfinite(r2):
        return f"; how well it predicts {samples} it has never seen is unknown,"
    if r2 < COLLAPSE:
        return f", but the model is no better than a constant answer ({name}), so this says nothing about learning;"
    if r2 < SKILL:
        return f", but the model explains little yet ({name});"
    return f"; the model {'predicts well' if r2 >= 0.85 else 'has skill'} ({name}),"


def _noise_clause(result: Mapping) -> str:
    floor = number(result.get("noise_floor_percent"))
    where = f" (noise floor {percent_text(floor)[0]} %)" if math.isfinite(floor) else ""
    if result.get("distinguishable"):
        return "clearly above numerical noise"
    return f"not distinguishable from numerical noise{where}"


def verdict(found: Crossings) -> str:
    """Whether and when the symmetry was learned by a model that can do something."""
    limit = f"{found.threshold:g} %"
    if found.skilled is not None:
        crossing = found.skilled
        return (
            f"Skilled crossing at step {crossing.step:,}: from there to the end ({_count(crossing)}) the whole 95 % "
            f"interval lies under {limit} and R² is at least {SKILL:g} (R² {r2_text(crossing.r2)} at the crossing"
            f"{_between(crossing)})."
        )
    if found.sustained is not None:
        reached = found.end.r2 if found.end else math.nan
        return (
            f"No skilled crossing: the share stays under {limit} from step {found.sustained.step:,} on, but not with "
            f"R² of at least {SKILL:g} up to the end (R² {r2_text(reached)} at the last measurement)."
        )
    if found.start is None:
        return "No percent has been recorded in this run (it needs labels), so there is no crossing to speak of."
    if found.first is not None:
        return (
            f"No skilled crossing: the share was under {limit} at some steps, but it is not certain (95 %) to have "
            "stayed there until the end."
        )
    return f"No crossing: no measurement of this run is at or under {limit}."


def _count(crossing: Crossing) -> str:
    return f"{crossing.measurements} measurement{'s' if crossing.measurements > 1 else ''}"


def _between(crossing: Crossing) -> str:
    return f"; the measurement before was at step {crossing.before:,}" if crossing.before is not None else ""


def crossing_warning(found: Crossings) -> Notice | None:
    """The warning about an end or a first crossing that means nothing, None where both are sound."""
    end = found.end
    if end is not None and end.collapsed and end.percent <= found.threshold:
        like = "worse than a constant answer" if end.r2 < -COLLAPSE else "practically the zero predictor"
        return Notice(
            "Collapse",
            f"At the end, step {end.step:,}, R² is {r2_text(end.r2)}: the model is {like}. An answer that is the same "
            "for every input has no equivariance error, so the small share there is void.",
        )
    first = found.first
    if first is None or not first.unskilled:
        return None
    r2 = r2_text(first.r2)
    ahead = f"The naive first crossing of {found.threshold:g} % is at step {first.step:,}, where R² was {r2}"
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
