"""The figures of a run for the browser (plotly): the same content as the PNG figures, with values on hover."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from equiscope.report import style
from equiscope.report.crossings import SKILL, THRESHOLD, crossings
from equiscope.report.curves import Curve, RunHistory, number

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def percent_figure(history: RunHistory) -> go.Figure | None:
    """Percent against step with band, 2 % line, crossings and the paper's points; R² on the same step axis below."""
    curve = history.headline
    if curve is None:
        return None
    label, paper = style.reference_points(history, curve.probe)
    axis = style.step_axis(np.concatenate([curve.step, paper[:, 0]]))
    floor = style.percent_floor([curve], paper[:, 1])
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.72, 0.28], vertical_spacing=0.05)
    _add_percent(figure, curve, axis, floor, label, paper, history.headline_final)
    _add_r2(figure, curve, axis, history.headline_final, row=2)
    span = style.collapse_span(curve, SKILL)
    if span is not None:
        for row in (1, 2):
            figure.add_vrect(x0=axis.low, x1=axis.place(span)[1], fillcolor=style.SHADE, line_width=0,
                             layer="below", row=row, col=1)
        figure.add_scatter(x=[None], y=[None], mode="markers", name=f"before the model has skill (R² < {SKILL:g})",
                           marker={"symbol": "square", "size": 13, "color": style.SHADE,
                                   "line": {"color": "#cdbf9d", "width": 1}})  # fmt: skip
    top = max(style.percent_ceiling([curve]), *(paper[:, 1] * 1.4), 4)
    bottom = np.log10(floor * 0.85)
    for place, (text, symbol, _, colour, crossing) in enumerate(style.marked(crossings(curve))):
        # Each sign has a height of its own, so that crossings at one step do not hide one another.
        height = 10 ** (bottom + (np.log10(top) - bottom) * (0.96 - 0.075 * place))
        x = axis.place([crossing.step])[0]
        figure.add_scatter(x=[x, x], y=[10**bottom, top], mode="lines", line={"color": colour, "width": 1},
                           hoverinfo="skip", showlegend=False)
        figure.add_scatter(x=[x], y=[height], mode="markers", name=text, hovertemplate=text + "<extra></extra>",
                           marker={"symbol": symbol, "size": 15 if symbol == "star" else 11, "color": colour,
                                   "line": {"color": "white", "width": 1}})  # fmt: skip
    _percent_axis(figure, floor, top, title="equivariance error, percent of the loss")
    _layout(figure, axis, height=660)
    figure.update_xaxes(title_text="", row=1, col=1)
    return figure


def losses_figure(history: RunHistory) -> go.Figure | None:
    """Total, twirled and equivariance loss of the headline probe against step, log-log."""
    curve = history.headline
    if curve is None:
        return None
    axis = style.step_axis(curve.step)
    low = style.loss_floor(curve)
    figure = go.Figure()
    for values, name, colour, dash, width in (
        (curve.total, "total loss", style.OURS, "solid", 4),
        (curve.twirled, "twirled loss", style.INK, "dash", 2),
        (curve.equivariance, "equivariance error = total − twirled", style.EQUIVARIANCE, "solid", 2.5),
        (curve.total / (1 - curve.r2), "best constant prediction (R² = 0)", style.GREY, "dot", 1.5),
        (curve.floor, "numerical noise floor", style.PURPLE, "dot", 1.5),
    ):
        if (values > low).any():
            figure.add_scatter(x=axis.place(curve.step), y=_list(np.where(values > 0, values, np.nan)), name=name,
                               mode="lines" if len(curve) > 1 else "markers",
                               line={"color": colour, "dash": dash, "width": width}, marker={"color": colour},
                               customdata=curve.step.tolist(),
                               hovertemplate=f"{name}: %{{y:.3g}}<br>step %{{customdata}}<extra></extra>")  # fmt: skip
    missing = curve.equivariance <= low
    if missing.any():
        figure.add_scatter(x=axis.place(curve.step)[missing].tolist(), y=[low] * int(missing.sum()), mode="markers",
                           marker={"symbol": "triangle-down", "size": 11, "color": style.EQUIVARIANCE},
                           cliponaxis=False, name="equivariance error zero or negative")  # fmt: skip
    tops = np.concatenate([curve.total, curve.twirled])
    top = float(np.nanmax(tops)) * 2 if np.isfinite(tops).any() else 10.0
    ticks = style.decade_ticks(low, top)
    figure.update_yaxes(type="log", range=[np.log10(low), np.log10(top)], title_text="loss", tickvals=ticks,
                        ticktext=[f"{tick:g}" if 1e-3 <= tick <= 1e3 else style.power(tick) for tick in ticks])
    _layout(figure, axis, height=470)
    return figure


