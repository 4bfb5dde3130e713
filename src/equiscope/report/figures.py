"""The figures of runs as charts: percent, losses, skill, a panel for each probe, several runs beside each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from equiscope.errors import InputError
from equiscope.report import chart, style
from equiscope.report.chart import Band, Chart, Panel, Series
from equiscope.report.crossings import SKILL, THRESHOLD, crossings
from equiscope.report.curves import Curve, RunHistory, read
from equiscope.report.sentences import squared_unit
from equiscope.report.style import LOWEST_R2, Axis, StepAxis, log_axis
from equiscope.report.views import Measurement, Record
from equiscope.words import digits, r2

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def level(axis: Axis, y: float, name: str, colour: str, line: str = "dash") -> Series:
    """A line across the panel."""
    return Series([axis.low or 0, axis.high or 1], [y, y], name, colour, line, width=1.2)


def skilled_curve(
    x: np.ndarray, y: np.ndarray, band: tuple[np.ndarray, np.ndarray], skilled: np.ndarray, name: str, colour: str,
    size: float = 5, width: float = 1.6,
) -> list[Series | Band]:  # fmt: skip
    """A band, a line in it, and points that are hollow where the model has no skill."""
    marks = [
        Series(x[chosen], y[chosen], "", colour, mark=mark, size=size)
        for chosen, mark in ((skilled, "circle"), (~skilled, "hollow"))
    ]
    return [Band(x, *band, "", colour), Series(x, y, name, colour, "solid", width=width), *marks]


def charts(told: RunHistory) -> dict[str, Chart]:
    """name -> the figures of a run for which there are records, in the order of the page."""
    curve = told.headline
    if curve is None:
        return {}
    made = {"percent": percent(told, curve), "losses": losses(told, curve)}
    return made | ({"relative": relative(curve)} if (curve.relative > 0).any() else {})


def percent(told: RunHistory, curve: Curve) -> Chart:
    """Percent against step (log-log) with band, 2 % line, crossings and the paper's points; R² below it."""
    axis = style.step_axis(curve.step)
    low, high = percent_ends(told, [curve], axis)
    series, signs = _percent_series(told, curve, axis, low), style.marked(crossings(curve))
    for place, (text, mark, size, colour, crossing) in enumerate(signs, start=1):
        # On the curve; of several at one step the last, the headline, and the others above it.
        later = sum(other.step == crossing.step for *_, other in signs[place:])
        y = max(crossing.percent, low) * (high / low) ** (0.06 * later)
        series.append(Series(axis.place([crossing.step]), [y], text, colour, mark=mark, size=size, edge="white",
                             hover=[text], over=True))  # fmt: skip
    upper = Panel(axis, log_axis("equivariance error,\npercent of the loss", low, high, " %"), series)
    lower = r2_panel(told, curve, axis)
    span = style.collapse_span(curve, SKILL)
    if span is not None:
        ends = [axis.low or 0.0, float(axis.place(span)[1])]
        shade = Band(ends, [low * 0.85] * 2, [high] * 2, f"before the model has skill (R² < {SKILL:g})", style.SHADE, 1)
        below = Band(ends, [lower.y.low or 0] * 2, [lower.y.high or 1] * 2, "", style.SHADE, 1)
        upper = Panel(upper.x, upper.y, [shade, *series])
        lower = Panel(lower.x, lower.y, [below, *lower.series])
    return Chart([[upper], [lower]], (8.2, 6.4), 660, (2.6, 1), shared=True)


def panels(told: RunHistory) -> Chart | None:
    """One small percent panel for each probe on common axes; None for a task with a single probe."""
    curves = list(told.curves.values())
    if len(curves) < 2:
        return None
    axis = style.step_axis(np.concatenate([curve.step for curve in curves]))
    low, high = percent_ends(told, curves, axis)
    y = log_axis("", low, high, " %")
    made = [Panel(axis, y, _percent_series(told, curve, axis, low, small=True), curve.probe) for curve in curves]
    columns = min(4, math.ceil(math.sqrt(len(made))))
    rows = [made[place : place + columns] for place in range(0, len(made), columns)]
    return Chart(rows, (3.1 * columns, 2.5 * len(rows) + 0.6), 260, shared=True, legend=min(3, columns))


