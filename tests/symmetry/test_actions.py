"""Actions: homomorphism, unitarity, agreement with e3nn and with Cartesian formulae, errors."""

import pytest
import torch
from e3nn import o3

from equiscope.errors import InputError
from equiscope.symmetry.actions import IrrepsAction, MatrixAction, action, wigner_d
from equiscope.symmetry.rotations import group, haar

SPECS = ["0e", "1o", "1e", "2x0e+1o+2e", "3e", "6x4o", "cartesian", "stress", "voigt"]


def pair(seed=0, improper=False):
    generator = torch.Generator().manual_seed(seed)
    g, h = haar(8, generator), haar(8, generator)
    return (-g, h) if improper else (g, h)


def value(act, seed=1):
    x = torch.randn(8, 2, *act.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (x + x.mT) / 2 if act.label == "stress" else x


@pytest.mark.parametrize("improper", [False, True])
@pytest.mark.parametrize("spec", SPECS)
def test_action_is_a_unitary_representation(spec, improper):
    act = action(spec)
    (g, h), x = pair(improper=improper), value(action(spec))
    assert (act.act(g, act.act(h, x)) - act.act(g @ h, x)).abs().max() < 1e-12
    norms = [act.canonical(v).flatten(1).norm(dim=1) for v in (x, act.act(g, x))]
    assert (norms[0] - norms[1]).abs().max() < 1e-12
    assert (act.act(g.mT, act.act(g, x)) - x).abs().max() < 1e-12


@pytest.mark.parametrize("spec", SPECS)
def test_invariants_are_what_the_action_leaves(spec):
    act = action(spec)
    basis = act.invariants("O3")
    x = torch.einsum("...d,dk->...k", act.canonical(value(act)), basis)
    turned = torch.einsum("...d,dk->...k", act.canonical(act.act(pair()[0], value(act))), basis)
    assert x.shape[-1] == 0 or (x - turned).abs().max() < 1e-12
    # The averaged projector onto invariants has exactly that many dimensions.
    g = group("I").matrices
    probe = torch.randn(1, 1, *act.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    mean = act.canonical(act.act(torch.cat([g, -g]), probe.expand(120, 1, *act.shape))).mean(0)
    if act.label == "stress":
        probe = (probe + probe.mT) / 2
    assert (mean - (act.canonical(probe[0]) @ basis) @ basis.T).abs().max() < 1e-12


@pytest.mark.parametrize("degree", range(11))
def test_wigner_matrices_agree_with_e3nn_where_it_is_accurate(degree):
    # e3nn goes through Euler angles, which cost it about half the digits.
    g = haar(20, torch.Generator().manual_seed(degree))
    ours, theirs = wigner_d(degree, g), o3.Irrep(degree, 1).D_from_matrix(g)
    assert (ours - theirs).abs().max() < 2e-5
    assert (ours @ ours.mT - torch.eye(2 * degree + 1, dtype=torch.float64)).abs().max() < 1e-12


def test_wigner_matrices_at_the_poles():
    g = group("O").matrices
    d = wigner_d(4, g)
    products = wigner_d(4, g[3] @ g)
    assert (d[3] @ d - products).abs().max() < 1e-12


def test_degree_one_is_the_rotation_itself():
    g = haar(3)
    assert torch.equal(wigner_d(1, g), g)


def test_second_degree_matches_the_traceless_symmetric_matrix():
    g, x = haar(6, torch.Generator().manual_seed(0)), torch.randn(6, 3, dtype=torch.float64)
    y = o3.spherical_harmonics(2, x, normalize=False)
    turned = o3.spherical_harmonics(2, torch.einsum("nij,nj->ni", g, x), normalize=False)
    assert (action("2e").act(g, y[:, None])[:, 0] - turned).abs().max() < 1e-12


def test_voigt_follows_ase_order():
    from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress

    x, g = value(action("voigt")), pair()[0]
    full = torch.from_numpy(voigt_6_to_full_3x3_stress(x[0, 0].numpy()))
    expected = full_3x3_to_voigt_6_stress((g[0] @ full @ g[0].T).numpy())
    assert action("voigt").act(g, x)[0, 0].numpy() == pytest.approx(expected, abs=1e-12)


def test_pseudovectors_do_not_change_sign_under_inversion():
    x = torch.randn(8, 1, 3, dtype=torch.float64)
    minus = -torch.eye(3, dtype=torch.float64).expand(8, 3, 3)
    assert torch.equal(action("1e").act(minus, x), x)
    assert torch.equal(action("1o").act(minus, x), -x)


def test_float32_values_turn_in_float64():
    x = torch.randn(8, 1, 3)
    assert action("1o").act(pair()[0], x).dtype == torch.float64


@pytest.mark.parametrize("spec", ["vector", "1x", "", "0x1o", None, 3])
def test_nonsense_specifications_are_refused(spec):
    with pytest.raises(InputError):
        action(spec)


class Shear:
    label, shape = "shear", (3,)

    def act(self, rotations, values):
        return values.double() * 2

    def canonical(self, values):
        return values

    def invariants(self, symmetry):
        return torch.zeros(3, 0, dtype=torch.float64)


class Transposed(Shear):
    def act(self, rotations, values):
        return torch.einsum("nji,ncj->nci", rotations, values.double())


def test_custom_actions_are_checked():
    with pytest.raises(InputError, match="not unitary"):
        action(Shear())
    with pytest.raises(InputError, match="not a representation"):
        action(Transposed())
    assert action(IrrepsAction("1o")).label == "1o"


def test_a_symmetric_tensor_is_judged_by_its_symmetric_part():
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    assert torch.equal(action("stress").canonical(x), action("stress").canonical(x.mT))
    assert not torch.equal(MatrixAction().canonical(x), MatrixAction().canonical(x.mT))
