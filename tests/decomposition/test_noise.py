"""The noise floor: it is the equivariance error of a rounding equivariant model, and it is not of a broken one."""

import math

import numpy as np
import pytest
import torch
from e3nn import o3
from torch import nn

import equiscope as eq
from equiscope.decomposition.batches import DenseBatch
from equiscope.decomposition.losses import LOSSES
from equiscope.decomposition.noise import (
    Repeat,
    arcs_needed,
    check_repeat,
    floor,
    floors_allowed,
    hardware_notes,
    off_line,
)
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


class Pairs(nn.Module):
    """Forces of Lennard-Jones pairs, each an interatomic distance subtracted from another."""

    def forward(self, batch):
        x = batch["pos"]
        apart = x[:, :, None] - x[:, None]
        r2 = apart.square().sum(-1, keepdim=True) + torch.eye(x.shape[1], dtype=x.dtype)[:, :, None]
        return {"forces": ((1 / r2**7 - 0.5 / r2**4) * apart).sum(2)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rotations", ["D2", "T"])
def test_two_atoms_are_under_the_floor_alone_and_together(rotations, dtype):
    # A few roundings, all alike in several passes: the floor of one pair must not be luck.
    generator = torch.Generator().manual_seed(0)
    first = 5 * torch.randn(60, 1, 3, generator=generator, dtype=torch.float64)
    along = nn.functional.normalize(torch.randn(60, 1, 3, generator=generator, dtype=torch.float64), dim=-1)
    x = torch.cat([first, first + 1.15 * along], dim=1).to(dtype)

    def seen(part, seed):
        return eq.measure(Pairs(), [{"pos": part, "y": part}], rotations=rotations, seed=seed, **SHORT)

    alone = [seen(x[i : i + 1], i).distinguishable for i in range(60)]
    # A few in a thousand may.
    assert sum(alone) <= 1
    assert not seen(x, 0).distinguishable


def test_an_orientation_in_which_roundings_cancel_says_nothing_of_the_others():
    class Sum(nn.Module):
        """A sum of terms along the axes and their opposites: zero, and rounded only where the axes are turned."""

        def forward(self, batch):
            x = batch["pos"]
            scale = 1 + x.square().sum(-1, keepdim=True).sum(1, keepdim=True)
            total = torch.zeros_like(x[:, 0])
            for k in (0, 1, 2, 3, 4, 5):
                total = total + x[:, k] * scale[:, 0] * 1e3
            return {"forces": total[:, None] + x[:, :1]}

    axes = torch.cat([torch.eye(3), -torch.eye(3)])[None].repeat(20, 1, 1)
    scale = torch.rand(20, 1, 1, generator=torch.Generator().manual_seed(1)) + 1
    batch = {"pos": scale * axes, "y": torch.zeros(20, 1, 3)}
    result = eq.measure(Sum(), [batch], **SHORT)
    assert not result.distinguishable
    # More than the dtype alone explains.
    square = float(batch["pos"][:, 0].square().mean())
    assert result.noise_floor > 100 * (2 * torch.finfo(torch.float32).eps) ** 2 * square


@pytest.mark.parametrize("samples", [1, 4, 32])
@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("degree", [1, 3])
def test_a_small_fault_is_not_swallowed(samples, dtype, size, degree):
    class Broken(Amplifier):
        def forward(self, batch):
            right, unit = super().forward(batch)["forces"], nn.functional.normalize(batch["pos"], dim=-1)
            wrong = torch.ones_like(unit) if degree == 1 else unit.prod(-1, keepdim=True).expand_as(unit) * 105**0.5
            return {"forces": right + size * right.square().mean().sqrt() * wrong}

    result = eq.measure(Broken(1.0).to(dtype), [random_batch(samples, dtype=dtype)], **SHORT)
    assert math.sqrt(result.relative_equivariance) == pytest.approx(size, rel=0.3)
    assert result.distinguishable
    assert result.outputs["forces"].distinguishable
    sound = eq.measure(Amplifier(1.0).to(dtype), [random_batch(samples, dtype=dtype)], **SHORT)
    assert not sound.distinguishable
    assert not sound.outputs["forces"].distinguishable


def mean_floor_of_energies(model, samples, eps, arcs=1):
    """Of one energy a sample of one random vector each, in double precision with the step of ``eps``."""
    batch = DenseBatch({"pos": torch.randn(samples, 1, 3, dtype=torch.float64), "y": torch.zeros(samples, 1)})
    declaration = Declaration({"pos": "1o"}, {"energy": "0e"}, fixed=["y"])
    splits = {"energy": OutputSplit(batch.rows("energy", "system", None), action("0e"), LOSSES["mse"], None)}
    known = {"energy": (Repeat(0.0, 0.0, eps), 0.0)}
    found = floor(model, batch, declaration, None, splits, known, (0, list(range(samples))), arcs)
    return float(found["energy"].mean())


@pytest.mark.parametrize("degree", [5, 8])
def test_a_fault_leaks_into_the_floor_by_the_curvature_of_the_arc(degree):
    # Half precision's step with double precision's rounding, so that the leak is all there is.
    eps, samples = torch.finfo(torch.float16).eps, 2000
    # Of one component of a spherical harmonic the mean square over the sphere is 1 with this normalisation.
    of_degree = o3.SphericalHarmonics(degree, normalize=True, normalization="component")

    def model(b):
        return {"energy": of_degree(b["pos"][:, 0])[:, :1]}

    expected = eps**2 / 2 * degree * (degree + 1) * (3 * degree**2 + 3 * degree - 1) / 15
    assert mean_floor_of_energies(model, samples, eps) == pytest.approx(expected, rel=0.1)


def test_what_a_straight_line_leaves_has_two_degrees_of_freedom_less():
    passes = torch.randn(4, 100_000, dtype=torch.float64)
    line = torch.linspace(-1, 1, 4, dtype=torch.float64)[:, None] * passes[0] + passes[1]
    assert off_line(line).abs().max() < 1e-14
    assert torch.allclose(off_line(passes + line), off_line(passes), atol=1e-14)
    assert float(off_line(passes).square().sum(0).mean()) == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize("arcs", [1, 3])
def test_independent_roundings_give_their_variance(arcs):
    class Rounded(nn.Module):
        """Independent noise of unit variance in place of rounding."""

        def forward(self, batch):
            return {"energy": torch.randn(batch["pos"].shape[0], 1, dtype=torch.float64)}

    assert mean_floor_of_energies(Rounded(), 4000, 2.0**-52, arcs) == pytest.approx(1, rel=0.05)


def test_rounding_of_few_samples_may_exceed_more_floors():
    assert floors_allowed(np.ones(1)) == pytest.approx(10.828, abs=1e-3)
    assert floors_allowed(np.ones(4)) == pytest.approx(18.467 / 4, abs=1e-3)
    assert [floors_allowed(np.ones(n)) for n in (10, 1000)] == [3, 3]
    # One of a hundred carries it all, however large.
    assert floors_allowed(np.array([1e200] + [1e-9] * 99)) == pytest.approx(10.828, abs=1e-3)
    assert floors_allowed(np.zeros(5)) == floors_allowed(np.array([1.0, -1.0])) == floors_allowed(np.ones(1))


def test_the_first_sample_gets_more_arcs():
    assert [arcs_needed(n, first=True) for n in (1, 2, 3, 64)] == [3, 2, 1, 1]
    assert arcs_needed(1, first=False) == 1


def test_octahedral_copies_are_exact_and_have_no_floor_of_turns():
    class Copy(nn.Module):
        def forward(self, batch):
            return {"forces": batch["pos"]}

    result = eq.measure(Copy(), [random_batch(8, dtype=torch.float32)], group="O", rotations="O", **SHORT)
    assert result.equivariance == 0
    eps = torch.finfo(torch.float32).eps
    square = float(random_batch(8, dtype=torch.float32)["pos"].square().mean())
    assert result.noise_floor == pytest.approx((2 * eps) ** 2 * square, rel=1e-4)


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
    assert repeats["f"].eps == torch.finfo(torch.float32).eps
    assert Repeat(0.0, 0.0, 0.0).relative == 0


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

    def of(change, rounding=0.0, eps=2.0**-52):
        splits = {"f": OutputSplit(batch.rows("f", "atom", None), action("1o"), LOSSES["mse"], None)}
        model, known = (lambda b: b["pos"]), {"f": (Repeat(change, 1.0, eps), rounding)}
        return floor(model, batch, declaration, None, splits, known, (0, [0, 1, 2, 3]))["f"]

    assert (of(0.5) - of(0.0)).tolist() == pytest.approx([0.25] * 4, rel=1e-12)
    # What a float64 copy shows is a lower bound, relative to the output's mean square of 1.
    assert of(0.0, 0.3).tolist() == pytest.approx([0.09] * 4, rel=1e-12)
    # So is the dtype of the output, relative to each sample.
    square = batch.fields()["pos"].square().mean((1, 2))
    assert of(0.0, 0.0, 1e-3).tolist() == pytest.approx((4e-6 * square).tolist(), rel=1e-6)
