"""What analyses of runs say to the paper's claims: brute force, landscapes of the two losses, relations in training."""

from __future__ import annotations

import math
from collections.abc import Sequence

from equiscope.report import paper
from equiscope.report.evidence import AGREES, DIFFERS, EQUAL, UNDECIDED, Evidence, Row, Run, decided
from equiscope.report.kinds import Relation, kinds
from equiscope.report.kinds.brute import APART, Brute
from equiscope.report.kinds.dynamics import Dynamics, told
from equiscope.report.views import Record, view
from equiscope.words import correlation, digits, text

#: Independent rotations that a brute force needs, and how well it must know the error.
ROTATIONS, KNOWN = 100_000, 0.05
#: Effective points from which on a correlation that vanishes without the trend counts as confounded.
ENOUGH = 10


def brute_rows(evidence: Evidence) -> list[Row]:
    """The newest brute force of each probe of each run."""
    return [_brute_row(run, record) for run, record in evidence.newest("brute")]


def _brute_row(run: Run, record: Record) -> Row:
    found = view(Brute, record.get("values"))
    told = [f"{part} {digits(one.reported)} against {digits(one.brute)} (z {one.z:+.1f})"
            for part, one in found.parts.items()]  # fmt: skip
    apart = [abs(one.z) for one in found.parts.values()]
    error = found.parts.get("equivariance")
    known = found.exact or (
        found.rotations >= ROTATIONS and error is not None and error.brute_error <= KNOWN * abs(error.brute)
    )
    trained = int(record.get("step") or 0) > 0
    complete = {"total", "twirled", "equivariance"} <= set(found.parts) and all(map(math.isfinite, apart))
    surely = known and trained
    verdict = decided(
        surely and complete and max(apart) <= APART, surely and any(z > APART for z in apart if not math.isnan(z))
    )
    how = "a closed form or every rotation of the group" if found.exact else f"{found.rotations:,} rotations"
    change = (
        "a part outside four standard errors" if verdict == AGREES else "none: the parts are wrong"
        if verdict == DIFFERS else f"a trained model, {ROTATIONS:,} rotations, the error known to {100 * KNOWN:g} %"
    )  # fmt: skip
    return run.row(f"parts of {record.get('probe')} by brute force", "; ".join(told),
                   f"{found.samples} samples, {how}", "exact for convex losses", verdict, change)  # fmt: skip


def landscape_rows(evidence: Evidence) -> list[Row]:
    """A row for each analysis of each probe of each run, over its analysed steps, those of the newest settings."""
    shown = {name: kind for name, kind in kinds().items() if kind.evidence is not None}
    grouped: dict[tuple[str, str, str], list[tuple[Run, Record]]] = {}
    for run, record in evidence.analyses(*shown):
        key = (run.name, str(record["analysis"]), str(record.get("probe")))
        grouped.setdefault(key, []).append((run, record))
    rows = []
    for (_, name, _), found in grouped.items():
        latest = found[-1][1].get("settings")
        steps = {int(r.get("step") or 0): r for _, r in found if r.get("settings") == latest}
        rows.append(_landscape_row(found[0][0], name, dict(sorted(steps.items()))))
    return rows


def _landscape_row(run: Run, name: str, steps: dict[int, Record]) -> Row:
    kind, sides, told = kinds()[name], [], ("", "", "")
    for step, record in steps.items():
        values = record.get("values") or {}
        found = kind.evidence(view(kind.values, values)) if kind.evidence else None
        if found is None:
            numbers = [f"{k.replace('_', ' ')} {text(v)}" for k, v in values.items() if isinstance(v, int | float)]
            found = ", ".join(numbers[:8]) or "recorded", "", ""
        told = found
        # An untrained model says nothing of what is learned.
        sides += [found[2]] if step > 0 else []
    verdict = side_verdict(sides)
    what = f"{name} at step {max(steps):,}" if len(steps) == 1 else f"{name} at {len(steps)} steps to {max(steps):,}"
    counts = "" if len(steps) == 1 else "; of {} trained steps {} easier, {} harder, {} equal".format(
        len(sides), *map(sides.count, ("lower", "higher", "equal")))  # fmt: skip
    change = "more batches or another step of training" if verdict == UNDECIDED else "another run or model"
    return run.row(what, told[0], f"{told[1]}{counts}", paper.EASIER, verdict, change)


def side_verdict(sides: Sequence[str]) -> str:
    """Agrees (differs) if half of the steps or more are lower (higher) and none the other; equal if half or more are
    equal and none is anything else that decides."""
    count = {side: sides.count(side) for side in ("lower", "higher", "equal")}
    enough = {side: n > 0 and 2 * n >= len(sides) for side, n in count.items()}
    if enough["equal"] and not count["lower"] and not count["higher"]:
        return EQUAL
    return decided(enough["lower"] and not count["higher"], enough["higher"] and not count["lower"])


def relation_rows(evidence: Evidence) -> list[Row]:
    """The newest record of each related pair of each run: plain correlation, and the one without the trend."""
    rows = [_relation_row(run, str(record.get("pair")), view(Relation, record["values"]))
            for run, record in evidence.newest("relations")]  # fmt: skip
    # The paper's own pairs first: the others are shown and decide nothing.
    return sorted(rows, key=lambda row: not row.verdict)


def dynamics_rows(evidence: Evidence) -> list[Row]:
    """What the newest analysed checkpoint of each run foretells, with how such predictions fared; decides nothing."""
    return [
        run.row(f"step {record.get('step')}: {what}", ours, f"{rest}; {history}" if history else rest, "", "")
        for run, record in evidence.newest("dynamics")
        for what, ours, rest, history in told(view(Dynamics, record["values"]))
    ]


def _relation_row(run: Run, pair: str, found: Relation) -> Row:
    plain, partial = (
        correlation(one.value, one.low, one.high, "{} [{}, {}]").replace("–", "unknown")
        for one in (found.pearson, found.partial)
    )
    confounded = found.pearson.low > 0 and not found.partial.low > 0 and found.partial.effective >= ENOUGH
    ours, rest = f"Pearson {plain} over {found.points} steps", f"without the trend {partial}"
    if pair not in paper.OWN_PAIRS:
        identity = "an identity" if pair in paper.IDENTITIES else "not a pair of the paper"
        return run.row(pair, ours, f"{rest}; {identity}, it decides nothing", "", "")
    verdict = decided(found.partial.low > 0, confounded)
    change = (
        f"at least {ENOUGH} effective points" if verdict == UNDECIDED
        else "another run or seed whose interval lies on the other side of zero"
    )  # fmt: skip
    return run.row(pair, ours, rest, paper.correlation_words(pair), verdict, change)
