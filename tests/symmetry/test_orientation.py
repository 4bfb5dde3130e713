"""Longest axes and the orientation tensor: closed forms, masks, the calibration of its uniformity test."""

import math

import pytest
import torch
from scipy.stats import kstest

from equiscope.errors import InputError
from equiscope.symmetry.orientation import eigenvalues, longest_axes, longest_axis_outer, orientation
from equiscope.symmetry.rotations import haar


def rods(rotations):
    rod = torch.tensor([[-1.0, 0, 0], [0, 0.1, 0], [1, 0, 0]], dtype=torch.float64)
    points = torch.einsum("nij,aj->nai", rotations, rod) + 5
    return points.reshape(-1, 3), torch.arange(len(rotations)).repeat_interleave(3), len(rotations)


def test_aligned_rods_have_one_eigenvalue():
    outer = longest_axis_outer(*rods(torch.eye(3, dtype=torch.float64).expand(10, 3, 3)))
    assert eigenvalues(outer.mean(0)) == pytest.approx((0, 0, 1), abs=1e-12)


def test_haar_rotated_rods_are_even():
    outer = longest_axis_outer(*rods(haar(20_000, torch.Generator().manual_seed(0))))
    assert eigenvalues(outer.mean(0)) == pytest.approx((1 / 3, 1 / 3, 1 / 3), abs=0.01)


def one(points):
    points = torch.as_tensor(points, dtype=torch.float64)
    return points, torch.zeros(len(points), dtype=torch.long), 1


DISC = [[1.0, 0, 0], [-0.5, 0.75**0.5, 0], [-0.5, -(0.75**0.5), 0]]
TETRAHEDRON = [[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]
# Three times the same point, whose mean is rounded.
COINCIDENT = [[0.1, 0.7, 1.3]] * 3


@pytest.mark.parametrize("points", [[[1.0, 1, 1]], DISC, TETRAHEDRON, COINCIDENT])
def test_shapes_without_a_longest_axis(points):
    _, found = longest_axes(*one(points))
    assert not found.any()
    # An axis made of rounding would tell a data set of cubic crystals that it shares a frame.
    assert torch.allclose(longest_axis_outer(*one(points))[0], torch.eye(3, dtype=torch.float64) / 3)


@pytest.mark.parametrize("scale", [1e-140, 1.0, 1e140])
def test_the_axis_does_not_depend_on_the_unit(scale):
    axes, found = longest_axes(*one(scale * torch.tensor([[3.0, 4, 0], [-3, -4, 0], [0, 0, 1]]).double()))
    assert found.all()
    assert axes[0].abs().tolist() == pytest.approx([0.6, 0.8, 0], abs=1e-12)


def test_each_sample_by_its_own_points_and_masses():
    cross = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1.2, 0], [0, -1.2, 0]]).double()
    masses = torch.tensor([1.0, 1, 1, 1, 9, 9, 1, 1, 0, 0, 0, 0]).double()
    axes, found = longest_axes(cross.repeat(3, 1) + 5, torch.arange(3).repeat_interleave(4), 3, masses)
    assert found.tolist() == [True, True, False]
    assert axes[:2].abs().tolist() == [pytest.approx([0, 1, 0], abs=1e-12), pytest.approx([1, 0, 0], abs=1e-12)]


ROD = torch.tensor([[-1.0, 0.1, 0.0], [0.0, -0.1, 0.05], [1.0, 0.0, -0.05]], dtype=torch.float64)


def turned(count: int, seed: int) -> torch.Tensor:
    quaternions = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    w, x, y, z = torch.nn.functional.normalize(quaternions, dim=-1).unbind(-1)
    axis = torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w)], -1)
    return torch.stack([-axis, torch.zeros_like(axis), axis], 1)


def test_aligned_rods() -> None:
    u = torch.tensor([3.0, 4.0, 0.0], dtype=torch.float64) / 5
    rods = torch.stack([s * torch.stack([-u, u]) + 7.0 for s in (1.0, 2.0, 5.0)])
    result = orientation(rods)
    assert result.eigenvalues == pytest.approx((0, 0, 1), abs=1e-12)
    assert result.samples == 3
    assert "NOT isotropic" in str(orientation(rods.repeat(10, 1, 1)))


def test_a_verdict_needs_samples_that_could_have_given_the_other() -> None:
    """Of n like axes S = 5 n, and chi squared with 5 degrees of freedom passes 1e-3 at 20.5: four never do."""
    rod = torch.tensor([[[-1.0, 0, 0], [1.0, 0, 0]]])
    for count, said in ((1, "cannot tell"), (4, "cannot tell"), (5, "NOT isotropic")):
        told = str(orientation(rod.repeat(count, 1, 1)))
        assert said in told
        assert ": isotropic" not in told
        assert "-0.000" not in told


