"""Names and sizes, the paper's parameter counts, and the steerable network's symmetry."""

import pytest
import torch

from equiscope.errors import InputError
from equiscope.tasks.voxels.models import build


def parameters(name: str, size: str, channels: int = 7) -> float:
    # e3nn's gates are normalised by numbers they draw, so they cannot be made without memory.
    with torch.device("cpu" if name == "steerable" else "meta"):
        return sum(p.numel() for p in build(name, size, channels).parameters()) / 1e6


@pytest.mark.parametrize(
    ("size", "width", "published"), [("7M", 8, "6.98"), ("28M", 16, "27.90"), ("111M", 32, "111.52")]
)
def test_voxmol_has_the_published_count_to_the_last_digit(size, width, published):
    # The published code makes a norm for each attention and never calls it: five at width x 16, five at x 4, one at 2.
    unused = 2 * width * (5 * 16 + 5 * 4 + 2) / 1e6
    assert f"{parameters('voxmol', size, channels=8) + unused:.2f}" == published
    # Ours pools: other convolutions where the grid changes its size, and attention with its norms.
    assert parameters("unet", size, channels=8) == pytest.approx(float(published), rel=0.01)


def test_small_sizes_and_the_twin():
    assert parameters("unet", "nano") == pytest.approx(0.355, abs=0.01)
    assert parameters("unet", "1M") == pytest.approx(1.0, abs=0.15)
    assert parameters("unet_tied", "nano") < parameters("unet", "nano") / 4
    assert parameters("steerable", "1M") == pytest.approx(1.0, abs=0.3)


def test_unknown_settings_are_refused():
    for arguments, message in (
        (("unnet",), "no voxel model 'unnet'"),
        (("unet", "4M"), "no size '4M'"),
    ):
        with pytest.raises(InputError, match=message):
            build(*arguments)
    with pytest.raises(InputError, match=r"no setting \['tied'\]"):
        build("unet", tied=True)
    assert build("unet", multipliers=[1, 2], attention=[False, True]).config.multipliers == (1, 2)