def parts(told: RunHistory) -> Chart | None:
    """Total loss, twirled loss and equivariance error against step, a line for each probe; None for a single probe.

    Of flows, one line a flow time: the chain's error as the paper draws it is the velocity's times (1 − t)².
    """
    curves = list(told.curves.values())[: len(style.RAMP)]
    if len(curves) < 2:
        return None
    axis = style.step_axis(np.concatenate([curve.step for curve in curves]))
    rows: list[list[Panel]] = []
    for name, title in (("total", "total loss"), ("twirled", "twirled loss"), ("equivariance", "equivariance error")):
        series: list[Series | Band] = []
        for colour, curve in zip(style.colours(len(curves)), curves, strict=False):
            values = getattr(curve, name)
            shown = "" if rows else curve.probe
            series.append(Series(axis.place(curve.step), np.where(values > 0, values, np.nan), shown, colour, "solid",
                                 "circle", size=3, width=1.4))  # fmt: skip
        rows.append([Panel(axis, Axis(title, True), series)])
    return Chart(rows, (8.2, 9.0), shared=True, legend=4)


def percent_ends(told: RunHistory, curves: Sequence[Curve], axis: Axis) -> tuple[float, float]:
    """Ends of the percent axis around these curves and what of the paper's lies within the run's steps."""
    points = np.concatenate([style.reference_points(told, curve.probe) for curve in curves])
    return style.percent_ends(curves, points[points[:, 0] <= (axis.high or 0), 1])


def _percent_series(
    told: RunHistory, curve: Curve, axis: StepAxis, floor: float, small: bool = False
) -> list[Series | Band]:
    """Band, filled points where R² >= 0.5, arrows for limits, triangles at the floor, the final figure, the paper."""
    drawn, x, size = style.clipped(curve, floor), axis.place(curve.step), 4 if small else 6
    paper = style.reference_points(told, curve.probe)
    hover = np.array([_hover(curve, place) for place in range(len(curve))], dtype=object)
    series: list[Series | Band] = []
    if len(paper) and paper[0, 0] <= (axis.high or 0):
        texts = [f"paper: {y:.3g} %<br>step {step:,.0f}" for step, y in paper]
        series.append(Series(axis.place(paper[:, 0]), paper[:, 1], told.run.reference.label, style.PAPER, "dash",
                             "x-thin", size=size, width=1.2, hover=texts))  # fmt: skip
    series.append(level(axis, THRESHOLD, f"{THRESHOLD:g} % line", style.LIMIT))
    series.append(Band(x, drawn.low, drawn.high, "95 % interval"))
    series.append(Series(x, drawn.percent, "", style.OURS, "solid", width=1.8))
    at_floor, skilled = curve.percent <= floor, curve.r2 >= SKILL
    shown = ~at_floor & ~curve.is_upper_limit
    for chosen, name, mark, colour in (
        (shown & skilled, f"measured, R² ≥ {SKILL:g}", "circle", style.OURS),
        (shown & ~skilled, f"measured, R² < {SKILL:g}: not skilled", "hollow", style.OURS),
        (at_floor, "estimate ≤ 0, or under the axis", "triangle-down", style.INK),
    ):
        if chosen.any():
            series.append(Series(x[chosen], drawn.percent[chosen], name, colour, mark=mark, over=True,
                                 size=size + (mark == "triangle-down"), hover=hover[chosen]))  # fmt: skip
    series += _limits(drawn, x, hover, size)
    final = told.finals.get(curve.probe)
    return series + (_final(final, axis, floor, size) if final is not None else [])


def _limits(drawn: Curve, x: np.ndarray, hover: np.ndarray, size: float) -> list[Series]:
    """A bar at each upper limit and an arrow down from it, as limits are drawn in print."""
    limit = drawn.is_upper_limit
    if not limit.any():
        return []
    top, tip = drawn.high[limit], 0.62 * drawn.high[limit]
    bar = Series(x[limit], top, "upper limit only", style.OURS, mark="line-ew", size=size + 2, low=tip, high=top,
                 hover=hover[limit])  # fmt: skip
    return [bar, Series(x[limit], tip, "", style.OURS, mark="triangle-down", size=size - 1)]


def _final(final: Measurement, axis: StepAxis, floor: float, size: float) -> list[Series]:
    result = final.result
    if not math.isfinite(result.percent):
        return []
    y = np.array([max(result.percent, floor)])
    low, high = (np.maximum([end], floor) for end in result.percent_interval)
    hover = [f"final, step {final.step:,}: {result.percent:.3g} %"]
    return [Series(axis.place([final.step]), y, "final, on the independent set", style.INK, mark="diamond",
                   size=size + 1, edge="white", low=low, high=high, hover=hover)]  # fmt: skip


