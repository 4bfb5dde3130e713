"""Studies in one page: for each its question, curves with bands over seeds, and a table beside the paper's figures.

The page is written twice: as HTML that holds all it shows, and as Markdown beside its pictures, to be committed.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from equiscope import records as record_files
from equiscope.errors import EquiscopeError, InputError
from equiscope.records import Record
from equiscope.report import efficiency, figures, style
from equiscope.report.crossings import SKILL, THRESHOLD, Crossing, crossings
from equiscope.report.curves import Curve, RunHistory, history, number
from equiscope.report.page import data_uri, page_environment
from equiscope.report.paper_studies import COLUMNS as PAPER_COLUMNS
from equiscope.report.paper_studies import PAPER

COLOURS = (style.OURS, style.LIMIT, style.SKILLED, style.PURPLE, "#E69F00", style.TWIRLED, style.GREY)
COLUMNS = (
    "point", "seeds", "parameters", "first ≤ 2 %", "last above 2 %", "sustained", "skilled crossing",
    "dip", "final percent", "final R²", "seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One place on a study's axis: the finished runs of its seeds, and why others are missing."""

    name: str
    runs: tuple[RunHistory, ...]
    missing: tuple[str, ...]

    @property
    def curves(self) -> list[Curve]:
        return [curve for run in self.runs if (curve := run.headline) is not None]


@dataclass(frozen=True)
class Study:
    """A study as its records tell it."""

    record: Record
    points: tuple[Point, ...]
    profile: Record | None = None

    @property
    def name(self) -> str:
        return str(self.record["name"])


def load(folder: str | os.PathLike[str]) -> Study:
    """The newest state of a study.

    Raises:
        InputError: if the folder holds no study.
        IntegrityError: for damaged records, of the study or a run.
    """
    place = Path(folder)
    book = record_files.read(place / "records.jsonl")
    told = [r for r in book if r["kind"] == "study"]
    if not told:
        raise InputError(f"{place} holds no study: its records have none")
    names = dict.fromkeys(str(run["point"]) for run in told[-1]["runs"])
    profile = next((r for r in reversed(book) if r["kind"] == "profile"), None)
    return Study(told[-1], tuple(_point(place, name, told[-1]["runs"]) for name in names), profile)


def _point(place: Path, name: str, runs: Sequence[Record]) -> Point:
    own = [run for run in runs if str(run["point"]) == name]
    done = [history(record_files.read(place / run["folder"] / "records.jsonl")) for run in own if not run["reason"]]
    missing = [f"seed {run['seed']}: {run['reason']}" for run in own if run["reason"]]
    return Point(name, tuple(done), tuple(missing))


def build(folders: Sequence[str | os.PathLike[str]]) -> Path:
    """Write ``TASK.html`` and ``TASK.md`` beside the folders of the studies, pictures and ``table.csv`` into each.

    Raises:
        InputError: for no folder, or studies of several tasks.
    """
    if not folders:
        raise InputError("give at least one study to report on")
    studies = [load(folder) for folder in folders]
    tasks = {str(study.record["task"]) for study in studies}
    if len(tasks) > 1:
        raise InputError(f"one page is of one task, got studies of {', '.join(sorted(tasks))}")
    parts = []
    for study, folder in zip(studies, map(Path, folders), strict=True):
        rows = table(study)
        _write_csv(folder / "table.csv", rows)
        picture = draw(study, folder / "figure.png")
        parts.append(
            {
                "name": study.name.replace("_", " "),
                "question": study.record.get("question") or "",
                "verdict": verdict(study),
                "picture": None if picture is None else data_uri(picture),
                "image": None if picture is None else f"{folder.name}/{picture.name}",
                "rows": rows,
                "paper": PAPER.get(str(study.record["task"]), {}).get(study.name, ()),
                "missing": [f"{point.name}, {why}" for point in study.points for why in point.missing],
                "band": _band_words(study),
                "costs": _costs(study, folder),
            }
        )
    task = tasks.pop()
    target = Path(folders[0]).parent / f"{task}.html"
    content = {"task": task, "studies": parts, "columns": COLUMNS, "paper_columns": PAPER_COLUMNS}
    environment = page_environment()
    page = environment.get_template("study.html.j2").render(**content)
    record_files.write_atomically(target, page.encode())
    plain = environment.overlay(autoescape=False, finalize=None).get_template("study.md.j2").render(**content)
    record_files.write_atomically(target.with_suffix(".md"), plain.encode())
    return target


