"""The late rise of the flow's percent: drift of the weights or noise of the optimiser, told apart by twins.

    python benchmarks/late_rise.py RUN ...     # held-rate runs of `equiscope study dynamics task=proteinflow`

A run is repeated from its first checkpoint up to step :data:`FORK`, and from there :data:`TWINS` times with mini-batches
of its own each. Twins differ by the optimiser's noise alone. The error is quadratic in what breaks symmetry, so with E the
mean error of the single twins, and M that of the mean of their K weights,

    noise = (E - M) K / (K - 1),        drift = E - noise = (K M - E) / (K - 1):

what a mean over infinitely many twins would keep. Weights are the run's exponential averages, as its curve is measured.
Standard errors: jackknife over held-out chains and over twins, added in quadrature, of the logarithm of a ratio. The steps of
the least and the largest drift are picked after the fact, so that the intervals hold for all pairs of steps at once.
"""

from __future__ import annotations

import copy
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pages import RESULTS, store, table
from scipy import stats

from equiscope import records
from equiscope.words import digits, ranged

# Flow time and samples an independent batch of the gradients in the late rise.
RISING, DEALT = "t=0.4", 4
FORK, MARKS, TWINS = 126, (183, 265, 383, 500), 5
# Mini-batches of twins are those of steps so far on.
FAR = 100_000
DATA = RESULTS / "dynamics.json"
LATE = """\
The candidates: (a) the total falls while L_E stays at a floor of noise; (b) new features break symmetry; (c) the learning
rate. **(a) is refuted**: L_E itself grows, in {above} of {nano} nano runs with its whole interval above one at t = 0.4, and there
far more than the total falls. **(c) is refuted as a change of the rate, and as noise of the rate at the time where the rate falls**:
under the cosine L_E grows while the rate falls, and the run ends, annealed to a hundredth of its rate, with the error of its
peak; at a held rate it grows as well, and in {back} of {held} runs it falls again at that same rate, before any annealing.
{lower}**(b) is what is left, and what is seen is its course**: L_E grows where R² does, and in most
held runs falls again once the new structure is learned, as where broken directions arrange themselves. The gradients bear it out in part: under
the cosine they are orthogonal before the rise and oppose each other in it, so that what lowers the twirled loss raises the
error; yet the net gradient at the kept checkpoints lowers the error or is not told from zero.
{twins}{noise}Networks of 34,248 parameters, and one run of 60M that was stopped at step 940.
"""


def grown(folder: Path) -> dict[str, Any]:
    """Per chain, the error of every twin, of the mean of all weights and of those with one twin left out, at each mark."""
    import torch

    from equiscope.runs.trained import open_run

    torch.set_num_threads(1)
    first = open_run(folder, averaged=False, step=0)
    first.task.prepare(progress=False)
    run = Course(first, first.model, copy.deepcopy(first.model))
    run.go(FORK, shift=0)
    curve = {e["step"]: e["result"]["equivariance"] for e in records.read(folder / "records.jsonl")
             if e["kind"] == "measure" and e["part"] == "track" and e["probe"] == RISING}  # fmt: skip
    again = held_out(first, run.mean, ("track",)).equivariance
    kept: dict[int, list[list[Any]]] = {mark: [] for mark in MARKS}
    for twin in range(1, TWINS + 1):
        own = run.copy()
        for mark in MARKS:
            own.go(mark, shift=FAR * twin)
            kept[mark].append([p.detach().clone() for p in own.mean.parameters()])
        print(folder.name, "twin", twin, flush=True)
    found = {}
    for mark, weights in kept.items():
        one = [errors(first, with_weights(run.mean, [w])) for w in weights]
        whole = errors(first, with_weights(run.mean, weights))
        rest = [errors(first, with_weights(run.mean, weights[:k] + weights[k + 1 :])) for k in range(TWINS)]
        found[str(mark)] = {"twins": [e for e, _ in one], "mean": whole[0], "without": [e for e, _ in rest],
                            "total": [float(np.mean([np.mean(t) for _, t in one])), float(np.mean(whole[1]))]}  # fmt: skip
    return {"seed": first.config["seed"], "lr": first.config["optimizer"]["lr"], "fork": FORK,
            "recorded": curve.get(FORK), "repeated": again, "marks": found}  # fmt: skip


