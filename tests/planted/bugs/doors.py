"""Batches of graphs and ASE's calculators."""

from tests.planted.engine import bug

PYG, ASE = "adapters/pyg.py", "adapters/ase_run.py"

BUGS = (
    bug("all graphs turned by the rotation of the first", PYG, "GraphBatch._sliced",
        r"return (.*\.repeat_interleave\(\w+\))", r"return torch.zeros_like(\1)", "adapters/test_pyg"),
    bug("graphs of a batch counted as one sample", PYG, "GraphBatch._graph_of_nodes",
        r"return (\w+)\.long\(\)", r"return 0 * \1.long()", "adapters/test_pyg"),
    bug("ASE: the cell not turned", ASE, "AseSettings.forward",
        r"(\w+)\.set_cell\(.*\)", "pass", "adapters/test_ase"),
    bug("ASE: answers of the calculator's cache taken for new ones", ASE, "AseSettings.forward",
        r"_forget\((\w+)\)", "pass", "adapters/test_ase"),
    bug("ASE: energy of the whole structure against energy per atom", ASE, "AseSettings.forward",
        r"(\w+) / len\(\w+\) if [\w.]+ else \1", r"\1", "adapters/test_ase"),
)  # fmt: skip
