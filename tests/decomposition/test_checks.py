"""What a batch must be: fields, shapes, dtypes, finite where they are real, and one plain label a sample."""

import numpy as np
import pytest
import torch

from equiscope import measure
from equiscope.decomposition.batches import DenseBatch
from equiscope.decomposition.checks import HEADROOM, check_batch, check_inputs, one_each
from equiscope.errors import DeclarationError, InputError, NonFiniteError
from equiscope.symmetry.declaration import Input, Output, declare

from .models import linear_error

B, N = 3, 4
MIX = torch.randn(3, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
MASK = torch.tensor([[True] * 4, [True] * 2 + [False] * 2, [True] + [False] * 3])


def batch(**changes):
    """Padded positions, vectors, a cell, labels of atoms and samples; None takes a field away."""
    numbers = torch.arange(B * N * 3, dtype=torch.float64).reshape(B, N, 3) / 7
    fields = {
        "pos": numbers, "v": numbers + 1, "cell": torch.eye(3).double().repeat(B, 1, 1), "centre": numbers[:, 0],
        "mask": MASK, "y": -numbers, "e": numbers[:, 0, 0], "kind": torch.tensor([0, 2, 1]), "charge": numbers[..., 0],
        "family": ["a", "b", "a"],
    } | changes  # fmt: skip
    return DenseBatch({k: v for k, v in fields.items() if v is not None})


def declaration(**changes):
    settings = {
        "inputs": {"pos": Input("1o", points=True), "v": "1o", "cell": Input("1o", points=False)},
        "outputs": {"forces": Output("1o", target="y"), "energy": Output("0e", target="e", per="sample")},
        "fixed": ["charge"], "mask": "mask", "center": "centre", "clusters": "family",
    }  # fmt: skip
    return declare(**(settings | changes))


def poke(name, value, at):
    values = batch().fields()[name].clone()
    values[at] = value
    return {name: values}


def test_a_good_batch_passes():
    check_batch(batch(), declaration())


def test_what_else_is_good():
    outputs = {"forces": Output("1o", target="y"), "energy": Output("0e", per="sample")}
    check_batch(batch(e=None), declaration(outputs=outputs))
    check_batch(batch(centre=torch.ones(B, 1, 3)), declaration())
    check_batch(batch(mask=None), declaration(mask=None))
    # Atoms without a neighbour: there are no vectors to turn.
    check_batch(batch(v=torch.ones(B, 0, 3).double()), declaration())


def test_labels_and_fixed_fields_are_not_needed_to_rotate():
    check_inputs(batch(y=None, e=None, charge=None, family=None), declaration())


BAD_INPUTS = {
    "missing": (dict(pos=None), "no tensor 'pos'; it has"),
    "integer": (dict(pos=torch.ones(B, N, 3).long()), "'pos' is declared to rotate but has dtype torch.int64"),
    "trailing shape": (dict(cell=torch.ones(B, 2).double()), r"'cell' .*trailing shape \(3,\), got \(3, 2\)"),
    "no axis of samples": (dict(v=torch.ones(3).double()), r"'v' .*trailing shape \(3,\), got \(3,\)"),
    "no entries": (dict(pos=torch.ones(B, 0, 3).double()), "'pos' has no entries"),
    "no mask": (dict(mask=None), "no field 'mask'; it has"),
    "a mask that is a list": (dict(mask=[True] * B), "'mask' of the batch must be a tensor"),
    "no centre": (dict(centre=None), "no field 'centre'; it has"),
    "mask of other atoms": (dict(mask=torch.ones(B, N + 1).bool()), r"\(3, 4, 3\) does not fit the mask .*\(3, 5\)"),
    "a centre an atom": (dict(centre=torch.ones(B, N, 3).double()), r"point a sample \(3, 3\), got \(3, 4, 3\)"),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
@pytest.mark.parametrize("check", [check_inputs, check_batch])
def test_fields_that_are_needed_to_rotate(check, name):
    changes, message = BAD_INPUTS[name]
    with pytest.raises(InputError, match=message):
        check(batch(**changes), declaration())


BAD_BATCHES = {
    "fixed field missing": (dict(charge=None), DeclarationError, "no tensor 'charge'"),
    "target missing": (dict(e=None), DeclarationError, "no field 'e'"),
    "target of strings": (dict(e=list("abc")), DeclarationError, "'e' of the batch must be a tensor"),
    "clusters missing": (dict(family=None), DeclarationError, "no field 'family'"),
    "undeclared": (dict(spin=torch.ones(B, 3)), DeclarationError, r"\['spin'\] .*inputs=\{'spin': '1o'\}.*fixed="),
    "undeclared complex": (dict(w=torch.ones(B, dtype=torch.complex64)), DeclarationError, r"\['w'\]"),
    "nan position": (poke("pos", torch.nan, (1, 1, 2)), NonFiniteError, r"'pos'.*1 of 3 samples.*\[1\]"),
    "infinite vector": (poke("v", -torch.inf, (0, 3, 0)), NonFiniteError, r"'v'.*\[0\]"),
    "nan cell": (poke("cell", torch.nan, (2, 0, 0)), NonFiniteError, r"'cell'.*\[2\]"),
    "nan centre": (poke("centre", torch.nan, (2, 1)), NonFiniteError, r"'centre'.*\[2\]"),
    "nan label of an atom": (poke("y", torch.nan, (1, 0, 0)), NonFiniteError, r"target 'y'.*\[1\]"),
    "infinite label of a sample": (poke("e", torch.inf, 2), NonFiniteError, r"target 'e'.*\[2\]"),
    "complex label": (dict(e=torch.ones(B, dtype=torch.complex64)), InputError, "'e' must be real"),
    "label of another width": (dict(y=torch.ones(B, N, 2).double()), DeclarationError, "target 'y' of output 'forces'"),
    "label of other atoms": (dict(y=torch.ones(B, N - 1, 3).double()), DeclarationError, r"mask 'mask' \(3, 4\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_BATCHES)
def test_fields_that_are_needed_to_measure(name):
    changes, error, message = BAD_BATCHES[name]
    with pytest.raises(error, match=message):
        check_batch(batch(**changes), declaration())


@pytest.mark.parametrize("field", ["pos", "v", "y"])
def test_padding_may_hold_anything(field):
    check_batch(batch(**poke(field, torch.nan, (2, 1, 0))), declaration())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_component_that_could_overflow_when_turned(dtype):
    largest = torch.finfo(dtype).max / HEADROOM
    fields = {k: v.to(dtype) for k, v in batch().fields().items() if v.is_floating_point()}
    fields["v"][0, 0, 0] = largest
    check_batch(batch(**fields), declaration())
    fields["v"][0, 0, 0] = -largest * 1.5
    with pytest.raises(NonFiniteError, match="'v' is NaN, infinite or too large to turn"):
        check_batch(batch(**fields), declaration())


def test_integer_labels_are_numbers():
    check_batch(batch(e=torch.tensor([1, 2, 3])), declaration())


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 3, 1]), "'kind' of output 'logits' holds class 3, but there are 3 classes, 0..2"),
        (torch.tensor([0, -1, 1]), "holds class -1"),
        (torch.tensor([0.0, 1, 2]), "integer classes 0..2 for cross-entropy, got torch.float32"),
        (torch.tensor([True, False, True]), "got torch.bool"),
    ],
)
def test_classes(labels, message):
    outputs = {"logits": Output("3x0e", target="kind", per="sample", loss="cross_entropy_logits")}
    declared = declaration(outputs=outputs, fixed=["charge", "y", "e"])
    check_batch(batch(), declared)
    with pytest.raises(InputError, match=message):
        check_batch(batch(kind=labels), declared)


