"""The claims of the paper's abstract, in its order, each with what runs say to it and a verdict by a fixed rule.

The paper: Shen, Nowara, Maser, Cho, "Training Dynamics of Learning 3D-Rotational Equivariance", TMLR 2025,
arXiv 2512.02303. A rule never decides on an estimate alone: it needs an interval, or says that there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from equiscope import tasks
from equiscope.report import paper, versus
from equiscope.report.crossings import SKILL, THRESHOLD, Crossing
from equiscope.report.curves import Curve
from equiscope.report.evidence import AGREES, DIFFERS, UNDECIDED, Evidence, Row, Run, combined, decided
from equiscope.report.kinds import Relation, kinds
from equiscope.report.paper import WINDOW
from equiscope.report.sentences import share_text
from equiscope.report.views import view
from equiscope.words import correlation, percent, r2, text

#: Effective points from which on a correlation that vanishes without the trend counts as confounded.
ENOUGH = 10


@dataclass(frozen=True)
class Claim:
    """One claim: what the paper says (in our words), the rule of its verdict, evidence, runs that would help."""

    key: str
    title: str
    says: str
    rule: str
    rows: tuple[Row, ...]
    missing: tuple[str, ...]

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
    makers: tuple[Callable[[Evidence], Claim], ...] = (
        _measure, _quick, _robust, _easier, _penalty, _efficiency, _relations,
    )  # fmt: skip
    return [make(evidence) for make in makers]


def _measure(evidence: Evidence) -> Claim:
    rows = [_identity_row(task, evidence.of(task, None)) for task in evidence.tasks if evidence.of(task, None)]
    return Claim(
        "measure",
        "A principled measure: the percent of the loss that imperfect symmetry causes",
        "For convex losses the total loss splits into the loss of the rotation-averaged (twirled) model and an "
        "equivariance error that is never negative, so its share of the total is a percent. The paper estimates it "
        "from 4 or 10 rotations and averages ratios over samples; here the estimators are unbiased and the percent is "
        "a ratio of means. The two differ: the paper’s force field ends at 0.045 % by one, 0.065 % by the other.",
        "Agrees if the parts of every measurement add up to within 10⁻⁶ and no interval lies wholly below zero.",
        tuple(rows),
        (),
    )


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


def _quick(evidence: Evidence) -> Claim:
    return Claim(
        "quick",
        "Models reduce the error to 2 % of the held-out loss within 1,000–10,000 steps",
        "In all three tasks the share falls under 2 % early in training. A model that predicts a constant has no "
        "equivariance error either, so each crossing carries its R², and the verdict rests on the skilled crossing: "
        f"from there to the end of the run the whole 95 % interval is under {THRESHOLD:g} % and R² at least {SKILL:g}.",
        f"Agrees with a skilled crossing by step {WINDOW:,}; differs if the run passed step {WINDOW:,} and the share "
        f"of a skilled model is above {THRESHOLD:g} % (whole interval); else it cannot be decided at this size.",
        tuple(_crossing_row(run) for task in paper.TASKS for run in evidence.of(task)),
        _without_runs(evidence),
    )


def _train(task: str) -> str:
    return f"equiscope train task={task} run=NAME"


def _without_runs(evidence: Evidence) -> tuple[str, ...]:
    return tuple(f"{tasks.words(task).title}: {_train(task)}" for task in paper.TASKS if not evidence.of(task))


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


def _robust(evidence: Evidence) -> Claim:
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
    return Claim(
        "robust",
        "That result is robust to the size of model and data set",
        "The step at which the share falls under 2 % hardly moves with the number of parameters or of training "
        "samples. The paper’s own curves do move at the extremes: the smallest data sets end with a rising share.",
        "For runs of one task and architecture that differ in one size: agrees if every one has a skilled crossing by "
        f"step {WINDOW:,}; differs if a run of at least {WINDOW:,} steps contradicts; else undecided.",
        tuple(rows),
        tuple(missing),
    )


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


def _easier(evidence: Evidence) -> Claim:
    rows = landscape_rows(evidence)
    return Claim(
        "easier",
        "… because equivariance is the easier task, with a smoother and better-conditioned loss landscape",
        "The paper compares the Hessians of the two parts of the loss: the condition number of the equivariance error "
        "is about 1,000 times lower (force field). Its smallest positive eigenvalue depends on precision and number of "
        "iterations, and the roughness it plots is evaluation noise, so a replication needs the same rotations at "
        "every point and error bars.",
        "Shown as measured; decided only by records that carry an interval for the ratio of the two parts.",
        tuple(rows),
        () if rows else ("equiscope analyse RUN hessian landscape conditioning, on a run that kept checkpoints",),
    )


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


def _penalty(evidence: Evidence) -> Claim:
    return Claim(
        "penalty",
        "The loss penalty of not being equivariant is small throughout training",
        "Averaging the model over rotations would lower its loss by the equivariance error. Throughout means at every "
        f"measurement, whatever the skill; shown is the largest share once the model has skill (R² ≥ {SKILL:g}), and "
        "at the end.",
        f"Small is taken as {THRESHOLD:g} %: agrees if the upper limit stays under it at every skilled measurement; "
        "differs if a skilled measurement lies above it with its whole interval; undecided without skill.",
        tuple(row for task in paper.TASKS for run in evidence.of(task) for row in _penalty_rows(run)),
        _without_runs(evidence),
    )


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


def _efficiency(evidence: Evidence) -> Claim:
    rows, missing = versus.rows(evidence)
    return Claim(
        "efficiency",
        "They may reach a lower test loss than equivariant models for the same compute",
        "… unless the “efficiency gap” of equivariant models is narrowed. Compared are runs of one task on the same "
        "data, at the same training seconds on the same machine; which model is symmetric is seen from its records.",
        "Agrees if the model that learns its symmetry has the lower total loss at the common budget of seconds by more "
        f"than {versus.MARGIN:.0%} (or by more than the spread over seeds); differs if the symmetric one has; else "
        "undecided.",
        tuple(rows),
        tuple(missing),
    )


def _relations(evidence: Evidence) -> Claim:
    rows = relation_rows(evidence)
    return Claim(
        "relations",
        "Relative error, gradients and parameters are related",
        "Along training, the paper relates the percent to the ratio of gradient norms of the two parts, and the "
        "equivariance error to the variance of the head’s weights. Both sides of such a pair fall with time, so the "
        "correlation that is left when a trend in log step is taken out stands beside it.",
        "Agrees if the 95 % interval of the correlation without the trend lies above zero; differs if the plain "
        "correlation is above zero and the interval without the trend reaches zero or below with at least ten "
        "effective points; else undecided.",
        tuple(rows),
        () if rows else ("equiscope analyse RUN heads --at STEPS, on a run that kept at least six checkpoints",),
    )


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
