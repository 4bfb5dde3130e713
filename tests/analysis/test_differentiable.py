import pytest
import torch
from torch import nn

from equiscope.analysis.parts import Parts
from equiscope.errors import InputError
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


def test_something_that_is_no_module():
    with pytest.raises(InputError, match="function"):
        Parts(lambda b: b["pos"], batches(), DECLARED)
    with pytest.raises(InputError, match="no parameters"):
        Parts(nn.Identity(), batches(), DECLARED, forward=lambda m, b: b["pos"])
