"""Bugs in what a field is taken to hold, in positions as outputs, and in the words for other people's errors."""

from tests.planted.engine import bug

BATCHES, RAGGED, CHECKS = "decomposition/batches.py", "decomposition/ragged.py", "decomposition/checks.py"
ORBIT, SPLIT, COLLECT = "decomposition/orbit.py", "decomposition/split.py", "decomposition/collect.py"
PRESERVE, TWIRLED, LAYERS = "decomposition/preserve.py", "decomposition/twirled.py", "analysis/layers.py"

BUGS = (
    bug("atoms of several samples turn one by one", CHECKS, "_check_rows_of_samples", r"known = said", "known = True",
        "decomposition/test_checks"),
    bug("a stress beside as many atoms counts as their rows", ORBIT, "check_rows", r" or not inner:", ":",
        "decomposition/test_checks"),
    bug("whole numbers of a mask mark the padding", BATCHES, "boolean", r"return values\.bool\(\)",
        "return ~values.bool()", "decomposition/test_checks"),
    bug("atoms one after another all belong to the first sample", RAGGED, "Ragged._declared_rows",
        r"Rows\(self\.nodes,", "Rows(torch.zeros_like(self.nodes),", "decomposition/test_ragged"),
    bug("as many lattice vectors as atoms pass for atoms", RAGGED, "Ragged.counted", r"if any\(not",
        "if False and any(not", "decomposition/test_ragged"),
    bug("edges of some samples keep the numbers they had", RAGGED, "RaggedBatch._picked_edges",
        r" \+ starts\[copies\]", "", "decomposition/test_ragged"),
    bug("a field nobody spoke of is cut as if it had rows for atoms", LAYERS, "_alike", r"return bool\(",
        "return True or bool(", "analysis/test_layers"),
    bug("rows of a field without entries are not countable", BATCHES, "Rows.select",
        r"math\.prod\(flat\.shape\[1:\]\) // math\.prod\(shape\)", "-1", "adapters/test_pyg"),
    bug("positions as outputs turn about the origin", ORBIT, "output_middle", r"if spec\.points else", "if False else",
        "decomposition/test_orbit"),
    bug("size and skill of positions are taken about the origin", SPLIT, "BatchOutput.about",
        r"values if self\.middle is None else values - self\.middle", "values", "decomposition/test_orbit"),
    bug("positions that turned as vectors are not noted", CHECKS, "follows_points", r"< NEAR", "< 0",
        "decomposition/test_orbit"),
    bug("forces about the centre are called positions", CHECKS, "follows_points", r"< NEAR \* far", "> 0",
        "decomposition/test_orbit"),
    bug("crossed predictions that are not finite count", COLLECT, "Collector.keep", r"check_figures\(",
        "(lambda *_: None)(", "decomposition/test_crossed"),
    bug("a mark of the loader gets lost", BATCHES, "marked", r"if original\.requires_grad", "if False",
        "decomposition/test_collect"),
    bug("marked positions come with a graph and have no gradient of their own", COLLECT, "BatchOrbit",
        r"@torch\.no_grad\(\)\n(\s+def as_given)", r"@torch.enable_grad()\n\1", "decomposition/test_collect"),
    bug("a module without a flag of its mode stops the measure", PRESERVE, "untouched", r'hasattr\(m, "training"\)',
        "True", "decomposition/test_collect"),
    bug("lazy weights are drawn by the measure", PRESERVE, "refuse_lazy",
        r"isinstance\(tensor, UninitializedTensorMixin\)", "False", "decomposition/test_collect"),
    bug("what a model raises is raised raw", ORBIT, "answer_of", r"raise around\(ModelError, text, error\) from error",
        "raise", "decomposition/test_orbit"),
    bug("a model that answers as given is not said to", ORBIT, "answer_of", r"call\(given\.with_fields\(\{\}\)\)",
        "raise error", "decomposition/test_orbit"),
    bug("what a loader raises is raised raw", BATCHES, "Guarded.__iter__",
        r"raise around\(DataError, text, error\) from error", "raise", "decomposition/test_edge_cases"),
    bug("an averaged model takes NaN for an input", TWIRLED, "Twirled.forward",
        r"check_finite\(wrapped, self\.declaration\)", "pass", "decomposition/test_twirled"),
    bug("an averaged model answers NaN", TWIRLED, "Twirled.forward", r"if not bool\(torch\.isfinite",
        "if False and not bool(torch.isfinite", "decomposition/test_twirled"),
)  # fmt: skip
