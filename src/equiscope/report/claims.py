"""The claims of the paper's abstract, in its order, each with what runs say to it and a verdict by a fixed rule.

The paper: Shen, Nowara, Maser, Cho, "Training Dynamics of Learning 3D-Rotational Equivariance", TMLR 2025,
arXiv 2512.02303. A rule never decides on an estimate alone: it needs an interval, or says that there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from equiscope import tasks
from equiscope.report import paper
from equiscope.report.crossings import SKILL, THRESHOLD, Crossing
from equiscope.report.curves import Curve
from equiscope.report.evidence import AGREES, DIFFERS, UNDECIDED, Evidence, Row, Run, combined, decided
from equiscope.report.kinds import Relation, kinds
from equiscope.report.paper import WINDOW
from equiscope.report.sentences import share_text
from equiscope.report.views import view
from equiscope.words import correlation, percent, r2, text

#: Losses closer than this share are not told apart where there is no spread over seeds.
MARGIN = 0.1
#: claim -> when it counts as agreed, different or undecided.
RULES = {
    "measure":
        "Agrees if the parts of every measurement add up to within 10⁻⁶ and no interval lies wholly below zero.",
    "quick":
        f"Agrees with a skilled crossing by step {WINDOW:,}; differs if the run passed step {WINDOW:,} and the share "
        f"of a skilled model is above {THRESHOLD:g} % (whole interval); else it cannot be decided at this size.",
    "robust":
        "For runs of one task and architecture that differ in one size: agrees if every one has a skilled crossing by "
        f"step {WINDOW:,}; differs if a run of at least {WINDOW:,} steps contradicts; else undecided.",
    "easier":
        "Shown as measured; decided only by records that carry an interval for the ratio of the two parts.",
    "penalty":
        f"Small is taken as {THRESHOLD:g} %: agrees if the upper limit stays under it at every skilled measurement; "
        "differs if a skilled measurement lies above it with its whole interval; undecided without skill.",
    "efficiency":
        "Agrees if the model that learns its symmetry has the lower total loss at the common budget of seconds by more "
        f"than {MARGIN:.0%} (or by more than the spread over seeds); differs if the symmetric one has; else "
        "undecided.",
    "relations":
        "Agrees if the 95 % interval of the correlation without the trend lies above zero; differs if the plain "
        "correlation is above zero and the interval without the trend reaches zero or below with at least ten "
        "effective points; else undecided.",
}  # fmt: skip
#: Effective points from which on a correlation that vanishes without the trend counts as confounded.
ENOUGH = 10


@dataclass(frozen=True)
class Claim:
    """One claim of :data:`paper.CLAIMS`: the rule of its verdict, evidence, runs that would help."""

    key: str
    rule: str
    rows: tuple[Row, ...]
    missing: tuple[str, ...]

    @property
    def title(self) -> str:
        return paper.CLAIMS[self.key][0]

    @property
    def says(self) -> str:
        return paper.CLAIMS[self.key][1]

    @property
    def verdict(self) -> str:
        return combined(self.rows)

    @property
    def summary(self) -> str:
        """How many of the decided rows agree, and how many are undecided."""
        agrees, differs = (sum(row.verdict == v for row in self.rows) for v in (AGREES, DIFFERS))
        if not agrees and not differs:
            return ""
        undecided = len(self.rows) - agrees - differs
        return f"{agrees} of {agrees + differs} decided rows agree" + (f", {undecided} undecided" if undecided else "")


def claims(evidence: Evidence) -> list[Claim]:
    """Every claim of the abstract, in order."""
    learning = [run for task in paper.TASKS for run in evidence.of(task)]
    absent = [f"{tasks.words(task).title}: {_train(task)}" for task in paper.TASKS if not evidence.of(task)]
    easier, related = landscape_rows(evidence), relation_rows(evidence)
    curvature = "equiscope analyse RUN hessian landscape conditioning, on a run that kept checkpoints"
    heads = "equiscope analyse RUN heads --at STEPS, on a run that kept at least six checkpoints"
    found: dict[str, tuple[Sequence[Row], Sequence[str]]] = {
        "measure": ([_identity_row(t, evidence.of(t, None)) for t in evidence.tasks if evidence.of(t, None)], ()),
        "quick": ([_crossing_row(run) for run in learning], absent),
        "robust": _robust(evidence),
        "easier": (easier, () if easier else (curvature,)),
        "penalty": ([row for run in learning for row in _penalty_rows(run)], absent),
        "efficiency": equal_seconds(evidence),
        "relations": (related, () if related else (heads,)),
    }
    return [Claim(key, RULES[key], tuple(rows), tuple(missing)) for key, (rows, missing) in found.items()]


def _identity_row(task: str, runs: Sequence[Run]) -> Row:
    """Whether the parts of every tracked measurement of a task's runs add up, and how many lie surely below zero."""
    curves = [run.curve for run in runs]
    gaps = [np.abs(c.total - c.twirled - c.equivariance) / np.maximum(np.abs(c.total), 1e-300) for c in curves]
    gap, count = float(np.nanmax(np.concatenate(gaps))), sum(map(len, curves))
    # The whole interval below zero, by more than rounding, would contradict a convex loss.
    negative = sum(int(np.nansum(curve.high < -1e-6)) for curve in curves)
    ours = f"parts add up to within {gap:.0e} of the loss; {negative} of {count} measurements negative beyond error"
    verdict = decided(gap < 1e-6 and not negative, True)
    names = f"{len(runs)} run{'s' * (len(runs) > 1)}"
    return Row(task, names, "total = twirled + equivariance error ≥ 0", ours, "", "exact for convex losses", verdict)


