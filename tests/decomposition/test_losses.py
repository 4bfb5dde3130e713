"""Losses: values by hand, convexity as a split, frame dependence, cross-entropy's two averages, a user's own."""

import math

import pytest
import torch
from torch import nn

import equiscope as eq
from equiscope.decomposition.losses import LOSSES, invariant_under, loss
from equiscope.errors import InputError
from equiscope.symmetry.actions import action
from equiscope.symmetry.rotations import haar

from .models import Tanh, random_batch

SHORT = dict(inputs={"pos": "1o"}, outputs={"forces": "1o"}, target="y")
P = torch.tensor([[[3.0, 0.0, 4.0]]], dtype=torch.float64)
ZERO = torch.zeros(1, 1, 3, dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "value"), [("mse", 25 / 3), ("l1", 7 / 3), ("huber", (2.5 + 3.5) / 3), ("l2_norm", 5.0)]
)
def test_values_by_hand(name, value):
    assert float(LOSSES[name].per_row(P, ZERO)) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("name", ["mse", "l1", "huber", "l2_norm"])
def test_invariance_is_declared_as_it_is(name):
    g = haar(1, torch.Generator().manual_seed(0))[0]
    turned = LOSSES[name].per_row(P @ g.T, ZERO)
    assert bool(torch.allclose(turned, LOSSES[name].per_row(P, ZERO))) == LOSSES[name].invariant


@pytest.mark.parametrize("name", ["l1", "huber", "l2_norm"])
def test_convex_losses_split_into_positive_parts(name):
    result = eq.measure(Tanh(), [random_batch(40)], loss=name, cosets=6, **SHORT)
    assert 0 < result.equivariance < result.total
    assert result.total == pytest.approx(result.twirled + result.equivariance, rel=1e-12)
    assert result.loss == name
    assert any("not rotation invariant" in n for n in result.notes) == (name != "l2_norm")


def test_skill_of_vectors_is_against_zero():
    batch = random_batch(40)
    result = eq.measure(Tanh(), [batch], loss="l2_norm", cosets=4, **SHORT)
    assert result.r2 == pytest.approx(1 - result.total / float(batch["y"].norm(dim=-1).mean()), rel=1e-10)
    assert "skill" in str(result)


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3, 5, dtype=torch.float64)

    def forward(self, batch):
        return {"logits": 2 * torch.tanh(self.net(batch["pos"][:, 0]))}


def classify(loss_name, cosets=40):
    torch.manual_seed(0)
    batch = {"pos": random_batch(20)["pos"], "label": torch.arange(20) % 5}
    outputs = {"logits": eq.Output("5x0e", target="label", loss=loss_name, per="sample")}
    model = Classifier()
    return model, batch, eq.measure(model, [batch], inputs={"pos": "1o"}, outputs=outputs, cosets=cosets)


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_cross_entropy_against_brute_force(average):
    model, batch, result = classify(f"cross_entropy_{average}")
    g = haar(20_000, torch.Generator().manual_seed(1))
    with torch.no_grad():
        x = torch.einsum("kij,nj->kni", g, batch["pos"][:, 0])
        z = 2 * torch.tanh(model.net(x))
    pick = batch["label"].expand(len(g), 20)[..., None]
    total = -torch.log_softmax(z, -1).gather(-1, pick).mean()
    mean = torch.log_softmax(z.mean(0), -1) if average == "logits" else torch.softmax(z, -1).mean(0).log()
    twirled = -mean.gather(-1, pick[0]).mean()
    assert result.total == pytest.approx(float(total), rel=5e-3)
    assert result.equivariance == pytest.approx(float(total - twirled), rel=2e-2)


def test_averaging_logits_and_probabilities_differ():
    logits, probabilities = classify("cross_entropy_logits", 8)[2], classify("cross_entropy_probabilities", 8)[2]
    assert logits.total == pytest.approx(probabilities.total, rel=1e-10)
    assert abs(logits.percent - probabilities.percent) > 0.1


def test_skill_of_classes_is_against_their_frequencies():
    result = classify("cross_entropy_logits", 4)[2]
    assert result.r2 == pytest.approx(1 - result.total / math.log(5), rel=1e-10)


def own(prediction, target):
    return (prediction - target).square().mean(dim=(1, 2))


def test_a_users_loss_gets_whole_tensors_and_agrees_with_ours():
    ours = eq.measure(Tanh(), [random_batch()], cosets=4, **SHORT)
    theirs = eq.measure(Tanh(), [random_batch()], loss=own, cosets=4, **SHORT)
    assert theirs.percent == pytest.approx(ours.percent, rel=1e-10)
    assert theirs.loss == "own"


def test_a_users_loss_must_return_one_value_a_sample():
    with pytest.raises(InputError, match="one value a sample"):
        eq.measure(Tanh(), [random_batch()], loss=lambda p, y: (p - y).square().mean(), cosets=4, **SHORT)


@pytest.mark.parametrize("spec", ["MSE", "cross_entropy", "", 3, None])
def test_unknown_losses_are_refused(spec):
    with pytest.raises(InputError):
        loss(spec)


def test_kinks_and_the_order_of_the_bias_are_said():
    result = eq.measure(Tanh(), [random_batch(200)], loss="l2_norm", rotations="haar", cosets=16, **SHORT)
    assert any("bias of order" in n for n in result.notes)


def own_cross_entropy(logits, label):
    return nn.functional.cross_entropy(logits, label, reduction="none")


def test_a_users_loss_may_have_class_labels():
    ours, theirs = classify("cross_entropy_logits", 4)[2], classify(own_cross_entropy, 4)[2]
    assert theirs.percent == pytest.approx(ours.percent, rel=1e-10)


@pytest.mark.parametrize(
    ("irreps", "group", "invariant"),
    [
        ("0e", "SO3", True), ("3x0e", "O3", True), ("0o", "O3", True), ("0o+0e", "SO3", True), ("1o", "SO3", False),
        ("1e", "O3", False), ("2e", "SO3", False), ("voigt", "SO3", False), ("cartesian", "O3", False),
        ("0e+1o", "SO3", False), ("1o", "O", True), ("voigt", "O", True), ("2e", "O", False),
    ],
)  # fmt: skip
def test_a_componentwise_loss_is_invariant_where_components_are_permuted(irreps, group, invariant):
    # The octahedral group permutes x, y and z up to signs; of degree 2 it mixes x^2 - y^2 and 3 z^2 - r^2.
    assert invariant_under(LOSSES["l1"], action(irreps), group) is invariant
    assert invariant_under(LOSSES["l2_norm"], action(irreps), group)
