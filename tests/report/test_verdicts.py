"""Every rule on made-up evidence: a table of runs for which a fair reviewer knows the verdict, one line a case."""

import pytest

from equiscope.report import paper
from equiscope.report.claims import RULES, claims
from equiscope.report.evidence import AGREES, DIFFERS, EQUAL, UNDECIDED, gather
from tests.report import synthetic
from tests.report.test_page import write

PROBES = {"forcefield": "forces", "proteinflow": "pooled", "voxels": "SO(3), cubic, noise averaged"}
GOOD = dict(percents=(60, 5, 0.5, 0.4), r2s=(-1, 0.1, 0.8, 0.9))
BAD = dict(percents=(60, 5, 4, 6), r2s=(-1, 0.1, 0.8, 0.9))


def run(percents=GOOD["percents"], r2s=GOOD["r2s"], steps=(0, 100, 1000, 2400), task="forcefield", width=0.05, seed=0,
        lr=1e-3, optimizer="adamw", model="edge_transformer", parameters=59203, samples=4000, planned=None, end=True,
        probe=None, skills=None, final=None, others=(), extra=(), total=1.0, seconds=0.1, augment=True):  # fmt: skip
    """The records of a run of which percent and R² at a few steps are given.

    ``skills``: against the baseline. ``final``: percent of the final measurement, or the last. ``others``: those
    beside the judged probe, name -> percents. ``total``: factor of every loss.
    """
    config = {"seed": seed, "augment": augment, "model": {"name": model, "size": str(parameters)},
              "optimizer": {"name": optimizer, "lr": lr}, "trainer": {"max_steps": planned or steps[-1]},
              "data": {"train_frames": samples}}  # fmt: skip
    name = f"{task}-{model}-{parameters}-{samples}-{seed}-{lr}-{optimizer}-{steps[-1]}-{augment}"
    made = [synthetic.run_record(name=name, task=task, model=model, parameters=parameters, config=config),
            synthetic.data_record(used={"train": samples})]  # fmt: skip
    probes = {probe or PROBES[task]: percents, **dict(others)}
    for place, step in enumerate(steps):
        for which, values in probes.items():
            one = synthetic.measure(step, which, percent=values[place], r2=r2s[place], width=width,
                                    headline=which == next(iter(probes)))  # fmt: skip
            made.append(one | ({} if skills is None else {"skill": skills[place]}))
        made.append({"kind": "train", "step": step + 1, "seconds": seconds * (step + 1), "loss": 1.0})
    if end:
        for which, values in probes.items():
            last = values[-1] if final is None or which != next(iter(probes)) else final
            made.append(synthetic.measure(steps[-1], which, "final", percent=last, r2=r2s[-1], width=width,
                                          headline=which == next(iter(probes))))  # fmt: skip
        made.append({"kind": "end", "step": steps[-1]})
    for record in made:
        if record["kind"] == "measure":
            for key in ("total", "twirled", "equivariance"):
                record["result"][key] *= total
    return [*made, *extra]


def everywhere(**changes):
    """The same run in all three tasks; flow and voxels with the skill that their baselines ask for."""
    return [run(task=task, **changes) for task in PROBES]


def sizes(what, values, seeds=(0, 1, 2), steps=None, **changes):
    """Replicates at each size; ``steps``: of the crossing, by size."""
    made = []
    for size in values:
        for seed in seeds:
            at = (steps or {}).get(size, 1000)
            made.append(run(steps=(0, 100, at + 7 * seed, 20000), seed=seed, **{what: size}, **changes))
    return made


def robust(**changes):
    """Three seeds at two sizes of model and of data in every task."""
    return [one for task in PROBES for what, values in (("parameters", (1000, 59203)), ("samples", (400, 4000)))
            for one in sizes(what, values, task=task, **changes)]  # fmt: skip


def analysis(kind, values, step=500, probe="forces", **extra):
    made = {"kind": "analysis", "analysis": kind, "step": step, "probe": probe, "settings": {}, "values": values}
    return made | extra


def ratio(value, low, high, step=500):
    parts = {part: {"condition": 10.0} for part in ("equivariance", "twirled")}
    values = {"layer": "head", "parts": parts, "ratio": {"value": value, "interval": [low, high]}}
    return analysis("conditioning", values, step)


def rates(equivariance, twirled, step=500):
    figures = {part: {"value": sum(ends) / 2, "interval": list(ends)}
               for part, ends in (("equivariance", equivariance), ("twirled", twirled))}  # fmt: skip
    return analysis("gradients", {"whole": {"rate": figures}}, step)