def _costs(study: Study, folder: Path) -> dict[str, Any] | None:
    """Costs and break-even of a study whose models were profiled."""
    if study.profile is None:
        return None
    curves = {point.name: point.curves[0] for point in study.points if point.curves}
    found = efficiency.contenders(curves, study.profile["costs"])
    if not found:
        return None
    return {
        "picture": data_uri(efficiency.draw(found, folder / "costs.png")),
        "image": f"{folder.name}/costs.png",
        "columns": efficiency.COST_COLUMNS,
        "rows": efficiency.cost_rows(found),
        "even_columns": efficiency.EVEN_COLUMNS,
        "even": efficiency.break_even(found, _names(study.profile.get("against"))),
        "machine": f"{study.profile['device']}, {study.profile['threads']} thread(s), load "
        + ", ".join(f"{value:.1f}" for value in study.profile["load"]),
    }


def _names(value: Any) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (str(value),)


def with_siblings(folders: Sequence[Path], order: Sequence[str]) -> list[Path]:
    """Every study of the same task beside these, in the order of their names given, so that one page shows them all.

    A sibling that cannot be read is left out, with a warning: its own command says what is wrong with it.
    """
    root, task = folders[0].parent, folders[0].name.partition("-")[0]
    found = []
    for place in (root / f"{task}-{name}" for name in order):
        if place not in folders:
            if not (place / "records.jsonl").exists():
                continue
            try:
                load(place)
            except EquiscopeError as error:
                warnings.warn(f"{place} is left out of the page: {error}", stacklevel=2)
                continue
        found.append(place)
    return found


def table(study: Study) -> list[tuple[str, ...]]:
    """A row of :data:`COLUMNS` for each point: ranges over its seeds, mean ± standard deviation of final figures."""
    return [_row(point) for point in study.points]


def _row(point: Point) -> tuple[str, ...]:
    found = [crossings(curve) for curve in point.curves]
    finals = [run.headline_final["result"] for run in point.runs if run.headline_final is not None]
    sizes = sorted({int(run.run.get("parameters") or 0) for run in point.runs})
    seconds = [run.times["train"] for run in point.runs if "train" in run.times]
    return (
        point.name,
        str(len(point.runs)),
        ", ".join(f"{size:,}" for size in sizes),
        *(_steps([getattr(f, name) for f in found]) for name in ("first", "last_above", "sustained", "skilled")),
        _dips([f.skilled_dip for f in found]),
        _final([number(r["percent"]) for r in finals], finals, " %"),
        _mean([number(r["r2"]) for r in finals], 3),
        _mean(seconds, 0),
    )


def _steps(found: Sequence[Crossing | None]) -> str:
    """``411–681 (2 of 3)``: the range of steps, and how many seeds crossed where not all did."""
    steps = sorted(c.step for c in found if c is not None)
    if not steps:
        return "none"
    text = f"{steps[0]:,}" if steps[0] == steps[-1] else f"{steps[0]:,}–{steps[-1]:,}"
    return text if len(steps) == len(found) else f"{text} ({len(steps)} of {len(found)})"


def _dips(found: Sequence[Crossing | None]) -> str:
    known = [c for c in found if c is not None]
    if not known:
        return "none"
    return f"{_range([c.percent for c in known])} % at {_steps(known)}"


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.2g}", f"{max(values):.2g}"
    return low if low == high else f"{low}–{high}"


def _final(values: Sequence[float], results: Sequence[Any], unit: str) -> str:
    """One run: its percent with the interval over samples; several: mean ± standard deviation over seeds."""
    if len(values) != 1:
        return _mean(values, None, unit)
    low, high = results[0]["percent_interval"]
    return f"{values[0]:.2g}{unit} [{number(low):.2g}, {number(high):.2g}]"


def _mean(values: Sequence[float], decimals: int | None, unit: str = "") -> str:
    known = [v for v in values if np.isfinite(v)]
    if not known:
        return "–"
    form = ".2g" if decimals is None else f",.{decimals}f"
    text = f"{np.mean(known):{form}}"
    return f"{text} ± {np.std(known, ddof=1):{form}}{unit}" if len(known) > 1 else f"{text}{unit}"


