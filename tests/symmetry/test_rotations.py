"""Rotation sets: Haar law, exact degree by character sums (and failure one degree above), keyed streams."""

import math

import pytest
import torch

from equiscope.errors import InputError
from equiscope.symmetry import rotations as rot
from equiscope.symmetry.actions import wigner_d
from equiscope.symmetry.rotations import (
    about_z,
    cyclic,
    haar,
    planar_element,
    planar_matrices,
    rotation_set,
    turned_by,
    uniform_keyed,
)


def characters(matrices, degree):
    return rot.characters_of_traces(matrices.diagonal(dim1=-2, dim2=-1).sum(-1), degree)


def residual_of(rotations, degree):
    """|| sum_k w_k D^l(g_k) ||_F^2 = sum_jk w_j w_k chi_l(g_j^T g_k) for l = 0..degree; zero where the set is exact."""
    pairs = torch.einsum("jab,kac->jkbc", rotations.matrices, rotations.matrices)
    weights = rotations.weights[:, None] * rotations.weights[None, :]
    return (weights * characters(pairs, degree)).sum(dim=(1, 2))


ORDERS = {"D2": 4, "T": 12, "O": 24, "I": 60}


@pytest.mark.parametrize("name", ORDERS)
def test_group_has_its_order_and_is_closed(name):
    g = rot.group(name).matrices
    assert g.shape == (ORDERS[name], 3, 3)
    assert g.dtype == torch.float64
    products = torch.einsum("aij,bjk->abik", g, g).reshape(-1, 1, 3, 3)
    assert (products - g).abs().amax(dim=(-1, -2)).amin(dim=1).max() < 1e-14
    assert torch.allclose(torch.linalg.det(g), torch.ones(len(g), dtype=torch.float64), atol=1e-14)


@pytest.mark.parametrize("name", [*ORDERS, "lebedev-3", "lebedev-5", "lebedev-7", "lebedev-9"])
def test_declared_degree_is_exact_and_fails_one_above(name):
    chosen = rot.rotation_set(name)
    residual = residual_of(chosen, chosen.degree + 1)
    assert residual[1:-1].abs().max() < 1e-12
    assert residual[-1] > 0.1


@pytest.mark.parametrize("name", ["T", "O", "I", "lebedev-5"])
def test_residual_agrees_with_wigner_matrices(name):
    chosen = rot.rotation_set(name)
    residual = residual_of(chosen, 6)
    for degree in range(7):
        mean = torch.einsum("k,kij->ij", chosen.weights, wigner_d(degree, chosen.matrices))
        assert mean.square().sum() == pytest.approx(float(residual[degree]), abs=1e-12)


def test_haar_is_proper_and_uniform():
    g = rot.haar(40_000, torch.Generator().manual_seed(0))
    assert torch.allclose(g @ g.mT, torch.eye(3, dtype=torch.float64).expand_as(g), atol=1e-13)
    # Under Haar every character of degree l >= 1 has mean 0 and variance 1.
    values = characters(g, 4)
    z = values[1:].mean(dim=1) * 200
    assert z.abs().max() < 4
    assert values[1:].var(dim=1) == pytest.approx([1.0] * 4, abs=0.05)


def test_a_non_haar_sampler_would_be_seen():
    angle = 2 * torch.pi * torch.rand(40_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    c, s, zero, one = angle.cos(), angle.sin(), torch.zeros(40_000).double(), torch.ones(40_000).double()
    z = torch.stack([c[:, 0], -s[:, 0], zero, s[:, 0], c[:, 0], zero, zero, zero, one], -1).view(-1, 3, 3)
    y = torch.stack([c[:, 1], zero, s[:, 1], zero, one, zero, -s[:, 1], zero, c[:, 1]], -1).view(-1, 3, 3)
    assert (characters(z @ y, 2)[2].mean() * 200).abs() > 4


def test_haar_generator_leaves_global_state_alone():
    before = torch.get_rng_state()
    rot.haar(5, torch.Generator().manual_seed(1))
    rot.haar_keyed(0, [1, 2, 3])
    assert torch.equal(before, torch.get_rng_state())


def test_keyed_rotations_depend_on_seed_id_and_stream_only():
    whole = rot.haar_keyed(3, [5, 6, 7], stream=2)
    assert torch.equal(whole[1:], rot.haar_keyed(3, [6, 7], stream=2))
    others = [rot.haar_keyed(4, [5, 6, 7], 2), rot.haar_keyed(3, [5, 6, 7], 1), rot.haar_keyed(3, [8, 9, 10], 2)]
    assert all((whole - o).abs().amax(dim=(1, 2)).min() > 1e-3 for o in others)


def test_keyed_rotations_are_haar_across_ids_and_streams():
    across_ids = rot.haar_keyed(0, range(10_000))
    across_streams = torch.cat([rot.haar_keyed(0, [7], stream) for stream in range(4_000)])
    for g in (across_ids, across_streams):
        assert (characters(g, 4)[1:].mean(dim=1) * len(g) ** 0.5).abs().max() < 4


def test_super_fibonacci_is_even_but_exact_to_no_degree():
    chosen = rot.rotation_set("superfibonacci-60")
    residual = residual_of(chosen, 3)
    iid = torch.tensor([1.0, 9.0, 25.0, 49.0]) / 60
    assert chosen.degree == 0
    assert (residual[1:] < 0.05 * iid[1:]).all()
    assert residual[1] > 1e-6


def test_o3_set_holds_both_halves():
    chosen = rot.rotation_set("T", "O3")
    assert len(chosen) == 24
    assert torch.linalg.det(chosen.matrices).sum().abs() < 1e-12
    assert chosen.weights.sum() == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("name", ["X", "T2", "lebedev-4", "lebedev-13", "superfibonacci-0", ""])
def test_unknown_sets_are_refused(name):
    with pytest.raises(InputError):
        rot.rotation_set(name)


def test_negative_keys_are_refused():
    with pytest.raises(InputError, match="non-negative"):
        rot.haar_keyed(-1, [0])


def test_uniform_elements_of_the_octahedral_group_are_uniform_and_keyed():
    drawn = rot.uniform_keyed("O", 3, range(4800))
    matches = (drawn[:, None] == rot.group("O").matrices[None]).all(dim=(2, 3))
    assert bool((matches.sum(1) == 1).all())
    counts = matches.sum(0).double()
    assert float(((counts - 200) ** 2 / 200).sum()) < 52  # chi-square, 23 degrees of freedom, p = 5e-4
    assert torch.equal(rot.uniform_keyed("O", 3, [7, 11]), drawn[[7, 11]])
    assert torch.equal(rot.uniform_keyed("SO3", 3, [7]), rot.haar_keyed(3, [7]))


def test_sets_outside_the_octahedral_group_are_refused():
    assert len(rot.rotation_set("T", "O")) == 12
    for name in ("I", "lebedev-3", "superfibonacci-8"):
        with pytest.raises(InputError, match="leave the octahedral group"):
            rot.rotation_set(name, "O")


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