def _train(task: str) -> str:
    return f"equiscope train task={task} run=NAME"


def _paper(run: Run) -> paper.Told:
    return paper.TASKS.get(run.task, paper.NOTHING)


def _crossing_row(run: Run) -> Row:
    found = run.found
    ours = f"skilled crossing {_step(found.skilled)}; first crossing {_step(found.first)}"
    results = [final.result for final in run.told.finals.values()]
    # How many probes of a run with several end surely under the threshold.
    under = sum(result.percent_interval[1] < THRESHOLD for result in results)
    probes = f"; {under} of {len(results)} probes end under {THRESHOLD:g} %" if len(results) > 1 else ""
    end = f"at the end {share_text(run.result)}, R² {r2(run.result.r2)}{probes}"
    return Row(run.task, run.name, "crossing of 2 %", ours, end, _paper(run).crossing, _crossing_verdict(run))


def _crossing_verdict(run: Run) -> str:
    skilled, result = run.found.skilled, run.result
    sure = result.percent_interval[0] > THRESHOLD and result.interval_kind == "two-sided"
    above = sure and result.r2 >= SKILL
    return decided(skilled is not None and skilled.step <= WINDOW, run.last_step >= WINDOW and above)


def _step(crossing: Crossing | None) -> str:
    if crossing is None:
        return "none"
    before = "at step " if crossing.before is None else f"in steps {crossing.before:,}–"
    return f"{before}{crossing.step:,} (R² {r2(crossing.r2)})"


def _robust(evidence: Evidence) -> tuple[list[Row], list[str]]:
    rows, missing = [], []
    for task in paper.TASKS:
        runs, called = evidence.of(task), tasks.words(task)
        for what, key, example in (
            ("model size", lambda r: r.parameters or None, "model.size=…"),
            ("data size", lambda r: r.training_samples, called.less_data),
        ):
            group = _varying(runs, key)
            if len(group) < 2:
                missing.append(f"{called.title}, {what}: runs that differ in it, such as {_train(task)} {example}")
                continue
            rows.append(_size_row(task, what, group))
    return rows, missing


