"""What every force-field model must do, whatever its architecture; sizes by name; clear refusals."""

import pytest
import torch
from torch import Tensor, nn

from equiscope.errors import InputError
from equiscope.tasks.forcefield.models import MODELS, build
from tests.tasks.forcefield.molecules import random_batch

# Our own architectures; the tests of others are in test_nequip_field and test_pet_field.
NAMES = sorted(name for name in MODELS if not name.startswith(("nequip", "pet")))
SMALL = {
    "edge_transformer": {"width": 16, "layers": 3, "feedforward": 16, "radial": 8},
    "escaip": {"width": 16, "layers": 2, "radial": 8},
    "escaip_tied": {"width": 16, "layers": 2, "radial": 8},
}


def model_of(name: str, **settings) -> nn.Module:
    torch.manual_seed(0)
    return awake(build(name, **{**SMALL[name], **settings}).double())


def awake(model: nn.Module) -> nn.Module:
    """Every parameter moved off its start, so that none that begins at zero hides a dependence."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = 1e-10) -> None:
    for name in ("energy", "forces"):
        torch.testing.assert_close(one[name], other[name], atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("size", "parameters"), [("nano", 59_000), ("1M", 1_000_000), ("4M", 4_000_000), ("6M", 6_000_000)]
)
def test_sizes_have_the_parameters_of_their_names(name: str, size: str, parameters: int) -> None:
    with torch.device("meta"):
        count = sum(p.numel() for p in build(name, size).parameters())
    assert 0.9 * parameters < count < 1.1 * parameters


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_dtypes_and_zero_padding(name: str, dtype: torch.dtype) -> None:
    model = model_of(name).to(dtype)
    batch = random_batch([7, 1, 4], pad=999.0, dtype=dtype)
    out = model(batch)
    assert out["energy"].shape == (3,)
    assert out["forces"].shape == (3, 7, 3)
    assert out["energy"].dtype == out["forces"].dtype == dtype
    assert (out["forces"][~batch["mask"]] == 0).all()
    assert (out["forces"][0].norm(dim=1) > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_float32_follows_float64(name: str) -> None:
    # A well-scaled model, as initialised: perturbed weights amplify rounding.
    torch.manual_seed(0)
    model = build(name, "nano")
    batch = random_batch([12, 9, 5])
    single = model({**batch, "pos": batch["pos"].float()})
    assert_same({k: v.double() for k, v in single.items()}, model.double()(batch), tolerance=2e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pad", [999.0, float("nan"), float("inf")])
def test_padding_never_leaks_into_values_or_gradients(name: str, pad: float) -> None:
    model = model_of(name)
    results = []
    for value in (0.0, pad):
        batch = random_batch([8, 3, 1], pad=value)
        batch["pos"].requires_grad_()
        out = model(batch)
        (gradient,) = torch.autograd.grad(out["energy"].sum() + out["forces"].square().sum(), batch["pos"])
        results.append({**out, "forces": torch.cat([out["forces"], gradient], dim=-1)})
        assert (gradient[~batch["mask"]] == 0).all()
    assert_same(*results)


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_does_not_see_its_batch(name: str) -> None:
    model = model_of(name)
    batch = random_batch([11, 2, 6, 1])
    together = model(batch)
    for sample, atoms in enumerate([11, 2, 6, 1]):
        alone = model({field: value[sample : sample + 1, :atoms] for field, value in batch.items()})
        cut = {"energy": together["energy"][sample, None], "forces": together["forces"][sample, None, :atoms]}
        assert_same(alone, cut)


@pytest.mark.parametrize("name", NAMES)
def test_permuting_atoms_permutes_forces(name: str) -> None:
    model = model_of(name)
    batch = random_batch([10, 6], pad=float("nan"))
    order = torch.randperm(10, generator=torch.Generator().manual_seed(3))
    out = model(batch)
    permuted = model({field: value[:, order] for field, value in batch.items()})
    assert_same({"energy": out["energy"], "forces": out["forces"][:, order]}, permuted)


@pytest.mark.parametrize("name", NAMES)
def test_translations_change_nothing(name: str) -> None:
    model = model_of(name)
    batch = random_batch([10, 6])
    assert_same(model(batch), model({**batch, "pos": batch["pos"] + torch.tensor([3.0, -7.0, 0.5])}))


@pytest.mark.parametrize("name", NAMES)
def test_species_matter(name: str) -> None:
    model = model_of(name)
    batch = random_batch([6])
    changed = {**batch, "species": batch["species"].roll(1, dims=1)}
    assert (model(batch)["forces"] - model(changed)["forces"]).abs().max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("atoms", [1, 2])
def test_smallest_molecules_train(name: str, atoms: int) -> None:
    model = model_of(name)
    out = model(random_batch([atoms]))
    (out["energy"].square().sum() + out["forces"].square().sum()).backward()
    assert all(value.isfinite().all() for value in out.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_coincident_atoms_stay_finite(name: str) -> None:
    model = model_of(name)
    batch = random_batch([5])
    batch["pos"][0, 1] = batch["pos"][0, 0]
    batch["pos"].requires_grad_()
    out = model(batch)
    gradients = torch.autograd.grad(out["energy"].sum() + out["forces"].sum(), [batch["pos"], *model.parameters()])
    assert all(value.isfinite().all() for value in [*out.values(), *gradients])


@pytest.mark.parametrize("name", NAMES)
def test_energy_and_forces_are_smooth_where_an_atom_leaves_the_cutoff(name: str) -> None:
    model = model_of(name, cutoff=3.0)
    batch = random_batch([7])
    direction = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    # All atoms but the last lie behind the first, so that the last, in front of it, can see only the first.
    apart = batch["pos"] * 0.35
    apart = apart - apart[:, :1]
    apart[0, 1:-1] -= 2 * (apart[0, 1:-1] @ direction).clamp_min(0)[:, None] * direction
    apart[0, -1] = 3.0 * direction

    def at(shift: float) -> Tensor:
        pos = apart.clone()
        pos[0, -1] += shift * direction
        out = model({**batch, "pos": pos})
        return torch.cat([out["energy"], out["forces"].flatten()])

    edge = at(0.0)
    assert torch.equal(edge, at(1e-4))
    # The envelope starts as 56 (1 − x)³, and so does everything that enters through it.
    far, near, nearest = ((at(-step) - edge).abs().max() for step in (1e-1, 1e-3, 1e-4))
    assert far > 1e-4
    assert 900 < near / nearest < 1100


@pytest.mark.parametrize("name", NAMES)
def test_second_derivatives_match_finite_differences(name: str) -> None:
    model = model_of(name)
    batch = random_batch([5, 3, 1])
    parameters = list(model.parameters())
    generator = torch.Generator().manual_seed(1)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]

    def loss() -> Tensor:
        out = model(batch)
        return out["forces"].square().mean() + 0.1 * out["energy"].square().mean()

    def slopes() -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss(), parameters, allow_unused=True, materialize_grads=True)

    gradient = torch.autograd.grad(loss(), parameters, create_graph=True, allow_unused=True, materialize_grads=True)
    along = sum((g * d).sum() for g, d in zip(gradient, direction, strict=True))
    product = torch.autograd.grad(along, parameters, allow_unused=True, materialize_grads=True)
    step = 1e-6
    sides = []
    for sign in (1, -2):
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p.add_(sign * step * d)
        sides.append(slopes())
    numeric = torch.cat([((a - b) / (2 * step)).flatten() for a, b in zip(*sides, strict=True)])
    exact = torch.cat([p.flatten() for p in product])
    assert (exact - numeric).norm() < 1e-5 * exact.norm()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_weights_and_outputs(name: str) -> None:
    batch = random_batch([9, 4])
    first, second = (model_of(name)(batch) for _ in range(2))
    assert torch.equal(first["forces"], second["forces"])


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (("schnet",), {}, r"no force-field model 'schnet'.*edge_transformer"),
        (("escaip", "2M"), {}, r"no size '2M'.*nano"),
        (("escaip",), {"depth": 3}, r"no setting \['depth'\].*layers"),
        (("escaip",), {"tied": True}, r"no setting \['tied'\]"),
        (("edge_transformer",), {"width": 33}, "width 33 is not a multiple of heads 4"),
        (("escaip",), {"width": 33}, "width 33 is not a multiple of heads 4"),
        (("escaip",), {"degree": 0}, "degree must be at least 1"),
        (("escaip",), {"layers": 0}, "layers must be at least 1"),
        (("edge_transformer",), {"layers": 0}, "layers must be at least 1"),
        (("edge_transformer",), {"heads": 0}, "heads must be at least 1"),
    ],
)
def test_impossible_models_are_refused(arguments: tuple, settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(*arguments, **settings)


def test_settings_override_the_size() -> None:
    model = build("edge_transformer", "nano", cutoff=4.0, elements=[1, 6])
    assert model.config.cutoff == 4.0
    assert model.config.elements == (1, 6)
    with pytest.raises(InputError, match=r"\[8\]"):
        model({"pos": torch.zeros(1, 1, 3), "species": torch.tensor([[8]]), "mask": torch.ones(1, 1).bool()})
