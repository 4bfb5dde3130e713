"""The parts of the loss by brute force beside what is reported: a table, and how far they lie apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from equiscope.report.kinds import Kind, Related, Table
from equiscope.words import digits, minus

#: In joint standard errors: parts farther apart than this differ.
APART = 4.0


@dataclass(frozen=True)
class Compared:
    """One part of the loss: as reported and by brute force, with standard errors."""

    reported: float
    reported_error: float
    brute: float
    brute_error: float

    @property
    def z(self) -> float:
        """Their difference in joint standard errors; a difference by rounding alone is none."""
        gap = self.reported - self.brute
        if abs(gap) <= 1e-5 * abs(self.brute):
            return 0.0
        error = math.hypot(self.reported_error, self.brute_error)
        return gap / error if error > 0 else math.copysign(math.inf, gap) if math.isfinite(gap) else math.nan


@dataclass(frozen=True)
class Brute:
    """Values of a record; exact: by a closed form or over every element of a finite group."""

    rotations: int
    samples: int
    exact: bool
    parts: dict[str, Compared]


def words(steps: Mapping[int, Brute], related: Related) -> tuple[str, list[Table]]:
    """Each part both ways, and the largest difference."""
    rows = [
        [f"{step:,}", part, digits(one.reported, one.reported_error), digits(one.brute, one.brute_error),
         minus(f"{one.z:+.1f}")]
        for step, found in steps.items() for part, one in found.parts.items()
    ]  # fmt: skip
    apart = [abs(one.z) for found in steps.values() for one in found.parts.values()]
    last = steps[max(steps)]
    how = "all rotations of the group" if last.exact else f"{last.rotations:,} independent rotations"
    agree = sum(z <= APART for z in apart)
    lead = (
        f"Of {last.samples} samples, {how} against the estimators of the measure: {agree} of {len(apart)} parts within "
        f"{APART:g} joint standard errors."
    )
    head = ["step", "part of the loss", "reported, [loss]", "by brute force, [loss]", "difference / its error"]
    caption = "Means over the samples ± standard error over rotations, of what is reported over repeats of the measure."
    return lead, [Table(head, rows, caption)]


KIND = Kind(8, "The parts of the loss by brute force", Brute, words, of_error=False)
