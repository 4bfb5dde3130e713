"""The paper's Proteina curves, read off its vector figures, to be drawn beside a run's own."""

from __future__ import annotations

from typing import Any

_START, _TWO, _ONE, _END = 114, 1020, 1600, 1_100_000

# Percent at the minimum and at the later maximum with their steps, and at the end (EMA weights), by flow time.
_TABLE: dict[str, list[list[float]]] = {
    "t=0": [[_END, 0.05]],
    "t=0.2": [[20_000, 0.17], [_END, 0.72]],
    "t=0.4": [[8_700, 0.18], [_END, 2.4]],
    "t=0.6": [[7_600, 0.28], [_END, 3.8]],
    "t=0.8": [[2_500, 0.53], [13_000, 9.5], [_END, 4.6]],
    "t=0.9": [[2_050, 0.53], [11_700, 18.1], [_END, 6.5]],
    "t=0.95": [[2_050, 0.49], [_END, 5.2]],
    "t=0.99": [[2_200, 0.35], [_END, 3.2]],
}


def proteina_reference() -> dict[str, Any]:
    """``{"label", "points": {probe: [[step, percent], …]}, "source"}`` of the 60M model on the PDB, batch 4."""
    common = [[_START, 12.75], [_TWO, 2.0], [_ONE, 1.0]]
    return {
        "label": "Proteina 60M, PDB, batch 4 (paper)",
        "points": {probe: [list(point) for point in common + points] for probe, points in _TABLE.items()},
        "source": (
            "Shen, Nowara, Maser, Cho, TMLR 12/2025, arXiv 2512.02303; read off the authors' figures. The first "
            "three points are the middle of the ranges over all flow times: start 11.5-14 %, 2 % crossed at "
            "900-1,140 steps, 1 % at 1,400-1,800 steps. The maxima of t=0.95 (about 11 %) and t=0.99 (about "
            "3.8 %) are left out: their steps are not known. A mean of ratios over samples, not a ratio of means"
        ),
    }
