"""The plotly figures of the page, from the description of a :class:`equiscope.report.chart.Chart`."""

from __future__ import annotations

import math
from itertools import zip_longest
from typing import Any

import numpy as np
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from equiscope.report import style
from equiscope.report.chart import Band, Chart, Heat, Numbers, Panel, Series, Surface
from equiscope.report.style import Axis

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_EDGE = "#9aa1aa"
_PIXELS = 1.3  # of the page to a point in print


def live(chart: Chart) -> go.Figure:
    """The figure for the page."""
    if chart.slider:
        return _with_slider(chart)
    columns = max(map(len, chart.rows))
    specs = [[{"type": "surface" if isinstance(p, Surface) else "xy"} if p else None
              for p, _ in zip_longest(row, range(columns))] for row in chart.rows]  # fmt: skip
    titles = [panel.title if panel else "" for row in chart.rows for panel, _ in zip_longest(row, range(columns))]
    figure = make_subplots(
        rows=len(chart.rows), cols=columns, specs=specs, shared_xaxes=chart.shared, shared_yaxes=chart.shared,
        row_heights=list(chart.heights) or None, subplot_titles=titles if any(titles) else None,
        vertical_spacing=0.05 if chart.shared else 0.16, horizontal_spacing=0.04 if chart.shared else 0.12,
    )  # fmt: skip
    named: set[str] = set()
    for row, panels in enumerate(chart.rows, start=1):
        for column, panel in enumerate(panels, start=1):
            if isinstance(panel, Surface):
                figure.add_trace(_surface_trace(panel), row=row, col=column)
                figure.update_scenes(_scene(panel), row=row, col=column)
            elif isinstance(panel, Panel):
                for trace in _traces(panel, named):
                    figure.add_trace(trace, row=row, col=column)
                hide = chart.shared and row < len(chart.rows)
                figure.update_xaxes(_live_axis(panel.x, "" if hide else panel.x.title), row=row, col=column)
                figure.update_yaxes(_live_axis(panel.y, panel.y.title), row=row, col=column)
    return _laid_out(figure, chart)


def _laid_out(figure: go.Figure, chart: Chart) -> go.Figure:
    legend = {"orientation": "h", "x": 0, "xanchor": "left", "y": -64 / max(chart.height - 150, 64), "yanchor": "top",
              "entrywidth": 0.49, "entrywidthmode": "fraction", "tracegroupgap": 0, "itemclick": False,
              "itemdoubleclick": False, "font": {"size": 12.5}}  # fmt: skip
    titled = any(panel.title for row in chart.rows for panel in row)
    figure.update_layout(
        template="none", height=chart.height, autosize=True, hovermode="closest", paper_bgcolor="white",
        plot_bgcolor="white", font={"family": _FONT, "size": 13, "color": style.INK}, showlegend=bool(chart.legend),
        margin={"l": 10, "r": 14, "t": 34 if titled else 10, "b": 10}, legend=legend,
    )  # fmt: skip
    figure.update_annotations(font={"size": 13})
    return figure


def _traces(panel: Panel, named: set[str]) -> list[go.Scatter]:
    traces: list[go.Scatter] = []
    for one in panel.series:
        fresh = bool(one.name) and one.name not in named
        made = _band_traces(one, fresh) if isinstance(one, Band) else _series_traces(one, fresh)
        named |= {one.name} if made else set()
        traces += made
    return traces


def _band_traces(one: Band, fresh: bool) -> list[go.Scatter]:
    """A closed shape for each stretch without a gap."""
    x, low, high = (np.asarray(values, dtype=float) for values in (one.x, one.low, one.high))
    colour = "rgba({},{},{},{})".format(*(int(one.colour[i : i + 2], 16) for i in (1, 3, 5)), one.opacity)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.isfinite(low) & np.isfinite(high), [0]])))
    return [
        go.Scatter(
            x=np.concatenate([x[a:b], x[a:b][::-1]]), y=np.concatenate([high[a:b], low[a:b][::-1]]), mode="lines",
            fill="toself", fillcolor=colour, line={"width": 0}, hoverinfo="skip", name=one.name,
            legendgroup=one.name, showlegend=fresh and not place,
        )
        for place, (a, b) in enumerate(zip(edges[::2], edges[1::2], strict=True))
    ]  # fmt: skip


