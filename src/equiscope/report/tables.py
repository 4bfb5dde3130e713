"""The tables of the report as rows of text: comparison with the paper, probes, run, data, what was rotated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from equiscope.decomposition.result import Result
from equiscope.report import style
from equiscope.report.crossings import THRESHOLD, Crossing, Crossings, crossings
from equiscope.report.curves import RunHistory
from equiscope.report.sentences import crossing_step, share_text, squared_unit
from equiscope.tasks.datasets.blocks import SYMBOLS
from equiscope.words import digits, duration, flatten, minus, moment, number, percent, r2, text

Row = tuple[str, ...]

#: What a task tells of its data that is of use only to who wants to make it again.
_DETAILS = {"config", "counts", "path", "reference_energies", "source", "versions"}
#: What a task tells of its data -> words for it, and the unit.
_FACTS = {
    "orientation · eigenvalues": ("orientation: eigenvalues, 0.333 each where even", ""),
    "orientation · standard error": ("orientation: standard error of these", ""),
    "orientation · p value": ("orientation: p value of even", ""),
    "orientation · samples": ("orientation: samples with a longest axis", ""),
    "orientation · skipped": ("orientation: samples without", ""),
    "force rms": ("root mean square of a force component", "eV/Å"),
    "energy rms": ("root mean square of the energy learned", "eV"),
    "units": ("unit of length", ""),
    "mean square of a grid": ("mean square of a voxel", ""),
    "augment": ("share of samples turned in training", ""),
    "measured self conditioning": ("self-conditioning where measured", ""),
    "atom radius": ("radius of an atom", "Å"),
    "noise sigma": ("standard deviation of the noise", ""),
}
#: Parts of a data set, in words.
_PARTS = {"train": "for training", "track": "followed along training", "final": "for the final figure"}
#: Losses in words.
_LOSSES = {"mse": "squared error", "l2_norm": "norm of the error", "l1": "absolute error"}
_WEIGHTINGS = {"sample": "mean over samples of means over components", "component": "mean over all components"}
#: Rows of the data table that are shown unfolded.
MAIN_ROWS = 20
#: What an irreps string of low degree means in words.
_IRREPS = {
    "0e": "a scalar, unchanged by rotation", "1o": "a vector", "1e": "an axial vector",
    "2e": "a symmetric traceless matrix", "0e+2e": "a symmetric matrix",
}  # fmt: skip
#: Milestone, a field of Crossings -> (its name, words where there is none).
_MILESTONES = {
    "start": ("start", "–"), "first": ("first ≤ 2 %", "never"), "last_above": ("last above 2 %", "never above"),
    "skilled": ("skilled crossing", "not reached"), "dip": ("dip (lowest)", "–"), "later_peak": ("later peak", "–"),
    "end": ("end", "–"),
}  # fmt: skip
_FIELDS = {name.partition(" (")[0]: field for field, (name, _) in _MILESTONES.items()}


def comparison(told: RunHistory, found: Crossings | None) -> list[Row]:
    """(what, this run, the paper): start, first and last crossing, dip, later peak, end.

    The paper's column comes from the reference's own ``table`` where a row has the same name, else from its points.
    Rows of that table with other names are added with an empty middle column.
    """
    theirs = _from_points(told, told.headline.probe) if told.headline is not None else {}
    others: list[Row] = []
    for what, value in told.run.reference.table:
        if (field := _FIELDS.get(str(what))) is None:
            others.append((str(what), "", str(value)))
        else:
            theirs[field] = str(value)
    if not theirs and not others:
        return []
    ours = _milestones(found)
    return [(name, ours.get(field, "–"), theirs.get(field, "–")) for field, (name, _) in _MILESTONES.items()] + others


def comparison_by_probe(told: RunHistory) -> list[Row]:
    """(probe, whose, start, first ≤ 2 %, dip, end), two rows for each probe of which the paper's curve is known."""
    rows: list[Row] = []
    for name, curve in told.curves.items():
        theirs = _from_points(told, name) if len(told.curves) > 1 else {}
        if theirs:
            ours = _milestones(crossings(curve), skill=False)
            for whose, values in (("this run", ours), ("paper", theirs)):
                rows.append((name, whose, *(values.get(key, "–") for key in ("start", "first", "dip", "end"))))
    return rows


def _milestones(found: Crossings | None, skill: bool = True) -> dict[str, str]:
    if found is None:
        return {}
    made = {field: (getattr(found, field), absent) for field, (_, absent) in _MILESTONES.items()}
    return {field: _place(one, skill and field != "start") if one else none for field, (one, none) in made.items()}