def r2_panel(told: RunHistory, curve: Curve, axis: StepAxis) -> Panel:
    """R² on a linear axis cut at −0.5: far negative values (an untrained model) are drawn at the edge."""
    shown, x = np.maximum(curve.r2, LOWEST_R2), axis.place(curve.step)
    hover = np.array([f"step {s:,}<br>R² {r2(v)}" for s, v in zip(curve.step, curve.r2, strict=True)], dtype=object)
    series: list[Series | Band] = [
        level(axis, SKILL, "", style.SKILLED),
        level(axis, 0.0, "", style.GREY, "solid"),
        Series(x, shown, "", style.INK, "solid"),
    ]
    under, skilled = curve.r2 < LOWEST_R2, curve.r2 >= SKILL
    for chosen, mark in ((skilled, "circle"), (~skilled & ~under, "hollow"), (under, "triangle-down")):
        series.append(Series(x[chosen], shown[chosen], mark=mark, size=5, hover=hover[chosen], over=True))
    final = told.finals.get(curve.probe)
    if final is not None and math.isfinite(final.result.r2):
        series.append(Series(axis.place([final.step]), [max(final.result.r2, LOWEST_R2)], mark="diamond", size=7,
                             edge="white", hover=[f"final: R² {r2(final.result.r2)}"], over=True))  # fmt: skip
    return Panel(axis, style.r2_axis(far=bool((curve.r2 < -0.1).any())), series)


def losses(told: RunHistory, curve: Curve) -> Chart:
    """Total, twirled and equivariance loss of the headline probe against step, log-log."""
    axis, low = style.step_axis(curve.step), style.loss_floor(curve)
    x, line = axis.place(curve.step), "solid" if len(curve) > 1 else ""
    # None is known of a perfect model.
    constant = np.divide(curve.total, 1 - curve.r2, out=np.full(len(curve), np.nan), where=curve.r2 != 1)
    series: list[Series | Band] = []
    for values, name, colour, dash, width in (
        (curve.total, "total loss", style.OURS, "solid", 3.0),
        (curve.twirled, "twirled loss", style.INK, "dash", 1.6),
        (curve.equivariance, "equivariance error = total − twirled", style.EQUIVARIANCE, "solid", 2.0),
        (constant, "best constant prediction (R² = 0)", style.GREY, "dot", 1.4),
        (curve.floor, "numerical noise floor", style.PURPLE, "dot", 1.4),
    ):
        if (values > low).any():
            hover = [f"{name}: {digits(v)}<br>step {s:,}" for s, v in zip(curve.step, values, strict=True)]
            series.append(Series(x, np.where(values > 0, values, np.nan), name, colour, line and dash,
                                 "" if line else "circle", width=width, hover=hover))  # fmt: skip
    missing = curve.equivariance <= low
    if missing.any():
        series.append(Series(x[missing], np.full(missing.sum(), low), "equivariance error zero or negative",
                             style.EQUIVARIANCE, mark="triangle-down", size=7, over=True))  # fmt: skip
    tops = np.concatenate([curve.total, curve.twirled])
    top = float(np.nanmax(tops)) * 2 if (tops > 0).any() else 10.0
    unit = squared_unit(told)
    known = told.result.loss if told.result.loss != "mse" else "squared error"
    words = f"squared error,{unit}" if unit else f"loss ({known or 'as measured'})"
    return Chart([[Panel(axis, log_axis(words, low, top), series)]])


def relative(curve: Curve) -> Chart:
    """The relative equivariance error, that a shrinking output cannot hide, against step."""
    axis = style.step_axis(curve.step)
    hover = [f"step {s:,}<br>{digits(v)} of mean |output|²" for s, v in zip(curve.step, curve.relative, strict=True)]
    values = np.where(curve.relative > 0, curve.relative, np.nan)
    series = Series(axis.place(curve.step), values, "", style.EQUIVARIANCE, "solid", "circle", hover=hover)
    ends = np.log10(values[np.isfinite(values)])
    y = log_axis("equivariance error\n/ mean |output|²", 10.0 ** np.floor(ends.min()), 10.0 ** max(ends.max() + 0.1, 0))
    panel = Panel(axis, y, [series])
    return Chart([[panel]], (8.2, 3.4), 320, legend=0)


