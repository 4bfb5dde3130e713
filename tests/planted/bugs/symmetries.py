"""Other symmetries than rotations: moves, orders, lattices, crystals, nested parts, images."""

from tests.planted.engine import bug

D = "decomposition"
MOVES, ORDERS, LATTICES = f"{D}/moves.py", f"{D}/relabelling.py", f"{D}/lattices.py"
CRYSTALS, NESTED, PLANAR, GRIDS = f"{D}/crystals.py", f"{D}/nested.py", "symmetry/planar.py", "symmetry/grids.py"

BUGS = (
    bug("shifts uniform in the radius, not in the ball", MOVES, "Translation.shifts",
        r"\*\* \(1 / 3\)", "** 1.0", f"{D}/test_moves"),
    bug("the same shift for every sample", MOVES, "MoveKey.generators",
        r"\[self\.seed, int\(\w+\)\]", "[self.seed, 0]", f"{D}/test_moves"),
    bug("outputs of positions not shifted back", MOVES, "Translation.move",
        r"if spec\.points:", "if False:", f"{D}/test_moves"),
    bug("a mirror that turns by its normal once", MOVES, "Reflection.matrices",
        r"= 2\.0 \*", "= 1.0 *", f"{D}/test_moves"),
    bug("answers brought back in the order of the moves", MOVES, "twisted_by",
        r"reversed\((\w+)\)", r"\1", f"{D}/test_moves"),
    bug("rows of atoms not put back in order", ORDERS, "outputs_back",
        r"\[place\]", "", f"{D}/test_relabelling"),
    bug("padding shuffled with the atoms", ORDERS, "shuffled",
        r"real\.cpu\(\)\.numpy\(\)", "np.ones_like(real.cpu().numpy())", f"{D}/test_relabelling"),
    bug("numbers of atoms not renamed", ORDERS, "renumbered",
        r"torch\.where\(old >= 0, .*, old\)", "old", f"{D}/test_relabelling"),
    bug("edges moved without their lengths", ORDERS, "EdgeOrder._ragged",
        r"\*\*\{name: fields\[name\]\[order\] for name in own\}", "", f"{D}/test_relabelling"),
    bug("lattices of determinant -1 and 0 too", LATTICES, "unimodular",
        r"\.round\(\) == 1", ".round() >= -1", f"{D}/test_lattices"),
    bug("a total energy of a supercell not divided", LATTICES, "Supercell.move",
        r"if k in self\.extensive else 1", "if False else 1", f"{D}/test_lattices"),
    bug("always the first copy of a supercell", LATTICES, "Supercell.move",
        r"int\(random\.integers\(count\)\)", "0", f"{D}/test_lattices"),
    bug("operations that are no isometries of a strained crystal", CRYSTALS, "_operations",
        r"left @ right", "turned", f"{D}/test_crystals"),
    bug("the lattice not chosen anew after a turn", CRYSTALS, "_operations",
        r"choices = .*", "choices = np.tile(np.eye(3), (len(matrices), 1, 1))", f"{D}/test_crystals"),
    bug("atoms not numbered as where they come", CRYSTALS, "SpaceGroup.move",
        r"where\[own\], images\[own\] = own\[one\.places\[number\]\], ", "images[own] = ", f"{D}/test_crystals"),
    bug("parts of a stair not told apart", NESTED, "StairParts.of",
        r"\.diff\(dim=-1\)", "[:, 1:]", f"{D}/test_nested"),
    bug("draws without replacement counted as with", NESTED, "Scheme.parts",
        r"1 - 1 / last\.size\(\w+, \w+\) if last\.whole else 1\.0", "1.0", f"{D}/test_nested"),
    bug("every cell of a stair drawn anew", NESTED, "Scheme._step",
        r"max\(0, cell - level\)", "cell", f"{D}/test_nested"),
    bug("the variance within cosets left out of the first part", NESTED, "StairParts.of",
        r"parts\[:, 0\] \+= .*", "pass", f"{D}/test_nested"),
    bug("images turned the other way", PLANAR, "about_z",
        r"\[cosine, -sine, zero, sine,", "[cosine, sine, zero, -sine,", "symmetry/test_planar"),
    bug("interpolation called a jump", f"{D}/jumps.py", "jumps",
        r" or interpolated:", ":", f"{D}/test_octahedral"),
)  # fmt: skip
