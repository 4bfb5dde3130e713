"""The quadratic form of the derivative: exact for a head, third order for a network, what cannot be done."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from equiscope import Declaration, Output
from equiscope.analysis.heads import row_deviation
from equiscope.analysis.tangent import tangent_form
from equiscope.decomposition.plan import make_plan
from equiscope.errors import InputError
from equiscope.tasks.forcefield.task import FORCES

from ..decomposition.models import linear_error
from ..tasks.forcefield.closed_form import closed_form
from . import pooled
from .batches import VECTORS, build, molecular_batch, randn, vectors


def test_the_form_by_products_is_exact_for_a_head():
    model, batch = build("escaip"), molecular_batch()
    weight = model.force_head.weight.detach()
    reference = {"force_head.weight": weight.mean(0).expand(3, -1).clone()}
    before = [p.detach().clone() for p in model.parameters()]
    found = tangent_form(model, reference, [batch], FORCES, seed=3)
    assert tangent_form(model, reference, [batch], make_plan(FORCES, seed=3)) == found
    truth = float(closed_form(model, batch).per_sample.mean().detach())
    assert found["form"] == pytest.approx(truth, rel=1e-9)
    assert found["equivariance"] == pytest.approx(truth, rel=1e-9)
    assert found["at_reference"] < 1e-20
    assert found["distance"] == pytest.approx(float(row_deviation(weight).square().sum()), rel=1e-12)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


class Gated(nn.Module):
    """y = x |x| + tanh(A x): symmetric where A = 0, with a remainder of third order in A."""

    def __init__(self, scale):
        super().__init__()
        self.a = nn.Parameter(scale * randn(3, 3, seed=6))
        self.b = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, batch):
        x = batch["x"]
        moved = x @ self.a.T
        return {"y": self.b * x * x.norm(dim=-1, keepdim=True) + moved + moved.square() * 0.5}


def test_away_from_the_reference_the_remainder_is_of_third_order():
    batch, gaps = vectors(), []
    for scale in (0.02, 0.01):
        found = tangent_form(Gated(scale), {"a": torch.zeros(3, 3).double()}, [batch], VECTORS, rotations="I")
        gaps.append(abs(found["form"] - found["equivariance"]) / found["equivariance"])
    assert gaps[0] < 0.1
    assert gaps[1] / gaps[0] < 0.6


def test_frozen_weights_are_followed_and_stay_frozen():
    model, reference = Gated(0.02), {"a": torch.zeros(3, 3).double()}
    found = tangent_form(model, reference, [vectors()], VECTORS)
    model.requires_grad_(False)
    assert tangent_form(model, reference, [vectors()], VECTORS) == found
    assert not any(p.requires_grad for p in model.parameters())


def test_errors_say_what_differs():
    batch = vectors()
    with pytest.raises(InputError, match=r"'c' of shape \(2,\) is no parameter"):
        tangent_form(Gated(0.1), {"c": torch.zeros(2)}, [batch], VECTORS)
    with pytest.raises(InputError, match="no difference"):
        tangent_form(Gated(0.1), {"b": torch.ones(1).double()}, [batch], VECTORS)
    blind = Gated(0.1)
    blind.forward = lambda batch: {"y": batch["x"] * blind.b + blind.a.detach().sum()}
    with pytest.raises(InputError, match=r"does not depend on the parameters differentiably"):
        tangent_form(blind, {"a": torch.zeros(3, 3).double()}, [batch], VECTORS)


@pytest.mark.parametrize("weighting", ["sample", "component"])
@pytest.mark.parametrize(("forces", "moments"), [(1.0, 1.0), (3.0, 0.25)])
def test_the_form_is_pooled_as_the_loss_is(weighting, forces, moments):
    model, batches = pooled.TwoMaps(), pooled.dealt(3)
    reference = {name: p.detach().trace() / 3 * torch.eye(3).double() for name, p in model.named_parameters()}
    declared = pooled.declared(weighting, forces, moments)
    found = tangent_form(model, reference, batches, declared)
    truth = pooled.error(model, batches, weighting, forces, moments)
    assert found["form"] == pytest.approx(truth, rel=1e-10)
    assert found["equivariance"] == pytest.approx(truth, rel=1e-10)


class Mirror(nn.Module):
    """y = x + a (x y z) (1, 1, 1): odd, so that reflections spread it further than rotations do."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.full((1,), 0.3, dtype=torch.float64))

    def forward(self, batch):
        x = batch["x"]
        return {"y": x + self.a * x.prod(-1, keepdim=True) * torch.ones(3).double()}


def test_with_reflections_the_form_is_over_them_too():
    model, batch = Mirror(), vectors(12)
    declared = replace(VECTORS, group="O3")
    found = tangent_form(model, {"a": torch.zeros(1).double()}, [batch], declared, rotations="haar", cosets=3)
    assert found["form"] == pytest.approx(found["equivariance"], rel=1e-10)


def test_other_losses_are_refused():
    declared = replace(VECTORS, outputs={"y": replace(VECTORS.outputs["y"], loss="l2_norm")})
    with pytest.raises(InputError, match=r"quadratic form under squared error only: .*l2_norm"):
        tangent_form(Gated(0.1), {"a": torch.zeros(3, 3).double()}, [vectors()], declared)


def test_directions_of_positions_turn_as_vectors():
    """f = c + W (x - c) about the mean c: the form of W - 1 is the equivariance error of (W - 1)(x - c)."""

    class Positions(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(randn(3, 3, seed=3))

        def forward(self, batch):
            middle = batch["pos"].mean(1, keepdim=True)
            return {"x": middle + (batch["pos"] - middle) @ self.weight.T}

    model, pos = Positions(), randn(5, 4, 3, seed=4) + 6
    declared = Declaration({"pos": "1o"}, {"x": Output("1o", points=True)}, center="mean")
    found = tangent_form(model, {"weight": torch.eye(3).double()}, [{"pos": pos}], declared)
    delta = model.weight.detach() - torch.eye(3).double()
    error = float(linear_error(delta, pos - pos.mean(1, keepdim=True)).mean())
    assert found["form"] == pytest.approx(error, rel=1e-9)
    assert found["equivariance"] == pytest.approx(error, rel=1e-9)
