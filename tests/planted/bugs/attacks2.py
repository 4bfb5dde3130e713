"""What hostile input found: samples torn by masks, memory filled again, samples taken for one another."""

from tests.planted.engine import bug

ORBIT, CHECKS, COLLECT = "decomposition/orbit.py", "decomposition/checks.py", "decomposition/collect.py"
EDGES, METRIC = "decomposition/test_edge_cases", "decomposition/test_metric"

BUGS = (
    bug("atoms one after another that do not count stay behind", ORBIT, "turning_rows",
        r"batch\.dense or declaration\.mask is None", "True", EDGES),
    bug("a supercell leaves the atoms that do not count where they are", "decomposition/symmetries/relabelling.py",
        "atoms_of", r"torch\.ones_like\(nodes, dtype=torch\.bool\)", "boolean(fields[mask], mask)", EDGES),
    bug("a mask of the loss tears padded samples", CHECKS, "check_batch", r"declaration\.mask_of_outputs", "False",
        EDGES),
    bug("streams are kept in the memory that they fill again", "decomposition/batches.py", "own",
        r"marked\(native\.detach\(\)\.clone\(\), native\)", "native", EDGES),
    bug("conformers of one id are dropped", "decomposition/split.py", "BatchOutput.target_moments",
        r'return \{"target_square": square\}', "return {}", METRIC),
    bug("exchanged axes are compared", ORBIT, "_exchanged", r"a != b", "False", EDGES),
    bug("samples that see each other are not told", COLLECT, "Collector._again",
        r"isinstance\(error, RandomModelError\)", "False", EDGES),
    bug("a call by names cannot be pickled", "decomposition/calling.py", "Call._ways",
        r"functools\.partial\(_by_field, self\._inputs\[0\]\)",
        "(lambda model, native: model(native[self._inputs[0]]))", METRIC),
    bug("clusters beyond 64 bits", "decomposition/samples.py", "_code", r" and -\(2\*\*63\) <= label < 2\*\*63", "",
        METRIC),
    bug("a larger call of as many samples is not looked at", "decomposition/fold.py", "Folding.confirm",
        r"max\(size\[1\], self\.compared\[1\]\)", "self.compared[1]", "decomposition/test_fold"),
    bug("lists of atoms keep their order", "decomposition/symmetries/relabelling.py", "_refuse_lists",
        r"atoms\.shape\[-1\] in counts", "False", "decomposition/symmetries/test_relabelling"),
    bug("arrays of the other order of bytes", "decomposition/calling.py", "_tensor",
        r"value\.dtype\.newbyteorder\(.=.\)", "value.dtype", "decomposition/test_calling"),
    bug("a loss that is not convex is taken for a small one", "decomposition/pool.py", "_notes",
        r" if own else ", " if not own else ", "decomposition/test_losses"),
    bug("passes of a coset that agree count as many", "decomposition/samples.py", "SampleValues.independent",
        r"return variance, 1 \+ free", "return variance, 0 * free + passes", "decomposition/test_noise"),
    bug("samples of one coset have no variance between cosets", "decomposition/samples.py", "SampleValues.independent",
        r"torch\.where\(lone, variance, within\)", "within", "decomposition/test_noise"),
    bug("tails of rounding are singular orientations", "decomposition/noise.py", "stands_apart", r"TAILS \* rounding",
        "0 * rounding", "decomposition/test_noise"),
)
