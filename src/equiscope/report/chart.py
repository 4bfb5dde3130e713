"""One description of a figure, and its renderer for files, matplotlib; :mod:`equiscope.report.live` is the page's."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from equiscope.report import style
from equiscope.report.style import Axis
from equiscope.words import decade_label
from equiscope.writing import inner_folder, replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Numbers = np.ndarray | Sequence[float]
_MARKS = {"circle": "o", "hollow": "o", "diamond": "D", "square": "s", "star": "*", "triangle-up": "^",
          "triangle-down": "v", "x-thin": "x", "line-ew": "_"}  # fmt: skip
_DASHES: dict[str, Any] = {"": "none", "solid": "-", "dash": (0, (4, 2)), "dot": (0, (1, 2))}


@dataclass(frozen=True)
class Series:
    """Points joined by a line, marked, or both; a NaN is a gap.

    Attributes:
        x, y: (N,). name: in the legend, not there if empty. line: solid, dash, dot, or "" for none.
        mark: one of the marks, "hollow" with a white face, or "" for none; edge: its rim, of the same colour if empty.
        size: of the mark, width: of the line, points. low, high: (N,) ends of error bars.
        hover: what each point says on the page; without it nothing. over: marks on the frame are whole.
    """

    x: Numbers
    y: Numbers
    name: str = ""
    colour: str = style.INK
    line: str = ""
    mark: str = ""
    edge: str = ""
    size: float = 5
    width: float = 1.6
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    hover: Sequence[str] | np.ndarray = ()
    over: bool = False


@dataclass(frozen=True)
class Band:
    """The ground between ``low`` and ``high``, (N,) each, with gaps where one of them is NaN."""

    x: Numbers
    low: Numbers
    high: Numbers
    name: str = ""
    colour: str = style.OURS
    opacity: float = 0.2


@dataclass(frozen=True)
class Panel:
    """Series and bands on two axes, the first of them at the bottom."""

    x: Axis
    y: Axis
    series: Sequence[Series | Band]
    title: str = ""


@dataclass(frozen=True)
class Heat:
    """A table of coloured cells with their words: z and texts (rows, columns), coloured between two ticks."""

    columns: Sequence[str]
    rows: Sequence[str]
    z: np.ndarray
    texts: Sequence[Sequence[str]]
    x: Axis
    scale: Axis
    title: str = ""


@dataclass(frozen=True)
class Surface:
    """A function of two variables, z (len(y), len(x)): a surface on the page, contours in a file."""

    x: Axis
    y: Axis
    along_x: Numbers
    along_y: Numbers
    z: np.ndarray
    title: str = ""


@dataclass(frozen=True)
class Chart:
    """Rows of panels.

    Attributes:
        size: inches of the file. height: pixels on the page. heights: of the rows, relative.
        shared: a column has one x axis, a row one y axis. legend: columns of the file's legend, 0 for none.
        slider: words before the number of a slider that shows one panel of the first row at a time on the page, each
            named by its title; a file then shows ``most`` of them, evenly spread.
    """

    rows: Sequence[Sequence[Panel | Heat | Surface]]
    size: tuple[float, float] = (8.2, 4.6)
    height: int = 470
    heights: Sequence[float] = ()
    shared: bool = False
    legend: int = 2
    slider: str = ""
    most: int = 4


def save(
    drawings: Mapping[str, Chart | Callable[[], Figure] | None], folder: Path, dpi: int = 150,
    look: Mapping[Any, Any] = style.SCREEN, kinds: Sequence[str] = ("png",), optional: bool = False,
) -> dict[str, Path]:  # fmt: skip
    """Draw into ``folder/name.png``; name -> path. A figure for which there is nothing any more is removed.

    ``optional``: without matplotlib nothing is drawn, and a warning says so; a page has its live figures all the same.
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ModuleNotFoundError:
        if not optional:
            raise
        warnings.warn("figures are on the page alone, none as a file, for want of matplotlib: pip install matplotlib")
        return {}
    inner_folder(folder)
    paths = {}
    for name, drawing in drawings.items():
        files = [folder / f"{name}.{kind}" for kind in kinds]
        if drawing is None:
            for file in files:
                file.unlink(missing_ok=True)
            continue
        # Labels are names of others: a "$" in them begins no formula.
        with matplotlib.rc_context({"text.parse_math": False, **look}):
            figure = still(drawing) if isinstance(drawing, Chart) else drawing()
            FigureCanvasAgg(figure)
            for file in files:
                # Without the date a PDF is the same whenever it is made.
                more = {"metadata": {"CreationDate": None}} if file.suffix == ".pdf" else {"facecolor": "white"}
                with replacing(file) as opened:
                    figure.savefig(opened, format=file.suffix[1:], dpi=dpi, **more)
        paths[name] = files[0]
    return paths


