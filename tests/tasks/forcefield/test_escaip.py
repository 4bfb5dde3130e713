"""EScAIP: invariant up to its head, exactly equivariant when tied, and the head inputs are what it says."""

import e3nn.o3
import numpy as np
import pytest
import torch
from torch import Tensor

from equiscope.errors import InputError
from equiscope.symmetry.rotations import group, haar
from equiscope.tasks.forcefield import neighbours
from equiscope.tasks.forcefield.edges import log_envelope
from equiscope.tasks.forcefield.escaip import legendre, order_parameters, sum_edges
from equiscope.tasks.forcefield.models import build
from tests.tasks.forcefield.closed_form import closed_form, head_inputs
from tests.tasks.forcefield.molecules import random_batch, rotated
from tests.tasks.forcefield.test_models import awake

PUBLISHED = {"norm": "rms", "angle": "cosine", "aggregation": "mean", "dropout": 0.05, "attention_dropout": 0.1}


def model_of(name: str, **settings) -> torch.nn.Module:
    torch.manual_seed(0)
    return awake(build(name, **settings).double()).eval()


@pytest.mark.parametrize("determinant", [1, -1])
@pytest.mark.parametrize("settings", [{}, {"nearest": 5}, {**PUBLISHED, "nearest": 5}])
def test_the_tied_twin_is_exactly_equivariant(determinant: int, settings: dict) -> None:
    model = model_of("escaip_tied", **settings)
    batch = random_batch([12, 15, 1, 8], pad=float("nan"))
    out = model(batch)
    for rotation in determinant * haar(3, torch.Generator().manual_seed(1)):
        turned = model(rotated(batch, rotation))
        torch.testing.assert_close(turned["forces"] @ rotation, out["forces"], atol=1e-10, rtol=1e-10)
        torch.testing.assert_close(turned["energy"], out["energy"], atol=1e-10, rtol=1e-10)


def test_three_free_rows_break_the_symmetry_of_forces_but_not_of_the_energy() -> None:
    model = model_of("escaip")
    batch = random_batch([12, 15, 8])
    rotation = haar(1, torch.Generator().manual_seed(1))[0]
    out, turned = model(batch), model(rotated(batch, rotation))
    assert (turned["forces"] @ rotation - out["forces"]).norm() > 0.05 * out["forces"].norm()
    torch.testing.assert_close(turned["energy"], out["energy"], atol=1e-10, rtol=1e-10)