def test_one_label_each():
    assert one_each(["water", 3, None], "m", 3) == ["water", 3, None]
    with pytest.raises(InputError, match=r"'m' must hold one value a sample \(3\), it holds 2"):
        one_each([1, 2], "m", 3)


@pytest.mark.parametrize("kind", [torch.tensor, np.array, np.int64, lambda v: torch.tensor([v])])
def test_scalars_in_arrays_are_the_numbers_they_hold(kind):
    # A tensor hashes by its identity: every sample would be a cluster of its own.
    found = one_each([kind(7), kind(8), kind(7)], "m", 3)
    assert found == [7, 8, 7]
    assert [type(v) for v in found] == [int] * 3
    assert len(set(found)) == 2


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], "one plain value a sample"),
        ({"a": 1}, "one plain value a sample"),
        (torch.tensor([1, 2]), r"one plain value a sample .*got \[1, 2\]"),
        (np.ones(2), "one plain value a sample"),
        (float("nan"), "'m' holds nan, which names nothing"),
        (torch.tensor(torch.nan), "'m' holds nan, which names nothing"),
    ],
)
def test_values_that_name_nothing(value, message):
    with pytest.raises(InputError, match=message):
        one_each([1, value, 2], "m", 3)


# What a field holds is declared; as many atoms as a vector has components must change nothing.


