"""Declarations: short and full form agree, positions are found, and what is unclear is refused."""

import pytest

from equiscope.errors import DeclarationError, InputError
from equiscope.symmetry.declaration import Declaration, Input, Output, declare


def test_short_form_is_sugar_for_the_full_one():
    short = declare({"pos": "1o"}, {"forces": "1o"}, "forces", "mse", mask="mask")
    full = Declaration({"pos": Input("1o")}, {"forces": Output("1o", target="forces", loss="mse", mask="mask")})
    assert short.outputs == full.outputs
    assert short.mask == full.mask == "mask"
    assert short.points == full.points == ("pos",)


def test_output_mask_speaks_for_the_declaration_and_the_reverse():
    assert Declaration({"pos": "1o"}, {"f": Output("1o", mask="m")}).mask == "m"
    both = Declaration({"pos": "1o"}, {"f": Output("1o"), "e": Output("0e", per="sample")}, mask="m")
    assert both.outputs["f"].mask == "m"
    assert both.outputs["e"].mask is None


def test_points_must_be_said_when_a_centre_needs_them():
    two = {"pos": "1o", "velocity": "1o"}
    assert Declaration(two, {"f": "1o"}).points == ()
    with pytest.raises(DeclarationError, match="points=True"):
        Declaration(two, {"f": "1o"}, center="mean")
    said = Declaration({"pos": Input("1o", points=True), "velocity": "1o"}, {"f": "1o"}, center="mean")
    assert said.points == ("pos",)


def test_known_fields_are_all_that_was_spoken_of():
    d = Declaration(
        {"pos": "1o"}, {"f": Output("1o", target="y", mask="m")}, fixed=["q"], clusters="c", ids="i", center="com"
    )
    assert d.known_fields == {"pos", "y", "m", "q", "c", "i", "com"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(inputs={}, outputs={"f": "1o"}), "no input"),
        (dict(inputs={"p": "1o"}, outputs={}), "no output"),
        (dict(inputs={"p": "1o"}, outputs={"f": "1o"}, group="SE3"), "group"),
        (dict(inputs={"p": "1o"}, outputs={"f": "1o"}, weighting="atoms"), "weighting"),
    ],
)
def test_bad_declarations_are_refused(arguments, message):
    with pytest.raises(DeclarationError, match=message):
        Declaration(**arguments)


def test_bad_outputs_are_refused():
    with pytest.raises(DeclarationError, match="per must be"):
        Output("1o", per="molecule")
    with pytest.raises(DeclarationError, match="weight"):
        Output("1o", weight=float("nan"))
    with pytest.raises(InputError, match="irreps"):
        Declaration({"pos": "vector"}, {"f": "1o"})


def test_one_target_cannot_speak_for_two_outputs():
    with pytest.raises(DeclarationError, match="ambiguous"):
        declare({"p": "1o"}, {"f": "1o", "e": "0e"}, "y")
    with pytest.raises(DeclarationError, match="contradicts"):
        declare({"p": "1o"}, {"f": Output("1o", target="a")}, "b")


def test_what_has_rows_for_atoms_is_declared():
    d = Declaration(
        {"pos": Input("1o", points=True), "v": "1o", "cell": Input("1o", per="sample"), "u": Input("1o", per="atom"),
         "w": "1o"},
        {"f": Output("1o", target="y"), "e": Output("0e", target="e", per="sample")},
        mask="m", ids="i", per={"z": "atom", "box": "sample", "w": "sample"},
    )  # fmt: skip
    assert [d.rows_of_input(n) for n in d.inputs] == ["points", "any", "sample", "atom", "sample"]
    rows = {"pos": "atom", "v": None, "cell": "sample", "u": "atom", "w": "sample", "y": "atom", "e": "sample",
            "m": "atom", "i": "sample", "z": "atom", "box": "sample", "other": None}  # fmt: skip
    assert {name: d.rows_of_field(name) for name in rows} == rows
    assert "z" not in d.known_fields
    assert repr(Input("1o", points=False)) == "Input(irreps='1o', points=False)"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Input("1o", per="graph"), "per must be 'atom' or 'sample', got 'graph'"),
        (lambda: Input("1o", points="yes"), "points must be True, False or None"),
        (lambda: Output("1o", points=1.5), "points must be True, False or None"),
        (lambda: Output("0e", points=True), "declared '0e' holds no positions"),
        (lambda: Output("3x0e", points=True), "declared '3x0e' holds no positions"),
        (lambda: Output("cartesian", points=True), "'cartesian' holds no positions"),
        (lambda: declare({"x": "1o"}, {"f": "1o"}, per=["z"]), "per must be a dict"),
        (lambda: declare({"x": "1o"}, {"f": "1o"}, per={"z": "node"}), r"per\['z'\] must be 'atom' or 'sample'"),
        (lambda: declare({"x": Input("1o", per="atom")}, {"f": "1o"}, per={"x": "sample"}), "contradicts per='atom'"),
        (lambda: declare({"x": "1o"}, {"f": "1o"}, batch=3), "batch must be the name of a batch field"),
        (lambda: declare({"x": "1o"}, {"f": "1o"}, batch="x"), "batch='x' names the sample of each atom"),
    ],
)
def test_unclear_rows_and_points_are_refused(make, message):
    with pytest.raises(DeclarationError, match=message):
        make()
