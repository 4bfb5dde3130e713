"""When a tracked percent falls under a threshold, and whether the model could do anything by then.

A percent under the threshold means nothing while the model predicts a constant (its percent is then about
zero as well), so each crossing carries the R² at its step, and the headline is the *skilled* crossing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from equiscope.errors import InputError
from equiscope.report.curves import Curve

#: Percent of the total loss that counts as "symmetry learned" (the paper's 2 %).
THRESHOLD = 2.0
#: R² from which on a model counts as skilled.
SKILL = 0.5
#: R² under which a model does no better than the best constant prediction.
COLLAPSE = 0.1


@dataclass(frozen=True)
class Crossing:
    """One measured step of a curve.

    ``before`` is the measured step before it (None for the first one): a crossing happened in
    (before, step]. ``measurements`` counts the measured steps from here to the end of the curve.
    """

    step: int
    percent: float
    r2: float
    before: int | None
    measurements: int

    @property
    def collapsed(self) -> bool:
        """True if the model did no better here than the best constant prediction (R² < 0.1)."""
        return bool(self.r2 < COLLAPSE)

    @property
    def unskilled(self) -> bool:
        """True unless R² is known and at least 0.5."""
        return not self.r2 >= SKILL


@dataclass(frozen=True)
class Crossings:
    """The crossings of one curve; None where there is none.

    first: the first measured step with percent <= threshold (a minimum statistic: biased to early steps).
    last_above: the last measured step with percent > threshold.
    sustained: the first step from which on every upper confidence limit is under the threshold.
    skilled: the first step from which on, besides, every R² >= 0.5. The headline.
    start, end: the first and the last measured step.
    dip: the lowest percent; skilled_dip: the lowest one where R² >= 0.5;
    later_peak: the highest percent after the dip.
    """

    threshold: float
    first: Crossing | None
    last_above: Crossing | None
    sustained: Crossing | None
    skilled: Crossing | None
    start: Crossing | None
    end: Crossing | None
    dip: Crossing | None
    skilled_dip: Crossing | None
    later_peak: Crossing | None

    @property
    def collapse(self) -> bool:
        """True if the first crossing happened while the model was no better than a constant."""
        return self.first is not None and self.first.collapsed


def crossings(curve: Curve, threshold: float = THRESHOLD, skill: float = SKILL) -> Crossings:
    """Find the crossings of ``threshold`` (in percent) of one tracked curve.

    Steps are measured steps, nothing is interpolated. A NaN percent, upper limit or R² never counts as
    under the threshold or as skilled, so a curve without intervals has no sustained crossing.

    Raises InputError when the threshold is not a positive percentage.
    Source: science.md §2(1), "first-crossing time is a minimum statistic".
    """
    if not 0 < threshold < 100:
        raise InputError(f"threshold is {threshold}, a percentage between 0 and 100 is needed")
    percent, known = curve.percent, np.flatnonzero(np.isfinite(curve.percent))
    certain, skilled = curve.high < threshold, curve.r2 >= skill

    def at(places: np.ndarray, which: int = 0) -> Crossing | None:
        if not len(places):
            return None
        place = int(places[which])
        before = int(curve.step[place - 1]) if place else None
        step, value, r2 = int(curve.step[place]), float(percent[place]), float(curve.r2[place])
        return Crossing(step, value, r2, before, measurements=len(curve) - place)

    def rising(places: np.ndarray) -> np.ndarray:
        return places[np.argsort(percent[places], kind="stable")]

    dips = rising(known)
    after = known[known > dips[0]] if len(dips) else known
    return Crossings(
        threshold=threshold,
        first=at(np.flatnonzero(percent <= threshold)),
        last_above=at(np.flatnonzero(percent > threshold), -1),
        sustained=at(_to_the_end(certain)),
        skilled=at(_to_the_end(certain & skilled)),
        start=at(known),
        end=at(known, -1),
        dip=at(dips),
        skilled_dip=at(rising(known[skilled[known]])),
        later_peak=at(after[np.argsort(-percent[after], kind="stable")]),
    )


def _to_the_end(flags: np.ndarray) -> np.ndarray:
    """The places from which on all flags hold."""
    return np.flatnonzero(np.logical_and.accumulate(flags[::-1])[::-1])
