"""The split: exactly unbiased for every set, identity total = twirled + equivariance, jackknife, planted bugs."""

import pytest
import torch

from equiscope.decomposition.batches import Rows
from equiscope.decomposition.losses import LOSSES, Loss, loss
from equiscope.decomposition.split import BatchOutput, Labels, OutputSplit, add_pass
from equiscope.errors import InputError
from equiscope.symmetry.actions import action
from equiscope.symmetry.rotations import haar_keyed, rotation_set

from .models import Tanh, brute_split

REPEATS = 10_000
X = torch.tensor([[0.9, -0.4, 0.7]], dtype=torch.float64)
Y = torch.tensor([[0.3, 0.8, -0.5]], dtype=torch.float64)
MODEL = Tanh(scale=1.0).requires_grad_(False)


def function(x):
    return MODEL({"pos": x})["forces"]


def repeats(name, cosets, chosen_loss=LOSSES["mse"], count=REPEATS, target=Y):
    """``count`` independent estimates for one sample, each with its own rotations."""
    chosen = rotation_set(name)
    target = target.expand(count, 1, 3)
    of = BatchOutput("f", Rows(torch.arange(count), None, 1, count), action("1o"), chosen_loss, Labels(target, target))
    splits = {}
    for stream in range(cosets):
        shift = haar_keyed(11, range(count), stream)
        for k, (matrix, weight) in enumerate(zip(chosen.matrices, chosen.weights.tolist(), strict=True)):
            g = matrix @ shift
            p = torch.einsum("nji,nj->ni", g, function(torch.einsum("nij,j->ni", g, X[0])))
            add_pass(splits, {"f": of}, {"f": p[:, None]}, weight, k + 1 == len(chosen))
    return splits["f"]


def scalar():
    """A number without a label, for one sample."""
    return BatchOutput("f", Rows(torch.arange(1), None, 1, 1), action("0e"), LOSSES["mse"])


def z_score(values, truth):
    return float((values.mean() - truth) / (values.std() / len(values) ** 0.5))


@pytest.mark.parametrize(
    ("name", "cosets"),
    [
        ("haar", 2),
        ("haar", 10),
        ("D2", 2),
        ("D2", 3),
        ("T", 2),
        ("O", 2),
        ("I", 2),
        ("superfibonacci-24", 2),
        ("lebedev-3", 2),
    ],
)
def test_every_set_is_exactly_unbiased(name, cosets):
    truth = brute_split(function, X, Y, "lebedev-35")
    assert truth[2] == pytest.approx(float(brute_split(function, X, Y, "lebedev-41")[2]), rel=1e-8)
    values = repeats(name, cosets).values()
    assert abs(z_score(values.total, truth[0])) < 4
    assert abs(z_score(values.equivariance, truth[2])) < 4
    assert abs(z_score(values.total - values.equivariance, truth[1])) < 4


def test_the_usual_factor_on_a_coset_is_biased_and_seen():
    values, truth = repeats("T", 2), brute_split(function, X, Y, "lebedev-35")[2]
    plug_in = values._within_sum / 2
    assert z_score(plug_in, truth) < -4
    assert z_score(plug_in * 12 / 11, truth) > 4


def test_independent_rotations_give_the_sample_variance():
    split = repeats("haar", 5, count=50)
    chosen = [haar_keyed(11, range(50), s) for s in range(5)]
    p = torch.stack([torch.einsum("nji,nj->ni", g, function(torch.einsum("nij,j->ni", g, X[0]))) for g in chosen])
    assert torch.allclose(split.values().equivariance, p.var(dim=0).mean(-1), rtol=1e-12)
    assert torch.allclose(split.values().total, (p - Y).square().mean(dim=(0, 2)), rtol=1e-12)
    assert torch.allclose(split.values().square, p.square().mean(dim=(0, 2)), rtol=1e-12)


