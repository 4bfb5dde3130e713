"""The training loss on mini-batches against dense Jacobians, and its scale against the loss that is measured."""

import pytest
import torch

from equiscope.analysis.objective import Objective
from equiscope.analysis.parts import Parts

from .networks import DECLARED, batches, network

TWO = batches(2)


def squared(model, batch):
    return 7 * (model(batch)["forces"] - batch["y"]).square().mean()


def made(loss=squared):
    parts = Parts(network("GELU", width=4), TWO, DECLARED, rotations="T", cosets=1)
    return parts, Objective(parts, loss, TWO)


def jacobian(parts, batch):
    rows = parts.model(batch)["forces"].flatten()
    own = list(parts.parameters.values())
    return torch.stack([parts.flat(torch.autograd.grad(row, own, retain_graph=True)) for row in rows])


def test_gradient_and_gauss_newton_product_are_those_of_the_jacobian():
    parts, objective = made()
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
    _, objective = made()
    assert objective.scale("forces") == pytest.approx(7, rel=1e-9)
    _, other = made(lambda model, batch: (model(batch)["forces"] - batch["y"]).abs().mean())
    assert not other.scale("forces") > 0
    assert not objective.scale("energy") > 0


def test_forms_are_those_of_the_products():
    parts, _ = made()
    u = torch.randn(3, parts.size, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    found = parts.form(("equivariance", "twirled"), u)
    for part, form in found.items():
        due = torch.stack([u @ parts.product(part, row, "gauss_newton") for row in u])
        torch.testing.assert_close(form, due, rtol=1e-9, atol=1e-12)
