"""The figures of the paper's report: single-column panels in a publication style, each as PNG and PDF."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from equiscope.report import style
from equiscope.report.beside import COLOURS
from equiscope.report.crossings import SKILL, THRESHOLD
from equiscope.report.evidence import TASKS, Evidence, Run
from equiscope.report.figures import STYLE

#: A journal's column in inches; text of 8 points then stays readable on a phone, where a panel fills the width.
WIDTH, HEIGHT = 3.4, 2.7
_PRINT: dict[Any, Any] = {
    **STYLE,
    "font.size": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7,
    "axes.linewidth": 0.7,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    # Text stays text in the PDF, as journals ask.
    "pdf.fonttype": 42,
}
#: Most runs drawn in one panel; the rest are in the table.
MOST = len(COLOURS)


@dataclass(frozen=True)
class Panel:
    """A drawn figure: its file's stem, the claim it belongs to, what it shows in words."""

    name: str
    claim: str
    caption: str
    png: Path
    pdf: Path


def save(evidence: Evidence, folder: Path, dpi: int = 220) -> list[Panel]:
    """Draw every panel for which there are runs into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    panels = []
    for task in TASKS:
        learning = _shown(evidence.of(task))
        panels += _panel(folder, dpi, f"percent-{task}", "quick", _percent, learning, task,
                         f"{TASKS[task]}: share of the held-out loss. Hollow: R² under {SKILL:g}.{_crosses(learning)}")
        panels += _panel(folder, dpi, f"size-{task}", "robust", _sizes, _sized(learning), task,
                         f"{TASKS[task]}: step of the skilled crossing against the number of parameters.")
        panels += _panel(folder, dpi, f"penalty-{task}", "penalty", _penalty, learning[:1], task,
                         f"{TASKS[task]}: the loss, and the part of it that is equivariance error.")
        both = _shown([*evidence.of(task), *evidence.of(task, True)]) if evidence.of(task, True) else []
        panels += _panel(folder, dpi, f"seconds-{task}", "efficiency", _seconds, both, task,
                         f"{TASKS[task]}: held-out loss against training seconds. Dashed: symmetric by construction.")
    return panels  # fmt: skip


def _crosses(runs: Sequence[Run]) -> str:
    points = style.reference_points(runs[0].told, runs[0].curve.probe)[1] if runs else ()
    return " Crosses: the paper." if len(points) else ""


def _shown(runs: Sequence[Run]) -> list[Run]:
    """The longest runs, at most as many as there are colours."""
    return sorted(runs, key=lambda run: -run.last_step)[:MOST]


def _sized(runs: Sequence[Run]) -> list[Run]:
    crossed = [run for run in runs if run.found.skilled is not None and run.parameters]
    return crossed if len({run.parameters for run in crossed}) > 1 else []


def _panel(
    folder: Path, dpi: int, name: str, claim: str, draw: Callable[[Axes, Sequence[Run]], None], runs: Sequence[Run],
    task: str, caption: str,
) -> list[Panel]:  # fmt: skip
    png, pdf = folder / f"{name}.png", folder / f"{name}.pdf"
    if not runs:
        for path in (png, pdf):
            path.unlink(missing_ok=True)
        return []
    with matplotlib.rc_context(_PRINT):
        figure = Figure(figsize=(WIDTH, HEIGHT + 0.13 * len(runs)), layout="constrained")
        axes = figure.subplots()
        draw(axes, runs)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=1)
        FigureCanvasAgg(figure)
        figure.savefig(png, dpi=dpi, facecolor="white")
        # Without the date the file is the same whenever it is made.
        figure.savefig(pdf, metadata={"CreationDate": None})
    return [Panel(name, claim, f"{caption[0].upper()}{caption[1:]}", png, pdf)]


def _label(run: Run) -> str:
    return f"{run.name.split('/', 1)[-1]}: {run.model}"


def _percent(axes: Axes, runs: Sequence[Run]) -> None:
    """Percent against step, log-log, with the paper's points and the 2 % line."""
    label, paper = style.reference_points(runs[0].told, runs[0].curve.probe)
    curves = [run.curve for run in runs]
    axis = style.step_axis(np.concatenate([*(curve.step for curve in curves), paper[:, 0]]))
    floor = style.percent_floor(curves, paper[:, 1])
    for colour, run in zip(COLOURS, runs, strict=False):
        points = style.log_points(run.curve, floor)
        x, skilled = axis.place(run.curve.step), run.curve.r2 >= SKILL
        axes.fill_between(x, points.low, points.high, color=colour, alpha=0.18, lw=0)
        axes.plot(x, points.y, color=colour, label=_label(run))
        axes.plot(x[skilled], points.y[skilled], "o", color=colour, ms=3)
        axes.plot(x[~skilled], points.y[~skilled], "o", mfc="white", mec=colour, ms=3, mew=0.8)
    if len(paper):
        axes.plot(paper[:, 0], paper[:, 1], "x:", color=style.PAPER, ms=4.5, lw=0.9, label=label)
    axes.axhline(THRESHOLD, color=style.LIMIT, ls="--", lw=0.9)
    axes.set_yscale("log")
    axes.set_ylim(floor * 0.85, max(style.percent_ceiling(curves), *(paper[:, 1] * 1.4), 4))
    axes.yaxis.set_major_locator(FixedLocator(style.decade_ticks(floor, 200.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: style.percent_label(value)))
    axes.set_ylabel("equivariance error, % of loss")
    _steps(axes, axis)


def _sizes(axes: Axes, runs: Sequence[Run]) -> None:
    for colour, model in zip(COLOURS, dict.fromkeys(run.model for run in runs), strict=False):
        own = [(run.parameters, run.found.skilled.step) for run in runs if run.model == model and run.found.skilled]
        axes.plot(*zip(*own, strict=True), "o", color=colour, ms=4.5, label=model)
    axes.set(xscale="log", yscale="log", xlabel="parameters", ylabel="step of the skilled crossing")
    axes.margins(0.2)
    axes.yaxis.set_minor_formatter(NullFormatter())


def _penalty(axes: Axes, runs: Sequence[Run]) -> None:
    (run,) = runs
    axis, curve = style.step_axis(run.curve.step), run.curve
    x = axis.place(curve.step)
    for values, name, colour, dash in (
        (curve.total, "total loss", style.OURS, "-"),
        (curve.twirled, "twirled loss", style.INK, (0, (4, 2))),
        (curve.equivariance, "equivariance error", style.EQUIVARIANCE, "-"),
    ):
        axes.plot(x, np.where(values > 0, values, np.nan), color=colour, ls=dash, label=name, marker="o", ms=2)
    axes.set(yscale="log", ylabel=f"held-out loss ({_label(run)})")
    axes.yaxis.label.set_size(7)
    _steps(axes, axis)


def _seconds(axes: Axes, runs: Sequence[Run]) -> None:
    for colour, run in zip(COLOURS, runs, strict=False):
        later = run.seconds > 0
        axes.plot(run.seconds[later], run.curve.total[later], "o", ls="--" if run.symmetric else "-", color=colour,
                  ms=2.5, label=_label(run))  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="training seconds on the machine of the runs",
             ylabel="held-out total loss")  # fmt: skip
    axes.xaxis.set_major_locator(LogLocator(numticks=6))


def _steps(axes: Axes, axis: style.StepAxis) -> None:
    axes.set_xscale("log")
    axes.set_xlim(axis.low, axis.high)
    axes.xaxis.set_major_locator(FixedLocator(axis.ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    labels = dict(zip(axis.ticks, axis.labels, strict=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: labels.get(value, "")))
    axes.set_xlabel("training step")
