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
    known = np.flatnonzero(np.isfinite(curve.percent))
    percent = curve.percent
    below = percent <= threshold
    certain = curve.high < threshold
    skilled = curve.r2 >= skill

    def at(index: int | None) -> Crossing | None:
        if index is None:
            return None
        return Crossing(
            step=int(curve.step[index]),
            percent=float(percent[index]),
            r2=float(curve.r2[index]),
            before=int(curve.step[index - 1]) if index else None,
            measurements=len(curve) - index,
        )

    def lowest(among: np.ndarray) -> int | None:
        return int(among[np.argmin(percent[among])]) if len(among) else None

    dip = lowest(known)
    after = known[known > dip] if dip is not None else known
    return Crossings(
        threshold=threshold,
        first=at(_first(below)),
        last_above=at(_last(percent > threshold)),
        sustained=at(_from_here_on(certain)),
        skilled=at(_from_here_on(certain & skilled)),
        start=at(int(known[0]) if len(known) else None),
        end=at(int(known[-1]) if len(known) else None),
        dip=at(dip),
        skilled_dip=at(lowest(known[skilled[known]])),
        later_peak=at(int(after[np.argmax(percent[after])]) if len(after) else None),
    )


def _first(flags: np.ndarray) -> int | None:
    places = np.flatnonzero(flags)
    return int(places[0]) if len(places) else None


def _last(flags: np.ndarray) -> int | None:
    places = np.flatnonzero(flags)
    return int(places[-1]) if len(places) else None


def _from_here_on(flags: np.ndarray) -> int | None:
    """The first place from which on all flags hold, None when the last one does not hold."""
    last_failure = _last(~flags)
    start = 0 if last_failure is None else last_failure + 1
    return start if start < len(flags) else None
