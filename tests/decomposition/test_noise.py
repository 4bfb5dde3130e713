"""The noise floor: it is the equivariance error of a rounding equivariant model, and it is not of a broken one."""

import pytest
import torch
from torch import nn

import equiscope as eq
from equiscope.decomposition.batches import DenseBatch
from equiscope.decomposition.losses import LOSSES
from equiscope.decomposition.noise import Repeat, check_repeat, floor, hardware_notes
from equiscope.decomposition.split import OutputSplit
from equiscope.errors import RandomModelError
from equiscope.symmetry.actions import action
from equiscope.symmetry.declaration import Declaration

from .models import random_batch

SHORT = dict(inputs={"pos": "1o"}, outputs={"forces": "1o"}, target="y")


class Amplifier(nn.Module):
    """Equivariant in exact arithmetic, but it subtracts large numbers."""

    def __init__(self, gain):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, batch):
        r2 = batch["pos"].square().sum(-1, keepdim=True)
        return {"forces": batch["pos"] * (1 + (self.gain + r2) - self.gain)}


@pytest.mark.parametrize("gain", [0.1, 1.0, 8.0, 64.0])
def test_the_floor_follows_the_models_own_rounding(gain):
    result = eq.measure(Amplifier(gain), [random_batch(32, dtype=torch.float32)], **SHORT)
    assert not result.distinguishable
    assert result.noise_floor / 30 < result.equivariance < 3 * result.noise_floor


def test_the_floor_is_never_under_the_rounding_of_the_dtype():
    class Copy(nn.Module):
        def forward(self, batch):
            return {"forces": batch["pos"]}

    # Small integers survive a turn there and back: the floor seen would be nothing.
    batch = {k: v.round() for k, v in random_batch(8, dtype=torch.float32).items()}
    result = eq.measure(Copy(), [batch], **SHORT)
    eps = torch.finfo(torch.float32).eps
    assert result.noise_floor >= (2 * eps) ** 2 * float(batch["pos"].square().mean()) * 0.99
    assert not result.distinguishable


def test_a_real_error_stands_out():
    class Broken(Amplifier):
        def forward(self, batch):
            return {"forces": super().forward(batch)["forces"] + torch.tensor([1e-3, 0.0, 0.0])}

    result = eq.measure(Broken(1.0), [random_batch(32, dtype=torch.float32)], **SHORT)
    assert result.distinguishable
    assert result.equivariance == pytest.approx(1e-6 / 3, rel=0.01)


def test_the_float64_copy_gives_the_size_of_the_rounding():
    quiet, loud = (eq.measure(Amplifier(g), [random_batch(8, dtype=torch.float32)], **SHORT) for g in (1.0, 1e5))
    assert quiet.float64_change < 1e-6
    assert 1e-5 < loud.float64_change < 1e-1
    assert eq.measure(Amplifier(1.0).double(), [random_batch(8)], **SHORT).float64_change is None


def test_a_model_that_refuses_float64_is_measured_all_the_same():
    class Stubborn(Amplifier):
        def forward(self, batch):
            assert batch["pos"].dtype == torch.float32
            return super().forward(batch)

    assert eq.measure(Stubborn(1.0), [random_batch(8, dtype=torch.float32)], **SHORT).float64_change is None


def test_small_wobble_raises_the_floor_and_large_is_an_error():
    class Wobble(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.size = size

        def forward(self, batch):
            return {"forces": batch["pos"] * (1 + self.size * torch.randn(()))}

    torch.manual_seed(0)
    result = eq.measure(Wobble(1e-5), [random_batch(32, dtype=torch.float32)], **SHORT)
    assert result.noise_floor > 1e-12
    with pytest.raises(RandomModelError, match="'forces' changes by"):
        eq.measure(Wobble(0.1), [random_batch(32, dtype=torch.float32)], **SHORT)


def test_repeats_are_relative():
    repeats = check_repeat({"f": torch.tensor([100.0])}, {"f": torch.tensor([100.01])})
    assert repeats["f"].relative == pytest.approx(1e-4, rel=0.02)
    assert Repeat(0.0, 0.0).relative == 0


def test_tf32_is_named_on_a_gpu():
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32 = True
        assert any("TF32" in n for n in hardware_notes(torch.device("cuda")))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    assert hardware_notes(torch.device("cpu")) == []


def test_half_the_change_between_repeats_is_in_the_floor():
    batch, declaration = DenseBatch(random_batch(4)), Declaration({"pos": "1o"}, {"f": "1o"}, fixed=["y"])

    def of(change, rounding=0.0):
        splits = {"f": OutputSplit(batch.rows("f", "atom", None), action("1o"), LOSSES["mse"], None)}
        model, known = (lambda b: b["pos"]), {"f": (Repeat(change, 1.0), rounding)}
        return floor(model, batch, declaration, None, splits, known, 0, [0, 1, 2, 3])["f"]

    assert (of(0.5) - of(0.0)).tolist() == pytest.approx([0.25] * 4, rel=1e-12)
    # What a float64 copy shows is a lower bound, relative to the output's mean square of 1.
    assert of(0.0, 0.3).tolist() == pytest.approx([0.09] * 4, rel=1e-12)
