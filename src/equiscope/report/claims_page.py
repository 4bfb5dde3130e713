"""The paper's report: one page through the claims of its abstract, our numbers beside its numbers, a plain verdict.

Its figures are single-column panels in a publication style, each as PNG and PDF.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from equiscope import tasks
from equiscope.report import authors, chart, paper, style
from equiscope.report.chart import Band, Chart, Panel, Series
from equiscope.report.claims import Claim, claims
from equiscope.report.crossings import SKILL, THRESHOLD, skilled
from equiscope.report.evidence import AGREES, DIFFERS, EQUAL, MISSING, UNDECIDED, Evidence, Row, Run, gather
from equiscope.report.figures import level, skilled_curve
from equiscope.report.page import data_uri, page_environment
from equiscope.report.sentences import share_text
from equiscope.report.style import Axis, log_axis
from equiscope.report.views import Record
from equiscope.words import as_csv, r2
from equiscope.writing import inner_folder, write_atomically

#: How each verdict looks on the page.
CLASSES = {AGREES: "agrees", DIFFERS: "differs", EQUAL: "equal", UNDECIDED: "open", MISSING: "missing"}
RUN_COLUMNS = ("task", "run", "model", "parameters", "steps", "share of the loss at the end", "R²", "symmetric")
_CURVE = ("percent", "low", "high", "r2", "total", "twirled", "equivariance", "floor")
#: A journal's column in inches; text of 8 points then stays readable on a phone, where a panel fills the width.
WIDTH, HEIGHT = 3.4, 2.7
#: Rows of a claim with the same task and verdict that are open from the start; the rest can be unfolded.
ALIKE = 3
#: Most runs drawn in one panel; the rest are in the table.
MOST = len(style.COLOURS) - 1


def build_paper(folders: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> Path:
    """Write ``paper.html``, ``figures/*.png`` and ``.pdf``, ``tables/*.csv`` into ``out``; the path of the page.

    Everything comes from the records of the runs, and the page holds all it shows: no network, no other file.

    Args:
        folders: of the runs, and of studies.
        out: the folder that is written.

    Raises:
        InputError: if no run has measurements.
        IntegrityError: for damaged records.
        RunError: if a folder in ``out`` is a link.
    """
    evidence, place = gather(folders), Path(out)
    found = claims(evidence, authors.judged())
    panels = save_figures(evidence, place / "figures")
    folder = inner_folder(place / "tables")
    for name, rows in _tables(evidence, found).items():
        write_atomically(folder / f"{name}.csv", as_csv(rows))
    page = page_environment().get_template("paper.html.j2").render(**_content(evidence, found, panels))
    target = place / "paper.html"
    write_atomically(target, page.encode())
    return target


def _parted(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The rows in the order in which they weigh, and of those the ones beyond :data:`ALIKE` of a task and verdict."""
    order = (DIFFERS, AGREES, EQUAL, "", UNDECIDED)
    ranked = sorted(rows, key=lambda row: order.index(row.verdict) if row.verdict in order else len(order))
    seen: Counter[tuple[str, str]] = Counter()
    shown: list[Row] = []
    more: list[Row] = []
    for row in ranked:
        seen[row.task, row.verdict] += 1
        (shown if seen[row.task, row.verdict] <= ALIKE else more).append(row)
    return shown, more


def _content(evidence: Evidence, found: Sequence[Claim], panels: Sequence[PaperFigure]) -> dict[str, Any]:
    titles = {task: tasks.words(task).title for task in paper.TASKS}
    return {
        "claims": found,
        "look": lambda verdict: CLASSES.get(verdict.partition(":")[0], "open"),
        "told": lambda verdict: _with_titles(verdict, titles),
        "parted": _parted,
        "source": authors.data(),
        "tasks": titles,
        "panels": {one.key: [(p, data_uri(p.png)) for p in panels if p.claim == one.key] for one in found},
        "run_columns": RUN_COLUMNS,
        "runs": run_rows(evidence),
        "left_out": evidence.left_out,
        "absent": [words for task, words in titles.items() if not evidence.of(task, None)],
    }


def _with_titles(verdict: str, titles: dict[str, str]) -> str:
    """A verdict with the titles of its tasks: at most three of them, else two and how many more."""
    word, colon, names = verdict.partition(": ")
    if not colon:
        return verdict
    told = [", ".join(titles.get(part, part) for part in name.split(", ")) for name in names.split("; ")]
    most = 3 if len(told) == 3 else 2
    return f"{word}: {'; '.join(told[:most])}{f' and {len(told) - most} more' if len(told) > most else ''}"


def run_rows(evidence: Evidence) -> list[tuple[str, ...]]:
    """A row of :data:`RUN_COLUMNS` for each run."""
    return [
        (run.task, run.short, run.model, f"{run.parameters:,}", f"{run.last_step:,}", share_text(run.result),
         r2(run.result.r2), "yes" if run.symmetric else "no")
        for run in evidence.runs
    ]  # fmt: skip


def _tables(evidence: Evidence, found: Sequence[Claim]) -> dict[str, list[tuple[Any, ...]]]:
    """name -> rows of a CSV file, the names of its columns first."""
    curves = [
        (run.task, run.name, name, int(step), *map(float, values))
        for run in evidence.runs
        for name, curve in run.told.curves.items()
        for step, *values in zip(curve.step, *(getattr(curve, column) for column in _CURVE), strict=True)
    ]
    columns = ("claim", "title", *(field.name for field in fields(Row)))
    return {
        "claims": [columns, *((one.key, one.title, *astuple(row)) for one in found for row in one.rows)],
        "authors": [columns, *((one.key, one.title, *astuple(row)) for one in found for row in one.authors)],
        "verdicts": [
            ("claim", "title", "verdict", "summary", "runs that would decide it", "verdict on the authors' curves"),
            *((claim.key, claim.title, claim.verdict, claim.summary, "; ".join(claim.missing), claim.authors_verdict)
              for claim in found),
        ],
        "runs": [RUN_COLUMNS, *run_rows(evidence)],
        "curves": [("task", "run", "probe", "step", *_CURVE), *curves],
    }


@dataclass(frozen=True)
class PaperFigure:
    """A drawn figure: its file's stem, the claim it belongs to, what it shows in words."""

    name: str
    claim: str
    caption: str
    png: Path
    pdf: Path


def save_figures(evidence: Evidence, folder: Path, dpi: int = 220) -> list[PaperFigure]:
    """Draw every panel for which there are runs into ``folder``."""
    drawings: dict[str, Chart | None] = {}
    told: dict[str, tuple[str, str]] = {}
    for task in paper.TASKS:
        learning, title = shown(evidence.of(task)), tasks.words(task).title
        both = shown([*evidence.of(task), *evidence.of(task, True)]) if evidence.of(task, True) else []
        crosses = " Crosses: the paper." if learning and len(_paper(learning[0])) else ""
        probe = f", on the probe “{paper.TASKS[task].probe}”" if paper.TASKS[task].probe else ""
        for name, claim, draw, runs, caption in (
            ("percent", "quick", _percent, learning,
             f"share of the held-out loss{probe}. Hollow: R² under {SKILL:g}, or a loss over the baseline’s.{crosses}"),
            ("size", "robust", _sizes, _sized(learning),
             "step of the skilled crossing against the number of parameters."),
            ("penalty", "penalty", _penalty, learning[:1],
             f"the loss{probe}, and the part of it that is equivariance error."),
            ("seconds", "efficiency", _seconds, both,
             "held-out loss against training seconds. Dashed: symmetric by construction."),
        ):  # fmt: skip
            size = (WIDTH, HEIGHT + 0.13 * len(runs))
            drawings[f"{name}-{task}"] = Chart([[draw(runs)]], size, legend=1) if runs else None
            told[f"{name}-{task}"] = claim, f"{title[0].upper()}{title[1:]}: {caption}"
    for name, drawn in _extra(evidence).items():
        drawings[name] = None
        if drawn is not None:
            claim, panel, caption = drawn
            size = (WIDTH, HEIGHT + 0.13 * len(panel.series))
            drawings[name], told[name] = Chart([[panel]], size, legend=1), (claim, caption)
    paths = chart.save(drawings, folder, dpi, style.PRINT, ("png", "pdf"))
    return [PaperFigure(name, *told[name], path, path.with_suffix(".pdf")) for name, path in paths.items()]


def shown(runs: Sequence[Run]) -> list[Run]:
    """The longest runs, at most as many as there are colours."""
    return sorted(runs, key=lambda run: -run.last_step)[:MOST]


def _sized(runs: Sequence[Run]) -> list[Run]:
    crossed = [run for run in runs if run.found.skilled is not None and run.parameters]
    return crossed if len({run.parameters for run in crossed}) > 1 else []


def _paper(run: Run) -> np.ndarray:
    return style.reference_points(run.told, run.curve.probe)


def _label(run: Run) -> str:
    return f"{run.short}: {run.model}"


def _percent(runs: Sequence[Run]) -> Panel:
    """Percent against step, log-log, with the paper's points and the 2 % line."""
    points, curves = _paper(runs[0]), [run.shown for run in runs]
    axis = style.step_axis(np.concatenate([*(curve.step for curve in curves), points[:, 0]]))
    floor, top = style.percent_ends(curves, points[:, 1])
    series: list[Series | Band] = [level(axis, THRESHOLD, "", style.LIMIT)]
    for colour, run, curve in zip(style.COLOURS, runs, curves, strict=False):
        drawn, x = style.clipped(curve, floor), axis.place(curve.step)
        band = drawn.low, drawn.high
        series += skilled_curve(x, drawn.percent, band, skilled(curve), _label(run), colour, 3, 1.2)
    if len(points):
        label = runs[0].told.run.reference.label
        series.append(Series(points[:, 0], points[:, 1], label, style.PAPER, "dot", "x-thin", size=4.5, width=0.9))
    return Panel(axis, log_axis("equivariance error, % of loss", floor, top, " %"), series)


def _sizes(runs: Sequence[Run]) -> Panel:
    series = []
    for colour, model in zip(style.COLOURS, dict.fromkeys(run.model for run in runs), strict=False):
        own = [(run.parameters, run.found.skilled.step) for run in runs if run.model == model and run.found.skilled]
        x, y = np.array(own, dtype=float).T
        series.append(Series(x, y, model, colour, mark="circle"))
    return Panel(Axis("parameters", True), Axis("step of the skilled crossing", True), series)


def _penalty(runs: Sequence[Run]) -> Panel:
    (run,) = runs
    axis, curve = style.step_axis(run.shown.step), run.shown
    series = [
        Series(axis.place(curve.step), np.where(values > 0, values, np.nan), name, colour, line, "circle", size=2,
               width=1.2)
        for values, name, colour, line in (
            (curve.total, "total loss", style.OURS, "solid"),
            (curve.twirled, "twirled loss", style.INK, "dash"),
            (curve.equivariance, "equivariance error", style.EQUIVARIANCE, "solid"),
        )
    ]  # fmt: skip
    return Panel(axis, Axis(f"held-out loss\n({_label(run)})", True), series)


def _seconds(runs: Sequence[Run]) -> Panel:
    series = []
    for colour, run in zip(style.COLOURS, runs, strict=False):
        seconds, line = run.told.seconds, "dash" if run.symmetric else "solid"
        x, y = seconds[seconds > 0], run.curve.total[seconds > 0]
        series.append(Series(x, y, _label(run), colour, line, "circle", size=2.5))
    return Panel(Axis("training seconds on the machine of the runs", True), Axis("held-out total loss", True), series)


def _extra(evidence: Evidence) -> dict[str, tuple[str, Panel, str] | None]:
    """name -> (claim, panel, caption) of the paper's other figures: the end against flow time, related pairs.

    None where there are no runs for one.
    """
    found: dict[str, tuple[str, Panel, str] | None] = {}
    for task in paper.TASKS:
        title = tasks.words(task).title
        title = title[0].upper() + title[1:]
        timed = [run for run in shown(evidence.of(task)) if len(_times(run)) > 1]
        ended = "penalty", _by_time(timed), f"{title}: share of the loss at the end of the run."
        found[f"times-{task}"] = ended if timed else None
        related = [(run, record) for run, record in evidence.newest("relations")
                   if run.task == task and record.get("second")]  # fmt: skip
        for pair in paper.OWN_PAIRS:
            own = [(run, record) for run, record in related if record["pair"] == pair][: len(style.RAMP)]
            stem = "-".join(pair.replace("~", "").split())
            caption = f"{title}: {pair}, a point for each analysed step after the first."
            found[f"{stem}-{task}"] = ("relations", _scatter(pair, own), caption) if own else None
    return found


def _times(run: Run) -> dict[float, float]:
    """Flow time -> percent at the end, of the probes of single times."""
    return {
        float(name[2:]): final.result.percent
        for name, final in sorted(run.told.finals.items()) if name.startswith("t=")
    }  # fmt: skip


def _by_time(runs: Sequence[Run]) -> Panel:
    series = [
        Series(list(_times(run)), list(_times(run).values()), _label(run), colour, "solid", "circle", size=3)
        for colour, run in zip(style.COLOURS, runs, strict=False)
    ]
    return Panel(Axis("flow time t"), Axis("equivariance error at the end,\n% of loss", True), series)


def _scatter(pair: str, found: Sequence[tuple[Run, Record]]) -> Panel:
    """A colour a run and probe, which is named where the probes differ: flow times, as the paper draws them."""
    upper, lower = pair.split(" ~ ")
    series = []
    runs, probes = ({of(one) for one in found} for of in (lambda one: one[0].name, lambda one: one[1]["probe"]))
    for colour, (run, record) in zip(style.colours(len(found)), found, strict=False):
        points = [(x, y) for x, y in zip(record["second"], record["first"], strict=True)
                  if x is not None and y is not None and x > 0 and y > 0]  # fmt: skip
        if points:
            x, y = np.array(points[1:] or points, dtype=float).T
            told = [_label(run)] if len(runs) > 1 or len(probes) == 1 else []
            told += [str(record["probe"])] if len(probes) > 1 else []
            series.append(Series(x, y, ", ".join(told), colour, mark="circle", size=3))
    return Panel(Axis(lower, True), Axis(upper, True), series)
