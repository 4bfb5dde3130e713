"""A result for the eye: what it means in words, a page of HTML for notebooks, figures and tables."""

from __future__ import annotations

import importlib
import math
from html import escape
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from equiscope.errors import InputError
from equiscope.words import percent as rounded
from equiscope.words import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

# A Result, whose methods these are, and one of its outputs.
Shown: TypeAlias = Any
WORST = 10
_HEAD = ("output", "percent of its loss", "loss, total", "loss if symmetric", "skill", "relative error", "noise floor")


def skill(loss: str, value: float) -> str:
    """``R² 0.93``, or ``skill 0.93`` for losses other than squared error; ``skill unknown`` for NaN."""
    return "skill unknown" if math.isnan(value) else f"{'R²' if loss == 'mse' else 'skill'} {value:.2f}"


def as_errors(result: Shown) -> str:
    """The percent p of a squared error as ratios of root mean squares, in words.

    Symmetric, the model would have a root mean square error smaller by 100 (1 - sqrt(1 - p / 100)) %; the root of its
    equivariance error is sqrt(p / 100) of the root mean square error.
    """
    name = "RMSE" if len(result.outputs) == 1 else "root of the loss"
    return f"the {name} would be {said}" if (said := ratios(result)) else ""


def ratios(part: Shown) -> str:
    """The words of :func:`as_errors` after "the RMSE would be"; "" where they do not apply."""
    share = part.percent / 100
    if part.loss != "mse" or not 0 < share <= 1 or not part.distinguishable:
        return ""
    times = plain(1 / math.sqrt(share))
    return (
        f"{plain(100 * (1 - math.sqrt(1 - share)))} % smaller if the model were symmetric; the equivariance error is "
        f"{times} times smaller than the error"
    )


def of_outputs(result: Shown) -> list[str]:
    """A line for each of several outputs: its own percent, its part of the whole, its skill."""
    if len(result.outputs) < 2:
        return []
    return [f"{name}: {_of_output(part)}" for name, part in result.outputs.items()]


def of_symmetries(result: Shown) -> list[str]:
    """A line for each of several symmetries: what it adds to the error, in order."""
    if result.by_symmetry is None:
        return []
    whole, before = result.by_symmetry, ""
    lines = []
    for name, share, error in zip(whole["symmetries"], whole["share"], whole["error"], strict=True):
        spread = f" ± {plain(100 * error)}" if math.isfinite(error) else ""
        lines.append(f"{name}{before}: {plain(100 * share)}{spread} % of the error")
        before = ", what the averages before leave"
    return lines


def _of_output(part: Shown) -> str:
    if math.isnan(part.percent):
        return f"relative equivariance error {part.relative_equivariance:.3g} of mean |f|²"
    whole = f" ({plain(part.contribution_percent)} % of the whole)" if part.weight > 0 else ""
    return f"{plain(part.percent)} % of its loss is equivariance error{whole}; {skill(part.loss, part.r2)}"


def html(result: Shown) -> str:
    """The result as HTML: headline, a bar for each output and the whole, a row for each, notes."""
    head, *rest = str(result).splitlines()
    notes = "".join(f"<li>{escape(line.strip().removeprefix('note: '))}</li>" for line in rest)
    rows = [*result.outputs.items(), *([("all", result)] if len(result.outputs) > 1 else [])]
    table = "".join(
        "<tr><td>" + "</td><td>".join(escape(cell) for cell in _cells(name, part, result)) + "</td></tr>"
        for name, part in rows
    )
    titles = "".join(f"<th>{title}</th>" for title in _HEAD)
    table = f"<table><thead><tr>{titles}</tr></thead><tbody>{table}</tbody></table>"
    notes = f"<ul>{notes}</ul>" if notes else ""
    return f'<div class="equiscope"><p><b>{escape(head)}</b></p>{_bars(result)}{table}{notes}</div>'


def _cells(name: str, part: Shown, result: Shown) -> tuple[str, ...]:
    low, high = result.percent_interval if part is result or len(result.outputs) == 1 else (math.nan, math.nan)
    value, low_text, high_text = rounded(part.percent, low, high)
    interval = f" ({low_text} to {high_text})" if math.isfinite(low) and math.isfinite(high) else ""
    figures = (part.total, part.twirled, part.relative_equivariance, part.noise_floor)
    total, twirled, relative, floor = ("–" if math.isnan(v) else f"{v:.3g}" for v in figures)
    return name, f"{value}{interval}", total, twirled, skill(part.loss, part.r2), relative, floor


