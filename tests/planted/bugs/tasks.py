"""What the tasks share: recipes and their file, dense molecules, shuffled passes, settings; and the frozen runs."""

from tests.planted.engine import bug

SEEDED, PADDED, RECIPE = "tasks/seeded.py", "tasks/molecules/padded.py", "tasks/molecules/recipe.py"
T_SEEDED, T_PADDED, T_RECIPE = "tasks/test_seeded", "tasks/molecules/test_padded", "tasks/molecules/test_recipe"

BUGS = (
    bug("every pass over the training set in the same order", SEEDED, "Shuffled.draw",
        r'"order", \w+\)', r'"order", 0)', T_SEEDED),
    bug("the order of the passes from another seed than the task's", SEEDED, "Shuffled.draw",
        r"key\(self\.seed, ", r"key(0, ", T_SEEDED),
    bug("a pass that is kept is taken for another", SEEDED, "Shuffled._at",
        r"if (\w+) not in self\.(\w+):", r"if not self.\2:", T_SEEDED),
    bug("held-out samples taken from the front", SEEDED, "spread",
        r"\(torch\.arange\((\w+)\) \* len\(\w+\)\) // \w+", r"torch.arange(\1)", T_SEEDED),
    bug("a setting that a model's name settles can be changed", SEEDED, "configured",
        r" - set\(settled\)", r"", T_SEEDED),
    bug("unknown keys of a section pass", "tasks/guards.py", "chosen",
        r"if others is not None and", r"if False and", "tasks/test_guards"),
    bug("NaN is more than the least value", "tasks/guards.py", "at_least",
        r"not (\w+) >= least", r"\1 < least", "tasks/test_guards"),
    bug("weights from the global random state", SEEDED, "SeededTask.build_model",
        r"torch\.manual_seed\(self\._weights_seed\(\)\)", r"pass", T_SEEDED),
    bug("atomic numbers of the first molecule for all", PADDED, "read",
        r"(\w+)\[molecule\]\[:, None\] \+", r"\1[molecule * 0][:, None] +", T_PADDED),
    bug("a batch padded to its first molecule", PADDED, "check_batch",
        r"int\(atoms\[index\]\.max\(\)\)", r"int(atoms[index][0])", T_PADDED),
    bug("ids that count the batch and not the set", PADDED, "PaddedSet.batch",
        r'"id": index', r'"id": torch.arange(len(index))', T_PADDED),
    bug("molecules counted by their largest number", PADDED, "describe_split",
        r'(made\.molecule)\)\.numel\(\)\),\n(\s+"atoms")', r'\1).max()) + 1,\n\2', T_PADDED),
    bug("a file of another version is read", PADDED, "read",
        r" or metadata\.get\(\"format_version\"\) != [\w.]+", r"", T_PADDED),
    bug("a file of another recipe is used", RECIPE, "make_once",
        r" or differs:", r":", T_RECIPE),
    bug("the path decides whether a recipe is the same", RECIPE, "Recipe.content",
        r' if name != "path"', r"", T_RECIPE),
    bug("flow times a millionth too late", "tasks/proteinflow/flow.py", "interpolate",
        r"time = t\[:, None, None\]", r"time = t[:, None, None] + 1e-6", "golden/test_runs"),
    bug("held-out frames in another order", "tasks/forcefield/task.py", "ForceField.probes",
        r"stable=True", r"stable=True, descending=True", "golden/test_runs"),
)  # fmt: skip
