"""Edges: the cutoff envelope and the radial basis, no NaN at zero length, and attention by a plain loop."""

import pytest
import torch

from equiscope.errors import InputError
from equiscope.tasks.forcefield import neighbours
from equiscope.tasks.forcefield.edges import (
    EdgeAttention,
    RadialBasis,
    SpeciesIndex,
    geometry,
    lengths_and_units,
    log_envelope,
)
from tests.tasks.forcefield.molecules import random_batch


def test_envelope_is_the_polynomial_and_flat_at_the_cutoff() -> None:
    x = torch.linspace(0, 0.999, 50, dtype=torch.float64, requires_grad=True)
    expected = 1 - 28 * x**6 + 48 * x**7 - 21 * x**8
    assert torch.allclose(log_envelope(5 * x, 5.0).exp(), expected, atol=1e-12, rtol=0)
    # u(x) ≈ 56 (1 − x)³ near the cutoff: value, slope and curvature vanish.
    near = torch.tensor([1 - 1e-4], dtype=torch.float64)
    third = torch.tensor([56.0], dtype=torch.float64)
    assert torch.allclose(log_envelope(5 * near, 5.0).exp() / 1e-12, third, rtol=1e-2)
    assert (log_envelope(5 * x, 5.0).exp().diff() <= 0).all()


def test_log_envelope_has_finite_gradients_at_and_beyond_the_cutoff() -> None:
    length = torch.tensor([4.9999998, 5.0, 5.1], requires_grad=True)
    value = log_envelope(length, 5.0)
    (gradient,) = torch.autograd.grad(value.sum(), length)
    assert value.isfinite().all()
    assert gradient.isfinite().all()
    assert (value.exp() < 1e-15).all()


def test_units_are_units_and_zero_for_coincident_atoms() -> None:
    displacement = torch.tensor([[3.0, 0.0, 4.0], [0.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    length, unit = lengths_and_units(displacement)
    assert torch.allclose(length, torch.tensor([5.0, 0.0], dtype=torch.float64), atol=1e-5)
    assert torch.allclose(unit, torch.tensor([[0.6, 0, 0.8], [0, 0, 0]], dtype=torch.float64), atol=1e-12)
    (gradient,) = torch.autograd.grad(length.sum() + unit[0].sum(), displacement)
    assert gradient.isfinite().all()


def test_basis_peaks_one_after_another_up_to_the_cutoff() -> None:
    basis = RadialBasis(16, 5.0).double()
    length = torch.linspace(0, 5, 2001, dtype=torch.float64)
    values = basis(length)
    peaks = length[values.argmax(0)]
    assert (peaks.diff() > 0).all()
    assert peaks[0] == 0.0
    assert peaks[-1] == 5.0
    assert torch.allclose(values.max(0).values, torch.ones(16, dtype=torch.float64), atol=1e-4)


def test_lengths_and_directions_point_from_atom_to_neighbour() -> None:
    atoms = neighbours.flatten(random_batch([5, 7]))
    found = neighbours.find(atoms, 4.0)
    length, unit, log_weight = geometry(atoms, found, 4.0)
    for edge, (i, j) in enumerate(zip(found.centre.tolist(), found.neighbour.tolist(), strict=True)):
        away = atoms.pos[j] - atoms.pos[i]
        assert torch.allclose(length[edge] * unit[edge], away, atol=1e-9)
        assert torch.allclose(length[edge], away.norm(), atol=1e-9)
    assert torch.equal(log_weight, log_envelope(length, 4.0))


def test_attention_is_that_of_each_atoms_tokens_alone() -> None:
    torch.manual_seed(0)
    attention = EdgeAttention(6, 2).double()
    # Two atoms, of three and of two tokens; the last place of the second is empty.
    table, slot = torch.tensor([[0, 1, 2], [3, 4, 0]]), torch.tensor([0, 1, 2, 3, 4])
    x = torch.randn(5, 6, dtype=torch.float64)
    bias, extra = torch.randn(2, 1, 1, 3, dtype=torch.float64), torch.randn(2, 2, 3, 3, dtype=torch.float64)
    bias[1, ..., 2] = -torch.inf
    found = attention(x, table, slot, extra, bias)
    for atom, tokens in enumerate([[0, 1, 2], [3, 4]]):
        q, k, v = attention.qkv(x[tokens]).unflatten(1, (3, 2, 3)).unbind(1)
        for place, token in enumerate(tokens):
            heads = []
            for head in range(2):
                logits = k[:, head] @ q[place, head] / 3**0.5 + bias[atom, 0, 0, : len(tokens)]
                share = (logits + extra[atom, head, place, : len(tokens)]).softmax(0)
                heads.append(share @ v[:, head])
            assert torch.allclose(found[token], attention.out(torch.cat(heads)), atol=1e-12)


def test_indices_follow_the_order_of_the_elements() -> None:
    assert SpeciesIndex((1, 8, 6))(torch.tensor([6, 1, 8, 8])).tolist() == [2, 0, 1, 1]


@pytest.mark.parametrize("unknown", [0, 7, 92, -3])
def test_an_unknown_element_is_named(unknown: int) -> None:
    with pytest.raises(InputError, match=rf"\[{unknown}\].*\[1, 8, 6\]"):
        SpeciesIndex((1, 8, 6))(torch.tensor([6, unknown]))