def _hover(curve: Curve, i: int) -> str:
    interval = f" (95 %: {digits(curve.low[i])} to {digits(curve.high[i])})" if np.isfinite(curve.high[i]) else ""
    kind = ", upper limit" if curve.is_upper_limit[i] else ""
    return f"step {curve.step[i]:,}<br>{digits(curve.percent[i])} %{interval}{kind}<br>R² {r2(curve.r2[i])}"


def pictures(told: RunHistory) -> Figure:
    """Slices of grids that a task recorded: one row a picture, one panel an image.

    Every panel of a picture has the scale of its last one, the target, so that they compare by eye; values beyond it
    are drawn as its ends.
    """
    from matplotlib.figure import Figure

    columns = max(len(picture["panels"]) for picture in told.pictures)
    figure = Figure(figsize=(1.95 * columns + 0.5, 2.25 * len(told.pictures) + 0.3), layout="constrained")
    for row, picture in zip(figure.subfigures(len(told.pictures), 1, squeeze=False)[:, 0], told.pictures, strict=True):
        row.suptitle(str(picture["title"]), fontsize=9, x=0.01, ha="left")
        _slices(row, picture["panels"], columns)
    return figure


def _slices(row: Figure, slices: Sequence[Record], columns: int) -> None:
    images = [np.array(one["image"], dtype=float) for one in slices]
    top = float(np.nanmax(images[-1])) or 1.0
    places = row.subplots(1, columns, squeeze=False)[0]
    for axes, one, image in zip(places, slices, images, strict=False):
        drawn = axes.imshow(image.T, origin="lower", cmap="Blues", vmin=0, vmax=top, interpolation="nearest")
        axes.set_title(str(one["title"]), fontsize=9)
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
        axes.spines[:].set_visible(True)
    for axes in places[len(images) :]:
        axes.set_visible(False)
    row.colorbar(drawn, ax=list(places), shrink=0.8, pad=0.01).ax.tick_params(labelsize=8)


def beside(folders: Sequence[str | Path], out: str | Path, dpi: int = 150) -> Path:
    """Draw runs beside each other into the PNG ``out``: rows total loss and percent, columns steps and seconds.

    Seconds are those of training, tracking left out, as the train records hold them. A percent that is zero or
    negative, as of an equivariant model, is drawn at its noise floor with a hollow mark.

    Args:
        folders: of two to six runs.
        out: the file, a PNG, or a PDF by its name.
        dpi: dots an inch of a PNG.

    Raises:
        InputError: for fewer than two runs, more than six, or a run without measurements.
        IntegrityError: for damaged records.
    """
    most = len(style.COLOURS) - 1
    if not 2 <= len(folders) <= most:
        raise InputError(f"give two to {most} runs to draw beside each other, got {len(folders)}")
    grid: list[list[list[Series | Band]]] = [[[], []], [[], []]]
    for colour, folder in zip(style.COLOURS, folders, strict=False):
        told = read(folder)
        curve = told.headline
        if curve is None or len(curve) < 2:
            raise InputError(f"{folder} has fewer than two measurements to draw")
        shown = np.where(curve.percent > 0, curve.percent, curve.floor_percent)
        quiet, name = ~(curve.equivariance > 3 * curve.floor), f"{told.run.name or Path(folder).name}: {told.run.model}"
        for column, x in enumerate((curve.step, told.seconds)):
            grid[0][column].append(Series(x, curve.total, name, colour, "solid", "circle", size=3.5))
            grid[1][column].append(Series(x, shown, "", colour, "solid"))
            grid[1][column].append(Series(x[~quiet], shown[~quiet], "", colour, mark="circle", size=3.5))
            grid[1][column].append(Series(x[quiet], shown[quiet], "", colour, mark="hollow", size=4))
    for series in grid[1]:
        ends = [f(np.concatenate([np.asarray(one.x) for one in series])) for f in (np.min, np.max)]
        series.append(Series(ends, [THRESHOLD] * 2, "", style.LIMIT, "dash", width=1))
    words = ("total loss on held-out samples", "equivariance error, percent of the loss")
    rows = [
        [Panel(Axis(x), Axis(y, True), series)
         for x, series in zip(("training step", "training seconds on this machine"), row, strict=True)]
        for y, row in zip(words, grid, strict=True)
    ]  # fmt: skip
    path = Path(out)
    drawn = {path.stem: Chart(rows, (9.6, 6.4), shared=True)}
    return chart.save(drawn, path.parent, dpi, kinds=(path.suffix.lstrip(".") or "png",))[path.stem]
