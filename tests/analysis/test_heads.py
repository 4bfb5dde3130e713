"""Heads: projection on commuting maps, exact forms against rotations and closed forms, errors."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import equiscope as eq
from equiscope.analysis.heads import commutant_projection, find_head, head_form, heads, row_deviation
from equiscope.errors import InputError
from equiscope.symmetry.actions import action
from equiscope.symmetry.rotations import haar
from equiscope.tasks.forcefield.task import FORCES

from ..tasks.forcefield.closed_form import closed_form
from . import pooled
from .batches import VECTORS, build, molecular_batch, randn, vectors


@pytest.mark.parametrize(("inputs", "outputs"), [("2x0e+2x1o", "1o"), ("1o+2e", "0e+1o"), ("3x1o+1e", "2x1o+2e")])
def test_projection_commutes_is_idempotent_and_is_the_nearest(inputs, outputs):
    turns, after = action(inputs), action(outputs)
    weight = randn(after.shape[0], turns.shape[0])
    projected = commutant_projection(weight, inputs, outputs)
    g = haar(3, torch.Generator().manual_seed(5))
    basis = torch.eye(turns.shape[0], dtype=torch.float64).expand(3, -1, -1)
    before = turns.act(g, basis).mT
    behind = after.act(g, torch.eye(after.shape[0], dtype=torch.float64).expand(3, -1, -1)).mT
    torch.testing.assert_close(projected @ before, behind @ projected, rtol=0, atol=1e-12)
    torch.testing.assert_close(commutant_projection(projected, inputs, outputs), projected, rtol=0, atol=1e-12)
    other = commutant_projection(randn(*weight.shape, seed=8), inputs, outputs)
    assert abs(float(((weight - projected) * other).sum())) < 1e-12


def test_known_projections():
    weight = randn(3, 3)
    torch.testing.assert_close(
        commutant_projection(weight, "1o", "1o"), weight.trace() / 3 * torch.eye(3, dtype=torch.float64)
    )
    assert commutant_projection(randn(3, 4), "4x0e", "1o").abs().max() < 1e-14
    with pytest.raises(InputError, match=r"has shape \(3, 6\), got \(3, 4\)"):
        commutant_projection(randn(3, 4), "2x1o", "1o")
    with pytest.raises(InputError, match="declared by irreps"):
        commutant_projection(randn(3, 9), "cartesian", "1o")


class OnFeatures(nn.Module):
    """A head on features of irreps 2x0e+1o+2e of a vector."""

    irreps = "2x0e+1o+2e"

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(10, 3, bias=False).double()
        with torch.no_grad():
            self.head.weight.copy_(randn(3, 10, seed=4))

    def features(self, x):
        from e3nn import o3

        r = x.norm(dim=-1, keepdim=True)
        return torch.cat([r, r.square(), x, o3.spherical_harmonics(2, x, normalize=False)], dim=-1)

    def forward(self, batch):
        return {"y": self.head(self.features(batch["x"]))}


def test_the_form_of_a_head_is_the_equivariance_error():
    model, batch = OnFeatures(), vectors(40)
    features = model.features(batch["x"])
    form = head_form(model.head.weight.detach(), features.T @ features / len(features), model.irreps, "1o")
    # Degrees up to three: one lebedev set is exact.
    result = eq.measure(model, [batch], VECTORS, rotations="lebedev-7", cosets=1, shift=False)
    assert form / 3 == pytest.approx(result.equivariance, rel=1e-10)
    found = heads(model, [batch], VECTORS, rotations="I", probes=3)
    assert found["kind"] == "linear"
    assert found["layer"] == "head"
    assert found["variance"] * found["features"] * found["alignment"] == pytest.approx(found["form"], rel=1e-12)


def test_the_trace_of_random_heads_is_that_of_all_unit_heads():
    model, batch = OnFeatures(), vectors(24)
    found = heads(model, [batch], VECTORS, rotations="T", probes=24)
    truth, weight = 0.0, model.head.weight
    kept = weight.detach().clone()
    for place in range(weight.numel()):
        with torch.no_grad():
            weight.zero_()
            weight.view(-1)[place] = 1
        truth += eq.measure(model, [batch], VECTORS).equivariance
    with torch.no_grad():
        weight.copy_(kept)
    assert abs(found["features"] - truth) < 4 * found["features_error"]
    assert found["features_error"] < 0.15 * truth
    assert torch.equal(kept, model.head.weight)


def test_escaip_in_closed_form_by_rotations_and_by_the_general_form():
    model, batch = build("escaip"), molecular_batch()
    found = heads(model, [batch], FORCES)
    truth = float(closed_form(model, batch).per_sample.mean().detach())
    assert found["kind"] == "rows"
    assert found["form"] == pytest.approx(truth, rel=1e-12)
    assert found["equivariance"] == pytest.approx(truth, rel=1e-9)
    assert found["variance"] * found["features"] * found["alignment"] == pytest.approx(truth, rel=1e-12)
    weight = model.head_weight().detach()
    assert found["variance"] == pytest.approx(float(weight.var(dim=0, correction=0).mean()), rel=1e-12)
    # The same head seen as a map from H vectors to one: row c reads component c of each.
    features, sample = model.head_features(batch)
    share = 1 / (torch.bincount(sample)[sample].double() * len(batch["mask"]))
    flat = features.detach().flatten(1)
    as_map = torch.einsum("ck,cx->ckx", weight, torch.eye(3, dtype=torch.float64)).flatten(1)
    general = head_form(as_map, torch.einsum("ai,aj,a->ij", flat, flat, share), f"{weight.shape[1]}x1o", "1o")
    assert general / 3 == pytest.approx(truth, rel=1e-10)


@pytest.mark.parametrize("weighting", ["sample", "component"])
@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_rows_are_pooled_as_the_loss_is(weighting, weight):
    """Two batches of unequal molecules: atoms of a sample, then samples, or all atoms alike; times the weight."""
    model, batches = build("escaip"), [molecular_batch(), molecular_batch([12], seed=4)]
    output = replace(FORCES.outputs["forces"], weight=weight)
    declared = replace(FORCES, outputs={"forces": output}, weighting=weighting)
    found = heads(model, batches, declared)
    atoms = [closed_form(model, b).equivariance.detach()[b["mask"]] / 3 for b in batches]
    samples = torch.cat([closed_form(model, b).per_sample.detach() for b in batches])
    truth = weight * float(samples.mean() if weighting == "sample" else torch.cat(atoms).mean())
    assert found["form"] == pytest.approx(truth, rel=1e-10)
    assert found["equivariance"] == pytest.approx(truth, rel=1e-9)
    assert found["variance"] * found["features"] * found["alignment"] == pytest.approx(truth, rel=1e-10)


class Rows(nn.Module):
    """A row head on the positions themselves: forces_c = (W_c0) x_c."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0], [2.0], [4.0]], dtype=torch.float64))

    def head_weight(self):
        return self.weight

    def head_features(self, batch):
        return batch["pos"][batch["mask"]][:, None, :], batch["mask"].nonzero()[:, 0]

    def forward(self, batch):
        return {"forces": batch["pos"] * self.weight[:, 0]}


