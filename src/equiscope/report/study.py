"""Studies in one page: for each its question, curves with bands over seeds, and a table beside the paper's figures.

The page is written twice: as HTML that holds all it shows, and as Markdown beside its pictures, to be committed.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equiscope import records as record_files
from equiscope.errors import EquiscopeError, InputError, IntegrityError
from equiscope.report import chart, efficiency, figures, paper, style
from equiscope.report.chart import Band, Chart, Panel, Series
from equiscope.report.crossings import ABLE, SKILL, THRESHOLD, Crossing, crossings, skilled, with_known_baseline
from equiscope.report.curves import Curve, RunHistory, read
from equiscope.report.page import data_uri, page_environment
from equiscope.report.style import log_axis
from equiscope.report.views import Measurement, Profile, view
from equiscope.words import as_csv, r2, raised

COLUMNS = (
    "point", "seeds", "parameters", "first ≤ 2 %", "last above 2 %", "sustained", "skilled crossing",
    "dip", "final percent", "final R²", "skill", "seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One place on a study's axis: the runs of its seeds, why others are missing, how far unfinished ones are."""

    name: str
    runs: tuple[RunHistory, ...]
    missing: tuple[str, ...]
    going: tuple[str, ...] = ()

    @property
    def curves(self) -> list[Curve]:
        return [curve for run in self.runs if (curve := _curve(run)) is not None]

    @property
    def finals(self) -> list[Measurement]:
        found = (run.finals.get(paper.told(run.run.task).probe) or run.headline_final for run in self.runs)
        return [final for final in found if final is not None]


def _curve(run: RunHistory) -> Curve | None:
    """Of the probe that decides (:attr:`paper.Told.probe`), where a run has it; else of its headline."""
    found = run.curves.get(paper.told(run.run.task).probe) or run.headline
    return None if found is None else with_known_baseline(found, run.run.task)


@dataclass(frozen=True)
class StudyRun:
    """A run in the record of a study; reason: why it is missing, empty for a finished one and one that is going on."""

    point: str
    seed: int
    folder: str
    reason: str
    status: str


@dataclass(frozen=True)
class StudyRecord:
    """A record of kind "study"."""

    task: str
    name: str
    question: str
    runs: tuple[StudyRun, ...]


@dataclass(frozen=True)
class Study:
    """A study as its records tell it; profile: what its models cost, where they were profiled."""

    record: StudyRecord
    points: tuple[Point, ...]
    profile: Profile | None = None


def load(folder: str | os.PathLike[str]) -> Study:
    """The newest state of a study.

    Raises:
        InputError: if the folder holds no study.
        IntegrityError: for damaged records, of the study or a run, or those of another form.
    """
    place = Path(folder)
    newest = {record["kind"]: record for record in record_files.read(place / "records.jsonl")}
    if "study" not in newest:
        raise InputError(f"{place} holds no study: its records have none")
    try:
        told = view(StudyRecord, newest["study"])
        profile = view(Profile, newest["profile"]) if "profile" in newest else None
    except (AttributeError, TypeError, ValueError) as error:
        said = "its records are not as this version writes them"
        raise IntegrityError(f"{place}: {said} ({error}); upgrade equiscope") from error
    names = dict.fromkeys(run.point for run in told.runs)
    return Study(told, tuple(_point(place, name, told.runs) for name in names), profile)


def _point(place: Path, name: str, runs: Sequence[StudyRun]) -> Point:
    """The runs of one point, from their folders."""
    histories, missing, going = [], [], []
    for run in (run for run in runs if run.point == name):
        folder, seed, still_open = place / run.folder, f"seed {run.seed}", run.status == "open"
        there = (folder / "records.jsonl").exists() if still_open else folder.is_dir()
        far = "not begun"
        if run.reason or not (there or still_open):
            missing.append(f"{seed}: {run.reason or f'its folder {run.folder} is gone'}")
        elif there:
            histories.append(read(folder))
            far = f"step {histories[-1].last_step:,} of {histories[-1].planned_steps or 0:,}"
        if still_open:
            going.append(f"{seed}: {far}")
    return Point(name, tuple(histories), tuple(missing), tuple(going))


