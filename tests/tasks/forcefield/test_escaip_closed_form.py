"""The closed form against averages over rotation groups that are exact for it, and a group that is not."""

import pytest
import torch
from torch import Tensor

from equiscope.symmetry.rotations import group, haar
from equiscope.tasks.forcefield.escaip_closed_form import closed_form
from equiscope.tasks.forcefield.models import build
from tests.tasks.forcefield.molecules import random_batch, rotated
from tests.tasks.forcefield.test_models import awake


def model_of(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return awake(build(name).double())


@torch.no_grad()
def averages(model: torch.nn.Module, batch: dict, rotations: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and mean squared deviation of the twisted predictions over the rotations."""
    twisted = torch.stack([model(rotated(batch, g))["forces"] @ g for g in rotations])
    mean = twisted.mean(0)
    return mean, (twisted - mean).square().sum(-1).mean(0)


@pytest.mark.parametrize("name", ["O", "T", "I"])
def test_equals_the_average_over_a_shifted_group(name: str) -> None:
    model = model_of("escaip")
    batch = random_batch([12, 15, 1, 8], pad=999.0)
    shift = haar(1, torch.Generator().manual_seed(4))[0]
    mean, spread = averages(model, batch, group(name).matrices @ shift)
    exact = closed_form(model, batch)
    torch.testing.assert_close(exact.twirled, mean, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(exact.equivariance, spread, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(exact.forces, model(batch)["forces"], atol=1e-10, rtol=1e-10)
    assert exact.equivariance[batch["mask"]].max() > 1e-2


def test_a_group_too_small_is_noticed() -> None:
    model = model_of("escaip")
    batch = random_batch([12, 15, 8])
    _, spread = averages(model, batch, group("D2").matrices)
    assert (closed_form(model, batch).equivariance - spread).abs().max() > 1e-3


def test_twirling_is_averaging_the_rows_of_the_head() -> None:
    model = model_of("escaip")
    batch = random_batch([12, 8])
    twirled = closed_form(model, batch).twirled
    with torch.no_grad():
        model.force_head.weight.copy_(model.force_head.weight.mean(0).expand(3, -1))
    torch.testing.assert_close(model(batch)["forces"], twirled, atol=1e-10, rtol=1e-10)


def test_per_sample_is_the_mean_over_real_components() -> None:
    batch = random_batch([12, 5, 1], pad=float("nan"))
    exact = closed_form(model_of("escaip"), batch)
    expected = [exact.equivariance[s, :n].mean() / 3 for s, n in enumerate([12, 5, 1])]
    torch.testing.assert_close(exact.per_sample, torch.stack(expected), atol=1e-12, rtol=1e-12)
    assert (exact.equivariance[~batch["mask"]] == 0).all()


def test_the_tied_twin_has_none() -> None:
    exact = closed_form(model_of("escaip_tied"), random_batch([12, 8]))
    assert exact.equivariance.abs().max() < 1e-20


def test_is_differentiable() -> None:
    model = model_of("escaip")
    exact = closed_form(model, random_batch([12, 8]))
    (gradient,) = torch.autograd.grad(exact.per_sample.mean(), model.force_head.weight)
    # A common change of all rows is a change of the twirl alone.
    assert gradient.abs().max() > 1e-6
    assert gradient.sum(0).abs().max() < 1e-10
