"""When a tracked percent falls under a threshold, and whether the model could do anything by then.

A percent under the threshold means nothing while the model predicts a constant (its percent is then about
zero as well), so each crossing carries the R² at its step, and the headline is the *skilled* crossing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from equiscope.errors import InputError
from equiscope.report.curves import Curve
from equiscope.words import r2

#: Percent of the total loss that counts as "symmetry learned" (the paper's 2 %).
THRESHOLD = 2.0
#: R² from which on a model counts as skilled.
SKILL = 0.5
#: What makes a model skilled, in words.
ABLE = f"R² ≥ {SKILL:g} and a loss below that of the task’s best linear equivariant predictor"
#: R² of a task's baseline, the best linear equivariant predictor, by probe, for runs that did not record their own:
#: flow by a linear Gaussian-chain denoiser, voxels by a Wiener filter at 24³.
BASELINE_R2 = {
    "proteinflow": {"pooled": 0.66, "pooled, unweighted": 0.86},
    "voxels": {"octahedral": 0.12, "SO(3), cubic": 0.12, "SO(3), cubic, noise averaged": 0.12},
}
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
    skill: float = math.nan

    @property
    def ability(self) -> str:
        """R² and, where the task's baseline is known, skill in words: "R² 0.92, skill 0.4"."""
        told = f", skill {r2(self.skill)} against the baseline" if math.isfinite(self.skill) else ""
        return f"R² {r2(self.r2)}{told}"

    @property
    def collapsed(self) -> bool:
        """True if the model did no better here than the best constant prediction (R² < 0.1)."""
        return bool(self.r2 < COLLAPSE)

    @property
    def unskilled(self) -> bool:
        """True unless R² is at least 0.5 and the loss, where the task's baseline is known, is below it."""
        return not self.r2 >= SKILL or self.skill <= 0


@dataclass(frozen=True)
class Crossings:
    """The crossings of one curve; None where there is none.

    first: the first measured step with percent <= threshold (a minimum statistic: biased to early steps).
    last_above: the last measured step with percent > threshold.
    sustained: the first step from which on every upper confidence limit is under the threshold.
    skilled: the first step from which on, besides, the model is skilled (:func:`skilled`). The headline.
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


def skilled(curve: Curve, least: float = SKILL) -> np.ndarray:
    """(T,) bool: R² >= ``least`` and, where the loss of the task's baseline is known, a loss below it (skill > 0)."""
    return (curve.r2 >= least) & ~(curve.skill <= 0)


def with_known_baseline(curve: Curve, task: str) -> Curve:
    """The curve with its skill against :data:`BASELINE_R2` where its run recorded none.

    skill = 1 − (1 − R²) / (1 − R² of the baseline).
    """
    known = BASELINE_R2.get(task, {}).get(curve.probe)
    if known is None or np.isfinite(curve.skill).any():
        return curve
    return replace(curve, skill=1 - (1 - curve.r2) / (1 - known))


def crossings(curve: Curve, threshold: float = THRESHOLD, skill: float = SKILL) -> Crossings:
    """Find the crossings of ``threshold`` (in percent) of one tracked curve.

    Steps are measured steps, nothing is interpolated. A NaN percent, upper limit or R² never counts as
    under the threshold or as skilled, so a curve without intervals has no sustained crossing.

    Args:
        curve: the measurements of one probe along training.
        threshold: in percent.
        skill: the R² from which on a crossing counts as skilled.

    Raises:
        InputError: when the threshold is not a positive percentage.

    Source: science.md §2(1), "first-crossing time is a minimum statistic".
    """
    if not 0 < threshold < 100:
        raise InputError(f"threshold is {threshold}, a percentage between 0 and 100 is needed")
    percent, known = curve.percent, np.flatnonzero(np.isfinite(curve.percent))
    certain, able = curve.high < threshold, skilled(curve, skill)

    def at(places: np.ndarray, which: int = 0) -> Crossing | None:
        if not len(places):
            return None
        place = int(places[which])
        before = int(curve.step[place - 1]) if place else None
        step, value, known_r2 = int(curve.step[place]), float(percent[place]), float(curve.r2[place])
        return Crossing(step, value, known_r2, before, len(curve) - place, float(curve.skill[place]))

    def rising(places: np.ndarray) -> np.ndarray:
        return places[np.argsort(percent[places], kind="stable")]

    dips = rising(known)
    after = known[known > dips[0]] if len(dips) else known
    return Crossings(
        threshold, first=at(np.flatnonzero(percent <= threshold)),
        last_above=at(np.flatnonzero(percent > threshold), -1), sustained=at(_to_the_end(certain)),
        skilled=at(_to_the_end(certain & able)), start=at(known), end=at(known, -1), dip=at(dips),
        skilled_dip=at(rising(known[able[known]])),
        later_peak=at(after[np.argsort(-percent[after], kind="stable")]),
    )  # fmt: skip


def _to_the_end(flags: np.ndarray) -> np.ndarray:
    """The places from which on all flags hold."""
    return np.flatnonzero(np.logical_and.accumulate(flags[::-1])[::-1])
