"""Batches, calls and answers as people write them give the figure of the same model called with the whole batch."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import equiscope as eq
from equiscope.errors import DeclarationError, EquiscopeError, InputError, ModelError

from .models import Tanh, random_batch

BATCH = random_batch(12) | {"z": torch.arange(48).reshape(12, 4) % 3, "mask": torch.ones(12, 4, dtype=torch.long)}
ARGUMENTS = {"inputs": {"pos": "1o"}, "outputs": {"forces": "1o"}, "target": "y", "mask": "mask"}
RIGHT = eq.measure(Tanh(), [BATCH], **ARGUMENTS)


def same(result, right=RIGHT):
    assert result.percent == pytest.approx(right.percent, rel=1e-12)
    assert result.total == pytest.approx(right.total, rel=1e-12)


def _value(model, pos):
    return torch.tanh(pos @ model.a.T) @ model.b.T


class Positional(Tanh):
    def forward(self, pos, z, mask):
        assert z.shape == mask.shape == pos.shape[:2]
        return _value(self, pos)


class Single(Tanh):
    def forward(self, x):
        return _value(self, x)


class Defaults(Tanh):
    def forward(self, pos=None, mask=None, y=None):
        assert y is None, "labels are no input of a model"
        assert mask is not None
        return _value(self, pos)


class Keywords(Tanh):
    def forward(self, **fields):
        assert set(fields) == {"pos", "z", "mask"}
        return _value(self, fields["pos"])


class NamedBatch(Tanh):
    """The batch has a field that is called as the argument; the whole batch is meant all the same."""

    def forward(self, mask):
        return _value(self, mask["pos"])


@pytest.mark.parametrize("kind", [Positional, Single, Defaults, Keywords, NamedBatch])
def test_the_call_is_found_from_the_signature(kind):
    same(eq.measure(kind(), [BATCH], **ARGUMENTS))
    bare = {k: v for k, v in BATCH.items() if k != "y"}
    settings = {k: v for k, v in ARGUMENTS.items() if k != "target"} | {"rotations": "T"}
    assert torch.equal(*(eq.Twirled(k(), **settings)(bare)["forces"] for k in (kind, Tanh)))


def test_a_sequential_and_a_function():
    same(eq.measure(lambda pos, z: _value(Tanh(), pos), [BATCH], **ARGUMENTS))
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    right = eq.measure(net, [BATCH], **ARGUMENTS, forward=lambda model, batch: model(batch["pos"]))
    same(eq.measure(net, [BATCH], **ARGUMENTS), right)


def test_gradient_forces_by_name():
    class Energy(nn.Module):
        def forward(self, pos, z):
            pos = pos.requires_grad_()
            energy = (pos[..., 0].square() * pos[..., 1]).sum()
            return -torch.autograd.grad(energy, pos)[0]

    assert eq.measure(Energy(), [BATCH], **ARGUMENTS).percent > 1


def test_metric_calls_alike():
    pytest.importorskip("torchmetrics")
    metric = eq.EquivarianceError(**ARGUMENTS)
    metric.update(Positional(), BATCH)
    same(metric.result())


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda positions, numbers: positions, r"forward=lambda model, batch: model\(batch\['pos'\], batch\['…'\]"),
        (lambda pos, cell: pos, r"model\(batch\['pos'\], batch\['…'\]"),
        (lambda box: box["cell"], r"forward=lambda model, batch: model\("),
    ],
)
def test_what_cannot_be_called_says_what_to_write(function, words):
    with pytest.raises(EquiscopeError, match=words):
        eq.measure(function, [BATCH], **ARGUMENTS)


def test_a_model_that_fails_keeps_its_own_error():
    def broken(batch):
        raise KeyError("charge")

    with pytest.raises(ModelError, match="KeyError: 'charge'"):
        eq.measure(broken, [BATCH], **ARGUMENTS)


def test_tuples_arrays_and_tensor_datasets():
    right = eq.measure(Tanh(), [random_batch(12)], inputs={"pos": "1o"}, outputs={"forces": "1o"}, target="y")
    names = {"inputs": {"pos": "1o"}, "outputs": {"forces": "1o"}, "target": "y"}
    plain = random_batch(12)
    for batch in ((plain["pos"], plain["y"]), [plain["pos"], plain["y"].numpy()]):
        same(eq.measure(Tanh(), [batch], **names, fields=("pos", "y")), right)
    same(eq.measure(Tanh(), [{k: v.numpy() for k, v in plain.items()}], **names), right)
    loader = DataLoader(TensorDataset(plain["pos"], plain["y"]), batch_size=12)
    same(eq.measure(Tanh(), loader, **names, fields=("pos", "y")), right)
    same(eq.measure(Single(), loader, **names, fields=("pos", "y")), right)
    assert eq.measure(Tanh(), loader, **names, fields=("pos", "y"), rtol=0.5).samples == 12
    with pytest.raises(InputError, match=r"tuple of 2 \(\(12, 4, 3\), \(12, 4, 3\)\).*fields=\('pos', 'forces'\)"):
        eq.measure(Tanh(), [(plain["pos"], plain["y"])], **names)
    with pytest.raises(InputError, match="names 3: name each"):
        eq.measure(Tanh(), [(plain["pos"], plain["y"])], **names, fields=("pos", "y", "z"))
    with pytest.raises(InputError, match=r"DataLoader\(dataset"):
        eq.measure(Tanh(), TensorDataset(plain["pos"], plain["y"]), **names, fields=("pos", "y"))
    with pytest.raises(DeclarationError, match=r"fields=\('pos',\)"):
        eq.measure(Tanh(), [plain["pos"]], **names, fields="pos")


@dataclass
class Data:
    forces: Any
    hidden: tuple


class Named(NamedTuple):
    energy: Any
    forces: Any


class Output(OrderedDict):
    def __getattr__(self, key):
        return self[key]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda f: (f,), lambda f: (f.sum((1, 2)), f), lambda f: [f, f.sum((1, 2))], lambda f: {"head": {"forces": f}},
        lambda f: Data(f, (f,)), lambda f: Named(f.sum((1, 2)), f), lambda f: Output(loss=None, forces=f),
        lambda f: {"out": Named(f.sum(), f)}, lambda f: f.detach().numpy(), lambda f: {"forces": np.array(f)},
    ],
)  # fmt: skip
def test_answers_are_found(wrap):
    same(eq.measure(Tanh(), [BATCH], **ARGUMENTS, forward=lambda m, b: wrap(m(b)["forces"])))


def test_a_tuple_in_the_order_of_the_outputs():
    batch = BATCH | {"e": torch.randn(12, dtype=torch.float64)}
    outputs = {"energy": eq.Output("0e", target="e", per="sample"), "forces": eq.Output("1o", target="y")}
    found = eq.measure(
        Tanh(), [batch], inputs={"pos": "1o"}, outputs=outputs, mask="mask",
        forward=lambda m, b: (b["pos"][..., 0].sum(1), m(b)["forces"]),
    )  # fmt: skip
    assert found.outputs["forces"].percent == pytest.approx(RIGHT.percent)
    assert found.outputs["energy"].relative_equivariance > 0.1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda f: (f, f), r"0: \(12, 4, 3\), 1: \(12, 4, 3\).*model\(batch\)\[0\]"),
        (lambda f: {"a": {"forces": f}, "b": {"forces": f}}, r"2 places.*model\(batch\)\['a'\]\['forces'\]"),
        (lambda f: {"force": f}, "did you mean 'force'"),
        (lambda f: None, "returned None"),
        (lambda f: (), "tensors none"),
    ],
)
def test_answers_that_are_not_found_say_what_to_write(answer, words):
    with pytest.raises(DeclarationError, match=words):
        eq.measure(Tanh(), [BATCH], **ARGUMENTS, forward=lambda m, b: answer(m(b)["forces"]))


@pytest.mark.parametrize(
    ("given", "name"),
    [(nn.MSELoss(), "mse"), (nn.functional.l1_loss, "l1"), (nn.HuberLoss(), "huber"), (nn.SmoothL1Loss(), "huber")],
)
def test_losses_of_torch_are_those_named(given, name):
    same(eq.measure(Tanh(), [BATCH], **ARGUMENTS, loss=given), eq.measure(Tanh(), [BATCH], **ARGUMENTS, loss=name))
    with pytest.raises(InputError, match="settings of its own"):
        eq.measure(Tanh(), [BATCH], **ARGUMENTS, loss=nn.HuberLoss(delta=0.1))


def test_cosets_are_chosen_by_the_loss_and_the_set():
    assert RIGHT.cosets == 2
    assert eq.measure(Tanh(), [BATCH], **ARGUMENTS, loss="l2_norm").cosets == 4
    assert eq.measure(Tanh(), [BATCH], **ARGUMENTS, rotations="haar").passes == 10
    assert eq.measure(Tanh(), [BATCH], **ARGUMENTS, rotations="haar", cosets=3).passes == 3


@pytest.mark.parametrize("kind", [">f8", "<f8", ">f4", np.longdouble, "reversed"])
def test_arrays_of_any_order_of_bytes_and_width(kind):
    labels = np.random.default_rng(0).normal(size=(6, 4, 3))
    given = labels[::-1].copy()[::-1] if kind == "reversed" else labels.astype(kind)
    batch = {"pos": torch.ones(6, 4, 3).double(), "y": given}
    result = eq.measure(lambda b: b["pos"], [batch], inputs={"pos": "1o"}, outputs={"f": "1o"}, target="y")
    assert result.loss_as_given == pytest.approx(((labels - 1) ** 2).mean(), rel=1e-6)
