"""The decay of the equivariance error by Lanczos, on quadratics where descent can be followed exactly."""

import numpy as np
import pytest
import torch

from equiscope.analysis.decay import gradient_spectra, predicted_decay
from equiscope.analysis.krylov import lanczos
from equiscope.analysis.parts import Parts

from .networks import DECLARED, batches, network


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
