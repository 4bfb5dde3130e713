"""Figures of the analyses: layers x degrees, the factors of the head's error along training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure

from equiscope.report import conditioning, landscapes, style
from equiscope.report.curves import number
from equiscope.report.text import Section

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_SHOWN = 4
# Of the colours, as powers of ten of a percent.
_TICKS = (-2, -1, 0, 1, 2)
FACTORS = (
    ("equivariance", "equivariance error, by rotations", style.EQUIVARIANCE, "solid"),
    ("form", "exact form, other samples", style.INK, "dot"),
    ("variance", "weight variance", style.OURS, "dash"),
    ("features", "size of the features", style.SKILLED, "dash"),
    ("alignment", "alignment of the two", style.PURPLE, "dash"),
)
CAPTIONS = {
    "layers": "Percent of each layer’s variance (over samples, rows and rotations) by Wigner degree: what stays the "
    "same when the sample turns is l = 0, what turns like a vector is l = 1. Layers in order of execution; move the "
    "slider to follow training.",
    "landscape": "Change of both losses over the plane of their leading eigenvectors, in units of the loss, at the "
    "last analysed step; the model is in the middle. Each axis is named by the loss whose eigenvector it follows; "
    "displacements are relative to the length of all weights.",
    "conditioning": "Left: the eigenvalues of both Hessians of the head at the last analysed step, each relative to "
    "its largest; the last one above rounding gives the condition number. A step down marks where the directions end "
    "that this part of the loss owns. Right: the condition numbers along training, with 95 % intervals.",
    "heads": "The equivariance error and the three factors it is the product of, each relative to its largest value, "
    "on logarithmic axes: the error falls with whichever factor falls.",
}


def plotly_figure(section: Section) -> go.Figure | None:
    """The figure of a section for the browser."""
    drawings = {"layers": layers_figure, "heads": heads_figure, "landscape": landscapes.plotly_figure,
                "conditioning": conditioning.plotly_figure}  # fmt: skip
    return drawings[section.name](section) if section.name in drawings else None


def png_figure(section: Section) -> Figure | None:
    """The same for a file."""
    drawings = {"layers": layers_png, "heads": heads_png, "landscape": landscapes.png_figure,
                "conditioning": conditioning.png_figure}  # fmt: skip
    return drawings[section.name](section) if section.name in drawings else None


def _grid(values: Mapping[str, Any]) -> tuple[list[str], list[str], np.ndarray]:
    """Layers, degrees and percent of variance (layers, degrees)."""
    found = [layer for layer in values["layers"] if layer["share"] is not None]
    shares = np.array([[*layer["share"], layer["remainder"]] for layer in found], dtype=float) * 100
    last = found[0]["degrees"][-1] if found else 0
    degrees = [f"l = {degree}" for degree in range(last + 1)] + [f"l > {last}"]
    return [layer["name"] for layer in found], degrees, shares


def layers_figure(section: Section) -> go.Figure:
    """Layers x degrees as a heat map, one for each analysed step behind a slider."""
    figure = go.Figure()
    rows = 1
    for place, (_, values) in enumerate(section.steps.items()):
        names, degrees, shares = _grid(values)
        rows = max(rows, len(names))
        bar = {"title": {"text": "% of variance", "side": "right"}, "thickness": 12, "tickvals": _TICKS,
               "ticktext": [f"{10.0**tick:g}" for tick in _TICKS]}  # fmt: skip
        figure.add_heatmap(z=_colours(shares), x=degrees, y=names, zmin=_TICKS[0], zmax=_TICKS[-1], xgap=2, ygap=2,
                           colorscale="Viridis", visible=place == len(section.steps) - 1, text=_texts(shares),
                           texttemplate="%{text}", hovertemplate="%{y}<br>%{x}: %{text} %<extra></extra>",
                           colorbar=bar)  # fmt: skip
    steps = [
        {"label": f"{step:,}", "method": "restyle", "args": [{"visible": [i == k for i in range(len(section.steps))]}]}
        for k, step in enumerate(section.steps)
    ]
    figure.update_layout(
        template="none", height=170 + 27 * rows, paper_bgcolor="white", plot_bgcolor="white",
        font={"family": _FONT, "size": 13, "color": style.INK}, margin={"l": 10, "r": 10, "t": 30, "b": 10},
        sliders=[{"active": len(steps) - 1, "steps": steps, "pad": {"t": 12},
                  "currentvalue": {"prefix": "training step "}}],
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", automargin=True, ticks="")
    figure.update_xaxes(side="top", ticks="", automargin=True)
    return figure


def _colours(shares: np.ndarray) -> np.ndarray:
    """Powers of ten of percents: what matters are small shares that grow and shrink."""
    return np.log10(np.clip(shares, 10.0 ** _TICKS[0], 100))


def _texts(shares: np.ndarray) -> list[list[str]]:
    return [[_percent(value) for value in row] for row in shares]


def _percent(value: float) -> str:
    """Two decimals under one percent, one above; "0" for what rounds to it."""
    text = "100" if value >= 99.995 else f"{value:.2f}" if abs(value) < 1 or value > 99 else f"{value:.1f}"
    return "0" if float(text) == 0 else text.replace("-", "−")


def layers_png(section: Section) -> Figure:
    """Layers x degrees at up to four steps, evenly spread over those analysed."""
    steps = _spread(list(section.steps))
    names, degrees, _ = _grid(section.steps[steps[-1]])
    figure = Figure(figsize=(1.9 + 2.1 * len(steps), 1.3 + 0.27 * len(names)), layout="constrained")
    grid = figure.subplots(1, len(steps), sharey=True, squeeze=False)[0]
    image = None
    for axes, step in zip(grid, steps, strict=True):
        own, degrees, shares = _grid(section.steps[step])
        image = axes.imshow(_colours(shares), vmin=_TICKS[0], vmax=_TICKS[-1], aspect="auto", cmap="viridis")
        for (row, column), value in np.ndenumerate(shares):
            axes.text(column, row, _percent(value), ha="center", va="center", fontsize=7,
                      color="black" if value > 5 else "white")  # fmt: skip
        axes.set_xticks(range(len(degrees)), [d.removeprefix("l ").removeprefix("= ") for d in degrees], fontsize=8)
        axes.set_yticks(range(len(own)), own, fontsize=8)
        axes.set_title(f"step {step:,}", fontsize=10)
        axes.set_xlabel("Wigner degree l")
        axes.grid(False)
    bar = figure.colorbar(image, ax=grid.tolist(), label="% of the layer’s variance", fraction=0.03, ticks=_TICKS)
    bar.set_ticklabels([f"{10.0**tick:g}" for tick in _TICKS])
    return figure


def _spread(steps: Sequence[int]) -> list[int]:
    if len(steps) <= _SHOWN:
        return list(steps)
    places = np.linspace(0, len(steps) - 1, _SHOWN).round().astype(int)
    return [steps[place] for place in places]


def _factor(section: Section, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a factor; NaN for what has no log."""
    place = (lambda v: v[key]) if key == "equivariance" else (lambda v: v["elsewhere"][key])
    values = np.array([number(place(v)) for v in section.steps.values()])
    return np.array(list(section.steps), dtype=float), np.where(values > 0, values, np.nan)


