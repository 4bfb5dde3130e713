"""Pictures of drawn backbones beside real chains (matplotlib)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from equiscope.tasks.proteinflow.quality import RealChains, dihedrals, radius_of_gyration, step_lengths
from equiscope.writing import replacing

_REAL = "0.35"


def plot_quality(drawn: Mapping[str, Sequence[np.ndarray]], real: RealChains, path: str | Path) -> None:
    """Distribution of CA–CA distances and of Cα dihedrals, and radius of gyration against length, to a file.

    ``drawn`` maps the name of each set of traces (Å) to its traces; all sets share the axes with the real chains.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4), layout="constrained")
    steps, turns, sizes = figure.subplots(1, 3)
    every = {"real chains": real.traces, **drawn}
    lengths = np.concatenate([step_lengths(traces) for traces in every.values()])
    # The real distribution is so narrow that the range follows the samples, clipped to what is readable.
    bins = np.linspace(max(0.0, min(2.4, lengths.min())), min(8.0, max(4.6, lengths.max())), 90)
    for name, traces in every.items():
        style = {"color": _REAL, "lw": 2} if traces is real.traces else {"lw": 1.5}
        distances = np.clip(step_lengths(traces), bins[0], bins[-1])
        steps.hist(distances, bins, density=True, histtype="step", label=name, **style)
        angles = np.concatenate([dihedrals(ca) for ca in traces])
        turns.hist(angles, np.linspace(-180, 180, 61), density=True, histtype="step", label=name, **style)
        sizes.plot(
            [len(ca) for ca in traces],
            [radius_of_gyration(ca) for ca in traces],
            "." if traces is real.traces else "o",
            color=_REAL if traces is real.traces else None,
            ms=3 if traces is real.traces else 5,
            alpha=0.5 if traces is real.traces else 0.9,
            label=name,
        )
    span = np.array([len(ca) for traces in every.values() for ca in traces])
    grid = np.linspace(span.min(), span.max(), 50)
    sizes.plot(grid, real.gyration(grid), color="k", lw=1, label=f"real: L^{real.exponent:.2f}")
    steps.set(xlabel="distance of consecutive CA (Å)", ylabel="density", yscale="log")
    turns.set(xlabel="CA dihedral (degrees; right-handed helix +50)", ylabel="density", xticks=range(-180, 181, 60))
    sizes.set(xlabel="residues", ylabel="radius of gyration (Å)")
    for axes in (steps, turns, sizes):
        axes.legend(frameon=False, fontsize=8)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=130)


def plot_traces(traces: Sequence[np.ndarray], path: str | Path, titles: Sequence[str] = ()) -> None:
    """Up to eight traces (Å) in their own principal frame, coloured from first to last residue, to a file."""
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    shown = [np.asarray(ca, dtype=np.float64) for ca in traces[:8]]
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(3 * columns, 3 * rows), layout="constrained")
    for number, (axes, ca) in enumerate(zip(figure.subplots(rows, columns, squeeze=False).flat, shown, strict=False)):
        flat = ca - ca.mean(axis=0)
        flat = flat @ np.linalg.svd(flat, full_matrices=False)[2].T
        ends = np.stack([flat[:-1, :2], flat[1:, :2]], axis=1)
        axes.add_collection(LineCollection(list(ends), array=np.arange(len(ends)), cmap="turbo", lw=2))
        extent = np.abs(flat[:, :2]).max() * 1.1
        axes.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal", xticks=[], yticks=[])
        axes.set_title(titles[number] if number < len(titles) else f"{len(ca)} residues", fontsize=9)
        # A scale bar says more about size than ticks on a rotated frame.
        axes.plot([-extent * 0.9, -extent * 0.9 + 10], [-extent * 0.92] * 2, color="k", lw=2)
        axes.annotate("10 Å", (-extent * 0.9, -extent * 0.88), fontsize=7)
    for axes in figure.axes[len(shown) :]:
        axes.set_visible(False)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=130)
