"""The equivariance error by Wigner degree."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from equiscope.report.kinds import Kind, Related, Table
from equiscope.words import digits, share


@dataclass(frozen=True)
class Shares:
    """Shares of a variance at each Wigner degree and above the last, with their standard errors."""

    degrees: tuple[int, ...]
    share: tuple[float, ...]
    error: tuple[float, ...]
    remainder: float
    remainder_error: float

    @property
    def names(self) -> list[str]:
        return [f"l = {degree}" for degree in self.degrees] + [f"l > {self.degrees[-1]}"]

    @property
    def all(self) -> list[float]:
        return [*self.share, self.remainder]

    @property
    def cells(self) -> list[str]:
        errors = [*self.error, self.remainder_error]
        return [share(value, error) for value, error in zip(self.all, errors, strict=True)]


@dataclass(frozen=True)
class DegreeShares(Shares):
    """Values of a record; percent: the equivariance error's of the loss."""

    percent: float


def words(steps: Mapping[int, DegreeShares], related: Related) -> tuple[str, list[Table]]:
    """The shares at each step, and the degree of most of the error at the last."""
    rows = [[f"{step:,}", digits(values.percent), *values.cells] for step, values in steps.items()]
    last = steps[max(steps)]
    most = max(last.all)
    degree = last.names[last.all.index(most)]
    lead = f"At step {max(steps):,} most of the equivariance error, {share(most)} %, is of Wigner degree {degree}."
    if not math.isfinite(most):
        lead = f"At step {max(steps):,} there is no equivariance error that could have a Wigner degree."
    head = ["step", "percent of the loss", *last.names]
    return lead, [Table(head, rows, "Percent of the equivariance error at each Wigner degree, ± standard error.")]


KIND = Kind(7, "The equivariance error by Wigner degree", DegreeShares, words)