def _place(crossing: Crossing | None, skill: bool = False) -> str:
    return "–" if crossing is None else f"{_percent(crossing.percent)} at step {crossing_step(crossing, skill)}"


def _percent(value: float) -> str:
    """Two to three significant digits with the sign of percent."""
    return f"{percent(value)[0]} %" if math.isfinite(value) else "unknown"


def _from_points(told: RunHistory, probe: str) -> dict[str, str]:
    """Milestones of the paper's curve, read from its points."""
    points = style.reference_points(told, probe)
    if not len(points):
        return {}
    below = points[points[:, 1] <= THRESHOLD]
    # The paper calls dip the lowest point before its curve rises again; a curve that never does has its lowest.
    middle = points[1:-1][(points[1:-1, 1] < points[:-2, 1]) & (points[1:-1, 1] < points[2:, 1])]
    dip = min(middle if len(middle) else points, key=lambda point: point[1])
    after = points[points[:, 0] > dip[0]]
    rows = {"start": points[0], "end": points[-1], "dip": dip}
    if len(middle):
        rows["later_peak"] = after[after[:, 1].argmax()]
    if len(below):
        rows["first"] = below[0]
    return {key: f"{_percent(value)} at step {step:,.0f}" for key, (step, value) in rows.items()}


def probes(told: RunHistory) -> list[Row]:
    """(probe, final share, equivariance error, total loss, R², first ≤ 2 %, skilled crossing, dip) a probe."""
    rows: list[Row] = []
    for name in dict.fromkeys([*told.curves, *told.finals]):
        curve, final = told.curves.get(name), told.finals.get(name)
        found = crossings(curve) if curve is not None else None
        end = found.end if found else None
        result = final.result if final is not None else None
        share = share_text(result).replace("95 % interval ", "").replace(" (95 % upper limit)", "") if result else ""
        rows.append((
            name,
            share or _place(end),
            *((digits(result.equivariance), digits(result.total)) if result else ("–", "–")),
            _ability(result.r2, final.skill) if result and final else _ability(end.r2, end.skill) if end else "–",
            crossing_step(found.first if found else None).replace(" against the baseline", ""),
            crossing_step(found.skilled if found else None, skill=False),
            f"{_percent(found.dip.percent)} (step {found.dip.step:,})" if found and found.dip else "–",
        ))  # fmt: skip
    return rows


def _ability(value: float, skill: float) -> str:
    return r2(value) + (f" (skill {r2(skill)})" if math.isfinite(skill) else "")


def run_table(told: RunHistory) -> list[Row]:
    """What was run, on what, with which versions and how long it took."""
    run, times = told.run, told.times
    planned = f" of {told.planned_steps:,}" if told.planned_steps is not None else ""
    tracking = times["track"] / max(times["train"] + times["track"], 1e-9)
    return _known([
        ("task", run.task),
        ("model", run.model),
        ("parameters", text(run.parameters)),
        ("steps", f"{told.last_step:,}{planned}" + ("" if told.finished else " (not ended)")),
        ("device", text(run.device)),
        ("hardware", text(run.hardware)),
        ("training computes in", _arithmetic(run.computing)),
        ("measured in", _measured(run.computing)),
        ("threads", text(run.threads)),
        ("processes", text(run.processes)),
        ("started", moment(run.time)),
        ("restarts", str(told.resumes) if told.resumes else ""),
        ("training time", duration(times["train"])),
        ("tracking time", duration(times["track"])),
        ("GPU time", duration(times["gpu"])),
        ("tracking share", f"{100 * tracking:.0f} % of training and tracking" if math.isfinite(tracking) else ""),
        ("time in all", duration(times["wall"])),
        ("versions", ", ".join(f"{name} {version}" for name, version in run.versions.items())),
    ])  # fmt: skip


def _arithmetic(computing: Mapping[str, Any]) -> str:
    """Precision, float32 products and compilation of the steps; nothing where the run did not say."""
    if not computing:
        return ""
    backend = computing.get("compile")
    compiled = f"compiled by {backend}" if backend else "not compiled"
    return f"{computing.get('training')}, float32 products {computing.get('matmul')}, {compiled}"


def _measured(computing: Mapping[str, Any]) -> str:
    told = computing.get("measured") or {}
    found = [told[part] for part in ("track", "final") if part in told]
    return found[0] if len(set(found)) == 1 else ", ".join(f"{part} {told[part]}" for part in told)


