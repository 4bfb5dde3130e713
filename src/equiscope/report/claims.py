"""The claims of the paper's abstract, in its order, each with what runs say to it and a verdict by a fixed rule.

The paper: Shen, Nowara, Maser, Cho, "Training Dynamics of Learning 3D-Rotational Equivariance", TMLR 2025,
arXiv 2512.02303. A rule never decides on an estimate alone: it needs an interval, or says that there is none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from equiscope import tasks
from equiscope.report import paper
from equiscope.report.claims_analyses import ENOUGH, brute_rows, dynamics_rows, landscape_rows, relation_rows
from equiscope.report.crossings import ABLE, SKILL, THRESHOLD, Crossing, skilled
from equiscope.report.curves import Curve
from equiscope.report.efficiency import RATES, SAME_BUDGET, SEEDS, budget_rows, log_ratio
from equiscope.report.evidence import AGREES, DIFFERS, EQUAL, UNDECIDED, Evidence, Row, Run, combined, decided
from equiscope.report.kinds import EQUIVALENCE
from equiscope.report.paper import SHORTEST, WINDOW
from equiscope.report.sentences import share_text
from equiscope.words import percent, r2

#: The step of the crossing "hardly moves" where it changes by less than this factor between sizes.
MARGIN = 3.0
#: Skilled measurements that "throughout training" needs at least.
THROUGHOUT = 2
#: What stands in braces in the words of ``paper.toml``.
_CONSTANTS = {
    "threshold": THRESHOLD, "skill": SKILL, "able": ABLE, "window": WINDOW, "shortest": SHORTEST, "margin": MARGIN,
    "throughout": THROUGHOUT, "seeds": SEEDS, "rates": RATES, "budget": 100 * SAME_BUDGET - 100,
    "equal": 100 * EQUIVALENCE, "enough": ENOUGH,
}  # fmt: skip
_TOLD = {key: {part: text.format(**_CONSTANTS) for part, text in told.items()} for key, told in paper.CLAIMS.items()}
#: claim -> when it counts as agreed, different or undecided.
RULES = {key: told["rule"] for key, told in _TOLD.items()}
#: The tasks that the paper bases a claim on.
NEEDED = {key: ("forcefield", "proteinflow") if key in ("easier", "relations") else tuple(paper.TASKS) for key in RULES}
_TRAIN = "equiscope train task={} run=NAME"
_SIZES = [f"{task}, {what}" for task in paper.TASKS for what in ("model size", "data size")]
#: Settings that make a model or a data set larger: what runs that differ in size alone may differ in.
_LARGER = {
    "model size": ("size", "width", "hidden", "layers", "heads", "feedforward", "pair", "condition", "registers",
                   "radial", "features", "multipliers", "attention", "channels"),
    "data size": ("train_frames", "train_conformers", "frames", "molecules", "fraction", "conformers"),
}  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """One claim of :data:`paper.CLAIMS`: evidence, runs that would help.

    authors: the same rows from the authors' own published curves.
    """

    key: str
    rows: tuple[Row, ...]
    missing: tuple[str, ...]
    authors: tuple[Row, ...] = ()

    @property
    def title(self) -> str:
        return _TOLD[self.key]["title"]

    @property
    def says(self) -> str:
        return _TOLD[self.key]["says"]

    @property
    def rule(self) -> str:
        return RULES[self.key]

    @property
    def verdict(self) -> str:
        return _verdict(self.key, self.rows)

    @property
    def authors_verdict(self) -> str:
        """The verdict on the authors' own curves by the same rule."""
        return _verdict(self.key, self.authors)

    @property
    def summary(self) -> str:
        """How many of the decided rows agree, and how many are undecided."""
        count = Counter(row.verdict for row in self.rows)
        decided = count[AGREES] + count[DIFFERS] + count[EQUAL]
        if not decided:
            return ""
        rest = ((count[EQUAL], "equal"), (count[UNDECIDED], "undecided"))
        others = "".join(f", {number} {word}" for number, word in rest if number)
        return f"{count[AGREES]} of {decided} decided rows agree{others}"


def _verdict(key: str, rows: Sequence[Row]) -> str:
    if key == "robust":
        return combined(rows, _SIZES, lambda row: f"{row.task}, {row.what}")
    return combined(rows, NEEDED[key])