def build(folders: Sequence[str | os.PathLike[str]]) -> Path:
    """Write ``TASK.html`` and ``TASK.md`` beside the folders of the studies, pictures and ``table.csv`` into each.

    Raises:
        InputError: for no folder, or studies of several tasks.
    """
    if not folders:
        raise InputError("give at least one study to report on")
    studies = [load(folder) for folder in folders]
    names = sorted({study.record.task for study in studies})
    if len(names) > 1:
        raise InputError(f"one page is of one task, got studies of {', '.join(names)}")
    parts = [_part(study, folder) for study, folder in zip(studies, map(Path, folders), strict=True)]
    target = Path(folders[0]).parent / f"{names[0]}.html"
    probes = sorted({curve.probe for study in studies for point in study.points for curve in point.curves})
    content = {"task": names[0], "probes": probes, "able": ABLE, "studies": parts, "columns": COLUMNS,
               "paper_columns": paper.COLUMNS}  # fmt: skip
    environment = page_environment()
    page = environment.get_template("study.html.j2").render(**content)
    record_files.write_atomically(target, page.encode())
    plain = environment.overlay(autoescape=False, finalize=None).get_template("study.md.j2").render(**content)
    record_files.write_atomically(target.with_suffix(".md"), plain.encode())
    return target


def _part(study: Study, folder: Path) -> dict[str, Any]:
    """What the page shows of a study; its pictures and table go into its folder."""
    rows, told = table(study), study.record
    record_files.write_atomically(folder / "table.csv", as_csv([COLUMNS, *rows]))
    picture = chart.save({"figure": draw(study)}, folder).get("figure")
    return {
        "name": told.name.replace("_", " "),
        "question": told.question,
        "verdict": verdict(study),
        "picture": None if picture is None else data_uri(picture),
        "image": None if picture is None else f"{folder.name}/{picture.name}",
        "rows": rows,
        "paper": paper.told(told.task).studies.get(told.name, ()),
        "missing": [f"{point.name}, {why}" for point in study.points for why in point.missing],
        "going": [f"{point.name}, {far}" for point in study.points for far in point.going],
        "refused": [f"{name} of {', '.join(dict.fromkeys(whose))}: {why}" for (name, why), whose in _refused(study)],
        "spent": spent([run for point in study.points for run in point.runs]),
        "band": "Lines: geometric mean over seeds; bands: lowest to highest seed."
        if any(len(point.curves) > 1 for point in study.points) else "One seed a point.",
        "costs": _costs(study, folder),
    }  # fmt: skip


def _refused(study: Study) -> list[tuple[tuple[str, str], list[str]]]:
    """(Analysis, why it cannot be had) and the points of the runs that cannot have it."""
    found: dict[tuple[str, str], list[str]] = {}
    for point in study.points:
        for one in (told for run in point.runs for told in run.refusals.items()):
            found.setdefault(one, []).append(point.name)
    return list(found.items())


def spent(runs: Sequence[RunHistory]) -> str:
    """Hours of each device that runs had it, side by side or alone; nothing where they do not say what it was."""
    parts = ("train", "track", "analyses")
    told = []
    for name in dict.fromkeys(run.run.hardware or "" for run in runs):
        own = [run for run in runs if run.run.hardware == name]
        sums = [sum(value for run in own if np.isfinite(value := run.times[part])) / 3600 for part in parts]
        on_gpu = any((run.run.device or "").startswith("cuda") for run in own)
        if name:
            train, track, analyses = (f"{hours:.2g}" for hours in sums)
            told.append(
                f"{sum(sums):.2g} {'GPU-hours' if on_gpu else 'hours'} of {name}: training {train}, measurements "
                f"{track}, analyses {analyses}"
            )
    return "; ".join(told) + (". Hours of runs side by side on one device all count." if told else "")


