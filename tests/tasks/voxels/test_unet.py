"""The U-Net's sizes, its tied twin at the floor, and grids it cannot take."""

import pytest
import torch

import equiscope as eq
from equiscope.errors import InputError
from equiscope.symmetry.grids import permute
from equiscope.symmetry.rotations import group
from equiscope.tasks.voxels.probes import octahedral_declaration
from equiscope.tasks.voxels.unet import TiedConv3d, UNet, UNetConfig

TINY = {"width": 4, "multipliers": (1, 2), "attention": (False, True), "heads": 2, "groups": 2, "channels": 2}


def batch(samples: int = 3, size: int = 8, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    noisy, clean = torch.randn(2, samples, 2, size, size, size, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return {"noisy": noisy, "clean": clean, "molecule": torch.arange(samples), "id": torch.arange(samples)}


def made(**changes) -> UNet:
    torch.manual_seed(1)
    return UNet(UNetConfig(**{**TINY, **changes}))


def test_tied_kernels_are_invariant_to_the_bit():
    torch.manual_seed(0)
    layer = TiedConv3d(3, 5)
    kernel = layer.weight[..., layer.classes].unflatten(-1, (3, 3, 3))
    for element in group("O").matrices:
        assert torch.equal(permute(kernel.double(), element.expand(5, 3, 3)), kernel.double())
    plain = torch.nn.Conv3d(3, 5, 3).weight.detach()
    assert float(layer.weight.detach().std()) == pytest.approx(float(plain.std()), rel=0.2)


def test_the_twin_is_at_its_floor_and_the_network_is_not():
    twin = eq.measure(made(tied=True), [batch()], octahedral_declaration(8), rotations="O")
    assert not twin.distinguishable
    assert twin.percent < 1e-9
    plain = eq.measure(made(), [batch()], octahedral_declaration(8), rotations="O")
    assert plain.distinguishable
    assert plain.relative_equivariance > 0.01


def test_the_twin_is_exact_in_float64():
    model, data = made(tied=True).double(), batch(dtype=torch.float64)
    for element in group("O").matrices[::5]:
        turns = element.expand(3, 3, 3)
        turned = model({"noisy": permute(data["noisy"], turns)})["clean"]
        assert (turned - permute(model(data)["clean"], turns)).abs().max() < 1e-13


def symmetrised(model: UNet) -> UNet:
    """The model with every kernel averaged over the 24 rotations: as symmetric as learning could make its numbers."""
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv3d | torch.nn.ConvTranspose3d):
            weight = layer.weight.data.double()
            turned = [permute(weight, element.expand(len(weight), 3, 3)) for element in group("O").matrices]
            layer.weight.data = torch.stack(turned).mean(0).to(layer.weight.dtype)
    return model


def test_strides_break_the_symmetry_that_pooling_keeps_whatever_the_kernels():
    """An even grid has no symmetric stride of 2: of a mirrored line the voxels 2i-1, 2i, 2i+1 are others."""
    results = {
        downsampling: eq.measure(
            symmetrised(made(downsampling=downsampling, head_scale=1.0)), [batch()], octahedral_declaration(8),
            rotations="O",
        )
        for downsampling in ("pool", "stride")
    }  # fmt: skip
    assert not results["pool"].distinguishable
    assert results["pool"].percent < 1e-9
    assert results["stride"].distinguishable
    assert results["stride"].relative_equivariance > 1e-4


def test_strided_sizes_and_refusals():
    model = made(downsampling="stride", blocks=2)
    assert model(batch())["clean"].shape == (3, 2, 8, 8, 8)
    assert [type(layer).__name__ for layer in model.resize] == ["Conv3d", "ConvTranspose3d"]
    with pytest.raises(InputError, match="tied kernels need downsampling=pool"):
        made(tied=True, downsampling="stride")
    with pytest.raises(InputError, match="downsampling must be one of pool, stride"):
        made(downsampling="max")


def test_gradients_reach_every_parameter_and_recomputing_changes_none():
    model = made(blocks=2)
    model(batch())["clean"].square().mean().backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    assert all(g.abs().max() > 0 for g in gradients)
    again = UNet(model.config, recompute=True)
    again.load_state_dict(model.state_dict())
    again(batch())["clean"].square().mean().backward()
    for before, parameter in zip(gradients, again.parameters(), strict=True):
        assert torch.allclose(before, parameter.grad, rtol=1e-4, atol=1e-7)


def test_bad_grids_and_sizes_are_refused():
    with pytest.raises(InputError, match="multiple of 2, got 7"):
        made()(batch(size=7))
    with pytest.raises(InputError, match=r"takes grids \(batch, 2, N, N, N\), got \(3, 2, 8, 8, 6\)"):
        made()({"noisy": torch.zeros(3, 2, 8, 8, 6)})
    for changes in ({"width": 0}, {"attention": (True,)}, {"dropout": 1.0}):
        with pytest.raises(InputError):
            UNetConfig(**{**TINY, **changes})
