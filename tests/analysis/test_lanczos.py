import numpy as np
import pytest
import torch

from equiscope.analysis.lanczos import lanczos, quantile, smoothed


def symmetric(n=40):
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(n, n, generator=generator, dtype=torch.float64)
    return a + a.T


def test_all_steps_give_every_eigenvalue_and_fewer_the_largest_within_the_residual():
    h = symmetric()
    truth = torch.linalg.eigvalsh(h).numpy()
    start = torch.ones(40, dtype=torch.float64)
    np.testing.assert_allclose(lanczos(lambda v: h @ v, start, 40).nodes, truth, rtol=1e-8)
    run = lanczos(lambda v: h @ v, start, 40, tolerance=1e-3)
    assert run.converged
    assert run.steps < 40
    assert truth[-1] - run.residual <= run.largest <= truth[-1] * (1 + 1e-12)
    assert float(run.vector @ h @ run.vector) == pytest.approx(run.largest, rel=1e-10)
    assert run.first == pytest.approx((float(start @ h @ start) / 40, float((h @ start).square().sum()) / 40))


def test_weights_are_those_of_the_spectral_measure():
    h = symmetric(8)
    values, vectors = torch.linalg.eigh(h)
    start = torch.arange(1.0, 9.0, dtype=torch.float64)
    run = lanczos(lambda v: h @ v, start, 8)
    np.testing.assert_allclose(run.weights, (vectors.T @ start).square().numpy() / float(start @ start), rtol=1e-8)
    grid = np.linspace(-30, 30, 2001)
    assert np.trapezoid(smoothed(run.nodes, run.weights, grid, 0.5), grid) == pytest.approx(1, abs=1e-6)
    assert quantile(run.nodes, run.weights, 1.0) == pytest.approx(float(values[-1]))
