"""The tables of the report as rows of text: comparison with the paper, probes, run, data, what was rotated."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from typing import Any

from equiscope.report import style
from equiscope.report.crossings import Crossing, Crossings, crossings
from equiscope.report.curves import Curve, RunHistory, number
from equiscope.report.sentences import percent_text, share_text
from equiscope.report.style import r2_text

Row = tuple[str, ...]

#: What a task tells of its data that is of use only to who wants to make it again.
_DETAILS = {"config", "counts", "path", "reference_energies", "source", "versions"}
#: Rows of the data table that are shown unfolded.
MAIN_ROWS = 20

#: What an irreps string of low degree means in words.
_IRREPS = {
    "0e": "a scalar, unchanged by rotation",
    "1o": "a vector",
    "1e": "an axial vector",
    "2e": "a symmetric traceless matrix",
    "0e+2e": "a symmetric matrix",
}


def comparison(history: RunHistory, found: Crossings | None) -> list[Row]:
    """(what, this run, the paper): start, first and last crossing, dip, later peak, end.

    The paper's column comes from the reference's own ``table`` where it names the same thing, else from
    its points. Rows of that table which match nothing of ours are added with an empty middle column.
    """
    reference = history.run.get("reference") or {}
    curve = history.headline
    theirs = _from_points(history, curve.probe) if curve is not None else {}
    others: list[Row] = []
    for what, value in reference.get("table") or []:
        key = _key(str(what))
        if key is None:
            others.append((str(what), "", str(value)))
        else:
            theirs[key] = str(value)
    ours = _milestones(found)
    names = {
        "start": "start",
        "first": "first ≤ 2 %",
        "last": "last above 2 %",
        "skilled": "skilled crossing",
        "dip": "dip (lowest)",
        "peak": "later peak",
        "end": "end",
    }
    if not theirs and not others:
        return []
    rows: list[Row] = [(name, ours.get(key, "–"), theirs.get(key, "–")) for key, name in names.items()]
    return rows + others


def comparison_by_probe(history: RunHistory) -> list[Row]:
    """(probe, whose, start, first ≤ 2 %, dip, end), two rows for each probe of which the paper's curve is known."""
    rows: list[Row] = []
    if len(history.curves) < 2:
        return rows
    for name, curve in history.curves.items():
        theirs = _from_points(history, name)
        if theirs:
            ours = _milestones(crossings(curve), r2=False)
            for whose, values in (("this run", ours), ("paper", theirs)):
                rows.append((name, whose, *(values.get(key, "–") for key in ("start", "first", "dip", "end"))))
    return rows


def _milestones(found: Crossings | None, r2: bool = True) -> dict[str, str]:
    if found is None:
        return {}
    return {
        "start": _place(found.start),
        "first": _place(found.first, r2) if found.first else "never",
        "last": _place(found.last_above, r2) if found.last_above else "never above",
        "skilled": _place(found.skilled, r2) if found.skilled else "not reached",
        "dip": _place(found.dip, r2),
        "peak": _place(found.later_peak, r2),
        "end": _place(found.end, r2),
    }


def _place(crossing: Crossing | None, r2: bool = False) -> str:
    if crossing is None:
        return "–"
    skill = f" (R² {r2_text(crossing.r2)})" if r2 else ""
    return f"{_percent(crossing.percent)} at step {crossing.step:,}{skill}"


def _percent(value: float) -> str:
    """Two to three significant digits with the sign of percent."""
    if not math.isfinite(value):
        return "unknown"
    return f"{percent_text(value)[0]} %"


def _from_points(history: RunHistory, probe: str) -> dict[str, str]:
    """Milestones of the paper's curve, read from its points."""
    _, points = style.reference_points(history, probe)
    if not len(points):
        return {}
    below = points[points[:, 1] <= 2.0]
    # The paper calls dip the lowest point before its curve rises again; a curve that never does has its lowest.
    middle = points[1:-1][(points[1:-1, 1] < points[:-2, 1]) & (points[1:-1, 1] < points[2:, 1])]
    dip = min(middle if len(middle) else points, key=lambda point: point[1])
    after = points[points[:, 0] > dip[0]]
    rows = {"start": points[0], "end": points[-1], "dip": dip}
    if len(middle):
        rows["peak"] = after[after[:, 1].argmax()]
    if len(below):
        rows["first"] = below[0]
    return {key: f"{_percent(percent)} at step {step:,.0f}" for key, (step, percent) in rows.items()}


