"""The front door: closed forms, brute force, side effects, bad input, several outputs, masks, clusters."""

import json
import random

import numpy as np
import pytest
import torch
from torch import nn

import equiscope as eq
from equiscope.errors import DeclarationError, InputError, NonFiniteError, RandomModelError

from .models import Linear, Tanh, brute_split, linear_error, random_batch

SHORT = dict(inputs={"pos": "1o"}, outputs={"forces": "1o"}, target="y")


def matrix(seed=0):
    return torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("rotations", ["T", "O", "I", "lebedev-5"])
def test_linear_maps_have_no_sampling_error_left(rotations):
    model, batch = Linear(matrix()), random_batch()
    result = eq.measure(model, [batch], rotations=rotations, **SHORT)
    truth = float(linear_error(matrix(), batch["pos"]).mean())
    assert result.equivariance == pytest.approx(truth, rel=1e-10)
    assert result.total == pytest.approx(truth + result.twirled, rel=1e-12)
    mean = matrix().trace() / 3 * batch["pos"]
    assert result.twirled == pytest.approx(float((mean - batch["y"]).square().mean()), rel=1e-10)


def test_independent_rotations_agree_within_their_error():
    model, batch = Linear(matrix()), random_batch(400)
    result = eq.measure(model, [batch], rotations="haar", cosets=4, **SHORT)
    truth = linear_error(matrix(), batch["pos"]).mean()
    assert result.equivariance == pytest.approx(float(truth), rel=0.1)
    assert result.passes == 4


def test_a_rough_model_agrees_with_a_hundred_thousand_rotations():
    model = Tanh(scale=1.5).requires_grad_(False)
    batch = {k: v[:, :1] for k, v in random_batch(3).items()}
    result = eq.measure(model, [batch], rotations="I", cosets=200, **SHORT)
    g = eq.symmetry.rotations.haar(100_000, torch.Generator().manual_seed(0))
    for i in range(3):
        x, y = batch["pos"][i, 0], batch["y"][i, 0]
        p = torch.einsum("kji,kj->ki", g, model({"pos": torch.einsum("kij,j->ki", g, x)})["forces"])
        brute = p.var(dim=0).mean()
        assert float(result.per_sample.equivariance[i]) == pytest.approx(float(brute), rel=0.02)
        quadrature = brute_split(lambda v: model({"pos": v})["forces"], x[None], y[None], "lebedev-41")
        assert float(result.per_sample.equivariance[i]) == pytest.approx(float(quadrature[2]), rel=0.01)


def test_equivariant_model_is_at_the_floor_and_said_so():
    class Radial(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))

        def forward(self, batch):
            x = batch["pos"]
            return {"forces": self.net(x.norm(dim=-1, keepdim=True)) * x}

    torch.manual_seed(0)
    result = eq.measure(Radial(), [random_batch(64, dtype=torch.float32)], **SHORT)
    assert not result.distinguishable
    assert 0 < result.equivariance < 3 * result.noise_floor
    assert "not distinguishable from numerical noise" in str(result)
    assert result.noise_floor_percent < 1e-8


def test_a_constant_vector_is_all_equivariance_error():
    class Constant(nn.Module):
        def forward(self, batch):
            return torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64).expand_as(batch["pos"])

    batch = random_batch()
    batch["y"] = torch.zeros_like(batch["y"])
    result = eq.measure(Constant(), [batch], **SHORT)
    assert result.percent == pytest.approx(100, rel=1e-12)
    assert result.equivariance == pytest.approx(14 / 3, rel=1e-12)
    assert result.relative_equivariance == pytest.approx(1, rel=1e-12)


def test_the_zero_predictor_is_flagged():
    result = eq.measure(Linear(torch.zeros(3, 3).double()), [random_batch()], **SHORT)
    assert result.percent == 0
    assert result.r2 == pytest.approx(0, abs=1e-12)
    assert any("best constant" in n for n in result.notes)


def test_batch_size_and_order_of_batches_change_nothing():
    model, batch = Tanh(), random_batch(12)
    batch["id"] = torch.arange(12)
    whole = eq.measure(model, [batch], ids="id", **SHORT)
    parts = [{k: v[s] for k, v in batch.items()} for s in (slice(7, 12), slice(0, 2), slice(2, 7))]
    split = eq.measure(model, parts, ids="id", **SHORT)
    assert split.percent == pytest.approx(whole.percent, rel=1e-10)
    assert split.equivariance == pytest.approx(whole.equivariance, rel=1e-10)


def test_samples_get_their_own_rotations_and_the_seed_matters():
    model, one = Tanh(), random_batch(1)
    same = {k: v.expand(50, -1, -1) for k, v in one.items()}
    result = eq.measure(model, [same], rotations="haar", **SHORT)
    assert result.per_sample.equivariance.std() > 0
    assert eq.measure(model, [same], rotations="haar", **SHORT) == result
    assert eq.measure(model, [same], rotations="haar", seed=1, **SHORT).percent != result.percent