class Course:
    """A run between two steps: its weights, their average, the optimiser."""

    def __init__(self, trained: Any, net: Any, mean: Any, state: Any = None, step: int = 0):
        from equiscope.runs.module import build_optimizer

        self.trained, self.net, self.mean, self.step = trained, net.train(), mean.requires_grad_(False), step
        self.optimizer = build_optimizer(net.parameters(), trained.config["optimizer"], False)
        if state is not None:
            self.optimizer.load_state_dict(state)

    def copy(self) -> Course:
        net, mean = copy.deepcopy(self.net), copy.deepcopy(self.mean)
        return Course(self.trained, net, mean, copy.deepcopy(self.optimizer.state_dict()), self.step)

    def go(self, until: int, shift: int) -> None:
        """Train at the highest rate, which these runs hold, on the mini-batches of later steps."""
        from equiscope.runs.module import update_average

        task, ema = self.trained.task, self.trained.config["trainer"]["ema"]
        while self.step < until:
            loss = task.training_loss(self.net, task.training_batch(self.step + shift))["loss"]
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.step += 1
            update_average(self.mean, self.net, self.step, ema)


def with_weights(net: Any, weights: Sequence[Any]) -> Any:
    """The network with the mean of several lists of parameters."""
    import torch

    made = copy.deepcopy(net)
    with torch.no_grad():
        for place, parameter in enumerate(made.parameters()):
            parameter.copy_(torch.stack([one[place] for one in weights]).mean(0))
    return made


def errors(trained: Any, net: Any) -> tuple[list[float], list[float]]:
    """Equivariance error and total of every held-out chain at the flow time of the rise."""
    found = held_out(trained, net, ("track", "final")).per_sample
    return found.equivariance.tolist(), found.total.tolist()


def held_out(trained: Any, net: Any, held: tuple[str, ...]) -> Any:
    """The Result of the chains of these parts at the flow time of the rise."""
    from equiscope.decomposition.measure import measured
    from equiscope.decomposition.plan import make_plan

    probes = [p for part in held for p in trained.task.probes(part) if p.name == RISING]
    plan = make_plan(probes[0].declaration, probes[0].forward, "D2", 2, 0)
    return measured(net.eval(), [batch for p in probes for batch in p.batches], plan)


@dataclass(frozen=True)
class Split:
    """The error of averaged weights at one step, taken apart by K twins over n chains.

    twins: (K, n) errors of each; mean: (n,) of the mean of their weights; without: (K, n) with one twin left out of it.
    """

    twins: np.ndarray
    mean: np.ndarray
    without: np.ndarray

    @staticmethod
    def of(found: dict[str, Any]) -> Split:
        return Split(*(np.array(found[name]) for name in ("twins", "mean", "without")))

    def drift(self, chains: Any = slice(None), left_out: int | None = None) -> float:
        """(K M - E) / (K - 1), of some chains, or with one twin left out."""
        twins, mean = self.twins, self.mean
        if left_out is not None:
            twins, mean = np.delete(twins, left_out, 0), self.without[left_out]
        count = len(twins)
        return float((count * mean[chains].mean() - twins[:, chains].mean()) / (count - 1))

    @property
    def noise(self) -> float:
        return float(self.twins.mean()) - self.drift()


