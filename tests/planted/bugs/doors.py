"""Batches of graphs, ASE's calculators, and models that answer many structures in one call."""

from tests.planted.engine import bug

PYG, CALLS, RUN = "adapters/pyg.py", "adapters/ase_calls.py", "adapters/ase_run.py"
MANY, METATOMIC = "adapters/many.py", "adapters/metatomic.py"

BUGS = (
    bug("all graphs turned by the rotation of the first", PYG, "GraphBatch._sliced",
        r"return (.*\.repeat_interleave\(\w+\))", r"return torch.zeros_like(\1)", "adapters/test_pyg"),
    bug("graphs of a batch counted as one sample", PYG, "GraphBatch._graph_of_nodes",
        r"return (\w+)\.long\(\)", r"return 0 * \1.long()", "adapters/test_pyg"),
    bug("neighbours found among the padding of smaller graphs", PYG, "radius_graph",
        r" & real\[:, None\]", "", "adapters/test_pyg"),
    bug("ASE: the cell not turned", CALLS, "Calculators.turned",
        r"(\w+)\.cell\[:\] = \w+", "pass", "adapters/test_ase"),
    bug("ASE: answers of the calculator's cache taken for new ones", CALLS, "Calculators._answer_of",
        r"_forget\((\w+)\)", "pass", "adapters/test_ase"),
    bug("ASE: energy of the whole structure against energy per atom", RUN, "AseSettings.forward",
        r" / sizes\(batch\)\.to\(.*\)", "", "adapters/test_ase"),
    bug("structures pooled in the order they were measured in", RUN, "AseRun._pool",
        r"torch\.tensor\(table\.ids, device=\"cpu\"\)\.argsort\(\)", "torch.arange(len(table))", "adapters/test_ase"),
    bug("rotations share a call of three times the atoms that it may have", RUN, "AseSettings.plan_of",
        r"most // atoms", "3 * most // atoms", "adapters/test_many"),
    bug("labels stored before the atoms moved pass without a word", RUN, "AseRun._notes",
        r"if stale:", "if False:", "adapters/test_bad_input"),
    bug("one structure that fails takes those measured with it along", RUN, "AseRun._group",
        r"if len\(members\) > 1:", "if False:", "adapters/test_many"),
    bug("every structure of a call turned by the first one's cell", MANY, "joined",
        r"torch\.arange\(len\(bare\), device=\"cpu\"\)\.repeat_interleave",
        "torch.zeros(len(bare), dtype=int).repeat_interleave",
        "adapters/test_many"),
    bug("shear of a stress in the order xy xz yz", MANY, "voigt",
        r"even\[:, 1, 2\], even\[:, 0, 2\], even\[:, 0, 1\]", "even[:, 0, 1], even[:, 0, 2], even[:, 1, 2]",
        "adapters/test_many"),
    bug("a calculator measured by another network than its own", "adapters/routes.py", "routed",
        r"> ALIKE", "> 1e9", "adapters/test_routes"),
    bug("metatomic: the strain of the first structure for all", METATOMIC, "_strained",
        r"strain\[batch\[.system.\]\]", "strain[0].expand(len(positions), 3, 3)", "adapters/test_metatomic"),
    bug("metatomic: energies of the first structure alone give forces", METATOMIC, "_gradients",
        r"energies\.values\.sum\(\)", "energies.values[0].sum()", "adapters/test_metatomic"),
)  # fmt: skip
