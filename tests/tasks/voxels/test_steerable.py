"""e3nn's voxel convolution on this torch: exact under the octahedral group, trained through, refused when misused."""

import pytest
import torch

import equiscope as eq
from equiscope.errors import InputError
from equiscope.tasks.voxels.probes import octahedral_declaration
from equiscope.tasks.voxels.steerable import Steerable, SteerableConfig
from tests.tasks.voxels.test_unet import batch

TINY = {"layers": 3, "scalars": 4, "vectors": 2, "tensors": 2, "channels": 2}


def test_it_is_equivariant_under_the_octahedral_group():
    torch.manual_seed(0)
    result = eq.measure(Steerable(SteerableConfig(**TINY)), [batch()], octahedral_declaration(8), rotations="O")
    assert not result.distinguishable
    assert result.relative_equivariance < 1e-11


def test_gradients_reach_its_kernels():
    torch.manual_seed(0)
    model = Steerable(SteerableConfig(**TINY))
    model(batch())["clean"].square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters() if p.numel())


def test_bad_sizes_are_refused():
    with pytest.raises(InputError, match=r"takes grids \(batch, 2"):
        Steerable(SteerableConfig(**TINY))({"noisy": torch.zeros(1, 3, 8, 8, 8)})
    for changes in ({"layers": 1}, {"vectors": 0}, {"diameter": 2.0}):
        with pytest.raises(InputError):
            SteerableConfig(**{**TINY, **changes})