def skill_figure(history: RunHistory) -> go.Figure | None:
    """R² against step, and the relative equivariance error that a shrinking output cannot hide."""
    curve = history.headline
    if curve is None:
        return None
    axis = style.step_axis(curve.step)
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    _add_r2(figure, curve, axis, history.headline_final, row=1)
    relative = np.where(curve.relative > 0, curve.relative, np.nan)
    figure.add_scatter(x=axis.place(curve.step), y=_list(relative), mode="lines+markers", row=2, col=1,
                       line={"color": style.EQUIVARIANCE, "width": 2}, marker={"size": 6}, showlegend=False,
                       customdata=curve.step.tolist(),
                       hovertemplate="step %{customdata}<br>%{y:.3g} of mean |output|²<extra></extra>")  # fmt: skip
    figure.update_yaxes(type="log", title_text="equiv. error / mean |out|²", exponentformat="power", dtick=1,
                        row=2, col=1)
    _layout(figure, axis, height=520)
    figure.update_xaxes(title_text="", row=1, col=1)
    figure.update_layout(showlegend=False)
    return figure


def panel_figures(history: RunHistory) -> dict[str, go.Figure]:
    """probe -> its small percent figure, all on the same axes; empty for a task with a single probe."""
    curves = list(history.curves.values())
    if len(curves) < 2:
        return {}
    papers = {curve.probe: style.reference_points(history, curve.probe) for curve in curves}
    points = [paper for _, paper in papers.values()]
    axis = style.step_axis(np.concatenate([curve.step for curve in curves] + [paper[:, 0] for paper in points]))
    heights = np.concatenate([paper[:, 1] for paper in points])
    floor = style.percent_floor(curves, heights)
    top = max(style.percent_ceiling(curves), *(heights * 1.4), 4)
    figures = {}
    for curve in curves:
        figure = go.Figure()
        _add_percent(figure, curve, axis, floor, *papers[curve.probe], history.finals.get(curve.probe), small=True)
        _percent_axis(figure, floor, top, title="")
        _layout(figure, axis, height=260)
        figure.update_layout(showlegend=False, margin={"l": 4, "r": 8, "t": 8, "b": 4})
        figures[curve.probe] = figure
    return figures


