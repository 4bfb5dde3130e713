"""Landscapes of the two parts of the loss: roughness beside its noise, the lines and the plane as a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from equiscope.report import style
from equiscope.report.chart import Chart, Panel, Series, Surface
from equiscope.report.kinds import PARTS, Kind, Related, Table
from equiscope.report.style import Axis
from equiscope.report.views import NAN
from equiscope.words import digits, text


@dataclass(frozen=True)
class Cut:
    """One part of the loss along a line or over a plane, and how rough it is."""

    value: tuple
    error: tuple
    range: float
    roughness: float
    noise: float
    relative: float
    anharmonic: float

    @property
    def change(self) -> np.ndarray:
        """Change from the middle point: along the line, or (rows along y, columns along x)."""
        values = np.array(self.value, dtype=float)
        return values - values[tuple(n // 2 for n in values.shape)]


@dataclass(frozen=True)
class Plane:
    """Both parts over a plane; axes: its two directions."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    axes: tuple[str, ...]
    parts: dict[str, Cut]


@dataclass(frozen=True)
class Landscape:
    """Values of a record: direction -> part -> cut along it at ``t``; rounding: of each part; batches: their number."""

    t: tuple[float, ...]
    lines: dict[str, dict[str, Cut]]
    rounding: dict[str, float]
    batches: int | None
    plane: Plane | None


def words(steps: Mapping[int, Landscape], related: Related) -> tuple[str, list[Table]]:
    """Roughness of each part on lines and plane, beside its noise."""
    rows, rough, compared = [], 0, []
    for step, values in steps.items():
        for place, parts in {**values.lines, **({"their plane": values.plane.parts} if values.plane else {})}.items():
            for part, name in PARTS.items():
                found, rounding = parts[part], values.rounding[part]
                rough += found.roughness > 3 * max(found.noise, rounding)
                figures = (found.range, found.roughness, found.noise, rounding, found.relative, found.anharmonic)
                where = place.replace("eigenvector:", "eigenvector of the ")
                rows.append([f"{step:,}", where, name, *map(digits, figures)])
            compared.append(parts["equivariance"].anharmonic < parts["twirled"].anharmonic)
    head = ["step", "along", "part of the loss", "range, [loss]", "roughness, [loss]", "its noise, [loss]",
            "rounding, [loss]", "roughness / range", "not quadratic / range"]  # fmt: skip
    caption = (
        "Every grid point has the same samples, rotations and mode. Roughness: residual of quadratic fits in small "
        "windows; its noise: from the spread over independent batches; rounding: the change of the loss when every "
        "weight moves by one unit of its last digit. Not quadratic: the residual of one quadratic over the whole grid."
    )
    lead = (
        f"Smoother: the equivariance error is closer to a quadratic than the twirled loss in {sum(compared)} of "
        f"{len(compared)} comparisons. Roughness exceeds three times its noise and rounding in {rough} of {len(rows)} "
        "rows."
    )
    return lead, [Table(head, rows, caption)]


def chart(steps: Mapping[int, Landscape]) -> Chart | None:
    """Above the lines along each direction with error bars, below the plane, of the last step that has a plane."""
    found = [(step, values, values.plane) for step, values in steps.items() if values.plane]
    if not found:
        return None
    step, values, plane = found[-1]
    lines, surfaces = [], []
    for part, name in PARTS.items():
        series = []
        for place, (direction, parts) in enumerate(values.lines.items()):
            change, colour = parts[part].change, (style.OURS, style.EQUIVARIANCE, style.SKILLED)[place % 3]
            error = 1.96 * np.array([NAN if e is None else e for e in parts[part].error], dtype=float)
            series.append(Series(values.t, change, _direction(direction), colour, "solid", "circle", size=3,
                                 low=change - error, high=change + error))  # fmt: skip
        axes = Axis("displacement / |θ|"), Axis("change of the loss, [loss]")
        lines.append(Panel(*axes, series, f"{name}, step {step:,}"))
        x, y = (Axis(_direction(axis)) for axis in plane.axes)
        surfaces.append(Surface(x, y, plane.x, plane.y, plane.parts[part].change, name))
    return Chart([lines, surfaces], (8.6, 7.4), 860, (1, 1.35))


def _direction(name: str) -> str:
    return name.replace("eigenvector:", "eigenvector of ")


def evidence(values: Landscape) -> tuple[str, str, str] | None:
    """Roughness over range of each part along the eigenvector of its own Hessian.

    A landscape of a single batch has no noise level, so that its roughness cannot be told from the noise of the
    evaluation: it is refused. With several, the interval of a roughness is two noise levels to each side, and rounding.
    """
    found = {part: line[part] for name, line in values.lines.items() if (part := name.split(":")[-1]) in line}
    if not found:
        return None
    ours = ", ".join(f"{part} {text(cut.relative)}" for part, cut in found.items())
    ours = f"roughness over range along its own largest eigenvector: {ours}"
    if values.batches is not None and values.batches < 2:
        return ours, "refused as evidence: a single batch gives roughness no noise level", ""
    ends = {}
    for part in PARTS:
        cut = found.get(part)
        noise = 2 * max(cut.noise, values.rounding.get(part, 0.0)) if cut else NAN
        if cut is None or not (math.isfinite(noise) and cut.range > 0):
            return ours, "refused as evidence: no noise level, so none can be told from that of the evaluation", ""
        ends[part] = max(cut.roughness - noise, 0.0) / cut.range, (cut.roughness + noise) / cut.range
    (low, high), (low_equivariance, high_equivariance) = ends["twirled"], ends["equivariance"]
    interval = "; ".join(f"{part} in [{text(a)}, {text(b)}]" for part, (a, b) in ends.items())
    return ours, interval, "lower" if high_equivariance < low else "higher" if low_equivariance > high else ""


CAPTION = (
    "Above: change of both losses along each direction, with 95 % intervals over independent batches. Below: over the "
    "plane of their leading eigenvectors, in units of the loss, at the "
    "last analysed step; the model is in the middle. Each axis is named by the loss whose eigenvector it follows; "
    "displacements are relative to the length of all weights."
)
KIND = Kind(3, "Landscapes of the two losses", Landscape, words, chart, CAPTION, evidence)
