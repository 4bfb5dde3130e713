"""Turns of images: groups, uniform elements, and names that are none."""

import math

import pytest
import torch

from equiscope.errors import InputError
from equiscope.symmetry.planar import about_z, cyclic, planar_element, planar_matrices
from equiscope.symmetry.rotations import haar, rotation_set, turned_by, uniform_keyed


@pytest.mark.parametrize("count", [1, 2, 4, 6, 8])
def test_cyclic_groups(count):
    matrices = cyclic(count)
    assert matrices.shape == (count, 3, 3)
    products = torch.einsum("aij,bjk->abik", matrices, matrices)
    place = (torch.arange(count)[:, None] + torch.arange(count)) % count
    assert (products - matrices[place]).abs().max() < 1e-12
    assert torch.allclose(torch.linalg.det(matrices), torch.ones(count, dtype=torch.float64))
    # The average of exp(i m angle) vanishes unless n divides m.
    angles = torch.atan2(matrices[:, 1, 0], matrices[:, 0, 0])
    for m in range(1, 2 * count):
        assert abs(complex((1j * m * angles).exp().mean()) - (m % count == 0)) < 1e-12


def test_quarter_turns_are_exact_and_the_first_axis_goes_to_the_second():
    assert cyclic(4)[1].tolist() == [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    assert torch.equal(cyclic(4), cyclic(4).round())
    assert about_z(torch.tensor([math.pi / 2], dtype=torch.float64))[0, :, 0].tolist() == pytest.approx([0, 1, 0])


def test_elements_are_uniform_and_keyed():
    turns = planar_element("SO2", haar(20_000, torch.Generator().manual_seed(0)))
    angles = torch.atan2(turns[:, 1, 0], turns[:, 0, 0])
    for m in (1, 2, 3, 4):
        # Real and imaginary part have variance 1/2 each.
        assert abs(complex((1j * m * angles).exp().mean())) < 4 / 20_000**0.5
    quarters = planar_element("C4", haar(4000, torch.Generator().manual_seed(1)))
    counts = [(quarters == one).all(2).all(1).sum() for one in cyclic(4)]
    assert sum(counts) == 4000
    assert max(abs(int(n) - 1000) for n in counts) < 4 * (4000 * 3 / 16) ** 0.5
    assert torch.equal(uniform_keyed("SO2", 3, [5], 1), uniform_keyed("SO2", 3, [4, 5], 1)[1:])
    small = turned_by(1e-3, 0, [1, 2], 0, "SO2")
    assert torch.allclose(small, about_z(torch.full((2,), 1e-3)))
    assert torch.equal(turned_by(1e-3, 0, [1], 0, "C4")[0], torch.eye(3, dtype=torch.float64))


def test_sets_by_name():
    assert len(rotation_set("C8", "SO2")) == 8
    assert len(rotation_set("haar", "SO2")) == 1
    assert torch.equal(planar_matrices("C2", "C4"), cyclic(2))
    for name, group in (("T", "SO2"), ("C8", "C4"), ("C0", "SO2"), (3, "SO2")):
        with pytest.raises(InputError, match=f"are none of the group {group} of images"):
            rotation_set(name, group)
