"""Unusual but legitimate input: each has a documented result, asserted here."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import equiscope as eq
from equiscope.decomposition.collect import prepared_batches
from equiscope.decomposition.plan import make_plan
from equiscope.errors import DataError, DeclarationError, InputError, ModelError, NonFiniteError

from .models import Linear, Tanh, linear_error, random_batch

SHORT = dict(inputs={"pos": "1o"}, outputs={"forces": "1o"}, target="y")
MATRIX = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def measure(model, batch, **changes):
    return eq.measure(model, batch if isinstance(batch, list) else [batch], **(SHORT | changes))


def truth(batch):
    return float(linear_error(MATRIX, batch["pos"]).mean())


def test_one_atom_and_one_sample():
    batch = random_batch(1, 1)
    result = measure(Linear(MATRIX), batch)
    assert result.equivariance == pytest.approx(truth(batch), rel=1e-10)
    assert result.interval_kind == "none"
    assert math.isnan(result.percent_interval[0])
    assert result.orientation == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert "one cluster: no interval" in str(result)
    assert any("fewer than two clusters" in n for n in result.notes)


def test_one_atom_about_its_own_mean_stays_while_its_force_turns():
    batch = random_batch(3, 1)
    answer = batch["pos"] @ MATRIX.T
    result = measure(Linear(MATRIX), batch, center="mean")
    assert result.equivariance == pytest.approx(float(answer.square().mean()), rel=1e-10)


def test_one_cluster_of_many_samples():
    result = measure(Linear(MATRIX), random_batch() | {"m": ["water"] * 6}, clusters="m")
    assert (result.clusters, result.interval_kind) == (1, "none")


def test_all_loss_in_one_cluster():
    batch = random_batch(3)
    batch = {k: v * torch.tensor([1.0, 0, 0]).double()[:, None, None] for k, v in batch.items()}
    with np.errstate(all="ignore"):
        result = measure(Linear(MATRIX), batch)
    assert result.equivariance == pytest.approx(truth(batch), rel=1e-10)
    assert result.percent > 0


def test_a_total_loss_of_zero_has_no_percent():
    result = measure(lambda b: 0 * b["pos"], {k: 0 * v for k, v in random_batch().items()})
    assert (result.total, result.equivariance) == (0, 0)
    assert math.isnan(result.percent)
    assert any("total loss is zero" in n for n in result.notes)
    assert "total loss is zero" in str(result)
    assert "labels" not in str(result)


def test_subnormal_labels_of_a_zero_model():
    batch = random_batch()
    batch["y"] = torch.full_like(batch["y"], 5e-324)
    result = measure(lambda b: 0 * b["pos"], batch)
    assert result.total == 0
    assert any("total loss is zero" in n for n in result.notes)


def test_perfect_predictions_are_noise():
    batch = random_batch()
    result = measure(lambda b: b["pos"], batch | {"y": batch["pos"].clone()})
    assert result.total < 1e-30
    assert not result.distinguishable
    assert result.r2 == pytest.approx(1)


def test_weights_of_zero_have_no_percent():
    result = measure(Tanh(), random_batch(), outputs={"forces": eq.Output("1o", target="y", weight=0)}, target=None)
    assert math.isnan(result.percent)
    assert any("total loss is zero" in n for n in result.notes)
    assert result.outputs["forces"].percent > 0


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-1), (torch.float16, 2e-2)])
def test_low_precision_is_measured_with_its_own_floor(dtype, digits):
    batch = random_batch(32)
    result = measure(Tanh(dtype=dtype), {k: v.to(dtype) for k, v in batch.items()})
    assert result.percent == pytest.approx(measure(Tanh(), batch).percent, rel=digits)
    eps = torch.finfo(dtype).eps
    assert eps**2 / 10 < result.noise_floor < 100 * eps**2


def test_positions_near_the_limit_of_half_precision_are_refused():
    batch = {k: v.half() for k, v in random_batch().items()}
    batch["pos"][0, 0, 0] = 60_000
    with pytest.raises(eq.errors.NonFiniteError, match="too large to turn"):
        measure(Tanh(dtype=torch.float16), batch)


def test_train_mode_and_dropout_layers_are_put_back():
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).double()
    model[1].eval()
    result = measure(model, random_batch(), forward=lambda m, b: m(b["pos"]))
    assert result == measure(model, random_batch(), forward=lambda m, b: m(b["pos"]))
    assert (model.training, model[0].training, model[1].training) == (True, True, False)


@pytest.mark.parametrize("fails_at", [0, 1, 3, 20])
def test_what_a_model_raises_is_named_and_stays_its_own_error(fails_at):
    class Failing(Linear):
        calls = 0

        def forward(self, batch):
            self.calls += 1
            if self.calls > fails_at:
                raise KeyError("attention")
            torch.rand(1)
            return super().forward(batch)

    model, state = Failing(MATRIX), torch.get_rng_state()
    with pytest.raises(ModelError, match=r"fails on (the|a turned copy of the) batch.*: KeyError: 'attention'") as seen:
        measure(model, random_batch())
    # Code that catches the model's own error goes on doing so.
    assert isinstance(seen.value, KeyError)
    assert isinstance(seen.value.__cause__, KeyError)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)


def test_what_a_loader_raises_is_named_and_stays_its_own_error():
    def loader():
        yield random_batch()
        raise OSError("disk on fire")

    model = Tanh()
    with pytest.raises(DataError, match=r"after 1 of them.*OSError: disk on fire") as seen:
        eq.measure(model, loader(), **SHORT)
    assert isinstance(seen.value, OSError)
    assert model.training


def test_answers_in_reused_memory():
    class Reuses(nn.Module):
        def __init__(self):
            super().__init__()
            self.energy = torch.zeros(6, dtype=torch.float64)

        def forward(self, batch):
            torch.sum(batch["pos"] @ MATRIX[0], dim=1, out=self.energy)
            return {"e": self.energy}

    outputs = {"e": eq.Output("0e", target="e", per="sample")}
    batch = random_batch() | {"e": torch.ones(6).double()}
    reused, fresh = (
        measure(model, batch, outputs=outputs, target=None, fixed=["y"], spectrum=True)
        for model in (Reuses(), lambda b: {"e": (b["pos"] @ MATRIX[0]).sum(1)})
    )
    square = batch["pos"].sum(1).square().sum(-1).mean() * MATRIX[0].square().sum() / 3
    assert fresh.equivariance == pytest.approx(float(square), rel=1e-10)
    assert reused.equivariance == pytest.approx(fresh.equivariance, rel=1e-12)
    assert reused.spectrum["share"] == pytest.approx(fresh.spectrum["share"], rel=1e-9, abs=1e-12)


def test_a_loss_that_works_in_place_spoils_nothing():
    def in_place(prediction, target):
        return prediction.sub_(target).square_().mean((1, 2))

    def clean(prediction, target):
        return (prediction - target).square().mean((1, 2))

    batch = random_batch()
    labels = batch["y"].clone()
    a, b = (measure(Tanh(), batch, loss=chosen, cosets=4) for chosen in (in_place, clean))
    assert a.percent == pytest.approx(b.percent, rel=1e-12)
    assert torch.equal(batch["y"], labels)

    def spoils_target(prediction, target):
        return target.sub_(prediction).square_().mean((1, 2))

    assert measure(Tanh(), batch, loss=spoils_target, cosets=4).percent == pytest.approx(b.percent, rel=1e-12)
    assert torch.equal(batch["y"], labels)


def test_integer_labels_of_a_regression_are_numbers():
    batch = random_batch()
    batch["y"] = batch["y"].round().long()
    assert measure(Tanh(), batch).total == measure(Tanh(), batch | {"y": batch["y"].double()}).total
    energies = {"e": eq.Output("0e", target="n", per="sample")}
    counted = random_batch() | {"n": torch.arange(6)}
    result = measure(lambda b: {"e": b["pos"].sum((1, 2))}, counted, outputs=energies, target=None, fixed=["y"])
    assert result.outputs["e"].loss_as_given == pytest.approx(
        float((counted["pos"].sum((1, 2)) - torch.arange(6)).square().mean())
    )


def test_padding_of_any_input_may_hold_anything():
    batch = random_batch() | {"mask": torch.tensor([[True] * 3 + [False]] * 6)}
    inputs = {"pos": eq.Input("1o", points=True), "v": "1o"}

    def model(b):
        return b["pos"] @ MATRIX.T + b["v"] * 0.1

    clean = measure(model, batch | {"v": batch["pos"]}, inputs=inputs, mask="mask")
    batch["v"] = batch["pos"].clone()
    for name in ("pos", "v", "y"):
        batch[name][:, 3] = math.nan
    assert measure(model, batch, inputs=inputs, mask="mask").percent == pytest.approx(clean.percent, rel=1e-12)


def test_fields_nobody_reads():
    extra = {"cell": None, "t": torch.tensor(0.5), "name": list("abcdef"), "z": np.arange(6), "meta": {"source": "x"}}
    assert measure(Tanh(), random_batch() | extra).percent == measure(Tanh(), random_batch()).percent


@pytest.mark.parametrize("labels", [list("aabbcc"), np.array([0, 0, 1, 1, 2, 2]), ((0, "x"),) * 2 + (None, None, 1, 1)])
def test_clusters_of_any_plain_kind(labels):
    assert measure(Tanh(), random_batch() | {"c": labels}, clusters="c").clusters == 3


def test_repeated_ids_are_said_and_count_each():
    batch = {k: torch.cat([v, v[:2]]) for k, v in random_batch().items()}
    batch["id"] = torch.tensor([0, 1, 2, 3, 4, 5, 0, 1])
    result = measure(Tanh(), batch, ids="id")
    assert (result.samples, result.clusters) == (8, 6)
    assert any("2 samples repeat an id" in n for n in result.notes)
    assert result.per_sample.equivariance[0] == result.per_sample.equivariance[6]


def test_ids_and_seeds_up_to_the_last_bit():
    batch = random_batch() | {"id": torch.arange(6) + (2**63 - 6)}
    result = measure(Linear(MATRIX), batch, ids="id", seed=2**63 - 1)
    assert result.equivariance == pytest.approx(truth(batch), rel=1e-10)


def test_huge_and_tiny_numbers_that_fit():
    for scale in (1e-140, 1e140):
        batch = {k: scale * v for k, v in random_batch().items()}
        result, ordinary = measure(Linear(MATRIX), batch), measure(Linear(MATRIX), random_batch())
        assert result.percent == pytest.approx(ordinary.percent, rel=1e-9)
        assert result.percent_interval == pytest.approx(ordinary.percent_interval, rel=1e-9)
        assert sum(result.orientation) == pytest.approx(1)


def test_inputs_that_carry_gradients_and_views():
    batch = random_batch(1)
    views = {k: v.expand(6, -1, -1) for k, v in batch.items()}
    views["pos"] = views["pos"].detach().requires_grad_()
    result = measure(Linear(MATRIX), views)
    assert result.equivariance == pytest.approx(truth(batch), rel=1e-10)
    assert views["pos"].grad is None


def test_batches_of_different_sizes_and_dtypes_of_labels():
    parts = [random_batch(2, 3), random_batch(1, 7, seed=1)]
    parts[1]["y"] = parts[1]["y"].float()
    result = measure(Linear(MATRIX), parts)
    each = [linear_error(MATRIX, p["pos"]).mean(1) for p in parts]
    assert result.equivariance == pytest.approx(float(torch.cat(each).mean()), rel=1e-10)


def test_a_model_without_labels_keeps_its_relative_error():
    result = measure(Linear(MATRIX), {"pos": random_batch()["pos"]}, target=None)
    assert math.isnan(result.percent)
    assert math.isnan(result.total)
    assert 0 < result.relative_equivariance < 1


def test_target_and_loss_speak_for_the_only_output():
    outputs = {"forces": eq.Output("1o")}
    assert measure(Tanh(), random_batch(), outputs=outputs).percent == measure(Tanh(), random_batch()).percent
    own = {"forces": eq.Output("1o", loss="l1")}
    short, said = (measure(Tanh(), random_batch(), outputs=o, loss="l1", cosets=4) for o in (outputs, own))
    assert (short.loss, short.percent) == ("l1", said.percent)
    with pytest.raises(eq.errors.DeclarationError, match="loss='huber' contradicts the own loss='l1'"):
        measure(Tanh(), random_batch(), outputs=own, loss="huber", cosets=4)


def test_rtol_on_few_samples_ends_and_says_why():
    result = measure(Tanh(), random_batch(2), rtol=0.01, max_passes=500)
    assert any("rtol=0.01" in n for n in result.notes)


def test_twirled_refuses_nan_as_measure_does_and_keeps_padding_zero():
    batch = random_batch() | {"mask": torch.tensor([[True] * 3 + [False]] * 6)}
    twirled = eq.Twirled(Tanh(), inputs=SHORT["inputs"], outputs=SHORT["outputs"], mask="mask")
    batch["pos"][:, 3] = math.nan
    assert torch.isfinite(twirled(batch)["forces"]).all()
    assert (twirled(batch)["forces"][:, 3] == 0).all()
    batch["pos"][2, 0] = math.nan
    with pytest.raises(NonFiniteError, match=r"input 'pos' is NaN.* \(positions \[2\]\)"):
        twirled(batch)


def pairs(batch):
    """Forces along the distances of the atoms of each sample: exactly equivariant, nonlinear."""
    apart = batch["pos"][:, None] - batch["pos"][:, :, None]
    return {"forces": (apart / (1 + apart.square().sum(-1, keepdim=True))).sum(2)}


def test_atoms_that_the_loss_leaves_out_turn_with_the_others():
    batch = random_batch(6, 5)
    free = torch.arange(30).reshape(6, 5) % 3 > 0
    forces = {"forces": eq.Output("1o", target="y", mask="free")}
    exact = dict(outputs=forces, target=None)
    dense = batch | {"free": free}
    with pytest.raises(DeclarationError, match=r"mask 'free' is said of the outputs alone, .* per='sample'"):
        measure(pairs, dense, **exact)
    for center in ("origin", "mean"):
        turned = measure(pairs, dense, **exact, center=center, inputs={"pos": eq.Input("1o", True, per="sample")})
        assert turned.relative_equivariance < 1e-25
        named = measure(pairs, dense | {"all": free | ~free}, **exact, center=center, mask="all")
        assert named.total == pytest.approx(turned.total, rel=1e-12)
    assert measure(pairs, dense, **exact, mask="free").relative_equivariance > 1e-3
    # What is padding is known by its numbers.
    zeros = dense | {"pos": torch.where(free[..., None], batch["pos"], 0.0)}
    assert measure(pairs, zeros, **exact).total == measure(pairs, zeros, **exact, mask="free").total


@pytest.mark.parametrize("symmetry", ["rotation", "translation", "permutation", "supercell"])
def test_a_mask_of_atoms_one_after_another_tears_no_sample(symmetry):
    batch = random_batch(6, 4)
    cell = 6 * torch.eye(3, dtype=torch.float64).expand(6, 3, 3)
    ragged = {k: v.flatten(0, 1) for k, v in batch.items()} | {
        "cell": cell, "sample": torch.arange(6).repeat_interleave(4), "free": torch.arange(24) % 3 > 0
    }  # fmt: skip

    def nearest_images(batch):
        """Of pairs nearer than half the smallest cell, by their nearest images."""
        pos, sample = batch["pos"], batch["sample"]
        cells = batch["cell"][sample][:, None]
        apart = pos[None] - pos[:, None]
        steps = torch.linalg.solve(cells.mT, apart[..., None])[..., 0].round()
        apart = apart - torch.einsum("nmi,nmij->nmj", steps, cells.expand(*steps.shape, 3))
        near = (1 - apart.square().sum(-1) / 9).clamp_min(0) ** 3 * (sample[None] == sample[:, None])
        return {"forces": (near[..., None] * apart).sum(1)}

    inputs = {"pos": eq.Input("1o", points=True), "cell": eq.Input("1o", points=False, per="sample")}
    outputs = {"forces": eq.Output("1o", target="y", mask="free")}
    result = eq.measure(nearest_images, [ragged], inputs=inputs, outputs=outputs, batch="sample", symmetry=symmetry)
    assert result.relative_equivariance < 1e-25


def test_labels_of_some_atoms_alone():
    batch = random_batch()
    batch["y"][:, 0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"leave what has no label out of the loss, .*mask='…'"):
        measure(pairs, batch)


def filling_one_memory(batches):
    """As loaders do that make no new tensors."""
    held = {name: torch.empty_like(value) for name, value in batches[0].items()}
    for batch in batches:
        for name, value in batch.items():
            held[name].copy_(value)
        yield held


def test_streams_that_fill_one_memory_for_every_batch():
    batches = [{k: v.clone() for k, v in random_batch(6, seed=seed).items()} for seed in range(4)]
    plan = make_plan(eq.Declaration({"pos": "1o"}, {"forces": eq.Output("1o", target="y")}))
    models = Tanh(), Linear(MATRIX)

    def figures(given):
        compared = eq.compare(*models, given(), **SHORT)
        searched = eq.measure(models[0], given(), **SHORT, rtol=0.02, rotations="haar", cosets=2, max_passes=400)
        prepared = prepared_batches(given(), plan)
        ladder = eq.precisions(models[0], given(), **SHORT, names=["float64", "float32"])
        rungs = [rung.relative for rung in ladder.rungs]
        sums = [one.batch.fields()["pos"].sum().item() for one in prepared]
        return [compared.difference, compared.b.total, searched.total, searched.equivariance, *sums, *rungs]

    assert figures(lambda: filling_one_memory(batches)) == figures(lambda: iter(batches))


@pytest.mark.parametrize("samples", [2, 3, 20])
def test_samples_that_see_each_other_are_said_to(samples):
    batch = random_batch(samples)
    centred = measure(lambda b: {"forces": b["pos"] - b["pos"].mean((0, 1))}, batch, cosets=100)
    assert any(note.startswith("samples see each other") for note in centred.notes)
    means = batch["pos"].mean(1)
    # p_i = x_i - sum_j g_i^-1 g_j m_j / n.
    others = (means.square().sum() - means.square().sum(1)).mean() / (3 * samples**2)
    assert centred.equivariance == pytest.approx(float(others), rel=0.2)
    assert not any("see each other" in note for note in measure(Tanh(), batch).notes)


def test_axes_that_were_exchanged():
    batch = random_batch()
    size = batch["pos"].square().sum((1, 2))[:, None, None]
    batch["t"] = size * torch.arange(6.0).reshape(2, 3)
    declared = dict(outputs={"q": eq.Output("0e", target="t", per="sample")}, target=None, fixed=["y"])
    with pytest.raises(InputError, match=r"'q' has shape \(6, 3, 2\) and its labels 't' \(6, 2, 3\)"):
        measure(lambda b: {"q": b["pos"].square().sum((1, 2))[:, None, None] * torch.ones(3, 2)}, batch, **declared)
    assert measure(lambda b: {"q": b["t"][:, None]}, batch, **declared).total == 0