def heads_figure(section: Section) -> go.Figure:
    """Error, exact form and its three factors against step, each divided by its largest value."""
    figure = go.Figure()
    axis = style.step_axis(list(section.steps))
    for key, name, colour, dash in FACTORS:
        steps, values = _factor(section, key)
        if np.isfinite(values).any():
            y = values / np.nanmax(values)
            hover = f"{name}<br>step %{{customdata[0]:,}}<br>%{{customdata[1]:.3g}}<extra></extra>"
            figure.add_scatter(x=axis.place(steps), y=[float(v) if np.isfinite(v) else None for v in y], name=name,
                               mode="lines+markers", line={"color": colour, "dash": dash, "width": 2},
                               marker={"size": 6, "color": colour}, customdata=np.stack([steps, values], axis=1),
                               hovertemplate=hover)  # fmt: skip
    figure.update_layout(
        template="none", height=460, paper_bgcolor="white", plot_bgcolor="white", hovermode="closest",
        font={"family": _FONT, "size": 13, "color": style.INK}, margin={"l": 10, "r": 14, "t": 10, "b": 10},
        legend={"orientation": "h", "x": 0, "y": -0.16, "yanchor": "top", "entrywidth": 0.49,
                "entrywidthmode": "fraction"},
    )  # fmt: skip
    figure.update_xaxes(type="log", range=[float(np.log10(axis.low)), float(np.log10(axis.high))], zeroline=False,
                        tickvals=list(axis.ticks), ticktext=list(axis.labels), title_text="training step",
                        gridcolor=style.GRID, automargin=True)  # fmt: skip
    figure.update_yaxes(type="log", title_text="relative to its largest value", gridcolor=style.GRID, automargin=True,
                        exponentformat="power", dtick=1, zeroline=False)
    return figure


def heads_png(section: Section) -> Figure:
    """As :func:`heads_figure`."""
    figure = Figure(figsize=(8.2, 4.6), layout="constrained")
    axes = figure.subplots()
    axis = style.step_axis(list(section.steps))
    dashes = {"solid": "-", "dot": ":", "dash": "--"}
    for key, name, colour, dash in FACTORS:
        steps, values = _factor(section, key)
        if np.isfinite(values).any():
            axes.plot(axis.place(steps), values / np.nanmax(values), dashes[dash], marker="o", ms=4, color=colour,
                      label=name, lw=2)  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="training step", ylabel="relative to its largest value")
    axes.set_xlim(axis.low, axis.high)
    axes.set_xticks(axis.ticks, axis.labels)
    axes.minorticks_off()
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
