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
_LANDSCAPE = ("hessian", "landscape", "curvature", "conditioning")
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
    """Every analysis of curvature: condition numbers of both parts of the loss, roughness along lines."""
    rows = []
    for run, record in evidence.analyses(*_LANDSCAPE):
        values = record.get("values") or {}
        what = f"{record.get('analysis', record['kind'])} at step {text(record.get('step'))}"
        if values.get("ratio"):
            ours, interval, verdict = _exact(values)
        elif values.get("parts"):
            ours, interval, verdict = _conditioning(values["parts"])
        elif values.get("lines"):
            ours, interval, verdict = _roughness(values["lines"]), "", UNDECIDED
        else:
            numbers = [(k, v) for k, v in values.items() if isinstance(v, int | float)]
            ours = ", ".join(f"{key.replace('_', ' ')} {text(value)}" for key, value in numbers[:8]) or "recorded"
            interval, verdict = "", UNDECIDED
        paper = "condition number of the equivariance error about 1,000 times lower (force field)"
        rows.append(Row(run.task, run.name, what, ours, interval, paper, verdict))
    return rows


def _exact(values: Mapping[str, Any]) -> tuple[str, str, str]:
    """Condition numbers of the head's dense Hessians, and the interval of their ratio."""
    words = [f"{part} {text(values['parts'][part]['condition'])}" for part in ("equivariance", "twirled")]
    low, high = (number(limit) for limit in values["ratio"]["interval"])
    verdict = AGREES if high < 1 else DIFFERS if low > 1 else UNDECIDED
    ours = f"condition number in layer {values['layer']}: {', '.join(words)}"
    return ours, f"ratio of condition numbers in [{text(low)}, {text(high)}]", verdict


def _conditioning(parts: Mapping[str, Any]) -> tuple[str, str, str]:
    """Largest eigenvalue over the 0.99 quantile of the spectrum, of both parts, and the interval of their ratio."""
    found = {name: (parts.get(name) or {}).get("hessian") or {} for name in ("equivariance", "twirled")}
    words, bounds = [], {}
    for name, hessian in found.items():
        top, quantile = hessian.get("lambda_max") or {}, (hessian.get("quantiles") or {}).get("0.99") or {}
        largest, middle = text(top.get("value")), text(quantile.get("value"))
        words.append(f"{name}: largest eigenvalue {largest}, 0.99 quantile {middle}")
        limits = [number(v) for part in (top, quantile) for v in part.get("interval") or (None, None)]
        if all(limit > 0 for limit in limits):
            bounds[name] = (limits[0] / limits[3], limits[1] / limits[2])
    if len(bounds) < 2:
        return "; ".join(words), "a quantile cannot be told from zero, so there is no condition number", UNDECIDED
    (low, high), (twirled_low, twirled_high) = bounds["equivariance"], bounds["twirled"]
    ratio = (low / twirled_high, high / twirled_low)
    verdict = AGREES if ratio[1] < 1 else DIFFERS if ratio[0] > 1 else UNDECIDED
    return "; ".join(words), f"ratio of condition numbers in [{text(ratio[0])}, {text(ratio[1])}]", verdict


def _roughness(lines: Mapping[str, Any]) -> str:
    """Roughness over range of each part along the eigenvector of its own Hessian."""
    shown = [
        f"{part} {text((line.get(part) or {}).get('relative'))}"
        for name, line in lines.items()
        if (part := name.split(":")[-1]) in line
    ]
    return f"roughness over range along its own largest eigenvector: {', '.join(shown)}"
