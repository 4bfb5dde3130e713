"""The cutoff envelope and the radial basis: values, smoothness, and no NaN at zero length."""

import torch

from equiscope.tasks.forcefield.radial import RadialBasis, envelope, lengths_and_units, log_envelope


def test_envelope_is_the_polynomial_and_flat_at_the_cutoff() -> None:
    x = torch.linspace(0, 0.999, 50, dtype=torch.float64, requires_grad=True)
    expected = 1 - 28 * x**6 + 48 * x**7 - 21 * x**8
    assert torch.allclose(envelope(5 * x, 5.0), expected, atol=1e-12, rtol=0)
    # u(x) ≈ 56 (1 − x)³ near the cutoff: value, slope and curvature vanish.
    near = torch.tensor([1 - 1e-4], dtype=torch.float64)
    assert torch.allclose(envelope(5 * near, 5.0) / 1e-12, torch.tensor([56.0], dtype=torch.float64), rtol=1e-2)
    assert (envelope(5 * x, 5.0).diff() <= 0).all()


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
