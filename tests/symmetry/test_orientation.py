"""Orientation tensor: aligned samples, evenly oriented ones, samples without a longest axis."""

import pytest
import torch

from equiscope.symmetry.orientation import eigenvalues, longest_axis_outer
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


def test_a_single_atom_has_no_axis():
    outer = longest_axis_outer(torch.ones(1, 3, dtype=torch.float64), torch.zeros(1, dtype=torch.long), 1)
    assert torch.allclose(outer[0], torch.eye(3, dtype=torch.float64) / 3)
