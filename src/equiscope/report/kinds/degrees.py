"""Shares of a variance by Wigner degree: of each layer's features inside the network, and of the equivariance error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from equiscope.report.chart import Chart, Heat
from equiscope.report.kinds import Kind, Related, Table
from equiscope.report.style import Axis
from equiscope.words import digits, minus, share

# Of the colours, as powers of ten of a percent.
_TICKS = (-2, -1, 0, 1, 2)


@dataclass(frozen=True)
class Shares:
    """Shares of a variance at each Wigner degree and above the last, with their standard errors."""

    degrees: tuple[int, ...]
    share: tuple[float, ...]
    error: tuple[float, ...]
    remainder: float
    remainder_error: float

    @property
    def names(self) -> list[str]:
        return [f"l = {degree}" for degree in self.degrees] + [f"l > {self.degrees[-1]}"]

    @property
    def all(self) -> list[float]:
        return [*self.share, self.remainder]

    @property
    def cells(self) -> list[str]:
        errors = [*self.error, self.remainder_error]
        return [share(value, error) for value, error in zip(self.all, errors, strict=True)]


@dataclass(frozen=True)
class DegreeShares(Shares):
    """Values of a record; percent: the equivariance error's of the loss."""

    percent: float


def spectrum_words(steps: Mapping[int, DegreeShares], related: Related) -> tuple[str, list[Table]]:
    """The shares at each step, and the degree of most of the error at the last."""
    rows = [[f"{step:,}", digits(values.percent), *values.cells] for step, values in steps.items()]
    last = steps[max(steps)]
    most = max(last.all)
    degree = last.names[last.all.index(most)]
    lead = f"At step {max(steps):,} most of the equivariance error, {share(most)} %, is of Wigner degree {degree}."
    if not math.isfinite(most):
        lead = f"At step {max(steps):,} there is no equivariance error that could have a Wigner degree."
    head = ["step", "percent of the loss", *last.names]
    return lead, [Table(head, rows, "Percent of the equivariance error at each Wigner degree, ± standard error.")]


@dataclass(frozen=True)
class Layer(Shares):
    """The shares of one layer's features; none of a layer that does not vary."""

    name: str
    width: int


@dataclass(frozen=True)
class Layers:
    """Values of a record, layers in order of execution."""

    layers: tuple[Layer, ...]

    @property
    def varying(self) -> list[Layer]:
        return [layer for layer in self.layers if layer.share]


def layer_words(steps: Mapping[int, Layers], related: Related) -> tuple[str, list[Table]]:
    """The shares of each layer at the last step, and the layer that turns most."""
    last = max(steps)
    found = steps[last].varying
    head = ["layer", *found[0].names, "features"] if found else ["layer"]
    rows = [[layer.name, *layer.cells, f"{layer.width:,}"] for layer in found]
    lead = "No layer that was looked at varies."
    if found:
        turning = [layer for layer in found if not layer.name.startswith("answer")]
        most = max(turning or found, key=lambda layer: 1 - layer.share[0])
        turns = 1 - most.share[0]
        lead = (
            f"At step {last:,} the features of every layer before the answer are invariant: less than 0.01 % of their "
            "variance turns with the sample (l ≥ 1)."
            if turning and turns < 1e-4
            else f"At step {last:,} the layer whose features depend most on the orientation is {most.name}: "
            f"{share(turns, most.error[0])} % of its variance turns with the sample (l ≥ 1); "
            "an invariant network has 0 % everywhere."
        )
    caption = (
        f"Percent of the layer’s variance at each Wigner degree at step {last:,}, ± standard error over independent "
        "samples; layers in order of execution."
    )
    return lead, [Table(head, rows, caption)]


def layer_chart(steps: Mapping[int, Layers]) -> Chart:
    """Layers x degrees as a heat map, one for each analysed step."""
    scale = Axis("% of the layer’s variance", ticks=_TICKS, labels=[f"{10.0**tick:g}" for tick in _TICKS])
    heats, rows = [], 1
    for step, values in steps.items():
        found = values.varying
        shares = 100 * np.array([layer.all for layer in found], dtype=float).reshape(len(found), -1)
        # Powers of ten of percents: what matters are small shares that grow and shrink.
        colours, texts = np.log10(np.clip(shares, 10.0 ** _TICKS[0], 100)), [[_percent(v) for v in r] for r in shares]
        names, rows = [layer.name for layer in found], max(rows, len(found))
        columns = found[0].names if found else []
        heats.append(Heat(columns, names, colours, texts, Axis("Wigner degree l"), scale, f"{step:,}"))
    size = (1.9 + 2.1 * min(len(heats), Chart.most), 1.3 + 0.27 * len(heats[-1].rows))
    return Chart([heats], size, 170 + 27 * rows, shared=True, slider="training step ")


def _percent(value: float) -> str:
    """Two decimals under one percent, one above; "0" for what rounds to it."""
    text = "100" if value >= 99.995 else f"{value:.2f}" if abs(value) < 1 or value > 99 else f"{value:.1f}"
    return "0" if float(text) == 0 else minus(text)


CAPTION = (
    "Percent of each layer’s variance (over samples, rows and rotations) by Wigner degree: what stays the "
    "same when the sample turns is l = 0, what turns like a vector is l = 1. Layers in order of execution; move the "
    "slider to follow training."
)
INSIDE = "Inside the network: where symmetry is lost and won back"
KINDS = {
    "layers": Kind(6, INSIDE, Layers, layer_words, layer_chart, CAPTION, of_error=False),
    "spectrum": Kind(7, "The equivariance error by Wigner degree", DegreeShares, spectrum_words),
}