def growth_of_drift(first: Split, last: Split, pairs: int = 1) -> tuple[float, float, float]:
    """Drift at the second over that at the first with its 95 % interval: jackknife over chains and over twins, Student.

    pairs: how many pairs of steps these two were picked from; all their intervals hold at once (Bonferroni).
    """

    def logarithm(**left: Any) -> float:
        ratio = last.drift(**left) / first.drift(**left)
        return math.log(ratio) if ratio > 0 else math.nan

    count, chains = first.twins.shape
    over_twins = np.array([logarithm(left_out=k) for k in range(count)])
    over_chains = np.array([logarithm(chains=np.arange(chains) != i) for i in range(chains)])
    square = sum((len(v) - 1) / len(v) * float(((v - v.mean()) ** 2).sum()) for v in (over_twins, over_chains))
    reach = float(stats.t.ppf(1 - 0.025 / pairs, count - 1)) * math.sqrt(square)
    middle = logarithm()
    return math.exp(middle), math.exp(middle - reach), math.exp(middle + reach)


def said_of_twins(twins: list[dict[str, Any]]) -> str:
    """Whether the error that grows is one that all twins share, with what it counts; empty without twins."""
    if not twins:
        return ""
    shares, grown, apart = [], [], max(MARKS) - FORK
    for run in twins:
        splits = [Split.of(found) for found in run["marks"].values()]
        shares += [split.noise / float(split.twins.mean()) for split in splits]
        place = int(np.argmin([split.drift() for split in splits]))
        later = [growth_of_drift(splits[place], split, math.comb(len(splits), 2)) for split in splits[place + 1 :]]
        grown.append(max(later, default=(1.0, 1.0, 1.0)))
    above = sum(low > 1 for _, low, _ in grown)
    if above < len(grown):
        return f"Twins: the drift grows in {above} of {len(grown)} seeds with its whole interval above one.\n"
    told = ", ".join(f"{middle:.2f} ({low:.2f} to {high:.2f})" for middle, low, high in grown)
    return (
        f"**The growth is drift, not noise**: of {TWINS} twins a seed that part at step {FORK} and then see other mini-batches, "
        f"the error\nthat all share grows {told} times in the {len(grown)} seeds, and what they do not share is "
        f"{100 * min(shares):.0f} to {100 * max(shares):.0f} % of a twin's error, at every\nstep looked at. Noise from before they "
        f"part counts as drift here, and they are apart for {apart} steps at most.\n"
    )


def twin_rows(twins: list[dict[str, Any]]) -> list[str]:
    """Of each repeated run and step: the error of single twins, its noise and its drift, and how the drift grew."""
    rows: list[list[str]] = []
    for run in twins:
        splits = {int(mark): Split.of(found) for mark, found in run["marks"].items()}
        lowest = min(splits, key=lambda mark: splits[mark].drift())
        for mark, split in splits.items():
            single, (total, of_mean) = float(split.twins.mean()), run["marks"][str(mark)]["total"]
            grown = "lowest" if mark == lowest else "{:.2f} ({:.2f} to {:.2f})".format(
                *growth_of_drift(splits[lowest], split, math.comb(len(splits), 2)))
            rows.append([str(run["seed"]), str(mark), digits(single), digits(split.noise),
                         f"{100 * split.noise / single:.0f} %", digits(split.drift()), grown, f"{of_mean / total:.3f}"])
    head = ["seed", "step", "L_E of a twin", "noise", "of L_E", "drift", "drift over its lowest", "total of the mean weights over a twin's"]
    words = (f"Twins, from step {FORK} on at the held rate (L_E of averaged weights at {RISING}, 32 chains; a repeated run's L_E is "
             "within {:.1%} of the recorded one there):".format(max(abs(r["repeated"] / r["recorded"] - 1) for r in twins))) if twins else ""
    return [words, "", *markdown(head, rows)] if rows else []


def curve(entries: list[dict[str, Any]], probe: str) -> list[list[float]]:
    """[step, percent, low, high, equivariance error, total, R²] of each tracked measurement."""
    found = [(e["step"], e["result"]) for e in entries if e["kind"] == "measure" and e["part"] == "track" and e["probe"] == probe]
    return [[step, r["percent"], *r["percent_interval"], r["equivariance"], r["total"], r["r2"]] for step, r in found]