@pytest.mark.parametrize("filler", [999.0, float("nan"), float("inf")])
def test_padding_does_not_leak(filler):
    model, batch = Tanh(), random_batch(5, atoms=3)
    clean = eq.measure(model, [batch], **SHORT)
    padded = {k: torch.cat([v, torch.full((5, 2, 3), filler).double()], dim=1) for k, v in batch.items()}
    padded["mask"] = torch.tensor([True, True, True, False, False]).expand(5, 5)
    result = eq.measure(model, [padded], mask="mask", **SHORT)
    assert result.percent == pytest.approx(clean.percent, rel=1e-12)
    assert result.orientation == pytest.approx(clean.orientation, rel=1e-12)
    centred = eq.measure(model, [padded], mask="mask", center="mean", **SHORT)
    assert centred.percent == pytest.approx(eq.measure(model, [batch], center="mean", **SHORT).percent, rel=1e-12)


def test_the_centre_is_what_was_said():
    class Absolute(nn.Module):
        def forward(self, batch):
            return batch["pos"] - batch["pos"].mean(1, keepdim=True)

    batch = random_batch()
    batch["pos"] = batch["pos"] + 5
    batch["com"] = batch["pos"].mean(1)
    about_mean = eq.measure(Absolute(), [batch], center="mean", fixed=["com"], **SHORT)
    assert about_mean.relative_equivariance < 1e-25

    class Raw(nn.Module):
        def forward(self, batch):
            return batch["pos"]

    assert eq.measure(Raw(), [batch], fixed=["com"], **SHORT).relative_equivariance < 1e-25
    # About the mean, x -> R(x - c) + c, so R^-1 x' = x - c + R^-1 c: the error is |c|^2.
    off = eq.measure(Raw(), [batch], center="com", **SHORT)
    assert off.equivariance == pytest.approx(float(batch["com"].square().mean()), rel=1e-10)


def test_weighting_by_sample_and_by_component():
    batch = random_batch(2)
    batch["mask"] = torch.tensor([[True, False, False, False], [True] * 4])
    error = linear_error(matrix(), batch["pos"])
    by_sample = eq.measure(Linear(matrix()), [batch], mask="mask", **SHORT)
    by_component = eq.measure(Linear(matrix()), [batch], mask="mask", weighting="component", **SHORT)
    assert by_sample.equivariance == pytest.approx(float((error[0, 0] + error[1].mean()) / 2), rel=1e-10)
    assert by_component.equivariance == pytest.approx(float((error[0, 0] + error[1].sum()) / 5), rel=1e-10)


class EnergyAndForces(nn.Module):
    def forward(self, batch):
        x = batch["pos"]
        energy = (x @ torch.tensor([1.0, 0.5, 0.0], dtype=x.dtype)).sum(1) + x.square().sum((1, 2))
        return {"energy": energy, "forces": x * torch.tensor([1.0, 2.0, 3.0], dtype=x.dtype)}


def test_contributions_of_several_outputs_add_up():
    batch = random_batch(20) | {"e": torch.randn(20, dtype=torch.float64)}
    outputs = {
        "energy": eq.Output("0e", target="e", per="sample", weight=0.3),
        "forces": eq.Output("1o", target="y", weight=2.0),
    }
    result = eq.measure(EnergyAndForces(), [batch], inputs={"pos": "1o"}, outputs=outputs)
    parts = result.outputs
    assert sum(p.contribution_percent for p in parts.values()) == pytest.approx(result.percent, rel=1e-12)
    assert result.total == pytest.approx(0.3 * parts["energy"].total + 2 * parts["forces"].total, rel=1e-12)
    alone = eq.measure(
        EnergyAndForces(), [batch], inputs={"pos": "1o"}, outputs={"forces": outputs["forces"]}, fixed=["e"]
    )
    assert parts["forces"].percent == pytest.approx(alone.percent, rel=1e-12)


def test_energy_skill_is_against_the_mean_energy():
    batch = random_batch(50) | {"e": 100 + torch.randn(50, dtype=torch.float64)}
    output = {"energy": eq.Output("0e", target="e", per="sample")}

    class Mean(nn.Module):
        def forward(self, b):
            return {"energy": torch.full((50,), float(batch["e"].mean()), dtype=torch.float64)}

    result = eq.measure(Mean(), [batch], inputs={"pos": "1o"}, outputs=output, fixed=["y"])
    assert result.r2 == pytest.approx(0, abs=1e-9)


