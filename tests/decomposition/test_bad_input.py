"""Bad batches, bad answers and bad labels: each a typed error that names its field; never a number."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import equiscope as eq
from equiscope.errors import DeclarationError, InputError, NonFiniteError, RandomModelError

from .models import Tanh, random_batch

SHORT = dict(inputs={"pos": "1o"}, outputs={"forces": "1o"}, target="y")
B, N = 6, 4


def batch(**changes):
    return random_batch(B, N) | changes


def poked(name, value, at=(2, 1, 0)):
    values = batch()[name].clone()
    values[at] = value
    return values


def mask(*shape, dtype=torch.bool):
    return torch.ones(*shape or (B, N), dtype=dtype)


def one_empty():
    real = mask()
    real[3] = False
    return real


class Answers(nn.Module):
    """Answers with whatever a function makes of the batch and the number of the call, counted from 0."""

    def __init__(self, function):
        super().__init__()
        self.function, self.calls = function, 0

    def forward(self, b):
        self.calls += 1
        return self.function(b, self.calls - 1)


def answers(function):
    return {"model": lambda: Answers(function)}


def after(count, late, early=lambda x: x):
    """Outputs "forces" that change their nature at call ``count``."""
    return answers(lambda b, n: {"forces": (late if n >= count else early)(b["pos"])})


class Dropped(nn.Module):
    def forward(self, b):
        return {"forces": nn.functional.dropout(b["pos"], 0.3, training=True)}


def classes(target, **more):
    outputs = {"logits": eq.Output("5x0e", target="c", per="sample", loss="cross_entropy_logits")}
    return {
        "batch": batch(c=target) | more,
        "outputs": outputs, "target": None, "fixed": ["y"], "cosets": 4,
        **answers(lambda b, n: {"logits": b["pos"].sum(1) @ torch.ones(3, 5).double()}),
    }  # fmt: skip


NAN, INF = math.nan, math.inf

CASES = {
    # NaN, infinity, overflow.
    "nan position": (dict(batch=batch(pos=poked("pos", NAN))), NonFiniteError, r"'pos'.*\[2\]"),
    "infinite position": (dict(batch=batch(pos=poked("pos", INF))), NonFiniteError, "'pos'"),
    "minus infinite target": (dict(batch=batch(y=poked("y", -INF))), NonFiniteError, "target 'y'"),
    "nan target": (dict(batch=batch(y=poked("y", NAN))), NonFiniteError, r"target 'y'.*\[2\]"),
    "nan vector input": (
        dict(batch=batch(v=poked("pos", NAN)), inputs={"pos": eq.Input("1o", points=True), "v": "1o"}),
        NonFiniteError, "'v'"),
    "nan cell": (
        dict(batch=batch(cell=torch.full((B, 3, 3), NAN).double()),
             inputs={"pos": eq.Input("1o", points=True), "cell": eq.Input("1o", points=False)}),
        NonFiniteError, "'cell'"),
    "nan centre": (dict(batch=batch(c=torch.full((B, 3), NAN).double()), center="c"), NonFiniteError, "'c'"),
    "nan prediction": (after(0, lambda x: x * NAN), NonFiniteError, "prediction 'forces'"),
    "nan prediction at one rotation": (after(9, lambda x: x * NAN), NonFiniteError, "prediction 'forces'"),
    "nan prediction of one sample": (
        answers(lambda b, n: {"forces": torch.where(torch.arange(B)[:, None, None] == 4, NAN, b["pos"])}),
        NonFiniteError, r"ids \[4\]"),
    "infinite prediction": (after(0, lambda x: x / 0), NonFiniteError, "prediction 'forces'"),
    "prediction too large to square": (after(0, lambda x: x * 1e200), NonFiniteError, "too large to square"),
    "target too large to square": (dict(batch=batch(y=batch()["y"] * 1e200)), NonFiniteError, "loss of 'forces'"),
    "position too large to turn": (dict(batch=batch(pos=poked("pos", 1.7e308))), NonFiniteError, "'pos'.*too large"),
    "float32 position too large to turn": (
        dict(batch={k: v.float() for k, v in batch(pos=poked("pos", 3.3e38)).items()},
             model=lambda: Tanh(dtype=torch.float32)), NonFiniteError, "'pos'.*too large"),
    "nan from the user's loss": (
        dict(loss=lambda p, t: (p - t).square().mean((1, 2)) * NAN, cosets=4), NonFiniteError, "loss of 'forces'"),
    # Shapes and types of inputs.
    "two components": (dict(batch=batch(pos=torch.ones(B, N, 2).double())), DeclarationError, r"'pos'.*\(3,\)"),
    "one axis of as many entries as samples": (
        dict(batch=dict(pos=torch.ones(3).double(), y=torch.ones(3, 3).double())), DeclarationError, "'pos'"),
    "zero atoms": (dict(batch=dict(pos=torch.ones(B, 0, 3), y=torch.ones(B, 0, 3))), InputError, "'pos'.*no entries"),
    "zero samples": (dict(batch=dict(pos=torch.ones(0, N, 3), y=torch.ones(0, N, 3))), InputError, "empty batch"),
    "integer positions": (dict(batch=batch(pos=torch.ones(B, N, 3).long())), DeclarationError, "'pos'.*int64"),
    "boolean positions": (dict(batch=batch(pos=torch.ones(B, N, 3).bool())), DeclarationError, "'pos'.*bool"),
    "complex positions": (
        dict(batch=batch(pos=batch()["pos"].to(torch.complex128))), DeclarationError, "'pos'.*complex128"),
    "no positions": (dict(batch={"y": batch()["y"]}), DeclarationError, "no tensor 'pos'"),
    "positions are None": (dict(batch=batch(pos=None)), DeclarationError, "no tensor 'pos'"),
    "undeclared numpy field": (dict(batch=batch(q=np.ones((B, 3)))), DeclarationError, "'q'"),
    "undeclared nested field": (dict(batch=batch(extra={"v": torch.ones(B, 3)})), InputError, "'extra'"),
    "undeclared tensors in a list": (dict(batch=batch(extra=[torch.ones(3)] * B)), InputError, "'extra'"),
    "undeclared complex field": (
        dict(batch=batch(q=torch.ones(B, dtype=torch.complex64))), DeclarationError, r"\['q'\]"),
    "fields of different length": (dict(batch=batch(z=torch.ones(B - 1).long())), InputError, "differ in length"),
    "cell of the wrong shape": (
        dict(batch=batch(cell=torch.ones(B, 9).double()), inputs={"pos": eq.Input("1o", points=True),
             "cell": eq.Input("cartesian")}), DeclarationError, "'cell'"),
    "centre of the wrong shape": (dict(batch=batch(c=torch.ones(B, N, 3).double()), center="c"), InputError, "'c'"),
    "centre missing": (dict(center="com"), DeclarationError, "'com'"),
    "centre a list": (dict(batch=batch(c=[0] * B), center="c"), DeclarationError, "'c'.*tensor"),
    # Masks.
    "sample masked away": (dict(batch=batch(m=one_empty()), mask="m"), InputError, r"\[3\].*zero atoms"),
    "all masked away": (dict(batch=batch(m=~mask()), mask="m"), InputError, "zero atoms"),
    "mask of other whole numbers": (dict(batch=batch(m=2 * mask().long()), mask="m"), InputError, "'m'.*boolean"),
    "mask with a third axis": (dict(batch=batch(m=mask(B, N, 1)), mask="m"), InputError, "'m'.*boolean"),
    "mask of samples only": (dict(batch=batch(m=mask(B)), mask="m"), InputError, "'m'.*boolean"),
    "mask of more atoms": (dict(batch=batch(m=mask(B, N + 2)), mask="m"), DeclarationError, "'pos'.*'m'"),
    "mask of fewer atoms": (dict(batch=batch(m=mask(B, N - 1)), mask="m"), DeclarationError, "'pos'.*'m'"),
    "mask a list": (dict(batch=batch(m=[True] * B), mask="m"), DeclarationError, "'m'.*tensor"),
    "mask missing": (dict(mask="m"), DeclarationError, "'m'"),
    "masked output of another number of atoms": (
        dict(batch=batch(m=mask()), mask="m", **after(0, lambda x: x[:, 1:])), DeclarationError, "'forces'.*'m'"),
    # Targets.
    "target missing": (dict(target="f"), DeclarationError, "'f'"),
    "target a list": (dict(batch=batch(y=[0.0] * B)), DeclarationError, "'y'.*tensor"),
    "target with another trailing shape": (dict(batch=batch(y=torch.ones(B, N, 2).double())), DeclarationError, "'y'"),
    "one target a sample for one output an atom": (
        dict(batch=batch(y=torch.ones(B, 3).double())), InputError, "target of 'forces'"),
    "target of more atoms": (dict(batch=batch(y=torch.ones(B, 9, 3).double())), InputError, "target of 'forces'"),
    "complex target": (dict(batch=batch(y=batch()["y"] + 0j)), InputError, "'y'.*complex128"),
    "integer target of vectors in the wrong shape": (
        dict(batch=batch(y=torch.ones(B, N).long())), InputError, "target 'y'"),
    "energies against one label a graph": (
        dict(batch=batch(e=torch.ones(B).double()), outputs={"e": eq.Output("0e", target="e", per="sample")},
             target=None, fixed=["y"], **answers(lambda b, n: {"e": b["pos"].square().sum(-1)})),
        InputError, "target of 'e'"),
    "class beyond the last": (classes(torch.full((B,), 5)), InputError, "'c'.*5"),
    "negative class": (classes(torch.full((B,), -1)), InputError, "'c'.*-1"),
    "soft labels for classes": (classes(torch.full((B, 5), 0.2).double()), InputError, "'c'.*integer"),
    # Outputs.
    "no such key": (answers(lambda b, n: {"force": b["pos"]}), DeclarationError, r"'forces'; it has \['force'\]"),
    "nothing returned": (answers(lambda b, n: None), DeclarationError, "returned None"),
    "a tuple returned": (answers(lambda b, n: (b["pos"], b["pos"])), DeclarationError, "tuple.*'forces'"),
    "a scalar returned": (answers(lambda b, n: {"forces": b["pos"].sum()}), DeclarationError, "'forces'"),
    "one vector for the whole batch": (answers(lambda b, n: {"forces": b["pos"][0, 0]}), DeclarationError, "'forces'"),
    "no batch axis": (answers(lambda b, n: {"forces": b["pos"].flatten(0, 1)}), DeclarationError, "'forces'.*6 rows"),
    "atoms first": (answers(lambda b, n: {"forces": b["pos"].mT}), DeclarationError, "'forces'"),
    "another number of atoms": (after(0, lambda x: x[:, 1:]), InputError, "target of 'forces'"),
    "integer output": (after(0, lambda x: x.long()), InputError, "'forces'.*int64"),
    "complex output": (after(0, lambda x: x + 0j), InputError, "'forces'.*complex"),
    "key gone at the fifth call": (
        answers(lambda b, n: {"forces" if n < 4 else "f": b["pos"]}), DeclarationError, "'forces'"),
    "shape changed between repeats": (
        dict(target=None, fixed=["y"], **after(1, lambda x: x[:, 2:])), InputError, "'forces'.*shape"),
    "shape changed between rotations": (
        dict(target=None, fixed=["y"], **after(9, lambda x: x[:, 2:])), InputError, "'forces'.*shape"),
    "shape broadcasts between rotations": (
        dict(target=None, fixed=["y"], **after(9, lambda x: x[:, :1])), InputError, "'forces'.*shape"),
    "one tensor for two outputs": (
        dict(outputs={"a": eq.Output("1o", target="y"), "b": "1o"}, target=None, **answers(lambda b, n: b["pos"])),
        DeclarationError, "one tensor"),
    # Randomness.
    "functional dropout": (dict(model=Dropped), RandomModelError, "'forces' changes by"),
    "sampled noise": (after(0, lambda x: x + torch.randn_like(x)), RandomModelError, "'forces'"),
    "a counter in the answer": (answers(lambda b, n: {"forces": b["pos"] + n}), RandomModelError, "'forces'"),
    "random although no floor is asked for": (dict(model=Dropped, noise_samples=0), RandomModelError, "'forces'"),
    # Ids and clusters.
    "negative ids": (dict(batch=batch(id=torch.arange(B) - 1), ids="id"), InputError, "ids must be.*-1"),
    "boolean ids": (dict(batch=batch(id=torch.ones(B).bool()), ids="id"), InputError, "ids must be.*True"),
    "float ids": (dict(batch=batch(id=torch.arange(B).double()), ids="id"), InputError, r"ids must be.*0\.0"),
    "string ids": (dict(batch=batch(id=list("abcdef")), ids="id"), InputError, "ids must be.*'a'"),
    "ids with a second axis": (dict(batch=batch(id=torch.arange(B)[:, None]), ids="id"), InputError, "'id'"),
    "ids too large": (dict(batch=batch(id=[2**63 + i for i in range(B)]), ids="id"), InputError, "ids must be"),
    "ids missing": (dict(ids="id"), DeclarationError, "'id'"),
    "ids None": (dict(batch=batch(id=None), ids="id"), InputError, "'id'"),
    "clusters missing": (dict(clusters="molecule"), DeclarationError, "'molecule'"),
    "clusters with a second axis": (dict(batch=batch(c=torch.ones(B, 2).long()), clusters="c"), InputError, "'c'"),
    "nan clusters": (dict(batch=batch(c=torch.full((B,), NAN)), clusters="c"), InputError, "'c'.*nan"),
    "one word for all clusters": (dict(batch=batch(c="abcdef"), clusters="c"), InputError, "'c'"),
    "unhashable clusters": (dict(batch=batch(c=[[1]] * B), clusters="c"), InputError, "'c'"),
    "clusters a number": (dict(batch=batch(c=3), clusters="c"), InputError, "'c'"),
    # Batches.
    "no batches": (dict(batches=[]), InputError, "empty"),
    "used-up generator": (dict(batches=iter(())), InputError, "empty.*generator"),
    "one batch for an iterable": (dict(batches=batch()), InputError, r"\[batch\]"),
    "batches None": (dict(batches=None), InputError, "NoneType"),
    "a tensor for batches": (dict(batches=torch.ones(2, 3, 3)), InputError, "got a tensor"),
    "a tuple for a batch": (dict(batches=[(batch()["pos"], batch()["y"])]), InputError, "tuple of 2.*fields="),
    "a string for batches": (dict(batches="train"), InputError, "type str"),
    "None among batches": (dict(batches=[batch(), None]), InputError, "type NoneType"),
    "second batch without its target": (dict(batches=[batch(), {"pos": batch()["pos"]}]), DeclarationError, "'y'"),
    "second batch in another dtype": (
        dict(batches=[batch(), {k: v.float() for k, v in batch().items()}]), InputError, "'pos' is torch.float32"),
    "a batch without tensors": (dict(batches=[{"name": ["a"]}]), InputError, "at least one tensor"),
    "an empty dict": (dict(batches=[{}]), InputError, "at least one tensor"),
    # Losses.
    "a loss of one number": (
        dict(loss=lambda p, t: (p - t).square().mean(), cosets=4), InputError, "one value a sample"),
    "a loss of every component": (
        dict(loss=lambda p, t: (p - t).square(), cosets=4), InputError, "one value a sample"),
    "a loss that is no tensor": (dict(loss=lambda p, t: 1.0, cosets=4), InputError, "one value a sample"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:overflow")
def test_typed_error(name):
    arguments, error, message = CASES[name]
    arguments = SHORT | {k: v for k, v in arguments.items() if k not in ("model", "batch")}
    batches = arguments.pop("batches", None) if "batches" in arguments else [CASES[name][0].get("batch", batch())]
    model = CASES[name][0].get("model", Tanh)()
    with pytest.raises(error, match=message):
        eq.measure(model, batches, **arguments)


def test_there_are_enough_cases():
    assert len(CASES) >= 90
