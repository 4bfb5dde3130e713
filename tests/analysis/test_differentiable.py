import pytest
import torch
from torch import nn

import equiscope as eq
from equiscope.analysis.parts import Parts
from equiscope.decomposition.calling import Call
from equiscope.errors import InputError, UnsuitedModelError
from tests.analysis.networks import DECLARED, batches, network


def product(net, data=None, **settings):
    parts = Parts(net, batches() if data is None else data, DECLARED, **settings)
    return parts.product("equivariance", torch.ones(parts.size, dtype=torch.float64))


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.Sigmoid()

    def forward(self, x):
        y = self.gate(x)
        y += x
        return y


class Rounded(nn.Module):
    def forward(self, x):
        return x + (100 * x.detach()).round()


class NoSecondDerivative(nn.Module):
    """Its backward is opaque to torch, as in many fused kernels."""

    def forward(self, x):
        return Once.apply(x)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return 2 * ctx.saved_tensors[0] * g


def test_frozen_parameters_are_named():
    net = network("GELU")
    net.first.weight.requires_grad_(False)
    with pytest.raises(InputError, match=r"'first\.weight'.*requires_grad_\(True\)"):
        product(net)


def test_half_precision_is_named():
    net = network("GELU")
    net.last.to(torch.bfloat16)
    with pytest.raises(InputError, match=r"'last\.weight' is torch\.bfloat16.*float\(\)"):
        product(net)


def test_an_operation_in_place_is_found():
    net = network("GELU")
    net.middle = InPlace()
    with pytest.raises(InputError, match=r"in place.*'middle\.gate'.*x = x \+ y"):
        product(net)


def test_a_layer_without_gradient_is_found_by_its_parameters():
    net = network("GELU")
    net.middle = Rounded()
    product(net)  # the detached branch is an extra: everything still has a gradient

    class Cut(nn.Module):
        def forward(self, x):
            return x.detach()

    net.middle = Cut()
    with pytest.raises(InputError, match=r"first\.weight.*no gradient reaches"):
        product(net)


@pytest.mark.parametrize("memory", ["pass", "batch"])
def test_a_layer_without_second_derivative_is_found(memory):
    net = network("GELU")
    net.middle = NoSecondDerivative()
    with pytest.raises(InputError, match=r"'middle'.*second derivative"):
        product(net, memory=memory)


def test_an_answer_without_a_graph_is_explained():
    net = network("GELU")
    with pytest.raises(InputError, match=r"create_graph=True"):
        Parts(net, batches(), DECLARED, forward=lambda m, b: m(b)["forces"].detach())


class Potential(nn.Module):
    """Energy and forces −dE/dx of each sample, as most potentials make them: without their graph in eval mode."""

    def __init__(self, dropped=True):
        super().__init__()
        self.first, self.last, self.dropped = nn.Linear(3, 6), nn.Linear(6, 1), dropped
        self.double()

    def forward(self, batch):
        x = batch["pos"].detach().requires_grad_()
        energy = self.last(torch.tanh(self.first(x))).sum((1, 2))
        (slope,) = torch.autograd.grad(energy.sum(), x, create_graph=not self.dropped, retain_graph=True)
        return {"energy": energy, "forces": -slope}


BOTH = eq.Declaration({"pos": "1o"}, {"energy": "0e", "forces": "1o"}, fixed=["y"])


@pytest.mark.parametrize("declared", [DECLARED, BOTH])
@pytest.mark.parametrize("memory", ["pass", "all"])
def test_forces_of_an_energy_are_asked_for_with_their_graph(declared, memory):
    """The same products as of a model that keeps the graph itself, also where another output has one anyway."""
    found = {}
    for dropped in (True, False):
        torch.manual_seed(0)
        parts = Parts(Potential(dropped), batches(), declared, memory=memory)
        vector = torch.ones(parts.size, dtype=torch.float64)
        found[dropped] = [parts.gradient(("equivariance",))["equivariance"], parts.product("equivariance", vector)]
    torch.testing.assert_close(found[True], found[False], rtol=1e-12, atol=1e-14)
    assert all(one.norm() > 0 for one in found[True])
    model = Potential()
    assert not model(batches()[0])["forces"].requires_grad  # left as it was


def test_models_that_keep_their_graphs_are_called_as_they_are():
    for model in (network("GELU"), Potential(dropped=False)):
        assert isinstance(Parts(model, batches(), DECLARED)._forward, Call)


def test_an_output_without_a_graph_beside_one_that_has_it():
    class Cut(Potential):
        def forward(self, batch):
            found = super().forward(batch)
            return {**found, "forces": found["forces"].detach()}

    with pytest.raises(UnsuitedModelError, match="no gradient reaches"):
        Parts(Cut(), batches(), BOTH)

    class Constant(Potential):
        def forward(self, batch):
            return {**super().forward(batch), "forces": 0 * batch["pos"]}

    assert Parts(Constant(), batches(), BOTH).values["equivariance"] > 0


def test_something_that_is_no_module():
    with pytest.raises(InputError, match="function"):
        Parts(lambda b: b["pos"], batches(), DECLARED)
    with pytest.raises(InputError, match="no parameters"):
        Parts(nn.Identity(), batches(), DECLARED, forward=lambda m, b: b["pos"])
