"""Exact condition numbers of the head on the page: table, verdict, and the spectra they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from equiscope.report import style
from equiscope.report.chart import Chart, Panel, Series
from equiscope.report.kinds import PARTS, Kind, Related, Table, lower
from equiscope.report.style import Axis
from equiscope.report.views import Figure, Interval
from equiscope.words import digits, ranged, text

_COLOURS = {"twirled": style.OURS, "equivariance": style.EQUIVARIANCE}


@dataclass(frozen=True)
class Eigenvalues:
    """The eigenvalues of one part's Hessian, ascending, how many are above rounding, and their condition number."""

    eigenvalues: tuple[float, ...]
    rank: int
    condition: float
    interval: Interval

    @property
    def kept(self) -> np.ndarray:
        """Eigenvalues above rounding, descending."""
        return np.array(self.eigenvalues[::-1][: self.rank])


@dataclass(frozen=True)
class Conditioning:
    """Values of a record: of the head ``layer`` with so many parameters; ratio of the two condition numbers."""

    layer: str
    parameters: int
    parts: dict[str, Eigenvalues]
    ratio: Figure


def words(steps: Mapping[int, Conditioning], related: Related) -> tuple[str, list[Table]]:
    """Rank, largest and smallest eigenvalue and condition number of each part, and their ratio."""
    rows = []
    for step, values in steps.items():
        for part, name in PARTS.items():
            found, own = values.parts[part], part == "equivariance"
            rows.append([
                f"{step:,}", name, f"{found.rank:,} of {values.parameters:,}", digits(found.eigenvalues[-1]),
                digits(found.kept[-1] if found.rank else None), ranged(found.condition, found.interval),
                values.ratio.words if own else "–",
            ])  # fmt: skip
    head = ["step", "part of the loss", "rank", "largest, [loss]", "smallest, [loss]", "condition number", "its ratio"]
    caption = (
        "Largest and smallest eigenvalue above rounding, their quotient, and its ratio to that of the twirled loss. "
        "Dense Hessians of the head in float64, exact for its linear answer under squared error; the other weights are "
        "held fixed. 95 % intervals over independent batches. A condition number of finitely many samples is biased "
        "upwards."
    )
    return _verdict(steps), [Table(head, rows, caption)]


def _verdict(steps: Mapping[int, Conditioning]) -> str:
    sides = [lower(values.ratio) for values in steps.values()]
    under, over, same = (sides.count(side) for side in ("lower", "higher", "equal"))
    verdict = (
        "better conditioned" if under == len(sides) else "worse conditioned" if over == len(sides)
        else "conditioned like the twirled loss" if same == len(sides) else "not the same at every step"
    )  # fmt: skip
    last = steps[max(steps)]
    return (
        f"In the head ({last.layer}) the equivariance error is {verdict}: at step {max(steps):,} its condition number "
        f"is {last.ratio.words} times that of the twirled loss; with its whole interval "
        f"it is lower at {under} and higher at {over}{f', equal at {same}' if same else ''} of {len(sides)} steps."
    )


def chart(steps: Mapping[int, Conditioning]) -> Chart:
    """The spectra at the last step, and the condition numbers along training."""
    last, axis = max(steps), style.step_axis(list(steps))
    spectra, curves, every = [], [], []
    for part, name in PARTS.items():
        kept, colour = steps[last].parts[part].kept, _COLOURS[part]
        spectra.append(Series(np.arange(1, len(kept) + 1), kept / kept[:1], name, colour, "solid"))
        found = [values.parts[part] for values in steps.values()]
        value = np.array([one.condition for one in found])
        ends = np.array([one.interval for one in found])
        low, high = np.where(np.isfinite(ends), ends, value[:, None]).T
        hover = [f"{name}<br>step {step:,}: {digits(v)}" for step, v in zip(steps, value, strict=True)]
        curves.append(Series(axis.place(list(steps)), value, name, colour, "solid", "circle", low=low, high=high,
                             hover=hover))  # fmt: skip
        every += [value, low, high]
    shares = _decades("relative to the largest", np.concatenate([one.y for one in spectra]))
    numbers = _decades("", np.concatenate(every))
    left = Panel(Axis("place by size"), shares, spectra, f"eigenvalues at step {last:,}")
    right = Panel(axis, numbers, curves, "condition number along training")
    return Chart([[left, right]], (8.6, 3.9), 420)


def _decades(title: str, values: np.ndarray) -> Axis:
    """From one whole power of ten to another around what is finite."""
    finite = values[np.isfinite(values) & (values > 0)]
    if not finite.size:
        return Axis(title, True)
    low, high = np.floor(np.log10(finite.min())), np.ceil(np.log10(finite.max()))
    return Axis(title, True, float(10**low), float(10 ** max(high, low + 1)))


def evidence(values: Conditioning) -> tuple[str, str, str] | None:
    """Condition numbers of the head's dense Hessians, and the interval of their ratio."""
    if not values.parts:
        return None
    told = ", ".join(f"{part} {text(values.parts[part].condition)}" for part in ("equivariance", "twirled"))
    interval = f"ratio of condition numbers in [{', '.join(map(text, values.ratio.interval))}]"
    return f"condition number in layer {values.layer}: {told}", interval, lower(values.ratio)


CAPTION = (
    "Left: the eigenvalues of both Hessians of the head at the last analysed step, each relative to "
    "its largest; the last one above rounding gives the condition number. A step down marks where the directions end "
    "that this part of the loss owns. Right: the condition numbers along training, with 95 % intervals."
)
KIND = Kind(
    4, "Condition numbers of the two losses in the head", Conditioning, words, chart, CAPTION, evidence
)  # fmt: skip