def claims(evidence: Evidence, authors: Sequence[Claim] = ()) -> list[Claim]:
    """Every claim of the abstract, in order; ``authors``: the same claims judged on the authors' own curves."""
    learning = [run for task in paper.TASKS for run in evidence.of(task)]
    identities = [_identity_row(task, runs) for task in evidence.tasks if (runs := evidence.of(task, None))]
    brute, easier, related = brute_rows(evidence), landscape_rows(evidence), relation_rows(evidence)
    quick = [_crossing_row(run) for run in learning]
    penalty = [row for run in learning for row in _penalty_rows(run)]
    curvature = "equiscope analyse RUN gradients conditioning hessian landscape, on a run that kept checkpoints"
    heads = "equiscope analyse RUN gradients heads --at STEPS, on a run that kept at least six checkpoints"
    found: dict[str, tuple[Sequence[Row], Sequence[str]]] = {
        "measure": ([*brute, *identities], _asked("measure", brute, "equiscope analyse runs/{}/NAME brute")),
        "quick": (quick, _asked("quick", quick, _TRAIN)),
        "robust": _robust(evidence),
        "easier": (easier, _asked("easier", easier, curvature)),
        "penalty": (penalty, _asked("penalty", penalty, _TRAIN)),
        "efficiency": budget_rows(evidence),
        "relations": ([*related, *dynamics_rows(evidence)], _asked("relations", related, heads)),
    }
    theirs = {claim.key: claim.rows for claim in authors}
    return [Claim(key, tuple(rows), tuple(missing), theirs.get(key, ())) for key, (rows, missing) in found.items()]


def _asked(key: str, rows: Sequence[Row], command: str) -> list[str]:
    """What makes a row that decides, for each task that needs one and has none."""
    seen = {row.task for row in rows if row.verdict}
    return [f"{tasks.words(task).title}: {command.format(task)}" for task in NEEDED[key] if task not in seen]


def _identity_row(task: str, runs: Sequence[Run]) -> Row:
    """Whether the parts of every tracked measurement of a task's runs add up, and how many lie surely below zero."""
    curves = [run.curve for run in runs]
    gaps = [np.abs(c.total - c.twirled - c.equivariance) / np.maximum(np.abs(c.total), 1e-300) for c in curves]
    gap, count = float(np.max(np.nan_to_num(np.concatenate(gaps)), initial=0.0)), sum(map(len, curves))
    # The whole interval below zero, by more than rounding, would contradict a convex loss.
    negative = sum(int(np.nansum(curve.high < -1e-6)) for curve in curves)
    ours = f"parts add up to within {gap:.0e} of the loss; {negative} of {count} measurements negative beyond error"
    names = f"{len(runs)} run{'s' * (len(runs) > 1)}"
    broken = not gap < 1e-6 or negative > 0
    return Row(task, names, "total = twirled + equivariance error ≥ 0", ours, "" if broken else "by definition, so it "
               "decides nothing", "exact for convex losses", DIFFERS if broken else "")  # fmt: skip


def _unlike(run: Run) -> str:
    """What would make a run one of the paper's kind; empty if it is."""
    share = run.config.get("augment", 1.0)
    return "a run whose training samples are all turned (augment=1), as the paper’s" if (
        paper.told(run.task).turned and share is not None and float(share) < 1) else ""  # fmt: skip


def _above(curve: Curve) -> np.ndarray:
    """(T,) bool: where a skilled model is above the threshold with its whole interval."""
    return skilled(curve) & (curve.low > THRESHOLD) & ~curve.is_upper_limit


def _ends_above(run: Run, curve: Curve) -> bool:
    """Whether the final measurement of a skilled model (the last tracked one without it) is surely above."""
    final = run.told.finals.get(curve.probe)
    if final is None:
        return bool(_above(curve)[-1])
    able = final.result.r2 >= SKILL and not final.skill <= 0 and not curve.skill[-1] <= 0
    return able and final.result.percent_interval[0] > THRESHOLD and final.result.interval_kind == "two-sided"


def _ends_under(run: Run, curve: Curve) -> bool:
    final = run.told.finals.get(curve.probe)
    return bool(curve.high[-1] < THRESHOLD and (final is None or final.result.percent_interval[1] < THRESHOLD))


def _crossing_row(run: Run) -> Row:
    (verdict, change), told = crossing_verdict(run), paper.told(run.task)
    if run.judged is None:
        ours, end = f"no measurement of the probe “{told.probe}”, which decides", ""
    else:
        on = f" on “{told.probe}”" if told.probe else ""
        ours = f"skilled crossing{on} {_step(run.found.skilled)}; first crossing {_step(run.found.first)}"
        last = run.judged.skill[-1]
        skill = f", skill against the baseline {r2(last)}" if np.isfinite(last) else ""
        end = f"at the end {share_text(run.result)}, R² {r2(run.result.r2)}{skill}{_probes(run)}"
    return run.row("crossing of 2 %", ours, end, told.crossing, verdict, change)


