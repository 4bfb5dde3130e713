"""Bugs that would turn a verdict on a claim of the paper."""

from tests.planted.engine import bug

CLAIMS, ANALYSES, BUDGETS = "report/claims.py", "report/claims_analyses.py", "report/efficiency.py"
EVIDENCE, CROSSINGS, KINDS = "report/evidence.py", "report/crossings.py", "report/kinds/__init__.py"
TABLE = "report/test_verdicts"

BUGS = (
    bug("a run of 60 steps decides", CLAIMS, "crossing_verdict", r"run\.finished and run\.last_step >= SHORTEST",
        r"run.finished", TABLE),
    bug("a run half annealed decides", EVIDENCE, "Run.finished", r"return self\.told\.finished and .*", "return True",
        TABLE),
    bug("a late share above 2 % is forgiven by the end", CLAIMS, "crossing_verdict", r"curve\.step >= WINDOW",
        r"curve.step >= curve.step[-1]", TABLE),
    bug("the final measurement is not asked", CLAIMS, "_ends_under",
        r" and \(final is None or final\.result\.percent_interval\[1\] < THRESHOLD\)", "", TABLE),
    bug("skill against the baseline forgotten", CROSSINGS, "skilled", r" & ~\(curve\.skill <= 0\)", "", TABLE),
    bug("voxels judged on the octahedral headline", EVIDENCE, "run_of",
        r"told\.curves\.get\(probe\) if probe else headline", "headline", TABLE),
    bug("tasks without runs are not missed", EVIDENCE, "combined", r"if absent and \(favour or not found\)",
        "if False", TABLE),
    bug("one seed is enough", CLAIMS, "size_verdict", r"< SEEDS for", r"< 1 for", TABLE),
    bug("sizes that differ in optimiser compared", CLAIMS, "varying", r"run\.setting\(\*free\), ", "", TABLE),
    bug("learning rates taken for seeds", BUDGETS, "_sides", r"rates\.setdefault\(run\.rate, ",
        r"rates.setdefault(0.003, ", TABLE),
    bug("rates compared over different seeds", BUDGETS, "best_rate", r"shared or losses\[rate\]", "losses[rate]",
        TABLE),
    bug("the rate chosen by the samples that judge it", BUDGETS, "_sides",
        r"float\(\(run\.judged or run\.curve\)\.total\[-1\]\)", "run.result.total", TABLE),
    bug("an optimum at the edge of the grid believed", BUDGETS, "budget_verdict", r"if side\.edge:", "if False:",
        TABLE),
    bug("whoever is ahead may have had more seconds", BUDGETS, "budget_verdict",
        r"mine\.seconds <= SAME_BUDGET \* other\.seconds and", "", TABLE),
    bug("rounding turns equal into agrees", KINDS, "lower", r"high < 1 - ROUNDING", r"high < 1", TABLE),
    bug("a landscape of one batch believed", "report/kinds/landscape.py", "evidence",
        r"values\.batches is not None and values\.batches < 2", "False", TABLE),
    bug("an untrained model is evidence", ANALYSES, "_landscape_row", r" if step > 0 else \[\]", "", TABLE),
    bug("identities decide", ANALYSES, "_relation_row", r"pair not in paper\.OWN_PAIRS", "False", TABLE),
    bug("a brute force of few rotations believed", ANALYSES, "_brute_row", r"found\.rotations >= ROTATIONS and ", "",
        TABLE),
    bug("an oracle is a probe", "report/paper.py", "counts", r"not probe\.startswith\(\"oracle\"\) and ", "", TABLE),
    bug("skill upside down", "runs/tracker.py", "skill", r"1 - total / due", "1 - due / total", "runs/test_baseline"),
    bug("the baseline measured anew at each restart", "runs/tracker.py", "record_baseline",
        r"if records\.find\(\"baseline\", part=part, probe=probe\.name\) is None", "", "runs/test_baseline"),
    bug("pairs of elements mixed up", "tasks/forcefield/baseline.py", "_pairs", r"high \* \(high \+ 1\) // 2 \+ low",
        "high + low", "tasks/forcefield/test_baseline"),
    bug("the noise forgotten in the linear velocity", "tasks/proteinflow/baseline.py", "GaussianChain.forward",
        r"\(time \* values - \(1 - time\)\)", "(time * values)", "tasks/proteinflow/test_baseline"),
    bug("the noise of the Wiener filter without its square", "tasks/voxels/baseline.py", "WienerFilter.__init__",
        r"sigma\*\*2", "sigma", "tasks/voxels/test_baseline"),
    bug("the error of a twirled loss half as large", "analysis/brute.py", "_by_force", r"pull = 2 \*", "pull =",
        "analysis/test_brute"),
)  # fmt: skip
