"""Learning against symmetric models at equal seconds and equal FLOPs, each annealed to its own budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from equiscope import tasks
from equiscope.report import paper
from equiscope.report.crossings import SKILL
from equiscope.report.efficiency import Cost
from equiscope.report.evidence import AGREES, UNDECIDED, Evidence, Row, Run, decided
from equiscope.words import duration

#: Replicates that an interval needs, learning rates that a best one needs, and the factor up to which budgets are same.
SEEDS, RATES, SAME_BUDGET = 3, 3, 1.1


@dataclass(frozen=True)
class Side:
    """A model at its best learning rate: the seeds there, and what a step of it costs.

    rates: all that were tried. runs: one a seed. cost: None where step times were not taken in turn.
    """

    runs: tuple[Run, ...]
    rates: tuple[float, ...]
    cost: Cost | None

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
    def name(self) -> str:
        rate = self.runs[0].rate
        at = "" if rate is None else f" at learning rate {rate:g}{', the edge of those tried' if self.edge else ''}"
        return f"{self.runs[0].model}{at} ({len(self.runs)} seed{'s' * (len(self.runs) > 1)})"

    @property
    def seconds(self) -> float:
        """Of its training: steps times the median step time, of the runs' own clock where none was taken in turn."""
        steps = float(self.runs[0].last_step)
        return steps * self.cost.step if self.cost else float(np.mean([run.seconds[-1] for run in self.runs]))

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
        rows += [_row(task, _best(sides[0][setting]), _best(sides[1][setting])) for setting in shared]
        called = tasks.words(task)
        if not shared:
            missing.append(f"{called.title}: {called.symmetric}, on the same data and machine")
        if not costs:
            missing.append(f"{called.title}: equiscope study efficiency task={task}, which takes step times in turn")
    return rows, missing


def _setting(run: Run) -> str:
    """What must be equal for losses and seconds to be comparable: data, held-out samples, loss, device and threads."""
    told = run.told.run
    probe = run.judged.probe if run.judged is not None else run.curve.probe
    return repr((sorted((run.config.get("data") or {}).items()), probe, run.result.loss, run.result.samples,
                 told.device, told.threads))  # fmt: skip


def _sides(runs: Sequence[Run], costs: dict[str, Cost]) -> dict[str, list[Side]]:
    """setting -> each model at its best learning rate; runs that did not finish are half annealed and left out."""
    grouped: dict[tuple[str, Any], dict[Any, dict[Any, Run]]] = {}
    for run in (run for run in runs if run.finished and np.isfinite(run.result.total)):
        recipe = (run.model, run.parameters, run.setting("optimizer.lr"))
        rates = grouped.setdefault((_setting(run), recipe), {})
        rates.setdefault(run.rate, {}).setdefault(run.seed, run)
    found: dict[str, list[Side]] = {}
    for (setting, _), rates in grouped.items():
        best = min(rates.values(), key=lambda seeds: float(np.mean([run.result.total for run in seeds.values()])))
        runs_there = tuple(best.values())
        cost = costs.get(runs_there[0].architecture) or costs.get(runs_there[0].model)
        known = tuple(sorted(rate for rate in rates if rate is not None))
        found.setdefault(setting, []).append(Side(runs_there, known, cost))
    return found


def _best(sides: Sequence[Side]) -> Side:
    return min(sides, key=lambda side: float(side.losses.mean()))


def _row(task: str, learns: Side, has: Side) -> Row:
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
        if len(side.runs) < SEEDS:
            return UNDECIDED, f"{SEEDS} seeds at the best learning rate of {side.runs[0].model}: rates are no seeds"
        if side.edge:
            return UNDECIDED, f"a grid of {RATES} or more learning rates with the best of {side.runs[0].model} inside"
        if side.cost is None:
            return UNDECIDED, f"step times of {side.runs[0].model} taken in turn with the other’s: a clock drifts"
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
