"""The measure against the closed form of EScAIP's head, and the tied twin under its noise floor."""

import pytest
import torch

import equiscope as eq
from equiscope.tasks.forcefield.models import build

from .closed_form import closed_form
from .molecules import random_batch

SIZES = [12, 7, 10, 1, 5]


def measured(model, batch, **settings):
    return eq.measure(
        model, [batch], inputs={"pos": "1o"}, outputs={"forces": "1o"}, target="y", mask="mask", **settings
    )


def labelled(dtype):
    batch = random_batch(SIZES, pad=999.0, dtype=dtype)
    return batch | {"y": torch.randn(batch["pos"].shape, generator=torch.Generator().manual_seed(3)).to(dtype)}


@pytest.mark.parametrize("rotations", ["T", "O"])
def test_the_measure_agrees_with_the_closed_form(rotations):
    torch.manual_seed(0)
    model, batch = build("escaip").double(), labelled(torch.float64)
    result, exact = measured(model, batch, rotations=rotations), closed_form(model.eval(), batch)
    assert torch.allclose(result.per_sample.equivariance, exact.per_sample, rtol=1e-10, atol=1e-14)
    real = batch["mask"][..., None]
    error = torch.where(real, (exact.twirled - batch["y"]).square(), 0.0).sum((1, 2)) / (3 * batch["mask"].sum(1))
    assert result.twirled == pytest.approx(float(error.mean()), rel=1e-10)


def test_independent_rotations_agree_within_their_error():
    torch.manual_seed(0)
    model, batch = build("escaip").double(), labelled(torch.float64)
    exact = closed_form(model.eval(), batch).per_sample
    found = torch.stack(
        [measured(model, batch, rotations="haar", cosets=4, seed=s).per_sample.equivariance for s in range(40)]
    )
    real = exact > 1e-12
    z = (found.mean(0) - exact)[real] / (found.std(0)[real] / 40**0.5)
    assert z.abs().max() < 4


def test_the_tied_twin_is_under_its_noise_floor_and_the_free_one_far_above():
    torch.manual_seed(0)
    tied = measured(build("escaip_tied"), labelled(torch.float32))
    free = measured(build("escaip"), labelled(torch.float32))
    assert not tied.distinguishable
    assert free.equivariance > 1e6 * free.noise_floor