def _known(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row[1] not in ("", "–")]


def data_table(told: RunHistory) -> tuple[list[Row], list[Row]]:
    """(counts, units and orientation; how it was made in detail) of the task's data, nested names joined by a dot."""
    facts = {key: value for key, value in told.data.items() if key not in {"n", "kind", "sha"}}
    told_of = {key: value for key, value in facts.items() if key not in _DETAILS}
    main: list[Row] = []
    for name, shown in flatten(_readable(told_of)):
        words, unit = _FACTS.get(name, (name, ""))
        main.append((words, f"{shown} {unit}".rstrip()))
    details = flatten({key: value for key, value in facts.items() if key in _DETAILS})
    # Whatever a task tells, its orientation is never among the rows that are folded away.
    if len(main) > MAIN_ROWS:
        main.sort(key=lambda row: not row[0].startswith("orientation"))
    return main[:MAIN_ROWS], [*main[MAIN_ROWS:], *details]


def _readable(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Ranges as "10 to 20", elements by their symbols, parts in words."""
    made = dict(facts)
    for name, what in (("atoms", "atoms of a molecule"), ("lengths", "residues of a chain")):
        ends = made.get(name)
        if isinstance(ends, list) and len(ends) == 2:
            made = {what if key == name else key: value for key, value in made.items()}
            made[what] = f"{text(ends[0])} to {text(ends[1])}"
    if isinstance(made.get("elements"), list):
        made["elements"] = ", ".join(SYMBOLS[int(z)] for z in made["elements"] if 0 < number(z) < len(SYMBOLS))
    for name in ("parts", "used"):
        if isinstance(made.get(name), Mapping):
            made[name] = {_PARTS.get(key, key): _counted(value) for key, value in made[name].items()}
    return made


def _counted(value: Any) -> str:
    """"3,200 frames, 320 molecules" of how many there are of each."""
    return ", ".join(f"{text(n)} {of}" for of, n in value.items()) if isinstance(value, Mapping) else text(value)


def rotation_table(told: RunHistory, result: Result) -> list[Row]:
    """What was rotated and how, of one measurement of a run."""
    unit = squared_unit(told)
    how = f"{text(result.cosets)} random cosets of the group " if result.cosets else ""
    how = "independent random rotations" if result.rotations == "haar" else f"{how}{result.rotations}"
    orientation = f"{text(result.orientation)} (0.333 three times is even)" if result.orientation else ""
    return _known([
        *((f"rotated: {name}", f"{irreps}{_in_words(irreps)}") for name, irreps in result.rotated.items()),
        ("centre of rotation", text(result.center)),
        ("held fixed", ", ".join(result.held_fixed) or "nothing"),
        ("symmetry claimed", text(result.group)),
        ("rotations", f"{how}: {text(result.passes)} per sample"),
        ("samples", f"{text(result.samples)} in {text(result.clusters)} independent clusters"),
        ("model calls", text(result.model_calls)),
        ("loss", f"{_LOSSES.get(result.loss, result.loss)}, {_WEIGHTINGS.get(result.weighting, result.weighting)}"),
        ("orientation of the data", orientation),
        ("total loss, averaged over rotations", f"{_fine(result.total)}{unit}"),
        ("loss on the data as given", f"{_fine(result.loss_as_given)}{unit}"),
        ("twirled loss", f"{_fine(result.twirled)}{unit}"),
        ("equivariance error", f"{text(result.equivariance)}{unit}"),
        ("numerical noise floor", f"{text(result.noise_floor)}{unit} ({text(result.noise_floor_percent)} %)"),
        ("equivariance error / mean |output|²", text(result.relative_equivariance)),
        ("mean of per-sample percents", f"{text(result.mean_of_ratios_percent)} % (another, biased quantity)"),
    ])  # fmt: skip


def _fine(value: float) -> str:
    """Five digits: the two parts of a loss differ in the third or later."""
    return digits(value) if not 1e-4 < abs(value) < 1e5 else minus(f"{value:.5g}")


def _in_words(irreps: str) -> str:
    words = _IRREPS.get(irreps.replace(" ", "").replace("1x", ""))
    return f" ({words})" if words else ""


def outputs_table(result: Result) -> list[Row]:
    """(output, percent of its own loss, its contribution to the headline, R², weight, loss); empty for one output."""
    if len(result.outputs) < 2:
        return []
    return [
        (name, _percent(one.percent), _percent(one.contribution_percent), r2(one.r2), text(one.weight), text(one.loss))
        for name, one in result.outputs.items()
    ]
