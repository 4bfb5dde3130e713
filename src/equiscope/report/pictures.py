"""Pictures that a task recorded at the end of a run (slices of grids), drawn side by side on one scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from equiscope.report.curves import Record, RunHistory

#: White for nothing, dark blue for the highest value.
COLOURS = "Blues"


def pictures_figure(history: RunHistory) -> Figure | None:
    """One row a picture, one panel an image; None without pictures.

    Every panel of a picture has the scale of its last one, the target, so that they compare by eye; values beyond it
    are drawn as its ends.
    """
    pictures = history.pictures
    if not pictures:
        return None
    columns = max(len(picture["panels"]) for picture in pictures)
    figure = Figure(figsize=(1.95 * columns + 0.5, 2.25 * len(pictures) + 0.3), layout="constrained")
    rows = figure.subfigures(len(pictures), 1, squeeze=False)[:, 0]
    for row, picture in zip(rows, pictures, strict=True):
        row.suptitle(str(picture["title"]), fontsize=9, x=0.01, ha="left")
        _draw(row, picture["panels"], columns)
    return figure


def _draw(row: object, panels: Sequence[Record], columns: int) -> None:
    images = [np.array(panel["image"], dtype=float) for panel in panels]
    top = float(np.nanmax(images[-1])) or 1.0
    axes = row.subplots(1, columns, squeeze=False)[0]  # type: ignore[attr-defined]
    drawn = None
    for axis, panel, image in zip(axes, panels, images, strict=False):
        drawn = axis.imshow(image.T, origin="lower", cmap=COLOURS, vmin=0, vmax=top, interpolation="nearest")
        axis.set_title(str(panel["title"]), fontsize=9)
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.grid(False)
        for spine in axis.spines.values():
            spine.set_visible(True)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    row.colorbar(drawn, ax=list(axes), shrink=0.8, pad=0.01).ax.tick_params(labelsize=8)  # type: ignore[attr-defined]
