"""What `equiscope analyse` recorded, on the page: for each kind a file with its words, tables and chart.

A kind is found by its file's name: :data:`KIND` of ``kinds/NAME.py`` shows the records of the analysis NAME; a file of
several has ``KINDS`` by name.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from equiscope.errors import first_line
from equiscope.report import paper
from equiscope.report.chart import Chart
from equiscope.report.views import NAN, Figure, Record, view
from equiscope.runs.kinds import newest, registered
from equiscope.words import aligned, correlation

#: What reading records raises that are not as a run writes them.
UNREADABLE = (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError)
#: Two figures are taken as equal where the whole interval of their ratio is this close to one.
EQUIVALENCE = 0.05
#: A ratio this close to one differs from it by rounding at most.
ROUNDING = 1e-6
#: The two parts of the loss that are compared, and their words.
PARTS = {"twirled": "twirled loss", "equivariance": "equivariance error"}
#: What stands in the words, tables and charts of a kind for the unit of the loss, which the run knows.
LOSS = ", [loss]"
#: Before what is said of an equivariance error that no measurement tells from rounding.
ROUNDING_ALONE = (
    "The equivariance error is not distinguishable from numerical noise here: what is said of it describes rounding, "
    "not the model. "
)


@dataclass(frozen=True)
class Table:
    """A table of the page: its column names, its rows of text, and a sentence under it."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Correlation:
    """A correlation with its 95 % interval and the effective number of points."""

    value: float
    low: float
    high: float
    effective: float

    @property
    def words(self) -> str:
        return correlation(self.value, self.low, self.high)


@dataclass(frozen=True)
class Relation:
    """How two quantities go together along training: as they are, given log step, and in first differences."""

    points: int | None
    pearson: Correlation
    spearman: Correlation
    partial: Correlation
    differences: Correlation


Related = Mapping[str, Relation]


@dataclass(frozen=True)
class Kind:
    """How one analysis is shown.

    Attributes:
        place: among the sections of the page. values: the dataclass of its records' values.
        words: (step -> values, pair -> relation) -> (the result in a sentence, tables).
        chart: step -> values -> figure, None where there is nothing to draw; caption: under it.
        evidence: values -> (our number, its interval, "lower", "higher", "equal" or "" of the equivariance error, as
            :func:`lower` has it) for the paper's claim that its landscape is easier, None for a record without; None if
            the analysis never has any.
        of_error: whether it speaks of the equivariance error.
    """

    place: int
    title: str
    values: type
    words: Callable[[Any, Related], tuple[str, list[Table]]]
    chart: Callable[[Any], Chart | None] = lambda steps: None
    caption: str = ""
    evidence: Callable[[Any], tuple[str, str, str] | None] | None = None
    of_error: bool = True


@dataclass(frozen=True)
class Section:
    """One analysis of one probe as the page shows it; steps: step -> values."""

    name: str
    probe: str
    kind: Kind
    lead: str
    tables: Sequence[Table]
    steps: Mapping[int, Any]
    chart: Chart | None = None


def kinds() -> dict[str, Kind]:
    """name -> kind, in the order of the page."""
    return dict(sorted(registered(__name__, "KIND", "KINDS").items(), key=lambda pair: pair[1].place))


def sections(entries: Iterable[Record], unit: str = "") -> list[Section]:
    """The sections there are records for, in the order of :func:`kinds`; ``unit``: of the loss, after a blank.

    Steps analysed with other settings than the last record of that analysis and probe are left out. Measurements among
    the records say at which steps the error is rounding alone.
    """
    entries = list(entries)
    noise = {(e["probe"], e["step"]) for e in entries
             if e["kind"] == "measure" and e["result"].get("distinguishable") is False}  # fmt: skip
    pairs: dict[str, dict[str, Any]] = {}
    for entry in entries:
        if entry["kind"] == "analysis" and entry["analysis"] == "relations":
            pairs.setdefault(entry["probe"], {})[entry["pair"]] = entry["values"]
    made = []
    for name, kind in kinds().items():
        for probe, own in newest(entries, name).items():
            try:
                steps: dict[int, Any] = {step: view(kind.values, entry["values"]) for step, entry in own.items()}
                related = {pair: view(Relation, values) for pair, values in pairs.get(probe, {}).items()}
                lead, tables = kind.words(steps, related)
                if kind.of_error and all((probe, step) in noise for step in steps):
                    lead = ROUNDING_ALONE + lead
                lead, tables, chart = _with_unit((lead, tables, kind.chart(steps)), f",{unit}" if unit else "")
                made.append(Section(name, probe, kind, lead, tables, steps, chart))
            except UNREADABLE as error:
                warnings.warn(f"the analysis {name} of probe {probe!r} cannot be shown: {first_line(error)}")
    return made


def _with_unit(words: Any, unit: str) -> Any:
    """The same words, tables or chart with the unit in the place of :data:`LOSS`."""
    if isinstance(words, str):
        return words.replace(LOSS, unit)
    if isinstance(words, list | tuple):
        return type(words)(_with_unit(part, unit) for part in words)
    if is_dataclass(words) and not isinstance(words, type):
        return replace(words, **{f.name: _with_unit(getattr(words, f.name), unit) for f in fields(words)})
    return words


def summary(entries: Iterable[Record], unit: str = "") -> str:
    """The sections as text for the terminal; ``unit`` as in :func:`sections`."""
    lines: list[str] = []
    for section in sections(entries, unit):
        lines += ["", f"{section.kind.title} ({section.probe})", section.lead]
        for table in section.tables:
            lines += aligned([table.head, *table.rows], right=True)
    return "\n".join(lines).strip()


def relation_table(related: Related, words: Sequence[str]) -> list[Table]:
    """Correlations of the pairs whose name holds one of ``words``; no table where nothing was related."""
    rows = [
        [name, correlation(one.pearson.value, one.spearman.value, NAN, "{} / {}"), one.partial.words,
         one.differences.words, paper.correlation_of(name), str(one.points)]
        for name, one in related.items() if any(word in name for word in words)
    ]  # fmt: skip
    head = ["along training", "Pearson / Spearman of logs", "given log step", "first differences", "paper", "points"]
    caption = (
        "Two quantities that both fall with time correlate whatever their connection; the third and fourth columns "
        "take that common trend out (95 % intervals, with an effective number of points)."
    )
    return [Table(head, rows, caption)] if related else []


def lower(ratio: Figure) -> str:
    """Whether a ratio is surely below one ("lower"), above ("higher"), "equal" to it, or none of these ("").

    Equal: the whole interval within :data:`EQUIVALENCE` of one, or a value without interval at one but for rounding.
    """
    low, high = ratio.interval
    if not (math.isfinite(low) and math.isfinite(high)):
        return "equal" if abs(ratio.value - 1) <= ROUNDING else ""
    if low >= 1 / (1 + EQUIVALENCE) and high <= 1 + EQUIVALENCE:
        return "equal"
    return "lower" if high < 1 - ROUNDING else "higher" if low > 1 + ROUNDING else ""