def _costs(study: Study, folder: Path) -> dict[str, Any] | None:
    """Costs and break-even of a study whose models were profiled."""
    profile = study.profile
    # A run that goes on is half annealed: its last loss is no end to be compared with those of others.
    curves = {point.name: {str(run.run.config.get("seed")): curve for run in point.runs
                           if run.finished and (curve := _curve(run)) is not None}
              for point in study.points}  # fmt: skip
    found = efficiency.contenders(curves, profile.costs) if profile is not None else []
    if profile is None or not found:
        return None
    against = profile.against if isinstance(profile.against, list | tuple) else (str(profile.against),)
    return {
        "picture": data_uri(chart.save({"costs": efficiency.chart(found)}, folder)["costs"]),
        "image": f"{folder.name}/costs.png",
        "columns": efficiency.COST_COLUMNS,
        "rows": efficiency.cost_rows(found),
        "even_columns": efficiency.EVEN_COLUMNS,
        "even": efficiency.break_even(found, against),
        "machine": f"{profile.device}, {profile.threads} thread(s), load "
        + ", ".join(f"{value:.1f}" for value in profile.load),
    }


def with_siblings(folders: Sequence[Path], order: Sequence[str]) -> list[Path]:
    """Every study of the same task beside these, in the order of their names given, so that one page shows them all.

    A sibling that cannot be read is left out, with a warning: its own command says what is wrong with it.
    """
    root, task = folders[0].parent, folders[0].name.partition("-")[0]
    found = []
    for place in (root / f"{task}-{name}" for name in order):
        if place in folders:
            found.append(place)
        elif (place / "records.jsonl").exists():
            try:
                load(place)
                found.append(place)
            except EquiscopeError as error:
                warnings.warn(f"{place} is left out of the page: {error}", stacklevel=2)
    return found


def table(study: Study) -> list[tuple[str, ...]]:
    """A row of :data:`COLUMNS` for each point: ranges over its seeds, mean ± standard deviation of final figures."""
    return [_row(point) for point in study.points]


def _row(point: Point) -> tuple[str, ...]:
    found, finals = [crossings(curve) for curve in point.curves], [final.result for final in point.finals]
    dips = [f.skilled_dip for f in found if f.skilled_dip is not None]
    # One run: its percent with the interval over samples; several: mean ± standard deviation over seeds.
    final = _mean([result.percent for result in finals], ".2g", " %")
    if len(finals) == 1:
        final += " [{}, {}]".format(*map(_two_digits, finals[0].percent_interval))
    return (
        point.name,
        str(len(point.runs)),
        ", ".join(f"{size:,}" for size in sorted({run.run.parameters or 0 for run in point.runs})),
        *(_steps([getattr(f, name) for f in found]) for name in ("first", "last_above", "sustained", "skilled")),
        f"{_span([dip.percent for dip in dips], _two_digits)} % at {_steps(dips)}" if dips else "none",
        final,
        _mean([result.r2 for result in finals], ",.3f"),
        _mean([final.skill for final in point.finals], ".2f"),
        _mean([run.times["train"] for run in point.runs], ",.0f"),
    )


def _steps(found: Sequence[Crossing | None]) -> str:
    """``411–681 (2 of 3)``: the range of steps, and how many seeds crossed where not all did."""
    steps = [crossing.step for crossing in found if crossing is not None]
    if not steps:
        return "none"
    text = _span(steps, "{:,}".format)
    return text if len(steps) == len(found) else f"{text} ({len(steps)} of {len(found)})"


def _span(values: Sequence[float], words: Callable[[float], str], form: str = "{}–{}") -> str:
    """The least and the largest of values, one where they read the same."""
    low, high = words(min(values)), words(max(values))
    return low if low == high else form.format(low, high)


def _two_digits(value: float) -> str:
    return raised(f"{value:.2g}")