def landscape(batches, noise=0.001):
    cut = {"range": 1.0, "noise": noise}
    lines = {"eigenvector:twirled": {"twirled": {**cut, "roughness": 0.5, "relative": 0.5}},
             "eigenvector:equivariance": {"equivariance": {**cut, "roughness": 0.01, "relative": 0.01}}}  # fmt: skip
    rounding = dict.fromkeys(("twirled", "equivariance"), 1e-9)
    return analysis("landscape", {"batches": batches, "lines": lines, "rounding": rounding})


def easy(*records):
    """A record of these in the two tasks that the paper looks at."""
    return [run(task=task, extra=records) for task in ("forcefield", "proteinflow")]


def brute(z=0.5, rotations=100_000, exact=False, step=2400, known=0.01, **parts):
    """A brute force whose error differs by ``z`` joint standard errors from the report."""
    error = known * 0.02
    figures = {part: {"reported": value, "reported_error": 0.0, "brute": value, "brute_error": 0.01 * value}
               for part, value in (("total", 0.1), ("twirled", 0.08))}  # fmt: skip
    figures["equivariance"] = {"reported": 0.02 + z * error, "reported_error": 0.0, "brute": 0.02, "brute_error": error}
    values = {"rotations": rotations, "samples": 4, "exact": exact, "parts": figures | parts}
    return analysis("brute", values, step)


def relation(pair="equivariance error ~ weight variance", partial=(0.2, 0.8), effective=12.0):
    made = {key: {"value": sum(ends) / 2, "low": ends[0], "high": ends[1], "effective": effective}
            for key, ends in (("pearson", (0.8, 0.99)), ("partial", partial))}  # fmt: skip
    return analysis("relations", {"points": 14, **made}, pair=pair)


def contest(learns=1.0, has=2.0, seeds=(0, 1, 2), rates=(1e-3, 3e-3, 1e-2), best=3e-3, profiled=True, slower=1.0,
            steps=2400, other_steps=None, wall=0.1, task="forcefield", r2s=GOOD["r2s"], end=True,
            flops=None, luck=0.01, off=1.5, lucky=1.0, timed=59203):  # fmt: skip
    """Learning against symmetric models: final losses, seeds at the best learning rate, step times in turn.

    ``luck``: how much a seed adds to the loss; ``off``, ``lucky``: factors of all losses and of the final set's alone
    at the other rates.
    """
    made = []
    for model, loss, percents, last in (("edge_transformer", learns, GOOD["percents"], steps),
                                        ("nequip", has, (1e-10,) * 4, other_steps or steps)):  # fmt: skip
        for lr in rates:
            for seed in seeds if lr == best else (0,):
                factor = loss * (1 + luck * seed) * (1 if lr == best else off)
                made.append(run(percents, r2s, (0, 100, 1000, last), task, model=model, lr=lr, seed=seed, total=factor,
                                seconds=wall * (1.16 if model == "nequip" else 1), end=end,
                                planned=last if end else 2 * last))  # fmt: skip
                for record in made[-1]:
                    if record.get("part") == "final" and lr != best:
                        record["result"]["total"] *= lucky
    costs = {name: {"step_seconds": [s] * 9, "infer_seconds": [s] * 9, "samples": 32, "infer_samples": 32,
                    "flops": 1e9 * (flops or s), "parameters": timed, "peak_mib": 1.0}
             for name, s in (("edge_transformer", 1.0), ("nequip", slower))}  # fmt: skip
    if profiled:
        made[0].append({"kind": "profile", "models": list(costs), "costs": costs})
    return made


def all_contests(**changes):
    return [one for task in PROBES for one in contest(task=task, **changes)]


