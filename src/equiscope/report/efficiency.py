"""Equivariant against not, by computing time: each model at its best learning rate, loss against cost, the break-even.

An equivariant model is the better buy for a loss L iff the ratio of step times is under the ratio of steps needed,

    t_eq / t_free  <  n_free(L) / n_eq(L),

with both ratios given as intervals: of the median over paired rounds in which steps were timed, and of the measured
steps between which the loss was first reached. The paper's claim is about learning and symmetric models at equal
seconds and equal FLOPs, each annealed to its own budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from scipy import stats

from equiscope import tasks
from equiscope.report import paper, style
from equiscope.report.chart import Chart, Panel, Series
from equiscope.report.crossings import SKILL
from equiscope.report.curves import Curve
from equiscope.report.evidence import AGREES, UNDECIDED, Evidence, Row, Run, decided
from equiscope.report.style import Axis
from equiscope.report.views import Cost
from equiscope.words import duration, raised

Rate = TypeVar("Rate")

#: R² at which step counts are compared.
LEVELS = (0.5, 0.8, 0.9, 0.95)
#: Seeds at the best learning rate that a verdict or an interval needs, learning rates that a best one needs, and the
#: factor up to which budgets are the same.
SEEDS, RATES, SAME_BUDGET = 3, 3, 1.1
COST_COLUMNS = ("model", "parameters", "learning rate", "final R²", "percent", "GFLOP a step", "ms a step",
                "samples/s trained", "samples/s inferred", "peak MiB")  # fmt: skip
EVEN_COLUMNS = ("model", "against", "at R²", "its steps", "steps of the other", "ratio of steps", "ratio of step times",
                "verdict")  # fmt: skip


@dataclass(frozen=True)
class Contender:
    """A model at its best learning rate: the tracked curve of its first seed and what a step of it costs.

    seeds: runs at that rate. edge: whether it is the lowest or highest of those tried, so that a better one may lie
    outside.
    """

    name: str
    rate: str
    curve: Curve
    cost: Cost
    seeds: int = 1
    edge: bool = False

    @property
    def caution(self) -> str:
        """What its figures lack for a verdict, in words; empty if nothing."""
        lacks = [f"{self.seeds} seed{'s' * (self.seeds > 1)}"] if self.seeds < SEEDS else []
        return ", ".join([*lacks, *(["at the edge of the learning rates"] if self.edge else [])])


def best_rate(losses: Mapping[Rate, Mapping[Any, float]]) -> Rate:
    """The learning rate, of rate -> seed -> loss, with the least mean over the seeds that all of them have.

    A seed that only some have would judge these by another yardstick; where all share none, each is judged by its own.
    A loss that is not finite is the worst.
    """
    shared = set.intersection(*map(set, losses.values()))
    means = {rate: float(np.mean([own[seed] for seed in shared or own])) for rate, own in losses.items()}
    return min(means, key=lambda rate: means[rate] if np.isfinite(means[rate]) else np.inf)


def contenders(curves: Mapping[str, Mapping[Any, Curve]], costs: Mapping[str, Cost]) -> list[Contender]:
    """The best point of each model by the total loss at the last measured step: :func:`best_rate`.

    curves: point -> seed -> curve. Points are named ``MODEL @ RATE``.
    """
    models: dict[str, dict[str, Mapping[Any, Curve]]] = {}
    for point, seeds in curves.items():
        name, _, rate = (part.strip() for part in point.partition("@"))
        if name in costs and seeds and all(np.isfinite(one.total[-1]) for one in seeds.values()):
            models.setdefault(name, {})[rate] = seeds
    found = []
    for name, rates in models.items():
        best = best_rate({r: {seed: c.total[-1] for seed, c in seeds.items()} for r, seeds in rates.items()})
        edge = best in _ends(list(rates))
        found.append(Contender(name, best, next(iter(rates[best].values())), costs[name], len(rates[best]), edge))
    return found


def _ends(rates: Sequence[str]) -> tuple[str, str]:
    """The lowest and the highest of rates; the first and the last where they are no numbers."""
    try:
        ordered = sorted(rates, key=float)
    except ValueError:
        ordered = list(rates)
    return ordered[0], ordered[-1]


def cost_rows(found: Sequence[Contender]) -> list[tuple[str, ...]]:
    """Rows of :data:`COST_COLUMNS`: medians over the rounds."""
    return [
        (one.name, f"{one.cost.parameters:,}", one.rate + (f" ({one.caution})" if one.caution else ""),
         f"{one.curve.r2[-1]:.3f}",
         f"{raised(f'{one.curve.percent[-1]:.2g}')} %", f"{one.cost.flops / 1e9:.2f}", f"{1e3 * one.cost.step:.0f}",
         f"{one.cost.samples / one.cost.step:,.0f}",
         f"{one.cost.infer_samples / np.median(one.cost.infer_seconds):,.0f}", f"{one.cost.peak_mib:.0f}")
        for one in found
    ]  # fmt: skip


def reached(curve: Curve, r2: float) -> tuple[int, int] | None:
    """The measured steps (before, first) between which R² first reached a level; None if it never did."""
    places = np.flatnonzero(curve.r2 >= r2)
    if not len(places):
        return None
    first = int(places[0])
    return (int(curve.step[first - 1]) if first else 0, int(curve.step[first]))


def ratio_of_times(one: Contender, other: Contender) -> tuple[float, float, float]:
    """Median over rounds of one's step time over the other's, and its 95 % interval.

    Distribution-free: the k-th smallest and largest ratio, P(fewer than k of n are below the median) <= 0.025; the
    whole range with fewer than six rounds, where nothing narrower covers.
    """
    ratios = np.sort(np.array(one.cost.step_seconds) / np.array(other.cost.step_seconds))
    k = max(int(stats.binom.ppf(0.025, len(ratios), 0.5)), 1)
    return float(np.median(ratios)), float(ratios[k - 1]), float(ratios[-k])


def break_even(found: Sequence[Contender], against: Sequence[str]) -> list[tuple[str, ...]]:
    """Rows of :data:`EVEN_COLUMNS`: every other model against each of those without symmetry, at each level of R²."""
    free = [one for one in found if one.name in against]
    others = [one for one in found if one.name not in against]
    return [row for two in free for one in others for row in _pair(one, two)]


def _pair(one: Contender, free: Contender) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    time, time_low, time_high = ratio_of_times(one, free)
    times = f"{time:.2f} [{time_low:.2f}, {time_high:.2f}]"
    for level in LEVELS:
        mine, theirs = reached(one.curve, level), reached(free.curve, level)
        told = (one.name, free.name, f"{level:g}", _between(mine), _between(theirs))
        if mine is None or theirs is None:
            never = " and ".join(c.name for c, r in ((one, mine), (free, theirs)) if r is None)
            rows.append((*told, "–", times, f"{never} never got there"))
            continue
        low, high = max(theirs[0], 1) / mine[1], theirs[1] / max(mine[0], 1)
        verdict = _verdict(one.name, free.name, (low, high), (time_low, time_high))
        if one.caution or free.caution:
            verdict = f"open: {verdict} by these runs"
        rows.append((*told, f"{low:.2f}–{high:.2f}", times, verdict))
    return rows


def _between(steps: tuple[int, int] | None) -> str:
    return "–" if steps is None else f"{steps[0]:,}–{steps[1]:,}"


def _verdict(one: str, free: str, steps: tuple[float, float], times: tuple[float, float]) -> str:
    if times[1] < steps[0]:
        return f"{one} is there first"
    if times[0] > steps[1]:
        return f"{free} is there first"
    return "cannot be told apart"


def chart(found: Sequence[Contender]) -> Chart:
    """Total loss of the held-out samples against steps, samples, FLOPs and seconds."""
    labels = ("training steps", "training samples", "PFLOP (matrix products)", "seconds at the measured step time")
    panels = []
    for place, label in enumerate(labels):
        series = []
        for one, colour in zip(found, style.COLOURS, strict=False):
            scale = (1.0, one.cost.samples, one.cost.flops / 1e15, one.cost.step)[place]
            x, name = np.maximum(one.curve.step, 1) * scale, f"{one.name}, learning rate {one.rate}"
            series.append(Series(x, one.curve.total, name, colour, "solid", "circle", size=3.5))
        panels.append(Panel(Axis(label, True), Axis("" if place % 2 else "total loss, held out", True), series))
    return Chart([panels[:2], panels[2:]], (9.6, 7.0))


@dataclass(frozen=True)
class Side:
    """A model at its best learning rate: the seeds there, and what a step of it costs.

    rates: all that were tried. runs: one a seed. cost: None where step times were not taken in turn. lost: seeds
    more at that rate whose runs diverged or did not come to their ends.
    """

    runs: tuple[Run, ...]
    rates: tuple[float, ...]
    cost: Cost | None
    lost: int = 0

    @property
    def losses(self) -> np.ndarray:
        """(S,) total losses on the final set."""
        return np.array([run.result.total for run in self.runs])

    @property
    def edge(self) -> bool:
        """Whether the best learning rate lies at the edge of those tried, or they are too few to tell."""
        rate = self.runs[0].rate
        return len(self.rates) < RATES or rate is None or rate in (min(self.rates), max(self.rates))

    @property
    def lacks(self) -> str:
        """What a verdict needs and it has not, in words: seeds, a best rate inside of those tried, step times taken in
        turn; empty if nothing."""
        model = self.runs[0].model
        if len(self.runs) < SEEDS:
            return f"{SEEDS} seeds at the best learning rate of {model}: rates are no seeds"
        if self.lost:
            return f"the other seeds of {model} at that rate, {self.lost}, at their ends too"
        if self.edge:
            return f"a grid of {RATES} or more learning rates with the best of {model} inside"
        return "" if self.cost else f"step times of {model} taken in turn with the other’s: a clock drifts"

    @property
    def name(self) -> str:
        rate = self.runs[0].rate
        at = "" if rate is None else f" at learning rate {rate:g}{', the edge of those tried' if self.edge else ''}"
        return f"{self.runs[0].model}{at} ({len(self.runs)} seed{'s' * (len(self.runs) > 1)})"

    @property
    def seconds(self) -> float:
        """Of its training: steps times the median step time, of the runs' own clock where none was taken in turn."""
        steps = float(self.runs[0].last_step)
        return steps * self.cost.step if self.cost else float(np.mean([run.told.seconds[-1] for run in self.runs]))

    @property
    def flops(self) -> float:
        return float(self.runs[0].last_step) * self.cost.flops if self.cost else float("nan")