def _varying(runs: Sequence[Run], key: Callable[[Run], int | None]) -> dict[int, list[Run]]:
    """The runs of the architecture that comes in most sizes, by size."""
    by_model: dict[str, dict[int, list[Run]]] = {}
    for run in runs:
        size = key(run)
        if size is not None:
            by_model.setdefault(run.model, {}).setdefault(size, []).append(run)
    return dict(sorted(max(by_model.values(), key=len, default={}).items()))


def _size_row(task: str, what: str, group: dict[int, list[Run]]) -> Row:
    runs = [run for members in group.values() for run in members]
    reached = {run.name: "none" if run.found.skilled is None else f"{run.found.skilled.step:,}" for run in runs}
    steps = [f"{size:,}: {', '.join(reached[run.name] for run in members)}" for size, members in group.items()]
    verdicts = [_crossing_verdict(run) for run in runs]
    ends = [run.result.percent for run in runs]
    spread = f"final shares {percent(min(ends))[0]}–{percent(max(ends))[0]} %"
    names = ", ".join(run.name.split("/")[-1] for run in runs)
    ours = f"skilled crossing by size: {'; '.join(steps)}"
    verdict = decided(set(verdicts) == {AGREES}, DIFFERS in verdicts)
    return Row(task, names, what, ours, spread, paper.TASKS[task].sizes, verdict)


def landscape_rows(evidence: Evidence) -> list[Row]:
    """Every analysis of curvature: condition numbers of both parts of the loss, roughness along lines."""
    rows, shown = [], {name: kind for name, kind in kinds().items() if kind.evidence is not None}
    for run, record in evidence.analyses(*shown):
        kind, values = shown[record["analysis"]], record.get("values") or {}
        found = kind.evidence(view(kind.values, values)) if kind.evidence else None
        if found is None:
            numbers = [f"{k.replace('_', ' ')} {text(v)}" for k, v in values.items() if isinstance(v, int | float)]
            found = ", ".join(numbers[:8]) or "recorded", "", ""
        ours, interval, side = found
        what, verdict = f"{record['analysis']} at step {text(record.get('step'))}", decided(side == "lower", bool(side))
        rows.append(Row(run.task, run.name, what, ours, interval, paper.EASIER, verdict))
    return rows


def _penalty_rows(run: Run) -> list[Row]:
    """The headline probe, and where a run has several probes the one with the largest share."""
    rows = [_penalty_row(run, run.curve, "largest share while skilled")]
    others = [c for c in run.told.curves.values() if c is not run.curve and _skilled(c).any()]
    if others:
        worst = max(others, key=lambda curve: float(curve.percent[_skilled(curve)].max()))
        rows.append(_penalty_row(run, worst, f"the same at its worst probe, {worst.probe}"))
    return rows


def _skilled(curve: Curve) -> np.ndarray:
    return (curve.r2 >= SKILL) & np.isfinite(curve.percent)


def _penalty_row(run: Run, curve: Curve, what: str) -> Row:
    skilled, final = _skilled(curve), run.told.finals.get(curve.probe)
    end = f"at the end {share_text(final.result)}" if final is not None else ""
    if not skilled.any():
        return Row(run.task, run.name, what, "the model has no skill yet", end, _paper(run).end, UNDECIDED)
    top = int(np.flatnonzero(skilled)[np.argmax(curve.percent[skilled])])
    value, low, high = percent(*(float(v[top]) for v in (curve.percent, curve.low, curve.high)))
    verdict = decided((curve.high[skilled] < THRESHOLD).all(), (curve.low[skilled] > THRESHOLD).any())
    ours = f"{value} % [{low}, {high}] at step {curve.step[top]:,}"
    return Row(run.task, run.name, what, ours, end, _paper(run).end, verdict)


