"""Longest axes and the orientation tensor: aligned samples, evenly oriented ones, samples without a longest axis."""

import pytest
import torch

from equiscope.symmetry.orientation import eigenvalues, longest_axes, longest_axis_outer
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
