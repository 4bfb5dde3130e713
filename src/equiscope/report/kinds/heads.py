"""The head: its weights and features, and the equivariance error they cause."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from equiscope.report import style
from equiscope.report.chart import Chart, Panel, Series
from equiscope.report.kinds import Kind, Related, Table, relation_table
from equiscope.report.style import Axis
from equiscope.words import digits, minus

#: The three factors whose product is the exact form of the error.
FACTORS = ("variance", "features", "alignment")
DRAWN = (
    ("equivariance", "equivariance error, by rotations", style.EQUIVARIANCE, "solid"),
    ("form", "exact form, other samples", style.INK, "dot"),
    ("variance", "weight variance", style.OURS, "dash"),
    ("features", "size of the features", style.SKILLED, "dash"),
    ("alignment", "alignment of the two", style.PURPLE, "dash"),
)


@dataclass(frozen=True)
class Factors:
    """form = variance x features x alignment."""

    form: float
    variance: float
    features: float
    alignment: float


@dataclass(frozen=True)
class Head:
    """Values of a record: the error measured with rotations, and the exact form of it on other samples."""

    percent: float
    equivariance: float
    equivariance_error: float
    elsewhere: Factors

    def figure(self, key: str) -> float:
        return self.equivariance if key == "equivariance" else float(getattr(self.elsewhere, key))


def words(steps: Mapping[int, Head], related: Related) -> tuple[str, list[Table]]:
    """Error, exact form and factors at each step, and the correlations along training."""
    rows = [
        [f"{step:,}", digits(found.percent), digits(found.equivariance, found.equivariance_error),
         *(digits(getattr(found.elsewhere, key)) for key in ("form", *FACTORS))]
        for step, found in steps.items()
    ]  # fmt: skip
    head = ["step", "percent of the loss", "equivariance error, [loss]", "exact form, [loss]", "weight variance",
            "features", "alignment"]  # fmt: skip
    caption = (
        "Error as measured with rotations on the tracked samples; the form and its three factors (form = variance × "
        "features × alignment) on other samples."
    )
    tables = relation_table(related, ("weight variance", "exact form", "features", "alignment"))
    return _verdict(steps, related), [Table(head, rows, caption), *tables]


def _verdict(steps: Mapping[int, Head], related: Related) -> str:
    """Whether the plain variance or the exact form explains the error once the trend is out, and what changed most."""
    usable = [found.elsewhere for found in steps.values() if found.equivariance > 0 and found.elsewhere.alignment > 0]
    sentences = []
    if len(steps) == 1:
        ((step, only),) = steps.items()
        factors = " × ".join(f"{name} {digits(getattr(only.elsewhere, name))}" for name in FACTORS)
        return (
            f"At step {step:,}, the one that was analysed, the equivariance error is "
            f"{digits(only.equivariance, only.equivariance_error)} and its exact form on other samples "
            f"{digits(only.elsewhere.form)} = {factors}."
        )
    if len(usable) >= 2:
        first, last = usable[0], usable[-1]
        falls = {key: -math.log10(getattr(last, key) / getattr(first, key)) for key in FACTORS}
        parts = ", ".join(minus(f"{name} {value:+.2f}") for name, value in falls.items())
        sentences.append(
            f"From the first to the last of these steps the form fell by {sum(falls.values()):.2f} powers of ten; its "
            f"factors give {parts} (+ lowers the error)."
        )
    plain, form = (related.get(f"equivariance error ~ {what}") for what in ("weight variance", "exact form"))
    if plain and form:
        told = [
            f"{what} correlates with the error by {one.partial.words} given log step and by {one.differences.words} in "
            "first differences"
            for what, one in (("the plain weight variance", plain), ("the exact form", form))
        ]
        better = form.differences.low > plain.differences.high
        ends = "the form explains the error, the variance does not" if better else "the two are not told apart"
        sentences.append(f"With the common trend taken out {told[0]}; {told[1]}: {ends}.")
    return " ".join(sentences) or "Too few steps were analysed for a verdict."


def chart(steps: Mapping[int, Head]) -> Chart | None:
    """Error, exact form and its three factors against step, each divided by its largest value; one step is no curve."""
    if len(steps) < 2:
        return None
    axis, series = style.step_axis(list(steps)), []
    for key, name, colour, line in DRAWN:
        values = np.array([found.figure(key) for found in steps.values()])
        values = np.where(values > 0, values, np.nan)
        if np.isfinite(values).any():
            hover = [f"{name}<br>step {step:,}<br>{digits(v)}" for step, v in zip(steps, values, strict=True)]
            series.append(Series(axis.place(list(steps)), values / np.nanmax(values), name, colour, line, "circle",
                                 width=2, hover=hover))  # fmt: skip
    return Chart([[Panel(axis, Axis("relative to its largest value", True), series)]], height=460)


CAPTION = (
    "The equivariance error and the three factors it is the product of, each relative to its largest value, "
    "on logarithmic axes: the error falls with whichever factor falls."
)
KIND = Kind(5, "The head: weights, features, and the error they cause", Head, words, chart, CAPTION)
