"""The orbit: batches turned about their centre, answers turned back, nothing left behind in the model."""

from tests.planted.engine import bug

ORBIT, BATCHES, TWIRLED = "decomposition/orbit.py", "decomposition/batches.py", "decomposition/twirled.py"
PRESERVE, DESIGN = "decomposition/preserve.py", "decomposition/plan.py"

BUGS = (
    bug("rotated back by g instead of its inverse", ORBIT, "rotated_back",
        r"(\w+) = (\w+)\.mT", r"\1 = \2", "decomposition/test_orbit"),
    bug("not rotated back", ORBIT, "rotated_back",
        r"turned\([\w.]+, [^,]*, (\w+), \w+\)", r"\1.double()", "decomposition/test_orbit"),
    bug("only the first input turns: cell and vectors forgotten", ORBIT, "rotated",
        r"in ([\w.]+)\.inputs\.items\(\):", r"in list(\1.inputs.items())[:1]:", "decomposition/test_orbit"),
    bug("the centre ignored", ORBIT, "rotated",
        r"if \w+ in [\w.]+\.points and \w+ is not None", "if False", "decomposition/test_measure"),
    bug("not moved back to the centre", ORBIT, "turned",
        r"(act\(\w+, \w+) - (\w+)\) \+ \2", r"\1 - \2)", "decomposition/test_orbit"),
    bug("lattice vectors turned about the centre", ORBIT, "rotated",
        r"if \w+ in [\w.]+\.points and", "if spec.action.shape == (3,) and", "decomposition/test_orbit"),
    bug("padding counted in the centre", ORBIT, "input_rows",
        r' or \(per == "points" and [\w.]+\.mask is not None\)', "", "decomposition/test_measure"),
    bug("rotations rounded to float32", ORBIT, "rotated",
        r"rotations\[(\w+)\.sample\]", r"rotations[\1.sample].float().double()", "decomposition/test_orbit"),
    bug("inputs turned in float32", ORBIT, "turned",
        r"else (\w+)\.double\(\)", r"else \1.float().double()", "decomposition/test_measure"),
    bug("answers in reused memory not copied", ORBIT, "predict",
        r"\)\.clone\(\)", ")", "decomposition/test_edge_cases"),
    bug("mask of the outputs forgotten: padding leaks", BATCHES, "DenseBatch.rows",
        r'(\w+) if (\w+) == "atom" else None', "None", "decomposition/test_measure"),
    bug("a model that edits its input spoils the next pass", BATCHES, "fresh",
        r"(\w+)\.clone\(\)", r"\1", "decomposition/test_batches"),
    bug("numbers hidden in a nested dict reach the model unturned", BATCHES, "tensors_of",
        r"refuse_hidden\(.*\)", "pass", "decomposition/test_bad_input"),
    bug("averaged model turned the wrong way back", TWIRLED, "Twirled.forward",
        r"rotated_back\((\w+, \w+, \w+),", r"rotated_back(\1.mT,", "decomposition/test_twirled"),
    bug("averaged model summed, not averaged", TWIRLED, "Twirled.__init__",
        r"(\w+\.weight) / \w+", r"\1", "decomposition/test_twirled"),
    # Side effects.
    bug("random state not restored", PRESERVE, "same_randomness",
        r"_set_random_states\(.*\)", "pass", "decomposition/test_preserve"),
    bug("gradients not set aside", PRESERVE, "untouched",
        r"(\w+)\.tensor\.grad = None", "pass", "decomposition/test_preserve"),
    bug("buffers not restored", PRESERVE, "_Tensor.restore",
        r"self\.tensor\.copy_\(.*\)", "pass", "decomposition/test_preserve"),
    bug("a buffer replaced by the model not put back", PRESERVE, "_Module.restore",
        r"now\.update\(before\)", "now.update(dict(now))", "decomposition/test_preserve"),
    bug("measured in train mode", PRESERVE, "untouched",
        r"(\w+)\.training = False", "pass", "decomposition/test_preserve"),
    # A second coset on a part of the samples.
)  # fmt: skip
