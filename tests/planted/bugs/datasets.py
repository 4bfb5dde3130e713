"""Data sets: labels that would be wrong without a word."""

from tests.planted.engine import bug

SETS, REAL = "tasks/datasets", "tasks/forcefield/real.py"

BUGS = (
    bug("SPICE: the gradient taken for the force", f"{SETS}/hdf5.py", "Spice.parse",
        r"-((?:\w+\.)?force\()", r"\1", "tasks/datasets/test_hdf5"),
    bug("SPICE: bohr assumed whatever the file says", f"{SETS}/hdf5.py", "Spice.parse",
        r"units\.length\(.*\)", "units.BOHR", "tasks/datasets/test_hdf5"),
    bug("rMD17: pieces in the file's order, not in time", f"{SETS}/md17.py", "Md17._pieces",
        r"\(\w+\[(\w+)\] \* self\.pieces\) // \w+", r"(\1 * self.pieces) // count", "tasks/datasets/test_md17"),
    bug("a pickle may call what it names", f"{SETS}/geom.py", "_Restricted.find_class",
        r"raise [\w.]+\(.*\)", "return super().find_class(module, name)", "tasks/datasets/test_geom"),
    bug("a sample that depends on the reader's blocks", f"{SETS}/stream.py", "_accepted",
        r"(\w+) \+= len\((\w+)\)", r"\1 += 1", "tasks/datasets/test_stream"),
    bug("memory-mapped frames one row off", f"{SETS}/mapped.py", "Mapped.rows",
        r"- \((\w+) - (\w+)\), \2\)", r"- \1 + 1, \2)", "tasks/datasets/test_mapped"),
    bug("reference energies of compositions without their weights", REAL, "_references",
        r"(\w+)\[(\w+)\], (\w+)\[\2\]\)", r"\1[\2])", "tasks/forcefield/test_real"),
    bug("atoms of an element counted in two bytes", REAL, "_references",
        r"astype\(np\.uint32\)", r"astype(np.uint16).astype(np.uint32)", "tasks/forcefield/test_real"),
    bug("reference energies of all frames for the training part's", REAL, "_references",
        r"(from_numpy\(\w+\)) \+ len\(\w+\) \* \(~\w+\)\.long\(\)", r"\1", "tasks/forcefield/test_real"),
    bug("the orientation test takes frames of one group for independent", f"{SETS}/orientation_bias.py", "_judged",
        r"np\.unique\((\w+), return_inverse=True\)", r"None, np.arange(len(\1))",
        "tasks/datasets/test_orientation_bias"),
    bug("the orientation test's copies are not turned", f"{SETS}/orientation_bias.py", "_features",
        r"haar_keyed\(seed, keys, stream=1 \+ copy\)", "turns[0]", "tasks/datasets/test_orientation_bias"),
    bug("data files of this package: frames of one molecule read for another's", f"{SETS}/store.py", "Made.blocks",
        r"row \+ frames \* n", "row + frames", "tasks/datasets/test_store"),
)  # fmt: skip
