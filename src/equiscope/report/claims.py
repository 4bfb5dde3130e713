"""The claims of the paper's abstract, in its order, each with what runs say to it and a verdict by a fixed rule.

The paper: Shen, Nowara, Maser, Cho, "Training Dynamics of Learning 3D-Rotational Equivariance", TMLR 2025,
arXiv 2512.02303. Its numbers here were read off the authors' published figures and repository. A rule never decides
on an estimate alone: it needs an interval, or says that there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from equiscope.report import relations, versus
from equiscope.report.crossings import SKILL, THRESHOLD, Crossing
from equiscope.report.curves import Curve, number
from equiscope.report.evidence import TASKS, Evidence, Run
from equiscope.report.sentences import percent_text, share_text
from equiscope.report.style import r2_text
from equiscope.report.verdicts import AGREES, DIFFERS, UNDECIDED, Row, combined

#: The steps within which the paper sees the error fall under 2 %.
WINDOW = 10_000

#: task -> the paper's words on the step of the 2 % crossing, and on the end of training.
PAPER_CROSSING = {
    "forcefield": "steps 1,680–1,920 (three seeds), where the model is about the zero predictor (R² ≲ 0.15)",
    "proteinflow": "steps 900–1,140 at every flow time",
    "voxels": "steps 5,256–7,288 on 1–25 % of the data; never with all of it (111M, 28M and 7M parameters)",
}
PAPER_END = {
    "forcefield": "0.05–0.09 % at step 445,000; at most 0.4 % after the crossing",
    "proteinflow": "0.05 % (t = 0) to 6.5 % (t = 0.9) at step 1.1M; 18 % at t = 0.9 on the way",
    "voxels": "12.6 % (111M) to 20 % (28M, 7M)",
}
PAPER_SIZES = {
    "forcefield": "1M, 4M and 6M parameters: steps 1,200–1,900; 500 to 950,000 structures: 1,200–1,920, but 500 end at "
    "5.6 % and rise",
    "proteinflow": "60M and 400M: steps 840–1,140; 1 % of the data: 2,000–2,400",
    "voxels": "111M, 28M, 7M end at 12.6 %, 20 %, 20 %",
}
LESS_DATA = {
    "forcefield": "data.train_frames=500", "proteinflow": "data.fraction=0.1", "voxels": "data.molecules=100",
}  # fmt: skip
EXAMPLE = {
    "forcefield": "equiscope train task=forcefield run=NAME",
    "proteinflow": "equiscope train task=proteinflow run=NAME",
    "voxels": "equiscope train task=voxels run=NAME",
}


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
    verdict = AGREES if gap < 1e-6 and not negative else DIFFERS
    names = f"{len(runs)} run{'s' * (len(runs) > 1)}"
    return Row(task, names, "total = twirled + equivariance error ≥ 0", ours, "", "exact for convex losses", verdict)


def _quick(evidence: Evidence) -> Claim:
    rows, missing = [], []
    for task in TASKS:
        runs = evidence.of(task)
        if not runs:
            missing.append(f"{TASKS[task]}: {EXAMPLE[task]}")
        rows += [_crossing_row(run) for run in runs]
    return Claim(
        "quick",
        "Models reduce the error to 2 % of the held-out loss within 1,000–10,000 steps",
        "In all three tasks the share falls under 2 % early in training. A model that predicts a constant has no "
        "equivariance error either, so each crossing carries its R², and the verdict rests on the skilled crossing: "
        f"from there to the end of the run the whole 95 % interval is under {THRESHOLD:g} % and R² at least {SKILL:g}.",
        f"Agrees with a skilled crossing by step {WINDOW:,}; differs if the run passed step {WINDOW:,} and the share "
        f"of a skilled model is above {THRESHOLD:g} % (whole interval); else it cannot be decided at this size.",
        tuple(rows),
        tuple(missing),
    )


def _crossing_row(run: Run) -> Row:
    found, result = run.found, run.result
    ours = f"skilled crossing {_step(found.skilled)}; first crossing {_step(found.first)}"
    end = f"at the end {share_text(result)}, R² {r2_text(number(result.get('r2')))}{_probes_at_the_end(run)}"
    return Row(
        run.task, run.name, "crossing of 2 %", ours, end, PAPER_CROSSING.get(run.task, ""),
        _crossing_verdict(run),
    )  # fmt: skip


def _probes_at_the_end(run: Run) -> str:
    """How many probes of a run with several end surely under the threshold."""
    results = [record["result"] for record in run.told.finals.values()]
    if len(results) < 2:
        return ""
    under = sum(number((result.get("percent_interval") or (None, None))[1]) < THRESHOLD for result in results)
    return f"; {under} of {len(results)} probes end under {THRESHOLD:g} %"


def _crossing_verdict(run: Run) -> str:
    low = number((run.result.get("percent_interval") or (None, None))[0])
    if run.found.skilled is not None and run.found.skilled.step <= WINDOW:
        return AGREES
    stays_above = low > THRESHOLD and run.result.get("interval_kind") == "two-sided"
    return DIFFERS if run.last_step >= WINDOW and stays_above and number(run.result.get("r2")) >= SKILL else UNDECIDED


def _step(crossing: Crossing | None) -> str:
    if crossing is None:
        return "none"
    before = "at step " if crossing.before is None else f"in steps {crossing.before:,}–"
    return f"{before}{crossing.step:,} (R² {r2_text(crossing.r2)})"


def _robust(evidence: Evidence) -> Claim:
    rows, missing = [], []
    for task in TASKS:
        runs = evidence.of(task)
        for what, key, example in (
            ("model size", lambda r: r.parameters or None, "model.size=…"),
            ("data size", lambda r: r.training_samples, LESS_DATA[task]),
        ):
            group = _varying(runs, key)
            if len(group) < 2:
                missing.append(f"{TASKS[task]}, {what}: runs that differ in it, such as {EXAMPLE[task]} {example}")
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
    steps = [f"{size:,}: {', '.join(_short(run) for run in members)}" for size, members in group.items()]
    verdicts = [_crossing_verdict(run) for run in runs]
    decided = DIFFERS if DIFFERS in verdicts else UNDECIDED if UNDECIDED in verdicts else AGREES
    ends = [number(run.result.get("percent")) for run in runs]
    spread = f"final shares {percent_text(min(ends))[0]}–{percent_text(max(ends))[0]} %"
    names = ", ".join(run.name.split("/")[-1] for run in runs)
    return Row(task, names, what, f"skilled crossing by size: {'; '.join(steps)}", spread, PAPER_SIZES[task], decided)


def _short(run: Run) -> str:
    return "none" if run.found.skilled is None else f"{run.found.skilled.step:,}"


def _easier(evidence: Evidence) -> Claim:
    rows = relations.landscape_rows(evidence)
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


def _penalty(evidence: Evidence) -> Claim:
    rows, missing = [], []
    for task in TASKS:
        runs = evidence.of(task)
        if not runs:
            missing.append(f"{TASKS[task]}: {EXAMPLE[task]}")
        rows += [row for run in runs for row in _penalty_rows(run)]
    return Claim(
        "penalty",
        "The loss penalty of not being equivariant is small throughout training",
        "Averaging the model over rotations would lower its loss by the equivariance error. Throughout means at every "
        f"measurement, whatever the skill; shown is the largest share once the model has skill (R² ≥ {SKILL:g}), and "
        "at the end.",
        f"Small is taken as {THRESHOLD:g} %: agrees if the upper limit stays under it at every skilled measurement; "
        "differs if a skilled measurement lies above it with its whole interval; undecided without skill.",
        tuple(rows),
        tuple(missing),
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
    skilled, paper = _skilled(curve), PAPER_END.get(run.task, "")
    final = run.told.finals.get(curve.probe)
    end = f"at the end {share_text(final['result'])}" if final is not None else ""
    if not skilled.any():
        return Row(run.task, run.name, what, "the model has no skill yet", end, paper, UNDECIDED)
    top = int(np.flatnonzero(skilled)[np.argmax(curve.percent[skilled])])
    text, low, high = percent_text(*(float(v[top]) for v in (curve.percent, curve.low, curve.high)))
    over, under = curve.low[skilled] > THRESHOLD, curve.high[skilled] < THRESHOLD
    verdict = DIFFERS if over.any() else AGREES if under.all() else UNDECIDED
    ours = f"{text} % [{low}, {high}] at step {curve.step[top]:,}"
    return Row(run.task, run.name, what, ours, end, paper, verdict)


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
    rows = relations.relation_rows(evidence)
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
