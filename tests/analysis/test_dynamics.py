"""The training loss against dense Jacobians; the noise of mini-batches, and the share of the error it makes;
the decay of the error by Lanczos, on quadratics where descent can be followed exactly."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import solve_discrete_lyapunov

from equiscope.analysis import dynamics
from equiscope.analysis.dynamics import Objective, Stepper, gradient_spectra, noise_share, predicted_decay
from equiscope.analysis.krylov import lanczos
from equiscope.analysis.parts import Parts
from equiscope.errors import InputError

from .networks import DECLARED, batches, network

MINIBATCHES = batches(10)


def squared(model, batch):
    return (model(batch)["forces"] - batch["y"]).square().mean()


@pytest.fixture(scope="module")
def made():
    parts = Parts(network("SiLU", width=3), batches(3), DECLARED, rotations="T", cosets=1)
    return parts, Objective(parts, squared, batches(3))


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_noise_vectors_have_the_covariance_of_the_mini_batches(made, clip):
    parts, objective = made
    root = torch.linspace(0.5, 2, parts.size, dtype=torch.float64)
    with parts.steady():
        pulls = torch.stack([objective.gradient(batch) for batch in MINIBATCHES])
        drawn = dynamics._drawn(objective, MINIBATCHES, root, clip, 4000, seed=1)
    factors = (clip / pulls.norm(dim=1)).clamp(max=1) if clip else torch.ones(len(pulls), dtype=torch.float64)
    covariance = torch.cov((root * factors[:, None] * pulls).T)
    assert drawn.clipped == pytest.approx(float(factors.mean()))
    assert drawn.noise == pytest.approx(float(covariance.trace()), rel=1e-9)
    seen = torch.stack(drawn.vectors)
    torch.testing.assert_close(seen.T @ seen / len(seen), covariance, rtol=0, atol=0.1 * float(covariance.diag().max()))


def test_the_share_is_that_of_the_dense_stationary_state(made):
    """SGD with momentum and weight decay: sixteen draws of signs against the covariance of the mini-batches."""
    parts, objective = made
    stepper = Stepper("sgd", rate=0.02, momentum=0.5, weight_decay=0.3, average=0.8)
    found = noise_share(parts, objective, MINIBATCHES, stepper, steps=1500, vectors=16, depth=12)
    # No graph is held afterwards.
    assert not objective._graphs._kept
    assert not parts.graphs._kept
    eye = torch.eye(parts.size, dtype=torch.float64)
    with parts.steady():
        h = torch.stack([objective.product(row) for row in eye]) + 0.3 * eye
        covariance = torch.cov(torch.stack([objective.gradient(batch) for batch in MINIBATCHES]).T)
    part = torch.stack([parts.product("equivariance", row, "gauss_newton") for row in eye])
    # theta <- theta - 0.02 m, m <- 0.5 m + h theta + xi.
    step = torch.cat([torch.cat([eye - 0.02 * h, -0.01 * eye], 1), torch.cat([h, 0.5 * eye], 1)])
    inject = torch.cat([-0.02 * eye, eye])
    exact = solve_discrete_lyapunov(step.numpy(), (inject @ covariance @ inject.T).numpy())[: parts.size, : parts.size]
    due = 0.5 * float((part @ torch.from_numpy(exact)).trace())
    low, high = found["equivariance"]["weights"]["interval"]
    assert low < due < high
    assert high - low < 1.2 * due
    assert found["equivariance"]["averaged"]["value"] < found["equivariance"]["weights"]["value"]
    assert found["of_error"]["value"] == pytest.approx(
        found["equivariance"]["weights"]["value"] / parts.values["equivariance"]
    )
    assert found["edge"] == pytest.approx(6)


def test_beyond_the_edge_nothing_is_given(made):
    parts, objective = made
    found = noise_share(parts, objective, MINIBATCHES, Stepper("sgd", 100.0), steps=10, vectors=2, depth=4)
    assert "at or over the edge of stability" in found["refused"]
    assert "equivariance" not in found
    assert found["kappa_max"] > found["edge"] == 2
    assert math.isfinite(found["noise"])


def test_too_little_is_said(made):
    with pytest.raises(InputError, match="8 mini-batches or more, got 7"):
        noise_share(*made, MINIBATCHES[:7], Stepper("sgd", 0.1), steps=10, vectors=2, depth=4)
    with pytest.raises(InputError, match="got vectors=1"):
        noise_share(*made, MINIBATCHES, Stepper("sgd", 0.1), steps=10, vectors=1, depth=4)
    with pytest.raises(InputError, match="the optimizer state has 0 parameters"):
        noise_share(*made, MINIBATCHES, Stepper("adam", 0.1, state={"state": {}, "param_groups": []}), steps=10,
                    vectors=2, depth=4)  # fmt: skip


TWO = batches(2)


def loss_of(model, batch):
    return 7 * (model(batch)["forces"] - batch["y"]).square().mean()


def objective_of(loss=loss_of):
    parts = Parts(network("GELU", width=4), TWO, DECLARED, rotations="T", cosets=1)
    return parts, Objective(parts, loss, TWO)


def jacobian(parts, batch):
    rows = parts.model(batch)["forces"].flatten()
    own = list(parts.parameters.values())
    return torch.stack([parts.flat(torch.autograd.grad(row, own, retain_graph=True)) for row in rows])


def test_gradient_and_gauss_newton_product_are_those_of_the_jacobian():
    parts, objective = objective_of()
    v = torch.randn(parts.size, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    image = torch.zeros_like(v)
    for batch in TWO:
        j = jacobian(parts, batch)
        with torch.no_grad():
            error = (parts.model(batch)["forces"] - batch["y"]).flatten()
        with parts.steady():
            torch.testing.assert_close(objective.gradient(batch), 14 * j.T @ error / len(error), rtol=1e-9, atol=1e-12)
        image += 14 * j.T @ (j @ v) / len(error) / len(TWO)
    with parts.steady():
        for _ in range(2):  # the second from the graphs that are kept
            torch.testing.assert_close(objective.product(v), image, rtol=1e-9, atol=1e-12)


def test_the_scale_is_that_of_the_squared_error_and_nan_of_others():
    _, objective = objective_of()
    assert objective.scale("forces") == pytest.approx(7, rel=1e-9)
    _, other = objective_of(lambda model, batch: (model(batch)["forces"] - batch["y"]).abs().mean())
    assert not other.scale("forces") > 0
    assert not objective.scale("energy") > 0


def test_forms_are_those_of_the_products():
    parts, _ = objective_of()
    u = torch.randn(3, parts.size, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    found = parts.form(("equivariance", "twirled"), u)
    for part, form in found.items():
        due = torch.stack([u @ parts.product(part, row, "gauss_newton") for row in u])
        torch.testing.assert_close(form, due, rtol=1e-9, atol=1e-12)


def test_all_products_give_the_course_of_descent_exactly():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(7, 7, generator=generator, dtype=torch.float64)
    h, w, rate = root @ root.T, torch.randn(7, generator=generator, dtype=torch.float64), 0.02
    slope = h @ w
    run = lanczos(lambda v: h @ v, slope, 7)
    steps, seen = np.array([0, 1, 3, 10, 40]), []
    for step in range(41):
        if step in steps:
            seen.append(0.5 * float(w @ h @ w))
        w = w - rate * h @ w
    found = predicted_decay(run.nodes, run.weights, float(slope @ slope), seen[0], rate, steps)
    np.testing.assert_allclose(found, seen, rtol=1e-8)


def test_an_answer_of_zero_has_no_spectrum():
    net = network("SiLU", width=4)
    with torch.no_grad():
        net.last.weight.zero_()
        net.last.bias.zero_()
    assert list(gradient_spectra(Parts(net, batches(), DECLARED, rotations="T", cosets=1), products=2)) == ["twirled"]


def test_flat_modes_fall_in_a_straight_line():
    found = predicted_decay(np.zeros(1), np.ones(1), 4.0, 10.0, 0.1, np.array([0, 5]))
    np.testing.assert_allclose(found, [10.0, 8.0])


def test_spectra_are_those_of_the_dense_gauss_newton_matrix():
    parts = Parts(network("SiLU", width=4), batches(), DECLARED, rotations="T", cosets=1)
    found = gradient_spectra(parts, products=6)
    dense = torch.stack([parts.product("total", row, "gauss_newton") for row in torch.eye(parts.size).double()])
    slopes = parts.gradient(("twirled", "equivariance"))
    for part, slope in slopes.items():
        square = float(slope @ slope)
        assert found[part]["square"] == pytest.approx(square, rel=1e-9)
        assert found[part]["mean"] == pytest.approx(float(slope @ dense @ slope) / square, rel=1e-8)
        # Six nodes carry the moments up to the eleventh.
        moved = dense @ dense @ slope
        third = np.array(found[part]["nodes"]) ** 3 @ np.array(found[part]["weights"])
        assert third == pytest.approx(float((dense @ slope) @ moved) / square, rel=1e-8)
