"""The picture of the README: percent and skill along a run, `python scripts/readme_figure.py runs/forcefield/demo`."""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from equiscope.report.crossings import crossings
from equiscope.report.curves import read

BLUE, GREEN, INK = "#0072b2", "#009e73", "#222222"


def draw(run: Path, out: Path) -> None:
    """Percent with its interval, the 2 % line, the skilled crossing, the final figure; R² below; six legend entries."""
    told = read(run)
    curve = told.headline
    assert curve is not None, f"{run} has no measurement"
    learned, last = crossings(curve).skilled, told.headline_final
    # Step 0 has no place on a logarithmic axis.
    step = np.maximum(curve.step.astype(float), 8)
    figure, (above, below) = plt.subplots(
        2, sharex=True, height_ratios=(2.6, 1), figsize=(7.2, 4.6), layout="constrained"
    )
    start = learned.step if learned else step[-1]
    for axes, label in ((above, "before the model has skill (R² < 0.5)"), (below, None)):
        axes.axvspan(step[0], start, color="#f3ead8", lw=0, label=label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e6e6e6", lw=0.6)
    above.fill_between(step, curve.low, curve.high, color=BLUE, alpha=0.2, lw=0, label="95 % interval")
    above.plot(step, curve.percent, "-o", color=BLUE, ms=4.5, label="equivariance error")
    above.axhline(2, color="#d55e00", ls="--", lw=1.2, label="2 %")
    if learned:
        label = f"learned, with skill: step {learned.step:,}"
        above.plot([start], [learned.percent], "*", color=GREEN, ms=15, mec="white", label=label)
    if last is not None:
        above.plot([step[-1]], [last.result.percent], "D", color=INK, ms=7, mec="white", label="final, other molecules")
    above.set(yscale="log", xscale="log", ylabel="equivariance error,\n% of the loss")
    above.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
    below.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    figure.legend(fontsize=8, frameon=False, loc="outside lower center", ncols=3)
    below.plot(step, np.maximum(curve.r2, -0.5), "-o", color=INK, ms=3.5)
    below.axhline(0.5, color=GREEN, ls="--", lw=1)
    below.set(xlabel="training step", ylabel="R²", ylim=(-0.55, 1.05))
    figure.savefig(out, dpi=150)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path("docs/images/curve.png"))
