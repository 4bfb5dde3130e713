"""Twirled models: exactly equivariant under the group, equal to the projection of linear maps, differentiable."""

import pytest
import torch

import equiscope as eq
from equiscope.errors import DeclarationError, InputError, NonFiniteError
from equiscope.symmetry.rotations import group

from .models import Linear, Tanh, random_batch

SHORT = dict(inputs={"pos": "1o"}, outputs={"forces": "1o"})


def test_a_twirled_linear_map_is_its_commuting_part():
    a = torch.randn(3, 3, dtype=torch.float64)
    batch = random_batch()
    answer = eq.Twirled(Linear(a), **SHORT)({"pos": batch["pos"]})["forces"]
    assert torch.allclose(answer, a.trace() / 3 * batch["pos"], atol=1e-12)


@pytest.mark.parametrize("name", ["T", "O", "I"])
def test_the_unshifted_group_makes_it_exactly_equivariant_under_that_group(name):
    model, x = eq.Twirled(Tanh(2.0), rotations=name, shift=False, **SHORT), random_batch()["pos"]
    for g in group(name).matrices[:5]:
        assert torch.allclose(model({"pos": x @ g.T})["forces"], model({"pos": x})["forces"] @ g.T, atol=1e-12)
    plain = Tanh(2.0)
    g = group(name).matrices[5]
    assert not torch.allclose(plain({"pos": x @ g.T})["forces"], plain({"pos": x})["forces"] @ g.T, atol=1e-3)


def test_more_rotations_bring_it_nearer_to_equivariance():
    errors = []
    for cosets in (1, 8):
        twirled = eq.Twirled(Tanh(2.0), rotations="T", cosets=cosets, **SHORT)
        errors.append(eq.measure(twirled, [random_batch(50)], target="y", **SHORT, fixed=[]).equivariance)
    assert errors[1] < errors[0] / 3
    assert errors[0] < 0.3 * eq.measure(Tanh(2.0), [random_batch(50)], target="y", **SHORT).equivariance


def test_it_is_a_module_with_gradients_and_its_models_dtype():
    inner = Tanh(1.0, dtype=torch.float32)
    model = eq.Twirled(inner, **SHORT)
    x = random_batch(dtype=torch.float32)["pos"].requires_grad_()
    answer = model({"pos": x})["forces"]
    answer.square().sum().backward()
    assert answer.dtype == torch.float32
    assert x.grad.abs().sum() > 0
    assert all(p.grad is not None for p in inner.parameters())
    assert len(list(model.parameters())) == 2


def test_its_loss_is_the_twirled_loss():
    batch = random_batch(30)
    result = eq.measure(Tanh(0.5), [batch], rotations="I", cosets=4, target="y", **SHORT)
    twirled = eq.Twirled(Tanh(0.5), rotations="I", cosets=2, **SHORT)
    loss = (twirled({"pos": batch["pos"]})["forces"] - batch["y"]).square().mean()
    assert float(loss.detach()) == pytest.approx(result.twirled, rel=5e-3)


def test_masked_atoms_are_zero():
    batch = {"pos": random_batch()["pos"], "mask": torch.tensor([[True, True, False, False]]).expand(6, 4)}
    answer = eq.Twirled(Tanh(), mask="mask", **SHORT)(batch)["forces"]
    assert answer[:, 2:].abs().max() == 0
    assert answer[:, :2].abs().min() > 0


def test_senseless_designs_are_refused():
    with pytest.raises(InputError, match="exactly 1"):
        eq.Twirled(Tanh(), shift=False, cosets=2, **SHORT)


def test_batches_and_answers_are_checked_as_by_measure():
    batch, twirled = random_batch(), eq.Twirled(Tanh(), **SHORT)
    with pytest.raises(NonFiniteError, match="input 'pos' is NaN"):
        twirled({"pos": batch["pos"] * torch.nan})
    with pytest.raises(DeclarationError, match=r"no axis for atoms.*per='sample'"):
        twirled({"pos": batch["pos"][0]})
    spoilt = eq.Twirled(Linear(torch.full((3, 3), torch.nan).double()), **SHORT)
    with pytest.raises(NonFiniteError, match="prediction 'forces' is NaN or infinite for at least one rotation"):
        spoilt(batch)