def water(atoms, samples=8, **more):
    """Positions, labels and a mask of ``atoms`` places, two of them real."""
    generator = torch.Generator().manual_seed(0)
    pos, y = torch.randn(2, samples, atoms, 3, generator=generator, dtype=torch.float64)
    return {"pos": pos, "y": y, "m": torch.arange(atoms).expand(samples, -1) < 2} | more


SQUARE = torch.randn(8, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
POSITIONS = Input("1o", points=True)


@pytest.mark.parametrize("atoms", [3, 4])
def test_a_square_tensor_of_each_sample_beside_as_many_atoms(atoms):
    batch = water(atoms, s=SQUARE)
    mixed = lambda b: {"f": b["pos"] @ b["s"].mT + b["pos"] @ MIX.T}  # noqa: E731
    found = measure(mixed, [batch], inputs={"pos": POSITIONS, "s": "cartesian"}, outputs={"f": "1o"}, mask="m",
                    fixed=["y"])  # fmt: skip
    assert found.equivariance == pytest.approx(float(linear_error(MIX, batch["pos"][:, :2]).mean()), rel=1e-9)
    summed = lambda b: {"f": b["pos"] @ MIX.T + b["s"].sum(1, keepdim=True)}  # noqa: E731
    for spec in (Input("1o", points=False), Input("1o", points=False, per="sample")):
        found = measure(summed, [batch], inputs={"pos": POSITIONS, "s": spec}, outputs={"f": "1o"}, mask="m",
                        fixed=["y"])  # fmt: skip
        assert found.equivariance == pytest.approx(float(linear_error(MIX, batch["pos"][:, :2]).mean()), rel=1e-9)


@pytest.mark.parametrize("atoms", [3, 4])
@pytest.mark.parametrize("target", ["s", "first"])
def test_a_stress_or_dipole_of_each_sample_beside_as_many_atoms(atoms, target):
    batch = water(atoms, s=SQUARE, first=SQUARE[:, 0])
    irreps, model = ("stress", lambda b: {"s": b["pos"][:, :2].mT @ b["pos"][:, :2]}) if target == "s" else (
        "1o", lambda b: {"s": b["pos"][:, :2].sum(1)})  # fmt: skip
    rest = {"inputs": {"pos": POSITIONS}, "mask": "m", "fixed": sorted({"y", "s", "first"} - {target})}
    with pytest.raises(DeclarationError, match=r"'s' of output.*per atom with mask 'm'|'first'.*declare per='sample'"):
        measure(model, [batch], outputs={"s": Output(irreps, target=target)}, **rest)
    said = measure(model, [batch], outputs={"s": Output(irreps, target=target, per="sample")}, **rest)
    assert said.percent < 1e-20


@pytest.mark.parametrize("atoms", [3, 4])
def test_padding_of_what_is_declared_per_atom(atoms):
    batch = water(atoms, v=torch.full((8, atoms, 3), torch.nan).double())
    batch["v"][:, :2] = batch["y"][:, :2]
    model = lambda b: {"f": torch.where(b["m"][..., None], b["v"], 0.0)}  # noqa: E731
    call = dict(outputs={"f": "1o"}, mask="m", fixed=["y"])
    for spec in (Input("1o", points=False, per="atom"), Input("1o", points=False)):
        assert measure(model, [batch], inputs={"pos": POSITIONS, "v": spec}, **call).relative_equivariance < 1e-25
    with pytest.raises(NonFiniteError, match="input 'v' is NaN"):
        measure(model, [batch], inputs={"pos": POSITIONS, "v": Input("1o", points=False, per="sample")}, **call)
    wider = batch | {"v": torch.ones(8, 5, 3).double()}
    with pytest.raises(DeclarationError, match=r"'v' \(8, 5, 3\) does not fit the mask.*per='sample'"):
        measure(model, [wider], inputs={"pos": POSITIONS, "v": Input("1o", points=False, per="atom")}, **call)


POINTS = {"x": torch.randn(16, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)}
FLAT = {
    "positions": ({"x": "1o"}, POINTS),
    "vectors": ({"x": Input("1o", points=False)}, POINTS),
    "two kinds of vectors": ({"x": "1o", "v": "1o"}, POINTS | {"v": POINTS["x"]}),
    "features of degrees 0 and 1": ({"x": "1o", "h": "2x0e+1o"}, POINTS | {"h": torch.ones(16, 5).double()}),
    "positions beside channels": ({"x": POSITIONS, "h": Input("1o", points=False)},
                                  POINTS | {"h": torch.ones(16, 4, 3).double()}),
    "said to be of atoms": ({"x": Input("1o", per="atom")}, POINTS),
}  # fmt: skip


@pytest.mark.parametrize("name", FLAT)
def test_rows_that_may_be_atoms_or_samples_are_refused_with_the_remedy(name):
    inputs, batch = FLAT[name]
    model = lambda b: {"f": b["x"] @ MIX.T}  # noqa: E731
    with pytest.raises(DeclarationError, match=r"no axis for atoms, shape \(16, .*per='sample'.*batch='batch'"):
        measure(model, [batch], inputs=inputs, outputs={"f": "1o"})


def test_one_point_a_sample_is_said_to_be_one():
    model = lambda b: {"f": b["x"] @ MIX.T}  # noqa: E731
    truth = float(linear_error(MIX, POINTS["x"]).mean())
    for settings in (
        {"inputs": {"x": Input("1o", per="sample")}, "outputs": {"f": "1o"}},
        {"inputs": {"x": "1o"}, "outputs": {"f": Output("1o", per="sample")}},
        {"inputs": {"x": "1o"}, "outputs": {"f": "1o"}, "per": {"x": "sample"}},
    ):
        assert measure(model, [POINTS], **settings).equivariance == pytest.approx(truth, rel=1e-9)
    with_axis = {"x": POINTS["x"][:, None]}
    found = measure(model, [with_axis], inputs={"x": "1o"}, outputs={"f": "1o"})
    assert found.equivariance == pytest.approx(truth, rel=1e-9)


def test_what_is_no_plain_tensor():
    model = lambda b: {"f": b["pos"]}  # noqa: E731
    call = dict(inputs={"pos": "1o"}, outputs={"f": "1o"})
    pos = water(4)["pos"]
    nested = lambda values: torch.nested.nested_tensor(list(values), layout=torch.jagged)  # noqa: E731
    for bad, message in (
        (pos.to_sparse(), "input 'pos' must be a dense tensor.*sparse_coo"),
        (pos.to("meta"), "'pos' of the batch is on the meta device"),
        (pos.float().to(torch.float8_e4m3fn), "input 'pos' has dtype torch.float8"),
        (nested(pos), "'pos' of the batch is a nested tensor.*batch='batch'"),
    ):
        with pytest.raises(InputError, match=message):
            measure(model, [{"pos": bad}], **call)
    for answer, message in (
        (lambda b: {"f": b["pos"].to("meta")}, "output 'f' must be a dense tensor.*meta"),
        (lambda b: {"f": b["pos"].to_sparse()}, "output 'f' must be a dense tensor.*sparse"),
        (lambda b: {"f": nested(b["pos"])}, "output 'f' must be a dense tensor.*nested"),
    ):
        with pytest.raises(InputError, match=message):
            measure(answer, [{"pos": pos}], **call)


def test_whole_numbers_of_a_mask():
    batch = water(4)
    model = lambda b: {"f": b["pos"] @ MIX.T}  # noqa: E731
    call = dict(inputs={"pos": "1o"}, outputs={"f": "1o"}, mask="m", fixed=["y"])
    truth = float(linear_error(MIX, batch["pos"][:, :2]).mean())
    for dtype in (torch.bool, torch.int64, torch.uint8):
        found = measure(model, [batch | {"m": batch["m"].to(dtype)}], **call)
        assert found.equivariance == pytest.approx(truth, rel=1e-9)
    for bad in (batch["m"] * 2, batch["m"].float(), -batch["m"].long()):
        with pytest.raises(InputError, match="mask 'm' must be boolean"):
            measure(model, [batch | {"m": bad}], **call)
