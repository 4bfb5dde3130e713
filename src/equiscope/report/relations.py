"""Rows of the paper's report from analyses of checkpoints: correlations along training, and curvature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from equiscope.report.curves import number
from equiscope.report.evidence import Evidence
from equiscope.report.tables import text
from equiscope.report.verdicts import AGREES, DIFFERS, UNDECIDED, Row

#: Words of a pair -> the paper's correlations (logs, along training).
_PAPER = {
    ("gradient",): "percent ~ ratio of gradient norms: Pearson 0.75, Spearman 0.59 (force field)",
    ("weight variance",): "equivariance error ~ weight variance of the head: Pearson 0.94, Spearman 0.99 (force field)",
}
_LANDSCAPE = ("hessian", "landscape", "curvature")
_ENOUGH = 10


def relation_rows(evidence: Evidence) -> list[Row]:
    """The newest record of each related pair of each run: plain correlation, and the one without the trend."""
    newest: dict[tuple[str, str, str], tuple[str, Mapping[str, Any]]] = {}
    for run, record in evidence.analyses("relations"):
        newest[run.name, str(record.get("probe")), str(record.get("pair"))] = (run.task, record["values"])
    rows = []
    for (name, _, pair), (task, values) in newest.items():
        paper = next((words for keys, words in _PAPER.items() if any(k in pair for k in keys)), "")
        plain, partial = (values.get(key) or {} for key in ("pearson", "partial"))
        rows.append(
            Row(task, name, pair, f"Pearson {_correlation(plain)} over {values.get('points')} steps",
                f"without the trend {_correlation(partial)}", paper, _verdict(plain, partial))
        )  # fmt: skip
    return rows


def _correlation(found: Mapping[str, Any]) -> str:
    value, low, high = (number(found.get(key)) for key in ("value", "low", "high"))
    return f"{value:.2f} [{low:.2f}, {high:.2f}]".replace("-", "−") if value == value else "unknown"


def _verdict(plain: Mapping[str, Any], partial: Mapping[str, Any]) -> str:
    if number(partial.get("low")) > 0:
        return AGREES
    confounded = number(plain.get("low")) > 0 and number(partial.get("effective")) >= _ENOUGH
    return DIFFERS if confounded else UNDECIDED


def landscape_rows(evidence: Evidence) -> list[Row]:
    """Every analysis of curvature, its single numbers as they were recorded."""
    rows = []
    for run, record in evidence.analyses(*_LANDSCAPE):
        numbers = {k: v for k, v in (record.get("values") or {}).items() if isinstance(v, int | float)}
        shown = ", ".join(f"{key.replace('_', ' ')} {text(value)}" for key, value in list(numbers.items())[:8])
        what = f"{record.get('analysis', record['kind'])} at step {text(record.get('step'))}"
        paper = "condition number of the equivariance error about 1,000 times lower (force field)"
        rows.append(Row(run.task, run.name, what, shown or "recorded", "", paper, UNDECIDED))
    return rows
