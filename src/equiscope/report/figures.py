"""The figures of a run as PNG files (matplotlib), from its records alone."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from equiscope.report import style
from equiscope.report.crossings import SKILL, THRESHOLD, Crossing, crossings
from equiscope.report.curves import Curve, RunHistory, number
from equiscope.report.pictures import pictures_figure

STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "axes.edgecolor": "#9aa1aa",
    "axes.labelcolor": style.INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": style.GRID,
    "grid.linewidth": 0.7,
    "xtick.color": style.INK,
    "ytick.color": style.INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def save(history: RunHistory, folder: Path, dpi: int = 150) -> dict[str, Path]:
    """Draw every figure for which there are records into ``folder``; name -> path, in the order of the page."""
    drawings = {
        "percent": percent_figure,
        "losses": losses_figure,
        "skill": skill_figure,
        "panels": panels_figure,
        "pictures": pictures_figure,
    }
    return save_each({name: functools.partial(draw, history) for name, draw in drawings.items()}, folder, dpi)


def save_each(drawings: Mapping[str, Callable[[], Figure | None]], folder: Path, dpi: int = 150) -> dict[str, Path]:
    """Draw into ``folder/name.png``; name -> path. A figure for which there is nothing any more is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, draw in drawings.items():
        with matplotlib.rc_context(STYLE):
            figure = draw()
            path = folder / f"{name}.png"
            if figure is None:
                path.unlink(missing_ok=True)
                continue
            FigureCanvasAgg(figure)
            figure.savefig(path, dpi=dpi, facecolor="white")
            paths[name] = path
    return paths


