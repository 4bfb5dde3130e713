"""Rotation sets: Haar law, exact degree by character sums (and failure one degree above), keyed streams."""

import pytest
import torch

from equiscope.errors import InputError
from equiscope.symmetry import rotations as rot
from equiscope.symmetry.actions import wigner_d

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
    residual = rot.residual(chosen, chosen.degree + 1)
    assert residual[1:-1].abs().max() < 1e-12
    assert residual[-1] > 0.1


@pytest.mark.parametrize("name", ["T", "O", "I", "lebedev-5"])
def test_residual_agrees_with_wigner_matrices(name):
    chosen = rot.rotation_set(name)
    residual = rot.residual(chosen, 6)
    for degree in range(7):
        mean = torch.einsum("k,kij->ij", chosen.weights, wigner_d(degree, chosen.matrices))
        assert mean.square().sum() == pytest.approx(float(residual[degree]), abs=1e-12)


def test_haar_is_proper_and_uniform():
    g = rot.haar(40_000, torch.Generator().manual_seed(0))
    assert torch.allclose(g @ g.mT, torch.eye(3, dtype=torch.float64).expand_as(g), atol=1e-13)
    # Under Haar every character of degree l >= 1 has mean 0 and variance 1.
    characters = rot.characters(g, 4)
    z = characters[1:].mean(dim=1) * 200
    assert z.abs().max() < 4
    assert characters[1:].var(dim=1) == pytest.approx([1.0] * 4, abs=0.05)


def test_a_non_haar_sampler_would_be_seen():
    angle = 2 * torch.pi * torch.rand(40_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    c, s, zero, one = angle.cos(), angle.sin(), torch.zeros(40_000).double(), torch.ones(40_000).double()
    z = torch.stack([c[:, 0], -s[:, 0], zero, s[:, 0], c[:, 0], zero, zero, zero, one], -1).view(-1, 3, 3)
    y = torch.stack([c[:, 1], zero, s[:, 1], zero, one, zero, -s[:, 1], zero, c[:, 1]], -1).view(-1, 3, 3)
    assert (rot.characters(z @ y, 2)[2].mean() * 200).abs() > 4


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
        assert (rot.characters(g, 4)[1:].mean(dim=1) * len(g) ** 0.5).abs().max() < 4


def test_super_fibonacci_is_even_but_exact_to_no_degree():
    chosen = rot.rotation_set("superfibonacci-60")
    residual = rot.residual(chosen, 3)
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