def _mean(values: Sequence[float], form: str, unit: str = "") -> str:
    known = [v for v in values if np.isfinite(v)]
    if not known:
        return "–"
    spread = f" ± {raised(f'{np.std(known, ddof=1):{form}}')}" if len(known) > 1 else ""
    return f"{raised(f'{np.mean(known):{form}}')}{spread}{unit}"


def verdict(study: Study) -> str:
    """What the runs say to the study's question, in steps of the skilled crossing and the spread of final figures."""
    crossed = {p.name: [f.skilled for f in map(crossings, p.curves)] for p in study.points}
    steps = sorted(one.step for found in crossed.values() for one in found if one is not None)
    finals = [final for point in study.points for final in point.finals]
    if not steps:
        told = {"R²": [final.result.r2 for final in finals], "skill": [final.skill for final in finals]}
        known = {name: [value for value in values if np.isfinite(value)] for name, values in told.items()}
        ability = [f"{name} {_span(values, r2, 'between {} and {}')}" for name, values in known.items() if values]
        end = f" At the end {' and '.join(ability)}." if ability else ""
        return f"No run has a skilled crossing: under {THRESHOLD:g} % for good with {ABLE}.{end}"
    when = f"between steps {steps[0]:,} and {steps[-1]:,}" if steps[0] < steps[-1] else f"at step {steps[0]:,}"
    ends = [final.result.percent for final in finals if np.isfinite(final.result.percent)]
    spread = f"; final percents lie between {_two_digits(min(ends))} and {_two_digits(max(ends))}" if ends else ""
    unskilled = ", ".join(name for name, found in crossed.items() if None in found)
    words = f"Where a run gets under {THRESHOLD:g} % for good with {ABLE}, it does so {when}{spread}."
    return words + (f" Not there at the end: {unskilled}." if unskilled else "")


def draw(study: Study) -> Chart | None:
    """Percent and R² against step, one colour a point, bands over its seeds; None without a curve."""
    points = [point for point in study.points if point.curves]
    if not points:
        return None
    curves = [curve for point in points for curve in point.curves]
    axis = style.step_axis(np.concatenate([curve.step for curve in curves]))
    floor, top = style.percent_ends(curves, np.array([]))
    upper: list[Series | Band] = []
    lower: list[Series | Band] = []
    for point, colour in zip(points, style.COLOURS, strict=False):
        steps, percents, skills, able = _common(point.curves)
        shown, x, skills = np.maximum(percents, floor), axis.place(steps), np.maximum(skills, style.LOWEST_R2)
        middle, band = np.exp(np.log(shown).mean(0)), (shown.min(0), shown.max(0))
        upper += figures.skilled_curve(x, middle, band, np.asarray(able.all(0)), point.name, colour)
        lower += [Band(x, skills.min(0), skills.max(0), "", colour), Series(x, skills.mean(0), "", colour, "solid")]
    upper.append(figures.level(axis, THRESHOLD, f"{THRESHOLD:g} % line", style.INK))
    lower.append(figures.level(axis, SKILL, "", style.SKILLED))
    percent = log_axis("equivariance error,\npercent of the loss", floor, top, " %")
    rows = [[Panel(axis, y, series)] for y, series in ((percent, upper), (style.r2_axis(), lower))]
    return Chart(rows, (8.2, 6.4), heights=(2.6, 1.2), shared=True, legend=3)


def _common(curves: Sequence[Curve]) -> tuple[np.ndarray, ...]:
    """Steps that every curve was measured at, and (seeds, steps) percents, R² and whether a model is skilled there."""
    steps = np.array(sorted(set.intersection(*(set(c.step.tolist()) for c in curves))), dtype=int)
    places = [np.searchsorted(c.step, steps) for c in curves]
    values = ([of(c)[i] for c, i in zip(curves, places, strict=True)] for of in (
        lambda c: c.percent, lambda c: c.r2, skilled))  # fmt: skip
    return steps, *map(np.array, values)