def still(chart: Chart) -> Figure:
    """The figure for a file."""
    from matplotlib.figure import Figure

    rows = chart.rows
    if chart.slider:
        count = len(rows[0])
        places = np.linspace(0, count - 1, min(chart.most, count)).round().astype(int)
        rows = [[rows[0][place] for place in places]]
    figure = Figure(figsize=chart.size, layout="constrained")
    grid = figure.subplots(
        len(rows), max(map(len, rows)), squeeze=False, height_ratios=list(chart.heights) or None,
        sharex="col" if chart.shared else False, sharey="row" if chart.shared else False,
    )  # fmt: skip
    handles: dict[str, Any] = {}
    for places, row in zip(grid, rows, strict=True):
        for axes, panel in zip_longest(places, row):
            if panel is None:
                axes.set_visible(False)
                continue
            _STILL[type(panel)](figure, axes, panel)
            for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
                handles.setdefault(name, handle)
    if chart.shared:
        _outer_labels(grid)
    if isinstance(rows[0][0], Heat):
        scale = rows[0][0].scale
        bar = figure.colorbar(grid[0, -1].images[0], ax=grid[0].tolist(), label=scale.title, fraction=0.03)
        bar.set_ticks(list(scale.ticks), labels=list(scale.labels))
    if handles and chart.legend:
        figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=chart.legend)
    return figure


def _outer_labels(grid: np.ndarray) -> None:
    """Words only at the left and at the lowest panel of each column."""
    for column in grid.T:
        *above, lowest = (axes for axes in column if axes.get_visible())
        lowest.tick_params(labelbottom=True)
        for axes in above:
            axes.set_xlabel("")
    for axes in grid[:, 1:].flat:
        axes.set_ylabel("")


def _still_panel(figure: Figure, axes: Axes, panel: Panel) -> None:
    for one in panel.series:
        if isinstance(one, Band):
            axes.fill_between(one.x, one.low, one.high, color=one.colour, alpha=one.opacity, lw=0, label=one.name)
            continue
        y = np.asarray(one.y, dtype=float)
        if not np.isfinite(y).any():
            continue
        if one.low is not None and one.high is not None:
            ends = np.maximum([y - one.low, one.high - y], 0)
            axes.errorbar(one.x, y, ends, fmt="none", ecolor=one.colour, elinewidth=1.4, zorder=3)
        face = "white" if one.mark == "hollow" else one.colour
        axes.plot(one.x, y, ls=_DASHES[one.line], marker=_MARKS.get(one.mark), color=one.colour, lw=one.width,
                  ms=one.size, mfc=face, mec=one.edge or one.colour, label=one.name or None, clip_on=not one.over,
                  zorder=3 if one.mark else 2)  # fmt: skip
    _still_axes(axes, panel)


def _still_axes(axes: Axes, panel: Panel | Surface) -> None:
    from matplotlib import ticker

    for which, axis in (("x", panel.x), ("y", panel.y)):
        own, labels = getattr(axes, f"{which}axis"), dict(zip(axis.ticks, axis.labels, strict=False))
        getattr(axes, f"set_{which}label")(axis.title)
        if axis.log:
            getattr(axes, f"set_{which}scale")("log")
        if axis.low is not None or axis.high is not None:
            getattr(axes, f"set_{which}lim")(axis.low, axis.high)
        if not labels and not axis.log:
            own.set_major_locator(ticker.MaxNLocator(5))
        if labels:
            own.set_major_locator(ticker.FixedLocator(list(axis.ticks)))
            own.set_minor_locator(ticker.NullLocator())
            own.set_major_formatter(ticker.FuncFormatter(lambda value, _, labels=labels: labels.get(value, "")))
        elif axis.log:
            # Matplotlib's own labels of such an axis are formulas, which are not read as such here.
            own.set_major_formatter(ticker.FuncFormatter(lambda value, _: decade_label(value)))
            own.set_minor_formatter(ticker.FuncFormatter(lambda value, _, own=own: _between(value, own)))
    axes.set_title(panel.title, fontsize=10, color=style.INK)


def _between(value: float, axis: Any) -> str:
    """A label for twice and five times a power of ten, where the axis spans little more than one."""
    low, high = axis.get_view_interval()
    first = f"{value:e}"[0]
    return decade_label(float(f"{value:.3g}")) if first in "25" and high < 20 * low else ""


def _still_heat(figure: Figure, axes: Axes, panel: Heat) -> None:
    low, *_, high = panel.scale.ticks
    axes.imshow(panel.z, vmin=low, vmax=high, aspect="auto", cmap="viridis")
    for (row, column), value in np.ndenumerate(panel.z):
        colour = "black" if value > low + 0.675 * (high - low) else "white"
        axes.text(column, row, panel.texts[row][column], ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(panel.columns)), [c.removeprefix("l ").removeprefix("= ") for c in panel.columns])
    axes.set_yticks(range(len(panel.rows)), list(panel.rows))
    axes.tick_params(labelsize=8)
    axes.set(title=f"step {panel.title}", xlabel=panel.x.title)
    axes.grid(False)


def _still_surface(figure: Figure, axes: Axes, panel: Surface) -> None:
    drawn = axes.contourf(panel.along_x, panel.along_y, panel.z, levels=16, cmap="viridis")
    figure.colorbar(drawn, ax=axes, fraction=0.05)
    axes.plot(0, 0, "+", color="white", ms=10, mew=2)
    _still_axes(axes, panel)
    axes.grid(False)


_STILL: dict[type, Callable[..., None]] = {Panel: _still_panel, Heat: _still_heat, Surface: _still_surface}