def _key(what: str) -> str | None:
    """Which milestone a free-text row of the paper's table means, None for another thing."""
    text = what.lower()
    for key, words in (("last", ("last above",)), ("peak", ("peak",)), ("start", ("start",)), ("dip", ("dip",)),
                       ("end", ("end",)), ("first", ("first",))):  # fmt: skip
        if any(text.startswith(word) or f" {word}" in text for word in words):
            # "first ≤ 5 %" is another crossing than ours of 2 %.
            return None if key == "first" and "2" not in text else key
    return None


def probes(history: RunHistory) -> list[Row]:
    """(probe, final share, equivariance error, total loss, R², first ≤ 2 %, skilled crossing, dip) a probe."""
    rows: list[Row] = []
    for name in dict.fromkeys([*history.curves, *history.finals]):
        curve: Curve | None = history.curves.get(name)
        found = crossings(curve) if curve is not None else None
        final = history.finals.get(name)
        result = final["result"] if final is not None else None
        share = share_text(result) if result else (_place(found.end) if found else "–")
        r2 = r2_text(number(result.get("r2"))) if result else (r2_text(found.end.r2) if found and found.end else "–")
        rows.append((
            name,
            share.replace("95 % interval ", "").replace(" (95 % upper limit)", ""),
            *(_loss((result or {}).get(key)) for key in ("equivariance", "total")),
            r2,
            _step(found.first if found else None, r2=True),
            _step(found.skilled if found else None, r2=False),
            _place(found.dip) if found else "–",
        ))  # fmt: skip
    return rows


def _loss(value: Any) -> str:
    """Three significant digits."""
    return "–" if value is None else f"{number(value):.3g}"


def _step(crossing: Crossing | None, r2: bool) -> str:
    if crossing is None:
        return "–"
    return f"{crossing.step:,}" + (f" (R² {r2_text(crossing.r2)})" if r2 else "")


def run_table(history: RunHistory) -> list[Row]:
    """What was run, on what, with which versions and how long it took."""
    run, times = history.run, history.times
    planned = f" of {history.planned_steps:,}" if history.planned_steps is not None else ""
    rows: list[Row] = [
        ("task", text(run.get("task"))),
        ("model", text(run.get("model"))),
        ("parameters", text(run.get("parameters"))),
        ("steps", f"{history.last_step:,}{planned}" + ("" if history.finished else " (not ended)")),
        ("device", text(run.get("device"))),
        ("threads", text(run.get("threads"))),
        ("processes", text(run.get("processes"))),
        ("started", moment(run.get("time"))),
        ("restarts", str(history.resumes) if history.resumes else ""),
        ("training time", duration(times["train"])),
        ("tracking time", duration(times["track"])),
        ("tracking share", f"{share:.0%} of training and tracking".replace("%", " %")
         if math.isfinite(share := times["track"] / max(times["train"] + times["track"], 1e-9)) else ""),
        ("time in all", duration(times["wall"])),
        ("versions", ", ".join(f"{name} {version}" for name, version in (run.get("versions") or {}).items())),
    ]  # fmt: skip
    return [row for row in rows if row[1] not in ("", "–")]


def data_table(history: RunHistory) -> tuple[list[Row], list[Row]]:
    """(counts, units and orientation; how it was made in detail) of the task's data, nested names joined by a dot."""
    skipped = {"n", "kind", "sha"}
    told = {key: value for key, value in history.data.items() if key not in skipped}
    main = flatten({key: value for key, value in told.items() if key not in _DETAILS})
    details = flatten({key: value for key, value in told.items() if key in _DETAILS})
    # Whatever a task tells, its orientation is never among the rows that are folded away.
    if len(main) > MAIN_ROWS:
        main.sort(key=lambda row: not row[0].startswith("orientation"))
    return main[:MAIN_ROWS], [*main[MAIN_ROWS:], *details]


def config_table(history: RunHistory) -> list[Row]:
    """The resolved configuration of the run, nested names joined by a dot."""
    return flatten(history.run.get("config") or {})