def short(value: Any) -> Any:
    """Numbers to five digits."""
    if isinstance(value, dict):
        return {key: short(item) for key, item in value.items()}
    if isinstance(value, list):
        return [short(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    return [*table(head, rows), ""]


def rise(path: Path) -> dict[str, Any]:
    """A flow run's curves by flow time, its learning rate, and from its checkpoints the gradients of both parts."""
    place = path if path.suffix else path / "records.jsonl"
    entries = [json.loads(line) for line in place.read_text().splitlines()]
    config = entries[0]["config"]
    probes = dict.fromkeys(e["probe"] for e in entries if e["kind"] == "measure" and e["part"] == "track")
    rates = {e["step"]: e["lr"] for e in entries if e["kind"] == "train"}
    return {
        "name": f"{entries[0]['model']} {config['model'].get('size', '')}", "parameters": entries[0]["parameters"],
        "seed": config["seed"], "lr": config["optimizer"]["lr"], "steps": config["trainer"]["max_steps"],
        "clip": config["trainer"]["clip"], "hold": config["schedule"].get("hold", 0.0),
        "curves": {p: curve(entries, p) for p in probes if p.startswith("t=")},
        "rates": [[s, rates[s]] for s in sorted(rates)], "gradients": {} if path.suffix else pulls(path),
    }  # fmt: skip


def pulls(folder: Path) -> dict[str, Any]:
    """Cosine of the gradients of both parts, and their rates along the whole one, at each kept step after the first."""
    from equiscope.analysis.gradients import gradients
    from equiscope.decomposition.plan import make_plan
    from equiscope.runs.deal import dealt
    from equiscope.runs.trained import available_steps, open_run

    found: dict[str, Any] = {}
    for name, averaged in (("averaged weights", True), ("weights", False)):
        for step in (s for s in available_steps(open_run(folder).folder) if s):
            run = open_run(folder, averaged=averaged, step=step)
            run.task.prepare(progress=False)
            held = [p for part in ("track", "final") for p in run.task.probes(part) if p.name == RISING]
            plan = make_plan(held[0].declaration, held[0].forward, "D2", 2, 0)
            batches = [batch for p in held for batch in dealt(p.batches, p.declaration, DEALT, 0)]
            whole = gradients(run.model, batches, plan, groups=4 * DEALT)["whole"]
            found.setdefault(f"{RISING}, {name}", {})[str(step)] = {key: whole[key] for key in ("cosine", "rate")}
    return found


def ends(points: list[list[float]]) -> tuple[list[float], list[float]]:
    """The measurement of the lowest percent after the start, and that of the highest after it."""
    steps = [p for p in points if p[0] > 0]
    dip = min(range(len(steps)), key=lambda i: steps[i][1])
    return steps[dip], max(steps[dip:], key=lambda p: p[1])


def growth(low: list[float], high: list[float]) -> list[float]:
    """L_E at the second over that at the first, and the widest interval that theirs allow."""
    (a, b), (c, d) = ([p[i] * p[5] / 100 for i in (2, 3)] for p in (low, high))
    return [high[4] / low[4], c / b, d / a]


def said_of_the_rise(data: dict[str, Any], shares: Sequence[float]) -> str:
    """The words on the late rise, with what they count; shares: the noise in the error by the Krylov solution."""
    every = [run for run in data["late"] if RISING in run["curves"] and run["parameters"] < 1e6]
    nano = [run for run in every if run["lr"] == max(one["lr"] for one in every)]
    held = [run for run in nano if run["hold"]]
    back = [run for run in held for peak in [ends(run["curves"][RISING])[1]]
            if any(peak[0] < p[0] <= run["hold"] * run["steps"] and p[4] < peak[4] for p in run["curves"][RISING])]  # fmt: skip
    share = " and ".join(f"{100 * one:.0f} %" for one in shares)
    noise = f"By the Krylov solution the optimiser's noise makes {share} of the error of the averaged weights at step 600. " if shares else ""
    twins = said_of_twins(data.get("twins", []))
    above = sum(growth(*ends(run["curves"][RISING]))[1] > 1 for run in nano)
    lower = said_of_lower_rates(nano, [run for run in every if run not in nano])
    return LATE.format(above=above, nano=len(nano), back=len(back), held=len(held), noise=noise, twins=twins, lower=lower)


def said_of_lower_rates(nano: list[dict[str, Any]], low: list[dict[str, Any]]) -> str:
    """Whether the rise comes at a lower rate too, at which skill and how much later; empty without such runs."""
    if not low:
        return ""
    peaks = {name: [ends(run["curves"][RISING])[1] for run in runs] for name, runs in (("high", nano), ("low", low))}
    grown = [growth(*ends(run["curves"][RISING])) for run in low]
    above = sum(reach[1] > 1 for reach in grown)
    back = sum(run["curves"][RISING][-1][4] < peak[4] for run, peak in zip(low, peaks["low"], strict=True))
    told = ", ".join(f"{middle:.2f} ({least:.2f} to {most:.2f})" for middle, least, most in grown)
    skill = {name: f"{min(p[6] for p in some):.2f} to {max(p[6] for p in some):.2f}" for name, some in peaks.items()}
    later = np.exp(np.mean(np.log([p[0] for p in peaks["low"]])) - np.mean(np.log([p[0] for p in peaks["high"]])))
    return (
        f"**A lower rate from the start does not avoid it**: at {low[0]['lr']:g}, {nano[0]['lr'] / low[0]['lr']:.1f} times "
        f"lower, L_E grows\n{told} times, in {above} of {len(low)} seeds with its whole interval\nabove one. The peak comes "
        f"{later:.1f} times as many steps later, at R² {skill['low']} where it is {skill['high']} at the higher rate,\nand in "
        f"{back} of {len(low)} runs L_E falls again after it.\n"
    )


def late_rise(data: dict[str, Any]) -> list[str]:
    """The twins, and of each run the error and the total apart, from the lowest percent on."""
    lines = twin_rows(data.get("twins", []))
    for run in data["late"]:
        rows = []
        for probe, points in run["curves"].items():
            (low, high), last = ends(points), points[-1]
            grown, *reach = growth(low, high)
            rows.append([probe, f"{ranged(low[1], low[2:4])} at {low[0]}", f"{ranged(high[1], high[2:4])} at {high[0]}",
                         "{:.2f} ({:.2f} to {:.2f})".format(grown, *reach), f"{high[5] / low[5]:.2f}",
                         f"{low[6]:.2f} to {high[6]:.2f}", f"{ranged(last[1], last[2:4])}, L_E {last[4] / high[4]:.2f} of its peak",
                         _rate(run, low[0], high[0])])  # fmt: skip
        lines += [f"{run['name']} ({run['parameters']:,} parameters, highest rate {run['lr']:g}, {run['steps']:,} steps, "
                  f"{'constant, then annealed' if run['hold'] else 'warm-up and cosine'}, seed {run['seed']}):", ""]  # fmt: skip
        head = ["flow time", "lowest percent", "highest after it", "L_E times", "total times", "R²", "at the end", "learning rate"]
        lines += markdown(head, rows)
        slopes = [[probe, step, ranged(g["cosine"]["value"], g["cosine"]["interval"]),
                   *(ranged(g["rate"][part]["value"], g["rate"][part]["interval"]) for part in ("twirled", "equivariance"))]
                  for probe, steps in run["gradients"].items() for step, g in steps.items()]  # fmt: skip
        if slopes:
            lines += markdown(["flow time", "step", "cosine of the two gradients", "rate of the twirled loss", "of the error"], slopes)
    return lines


def _rate(run: dict[str, Any], first: float, last: float) -> str:
    if not run["rates"]:
        return "–"
    steps, rates = np.array(run["rates"]).T
    a, b = np.interp([first, last], steps, rates)
    return f"{a:.2g} to {b:.2g}"


if __name__ == "__main__":
    data = json.loads(DATA.read_text())
    data["twins"] = short([grown(Path(folder)) for folder in sys.argv[1:]])
    store(DATA, data, separators=(",", ":"))