def test_inversion_is_seen_only_when_o3_is_claimed():
    class Cross(nn.Module):
        def forward(self, batch):
            x = batch["pos"]
            return torch.linalg.cross(x, x.roll(1, dims=1))

    batch = random_batch()
    assert eq.measure(Cross(), [batch], **SHORT).relative_equivariance < 1e-25
    broken = eq.measure(Cross(), [batch], group="O3", **SHORT)
    assert broken.relative_equivariance == pytest.approx(1, rel=1e-10)
    pseudo = eq.measure(Cross(), [batch], inputs={"pos": "1o"}, outputs={"f": "1e"}, target="y", group="O3")
    assert pseudo.relative_equivariance < 1e-25


def test_gradient_forces_need_no_word_from_the_user():
    class Gradient(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(3, 1).double()

        def forward(self, batch):
            x = batch["pos"].requires_grad_()
            energy = torch.tanh(self.net(x)).sum()
            return {"forces": -torch.autograd.grad(energy, x)[0]}

    batch, model = random_batch(), Gradient()
    plain = eq.measure(model, [batch], **SHORT)
    assert plain.equivariance > 0
    with torch.inference_mode():
        inside = eq.measure(model, [random_batch()], **SHORT)
    assert inside == plain
    assert not batch["pos"].requires_grad


class Careless(nn.Module):
    """Counts its calls in a buffer, adds to gradients, uses every random state, edits its input."""

    def __init__(self, fail_at=None):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).double()
        self.register_buffer("count", torch.zeros(1))
        self.fail_at = fail_at

    def forward(self, batch):
        self.count += 1
        if self.fail_at is not None and self.count > self.fail_at:
            raise ValueError("out of cheese")
        random.random(), np.random.rand(), torch.rand(1)
        with torch.enable_grad():
            answer = self.net(batch["pos"])
            answer.sum().backward()
        batch["pos"].mul_(0)
        return {"forces": answer}


@pytest.mark.parametrize("fail_at", [None, 5])
def test_the_model_and_the_world_are_left_as_they_were(fail_at):
    model, batch = Careless(fail_at), random_batch()
    model.net(batch["pos"]).sum().backward()
    model.net[0].eval()
    saved = {k: v.clone() for k, v in model.state_dict().items()}
    gradients = [p.grad.clone() for p in model.parameters()]
    flags = [m.training for m in model.modules()]
    inputs = {k: v.clone() for k, v in batch.items()}
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    try:
        eq.measure(model, [batch], **SHORT)
        assert fail_at is None
    except ValueError:
        assert fail_at is not None
    assert all(torch.equal(v, saved[k]) for k, v in model.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert [m.training for m in model.modules()] == flags
    assert all(torch.equal(batch[k], v) for k, v in inputs.items())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]


def test_without_labels_percent_is_nan_and_the_relative_error_stays():
    batch = {"pos": random_batch()["pos"]}
    result = eq.measure(Linear(matrix()), [batch], inputs={"pos": "1o"}, outputs={"forces": "1o"})
    assert np.isnan(result.percent)
    assert result.equivariance == pytest.approx(float(linear_error(matrix(), batch["pos"]).mean()), rel=1e-10)
    assert "needs labels" in str(result)


def test_loss_as_given_is_the_users_own_loss():
    model, batch = Tanh(), random_batch()
    result = eq.measure(model, [batch], **SHORT)
    given = (model(batch)["forces"] - batch["y"]).square().mean().detach()
    assert result.loss_as_given == pytest.approx(float(given), rel=1e-12)


def test_results_survive_json():
    result = eq.measure(Tanh(), [random_batch()], **SHORT)
    again = eq.Result.from_dict(json.loads(json.dumps(result.to_dict())))
    assert again == result
    with pytest.raises(AttributeError):
        result.percent = 0


def bad(**changes):
    return [random_batch() | changes]


class Wobbly(nn.Module):
    def forward(self, batch):
        return {"forces": batch["pos"] + 0.1 * torch.randn_like(batch["pos"])}


class NotFinite(nn.Module):
    def forward(self, batch):
        return {"forces": batch["pos"].where(batch["pos"] < 1.5, float("nan"))}


