"""The peer: symmetric to rounding, forces as stated, padding that does not matter, sizes, clear refusals."""

import copy
import sys

import pytest
import torch

import equiscope as eq
from equiscope.analysis.parts import Parts
from equiscope.errors import InputError
from equiscope.tasks.forcefield.models import build
from equiscope.tasks.forcefield.nequip_field import NequipConfig
from equiscope.tasks.forcefield.task import FORCES
from tests.tasks.forcefield.molecules import random_batch

NAMES = ("nequip", "nequip_direct")


@pytest.fixture
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def _batch(atoms=(6, 3), pad=0.0):
    batch = random_batch(list(atoms), pad=pad)
    size = batch["mask"].shape
    return {
        **batch,
        "forces": torch.zeros(*size, 3, dtype=batch["pos"].dtype),
        "energy": torch.zeros(size[0], dtype=batch["pos"].dtype),
        "molecule": torch.arange(size[0]),
        "id": torch.arange(size[0]),
    }


@pytest.mark.parametrize("name", NAMES)
def test_symmetric_to_rounding_under_rotations_and_reflections(name, float64):
    torch.manual_seed(0)
    model = build(name, features=8)
    for group in ("SO3", "O3"):
        declaration = eq.Declaration(
            inputs=FORCES.inputs, outputs=FORCES.outputs, fixed=("energy",), group=group, mask="mask", ids="id"
        )
        result = eq.measure(model, [_batch()], declaration)
        assert result.relative_equivariance < 1e-24
    assert torch.get_default_dtype() == torch.float64


def test_gradient_forces_are_the_gradient_of_the_energy(float64):
    torch.manual_seed(0)
    model, batch = build("nequip", features=8), _batch((5,))
    batch["pos"].requires_grad_()
    out = model(batch)
    (gradient,) = torch.autograd.grad(out["energy"].sum(), batch["pos"])
    torch.testing.assert_close(out["forces"], -gradient, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_each_sample_is_alone_and_padding_is_never_read(name, float64):
    torch.manual_seed(0)
    model, batch = build(name, features=8), _batch((6, 3), pad=999.0)
    batch["pos"].requires_grad_()
    both = model(batch)
    alone = {key: value[1:, :3] if value.ndim > 1 else value[1:] for key, value in batch.items()}
    alone["pos"] = alone["pos"].detach().requires_grad_()
    single = model(alone)
    torch.testing.assert_close(single["energy"], both["energy"][1:], atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(single["forces"], both["forces"][1:, :3], atol=1e-10, rtol=1e-10)
    assert (both["forces"][1, 3:] == 0).all()


def test_curvature_of_gradient_forces_is_that_of_a_loss_written_out(float64):
    """Gradient and product of its Hessian against finite differences of a mean square error by hand, in train mode."""
    torch.manual_seed(0)
    model, batch = build("nequip", layers=1, features=4, radial_width=8).eval(), _batch((4, 3))
    batch["forces"] = torch.randn_like(batch["forces"])
    parts = Parts(model, [batch], FORCES, rotations="haar", cosets=1)
    (turns,) = (one.turns for one in parts._fixed[0].passes)
    turned = {**batch, **{name: torch.einsum("nij,naj->nai", turns, batch[name]) for name in ("pos", "forces")}}
    atoms = batch["mask"].sum(1)

    def gradient(net):
        squares = (net(turned)["forces"] - turned["forces"]).square().sum(2)
        loss = (torch.where(batch["mask"], squares, 0).sum(1) / (3 * atoms)).mean()
        return parts.flat(torch.autograd.grad(loss, list(net.parameters()), allow_unused=True))

    def moved(steps):
        net = copy.deepcopy(model).train()
        with torch.no_grad():
            for parameter, step in zip(net.parameters(), parts.split_vector(1e-4 * steps * along), strict=True):
                parameter.add_(step)
        return gradient(net)

    along = torch.randn(parts.size)
    along /= along.norm()
    torch.testing.assert_close(parts.gradient(("total",))["total"], moved(0), rtol=1e-10, atol=1e-14)
    expected = (8 * (moved(1) - moved(-1)) - (moved(2) - moved(-2))) / 12e-4
    assert (parts.product("total", along) - expected).norm() < 1e-8 * expected.norm()
    assert not model(batch)["forces"].requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_sizes_initial_weights_and_copies(name):
    for size, parameters in (("nano", 59_000), ("1M", 1_000_000)):
        assert 0.9 * parameters < sum(p.numel() for p in build(name, size).parameters()) < 1.1 * parameters
    made = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        made.append(torch.cat([p.detach().flatten() for p in build(name, features=8).parameters()]))
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    model = build(name, features=8)
    copied = copy.deepcopy(model)
    copied.load_state_dict(model.state_dict())
    batch = {k: v.float() if v.is_floating_point() else v for k, v in _batch().items()}
    batch["pos"].requires_grad_()
    assert torch.equal(model(batch)["forces"], copied(batch)["forces"])
    assert model(batch)["forces"].dtype == torch.float32


def test_settings_that_cannot_be():
    with pytest.raises(InputError, match=r"gradient, direct, got 'none'"):
        NequipConfig(forces="none")
    with pytest.raises(InputError, match="lmax must be at least 1"):
        NequipConfig(lmax=0)


def test_without_the_package_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "nequip.utils.global_state", None)
    with pytest.raises(InputError, match=r"equiscope\[peers\]"):
        build("nequip")
