"""Tables and numbers of the analyses as text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from equiscope.report.curves import number

Values = Mapping[str, Any]
PAPER = {
    "percent ~ gradient ratio": "0.75 / 0.59 (EScAIP)",
    "equivariance error ~ weight variance": "0.94 / 0.99 (EScAIP)",
}


@dataclass(frozen=True)
class Table:
    """A table of the page: its column names, its rows of text, and a sentence under it."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """One analysis of one probe.

    Attributes:
        name: of the analysis; probe; title; lead: the result in a sentence.
        tables: of the page. steps: step -> values, for the figures.
    """

    name: str
    probe: str
    title: str
    lead: str
    tables: Sequence[Table]
    steps: Mapping[int, Values]


def digits(value: Any, error: Any = None) -> str:
    """Three significant digits, with the error's two; a dash for what is missing."""
    value = number(value)
    if not math.isfinite(value):
        return "–"
    shown = f"{value:.3g}".replace("-", "−")
    error = number(error)
    return f"{shown} ± {error:.1g}" if math.isfinite(error) and error > 0 else shown


def share(value: Any, error: Any = None) -> str:
    """A share as a percent with its error; no more digits than the error warrants."""
    value, error = 100 * number(value), 100 * number(error)
    if not math.isfinite(value):
        return "–"
    decimals = 1 if not math.isfinite(error) or error >= 0.05 else 2
    text = f"{value:.{decimals}f}"
    text = f"{0:.{decimals}f}" if float(text) == 0 else text.replace("-", "−")
    return f"{text} ± {error:.{decimals}f}" if math.isfinite(error) and error >= 0.005 else text


def relation_table(related: Values, words: Sequence[str]) -> Table:
    """Correlations of the pairs whose name holds one of ``words``."""
    chosen = {name: values for name, values in related.items() if any(word in name for word in words)}
    rows = [
        [name, f"{number(v['pearson']['value']):.2f} / {number(v['spearman']['value']):.2f}".replace("-", "−"),
         interval(v["partial"]), interval(v["differences"]), PAPER.get(name, "–"), f"{v['points']}"]
        for name, v in chosen.items()
    ]  # fmt: skip
    head = ["along training", "Pearson / Spearman of logs", "given log step", "first differences", "paper", "points"]
    caption = (
        "Two quantities that both fall with time correlate whatever their connection; the third and fourth columns "
        "take that common trend out (95 % intervals, with an effective number of points)."
    )
    return Table(head, rows, caption)


def interval(values: Values) -> str:
    """A correlation with its 95 % interval."""
    value, low, high = (number(values[key]) for key in ("value", "low", "high"))
    if not math.isfinite(value):
        return "–"
    return f"{value:.2f} ({low:.2f} to {high:.2f})".replace("-", "−")