NO_SIZE = "missing: proteinflow, model size; proteinflow, data size; forcefield, model size; …"
# name of the case: (claim, runs, verdict)
CASES = {
    # 2 quick
    "all three tasks cross with skill and hold": ("quick", everywhere(), AGREES),
    "one task alone, which crosses": ("quick", [run()], "missing: proteinflow; voxels"),
    "two tasks, voxels missing": ("quick", everywhere()[:2], "missing: voxels"),
    "one run of 60 steps": ("quick", [run(steps=(0, 10, 30, 60))], UNDECIDED),
    "three runs of 60 steps": ("quick", everywhere(steps=(0, 10, 30, 60)), UNDECIDED),
    "60 steps that end above": ("quick", [run(**BAD, steps=(0, 10, 30, 60))], UNDECIDED),
    "stopped in the middle of its schedule": ("quick", [run(planned=9000, end=False)], UNDECIDED),
    "stopped in the middle, above 2 %": ("quick", [run(**BAD, planned=9000, end=False)], UNDECIDED),
    "finished at a size that people run, above 2 %": ("quick", [run(**BAD)], DIFFERS),
    "one of three tasks is above at its end": ("quick", [*everywhere()[:2], run(**BAD, task="voxels")], DIFFERS),
    "0.5 % at step 50,000 after 4 % at 12,000": (
        "quick", [run((60, 5, 4, 0.5), (-1, 0.7, 0.8, 0.9), (0, 1000, 12000, 50000))], DIFFERS),
    "0.5 % at 50,000 after an unskilled 4 % at 12,000": (
        "quick", [run((60, 5, 4, 0.5), (-1, 0.0, 0.2, 0.9), (0, 1000, 12000, 50000))], UNDECIDED),
    "under 2 % early, 9 % after 12,000 steps in a run that goes on": (
        "quick", [run((60, 1, 1, 9), (-1, 0.6, 0.8, 0.9), (0, 900, 3000, 12000), planned=99000, end=False)], DIFFERS),
    "collapsed to the zero predictor": ("quick", [run((60, 0.1, 0.1, 0.1), (-1, 0, 0, 0.1))], UNDECIDED),
    "collapsed at the end after a crossing": ("quick", [run((60, 5, 0.5, 0.1), (-1, 0.1, 0.8, 0.0))], UNDECIDED),
    "interval around 2 %": ("quick", [run((60, 5, 2.1, 2.1), width=0.3)], UNDECIDED),
    "tracked under 2 %, the independent set says 2 % is inside": ("quick", [run(final=2.01)], UNDECIDED),
    "flow with R² 0.6, under that of a linear denoiser": (
        "quick", [run(task="proteinflow", r2s=(-1, 0.1, 0.58, 0.6))], UNDECIDED),
    "R² 0.9 and worse than a recorded baseline": ("quick", [run(skills=(-9, -5, -2, -0.1))], UNDECIDED),
    "voxels: 1 % octahedral, 40 % over SO(3)": (
        "quick", [run((60, 50, 45, 40), task="voxels", others={"octahedral": (60, 5, 1, 1)}.items())], DIFFERS),
    "voxels: octahedral alone": ("quick", [run(task="voxels", probe="octahedral")], UNDECIDED),
    "voxels: a perfect oracle beside 40 %": (
        "quick", [run((60, 50, 45, 40), task="voxels", others={"oracle, cubic": (0, 0, 0, 0)}.items())], DIFFERS),
    "exactly at step 10,000": ("quick", everywhere(steps=(0, 100, 10000, 12000)), AGREES),
    "seen to have crossed only after 10,000": ("quick", everywhere(steps=(0, 100, 10001, 12000)), UNDECIDED),
    # 3 robust
    "three seeds at two sizes of everything": ("robust", robust(), AGREES),
    "one task alone": ("robust", sizes("parameters", (1000, 59203)), "missing: …"),
    "one seed a size": ("robust", sizes("parameters", (1000, 59203), seeds=(0,)), UNDECIDED),
    "two seeds a size": ("robust", sizes("samples", (400, 4000), seeds=(0, 1)), UNDECIDED),
    "the same seed three times": ("robust", [
        run(steps=(0, 100, 1000, 20000 + n), parameters=p, planned=20000) for n in range(3) for p in (1000, 9000)
    ], UNDECIDED),
    "learning rates in place of seeds": ("robust", [
        run(lr=lr, parameters=p) for lr in (1e-3, 2e-3, 3e-3) for p in (1000, 9000)], UNDECIDED),
    "sizes that also differ in optimiser": ("robust", [
        *sizes("parameters", (1000,)), *sizes("parameters", (9000,), optimizer="sgd")], NO_SIZE),
    "sizes that also differ in augmentation": ("robust", [
        *sizes("parameters", (1000,)), *sizes("parameters", (9000,), augment=False)], NO_SIZE),
    "crossing moves by a factor of 5": (
        "robust", sizes("parameters", (1000, 9000), steps={1000: 5000, 9000: 1000}), DIFFERS),
    "crossing moves by a factor of 2": (
        "robust", robust(steps={1000: 2000, 59203: 1000, 400: 2000, 4000: 1000}), AGREES),
    "one small size stays above in every seed": ("robust", [
        *sizes("parameters", (9000,)), *sizes("parameters", (1000,), **BAD)], DIFFERS),
    # 4 easier
    "an exact ratio of 1": ("easier", easy(ratio(1.0, None, None)), EQUAL),
    "a ratio of 1 but for rounding": ("easier", easy(ratio(1 - 1e-9, 1 - 2e-9, 1 - 1e-10)), EQUAL),
    "a ratio of 0.98, known well": ("easier", easy(ratio(0.98, 0.97, 0.99)), EQUAL),
    "a ratio up to 1 but for rounding": ("easier", easy(ratio(0.9, 0.8, 1 - 1e-9)), UNDECIDED),
    "a condition number 1,000 times lower": ("easier", easy(ratio(1e-3, 5e-4, 2e-3)), AGREES),
    "a condition number 3 times higher": ("easier", easy(ratio(3.0, 2.0, 4.0)), DIFFERS),
    "a ratio whose interval holds 1": ("easier", easy(ratio(0.9, 0.5, 1.5)), UNDECIDED),
    "relative rates apart": ("easier", easy(rates((2, 3), (0.5, 1))), AGREES),
    "relative rates apart, an equal head": ("easier", easy(rates((2, 3), (0.5, 1)), ratio(1.0, 1, 1)), AGREES),
    "relative rates apart the other way": ("easier", easy(rates((0.5, 1), (2, 3))), DIFFERS),
    "relative rates that overlap": ("easier", easy(rates((0.5, 2), (1, 3))), UNDECIDED),
    "relative rates of the untrained model": ("easier", easy(rates((2, 3), (0.5, 1), step=0)), UNDECIDED),
    "relative rates of the force field alone": ("easier", easy(rates((2, 3), (0.5, 1)))[:1], "missing: proteinflow"),
    "a landscape of one batch": ("easier", easy(landscape(1)), UNDECIDED),
    "a landscape of eight batches": ("easier", easy(landscape(8)), AGREES),
    "a landscape as noisy as it is rough": ("easier", easy(landscape(8, noise=0.3)), UNDECIDED),
    # 5 penalty
    "small at every skilled measurement": ("penalty", everywhere(), AGREES),
    "5 % once while skilled": ("penalty", [run((60, 5, 5, 0.4))], DIFFERS),
    "5 % before there is skill": ("penalty", everywhere(r2s=(-1, 0.1, 0.4, 0.9), final=0.4), UNDECIDED),
    "an untrained model": ("penalty", [run((0.1,) * 4, (-0.1, -0.1, 0.0, 0.0))], UNDECIDED),
    "small so far, in the middle of the schedule": ("penalty", everywhere(planned=9000, end=False), UNDECIDED),
    "flow at the skill of a linear map, 5 %": (
        "penalty", [run((60, 5, 5, 5), (-1, 0.1, 0.6, 0.62), task="proteinflow")], UNDECIDED),
    "an oracle at 30 % is no probe": ("penalty", [
        *everywhere()[1:], run(others={"oracle, cubic": (60, 50, 40, 30)}.items())], AGREES),
    "one time of the flow at 8 %": ("penalty", [
        run(task="proteinflow", others={"t=0.9": (60, 5, 8, 8)}.items())], DIFFERS),
    # 1 measure
    "brute force agrees in all tasks": ("measure", everywhere(extra=[brute()]), AGREES),
    "brute force of one task": ("measure", [run(extra=[brute()])], "missing: proteinflow; voxels"),
    "no brute force: parts that add up by definition": (
        "measure", everywhere(), "missing: proteinflow; forcefield; voxels"),
    "brute force six errors away": ("measure", [run(extra=[brute(z=6)])], DIFFERS),
    "a brute force of 1,000 rotations": ("measure", [run(extra=[brute(z=6, rotations=1000)])], UNDECIDED),
    "a brute force too coarse to tell": ("measure", [run(extra=[brute(known=0.5)])], UNDECIDED),
    "a brute force of the untrained model": ("measure", [run(extra=[brute(step=0)])], UNDECIDED),
    "a closed form": ("measure", everywhere(extra=[brute(z=0, rotations=0, exact=True)]), AGREES),
    "a flow whose samples are not turned stays above": (
        "quick", [run(**BAD, task="proteinflow", skills=(-1, 0.1, 0.5, 0.6), augment=False)], UNDECIDED),
    "the same with every sample turned": (
        "quick", [run(**BAD, task="proteinflow", skills=(-1, 0.1, 0.5, 0.6))], DIFFERS),
    "a force field whose samples are not turned, as the paper's": ("quick", [run(**BAD, augment=False)], DIFFERS),
    "the penalty of a flow whose samples are not turned": (
        "penalty", [run(**BAD, task="proteinflow", skills=(-1, 0.1, 0.5, 0.6), augment=False)], UNDECIDED),
    # 6 efficiency
    "learning ahead at equal budgets": ("efficiency", all_contests(), AGREES),
    "symmetric ahead at equal budgets": ("efficiency", contest(learns=2.0, has=1.0), DIFFERS),
    "learning ahead in one task": ("efficiency", contest(), "missing: proteinflow; voxels"),
    "one seed at the best rate": ("efficiency", contest(seeds=(0,)), UNDECIDED),
    "the best rate at the edge of the grid": ("efficiency", contest(rates=(1e-3, 2e-3, 3e-3)), UNDECIDED),
    "further seeds of the best rate are unlucky ones": (
        "efficiency", all_contests(has=4.0, luck=0.1, off=1.05), AGREES),
    "the other rates are lucky on the final set": ("efficiency", all_contests(lucky=0.1), AGREES),
    "one more seed at the best rate stopped or diverged": ("efficiency", [
        *all_contests(), run(lr=3e-3, seed=3, steps=(0, 100, 500, 1000), planned=2400, end=False)], UNDECIDED),
    "a run of another rate goes on": ("efficiency", [
        *all_contests(), run(lr=1e-2, seed=3, steps=(0, 100, 500, 1000), planned=2400, end=False)], AGREES),
    "a larger model of a single rate is better still": (
        "efficiency", [*all_contests(), *everywhere(lr=3e-3, parameters=200_000, total=0.1)], AGREES),
    "step times of another size": ("efficiency", contest(timed=200_000), UNDECIDED),
    "a single learning rate": ("efficiency", contest(rates=(3e-3,)), UNDECIDED),
    "seconds from the clock on the wall": ("efficiency", contest(profiled=False), UNDECIDED),
    "ahead with twice the steps": ("efficiency", contest(steps=4800, other_steps=2400), UNDECIDED),
    "ahead with half the steps": ("efficiency", contest(2.0, 1.0, steps=4800, other_steps=2400), DIFFERS),
    "the symmetric one ahead at steps three times as long": (
        "efficiency", contest(2.0, 1.0, slower=3.0), UNDECIDED),
    "the symmetric one ahead with the same FLOPs in three times the seconds": (
        "efficiency", contest(2.0, 1.0, slower=3.0, flops=1.0), UNDECIDED),
    "equal losses": ("efficiency", contest(1.0, 1.0), UNDECIDED),
    "models without skill": ("efficiency", contest(r2s=(-1, 0, 0.1, 0.2)), UNDECIDED),
    "runs not annealed": ("efficiency", contest(end=False), "missing: …"),
    # 7 relations
    "the paper's pair without the trend": ("relations", easy(relation()), AGREES),
    "the paper's pair in one task": ("relations", [run(extra=[relation()])], "missing: proteinflow"),
    "nothing left without the trend": ("relations", easy(relation(partial=(-0.5, 0.4))), DIFFERS),
    "nothing left, on four effective points": (
        "relations", easy(relation(partial=(-0.5, 0.4), effective=4)), UNDECIDED),
    "an identity": ("relations", easy(relation("equivariance error ~ exact form")), "missing: …"),
    "another pair, however strong": ("relations", easy(relation("percent ~ size of the features")), "missing: …"),
    "an identity that fails beside the paper's pair": ("relations", easy(
        relation("equivariance error ~ exact form", (-0.5, 0.4)), relation()), AGREES),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_verdict(case, tmp_path):
    key, runs, verdict = CASES[case]
    folders = [write(tmp_path / str(number), records) for number, records in enumerate(runs)]
    found = next(claim for claim in claims(gather(folders)) if claim.key == key)
    rows = [(row.what, row.verdict, row.ours, row.change) for row in found.rows]
    assert found.verdict == verdict or (verdict.endswith("…") and found.verdict.startswith(verdict[:-1])), rows


def test_every_claim_is_decided_either_way_by_some_case():
    for key in RULES:
        found = {verdict for claim, _, verdict in CASES.values() if claim == key}
        assert {AGREES, DIFFERS} <= found, key
        assert found & {UNDECIDED} or key == "measure"
    assert len(CASES) >= 30
    assert set(PROBES) == set(paper.TASKS)