class Elsewhere(nn.Module):
    """Stands for a model on another device, which this test cannot count on having."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.ones(3, device="meta"))

    def forward(self, batch):
        raise RuntimeError("Expected all tensors to be on the same device")


class WrongKey(nn.Module):
    def forward(self, batch):
        return {"force": batch["pos"]}


class WrongShape(nn.Module):
    def forward(self, batch):
        return {"forces": batch["pos"][..., :2]}


NAN = random_batch()["pos"].clone().index_fill(0, torch.tensor([2]), float("nan"))


@pytest.mark.parametrize(
    ("model", "batches", "arguments", "error", "message"),
    [
        (Tanh(), [], {}, InputError, "empty"),
        (Tanh(), random_batch(), {}, InputError, r"write \[batch\]"),
        (Tanh(), 3, {}, InputError, "iterable"),
        (Tanh(), [3], {}, InputError, "batch of type int"),
        (Tanh(), bad(pos=NAN), {}, NonFiniteError, "input 'pos'.*1 of 6"),
        (Tanh(), bad(y=NAN), {}, NonFiniteError, "target 'y'"),
        (NotFinite(), bad(), {}, NonFiniteError, "prediction 'forces'"),
        (Tanh(), bad(charge=torch.ones(6, 4)), {}, DeclarationError, "'charge'.*fixed="),
        (Tanh(), bad(y=torch.ones(5, 4, 3).double()), {}, InputError, "differ in length"),
        (Tanh(), [{k: v[:0] for k, v in random_batch().items()}], {}, InputError, "empty batch"),
        (Tanh(), bad(mask=torch.zeros(6, 4, dtype=torch.bool)), {"mask": "mask"}, InputError, "zero atoms"),
        (Tanh(), bad(mask=torch.ones(6, 4, dtype=torch.long) * 2), {"mask": "mask"}, InputError, "boolean"),
        (Tanh(), bad(), {"mask": "mask"}, DeclarationError, "no field 'mask'"),
        (Tanh(), bad(), {"clusters": "molecule"}, DeclarationError, "no field 'molecule'"),
        (Tanh(), bad(), {"fixed": ["charge"]}, DeclarationError, "no tensor 'charge'"),
        (Tanh(dtype=torch.float32), bad(), {}, InputError, "'pos' is torch.float64.*float32"),
        (Elsewhere(), bad(), {}, InputError, "'pos' is on cpu.*meta"),
        (Wobbly(), bad(), {}, RandomModelError, "'forces' changes by"),
        (WrongKey(), bad(), {}, DeclarationError, r"no tensor 'forces'; it has \['force'\]"),
        (WrongShape(), bad(), {}, DeclarationError, "trailing shape"),
        (Tanh(), bad(), {"rotations": "K"}, InputError, "unknown rotations"),
        (Tanh(), bad(), {"cosets": 1}, InputError, "too few"),
        (Tanh(), bad(), {"cosets": 2.0}, InputError, "cosets must be"),
        (Tanh(), bad(), {"seed": -1}, InputError, "seed must be"),
        (Tanh(), bad(), {"loss": "l1", "cosets": 2}, InputError, "at least 4"),
        (Tanh(), bad(), {"loss": "rmse"}, InputError, "unknown loss"),
        (Tanh(), bad(), {"loss": "cross_entropy"}, InputError, "averages"),
        (Tanh(), bad(), {"rotation": "T"}, InputError, "unknown arguments"),
        (Tanh(), bad(pos=torch.ones(6, 4, 3, dtype=torch.long)), {}, DeclarationError, "dtype torch.int64"),
        (Tanh(), bad(id=torch.tensor([-1, 0, 1, 2, 3, 4])), {"ids": "id"}, InputError, "ids must be"),
        (Tanh(), bad(), {"inputs": None}, InputError, "say what rotates"),
    ],
)
def test_bad_input_gets_a_clear_error(model, batches, arguments, error, message):
    with pytest.raises(error, match=message):
        eq.measure(model, batches, **(SHORT | arguments))


def test_a_quadrature_counts_its_rotations_by_their_weights():
    a = torch.randn(3, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def cubic(x):
        return (x @ a.T).pow(3)

    # The twisted prediction has degrees up to 4, its square up to 8: the grid of degree 9 is exact, its plain mean not.
    batch = {k: v[:, :1] for k, v in random_batch(3).items()}
    fixed = eq.measure(lambda b: cubic(b["pos"]), [batch], rotations="lebedev-9", cosets=1, shift=False, **SHORT)
    total, _, equivariance = brute_split(cubic, batch["pos"][:, 0], batch["y"][:, 0], "lebedev-15")
    assert fixed.equivariance == pytest.approx(float(equivariance.mean()), rel=1e-9)
    assert fixed.total == pytest.approx(float(total.mean()), rel=1e-9)


def test_samples_of_one_cluster_are_not_independent():
    batch = {k: v.repeat_interleave(4, dim=0) for k, v in random_batch(20).items()}
    batch["molecule"] = torch.arange(20).repeat_interleave(4)
    apart = eq.measure(Linear(matrix()), [batch], fixed=[], **SHORT)
    together = eq.measure(Linear(matrix()), [batch], clusters="molecule", **SHORT)
    assert (apart.clusters, together.clusters) == (80, 20)
    assert together.percent == pytest.approx(apart.percent, rel=1e-12)
    assert together.percent_error == pytest.approx(2 * apart.percent_error, rel=0.1)