def relation_rows(evidence: Evidence) -> list[Row]:
    """The newest record of each related pair of each run: plain correlation, and the one without the trend."""
    newest = {(r.name, str(e.get("probe")), str(e.get("pair"))): (r, e) for r, e in evidence.analyses("relations")}
    rows = []
    for (_, _, pair), (run, record) in newest.items():
        found = view(Relation, record["values"])
        plain, partial = (
            correlation(one.value, one.low, one.high, "{} [{}, {}]").replace("–", "unknown")
            for one in (found.pearson, found.partial)
        )
        confounded = found.pearson.low > 0 and found.partial.effective >= ENOUGH
        ours, rest = f"Pearson {plain} over {found.points} steps", f"without the trend {partial}"
        verdict = decided(found.partial.low > 0, confounded)
        rows.append(Row(run.task, run.name, pair, ours, rest, paper.correlation_words(pair), verdict))
    return rows


def equal_seconds(evidence: Evidence) -> tuple[list[Row], list[str]]:
    """A row for each pair of a learning and a symmetric model of a task, and which runs are missing."""
    found, missing = [], []
    for task in paper.TASKS:
        pairs = _pairs(evidence, task)
        found += [_seconds_row(task, learns, has) for learns, has in pairs]
        if not pairs:
            called = tasks.words(task)
            missing.append(f"{called.title}: {called.symmetric}, on the same data and machine")
    return found, missing


def _pairs(evidence: Evidence, task: str) -> list[tuple[list[Run], list[Run]]]:
    learning, symmetric = (_by_model(evidence.of(task, kind)) for kind in (False, True))
    return [(a, b) for a in learning.values() for b in symmetric.values() if _setting(a[0]) == _setting(b[0])]


def _by_model(runs: Sequence[Run]) -> dict[tuple[Any, ...], list[Run]]:
    """Replicates: runs of one model and size on one set of data and samples."""
    found: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        found.setdefault((run.model, run.parameters, _setting(run)), []).append(run)
    return found


def _setting(run: Run) -> tuple[Any, ...]:
    """What must be equal for losses and seconds to be comparable: data, held-out samples, device and threads."""
    told = run.told.run
    data = repr(sorted((told.config.get("data") or {}).items()))
    return data, run.curve.probe, run.result.loss, told.device, told.threads


def at_budget(runs: Sequence[Run], seconds: float) -> np.ndarray:
    """The total held-out loss of each run at so many training seconds, log-linear between measurements."""
    logs = [np.interp(seconds, run.seconds, np.log(np.maximum(run.curve.total, 1e-300))) for run in runs]
    return np.exp(np.array(logs))


def _seconds_row(task: str, learning: list[Run], symmetric: list[Run]) -> Row:
    budget = min(float(run.seconds[-1]) for run in [*learning, *symmetric])
    ours, theirs = at_budget(learning, budget), at_budget(symmetric, budget)
    ratio = float(ours.mean() / theirs.mean())
    spread, words = _spread(ours, theirs)
    per_step = [float(np.mean([r.seconds[-1] / max(r.last_step, 1) for r in group])) for group in (learning, symmetric)]
    return Row(
        task,
        f"{learning[0].model} ({len(learning)} seed{'s' * (len(learning) > 1)}) against {symmetric[0].model} "
        f"({len(symmetric)})",
        "total loss at equal seconds",
        f"ratio {ratio:.2f} at {budget:.0f} s (under 1: learning symmetry is ahead); a step of the symmetric model "
        f"takes {per_step[1] / per_step[0]:.2f} times as long",
        words,
        paper.EFFICIENCY,
        decided(ratio < 1 / (1 + spread), ratio > 1 + spread),
    )


def _spread(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, str]:
    if len(ours) < 2 or len(theirs) < 2:
        return MARGIN, f"one run of a model: no interval over seeds, {MARGIN:.0%} is taken"
    error = 2 * float(np.sqrt(sum(np.var(np.log(v), ddof=1) / len(v) for v in (ours, theirs))))
    return float(np.expm1(error)), f"± {np.expm1(error):.0%} (two standard errors over seeds)"
