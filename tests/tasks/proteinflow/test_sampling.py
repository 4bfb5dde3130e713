"""Tests of the integration: exact flows, orders of convergence, randomness, self-conditioning."""

import math

import pytest
import torch

from equiscope.decomposition.twirled import Twirled
from equiscope.errors import InputError, NonFiniteError
from equiscope.tasks.proteinflow.flow import draw_noise
from equiscope.tasks.proteinflow.sampling import Sampling, sample
from equiscope.tasks.proteinflow.task import declaration
from tests.tasks.proteinflow.common import make


class Field(torch.nn.Module):
    """A velocity field given by a function of (x, t), in float64."""

    def __init__(self, field):
        super().__init__()
        self.field = field
        self.weight = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.seen = []

    def forward(self, batch):
        self.seen.append((batch["t"][0].item(), batch["x_sc"].clone()))
        return {"velocity": self.field(batch["x_t"], batch["t"][:, None, None])}


def noise(settings: Sampling) -> torch.Tensor:
    mask = torch.ones(settings.number, settings.length, dtype=torch.bool)
    return draw_noise(mask, torch.Generator().manual_seed(settings.seed)).double()


@pytest.mark.parametrize("method", ["euler", "heun"])
def test_the_exact_field_of_one_chain_is_integrated_to_that_chain(method):
    """v = (x_1 − x)/(1 − t) leads every noise to x_1, with any number of steps."""
    target = draw_noise(torch.ones(1, 10, dtype=torch.bool), torch.Generator().manual_seed(9)).double()
    model = Field(lambda x, t: (target - x) / (1 - t))
    for steps in (1, 7):
        drawn = sample(model, Sampling(length=10, number=3, steps=steps, method=method))
        assert torch.allclose(drawn, target.expand(3, -1, -1), atol=1e-12)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2)])
def test_convergence_is_of_the_order_of_the_method(method, order):
    """v = x sin(3t) has the solution x_0 exp((1 − cos 3)/3); the last Euler step of Heun is of second order too."""
    settings = {"length": 6, "number": 2, "method": method, "self_conditioning": False}
    model = Field(lambda x, t: x * torch.sin(3 * t))
    errors = []
    for steps in (40, 80):
        chosen = Sampling(steps=steps, **settings)
        exact = noise(chosen) * math.exp((1 - math.cos(3.0)) / 3)
        errors.append((sample(model, chosen) - exact).abs().max().item())
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.15)


def test_equal_seeds_give_equal_chains_whatever_the_batch_size_and_others_do_not():
    model = make("proteina")
    first = sample(model, Sampling(length=12, number=5, steps=4))
    split = sample(model, Sampling(length=12, number=5, steps=4, batch_size=2))
    assert torch.allclose(first, split, atol=1e-5)
    assert not torch.allclose(first, sample(model, Sampling(length=12, number=5, steps=4, seed=1)), atol=0.1)
    assert first.sum(1).abs().max() < 1e-4


def test_each_step_is_told_the_estimate_of_the_step_before():
    model = Field(lambda x, t: 2 * x)
    sample(model, Sampling(length=5, number=1, steps=3))
    (_, first), (t, second), _ = model.seen
    assert (first == 0).all()
    assert t == pytest.approx(1 / 3)
    x_0 = noise(Sampling(length=5, number=1))
    assert torch.allclose(second, x_0 + 2 * x_0, atol=1e-12)
    plain = Field(lambda x, t: 2 * x)
    sample(plain, Sampling(length=5, number=1, steps=3, self_conditioning=False))
    assert all((guess == 0).all() for _, guess in plain.seen)


def test_a_twirled_model_is_sampled_and_costs_one_call_a_rotation():
    calls = []
    net = make("proteina")
    net.register_forward_hook(lambda *_: calls.append(1))
    settings = Sampling(length=10, number=2, steps=3)
    twirled = sample(Twirled(net, declaration(), rotations="T"), settings)
    assert len(calls) == 3 * 12
    assert not torch.allclose(twirled, sample(net, settings), atol=1e-2)
    model = make("proteina_equivariant")
    averaged = sample(Twirled(model, declaration(), rotations="T"), settings)
    assert torch.allclose(averaged, sample(model, settings), atol=1e-3)


def test_the_mode_of_the_model_is_kept_and_divergence_is_an_error():
    model = make("proteina").train()
    sample(model, Sampling(length=6, number=1, steps=1))
    assert model.training
    with pytest.raises(NonFiniteError, match="1 of 1 sampled chains"):
        sample(Field(lambda x, t: x * 1e300), Sampling(length=6, number=1, steps=5))


def test_progress_and_bad_settings():
    seen = []
    sample(Field(lambda x, t: x), Sampling(length=4, number=1, steps=3), seen.append)
    assert seen == [1, 2, 3]
    with pytest.raises(InputError, match="euler, heun"):
        Sampling(method="rk4")
    with pytest.raises(InputError, match="length"):
        Sampling(length=1)
