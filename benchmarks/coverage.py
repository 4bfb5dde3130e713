"""How often the intervals cover: laws of cluster totals x number of clusters x statistic, by simulation.

    python benchmarks/coverage.py                       # the whole table, minutes on one core
    python benchmarks/coverage.py --molecules RUN ...   # new figures of real molecules from runs of the force field

Every cell draws clusters from a law whose percent is known exactly and counts the 95 % intervals that hold it. Beside
the share stands the median effective number of clusters, and how wide the interval is beside the plain one (delta
method, Student's t with n - 1, no skewness), whose own share is given too: what few heavy clusters cost, and what it
buys.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from equiscope.decomposition import precision, statistics
from equiscope.decomposition.plan import SECOND_COSETS

Array = NDArray[np.float64]
HERE = Path(__file__).parent
RESULT = HERE / "results" / "coverage.md"
MOLECULES = HERE / "data" / "molecules.csv"
REPEATS = 2000
CLUSTERS = (2, 3, 4, 5, 8, 12, 20, 40, 80, 200)
PERCENT = 0.02
# Numbers drawn at once: bounds the memory.
CHUNK = 4_000_000
RTOL = (0.2, 0.1, 0.05)
MOST = 3000


def _log_normal(width: float) -> Callable[[np.random.Generator, tuple[int, ...]], Array]:
    return lambda rng, shape: rng.lognormal(-(width**2) / 2, width, shape)


def _zero_inflated(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.where(rng.random(shape) < 0.1, 10 * rng.lognormal(-0.125, 0.5, shape), 0.0)


# Every law has mean 1.
LAWS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
    "normal, width 0.3": lambda rng, shape: 1 + 0.3 * rng.normal(size=shape),
    "log-normal 0.5": _log_normal(0.5),
    "log-normal 1": _log_normal(1.0),
    "log-normal 2": _log_normal(2.0),
    "10 % not zero": _zero_inflated,
    "Pareto 3": lambda rng, shape: (rng.pareto(3, shape) + 1) / 1.5,
}


@dataclass(frozen=True)
class Cell:
    """One law, number of clusters and statistic.

    Attributes:
        covered, below, above: shares of intervals that hold the truth, lie wholly under it, wholly over it.
        effective: median effective number of clusters; few: share of intervals that say "not trustworthy".
        wider: median width beside that of the plain interval; plain: share of plain intervals that hold the truth.
    """

    statistic: str
    law: str
    clusters: float
    covered: float
    below: float
    above: float
    effective: float
    few: float
    wider: float
    plain: float


@dataclass(frozen=True)
class Drawn:
    """Intervals of many repeats: ends, effective number, and estimate and error of the plain interval; the truth."""

    low: Array
    high: Array
    effective: Array
    value: Array
    error: Array
    truth: float


def percents(a: Array, b: Array, truth: float) -> Drawn:
    """Of cluster totals (repeats, clusters)."""
    found = statistics.ratios(a, b)
    return Drawn(found.low, found.high, found.effective, found.value, found.error, truth)


def equal(rng: np.random.Generator, law: str, shape: tuple[int, int]) -> Drawn:
    """Clusters of one size."""
    return percents(PERCENT * LAWS[law](rng, shape), np.ones(shape), PERCENT)


def unlike(rng: np.random.Generator, law: str, shape: tuple[int, int]) -> Drawn:
    """Clusters whose losses follow a log-normal law of width 0.5, their ratios the law."""
    b = LAWS["log-normal 0.5"](rng, shape)
    return percents(PERCENT * b * LAWS[law](rng, shape), b, PERCENT)


def compare(rng: np.random.Generator, law: str, shape: tuple[int, int]) -> Drawn:
    """2 % against 3 % of two models that find the same clusters hard; on the linear scale."""
    b, shared = LAWS["log-normal 0.5"](rng, shape), LAWS[law](rng, shape)
    totals = [level * b * shared * LAWS["log-normal 0.5"](rng, shape) for level in (0.02, 0.03)]
    (first, r_a, left_a), (second, r_b, left_b) = (statistics.influence(a, b) for a in totals)
    found, delta, _ = statistics.spread(statistics.significant(r_b - r_a, b), left_b - left_a)
    value, flat = second - first, found.error == 0
    share = statistics.unseen(b)
    low, high = (value + np.where(flat, side * share, end) for side, end in ((-1, -found.below), (1, found.above)))
    effective = np.where(flat, (b**2).sum(-1) ** 2 / (b**4).sum(-1), found.effective)
    return Drawn(low, high, effective, value, delta, 0.01)


def partial(rng: np.random.Generator, law: str, shape: tuple[int, int]) -> Drawn:
    """cosets=1.5: half of the samples show what lies between two cosets, a tenth of the error, exponential."""
    n = shape[1]
    size = LAWS[law](rng, shape)
    second = 0.1 * PERCENT * size * rng.exponential(size=shape)
    known = np.broadcast_to(np.arange(n) < n // 2, shape)
    return percents(statistics.two_phase(0.9 * PERCENT * size, second, known), np.ones(shape), PERCENT)


def jackknifed(rng: np.random.Generator, law: str, shape: tuple[int, int], samples: int = 10) -> Drawn:
    """|p - y| from four rotations, ten samples a cluster, a residual w and a spread w / 2 over rotations, w the law."""
    p = 1 + 0.5 * rng.normal(size=(*shape, samples, 4))
    total = np.abs(p).mean(-1)
    others = (p.sum(-1, keepdims=True) - p) / 3
    twirled = 4 * np.abs(p.mean(-1)) - 3 * np.abs(others).mean(-1)
    size = LAWS[law](rng, shape)
    b = size * total.mean(-1)
    a = size * (total - twirled).mean(-1)
    # E |N(1, s^2)| = s sqrt(2 / pi) exp(-1 / 2 s^2) + erf(1 / s sqrt 2), the folded normal law.
    folded = 0.5 * math.sqrt(2 / math.pi) * math.exp(-2.0) + float(special.erf(math.sqrt(2.0)))
    return percents(a, b, (folded - 1) / folded)


STATISTICS: dict[str, tuple[Callable[..., Drawn], int, int]] = {
    # name: what draws it, numbers a cluster, fewest clusters
    "percent, clusters of one size": (equal, 1, 2),
    "percent, clusters of unlike size": (unlike, 2, 2),
    "difference of two models (compare)": (compare, 4, 2),
    "percent of a jackknifed loss": (jackknifed, 80, 2),
    "percent with partial cosets (1.5)": (partial, 2, 2 * SECOND_COSETS),
}


def drawn_molecules(column: int) -> Callable[[np.random.Generator, str, tuple[int, int]], Drawn]:
    """Clusters drawn with replacement from the real molecules of one model."""
    a, b = np.loadtxt(MOLECULES, delimiter=",", skiprows=1)[:, 2 * column : 2 * column + 2].T

    def draw(rng: np.random.Generator, law: str, shape: tuple[int, int]) -> Drawn:
        chosen = rng.integers(len(a), size=shape)
        return percents(a[chosen], b[chosen], float(a.sum() / b.sum()))

    return draw


MODELS = {"force field, 500 steps": 0, "force field, 2400 steps": 1, "force field, few data": 2}


def measure(draw: Callable[..., Drawn], law: str, n: int, repeats: int, rng: np.random.Generator, numbers: int = 1) -> Any:
    """All repeats of one cell, in pieces."""
    piece = max(1, min(repeats, CHUNK // (n * numbers)))
    found = [draw(rng, law, (min(piece, repeats - at), n)) for at in range(0, repeats, piece)]
    parts = {k: np.concatenate([getattr(f, k) for f in found]) for k in ("low", "high", "effective", "value", "error")}
    return Drawn(**parts, truth=found[0].truth)


def cell(statistic: str, law: str, clusters: float, drawn: Drawn, freedom: Array | float) -> Cell:
    """Shares and medians of the repeats, beside those of the plain interval with ``freedom`` degrees of freedom.

    Repeats without any loss have no percent and do not count.
    """
    real = np.isfinite(drawn.low)
    reach = (stats.t.ppf(0.975, freedom) * drawn.error)[real]
    low, high, value, effective = (x[real] for x in (drawn.low, drawn.high, drawn.value, drawn.effective))
    under, over = float((high < drawn.truth).mean()), float((low > drawn.truth).mean())
    spread = reach > 0
    wider = float(np.median((high - low)[spread] / (2 * reach[spread])))
    return Cell(
        statistic, law, clusters, 1 - under - over, under, over, float(np.median(effective)),
        float((effective < statistics.TOO_FEW).mean()), wider, float((np.abs(value - drawn.truth) <= reach).mean()),
    )  # fmt: skip


def stopped(law: str, rtol: float, repeats: int, rng: np.random.Generator) -> tuple[Drawn, Array]:
    """Intervals where the search for ``rtol`` stops, and with how many clusters; it looks as the search does."""
    a = PERCENT * LAWS[law](rng, (repeats, MOST))
    kept = {k: np.full(repeats, np.nan) for k in ("low", "high", "effective", "value", "error", "clusters")}
    searching, n = np.arange(repeats), precision.PILOT_CLUSTERS
    while len(searching):
        found = statistics.ratios(a[searching, :n], np.ones((len(searching), n)))
        with np.errstate(divide="ignore", invalid="ignore"):
            narrow = (found.high - found.low) / 2 <= rtol * found.value
        done = (narrow & ~found.limit) | (n == MOST)
        for name in ("low", "high", "effective", "value", "error"):
            kept[name][searching[done]] = getattr(found, name)[done]
        kept["clusters"][searching[done]] = n
        searching, n = searching[~done], min(MOST, math.ceil(precision.GROWTH * n))
    clusters = kept.pop("clusters")
    return Drawn(**kept, truth=PERCENT), clusters


def cells(repeats: int = REPEATS, clusters: tuple[int, ...] = CLUSTERS, seed: int = 0) -> Iterator[Cell]:
    """The whole table; every cell has random numbers of its own."""
    for s, (statistic, (draw, numbers, fewest)) in enumerate(STATISTICS.items()):
        for k, law in enumerate(LAWS):
            for n in clusters:
                if n >= fewest:
                    rng = np.random.default_rng([seed, s, k, n])
                    yield cell(statistic, law, n, measure(draw, law, n, repeats, rng, numbers), n - 1)
    for model, column in MODELS.items():
        for n in clusters:
            rng = np.random.default_rng([seed, 50, column, n])
            drawn = measure(drawn_molecules(column), "", n, repeats, rng, 2)
            yield cell("percent, real molecules", model, n, drawn, n - 1)
    for k, law in enumerate(LAWS):
        for r, rtol in enumerate(RTOL):
            drawn, number = stopped(law, rtol, repeats, np.random.default_rng([seed, 60, k, r]))
            yield cell(f"percent at rtol={rtol:g}", law, float(np.median(number)), drawn, number - 1)


def as_markdown(table: list[Cell], repeats: int) -> str:
    """One table a statistic: laws by clusters, and the cells that fall short."""
    lines = [
        "# Coverage of the 95 % intervals",
        "",
        f"{repeats} repeats a cell: a share of 95 % is known to ±{100 * 2 * math.sqrt(0.95 * 0.05 / repeats):.1f} %. In "
        "every cell: per cent of the intervals that hold the truth · median effective number of clusters · *what the "
        f"plain interval covers*. A cell in brackets has an effective number under {statistics.TOO_FEW:g}, where results "
        "say \"few clusters, not trustworthy\".",
    ]
    for statistic in dict.fromkeys(c.statistic for c in table if "rtol" not in c.statistic):
        chosen = [c for c in table if c.statistic == statistic]
        numbers = sorted({c.clusters for c in chosen})
        lines += ["", f"## {statistic[0].upper()}{statistic[1:]}", "", _row(["law", *(f"{n:g}" for n in numbers)]),
                  _row(["---"] * (len(numbers) + 1))]  # fmt: skip
        for law in dict.fromkeys(c.law for c in chosen):
            lines.append(_row([law, *(_shown(c) for c in chosen if c.law == law)]))
    lines += ["", "## After stopping at rtol", "", _row(["law", *(f"{r:g}" for r in RTOL)]), _row(["---"] * 4)]
    for law in LAWS:
        found = [c for c in table if c.law == law and "rtol" in c.statistic]
        lines.append(_row([law, *(f"{_shown(c)} · {c.clusters:g} clusters" for c in found)]))
    lines += ["", "## Width", "", "Median width beside the plain interval's, percent of clusters of one size.", ""]
    chosen = [c for c in table if c.statistic == next(iter(STATISTICS))]
    numbers = sorted({c.clusters for c in chosen})
    lines += [_row(["law", *(f"{n:g}" for n in numbers)]), _row(["---"] * (len(numbers) + 1))]
    lines += [_row([law, *(f"{c.wider:.2f}" for c in chosen if c.law == law)]) for law in LAWS]
    return "\n".join([*lines, "", "## Shortfall", "", *_shortfall(table), ""])


def _shortfall(table: list[Cell]) -> list[str]:
    """Cells under what is aimed at: 93 % from eight effective clusters on, 90 % from three; below, the least of each."""
    lines = []
    for low, high, aim in ((8.0, math.inf, 0.93), (statistics.TOO_FEW, 8.0, 0.90)):
        inside = [c for c in table if low <= c.effective < high]
        short = sorted((c for c in inside if c.covered < aim), key=lambda c: c.covered)
        span = f"{low:g} effective clusters or more" if high == math.inf else f"{low:g} to {high:g} effective clusters"
        named = "; ".join(f"{c.statistic}, {c.law}, {c.clusters:g} clusters: {100 * c.covered:.1f} %" for c in short)
        least = min((c.covered for c in inside), default=math.nan)
        lines.append(f"- {span}: {len(short)} of {len(inside)} cells under {100 * aim:g} % (least {100 * least:.1f} %)"
                     + (f": {named}" if named else ""))  # fmt: skip
    inside = [c for c in table if c.effective < statistics.TOO_FEW]
    lines.append(f"- under {statistics.TOO_FEW:g}, where results say \"not trustworthy\": {len(inside)} cells, "
                 f"{sum(c.covered < 0.9 for c in inside)} of them under 90 %; the least of each statistic:")  # fmt: skip
    for statistic in dict.fromkeys(c.statistic for c in inside):
        worst = min((c for c in inside if c.statistic == statistic), key=lambda c: c.covered)
        lines.append(f"    - {statistic}: {worst.law}, {worst.clusters:g} clusters: {100 * worst.covered:.1f} %")
    return lines


def _row(texts: list[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _shown(one: Cell) -> str:
    covered = f"{100 * one.covered:.1f}"
    covered = f"({covered})" if one.effective < statistics.TOO_FEW else covered
    return f"{covered} · {one.effective:.2g} · *{100 * one.plain:.0f}*"


def extract(runs: list[str]) -> str:
    """The table of (equivariance error, loss) of the held-out molecules of trained force fields, a pair a run."""
    import torch

    import equiscope as eq
    from equiscope.runs.trained import open_run

    columns, names = [], []
    for run in runs:
        opened = open_run(run)
        opened.task.prepare(progress=False)
        frames, probe = opened.task._loaded(), next(p for p in opened.task.probes("final") if p.headline)
        held = torch.cat([frames.indices("track"), frames.indices("final")])
        batches = [frames.batch(rows) for rows in held.split(64)]
        found = eq.measure(opened.model, batches, probe.declaration, forward=probe.forward).per_sample
        codes, count = statistics.encode(found.clusters)
        for name, values in (("equivariance", found.equivariance), ("total", found.total)):
            columns.append(statistics.cluster_totals(values.numpy(), codes, count))
            names.append(f"{name} {Path(run).name}")
    rows = [",".join(f"{x:.6g}" for x in row) for row in np.stack(columns, axis=1)]
    return "\n".join([",".join(names), *rows, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--molecules", nargs="+", metavar="RUN", help="write data/molecules.csv from these runs instead")
    options = parser.parse_args()
    if options.molecules:
        MOLECULES.write_text(extract(options.molecules))
        return
    table = list(cells(options.repeats))
    text = as_markdown(table, options.repeats)
    RESULT.write_text(text)
    RESULT.with_suffix(".json").write_text(json.dumps([asdict(c) for c in table], indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    main()