def verdict(study: Study) -> str:
    """What the runs say to the study's question, in steps of the skilled crossing and the spread of final figures."""
    steps, spread, unskilled = [], [], []
    for point in study.points:
        found = [crossings(curve) for curve in point.curves]
        skilled = [f.skilled.step for f in found if f.skilled is not None]
        steps += skilled
        spread += [number(r.headline_final["result"]["percent"]) for r in point.runs if r.headline_final is not None]
        if len(skilled) < len(found):
            unskilled.append(point.name)
    if not steps:
        return f"No run has a skilled crossing: under {THRESHOLD:g} % with R² ≥ {SKILL:g} from some step on."
    when = f"between steps {min(steps):,} and {max(steps):,}" if min(steps) < max(steps) else f"at step {steps[0]:,}"
    words = (
        f"Where a run gets under {THRESHOLD:g} % for good with R² ≥ {SKILL:g}, it does so {when}; "
        f"final percents lie between {min(spread):.2g} and {max(spread):.2g}."
    )
    return words + (f" Not there at the end: {', '.join(unskilled)}." if unskilled else "")


def _band_words(study: Study) -> str:
    most = max((len(point.curves) for point in study.points), default=0)
    return "Lines: geometric mean over seeds; bands: lowest to highest seed." if most > 1 else "One seed a point."


def draw(study: Study, path: Path, dpi: int = 150) -> Path | None:
    """Percent and R² against step, one colour a point, bands over its seeds; None without a curve."""
    points = [point for point in study.points if point.curves]
    if not points:
        return None
    with matplotlib.rc_context(figures.STYLE):
        figure = Figure(figsize=(8.2, 6.4), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2.6, 1.2])
        curves = [curve for point in points for curve in point.curves]
        axis, floor = style.step_axis(np.concatenate([c.step for c in curves])), style.percent_floor(curves)
        for point, colour in zip(points, COLOURS, strict=False):
            steps, percents, skills = _common(point.curves)
            shown, x = np.maximum(percents, floor), axis.place(steps)
            middle = np.exp(np.log(shown).mean(0))
            upper.fill_between(x, shown.min(0), shown.max(0), color=colour, alpha=0.18, lw=0)
            upper.plot(x, middle, color=colour, lw=1.8, label=point.name)
            skilled = skills.min(0) >= SKILL
            upper.plot(x[skilled], middle[skilled], "o", color=colour, ms=5)
            upper.plot(x[~skilled], middle[~skilled], "o", mfc="white", mec=colour, ms=5)
            lower.fill_between(x, np.maximum(skills.min(0), -0.5), np.maximum(skills.max(0), -0.5), color=colour,
                               alpha=0.18, lw=0)  # fmt: skip
            lower.plot(x, np.maximum(skills.mean(0), -0.5), color=colour, lw=1.8)
        upper.axhline(THRESHOLD, color=style.INK, ls=(0, (5, 3)), lw=1.2, label=f"{THRESHOLD:g} % line")
        lower.axhline(SKILL, color=style.SKILLED, ls=(0, (5, 3)), lw=1.2)
        upper.set(yscale="log", ylabel="equivariance error,\npercent of the loss", ylim=(floor * 0.85, None))
        lower.set(ylim=(-0.55, 1.05), ylabel="R²", xlabel="training step")
        for axes in (upper, lower):
            figures.step_ticks(axes, axis)
        figure.legend(*upper.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        FigureCanvasAgg(figure)
        figure.savefig(path, dpi=dpi, facecolor="white")
    return path


def _common(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps that every curve was measured at, and (seeds, steps) percents and R² there."""
    steps = np.array(sorted(set.intersection(*(set(c.step.tolist()) for c in curves))), dtype=int)
    places = [np.searchsorted(c.step, steps) for c in curves]
    percents = np.array([c.percent[i] for c, i in zip(curves, places, strict=True)])
    return steps, percents, np.array([c.r2[i] for c, i in zip(curves, places, strict=True)])


def _write_csv(path: Path, rows: Sequence[Sequence[str]]) -> None:
    import csv
    import io

    text = io.StringIO()
    csv.writer(text).writerows([COLUMNS, *rows])
    record_files.write_atomically(path, text.getvalue().encode())