@pytest.mark.parametrize("name", ["haar", "T"])
def test_the_jackknife_equals_the_exact_split_for_squared_error(name):
    exact = repeats(name, 4, count=30)
    jackknifed = repeats(name, 4, Loss("mse by jackknife", LOSSES["mse"].per_row), count=30)
    assert torch.allclose(exact.values().equivariance, jackknifed.values().equivariance, rtol=1e-11)


@pytest.mark.parametrize("name", ["huber", "l2_norm"])
def test_the_jackknife_takes_out_most_of_the_bias(name):
    # Squared-error truth is no use here: the twirled prediction is, through the loss itself.
    chosen, g = LOSSES[name], rotation_set("lebedev-35")
    p = torch.einsum("kji,kj->ki", g.matrices, function(torch.einsum("kij,j->ki", g.matrices, X[0])))[:, None]
    mean = torch.einsum("k,kci->ci", g.weights, p)[None]
    total = (g.weights * chosen.per_row(p, Y[None].expand_as(p))[:, 0]).sum()
    truth = total - chosen.per_row(mean, Y[None])[0, 0]
    split = repeats("haar", 8, chosen)
    plug_in = split.values().total - split.values().halvings[:, 0]
    jackknifed = split.values().equivariance
    assert z_score(plug_in, truth) < -10
    assert abs(jackknifed.mean() - truth) < 0.15 * abs(plug_in.mean() - truth)


def test_halvings_show_the_order_of_the_bias():
    q = repeats("haar", 32, LOSSES["l2_norm"]).values().halvings.mean(0)
    order = torch.log2((q[2] - q[1]) / (q[1] - q[0]))
    assert order == pytest.approx(1.0, abs=0.15)


def test_padding_and_several_rows_a_sample():
    rows = Rows(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 3]), 2, 2)
    target = torch.zeros(3, 1, 3, dtype=torch.float64)
    of = BatchOutput("f", rows, action("1o"), LOSSES["mse"], Labels(target, target))
    one = torch.tensor([[[1.0, 0, 0]], [[2.0, 0, 0]], [[3.0, 0, 0]]], dtype=torch.float64)
    split = OutputSplit(of, one)
    for sign in (1.0, -1.0):
        split.add(sign * one, 1.0)
        split.close_coset()
    values = split.values()
    assert values.total.tolist() == pytest.approx([(1 + 4) / 6, 9 / 3])
    assert values.equivariance.tolist() == pytest.approx([2 * (1 + 4) / 6, 2 * 9 / 3])
    assert values.components.tolist() == [6, 3]


def test_a_small_variance_on_a_large_mean_keeps_its_digits():
    split = OutputSplit(scalar(), torch.full((1, 1, 1), 1e8, dtype=torch.float64))
    for value in (1e8, 1e8 + 1e-4):
        split.add(torch.tensor([[[value]]], dtype=torch.float64), 1.0)
        split.close_coset()
    assert float(split.values().equivariance) == pytest.approx(0.5e-8, rel=1e-3)


def test_too_few_cosets_and_open_cosets_are_refused():
    with pytest.raises(InputError, match="at least 2"):
        repeats("T", 1, count=3).values()
    with pytest.raises(InputError, match="at least 4"):
        repeats("T", 2, loss("huber"), count=3).values()
    split = OutputSplit(scalar(), torch.ones(1, 1, 1, dtype=torch.float64))
    split.add(torch.ones(1, 1, 1, dtype=torch.float64), 0.5)
    with pytest.raises(InputError, match="weights"):
        split.close_coset()


def test_a_small_variance_within_a_coset_on_a_large_mean_keeps_its_digits():
    split = OutputSplit(scalar(), torch.full((1, 1, 1), 1e8, dtype=torch.float64))
    for _ in range(2):
        for value in (1e8, 1e8 + 1e-4):
            split.add(torch.tensor([[[value]]], dtype=torch.float64), 0.5)
        split.close_coset()
    assert float(split.values().equivariance) == pytest.approx(0.25e-8, rel=1e-3)