def flatten(value: Mapping[str, Any], prefix: str = "") -> list[Row]:
    """(dotted name, text) of every leaf of nested dicts."""
    rows: list[Row] = []
    for key, item in value.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(item, Mapping):
            rows.extend(flatten(item, f"{name} · "))
        else:
            rows.append((name, text(item)))
    return rows


def rotation_table(result: Mapping[str, Any]) -> list[Row]:
    """What was rotated and how, of one measurement."""
    rotated = result.get("rotated") or {}
    fixed = result.get("held_fixed") or []
    orientation = result.get("orientation")
    how = {"haar": "independent random rotations"}.get(str(result.get("rotations")))
    cosets = result.get("cosets")
    if how is None:
        group = text(result.get("rotations"))
        how = f"{cosets} random cosets of the group {group}" if cosets else group
    rows = [
        *((f"rotated: {name}", f"{irreps}{_in_words(str(irreps))}") for name, irreps in rotated.items()),
        ("centre of rotation", text(result.get("center"))),
        ("held fixed", ", ".join(map(str, fixed)) if fixed else "nothing"),
        ("symmetry claimed", text(result.get("group"))),
        ("rotations", f"{how}: {text(result.get('passes'))} per sample"),
        ("samples", f"{text(result.get('samples'))} in {text(result.get('clusters'))} independent clusters"),
        ("model calls", text(result.get("model_calls"))),
        ("loss", f"{text(result.get('loss'))}, weighted by {text(result.get('weighting'))}"),
        ("orientation of the data", f"{text(orientation)} (0.333 three times is even)" if orientation else ""),
        ("total loss, averaged over rotations", text(result.get("total"))),
        ("loss on the data as given", text(result.get("loss_as_given"))),
        ("twirled loss", text(result.get("twirled"))),
        ("equivariance error", text(result.get("equivariance"))),
        ("numerical noise floor", f"{text(result.get('noise_floor'))} ({text(result.get('noise_floor_percent'))} %)"),
        ("equivariance error / mean |output|²", text(result.get("relative_equivariance"))),
        ("mean of per-sample percents", f"{text(result.get('mean_of_ratios_percent'))} % (another, biased quantity)"),
    ]
    return [row for row in rows if row[1] and row[1] != "–"]


def _in_words(irreps: str) -> str:
    words = _IRREPS.get(irreps.replace(" ", "").replace("1x", ""))
    return f" ({words})" if words else ""


def outputs_table(result: Mapping[str, Any]) -> list[Row]:
    """(output, percent of its own loss, its contribution to the headline, R², weight, loss); empty for one output."""
    outputs = result.get("outputs") or {}
    if len(outputs) < 2:
        return []
    rows: list[Row] = []
    for name, output in outputs.items():
        shares = [_percent(number(output.get(key))) for key in ("percent", "contribution_percent")]
        declared = [text(output.get(key)) for key in ("weight", "loss")]
        rows.append((name, *shares, r2_text(number(output.get("r2"))), *declared))
    return rows


def text(value: Any) -> str:
    """A value as a reader wants it: thousands separated, three significant digits, long lists cut."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if not math.isfinite(value):
            return "–"
        if value == int(value) and abs(value) < 1e6:
            return f"{int(value):,}"
        mantissa, _, exponent = f"{value:.3g}".partition("e")
        return (f"{mantissa} × {style.power(10.0 ** int(exponent))}" if exponent else mantissa).replace("-", "−")
    if isinstance(value, list | tuple):
        shown = [text(item) for item in value[:12]]
        return ", ".join([*shown, f"… ({len(value)} in all)"] if len(value) > 12 else shown) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {text(item)}" for key, item in value.items())
    return str(value)


def duration(seconds: float) -> str:
    """38 s, 4 min 36 s, 2 h 5 min; empty for NaN."""
    if not math.isfinite(seconds):
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.3g} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def moment(value: Any) -> str:
    """A record's time (seconds since 1970, or text) as date and time, UTC."""
    if isinstance(value, int | float):
        return datetime.datetime.fromtimestamp(value, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return "" if value is None else str(value).replace("T", " ").replace("+00:00", " UTC")
