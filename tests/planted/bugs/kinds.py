"""The register of analyses, their samples, and the contracts of what is registered."""

from tests.planted.engine import bug

KINDS, ANALYSE, DEAL = "runs/kinds/__init__.py", "runs/analyse.py", "runs/deal.py"
CONTRACTS = "conformance/test_conformance"

BUGS = (
    bug("analyses: records of both parts of the samples not told apart", KINDS, "AnalysisSettings.recorded",
        r'\((\w+), (\w+)\) != \("part", PARTS\[0\]\)', r'\1 != "part"', "runs/kinds/test_kinds"),
    bug("analyses: a setting left out of what tells records apart", KINDS, "AnalysisSettings.recorded",
        r'!= \("part", PARTS\[0\]\)', r'!= ("part", PARTS[0]) and name != "cosets"', "runs/kinds/test_kinds"),
    bug("analyses: what is recorded made again", ANALYSE, "_one",
        r"if (\w+) is not None:", r"if \1 is not None and False:", "runs/test_analyse"),
    bug("analyses: an unknown setting passed over", ANALYSE, "_settings",
        r'raise InputError\(f"unknown setting .*\)', "continue", "runs/test_analyse"),
    bug("analyses: the matrices asked for not made", "runs/kinds/handed.py", "hessian",
        r"kinds=\w+\.matrices", 'kinds=("hessian",)', "runs/kinds/test_hessian"),
    bug("analyses: condition numbers in single precision", "runs/kinds/handed.py", "doubled",
        r"deepcopy\((\w+)\)\.double\(\)", r"deepcopy(\1)", "runs/kinds/test_conditioning"),
    bug("analyses: the head looked at on the same samples twice", "runs/kinds/handed.py", "heads",
        r"in \((\w+), (\w+)\)", r"in (\1, \1)", "runs/test_analyse"),
    bug("analyses: a cluster in two of the independent batches", DEAL, "dealt",
        r"\.setdefault\((\w+), \[\]\)\.append\((\w+)\)", r".setdefault(\2, []).append(\2)", "runs/test_deal"),
    bug("analyses: the first samples, not evenly spread ones", DEAL, "thinned",
        r"spread\((.*), samples\)", r"\1[:samples]", "runs/test_deal"),
    bug("plans: a design beside a plan passed over", "decomposition/plan.py", "as_plan",
        r"if design and plan is given:", "if False:", "decomposition/test_plan"),
    bug("plans: the caller's design without effect", "decomposition/plan.py", "as_plan",
        r"\*\*\{\*\*(\w+), \*\*(\w+)\}", r"**{**\2, **\1}", "decomposition/test_plan"),
    bug("tasks: a task of the user's own keeps the model and loss of another", "runs/config.py", "_compose",
        r'in \("task", "model", "loss"\)', 'in ("task",)', "conformance/test_extend"),
    bug("losses: a loss that depends on the frame said to be invariant", "decomposition/losses.py", "LOSSES",
        r"huber, invariant=False", "huber", CONTRACTS),
    bug("losses: a loss that is not convex", "decomposition/losses.py", "vector_norm",
        r"\.norm\(dim=-1\)", ".norm(dim=-1).sqrt()", CONTRACTS),
    bug("tasks: initial weights that are no function of the seed", "tasks/seeded.py", "SeededTask.build_model",
        r"torch\.manual_seed\(.*\)", "torch.seed()", CONTRACTS),
    bug("readers: half a file read as a whole one", "tasks/datasets/reading.py", "Reading.each",
        r"self\.rejected\[.*\] \+= 1", "pass", CONTRACTS),
)  # fmt: skip