@pytest.mark.parametrize("weighting", ["sample", "component"])
def test_the_error_of_the_mean_follows_the_weights(weighting):
    """Delta method by hand: residuals a_c - R w_c over clusters, w the weight of a cluster."""
    model, batches = Rows(), pooled.dealt(3)
    found = heads(model, batches, pooled.declared(weighting, 2.0, both=False))
    factor = 2 * float(pooled.broken(torch.diag(model.weight[:, 0].detach())))
    squares = torch.cat([(b["pos"].square().sum(-1) * b["mask"]).sum(1) for b in batches])
    counts = torch.tensor(pooled.SIZES[:6], dtype=torch.float64)
    weights = torch.ones(6).double() if weighting == "sample" else counts / counts.mean()
    values = factor * squares / counts
    mean = (weights * values).sum() / weights.sum()
    residuals = weights * (values - mean)
    assert found["form"] == pytest.approx(float(mean), rel=1e-10)
    assert found["equivariance_error"] == pytest.approx(float((6 / 5 * residuals.square().sum()).sqrt() / 6), rel=1e-9)


def test_a_head_of_other_rows_than_the_output_is_refused():
    batches = pooled.dealt(2)
    masked = eq.Declaration(
        {"pos": "1o"}, {"forces": eq.Output("1o", target="y", mask="some")}, fixed=("m",), mask="mask"
    )
    with pytest.raises(InputError, match=r"head_features\(\) gives a vector for each of"):
        heads(Rows(), batches, masked)
    declared = pooled.declared("sample", both=False)
    other = replace(declared, outputs={"forces": replace(declared.outputs["forces"], loss="huber")})
    with pytest.raises(InputError, match=r"squared error only: .*huber"):
        heads(Rows(), batches, other)


def test_the_tied_twin_has_no_deviation():
    model, batch = build("escaip_tied"), molecular_batch()
    assert row_deviation(model.head_weight()).abs().max() < 1e-16
    found = heads(model, [batch], FORCES)
    assert found["form"] < 1e-30
    assert found["alignment"] is None


def test_a_head_of_zeros_has_no_factors():
    model = Rows()
    with torch.no_grad():
        model.weight.zero_()
    found = heads(model, pooled.dealt(2), pooled.declared("sample", both=False))
    assert (found["variance"], found["form"], found["normalised_variance"], found["alignment"]) == (0, 0, None, None)


def test_the_linear_head_is_found():
    assert find_head(build("edge_transformer"), molecular_batch(), FORCES) == "head"
    assert find_head(build("escaip"), molecular_batch(), FORCES) == "force_head"


class NoHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 8).double(), nn.Linear(8, 3).double()

    def forward(self, batch):
        return {"y": batch["x"] + torch.tanh(self.last(self.first(batch["x"])))}


def test_errors_name_the_layers_and_the_remedy():
    batch = vectors()
    with pytest.raises(InputError, match=r"NoHead has no linear head: .*\(last, first\).*last linear layer"):
        heads(NoHead(), [batch], VECTORS)
    with pytest.raises(InputError, match=r"none of its layers \(first\)"):
        heads(NoHead(), [batch], VECTORS, head="first")
    with pytest.raises(InputError, match="no layer of NoHead is named 'lost'; the last are first, last"):
        heads(NoHead(), [batch], VECTORS, head="lost")
    silent = nn.Sequential(nn.Linear(3, 3), nn.SiLU()).double()
    with pytest.raises(InputError, match="no layer with parameters of Sequential is named '1'; the last are 0"):
        heads(silent, [batch], VECTORS, head="1", forward=lambda m, b: {"y": m(b["x"])})
    with pytest.raises(InputError, match="empty"):
        heads(NoHead(), [], VECTORS)
    with pytest.raises(InputError, match="probes"):
        heads(OnFeatures(), [batch], VECTORS, probes=1)
