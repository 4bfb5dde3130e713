"""Losses: values by hand, convexity, frame dependence, cross-entropy's averages, a user's own; the best constants."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import equiscope as eq
from equiscope.decomposition.losses import LOSSES, constant_loss, invariant_under, least, loss
from equiscope.decomposition.samples import LabelRows
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


def rows(*samples):
    """Label rows of samples given as lists of rows."""
    sample = torch.tensor([i for i, own in enumerate(samples) for _ in own])
    values = torch.tensor([row for own in samples for row in own])
    return LabelRows(values.double() if values.is_floating_point() else values, sample)


def test_a_constant_weighs_samples_not_rows():
    # Scalars: three rows of 1 weigh as much as one of 5, so that any constant between costs 2; 2.5 to 1 it is 1.
    targets = rows([[1.0], [1.0], [1.0]], [[5.0]])
    assert constant_loss(LOSSES["l1"], targets, action("0e"), "SO3", np.ones(2)) == pytest.approx(2)
    weights = np.array([1.5, 0.5])
    assert constant_loss(LOSSES["l1"], targets, action("0e"), "SO3", weights) == pytest.approx(4 * 0.25)
    # A vector has no invariant part: the constant is zero.
    vector = rows([[3.0, 0.0, 4.0]], [[0.0, 1.0, 0.0]])
    assert constant_loss(LOSSES["l2_norm"], vector, action("1o"), "SO3", np.ones(2)) == pytest.approx(3)
    # A pseudoscalar is invariant under rotations, and not under inversion.
    targets = rows([[2.0]], [[2.0]])
    assert constant_loss(LOSSES["l1"], targets, action("0o"), "SO3", np.ones(2)) == pytest.approx(0, abs=1e-8)
    assert constant_loss(LOSSES["l1"], targets, action("0o"), "O3", np.ones(2)) == pytest.approx(2)


@pytest.mark.parametrize("seed", range(3))
def test_the_constant_of_skewed_scalars_is_their_weighted_median(seed):
    rng = np.random.default_rng(seed)
    y, weights = np.exp(1.5 * rng.standard_normal(801)), rng.random(801)
    weights /= weights.mean()
    order = y.argsort()
    median = y[order][np.searchsorted(weights[order].cumsum(), weights.sum() / 2)]
    expected = np.average(np.abs(y - median), weights=weights)
    found = constant_loss(LOSSES["l1"], rows(*([[v]] for v in y.tolist())), action("0e"), "SO3", weights)
    assert found == pytest.approx(expected, rel=1e-8)
    grid = np.linspace(0, 20, 40001)[:, None]
    r = np.abs(grid[:, :1] - y[None])
    huber = (np.where(r < 1, r**2 / 2, r - 0.5) * weights).mean(1).min()
    found = constant_loss(LOSSES["huber"], rows(*([[v]] for v in y.tolist())), action("0e"), "SO3", weights)
    assert found == pytest.approx(huber, rel=1e-6)


def test_the_constant_of_a_stress_is_a_pressure():
    # theta on the diagonal and zeros beside it, of nine components.
    stress = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)).double()
    stress[:, :3] += 2
    nine = action("voigt").canonical(stress)
    targets = LabelRows(nine, torch.arange(50))
    beside = float(nine.abs().sum() - stress[:, :3].abs().sum()) / 450
    expected = float((stress[:, :3] - stress[:, :3].flatten().sort().values[75]).abs().sum()) / 450 + beside
    found = constant_loss(LOSSES["l1"], targets, action("voigt"), "SO3", np.ones(50))
    assert found == pytest.approx(expected, rel=1e-8)


def test_several_invariants_at_once():
    y = torch.randn(200, 3, generator=torch.Generator().manual_seed(1)).double().exp()
    targets = LabelRows(y, torch.arange(200))
    median = y.sort(dim=0).values[100]
    expected = float((y - median).abs().mean())
    found = constant_loss(LOSSES["l1"], targets, action("3x0e"), "SO3", np.ones(200))
    assert found == pytest.approx(expected, rel=1e-6)
    assert least(lambda t: float(((t - [1, 2, 3]) ** 2).sum() + 4), np.zeros(3), np.ones(3)) == pytest.approx(4)
    assert least(lambda t: 7.0, np.zeros(0), np.zeros(0)) == 7


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_the_constant_of_classes_is_their_entropy(kind):
    targets = rows([[0], [1]], [[2]])
    expected = -(0.25 * math.log(0.25) * 2 + 0.5 * math.log(0.5))
    found = constant_loss(LOSSES[f"cross_entropy_{kind}"], targets, action("3x0e"), "SO3", np.ones(2))
    assert found == pytest.approx(expected)
    assert math.isnan(constant_loss(LOSSES["l1"], [], action("1o"), "SO3", np.ones(2)))
    assert math.isnan(constant_loss(loss(lambda p, t: p), [], action("1o"), "SO3", np.ones(2)))


def absolute(prediction, target):
    return (prediction - target).abs()


def pinball(prediction, target):
    over = target - prediction
    return torch.maximum(0.9 * over, -0.1 * over)


def constant_model(value):
    return lambda b: torch.full((len(b["pos"]),), value, dtype=torch.float64)


@pytest.mark.parametrize(("own", "quantile"), [("l1", 0.5), (absolute, 0.5), (pinball, 0.9)])
def test_a_collapsed_model_has_no_skill(own, quantile):
    generator = torch.Generator().manual_seed(0)
    y = torch.exp(1.5 * torch.randn(2000, generator=generator).double())
    batches = [{"pos": torch.randn(500, 2, 3, generator=generator).double(), "E": part} for part in y.split(500)]

    def skill(value):
        outputs = {"E": eq.Output("0e", per="sample", target="E", loss=own)}
        found = eq.measure(constant_model(value), batches, inputs={"pos": "1o"}, outputs=outputs, cosets=4)
        assert not any("not rotation invariant" in n for n in found.notes)
        return found.r2

    best = float(y.sort().values[round(quantile * 2000)])
    assert skill(best) == pytest.approx(0, abs=1e-6)
    assert skill(float(y.mean())) < -1e-3
    assert skill(2 * best) < -0.05


def test_a_users_loss_of_masked_vectors_is_against_zero():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 4, 3, generator=generator).double()
    mask = torch.arange(4) <= torch.arange(30)[:, None] % 4
    batch = {"pos": x, "y": 2 * x, "mask": mask}

    def own(p, t):
        return ((p - t).norm(dim=-1) * mask).sum(1) / mask.sum(1)

    outputs = {"f": eq.Output("1o", target="y", loss=own)}
    found = eq.measure(lambda b: b["pos"], [batch], inputs={"pos": "1o"}, outputs=outputs, mask="mask", cosets=4)
    # |x - 2 x| against |0 - 2 x|.
    assert found.r2 == pytest.approx(0.5)


def test_the_skill_of_classes_counts_every_atom():
    generator = torch.Generator().manual_seed(0)
    classes = torch.randint(0, 3, (5, 7), generator=generator)
    x = torch.randn(5, 7, 3, generator=generator, dtype=torch.float64)
    model = lambda batch: {"kind": batch["pos"].square().sum(-1, keepdim=True) * torch.arange(3)}  # noqa: E731
    outputs = {"kind": eq.Output("3x0e", target="kind", loss="cross_entropy_logits")}
    result = eq.measure(model, [{"pos": x, "kind": classes}], inputs={"pos": "1o"}, outputs=outputs, cosets=4)
    shares = torch.bincount(classes.flatten()).double() / classes.numel()
    assert result.r2 == pytest.approx(1 - result.total / float(-(shares * shares.log()).sum()), rel=1e-10)


def test_an_own_loss_that_is_not_convex_is_said_to_be():
    """Cut off, it is the smaller the fewer of the rotations are far away."""
    batch = random_batch(30)
    batch["y"] = batch["pos"].roll(1, -1)
    result = eq.measure(
        lambda b: b["pos"].roll(1, -1), [batch], inputs={"pos": "1o"}, outputs={"forces": "1o"}, target="y",
        loss=lambda p, y: (p - y).square().mean((1, 2)).clamp(max=0.3),
    )  # fmt: skip
    assert result.percent < 0
    assert any("negative, as it is where <lambda> is not convex" in note for note in result.notes)