def percent_figure(history: RunHistory) -> Figure | None:
    """Percent against step (log-log) with band, 2 % line, crossings and the paper's points; R² below it."""
    curve = history.headline
    if curve is None:
        return None
    label, paper = style.reference_points(history, curve.probe)
    figure = Figure(figsize=(8.2, 6.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.0, 1.1])
    final = history.headline_final
    axis = style.step_axis(np.concatenate([curve.step, paper[:, 0]]))
    shade = style.collapse_span(curve, SKILL)
    for axes in (upper, lower):
        _shade(axes, axis, shade)
    _draw_percent(upper, curve, axis, label, paper, final)
    for place, (text, _, marker, colour, crossing) in enumerate(style.marked(crossings(curve))):
        _mark(upper, axis, crossing, text, marker, colour, height=0.96 - 0.075 * place)
    upper.set_ylabel("equivariance error,\npercent of the loss")
    _draw_r2(lower, curve, axis, final)
    lower.set_xlabel("training step")
    figure.legend(*upper.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def losses_figure(history: RunHistory) -> Figure | None:
    """Total, twirled and equivariance loss of the headline probe against step, log-log."""
    curve = history.headline
    if curve is None:
        return None
    figure = Figure(figsize=(8.2, 4.6), layout="constrained")
    axes = figure.subplots()
    axis = style.step_axis(curve.step)
    x = axis.place(curve.step)
    constant = curve.total / (1 - curve.r2)
    lines = (
        (curve.total, "total loss", style.OURS, "-", 3.0),
        (curve.twirled, "twirled loss (the symmetric part of the model)", style.INK, (0, (4, 2)), 1.6),
        (curve.equivariance, "equivariance error = total − twirled", style.EQUIVARIANCE, "-", 2.0),
        (constant, "best constant prediction (R² = 0)", style.GREY, (0, (1, 2)), 1.4),
        (curve.floor, "numerical noise floor", style.PURPLE, (0, (1, 2)), 1.4),
    )
    low = style.loss_floor(curve)
    for values, name, colour, dash, width in lines:
        if (values > low).any():
            axes.plot(x, np.where(values > 0, values, np.nan), color=colour, ls=dash, lw=width, label=name,
                      marker="o" if len(curve) == 1 else None)
    missing = curve.equivariance <= low
    if missing.any():
        axes.plot(x[missing], np.full(missing.sum(), low), "v", color=style.EQUIVARIANCE, ms=7,
                  label="at or under the end of the axis (zero or negative estimate)", clip_on=False)
    axes.set(yscale="log", xlabel="training step", ylabel=f"loss ({_loss_name(history)})")
    axes.set_ylim(bottom=low)
    step_ticks(axes, axis)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def skill_figure(history: RunHistory) -> Figure | None:
    """R² against step, and the relative equivariance error that a shrinking output cannot hide."""
    curve = history.headline
    if curve is None:
        return None
    figure = Figure(figsize=(8.2, 5.0), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    axis = style.step_axis(curve.step)
    _draw_r2(upper, curve, axis, history.headline_final)
    x = axis.place(curve.step)
    positive = curve.relative > 0
    if positive.any():
        lower.plot(x, np.where(positive, curve.relative, np.nan), "-o", color=style.EQUIVARIANCE, ms=4)
        lower.set_yscale("log")
    lower.set(xlabel="training step", ylabel="equivariance error\n/ mean |output|²")
    step_ticks(lower, axis)
    return figure


def panels_figure(history: RunHistory) -> Figure | None:
    """One small percent figure per probe on common axes; None for a task with a single probe."""
    curves = list(history.curves.values())
    if len(curves) < 2:
        return None
    columns = min(4, math.ceil(math.sqrt(len(curves))))
    rows = math.ceil(len(curves) / columns)
    figure = Figure(figsize=(3.1 * columns, 2.5 * rows + 0.6), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    paper = {curve.probe: style.reference_points(history, curve.probe)[1] for curve in curves}
    axis = style.step_axis(np.concatenate([curve.step for curve in curves] + [p[:, 0] for p in paper.values()]))
    floor = style.percent_floor(curves, [p for points in paper.values() for p in points[:, 1]])
    for axes in grid.flat[len(curves) :]:
        axes.set_visible(False)
    for axes, curve in zip(grid.flat, curves, strict=False):
        label, points = style.reference_points(history, curve.probe)
        _draw_percent(axes, curve, axis, label, points, history.finals.get(curve.probe), floor=floor, small=True)
        axes.set_title(curve.probe, fontsize=10, loc="left", color=style.INK)
    top = max(style.percent_ceiling(curves), *(points[:, 1].max() * 1.4 for points in paper.values() if len(points)), 4)
    grid[0, 0].set_ylim(floor * 0.8, top)
    for column in range(columns):
        bottom = max(row for row in range(rows) if row * columns + column < len(curves))
        grid[bottom, column].set_xlabel("training step")
        grid[bottom, column].tick_params(labelbottom=True)
    handles: dict[str, Artist] = {}
    for axes in grid.flat[: len(curves)]:
        for handle, text in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(text, handle)
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=min(3, columns))
    return figure


def _draw_percent(
    axes: Axes,
    curve: Curve,
    axis: style.StepAxis,
    label: str,
    paper: np.ndarray,
    final: Mapping | None,
    floor: float | None = None,
    small: bool = False,
) -> None:
    """The percent curve: band, filled points where R² >= 0.5, arrows for limits, triangles at the floor."""
    floor = style.percent_floor([curve], paper[:, 1]) if floor is None else floor
    points, x, size = style.log_points(curve, floor), axis.place(curve.step), 4 if small else 6
    limit = curve.is_upper_limit
    if len(paper):
        axes.plot(axis.place(paper[:, 0]), paper[:, 1], "x--", color=style.PAPER, lw=1.2, ms=size, label=label)
    axes.axhline(THRESHOLD, color=style.LIMIT, ls=(0, (5, 3)), lw=1.2, label=f"{THRESHOLD:g} % line")
    axes.fill_between(x, points.low, points.high, color=style.OURS, alpha=0.2, lw=0, label="95 % interval")
    axes.plot(x, points.y, color=style.OURS, lw=1.8)
    shown = ~points.at_floor & ~limit
    for chosen, face, text in (
        (shown & (curve.r2 >= SKILL), style.OURS, f"measured, R² ≥ {SKILL:g}"),
        (shown & ~(curve.r2 >= SKILL), "white", f"measured, R² < {SKILL:g}: not skilled"),
    ):
        if chosen.any():
            axes.plot(x[chosen], points.y[chosen], "o", mfc=face, mec=style.OURS, ms=size, label=text)
    if limit.any():
        axes.errorbar(x[limit], points.high[limit], yerr=0.35 * points.high[limit], uplims=True, fmt="none",
                      ecolor=style.OURS, elinewidth=1.2, capsize=3, label="upper limit only")
    if points.at_floor.any():
        axes.plot(x[points.at_floor], points.y[points.at_floor], "v", color=style.INK, ms=size + 1,
                  clip_on=False, zorder=5, label="estimate ≤ 0, or under the axis")
    _draw_final(axes, final, axis, floor, size)
    if not small:
        axes.set_ylim(floor * 0.85, max(style.percent_ceiling([curve]), *(paper[:, 1] * 1.4), 4))
    axes.set_yscale("log")
    low, high = floor, 200.0
    axes.yaxis.set_major_locator(FixedLocator(style.decade_ticks(low, high)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: style.percent_label(value)))
    step_ticks(axes, axis)


def _draw_final(axes: Axes, final: Mapping | None, axis: style.StepAxis, floor: float, size: float) -> None:
    if final is None or not np.isfinite(number(final["result"].get("percent"))):
        return
    result = final["result"]
    low, high = (number(value) for value in result.get("percent_interval") or (None, None))
    y = max(number(result["percent"]), floor)
    x = axis.place([final["step"]])
    if np.isfinite([low, high]).all():
        axes.vlines(x, max(low, floor), max(high, floor), color=style.INK, lw=1.5, zorder=6)
    axes.plot(x, [y], "D", color=style.INK, mec="white", ms=size + 1, zorder=7, label="final, on the independent set")


def _draw_r2(axes: Axes, curve: Curve, axis: style.StepAxis, final: Mapping | None) -> None:
    """R² on a linear axis cut at −0.5: far negative values (an untrained model) are drawn at the edge."""
    shown = np.maximum(curve.r2, -0.5)
    axes.axhline(SKILL, color=style.SKILLED, ls=(0, (5, 3)), lw=1.2)
    axes.axhline(0, color=style.GREY, lw=1)
    axes.plot(axis.place(curve.step), shown, "-", color=style.INK, lw=1.6)
    for chosen, face in ((curve.r2 >= SKILL, style.INK), (~(curve.r2 >= SKILL), "white")):
        axes.plot(axis.place(curve.step)[chosen], shown[chosen], "o", mfc=face, mec=style.INK, ms=4.5)
    under = curve.r2 < -0.5
    if under.any():
        axes.plot(axis.place(curve.step)[under], shown[under], "v", color=style.INK, ms=7, clip_on=False)
    if final is not None and np.isfinite(number(final["result"].get("r2"))):
        axes.plot(axis.place([final["step"]]), [max(number(final["result"]["r2"]), -0.5)], "D", color=style.INK,
                  mec="white", ms=7)
    bottom = -0.55 if (curve.r2 < -0.1).any() else -0.12
    axes.set(ylim=(bottom, 1.05), ylabel="R²")
    axes.yaxis.set_major_locator(FixedLocator([-0.5, 0, 0.5, 1] if bottom < -0.2 else [0, 0.5, 1]))
    step_ticks(axes, axis)


def _mark(
    axes: Axes, axis: style.StepAxis, crossing: Crossing, text: str, marker: str, colour: str, height: float
) -> None:
    """A line at the crossing with its sign on top, each at a height of its own; the words go to the legend."""
    x = axis.place([crossing.step])[0]
    axes.axvline(x, color=colour, lw=1, alpha=0.7)
    axes.plot([x], [height], marker, color=colour, mec="white", ms=14 if marker == "*" else 8, zorder=6, label=text,
              transform=axes.get_xaxis_transform())


def _shade(axes: Axes, axis: style.StepAxis, span: tuple[float, float] | None) -> None:
    if span is not None:
        axes.axvspan(axis.low, axis.place(span)[1], color=style.SHADE, lw=0,
                     label=f"before the model has skill (R² < {SKILL:g})")


def step_ticks(axes: Axes, axis: style.StepAxis) -> None:
    axes.set_xscale("log")
    axes.set_xlim(axis.low, axis.high)
    axes.xaxis.set_major_locator(FixedLocator(axis.ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    labels = dict(zip(axis.ticks, axis.labels, strict=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: labels.get(value, "")))


def _loss_name(history: RunHistory) -> str:
    result = (history.headline_record or {}).get("result", {})
    return str(result.get("loss") or "as measured")