def _bars(result: Shown) -> str:
    """An inline picture: percent of the loss of each output, and of the whole with its interval."""
    bars: list[tuple[str, float, tuple[float, float] | None]]
    bars = [(name, part.percent, None) for name, part in result.outputs.items()] if len(result.outputs) > 1 else []
    bars.append(("all" if bars else next(iter(result.outputs)), result.percent, result.percent_interval))
    bars = [bar for bar in bars if math.isfinite(bar[1])]
    if not bars:
        return ""
    ends = [v for _, value, interval in bars for v in (value, *(interval or ())) if math.isfinite(v)]
    scale, height = 240 / max(*ends, 1e-12), 22 * len(bars) + 6
    drawn = []
    for place, (name, value, interval) in enumerate(bars):
        y, label = 22 * place + 4, f'<text x="94" y="{22 * place + 17}" text-anchor="end">{escape(name[:14])}</text>'
        drawn.append(f'{label}<rect x="100" y="{y}" width="{max(scale * value, 0):.1f}" height="16" fill="#4c8dc4"/>')
        if interval and all(map(math.isfinite, interval)):
            low, high = (100 + scale * max(v, 0) for v in interval)
            drawn.append(f'<path d="M{low:.1f} {y + 8}H{high:.1f}M{low:.1f} {y + 3}v10M{high:.1f} {y + 3}v10"/>')
        drawn.append(f'<text x="348" y="{y + 13}">{plain(value)} %</text>')
    style = 'fill="currentColor" stroke="none" font-size="12" font-family="sans-serif"'
    body = "".join(drawn).replace("<path ", '<path stroke="currentColor" stroke-width="1.5" ')
    return (
        f'<svg role="img" aria-label="percent of the loss that is equivariance error" width="420" height="{height}" '
        f'viewBox="0 0 420 {height}" style="max-width: 100%; height: auto" {style}>{body}</svg>'
    )


def plot(result: Shown) -> Figure:
    """Panels side by side: percent of each output, spectrum, samples by percent, the worst samples; what is known.

    Raises:
        InputError: without matplotlib, or for a result without labels, spectrum and samples.
    """
    plt = _needed("matplotlib.pyplot", "result.plot()")
    sampled = result.per_sample is not None and bool((result.per_sample.total > 0).any())
    known = {
        _plot_intervals: math.isfinite(result.percent),
        _plot_spectrum: result.spectrum is not None,
        _plot_histogram: sampled,
        _plot_worst: sampled,
    }
    panels = [panel for panel, there in known.items() if there]
    if not panels:
        raise InputError("there is nothing to plot: give labels, target=…, or spectrum=True")
    figure = plt.figure(figsize=(3.6 * len(panels), 3.2), layout="constrained")
    for place, panel in enumerate(panels, start=1):
        panel(figure.add_subplot(1, len(panels), place), result)
    if "inline" in plt.get_backend():
        # A notebook shows what is returned; left open it would be shown twice.
        plt.close(figure)
    return figure


def _plot_intervals(axes: Axes, result: Shown) -> None:
    several = len(result.outputs) > 1
    names = [*result.outputs, "all"] if several else list(result.outputs)
    values = [*(part.percent for part in result.outputs.values()), *([result.percent] if several else [])]
    axes.barh(names, values, color="#4c8dc4")
    low, high = result.percent_interval
    if math.isfinite(low) and math.isfinite(high):
        spread = [[max(values[-1] - low, 0)], [max(high - values[-1], 0)]]
        axes.errorbar([values[-1]], [names[-1]], xerr=spread, color="black", capsize=4)
    axes.set_xlabel("equivariance error, % of the loss")
    axes.invert_yaxis()


def _plot_spectrum(axes: Axes, result: Shown) -> None:
    shares = [*result.spectrum["share"], result.spectrum["remainder"]]
    axes.bar([*map(str, result.spectrum["degrees"]), "rest"], [100 * s for s in shares], color="#4c8dc4")
    axes.set_xlabel("Wigner degree")
    axes.set_ylabel("% of the equivariance error")


def _percents(result: Shown) -> np.ndarray[Any, Any]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return 100 * result.per_sample.equivariance.numpy() / result.per_sample.total.numpy()


def _plot_histogram(axes: Axes, result: Shown) -> None:
    values = _percents(result)
    axes.hist(values[np.isfinite(values)], bins=min(30, max(5, len(values) // 4)), color="#4c8dc4")
    axes.set_xlabel("equivariance error of a sample,\n% of its loss")
    axes.set_ylabel("samples")


def _plot_worst(axes: Axes, result: Shown) -> None:
    error = result.per_sample.equivariance.numpy()
    worst = np.argsort(-error)[:WORST]
    axes.barh([str(result.per_sample.ids[i]) for i in worst], error[worst], color="#c4704c")
    axes.set_xlabel("equivariance error")
    axes.set_ylabel("id of the worst samples")
    axes.invert_yaxis()


def frame(result: Shown) -> DataFrame:
    """A row a sample: ``id``, ``cluster``, ``total``, ``equivariance``, ``percent``, ``weight``.

    Raises:
        InputError: without pandas, or for a result read from records, which keep no samples.
    """
    pandas = _needed("pandas", "result.to_frame()")
    kept = result.per_sample
    if kept is None:
        raise InputError("this result was read from records, which keep no samples: measure again for a row a sample")
    return pandas.DataFrame(
        {
            "id": kept.ids,
            "cluster": kept.clusters,
            "total": kept.total.numpy(),
            "equivariance": kept.equivariance.numpy(),
            "percent": _percents(result),
            "weight": kept.weight.numpy(),
        }
    )


def _needed(module: str, what: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        raise InputError(f"{what} needs {package}, which is not installed: pip install 'equiscope[plot]'") from error
