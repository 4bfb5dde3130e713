"""Sets of rotations, how a tensor turns, grids of voxels."""

from tests.planted.engine import bug

ROTATIONS, ACTIONS, GRIDS = "symmetry/rotations.py", "symmetry/actions.py", "symmetry/grids.py"
PLAN = "decomposition/plan.py"

BUGS = (
    # Rotations.
    bug("uniform numbers for normal ones: not Haar", ROTATIONS, "haar_keyed",
        r"Generator\((\w+)\)\.standard_normal\(4\)", r"Generator(\1).random(4) - 0.5", "symmetry/test_rotations"),
    bug("Haar sampler of one quarter of the quaternions", ROTATIONS, "haar",
        r"torch\.randn\(", "torch.rand(", "symmetry/test_rotations"),
    bug("rotations of one sample shared across samples", PLAN, "Plan.walk",
        r"([\w.]+\.seed), ([\w.]+), (\w+)\)", r"\1, [0] * len(\2), \3)", "decomposition/test_measure"),
    bug("the key of a rotation ignores the sample", ROTATIONS, "haar_keyed",
        r"key=\[(\w+), .*?\]", r"key=[\1, 0]", "symmetry/test_rotations"),
    bug("the same shift for every coset", PLAN, "Plan.walk",
        r"([\w.]+\.seed), ([\w.]+), (\w+)\)", r"\1, \2, 0)", "decomposition/test_measure"),
    bug("the key of a rotation ignores the coset", ROTATIONS, "haar_keyed",
        r"counter=\[0, 0, 0, \w+\]", "counter=[0, 0, 0, 0]", "symmetry/test_rotations"),
    bug("wrong half of the octahedral group taken for T", ROTATIONS, "_group_matrices",
        r"\[\(0, 1, 2\), \(1, 2, 0\), \(2, 0, 1\)\]", "[(0, 1, 2), (1, 0, 2)]", "symmetry/test_rotations"),
    bug("the weights of a quadrature ignored", PLAN, "Design.coset",
        r"([\w.]+)\.weights\.tolist\(\)", r"[1 / len(\1)] * len(\1)",
        "decomposition/test_measure"),
    bug("parity ignored under O(3): no improper half", ROTATIONS, "rotation_set",
        r'if (\w+) != "O3":', r"if \1:", "decomposition/test_measure"),
    # Actions.
    bug("parity ignored by the action", ACTIONS, "IrrepsAction.act",
        r"if (\w+)\.p < 0:", "if False:", "symmetry/test_actions"),
    bug("Wigner matrix transposed", ACTIONS, "wigner_d",
        r"->nkm", "->nmk", "symmetry/test_actions"),
    bug("matrix tensors turned on one side by the transpose", ACTIONS, "MatrixAction.act",
        r"nij,ncjk,nlk->ncil", "nij,ncjk,nkl->ncil", "symmetry/test_actions"),
    bug("another Voigt order: xy before yz", ACTIONS, "",
        r"\(\[0, 5, 4, 5, 1, 3, 4, 3, 2\],((?:.|\n)*?)\(\[0, 4, 8, 5, 2, 1\],",
        r"([0, 3, 5, 3, 1, 4, 5, 4, 2],\1([0, 4, 8, 1, 5, 2],", "symmetry/test_actions"),
    bug("the antisymmetric part of a stress kept", ACTIONS, "MatrixAction.canonical",
        r"\((\w+) \+ \1\.mT\) / 2 if self\.symmetric else \1", r"\1", "symmetry/test_actions"),
    # Voxels.
    bug("grid: centre at N/2", GRIDS, "resample",
        r"(arange\(.*\)) - \((\w+) - 1\) / 2", r"\1 - \2 / 2", "symmetry/test_grids"),
    bug("grid: rotations of a plan read from the device once more", GRIDS, "GridAction.trusted",
        r"if here else .*\)\n", "if True else False)\n", "symmetry/test_grids"),
    bug("grid: turned by the inverse", GRIDS, "_sources",
        r"(\w+)\.round\(\)\.long\(\)", r"\1.round().long().mT", "symmetry/test_grids"),
    bug("grid: places off the edge take the edge's values", GRIDS, "_taps",
        r"torch\.where\((.+), (\w+), 0\.0\)", r"(\2 * 1.0)", "symmetry/test_grids"),
)  # fmt: skip
