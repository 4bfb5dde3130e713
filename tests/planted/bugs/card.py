"""Training steps on a device, what they compute in, studies with a budget."""

from tests.planted.engine import bug

ARITHMETIC, MODULE, TRACKER = "runs/devices.py", "runs/module.py", "runs/tracker.py"
STUDY, STUDY_RUN, DEVICES = "runs/study.py", "runs/study_run.py", "runs/devices.py"
NEIGHBOURS, SEEDED = "tasks/forcefield/neighbours.py", "tasks/seeded.py"
GPU = "gpu/test_training"

BUGS = (
    bug("steps: the batch of the step before from the thread that is ahead", MODULE, "Ahead._make",
        r"self\._steps\[step\]", r"self._steps[max(0, step - 1)]", GPU),
    bug("measured: in the float32 products of the steps", ARITHMETIC, "Arithmetic.measuring",
        r'_products\("highest"\)', r"_products(None)", GPU),
    bug("measured: weights of 16 bits as they are", ARITHMETIC, "Arithmetic.measuring",
        r"copy\.deepcopy\(net\)\.float\(\) if narrow else net", r"net", GPU),
    bug("steps: trainer.matmul stays on after the run", ARITHMETIC, "_products",
        r"torch\.set_float32_matmul_precision\(before\)", r"pass", GPU),
    bug("compiled: the compiled model is a part of what is stored", MODULE, "TaskModule.__init__",
        r"self\._called = \((compiled\([^)]*\)),\)", r"self._called = nn.ModuleList([\1])", GPU),
    bug("prepared: elements checked on the device again", "tasks/forcefield/edges.py", "SpeciesIndex.forward",
        r"if known:", r"if False:", GPU),
    bug("padded: added edges belong to an atom of a sample", NEIGHBOURS, "_filled",
        r'_EDGES \+ "centre": atoms - 1', r'_EDGES + "centre": 0', "tasks/forcefield/test_neighbours"),
    bug("padded: places of edges in a table of the width before", NEIGHBOURS, "_filled",
        r"slot \+ row \* \(places - width\)", r"slot", "tasks/forcefield/test_neighbours"),
    bug("padded: every size is a size of its own", SEEDED, "few_sizes",
        r"-\(-count // step\) \* step", r"count", "tasks/forcefield/test_neighbours"),
    bug("leases: the end of the time leaves no checkpoint", "runs/checkpoint.py", "Checkpoints.on_train_batch_end",
        r"or step == self\._max_steps or over", r"or step == self._max_steps", "runs/test_train"),
    bug("studies: a run whose time was over counts as failed", STUDY_RUN, "_reason",
        r'in \("open", "finished"\)', r'in ("finished",)', "runs/test_paper_scale"),
    bug("studies: those with the most to do come first", STUDY_RUN, "_left",
        r"\(now\.steps - now\.step\)", r"-(now.steps - now.step)", "runs/test_paper_scale"),
    bug("studies: a setting that came later renames old runs", STUDY, "run_name",
        r"for group, name in LATER:", r"for group, name in ():", "runs/test_paper_scale"),
    bug("studies: every task gets all that is left of the minutes", STUDY_RUN, "by_task",
        r"left / \(len\(tasks\) - number\)", r"left", "runs/test_paper_scale"),
    bug("devices: cuda:1 trains on the first card", DEVICES, "accelerator",
        r"\[int\(number\)\] if number else devices", r"devices", "runs/test_devices"),
    bug("curvature: forces of an energy lose their graph", "analysis/differentiable.py",
        "_KeptGraphs.__torch_function__", r'"create_graph": True', '"create_graph": False',
        "analysis/test_differentiable"),
    bug("curvature: an output without a graph is left out in silence", "analysis/parts.py", "Parts._survey",
        r"not r\.requires_grad", r"False", "analysis/test_differentiable"),
    bug("studies: an analysis that was refused is asked for again", "runs/sweep.py", "analyses_due",
        r'r\["kind"\] == "refusal"', r"False", "runs/test_paper_scale"),
    bug("studies: a crash of an analysis counts as a refusal", "runs/sweep.py", "_failure",
        r"except UnsuitedModelError", r"except Exception", "runs/test_paper_scale"),
    bug("studies: refusals hide that a run has ended", STUDY, "_last_records",
        r'\("analysis", "refusal"\)', r'("analysis",)', "runs/test_paper_scale"),
    bug("report: refused what was made since", "records.py", "refusals",
        r"if name not in made", r"", "report/test_study"),
    bug("doctor: the two extra passes are not counted", "runs/doctor.py", "cost",
        r"asked\.rotations \+ 2", r"asked.rotations", "runs/test_doctor"),
    bug("report: hours of measurements left out", "report/study.py", "spent",
        r"\{sum\(sums\):\.2g\}", r"{sums[0]:.2g}", "report/test_study"),
)  # fmt: skip
