"""Exact condition numbers of the head on the page: table, verdict, and the spectra they come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from equiscope.report import style
from equiscope.report.curvature import PARTS, ranged
from equiscope.report.curves import number
from equiscope.report.text import Section, Table, Values, digits

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_COLOURS = {"twirled": style.OURS, "equivariance": style.EQUIVARIANCE}


def conditioning(steps: Mapping[int, Values], related: Values) -> tuple[str, list[Table]]:
    """Rank, largest and smallest eigenvalue and condition number of each part, and their ratio."""
    rows = []
    for step, values in steps.items():
        for part, name in PARTS.items():
            found = values["parts"][part]
            condition = {"value": found["condition"], "interval": found["interval"]}
            rows.append([
                f"{step:,}", name, f"{found['rank']:,} of {values['parameters']:,}",
                digits(found["eigenvalues"][-1]), digits(_kept(found)[-1] if found["rank"] else None),
                ranged(condition), ranged(values["ratio"]) if part == "equivariance" else "–",
            ])  # fmt: skip
    head = ["step", "part of the loss", "rank", "largest", "smallest", "condition number", "its ratio"]
    caption = (
        "Largest and smallest eigenvalue above rounding, their quotient, and its ratio to that of the twirled loss. "
        "Dense Hessians of the head in float64, exact for its linear answer under squared error; the other weights are "
        "held fixed. 95 % intervals over independent batches. A condition number of finitely many samples is biased "
        "upwards."
    )
    return _verdict(steps), [Table(head, rows, caption)]


def _verdict(steps: Mapping[int, Values]) -> str:
    ratios = [(number(v["ratio"]["value"]), *map(number, v["ratio"]["interval"])) for v in steps.values()]
    lower, higher = sum(high < 1 for _, _, high in ratios), sum(low > 1 for _, low, _ in ratios)
    verdict = (
        "better conditioned" if lower == len(ratios) else "worse conditioned" if higher == len(ratios)
        else "not the same at every step"
    )  # fmt: skip
    last = max(steps)
    return (
        f"In the head ({steps[last]['layer']}) the equivariance error is {verdict}: at step {last:,} its condition "
        f"number is {ranged(steps[last]['ratio'])} times that of the twirled loss; with its whole interval it is lower "
        f"at {lower} and higher at {higher} of {len(ratios)} steps."
    )


def _kept(found: Mapping[str, Any]) -> np.ndarray:
    """Eigenvalues above rounding, descending."""
    return np.array(found["eigenvalues"], dtype=float)[::-1][: found["rank"]]


def _spectra(section: Section) -> tuple[int, dict[str, np.ndarray]]:
    """The last step, and of each part its eigenvalues relative to the largest."""
    last = max(section.steps)
    return last, {part: (v := _kept(section.steps[last]["parts"][part])) / v[:1] for part in PARTS}


def _curve(section: Section, part: str) -> np.ndarray:
    """Step, condition number and its limits, (steps, 4); a missing limit is the value."""
    rows = []
    for step, values in section.steps.items():
        found = values["parts"][part]
        value = number(found["condition"])
        limits = [number(limit) for limit in found["interval"]]
        rows.append([step, value, *(limit if np.isfinite(limit) else value for limit in limits)])
    return np.array(rows, dtype=float)


def _decades(values: np.ndarray) -> list[float] | None:
    """Whole powers of ten around what is finite, as an axis has them."""
    finite = values[np.isfinite(values) & (values > 0)]
    return [float(np.floor(np.log10(finite.min()))), float(np.ceil(np.log10(finite.max())))] if finite.size else None


def plotly_figure(section: Section) -> go.Figure:
    """The spectra at the last step, and the condition numbers along training."""
    last, spectra = _spectra(section)
    axis = style.step_axis(list(section.steps))
    titles = (f"eigenvalues at step {last:,}", "condition number along training")
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.12, subplot_titles=titles)
    for part, name in PARTS.items():
        own, colour = spectra[part], _COLOURS[part]
        figure.add_scatter(x=np.arange(1, len(own) + 1), y=own, name=name, line={"color": colour}, row=1, col=1)
        steps, value, low, high = _curve(section, part).T
        figure.add_scatter(
            x=axis.place(steps), y=value, name=name, showlegend=False, mode="lines+markers", line={"color": colour},
            error_y={"type": "data", "symmetric": False, "array": high - value, "arrayminus": value - low}, row=1,
            col=2, customdata=steps, hovertemplate=f"{name}<br>step %{{customdata:,}}: %{{y:.3g}}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        template="none", height=420, paper_bgcolor="white", plot_bgcolor="white", hovermode="closest",
        font={"family": _FONT, "size": 13, "color": style.INK}, margin={"l": 10, "r": 14, "t": 34, "b": 10},
        legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
    )  # fmt: skip
    figure.update_xaxes(title_text="place by size", row=1, col=1)
    figure.update_xaxes(type="log", range=[float(np.log10(axis.low)), float(np.log10(axis.high))],
                        tickvals=list(axis.ticks), ticktext=list(axis.labels), title_text="training step", row=1,
                        col=2)  # fmt: skip
    figure.update_xaxes(gridcolor=style.GRID, automargin=True, zeroline=False)
    figure.update_yaxes(title_text="relative to the largest", row=1, col=1)
    figure.update_yaxes(type="log", exponentformat="power", gridcolor=style.GRID, automargin=True, zeroline=False)
    numbers = np.stack([_curve(section, part)[:, 1:] for part in PARTS])
    figure.update_yaxes(range=_decades(numbers), dtick=1, row=1, col=2)
    return figure


def png_figure(section: Section) -> Figure:
    """As :func:`plotly_figure`."""
    last, spectra = _spectra(section)
    axis = style.step_axis(list(section.steps))
    figure = Figure(figsize=(8.6, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    for part, name in PARTS.items():
        colour = _COLOURS[part]
        left.plot(np.arange(1, len(spectra[part]) + 1), spectra[part], color=colour, label=name)
        steps, value, low, high = _curve(section, part).T
        right.errorbar(axis.place(steps), value, [value - low, high - value], marker="o", ms=4, capsize=2, color=colour)
    left.set(title=f"eigenvalues at step {last:,}", xlabel="place by size", ylabel="relative to the largest")
    left.set_yscale("log")
    right.set(title="condition number along training", xscale="log", yscale="log", xlabel="training step")
    right.set_xlim(axis.low, axis.high)
    right.set_xticks(axis.ticks, axis.labels)
    right.minorticks_off()
    left.legend(fontsize=8)
    return figure