def test_what_no_axis_can_be_taken_of_is_refused() -> None:
    rods, ones = turned(6, 0), torch.ones(6, 3)
    wrong = rods.clone()
    wrong[2, 1, 0] = math.nan
    for arguments, said in (
        ((wrong,), "finite"),
        ((rods / 0,), "finite"),
        ((rods, None, -ones), "not negative"),
        ((rods, None, ones * math.nan), "weights finite"),
        ((rods, None, ones[:, :2]), "weights must be"),
        ((rods, ones), "true or false"),
        ((rods, ones.long()), "true or false"),
        ((rods + 1j,), "real"),
    ):
        with pytest.raises(InputError, match=said):
            orientation(*arguments)
    # What stands in the padding is ignored, NaN too.
    masked = ~wrong.isnan().any(-1)
    assert orientation(wrong, masked, torch.where(masked, 1.0, math.nan)).samples == 6


def test_three_axes_are_isotropic() -> None:
    rod = torch.tensor([[-1.0, 0, 0], [1.0, 0, 0]])
    result = orientation(torch.stack([rod, rod.roll(1, -1), rod.roll(2, -1)]))
    assert result.eigenvalues == pytest.approx((1 / 3, 1 / 3, 1 / 3), abs=1e-12)
    assert result.p_value > 0.99
    assert result.standard_error == pytest.approx(math.sqrt(4 / 135))


def test_the_axis_is_the_longest_one() -> None:
    flat = torch.tensor([[[2.0, 0, 0], [-2.0, 0, 0], [0, 1.0, 0], [0, -1.0, 0]]])
    assert orientation(flat).eigenvalues == pytest.approx((0, 0, 1), abs=1e-6)
    along_x = orientation(torch.cat([flat, flat.roll(1, -1)]))
    assert along_x.eigenvalues == pytest.approx((0, 0.5, 0.5), abs=1e-6)


@pytest.mark.parametrize("junk", [999.0, math.nan, math.inf])
def test_padding_does_not_enter(junk: float) -> None:
    rods = turned(20, 0) * torch.tensor([1.0, 1.5, 2.0])[None, :, None]
    padded = torch.full((20, 5, 3), junk, dtype=torch.float64)
    padded[:, :3] = rods
    mask = torch.zeros(20, 5, dtype=torch.bool)
    mask[:, :3] = True
    assert orientation(padded, mask).eigenvalues == pytest.approx(orientation(rods).eigenvalues, abs=1e-12)


def test_weights_are_masses() -> None:
    cross = torch.tensor([[[1.0, 0, 0], [-1.0, 0, 0], [0, 1.2, 0], [0, -1.2, 0]]]).double()
    long_x = cross * torch.tensor([2.0, 1.0, 1.0])
    both = torch.cat([cross, long_x])
    light = orientation(both, weights=torch.ones(2, 4))
    heavy = orientation(both, weights=torch.tensor([[9.0, 9.0, 1.0, 1.0]]).expand(2, 4))
    assert light.eigenvalues == pytest.approx((0, 0.5, 0.5), abs=1e-12)
    assert heavy.eigenvalues == pytest.approx((0, 0, 1), abs=1e-12)


def test_uniform_axes_give_uniform_p_values_and_the_stated_error() -> None:
    results = [orientation(turned(200, seed)) for seed in range(400)]
    assert kstest([r.p_value for r in results], "uniform").pvalue > 1e-3
    entries = torch.tensor([sum((e - 1 / 3) ** 2 for e in r.eigenvalues) for r in results])
    # tr (T - 1/3)² has mean 5 · 2/(15 n) = (15/2) · s.e.² for n uniform axes.
    assert float(entries.mean()) == pytest.approx(7.5 * results[0].standard_error ** 2, rel=0.1)


def test_samples_without_a_longest_axis_are_left_out() -> None:
    point = torch.zeros(1, 3, 3, dtype=torch.float64)
    disc = torch.tensor([[[1.0, 0, 0], [-0.5, math.sqrt(3) / 2, 0], [-0.5, -math.sqrt(3) / 2, 0]]])
    result = orientation(torch.cat([point, disc, ROD[None]]))
    assert (result.samples, result.skipped) == (1, 2)
    with pytest.raises(InputError, match="none of the 1 samples"):
        orientation(point)


def test_shapes_are_checked() -> None:
    with pytest.raises(InputError, match=r"\(samples, atoms, 3\), got \(4, 3\)"):
        orientation(torch.zeros(4, 3))
    with pytest.raises(InputError, match="mask"):
        orientation(torch.zeros(2, 4, 3), torch.ones(2, 3, dtype=torch.bool))