def _add_percent(
    figure: go.Figure,
    curve: Curve,
    axis: style.StepAxis,
    floor: float,
    label: str,
    paper: np.ndarray,
    final: Mapping | None,
    small: bool = False,
) -> None:
    """Band, line and points of a percent curve, as in the PNG figure."""
    points, x, limit = style.log_points(curve, floor), axis.place(curve.step), curve.is_upper_limit
    size = 6 if small else 8
    if len(paper):
        figure.add_scatter(x=axis.place(paper[:, 0]), y=paper[:, 1].tolist(), mode="lines+markers", name=label,
                           line={"color": style.PAPER, "dash": "dash", "width": 1.5},
                           marker={"symbol": "x-thin", "size": size, "line": {"color": style.PAPER, "width": 2}},
                           hovertemplate="paper: %{y:.3g} %<br>step %{x:,.0f}<extra></extra>")  # fmt: skip
    figure.add_scatter(x=[axis.low, axis.high], y=[THRESHOLD, THRESHOLD], mode="lines", name=f"{THRESHOLD:g} % line",
                       line={"color": style.LIMIT, "dash": "dash", "width": 1.5}, hoverinfo="skip")
    for index, part in enumerate(_stretches(np.isfinite(points.low) & np.isfinite(points.high))):
        figure.add_scatter(x=np.concatenate([x[part], x[part][::-1]]), mode="lines", fill="toself",
                           y=np.concatenate([points.high[part], points.low[part][::-1]]), fillcolor=style.BAND,
                           line={"width": 0}, hoverinfo="skip", name="95 % interval", legendgroup="band",
                           showlegend=index == 0)
    figure.add_scatter(x=x, y=_list(points.y), mode="lines", line={"color": style.OURS, "width": 2.2},
                       hoverinfo="skip", showlegend=False)
    texts = np.array([_hover(curve, i) for i in range(len(curve))], dtype=object)
    shown, skilled = ~points.at_floor & ~limit, curve.r2 >= SKILL
    for chosen, y, name, marker in (
        (shown & skilled, points.y, f"measured, R² ≥ {SKILL:g}", {"symbol": "circle"}),
        (shown & ~skilled, points.y, f"measured, R² < {SKILL:g}: not skilled", {"symbol": "circle", "color": "white"}),
        (points.at_floor, points.y, "estimate ≤ 0, or under the axis",
         {"symbol": "triangle-down", "color": style.INK, "size": size + 3}),
    ):  # fmt: skip
        if chosen.any():
            look: dict = {"size": size, "color": style.OURS, "line": {"color": style.OURS, "width": 1.6}} | marker
            figure.add_scatter(x=x[chosen].tolist(), y=y[chosen].tolist(), mode="markers", name=name, marker=look,
                               text=texts[chosen].tolist(), hovertemplate="%{text}<extra></extra>",
                               cliponaxis=False)  # fmt: skip
    if limit.any():
        # A bar at the limit and an arrow down from it, as limits are drawn in print.
        bar = {"symbol": "line-ew", "size": size + 3, "line": {"color": style.OURS, "width": 2}}
        arrow = {"symbol": "triangle-down", "size": size - 1, "color": style.OURS}
        shaft = {"type": "data", "symmetric": False, "array": [0] * int(limit.sum()), "width": 0, "thickness": 1.6,
                 "arrayminus": (0.38 * points.high[limit]).tolist(), "color": style.OURS}  # fmt: skip
        figure.add_scatter(x=x[limit].tolist(), y=points.high[limit].tolist(), mode="markers", marker=bar,
                           error_y=shaft, name="upper limit only", text=texts[limit].tolist(),
                           hovertemplate="%{text}<extra></extra>")  # fmt: skip
        figure.add_scatter(x=x[limit].tolist(), y=(0.62 * points.high[limit]).tolist(), mode="markers", marker=arrow,
                           hoverinfo="skip", showlegend=False)  # fmt: skip
    _add_final(figure, final, axis, floor, size)


def _add_final(figure: go.Figure, final: Mapping | None, axis: style.StepAxis, floor: float, size: int) -> None:
    result = final["result"] if final is not None else {}
    percent = number(result.get("percent"))
    if final is None or not np.isfinite(percent):
        return
    low, high = (number(value) for value in result.get("percent_interval") or (None, None))
    y, bars = max(percent, floor), None
    if np.isfinite([low, high]).all():
        up, down = max(high - y, 0), max(y - max(low, floor), 0)
        bars = {"type": "data", "symmetric": False, "array": [up], "arrayminus": [down], "width": 0, "thickness": 1.6,
                "color": style.INK}  # fmt: skip
    figure.add_scatter(x=axis.place([final["step"]]), y=[y], mode="markers", name="final, on the independent set",
                       error_y=bars, marker={"symbol": "diamond", "size": size + 2, "color": style.INK,
                                             "line": {"color": "white", "width": 1}},
                       hovertemplate=f"final, step {final['step']:,}: {percent:.3g} %<extra></extra>")  # fmt: skip


