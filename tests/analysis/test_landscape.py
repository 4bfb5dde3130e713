import gc

import numpy as np
import pytest
import torch

from equiscope.analysis.landscape import _filter_normalised, landscape, roughness
from equiscope.analysis.parts import Parts
from equiscope.errors import InputError
from tests.analysis import pooled
from tests.analysis.networks import DECLARED, batches, network

SHORT = {"points": 7, "plane_points": 5, "rotations": "D2", "cosets": 1}


def test_losses_that_are_quadratic_in_the_chosen_parameters_have_no_residual():
    found = landscape(
        network("GELU"), batches(), DECLARED, parameters=["last"], directions=("gradient:total", "random"), **SHORT
    )
    figures = [line[part] for line in found["lines"].values() for part in line]
    figures += list(found["plane"]["parts"].values())
    for each in figures:
        assert each["relative"] < 1e-12
        assert each["anharmonic"] < 1e-12


def test_roughness_is_seen_and_told_from_its_noise():
    generator = np.random.default_rng(0)
    t = np.linspace(-1, 1, 21)
    wiggle = 0.01 * np.cos(40 * t)
    weights = np.full(8, 1 / 8)
    smooth = t[:, None] ** 2 + 0.02 * generator.standard_normal((21, 8))
    common = t[:, None] ** 2 + wiggle[:, None] + 1e-4 * generator.standard_normal((21, 8))
    rough = roughness(common, weights)
    assert rough["square"] > 0.9 * rough["roughness"] ** 2
    assert rough["noise"] < 0.1 * rough["roughness"]
    squares = [
        roughness(t[:, None] ** 2 + 0.02 * generator.standard_normal((21, 8)), weights)["square"] for _ in range(200)
    ]
    assert abs(np.mean(squares)) < 4 * np.std(squares) / np.sqrt(200)
    assert roughness(smooth, weights)["noise"] == pytest.approx(roughness(smooth, weights)["roughness"], rel=0.5)


def test_the_middle_is_the_model_and_an_eigenvector_curves_as_it_should():
    net, data = network("LayerNorm"), batches()
    found = landscape(net, data, DECLARED, directions=("eigenvector:equivariance",), span=1e-3, **SHORT)
    line = found["lines"]["eigenvector:equivariance"]["equivariance"]
    assert line["value"][3] == pytest.approx(found["losses"]["equivariance"], rel=1e-12)
    assert line["error"][3] == 0
    assert found["plane"] is None
    assert found["rounding"]["total"] < 1e-12


def test_random_directions_have_the_norm_of_every_filter():
    net = network("GELU")
    parts = Parts(net, batches(), DECLARED)
    flat, start = _filter_normalised(parts, 3), 0
    assert torch.equal(flat, _filter_normalised(parts, 3))
    for own in parts.parameters.values():
        found, start = flat[start : start + own.numel()].reshape(own.shape), start + own.numel()
        # Biases stay: they have no filters.
        norms = own.norm(dim=1) if own.ndim > 1 else torch.zeros(())
        assert torch.allclose(found.norm(dim=-1), norms.to(found), rtol=1e-12)


def test_displacements_are_made_one_at_a_time():
    net, alive = network("GELU"), []
    size = sum(p.numel() for p in net.parameters())

    def watched(grid):
        for point in grid:
            alive.append(sum(type(one) is torch.Tensor and one.shape == (size,) for one in gc.get_objects()))
            yield point

    landscape(net, batches(), DECLARED, directions=("random:1", "random:-2"), progress=watched, **SHORT)
    assert len(alive) == 2 * 7 + 5 * 5
    assert max(alive) < 8


@pytest.mark.parametrize(
    "arguments",
    [{"directions": ("hessian:total",)}, {"directions": ("random:first",)},
     {"points": 8}, {"span": 0}, {"directions": ("random:1", "random:1")},
     {"directions": ({"head": torch.ones(3)},)}],
)
def test_bad_arguments(arguments):
    with pytest.raises(InputError):
        landscape(network("GELU"), batches(1), DECLARED, **{**SHORT, **arguments})


@pytest.mark.parametrize("weighting", ["sample", "component"])
def test_values_and_errors_of_unequal_batches_follow_the_weights(weighting):
    """Along A -> (1 + t) A the error of batch b is (1 + t)^2 M_b broken(A); its spread over batches by hand."""
    model, data = pooled.TwoMaps(), pooled.dealt(4)
    found = landscape(
        model,
        data,
        pooled.declared(weighting, both=False),
        directions=[{"a": model.a.detach().clone()}],
        parameters=["a"],
        points=7,
        span=0.3,
    )
    line, t = found["lines"]["given:0"]["equivariance"], np.array(found["t"])
    broken = float(pooled.broken(model.a.detach()))
    whole = float(pooled.moment(data, "mask", weighting))
    assert line["value"] == pytest.approx((1 + t) ** 2 * whole * broken, rel=1e-10)
    counts = np.array([len(b["mask"]) if weighting == "sample" else float(b["mask"].sum()) for b in data])
    w, own = counts / counts.sum(), np.array([float(pooled.moment([b], "mask", weighting)) for b in data])
    spread = np.sqrt(((own - whole) ** 2) @ (w**2 / (1 - w)))
    assert line["error"] == pytest.approx(np.abs((1 + t) ** 2 - 1) * broken * spread, rel=1e-9, abs=1e-15)
