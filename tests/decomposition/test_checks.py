"""What a batch must be: fields, shapes, dtypes, finite where they are real, and one plain label a sample."""

import numpy as np
import pytest
import torch

from equiscope.decomposition.batches import DenseBatch
from equiscope.decomposition.checks import HEADROOM, check_batch, check_inputs, one_each
from equiscope.errors import DeclarationError, InputError, NonFiniteError
from equiscope.symmetry.declaration import Input, Output, declare

B, N = 3, 4
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
        "inputs": {"pos": Input("1o", points=True), "v": "1o", "cell": "1o"},
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
