"""Landscapes of the two losses as surfaces: plotly for the browser, matplotlib for a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from equiscope.report import style
from equiscope.report.curvature import PARTS
from equiscope.report.text import Section

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
# Far enough for the corners of the box to stay inside a narrow scene.
_EYE = {"x": 1.75, "y": -1.75, "z": 1.1}


def _plane(section: Section) -> tuple[int, Mapping[str, Any]] | None:
    """The last analysed step that has a plane."""
    found = [(step, values["plane"]) for step, values in section.steps.items() if values["plane"]]
    return found[-1] if found else None


def _surface(plane: Mapping[str, Any], part: str) -> np.ndarray:
    """Change of a loss from the middle point, (rows along y, columns along x)."""
    values = np.array(plane["parts"][part]["value"], dtype=float)
    return values - values[tuple(n // 2 for n in values.shape)]


def plotly_figure(section: Section) -> go.Figure | None:
    """Two surfaces side by side."""
    found = _plane(section)
    if found is None:
        return None
    step, plane = found
    figure = make_subplots(rows=1, cols=2, specs=[[{"type": "surface"}] * 2], horizontal_spacing=0.02,
                           subplot_titles=[f"{name}, step {step:,}" for name in PARTS.values()])  # fmt: skip
    for column, (part, name) in enumerate(PARTS.items(), start=1):
        figure.add_surface(
            x=plane["x"], y=plane["y"], z=_surface(plane, part), colorscale="Viridis", showscale=False, row=1,
            col=column,
            contours={"z": {"show": True, "usecolormap": True, "project": {"z": True}}},
            hovertemplate=f"{name}: %{{z:.3g}}<br>%{{x:.3g}}, %{{y:.3g}}<extra></extra>",
        )  # fmt: skip
    axes = [axis.rpartition(":")[2] for axis in plane["axes"]]
    scene = {
        "camera": {"eye": _EYE, "center": {"x": 0, "y": 0, "z": -0.12}}, "aspectmode": "cube",
        "xaxis": {"title": {"text": axes[0]}, "nticks": 5}, "yaxis": {"title": {"text": axes[1]}, "nticks": 5},
        "zaxis": {"title": {"text": ""}, "nticks": 5},
    }  # fmt: skip
    figure.update_layout(
        template="none", height=460, scene=scene, scene2=scene, paper_bgcolor="white", showlegend=False,
        font={"family": _FONT, "size": 11, "color": style.INK}, margin={"l": 4, "r": 4, "t": 34, "b": 4},
    )  # fmt: skip
    return figure


def png_figure(section: Section) -> Figure | None:
    """Above the lines along each direction with error bars, below the plane as contours."""
    found = _plane(section)
    if found is None:
        return None
    step, plane = found
    values = section.steps[step]
    figure = Figure(figsize=(8.6, 7.0), layout="constrained")
    grid = figure.subplots(2, 2)
    for axes, (part, name) in zip(grid[0], PARTS.items(), strict=True):
        for place, (direction, parts) in enumerate(values["lines"].items()):
            line = np.array(parts[part]["value"], dtype=float)
            error = np.array([np.nan if e is None else e for e in parts[part]["error"]], dtype=float)
            axes.errorbar(values["t"], line - line[len(line) // 2], 1.96 * error, marker="o", ms=3, capsize=2,
                          color=(style.OURS, style.EQUIVARIANCE, style.SKILLED)[place % 3],
                          label=direction.replace("eigenvector:", "eigenvector of "))  # fmt: skip
        axes.set(title=f"{name}, step {step:,}", xlabel="displacement / |θ|", ylabel="change of the loss")
        axes.legend(fontsize=7)
    for axes, part in zip(grid[1], PARTS, strict=True):
        drawn = axes.contourf(plane["x"], plane["y"], _surface(plane, part), levels=16, cmap="viridis")
        figure.colorbar(drawn, ax=axes, fraction=0.05)
        axes.plot(0, 0, "+", color="white", ms=10, mew=2)
        names = [axis.replace("eigenvector:", "eigenvector of ") for axis in plane["axes"]]
        axes.set(xlabel=names[0], ylabel=names[1])
        axes.grid(False)
    return figure
