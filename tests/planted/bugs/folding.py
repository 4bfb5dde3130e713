"""Passes that share a call, and what a call of a GPU is."""

from tests.planted.engine import bug

FOLD, RAGGED, SPLIT = "decomposition/fold.py", "decomposition/ragged.py", "decomposition/split.py"
COMPUTING, COLLECT = "decomposition/computing.py", "decomposition/collect.py"

BUGS = (
    bug("calls of the real size are not looked at", FOLD, "Folding.confirm", r"if most == self\.compared",
        "if True", "decomposition/test_fold"),
    bug("of a shared call one pass alone is looked at", FOLD, "Folding.confirm", r"\(0, passes - 1\)", "(0,)",
        "decomposition/test_fold"),
    bug("a model that its calls change is measured", "decomposition/collect.py", "Collector.run",
        r"self\._again\(.*\)", "pass", "decomposition/test_collect"),
    bug("models whose samples see each other are folded all the same", FOLD, "Folding.alike",
        r"if not (\w+) <= (\w+) \*", r"if not \1 <= 1e9 * \2 *", "decomposition/test_fold"),
    bug("the passes of a call in another order than their turns", FOLD, "folded",
        r"in some\]\)", "in reversed(some)])", "decomposition/test_fold"),
    bug("moved batches side by side keep the numbers of atoms of the first", "decomposition/symmetries/moves.py",
        "side_by_side", r"whole = whole \+ .*", "pass", "decomposition/test_fold"),
    bug("every move of a call brings back the answer to the first", "decomposition/symmetries/moves.py", "twisted_by",
        r"\.chunk\(len\(moved\)\)\[place\]", ".chunk(len(moved))[0]", "decomposition/test_fold"),
    bug("edges of every copy lead into the first", RAGGED, "RaggedBatch.copies",
        r"pairs\[:, None, :\] \+", "pairs[:, None, :] + 0 *", "decomposition/test_fold"),
    bug("a call that ran out of memory ends folding", FOLD, "shared",
        r"if not full:", "if True:", "decomposition/test_fold"),
    bug("a call may take all of the memory many times over", FOLD, "Folding.wanted",
        r"SHARE \* self\.free", "100 * self.free", "decomposition/test_fold"),
    bug("all passes are drawn before the first call", FOLD, "folded",
        r"iter\(passes\), list\[Pass\]\(\)", "iter(()), list(passes)", "decomposition/test_fold"),
    bug("of the passes of a call only the first moves the mean", SPLIT, "OutputSplit.add_block",
        r"(\w+)\.sum\(0\), alpha", r"\1[0] * len(\1), alpha", "decomposition/test_fold"),
    bug("TF32 stays off after its effect was looked at", COMPUTING, "allowing_tf32",
        r"setattr\((\w+), (\w+), before\)", "pass", "decomposition/test_computing"),
    bug("the effect of TF32 without switching it off", COMPUTING, "tf32_effect",
        r"with allowing_tf32\(False, \w+\):", "if True:", "decomposition/test_computing"),
)  # fmt: skip