def _add_r2(figure: go.Figure, curve: Curve, axis: style.StepAxis, final: Mapping | None, row: int) -> None:
    """R² on a linear axis cut at −0.5: values far under zero (an untrained model) are drawn at the edge."""
    shown, x = np.maximum(curve.r2, -0.5), axis.place(curve.step)
    for level, colour, dash in ((SKILL, style.SKILLED, "dash"), (0.0, style.GREY, "solid")):
        figure.add_scatter(x=[axis.low, axis.high], y=[level, level], mode="lines", hoverinfo="skip", showlegend=False,
                           line={"color": colour, "dash": dash, "width": 1.3}, row=row, col=1)
    symbols = np.where(curve.r2 < -0.5, "triangle-down", "circle").tolist()
    figure.add_scatter(x=x, y=_list(shown), mode="lines+markers", showlegend=False, row=row, col=1, cliponaxis=False,
                       line={"color": style.INK, "width": 1.8},
                       marker={"symbol": symbols, "size": 7, "line": {"color": style.INK, "width": 1.4},
                               "color": [style.INK if r2 >= SKILL else "white" for r2 in curve.r2]},
                       text=[f"step {s:,}<br>R² {style.r2_text(r)}" for s, r in zip(curve.step, curve.r2, strict=True)],
                       hovertemplate="%{text}<extra></extra>")  # fmt: skip
    r2 = number(final["result"].get("r2")) if final is not None else np.nan
    if final is not None and np.isfinite(r2):
        figure.add_scatter(x=axis.place([final["step"]]), y=[max(r2, -0.5)], mode="markers", showlegend=False, row=row,
                           col=1, marker={"symbol": "diamond", "size": 10, "color": style.INK,
                                          "line": {"color": "white", "width": 1}},
                           hovertemplate=f"final: R² {style.r2_text(r2)}<extra></extra>")  # fmt: skip
    far = bool((curve.r2 < -0.1).any())
    ticks = [-0.5, 0, 0.5, 1] if far else [0, 0.5, 1]
    figure.update_yaxes(range=[-0.55 if far else -0.12, 1.06], title_text="R²", tickvals=ticks, row=row, col=1,
                        ticktext=[style.r2_text(t).rstrip("0").rstrip(".") or "0" for t in ticks])


def _percent_axis(figure: go.Figure, floor: float, top: float, title: str) -> None:
    ticks = style.decade_ticks(floor, top)
    figure.update_layout(yaxis={
        "type": "log", "range": [float(np.log10(floor * 0.85)), float(np.log10(top))], "title": {"text": title},
        "tickvals": ticks, "ticktext": [style.percent_label(tick) for tick in ticks],
    })  # fmt: skip


def _layout(figure: go.Figure, axis: style.StepAxis, height: int) -> None:
    figure.update_layout(
        template="none", height=height, autosize=True, hovermode="closest",
        paper_bgcolor="white", plot_bgcolor="white", font={"family": _FONT, "size": 13, "color": style.INK},
        margin={"l": 10, "r": 14, "t": 10, "b": 10},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": -0.14, "yanchor": "top", "font": {"size": 12.5},
                "tracegroupgap": 0, "entrywidth": 0.49, "entrywidthmode": "fraction", "itemclick": False,
                "itemdoubleclick": False},
    )  # fmt: skip
    figure.update_xaxes(
        type="log", range=[float(np.log10(axis.low)), float(np.log10(axis.high))], title_text="training step",
        tickvals=list(axis.ticks), ticktext=list(axis.labels), gridcolor=style.GRID, linecolor="#9aa1aa", showline=True,
        ticks="outside", tickcolor="#9aa1aa", automargin=True, zeroline=False, title_standoff=6,
    )  # fmt: skip
    figure.update_yaxes(gridcolor=style.GRID, linecolor="#9aa1aa", showline=True, zeroline=False, automargin=True,
                        ticks="outside", tickcolor="#9aa1aa", title_standoff=8)


def _hover(curve: Curve, i: int) -> str:
    interval = f" (95 %: {curve.low[i]:.3g} to {curve.high[i]:.3g})" if np.isfinite(curve.high[i]) else ""
    kind = ", upper limit" if curve.interval_kind[i] == "upper limit" else ""
    return f"step {curve.step[i]:,}<br>{curve.percent[i]:.3g} %{interval}{kind}<br>R² {style.r2_text(curve.r2[i])}"


def _stretches(flags: np.ndarray) -> list[slice]:
    """The unbroken stretches of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return [slice(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _list(values: np.ndarray) -> list[float | None]:
    """Plain numbers for plotly, None (a gap) for what is not finite."""
    return [float(value) if np.isfinite(value) else None for value in values]