def _series_traces(one: Series, fresh: bool) -> list[go.Scatter]:
    y = np.asarray(one.y, dtype=float)
    if not np.isfinite(y).any():
        return []
    size, hollow = round(_PIXELS * one.size, 1), one.mark == "hollow"
    symbol, face = ("circle", "white") if hollow else (one.mark or "circle", one.colour)
    bars: dict[str, Any] | None = None
    if one.low is not None and one.high is not None:
        up, down = (_plain(np.maximum(ends, 0)) for ends in (one.high - y, y - one.low))
        bars = {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "width": 0, "thickness": 1.6,
                "color": one.colour}  # fmt: skip
    mode = "+".join(kind for kind, wanted in (("lines", one.line), ("markers", one.mark)) if wanted)
    return [go.Scatter(
        x=_plain(one.x), y=_plain(y), mode=mode, name=one.name, showlegend=fresh, error_y=bars,
        line={"color": one.colour, "dash": one.line or "solid", "width": round(1.25 * one.width, 1)},
        marker={"symbol": symbol, "size": size, "color": face, "line": {"color": one.edge or one.colour, "width": 1.5}},
        text=list(one.hover) or None, hovertemplate="%{text}<extra></extra>" if len(one.hover) else None,
        hoverinfo=None if len(one.hover) else "skip", cliponaxis=not one.over,
    )]  # fmt: skip


def _plain(values: Numbers) -> list[float | None]:
    """Plain numbers for plotly, None (a gap) for what is not finite."""
    return [float(value) if math.isfinite(value) else None for value in np.asarray(values, dtype=float)]


def _live_axis(axis: Axis, title: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "type": "log" if axis.log else "linear", "title": {"text": title.replace("\n", "<br>"), "standoff": 8},
        "gridcolor": style.GRID, "linecolor": _EDGE, "showline": True, "ticks": "outside", "tickcolor": _EDGE,
        "automargin": True, "zeroline": False,
    }  # fmt: skip
    if axis.low is not None and axis.high is not None:
        made["range"] = [math.log10(end) if axis.log else end for end in (axis.low, axis.high)]
    if len(axis.ticks):
        made |= {"tickvals": list(axis.ticks), "ticktext": list(axis.labels)}
    elif axis.log:
        made |= {"exponentformat": "power", "dtick": 1}
    return made


def _surface_trace(panel: Surface) -> go.Surface:
    return go.Surface(
        x=panel.along_x, y=panel.along_y, z=panel.z, colorscale="Viridis", showscale=False,
        contours={"z": {"show": True, "usecolormap": True, "project": {"z": True}}},
        hovertemplate=f"{panel.title}: %{{z:.3g}}<br>%{{x:.3g}}, %{{y:.3g}}<extra></extra>",
    )


def _scene(panel: Surface) -> dict[str, Any]:
    names = {"xaxis": panel.x.title.rpartition(" ")[2], "yaxis": panel.y.title.rpartition(" ")[2], "zaxis": ""}
    small = {"nticks": 5, "tickfont": {"size": 10}}
    axes = {which: {**small, "title": {"text": name, "font": {"size": 12}}} for which, name in names.items()}
    # Far enough for the corners of the box to stay inside a narrow scene.
    camera = {"eye": {"x": 1.75, "y": -1.75, "z": 1.1}, "center": {"x": 0, "y": 0, "z": -0.12}}
    return {**axes, "camera": camera, "aspectmode": "cube"}


def _with_slider(chart: Chart) -> go.Figure:
    """The heats of the first row behind a slider, the last of them shown."""
    figure, heats = go.Figure(), [panel for panel in chart.rows[0] if isinstance(panel, Heat)]
    for place, heat in enumerate(heats):
        ticks = list(heat.scale.ticks)
        figure.add_heatmap(
            z=heat.z, x=list(heat.columns), y=list(heat.rows), zmin=ticks[0], zmax=ticks[-1], xgap=2, ygap=2,
            colorscale="Viridis", visible=place == len(heats) - 1, text=heat.texts, texttemplate="%{text}",
            hovertemplate="%{y}<br>%{x}: %{text} %<extra></extra>",
            colorbar={"title": {"text": "% of variance", "side": "right"}, "thickness": 12, "tickvals": ticks,
                      "ticktext": list(heat.scale.labels)},
        )  # fmt: skip
    steps = [
        {"label": heat.title, "method": "restyle", "args": [{"visible": [i == k for i in range(len(heats))]}]}
        for k, heat in enumerate(heats)
    ]
    slider = {"active": len(steps) - 1, "steps": steps, "pad": {"t": 12}, "currentvalue": {"prefix": chart.slider}}
    figure.update_layout(sliders=[slider])
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(side="top", automargin=True)
    return _laid_out(figure, chart)
