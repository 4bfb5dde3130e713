"""Lanczos against dense matrices; the floor of an optimiser's noise against the exact stationary covariance."""

import numpy as np
import pytest
import torch
from scipy.linalg import solve_discrete_lyapunov

from equiscope.analysis.krylov import Recursion, lanczos, noise_floor, quantile, smoothed

SIZE = 8


def positive(seed, size=SIZE):
    a = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return a @ a.T / size


def exact(curvature, covariance, recursion):
    """Stationary covariances of the weights and of their average, by Lyapunov's equation for (x, m, average)."""
    n, one = len(curvature), np.eye(len(curvature))
    b, d = recursion.momentum, recursion.average
    m_row = [(1 - b) * curvature, b * one, 0 * one]
    x_row = [(1 - recursion.decay) * one - recursion.rate * m_row[0], -recursion.rate * m_row[1], 0 * one]
    average = [(1 - d) * x_row[0], (1 - d) * x_row[1], d * one]
    step = np.block([x_row, m_row, average])
    inject = np.vstack([-recursion.rate * (1 - b) * one, (1 - b) * one, -(1 - d) * recursion.rate * (1 - b) * one])
    found = solve_discrete_lyapunov(step, inject @ covariance @ inject.T)
    return found[:n, :n], found[2 * n :, 2 * n :]


@pytest.mark.parametrize(
    "recursion",
    [Recursion(0.3), Recursion(0.3, 0.9), Recursion(0.5, 0.9, average=0.95), Recursion(0.3, 0.5, 0.02, 0.9)],
)
def test_the_floor_is_that_of_lyapunovs_equation(recursion):
    a, covariance = positive(1) + 0.1 * torch.eye(SIZE, dtype=torch.float64), positive(2)
    parts = {"one": positive(3), "other": positive(4)}
    # Columns of a square root: their floors add up to that of the covariance.
    noise = torch.linalg.cholesky(covariance + 1e-12 * torch.eye(SIZE, dtype=torch.float64)).T
    found = noise_floor(
        list(noise), lambda v: a @ v, lambda u: {name: u @ p @ u.T for name, p in parts.items()}, recursion,
        steps=20_000, depth=SIZE,
    )  # fmt: skip
    weights, averaged = exact(a.numpy(), (noise.T @ noise).numpy(), recursion)
    for name, part in parts.items():
        due = 0.5 * np.trace(part.numpy() @ weights)
        assert sum(one.weights[name] for one in found) == pytest.approx(due, rel=1e-6)
        due = 0.5 * np.trace(part.numpy() @ averaged)
        assert sum(one.averaged[name] for one in found) == pytest.approx(due, rel=1e-6)
    for one in found:
        assert one.share.sum() == pytest.approx(1)
        assert one.kappa[-1] == pytest.approx(recursion.rate * float(torch.linalg.eigvalsh(a)[-1]), rel=1e-6)


def test_a_few_products_are_enough_where_the_fast_modes_carry_the_noise():
    a = torch.diag(torch.logspace(-2, 0, 60, dtype=torch.float64))
    start, part = torch.ones(60, dtype=torch.float64), torch.diag(torch.linspace(0, 1, 60, dtype=torch.float64)) @ a
    few, all_of_them = (
        noise_floor([start], lambda v: a @ v, lambda u: {"p": u @ part @ u.T}, Recursion(0.5, 0.9), steps=5000,
                    depth=depth)[0].weights["p"]
        for depth in (14, 60)
    )  # fmt: skip
    assert few == pytest.approx(all_of_them, rel=1e-2)


@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.8, 0.0), (0.8, 0.1)])
def test_the_response_is_that_of_torchs_sgd(momentum, decay):
    """An impulse in the gradient of lambda x^2 / 2 at the minimum; SGD's m is 1 / (1 - mu) times the heavy ball's."""
    curvature, rate = 0.7, 0.2
    x = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = torch.optim.SGD([x], lr=rate, momentum=momentum)
    seen = []
    for step in range(12):
        x.grad = curvature * x.detach() + (step == 0)
        with torch.no_grad():
            x.mul_(1 - decay)
        optimizer.step()
        seen.append(float(x.detach()))
    weights, averaged = Recursion(rate / (1 - momentum), momentum, decay, 0.5).responses(np.array([curvature]), 12)
    np.testing.assert_allclose(weights[:, 0], seen, rtol=1e-12)
    due = 0.0
    for value, average in zip(seen, averaged[:, 0], strict=True):
        due = 0.5 * due + 0.5 * value
        assert average == pytest.approx(due, rel=1e-12)


def test_modes_grow_beyond_the_edge_and_die_below_it():
    recursion = Recursion(1.0, 0.9)
    assert recursion.edge == pytest.approx(38)
    weights, _ = recursion.responses(np.array([0.99, 1.01]) * recursion.edge, 2000)
    below, beyond = np.abs(weights[-20:]).max(0)
    assert below < 0.1 < 10 < beyond


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
    moments = [float(run.nodes**power @ run.weights) for power in (1, 2)]
    assert moments == pytest.approx([float(start @ h @ start) / 40, float((h @ start).square().sum()) / 40])


def test_weights_are_those_of_the_spectral_measure():
    h = symmetric(8)
    values, vectors = torch.linalg.eigh(h)
    start = torch.arange(1.0, 9.0, dtype=torch.float64)
    run = lanczos(lambda v: h @ v, start, 8)
    np.testing.assert_allclose(run.weights, (vectors.T @ start).square().numpy() / float(start @ start), rtol=1e-8)
    grid = np.linspace(-30, 30, 2001)
    assert np.trapezoid(smoothed(run.nodes, run.weights, grid, 0.5), grid) == pytest.approx(1, abs=1e-6)
    assert quantile(run.nodes, run.weights, 1.0) == pytest.approx(float(values[-1]))