def test_the_tied_twin_runs_the_same_code_on_the_same_weights() -> None:
    free, tied = model_of("escaip"), model_of("escaip_tied")
    weights = free.state_dict()
    tied.load_state_dict({**weights, "force_head.weight": weights["force_head.weight"][:1]})
    with torch.no_grad():
        free.force_head.weight.copy_(free.force_head.weight[:1].clone().expand(3, -1))
    batch = random_batch([12, 8])
    torch.testing.assert_close(free(batch)["forces"], tied(batch)["forces"], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("settings", [{}, PUBLISHED])
def test_head_inputs_give_the_forces(settings: dict) -> None:
    model = model_of("escaip", **settings)
    batch = random_batch([12, 15, 1, 8], pad=999.0)
    inputs = head_inputs(model, batch)
    rows = inputs.features @ model.force_head.weight.T
    forces = inputs.magnitude[:, None] * (rows * inputs.unit).sum(1)
    torch.testing.assert_close(inputs.atoms.pad(forces), model(batch)["forces"], atol=1e-10, rtol=1e-10)
    assert (inputs.features[~inputs.valid] == 0).all()
    assert torch.allclose(inputs.unit[inputs.valid].norm(dim=-1), torch.ones(1, dtype=torch.float64))


def test_head_inputs_are_invariant() -> None:
    model = model_of("escaip")
    batch = random_batch([12, 8])
    rotation = haar(1, torch.Generator().manual_seed(2))[0]
    one, other = head_inputs(model, batch), head_inputs(model, rotated(batch, rotation))
    torch.testing.assert_close(one.magnitude, other.magnitude, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(one.features, other.features, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(one.unit @ rotation.T, other.unit, atol=1e-10, rtol=1e-10)


def test_the_force_head_starts_xavier_uniform() -> None:
    torch.manual_seed(0)
    weight = build("escaip", "6M").force_head.weight
    bound = (6 / (3 + weight.shape[1])) ** 0.5
    assert weight.shape[0] == 3
    assert 0.95 * bound < weight.abs().max() <= bound
    assert abs(weight.var() / (bound**2 / 3) - 1) < 0.15


def test_legendre_polynomials() -> None:
    x = torch.linspace(-1, 1, 21, dtype=torch.float64)
    expected = np.polynomial.legendre.legvander(x.numpy(), 9)
    torch.testing.assert_close(legendre(x, 9), torch.from_numpy(expected), atol=1e-12, rtol=0)
    assert legendre(x, 1).shape == (21, 2)


def test_order_parameters_are_norms_of_mean_spherical_harmonics() -> None:
    model = model_of("escaip", degree=6)
    atoms = neighbours.flatten(random_batch([9, 1, 5]))
    edges, length = model._edges(atoms)
    weight = log_envelope(length, model.config.cutoff).exp()
    total = torch.zeros(15, dtype=torch.float64).index_add(0, edges.found.centre, weight)
    for degree in range(7):
        harmonics = e3nn.o3.spherical_harmonics(degree, edges.unit, normalize=True, normalization="norm")
        mean = torch.zeros(15, 2 * degree + 1, dtype=torch.float64)
        mean = mean.index_add(0, edges.found.centre, weight[:, None] * harmonics)
        expected = (mean.square().sum(1) + 1e-6).sqrt() / (1 + total)
        torch.testing.assert_close(order_parameters(edges)[:, degree], expected, atol=1e-9, rtol=0)


def test_means_over_neighbours_are_means() -> None:
    model, plain = model_of("escaip", **PUBLISHED), model_of("escaip")
    atoms = neighbours.flatten(random_batch([12, 15, 2]))
    edges, _ = model._edges(atoms)
    values = torch.randn(len(edges.unit), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    summed = sum_edges(values, edges, len(atoms.sample))
    linked = edges.found.valid.any(1)
    assert not summed[~linked].any()
    for atom in linked.nonzero().flatten().tolist():
        own = values[edges.found.centre == atom]
        torch.testing.assert_close(summed[atom], own.mean(0), atol=1e-12, rtol=1e-12)
    assert (edges.weight == 1).all()
    assert (plain._edges(atoms)[0].weight < 1).all()
    # |mean Y_l|² by e3nn's harmonics.
    for l in range(5):  # noqa: E741
        harmonics = e3nn.o3.spherical_harmonics(l, edges.unit, True, normalization="norm")
        own = torch.stack([harmonics[edges.found.centre == atom].mean(0) for atom in linked.nonzero().flatten()])
        expected = (own.square().sum(-1) + 1e-6).sqrt()
        torch.testing.assert_close(order_parameters(edges, mean=True)[linked, l], expected, atol=1e-10, rtol=1e-10)


def test_the_cosine_has_one_scalar_a_head_that_starts_at_one() -> None:
    attention = build("escaip", **PUBLISHED).double().eval().layers[0].attention
    assert torch.equal(attention.angle, torch.ones(1, 4, dtype=torch.float64))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 36, dtype=torch.float64, generator=generator)
    unit = torch.nn.functional.normalize(torch.randn(3, 3, dtype=torch.float64, generator=generator), dim=-1)
    cosine = unit @ unit.T
    table, slot, bias = torch.arange(3)[None], torch.arange(3), torch.zeros(1, 1, 1, 3, dtype=torch.float64)
    given = attention(x, table, slot, legendre(cosine, 4)[None], bias)
    q, k, v = attention.qkv(x).reshape(3, 3, 4, 9).permute(1, 2, 0, 3)
    mixed = ((q @ k.mT / 3 + cosine).softmax(-1) @ v).transpose(0, 1).reshape(3, 36)
    torch.testing.assert_close(given, attention.out(mixed), atol=1e-12, rtol=1e-12)


def test_dropout_is_in_training_alone_and_the_norms_are_what_they_are_called() -> None:
    model, batch = model_of("escaip", **PUBLISHED), random_batch([12, 8])
    model.eval()
    assert torch.equal(model(batch)["forces"], model(batch)["forces"])
    model.train()
    assert not torch.equal(model(batch)["forces"], model(batch)["forces"])
    kinds = {type(module).__name__ for module in model.modules()}
    assert "RMSNorm" in kinds
    assert "LayerNorm" not in kinds
    rates = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.05, 0.1}


def test_unknown_options_are_refused() -> None:
    for settings, message in (
        ({"norm": "batch"}, "norm must be one of layer, rms"), ({"angle": "none"}, "angle must be one of"),
        ({"aggregation": "max"}, "aggregation must be one of"), ({"dropout": 2.0}, "dropout must be a share"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            build("escaip", **settings)


def closed_model_of(name: str) -> torch.nn.Module:
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
    model = closed_model_of("escaip")
    batch = random_batch([12, 15, 1, 8], pad=999.0)
    shift = haar(1, torch.Generator().manual_seed(4))[0]
    mean, spread = averages(model, batch, group(name).matrices @ shift)
    exact = closed_form(model, batch)
    torch.testing.assert_close(exact.twirled, mean, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(exact.equivariance, spread, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(exact.forces, model(batch)["forces"], atol=1e-10, rtol=1e-10)
    assert exact.equivariance[batch["mask"]].max() > 1e-2


def test_a_group_too_small_is_noticed() -> None:
    model = closed_model_of("escaip")
    batch = random_batch([12, 15, 8])
    _, spread = averages(model, batch, group("D2").matrices)
    assert (closed_form(model, batch).equivariance - spread).abs().max() > 1e-3


def test_twirling_is_averaging_the_rows_of_the_head() -> None:
    model = closed_model_of("escaip")
    batch = random_batch([12, 8])
    twirled = closed_form(model, batch).twirled
    with torch.no_grad():
        model.force_head.weight.copy_(model.force_head.weight.mean(0).expand(3, -1))
    torch.testing.assert_close(model(batch)["forces"], twirled, atol=1e-10, rtol=1e-10)


def test_per_sample_is_the_mean_over_real_components() -> None:
    batch = random_batch([12, 5, 1], pad=float("nan"))
    exact = closed_form(closed_model_of("escaip"), batch)
    expected = [exact.equivariance[s, :n].mean() / 3 for s, n in enumerate([12, 5, 1])]
    torch.testing.assert_close(exact.per_sample, torch.stack(expected), atol=1e-12, rtol=1e-12)
    assert (exact.equivariance[~batch["mask"]] == 0).all()


def test_the_tied_twin_has_none() -> None:
    exact = closed_form(closed_model_of("escaip_tied"), random_batch([12, 8]))
    assert exact.equivariance.abs().max() < 1e-20


def test_is_differentiable() -> None:
    model = closed_model_of("escaip")
    exact = closed_form(model, random_batch([12, 8]))
    (gradient,) = torch.autograd.grad(exact.per_sample.mean(), model.force_head.weight)
    # A common change of all rows is a change of the twirl alone.
    assert gradient.abs().max() > 1e-6
    assert gradient.sum(0).abs().max() < 1e-10
