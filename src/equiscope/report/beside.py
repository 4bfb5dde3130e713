"""Two or more runs on the same axes: loss and percent of the headline probe, against steps and against seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from equiscope import records
from equiscope.errors import InputError
from equiscope.report import style
from equiscope.report.curves import Curve, history
from equiscope.report.figures import STYLE

COLOURS = (style.OURS, style.LIMIT, style.SKILLED, style.PURPLE, style.GREY, style.TWIRLED)


def beside(folders: Sequence[str | Path], out: str | Path, dpi: int = 150) -> Path:
    """Draw runs beside each other into the PNG ``out``: rows total loss and percent, columns steps and seconds.

    Seconds are those of training, tracking left out, as the train records hold them. A percent that is zero or
    negative, as of an equivariant model, is drawn at its noise floor with a hollow mark.

    Raises:
        InputError: for fewer than two runs, more than six, or a run without measurements.
        IntegrityError: for damaged records.
    """
    if not 2 <= len(folders) <= len(COLOURS):
        raise InputError(f"give two to {len(COLOURS)} runs to draw beside each other, got {len(folders)}")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 6.4), layout="constrained")
        axes = figure.subplots(2, 2, sharey="row", sharex="col")
        for colour, folder in zip(COLOURS, folders, strict=False):
            _draw(axes, Path(folder), colour)
        for row, words in ((0, "total loss on held-out samples"), (1, "equivariance error, percent of the loss")):
            axes[row, 0].set_ylabel(words)
            for axis in axes[row]:
                axis.set_yscale("log")
        for axis in axes[1]:
            axis.axhline(2, color=style.LIMIT, linestyle="--", linewidth=1)
        axes[1, 0].set_xlabel("training step")
        axes[1, 1].set_xlabel("training seconds on this machine")
        axes[0, 0].legend()
        FigureCanvasAgg(figure)
        path = Path(out)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=dpi, facecolor="white")
    return path


def _draw(axes: Any, folder: Path, colour: str) -> None:
    book = records.read(folder / "records.jsonl")
    found = history(book)
    curve = found.headline
    if curve is None or len(curve) < 2:
        raise InputError(f"{folder} has fewer than two measurements to draw")
    seconds = seconds_at(book, curve.step)
    name = f"{found.run.get('name', folder.name)}: {found.run.get('model', '')}"
    shown = np.where(curve.percent > 0, curve.percent, curve.floor_percent)
    quiet = _under_floor(curve)
    for column, x in enumerate((curve.step, seconds)):
        axes[0, column].plot(x, curve.total, color=colour, marker="o", markersize=3.5, label=name)
        axes[1, column].plot(x, shown, color=colour)
        axes[1, column].plot(x[~quiet], shown[~quiet], "o", color=colour, markersize=3.5)
        axes[1, column].plot(x[quiet], shown[quiet], "o", color=colour, markersize=4, markerfacecolor="white")


def _under_floor(curve: Curve) -> np.ndarray:
    return ~(curve.equivariance > 3 * curve.floor)


def seconds_at(book: Sequence[Mapping[str, Any]], steps: np.ndarray) -> np.ndarray:
    """Training seconds at each step, linear between train records, 0 at step 0."""
    known = {0: 0.0} | {r["step"]: float(r["seconds"]) for r in book if r["kind"] == "train"}
    order = sorted(known)
    return np.interp(steps, order, [known[s] for s in order])