def _probes(run: Run) -> str:
    """How many probes of a run with several end surely under the threshold, oracles and the like left out."""
    results = [final.result for name, final in run.told.finals.items() if paper.counts(run.task, name)]
    under = sum(result.percent_interval[1] < THRESHOLD for result in results)
    return f"; {under} of {len(results)} probes end under {THRESHOLD:g} %" if len(results) > 1 else ""


def crossing_verdict(run: Run) -> tuple[str, str]:
    """The verdict of a run on the claim "quick", and what would change it."""
    curve = run.judged
    if curve is None:
        return UNDECIDED, f"a run that tracks the probe “{paper.told(run.task).probe}”"
    whole = run.finished and run.last_step >= SHORTEST
    late = bool((_above(curve) & (curve.step >= WINDOW)).any())
    crossing = run.found.skilled
    if unlike := _unlike(run):
        return UNDECIDED, unlike
    agrees = whole and crossing is not None and crossing.step <= WINDOW and _ends_under(run, curve)
    verdict = decided(agrees, late or (whole and _ends_above(run, curve)))
    if verdict == AGREES:
        return verdict, f"a rise above {THRESHOLD:g} % in a longer run, or a task whose run differs"
    if verdict == DIFFERS:
        return verdict, f"a run of this model and task that is under {THRESHOLD:g} % from step {WINDOW:,} on"
    if not np.isfinite(curve.r2).any():
        return verdict, "the R² of this curve, without which nothing is known of its skill"
    if not skilled(curve).any():
        return verdict, "a model with skill: so far it predicts no better than a constant or a linear map"
    if not whole:
        return verdict, f"the same run at the end of its schedule, of at least {SHORTEST:,} steps"
    if crossing is not None and crossing.step > WINDOW:
        return verdict, f"measurements around step {WINDOW:,}: the crossing was seen only at step {crossing.step:,}"
    return verdict, f"more samples: the interval at the end holds {THRESHOLD:g} %, or skill came only at the end"


def _step(crossing: Crossing | None) -> str:
    if crossing is None:
        return "none"
    before = "at step " if crossing.before is None else f"in steps {crossing.before:,}–"
    return f"{before}{crossing.step:,} ({crossing.ability})"


def _robust(evidence: Evidence) -> tuple[list[Row], list[str]]:
    rows, missing = [], []
    for task in paper.TASKS:
        runs, called = evidence.of(task), tasks.words(task)
        for what, example in (("model size", "model.size=…"), ("data size", called.less_data)):
            group = varying(runs, what)
            if len(group) < 2:
                missing.append(f"{called.title}, {what}: {SEEDS} seeds each of runs that differ in it alone, such as "
                               f"{_TRAIN.format(task)} {example}")  # fmt: skip
                continue
            rows.append(_size_row(task, what, group))
    return rows, missing


def varying(runs: Sequence[Run], what: str) -> dict[int, list[Run]]:
    """The runs of the setting that comes in most sizes, by size: they differ in size and seed alone.

    Optimiser, schedule, augmentation, learning rate, length, architecture and held-out samples are the same.
    """
    model = what == "model size"
    free = [f"{what.split()[0]}.{name}" for name in _LARGER[what]]
    settings: dict[str, dict[int, list[Run]]] = {}
    for run in runs:
        size = run.parameters or None if model else run.training_samples
        if size is not None:
            one = run.architecture if model else f"{run.model} {run.parameters}"
            alike = repr((run.setting(*free), one, run.result.samples))
            settings.setdefault(alike, {}).setdefault(size, []).append(run)
    return dict(sorted(max(settings.values(), key=len, default={}).items()))


def _size_row(task: str, what: str, group: dict[int, list[Run]]) -> Row:
    runs = [run for members in group.values() for run in members]
    reached = {run.name: "none" if run.found.skilled is None else f"{run.found.skilled.step:,}" for run in runs}
    steps = [f"{size:,}: {', '.join(reached[run.name] for run in members)}" for size, members in group.items()]
    ends = [run.result.percent for run in runs]
    spread = f"final shares {percent(min(ends))[0]}–{percent(max(ends))[0]} %"
    verdict, ratio, change = size_verdict(group)
    names = ", ".join(run.name.split("/")[-1] for run in runs)
    ours = f"skilled crossing by size: {'; '.join(steps)}"
    ran = f"{runs[0].architecture}, sizes {', '.join(f'{size:,}' for size in group)}, seeds " + ", ".join(
        str(len({run.seed for run in members})) for members in group.values()
    )
    told = f"{spread}{f'; {ratio}' if ratio else ''}"
    return Row(task, names, what, ours, told, paper.TASKS[task].sizes, verdict, ran, change)