def log_ratio(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """Ratio of the geometric means of two samples of seeds and its 95 % interval (Welch's t on logs).

    NaN limits with fewer than two in either.
    """
    logs = [np.log(np.maximum(np.asarray(v, dtype=float), 1e-300)) for v in (first, second)]
    middle = float(logs[0].mean() - logs[1].mean())
    if min(map(len, logs)) < 2:
        return float(np.exp(middle)), float("nan"), float("nan")
    parts = [float(v.var(ddof=1)) / len(v) for v in logs]
    if not sum(parts) > 0:
        return float(np.exp(middle)), float(np.exp(middle)), float(np.exp(middle))
    freedom = sum(parts) ** 2 / sum(p**2 / (len(v) - 1) for p, v in zip(parts, logs, strict=True))
    half = float(stats.t.ppf(0.975, freedom)) * sum(parts) ** 0.5
    return tuple(float(np.exp(middle + end)) for end in (0.0, -half, half))  # type: ignore[return-value]


def budget_rows(evidence: Evidence) -> tuple[list[Row], list[str]]:
    """A row for each task and setting that has learning and symmetric runs, and which runs are missing."""
    rows, missing = [], []
    for task in paper.TASKS:
        profiles = [profile for own, profile in evidence.profiles if own == task]
        costs = {name: cost for profile in profiles for name, cost in profile.costs.items()}
        sides = [_sides(evidence.of(task, symmetric), costs) for symmetric in (False, True)]
        shared = [setting for setting in sides[0] if setting in sides[1]]
        rows += [_budget_row(task, _best(sides[0][setting]), _best(sides[1][setting])) for setting in shared]
        called = tasks.words(task)
        if not shared:
            missing.append(f"{called.title}: {called.symmetric}, on the same data and machine")
        if not costs:
            missing.append(f"{called.title}: equiscope study efficiency task={task}, which takes step times in turn")
    return rows, missing


def _setting(run: Run) -> str:
    """What must be equal for losses and seconds to be comparable: data, held-out samples, loss, device and threads."""
    told = run.told.run
    return repr((sorted((run.config.get("data") or {}).items()), run.shown.probe, run.result.loss, run.result.samples,
                 told.device, told.threads))  # fmt: skip


def _sides(runs: Sequence[Run], costs: dict[str, Cost]) -> dict[str, list[Side]]:
    """setting -> each model at its best learning rate; runs that did not finish are half annealed and left out.

    The rate is chosen by the tracked samples and judged by the final ones: chosen by these, it would be the luckiest.
    """
    grouped: dict[tuple[str, Any], dict[Any, dict[Any, Run]]] = {}
    for run in (run for run in runs if run.finished and np.isfinite(run.result.total)):
        recipe = (run.model, run.parameters, run.setting("optimizer.lr"))
        rates = grouped.setdefault((_setting(run), recipe), {})
        rates.setdefault(run.rate, {}).setdefault(run.seed, run)
    found: dict[str, list[Side]] = {}
    for (setting, _), rates in grouped.items():
        tracked = {r: {seed: float(run.shown.total[-1]) for seed, run in seeds.items()}
                   for r, seeds in rates.items()}  # fmt: skip
        runs_there = tuple(rates[best_rate(tracked)].values())
        cost = costs.get(runs_there[0].architecture) or costs.get(runs_there[0].model)
        # Another size of the same model takes other seconds.
        cost = cost if cost is not None and cost.parameters == runs_there[0].parameters else None
        known = tuple(sorted(rate for rate in rates if rate is not None))
        alike = {(one.model, one.parameters, one.setting()) for one in runs_there}
        lost = {run.seed for run in runs if (run.model, run.parameters, run.setting()) in alike}
        side = Side(runs_there, known, cost, len(lost - {one.seed for one in runs_there}))
        found.setdefault(setting, []).append(side)
    return found


def _best(sides: Sequence[Side]) -> Side:
    """The one of the least loss, of those that can be judged if there are any."""
    return min(sides, key=lambda side: (bool(side.lacks), float(side.losses.mean())))


def _budget_row(task: str, learns: Side, has: Side) -> Row:
    ratio, low, high = log_ratio(learns.losses, has.losses)
    verdict, change = budget_verdict(learns, has)
    step = f"{has.cost.step / learns.cost.step:.2f} times as long" if learns.cost and has.cost else "of unknown length"
    took = ", ".join(f"{duration(side.seconds)} and {_flop(side.flops)}" for side in (learns, has))
    ours = (
        f"ratio of final losses {ratio:.2f} (under 1: learning symmetry is ahead), after {took}; a step of the "
        f"symmetric model is {step}"
    )
    interval = f"[{low:.2f}, {high:.2f}] over seeds" if np.isfinite(low) else "no interval over seeds"
    ran = "; ".join(f"{side.runs[0].words.rsplit(', seed', 1)[0]}" for side in (learns, has))
    return Row(task, f"{learns.name} against {has.name}", "final loss at equal seconds and FLOPs", ours, interval,
               paper.EFFICIENCY, verdict, ran, change)  # fmt: skip


def _flop(flops: float) -> str:
    return f"{flops / 1e12:.3g} TFLOP" if np.isfinite(flops) else "unknown FLOPs"


def budget_verdict(learns: Side, has: Side) -> tuple[str, str]:
    """The verdict on a pair, and what would change it."""
    for side in (learns, has):
        if not all(run.result.r2 >= SKILL for run in side.runs):
            return UNDECIDED, f"a {side.runs[0].model} with skill: R² ≥ {SKILL:g}"
        if side.lacks:
            return UNDECIDED, side.lacks
    _, low, high = log_ratio(learns.losses, has.losses)

    def affordable(mine: Side, other: Side) -> bool:
        return mine.seconds <= SAME_BUDGET * other.seconds and mine.flops <= SAME_BUDGET * other.flops

    verdict = decided(high < 1 and affordable(learns, has), low > 1 and affordable(has, learns))
    if verdict != UNDECIDED:
        ahead = has if verdict == AGREES else learns
        return verdict, f"a faster or better {ahead.runs[0].model} at the same budget"
    if low <= 1 <= high:
        return verdict, "more seeds: the interval over them holds 1"
    return verdict, "runs annealed to the same seconds and FLOPs: the one ahead had more of one of them"
