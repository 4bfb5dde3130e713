"""A row of evidence for a claim, and how verdicts of rows combine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

AGREES, DIFFERS, UNDECIDED = "agrees", "differs", "cannot be decided at this size"


@dataclass(frozen=True)
class Row:
    """One comparison with the paper.

    Attributes:
        ours, interval, paper: in words: our number, its interval or what stands beside it, the paper's number.
    """

    task: str
    run: str
    what: str
    ours: str
    interval: str
    paper: str
    verdict: str


def combined(rows: Sequence[Row]) -> str:
    """Differs if any row differs, else agrees if any row agrees, else undecided."""
    verdicts = {row.verdict for row in rows}
    return next((v for v in (DIFFERS, AGREES) if v in verdicts), UNDECIDED)