def size_verdict(group: dict[int, list[Run]]) -> tuple[str, str, str]:
    """The verdict on runs by size, the widest ratio of crossing steps in words, and what would change it."""
    if any(len({run.seed for run in members}) < SEEDS for members in group.values()):
        return UNDECIDED, "", f"{SEEDS} seeds at every size: learning rates and other settings are no seeds"
    verdicts = {size: {crossing_verdict(run)[0] for run in members} for size, members in group.items()}
    against = [size for size, found in verdicts.items() if found == {DIFFERS}]
    favour = [size for size, found in verdicts.items() if found == {AGREES}]
    if against and favour:
        return DIFFERS, f"every seed of size {against[0]:,} stays above {THRESHOLD:g} %", "such runs that cross"
    if len(favour) < len(group):
        return UNDECIDED, "", "runs at every size that agree on the crossing itself"
    steps = {s: np.array([run.found.skilled.step for run in m if run.found.skilled]) for s, m in group.items()}
    sizes, worst = sorted(steps, key=lambda size: float(np.log(np.maximum(steps[size], 1)).mean())), []
    for place, early in enumerate(sizes):
        worst += [(log_ratio(steps[late], steps[early]), early, late) for late in sizes[place + 1 :]]
    (_, _, high), _, _ = max(worst, key=lambda one: one[0][2])
    (value, low, end), early, late = max(worst, key=lambda one: one[0][1])
    words = f"step at size {late:,} over that at {early:,}: {value:.2f} [{low:.2f}, {end:.2f}] over seeds"
    return decided(high < MARGIN, low > MARGIN), words, f"a size whose crossing moves by a factor of {MARGIN:g}"


def _penalty_rows(run: Run) -> list[Row]:
    """The judged probe, and where a run has several probes the one with the largest share."""
    largest, told = "largest share while skilled", paper.told(run.task)
    if run.judged is None:
        nothing = f"no measurement of “{told.probe}”"
        return [run.row(largest, nothing, "", told.end, UNDECIDED, "a run that tracks it")]
    able = run.judged.step[skilled(run.judged)]
    rows = [_penalty_row(run, run.judged, able, largest)]
    others = [
        curve for name, curve in run.told.curves.items()
        if name != run.judged.probe and paper.counts(run.task, name) and _places(curve, able).any()
    ]  # fmt: skip
    if others:
        worst = max(others, key=lambda curve: float(curve.percent[_places(curve, able)].max()))
        rows.append(_penalty_row(run, worst, able, f"the same at its worst probe, {worst.probe}"))
    return rows


def _places(curve: Curve, steps: np.ndarray) -> np.ndarray:
    """Where a probe is skilled, at steps at which the model is."""
    return skilled(curve) & np.isfinite(curve.percent) & np.isin(curve.step, steps)


def _penalty_row(run: Run, curve: Curve, steps: np.ndarray, what: str) -> Row:
    able, final, end = _places(curve, steps), run.told.finals.get(curve.probe), paper.told(run.task).end
    last = f"at the end {share_text(final.result)}" if final is not None else ""
    if unlike := _unlike(run):
        ours = f"the largest is {percent(float(np.nanmax(curve.percent)))[0]} %"
        return run.row(what, ours, last, end, UNDECIDED, unlike)
    if not able.any():
        known = bool(np.isfinite(curve.r2).any())
        ours = "the model has no skill yet" if known else "its R² is not known, so neither is its skill"
        return run.row(what, ours, last, end, UNDECIDED, "a model with skill" if known else "its R²")
    top = int(np.flatnonzero(able)[np.argmax(curve.percent[able])])
    value, low, high = percent(*(float(v[top]) for v in (curve.percent, curve.low, curve.high)))
    whole = run.finished and run.last_step >= SHORTEST and int(able.sum()) >= THROUGHOUT
    under = whole and bool((curve.high[able] < THRESHOLD).all()) and _ends_under(run, curve)
    verdict = decided(under, bool((_above(curve) & able).any()) or _ends_above(run, curve))
    change = (
        f"a skilled measurement above {THRESHOLD:g} %" if verdict == AGREES
        else f"none: one measurement above {THRESHOLD:g} % is enough" if verdict == DIFFERS
        else "more samples, or the run at the end of its schedule"
    )  # fmt: skip
    ours = f"{value} % [{low}, {high}] at step {curve.step[top]:,}, R² {r2(curve.r2[top])}"
    return run.row(what, ours, last, end, verdict, change)
