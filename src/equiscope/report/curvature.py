"""Gradients, curvature and landscapes on the page: tables, and a plain verdict on "smoother and better conditioned"."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from equiscope.report.curves import number
from equiscope.report.text import Table, digits, relation_table

Values = Mapping[str, Any]
PARTS = {"twirled": "twirled loss", "equivariance": "equivariance error"}


def gradients(steps: Mapping[int, Values], related: Values) -> tuple[str, list[Table]]:
    """Norms, ratio, cosine and how fast training lowers each part."""
    rows = []
    for step, values in steps.items():
        whole, adam = values["whole"], values["adam"]
        rows.append([
            f"{step:,}", *(ranged(whole["rate"][part]) for part in PARTS),
            *(ranged(whole["norm"][part]) for part in PARTS), ranged(whole["ratio"]), ranged(whole["cosine"]),
            ranged(adam["ratio"]) if adam else "–",
        ])  # fmt: skip
    head = ["step", "rate, twirled", "rate, equivariance", "|∇ twirled|", "|∇ equivariance|", "ratio", "cosine",
            "ratio for Adam"]  # fmt: skip
    caption = (
        "95 % intervals; products of independent batches, so free of sampling bias (a dash: an unbiased square that is "
        "negative). Rate: ⟨∇ part, ∇ total⟩ / part, how fast a small gradient step lowers the logarithm of each part."
    )
    tables = [Table(head, rows, caption)]
    if related:
        tables.append(relation_table(related, ("gradient ratio",)))
    rates = [[number(v["whole"]["rate"][part]["value"]) for part in PARTS] for v in steps.values()]
    faster = [1 for twirled, equivariance in rates if equivariance > twirled]
    bounds = [[v["whole"]["rate"][part]["interval"] for part in PARTS] for v in steps.values()]
    apart = [1 for twirled, equivariance in bounds if number(equivariance[0]) > number(twirled[1])]
    lead = (
        f"At {len(faster)} of {len(steps)} steps a gradient step lowers the equivariance error faster, relative to its "
        f"size, than the twirled loss; at {len(apart)} with the intervals apart."
    )
    return lead, tables


def hessian(steps: Mapping[int, Values], related: Values) -> tuple[str, list[Table]]:
    """Largest eigenvalue, trace, conditioning and size relative to the loss, part beside part."""
    rows = []
    for step, values in steps.items():
        for part, name in PARTS.items():
            for kind, found in values["parts"].get(part, {}).items():
                top = found["lambda_max"]
                trace = {**found["trace"], "interval": found["trace"].get("interval_samples")}
                rows.append([
                    f"{step:,}", name, kind.replace("_", "–"),
                    ranged(top) + ("" if top["converged"] else " (not converged)"), ranged(trace),
                    digits(found["conditioning"].get(QUANTILE)), digits(found["over_mean"]),
                    digits(found["stable_rank"]), digits(found["over_loss"]["lambda_max"]),
                    digits(found["over_loss"]["trace"]),
                ])  # fmt: skip
    head = ["step", "part of the loss", "matrix", "λ_max", "trace", "λ_max / median |λ|", "λ_max / mean λ",
            "stable rank", "λ_max / loss", "trace / loss"]  # fmt: skip
    caption = (
        "Same samples and rotations for both parts; intervals over samples, of the trace over probes too. λ_max of a "
        "sampled loss is biased upwards. The median |λ| is that of the estimated spectral density; a smallest "
        "eigenvalue is not given, since the smallest Ritz value of a Lanczos run is none."
    )
    return _conditioned(steps), [Table(head, rows, caption)]


QUANTILE = "0.5"


def _conditioned(steps: Mapping[int, Values]) -> str:
    """Verdict on "better conditioned", by three figures that do not depend on the loss's unit."""
    figures = {
        "λ_max relative to its loss": lambda found: found["over_loss"]["lambda_max"],
        "λ_max relative to the mean eigenvalue": lambda found: found["over_mean"],
        "λ_max relative to the median |λ|": lambda found: found["conditioning"].get(QUANTILE),
    }
    told, better = [], 0
    for name, figure in figures.items():
        ratios = []
        for values in steps.values():
            pair = [_first(values["parts"].get(part, {})) for part in PARTS]
            if all(pair):
                twirled, equivariance = (number(figure(found)) for found in pair)
                if twirled > 0 and equivariance > 0:
                    ratios.append(equivariance / twirled)
        if not ratios:
            continue
        smaller = sum(ratio < 1 for ratio in ratios)
        better += smaller == len(ratios)
        times = f"{digits(_median(ratios))} times that of the twirled loss"
        told.append(f"{name} is {times} (smaller at {smaller} of {len(ratios)})")
    if not told:
        return "No step has both losses."
    verdict = (
        "Better conditioned: yes, by every figure at every step." if better == len(told)
        else "Better conditioned: not by these figures." if better == 0
        else "Better conditioned: it depends on the figure."
    )  # fmt: skip
    return f"{verdict} Of the equivariance error, over the analysed steps (median): {'; '.join(told)}."


def _first(found: Values) -> Values | None:
    return found.get("hessian") or next(iter(found.values()), None)


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def landscape(steps: Mapping[int, Values], related: Values) -> tuple[str, list[Table]]:
    """Roughness of each part on lines and plane, beside its noise."""
    rows, rough, compared = [], 0, []
    for step, values in steps.items():
        places = dict(values["lines"])
        if values["plane"]:
            places["their plane"] = values["plane"]["parts"]
        for place, parts in places.items():
            for part, name in PARTS.items():
                found = parts[part]
                above = number(found["roughness"]) > 3 * max(number(found["noise"]), number(values["rounding"][part]))
                rough += above
                rows.append([
                    f"{step:,}", place.replace("eigenvector:", "eigenvector of the "), name, digits(found["range"]),
                    digits(found["roughness"]), digits(found["noise"]), digits(values["rounding"][part]),
                    digits(found["relative"]), digits(found["anharmonic"]),
                ])  # fmt: skip
            compared.append(number(parts["equivariance"]["anharmonic"]) < number(parts["twirled"]["anharmonic"]))
    head = ["step", "along", "part of the loss", "range", "roughness", "its noise", "rounding", "roughness / range",
            "not quadratic / range"]  # fmt: skip
    caption = (
        "Every grid point has the same samples, rotations and mode. Roughness: residual of quadratic fits in small "
        "windows; its noise: from the spread over independent batches; rounding: the change of the loss when every "
        "weight moves by one unit of its last digit. Not quadratic: the residual of one quadratic over the whole grid."
    )
    smoother = sum(compared)
    lead = (
        f"Smoother: the equivariance error is closer to a quadratic than the twirled loss in {smoother} of "
        f"{len(compared)} comparisons. Roughness exceeds three times its noise and rounding in {rough} of {len(rows)} "
        "rows."
    )
    return lead, [Table(head, rows, caption)]


def ranged(found: Values) -> str:
    """A value to three digits with its interval to two."""
    value = number(found.get("value"))
    low, high = (number(bound) for bound in found.get("interval") or (None, None))
    if not math.isfinite(value):
        return "–"
    if not (math.isfinite(low) and math.isfinite(high)):
        return digits(value)
    bounds = (digits(float(f"{bound:.2g}")) for bound in (low, high))
    return f"{digits(value)} ({' to '.join(bounds)})"
