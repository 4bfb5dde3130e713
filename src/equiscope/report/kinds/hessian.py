"""Curvature of the two parts of the loss: largest eigenvalue, trace, and three figures of conditioning."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from equiscope.report.kinds import PARTS, Kind, Related, Table, lower
from equiscope.report.views import NAN, NOTHING, Figure, Interval
from equiscope.words import digits, ranged, text

#: Of the absolute eigenvalues, that λ_max is compared with.
QUANTILE = "0.5"


@dataclass(frozen=True)
class Estimate(Figure):
    """A number with its 95 % interval; of a trace over samples and probes; of λ_max whether it converged."""

    interval_samples: Interval
    converged: bool


@dataclass(frozen=True)
class Curvature:
    """Figures of one matrix (Hessian or Gauss–Newton) of one part of the loss; over_loss: relative to that part."""

    lambda_max: Estimate
    trace: Estimate
    conditioning: dict[str, float]
    quantiles: dict[str, Figure]
    over_mean: float
    stable_rank: float
    over_loss: dict[str, float]

    @property
    def over_known_mean(self) -> float:
        """λ_max over the mean eigenvalue; NaN where the trace, and so the mean, cannot be told from zero."""
        low, high = self.trace.interval_samples
        return NAN if low <= 0 <= high else self.over_mean

    @property
    def rank_words(self) -> str:
        """The stable rank, which is at least 1: an estimate below it says that it is about 1."""
        return f"about 1 ({digits(self.stable_rank)})" if self.stable_rank < 1 else digits(self.stable_rank)


@dataclass(frozen=True)
class Hessian:
    """Values of a record: part of the loss -> matrix -> its figures; other values as they are."""

    parts: dict[str, dict[str, Curvature]]


def words(steps: Mapping[int, Hessian], related: Related) -> tuple[str, list[Table]]:
    """Largest eigenvalue, trace, conditioning and size relative to the loss, part beside part."""
    rows = [
        [f"{step:,}", name, matrix.replace("_", "–"),
         found.lambda_max.words + ("" if found.lambda_max.converged else " (not converged)"),
         ranged(found.trace.value, found.trace.interval_samples), digits(found.conditioning.get(QUANTILE)),
         digits(found.over_known_mean), found.rank_words,
         *(digits(found.over_loss.get(key)) for key in ("lambda_max", "trace"))]
        for step, values in steps.items() for part, name in PARTS.items()
        for matrix, found in values.parts.get(part, {}).items()
    ]  # fmt: skip
    head = ["step", "part of the loss", "matrix", "λ_max, [loss]", "trace, [loss]", "λ_max / median |λ|",
            "λ_max / mean λ", "stable rank", "λ_max / loss", "trace / loss"]  # fmt: skip
    caption = (
        "Same samples and rotations for both parts; intervals over samples, of the trace over probes too. λ_max of a "
        "sampled loss is biased upwards. A dash for λ_max / mean λ: the interval of the trace holds zero. Stable rank: "
        "‖H‖²_F / λ²_max, at least 1, its numerator by Hutchinson’s estimate. The median |λ| is that of the estimated "
        "spectral density; a smallest eigenvalue is not given, since the smallest Ritz value of a Lanczos run is none. "
        "Weights have no unit."
    )
    return _verdict(steps), [Table(head, rows, caption)]


_FIGURES: dict[str, Callable[[Curvature], float]] = {
    "λ_max relative to its loss": lambda found: found.over_loss.get("lambda_max", NAN),
    "λ_max relative to the mean eigenvalue": lambda found: found.over_known_mean,
    "λ_max relative to the median |λ|": lambda found: found.conditioning.get(QUANTILE, NAN),
}


def _verdict(steps: Mapping[int, Hessian]) -> str:
    """Verdict on "better conditioned", by three figures that do not depend on the loss's unit."""
    told, better = [], 0
    for name, figure in _FIGURES.items():
        ratios = []
        for values in steps.values():
            pair = [_first(values.parts.get(part, {})) for part in PARTS]
            twirled, equivariance = (figure(found) if found else NAN for found in pair)
            if twirled > 0 and equivariance > 0:
                ratios.append(equivariance / twirled)
        if not ratios:
            continue
        smaller = sum(ratio < 1 for ratio in ratios)
        better += smaller == len(ratios)
        times = f"{digits(statistics.median(ratios))} times that of the twirled loss"
        told.append(f"{name} is {times} (smaller at {smaller} of {len(ratios)})")
    if not told:
        return "No step has both losses."
    verdict = (
        "Better conditioned: yes, by every figure at every step." if better == len(told)
        else "Better conditioned: not by these figures." if better == 0
        else "Better conditioned: it depends on the figure."
    )  # fmt: skip
    return f"{verdict} Of the equivariance error, over the analysed steps (median): {'; '.join(told)}."


def _first(found: Mapping[str, Curvature]) -> Curvature | None:
    return found.get("hessian") or next(iter(found.values()), None)


def evidence(values: Hessian) -> tuple[str, str, str] | None:
    """Largest eigenvalue over the 0.99 quantile of the spectrum, of both parts, and the interval of their ratio."""
    if not values.parts:
        return None
    told, bounds = [], {}
    for name in ("equivariance", "twirled"):
        found = values.parts.get(name, {}).get("hessian")
        top, quantiles = (found.lambda_max, found.quantiles) if found else (NOTHING, {})
        quantile = quantiles.get("0.99", NOTHING)
        told.append(f"{name}: largest eigenvalue {text(top.value)}, 0.99 quantile {text(quantile.value)}")
        if all(limit > 0 for limit in (*top.interval, *quantile.interval)):
            bounds[name] = (top.interval[0] / quantile.interval[1], top.interval[1] / quantile.interval[0])
    ours = "; ".join(told)
    if len(bounds) < 2:
        return ours, "a quantile cannot be told from zero, so there is no condition number", ""
    (low, high), (twirled_low, twirled_high) = bounds["equivariance"], bounds["twirled"]
    ratio = Figure(NAN, (low / twirled_high, high / twirled_low))
    return ours, f"ratio of condition numbers in [{', '.join(map(text, ratio.interval))}]", lower(ratio)


KIND = Kind(2, "Curvature of the two losses", Hessian, words, evidence=evidence)
