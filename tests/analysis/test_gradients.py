import math

import numpy as np
import pytest
import torch

from equiscope.analysis.gradients import gradients
from equiscope.errors import InputError
from tests.analysis import pooled
from tests.analysis.networks import DECLARED, batches, network
from tests.decomposition.models import Linear


def linear_gradient(matrix, data):
    """Gradient of the equivariance error of A x: 2/9 E|x|^2 (A - tr A / 3)."""
    square = torch.cat([b["pos"] for b in data]).square().sum(-1).mean()
    return 2 / 9 * square * (matrix - torch.eye(3, dtype=torch.float64) * matrix.trace() / 3)


def test_norms_of_a_linear_map_are_those_of_the_closed_form():
    matrix = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data = batches(24, samples=8)
    found = gradients(Linear(matrix), data, DECLARED, groups=24)["whole"]
    expected = float(linear_gradient(matrix, data).norm())
    low, high = found["norm"]["equivariance"]["interval"]
    assert low < expected < high
    assert found["norm"]["equivariance"]["value"] == pytest.approx(expected, rel=0.02)
    # Twirled loss and equivariance error of a linear map live on orthogonal parameters.
    assert abs(found["cosine"]["value"]) < 1e-9
    error = expected**2
    rate = error / float(linear_error_mean(matrix, data))
    assert found["rate"]["equivariance"]["value"] == pytest.approx(rate, rel=0.03)


def linear_error_mean(matrix, data):
    square = torch.cat([b["pos"] for b in data]).square().sum(-1).mean()
    return square / 9 * (matrix.square().sum() - matrix.trace() ** 2 / 3)


def test_layers_add_up_and_adam_with_equal_moments_is_a_multiple():
    net, data = network("GELU"), batches(5)
    names = list(dict(net.named_parameters()))
    state = {
        "state": {i: {"exp_avg_sq": torch.full_like(p, 0.25), "step": 1e6} for i, p in enumerate(net.parameters())},
        "param_groups": [{"params": list(range(len(names))), "betas": (0.9, 0.99), "eps": 0.0}],
    }
    found = gradients(net, data, DECLARED, optimizer_state=state)
    for part in ("twirled", "equivariance", "total"):
        whole = found["whole"]["norm"][part]["square"]
        layers = sum(block["norm"][part]["square"] for block in found["layers"].values())
        assert layers == pytest.approx(whole, rel=1e-9)
        assert found["adam"]["norm"][part]["square"] == pytest.approx(2 * whole, rel=1e-9)
    assert list(found["layers"]) == ["first", "last"]
    assert found["adam"]["cosine"]["value"] == pytest.approx(found["whole"]["cosine"]["value"], abs=1e-9)


def test_rates_are_the_pull_of_the_whole_gradient_on_each_loss():
    found = gradients(network("GELU"), batches(5), DECLARED)
    whole, losses = found["whole"], found["losses"]
    # <g_T, g> + <g_E, g> = |g|^2, whatever the parts pull at one another.
    pulls = {part: whole["rate"][part]["value"] * losses[part] for part in ("twirled", "equivariance")}
    assert sum(pulls.values()) == pytest.approx(whole["norm"]["total"]["square"], rel=1e-9)
    squares = {part: whole["norm"][part]["square"] for part in pulls}
    mixed = (whole["norm"]["total"]["square"] - sum(squares.values())) / 2
    assert abs(mixed) > 1e-4 * squares["equivariance"]
    assert {part: pull - squares[part] for part, pull in pulls.items()} == pytest.approx(
        dict.fromkeys(pulls, mixed), rel=1e-6
    )


@pytest.mark.parametrize("step", [1, 30])
def test_adams_metric_is_that_of_its_next_step(step):
    net, data = network("GELU"), batches(5)
    moments = {i: {"exp_avg_sq": torch.full_like(p, 0.25), "step": step} for i, p in enumerate(net.parameters())}
    groups = [{"params": list(moments), "betas": (0.9, 0.99), "eps": 0.1}]
    found = gradients(net, data, DECLARED, optimizer_state={"state": moments, "param_groups": groups})
    metric = 1 / (math.sqrt(0.25 / (1 - 0.99**step)) + 0.1)
    for part in ("twirled", "equivariance"):
        ratio = found["adam"]["norm"][part]["square"] / found["whole"]["norm"][part]["square"]
        assert ratio == pytest.approx(metric, rel=1e-9)


def test_bad_input():
    net, data = network("GELU"), batches(3)
    with pytest.raises(InputError, match="at least 3"):
        gradients(net, data[:2], DECLARED)
    with pytest.raises(InputError, match="optimizer state has 0"):
        gradients(net, data, DECLARED, optimizer_state={"state": {}, "param_groups": []})
    groups = [{"params": list(range(4)), "betas": (0.9, 0.99), "eps": 0.0}]
    with pytest.raises(InputError, match="exp_avg_sq"):
        gradients(net, data, DECLARED, optimizer_state={"state": {}, "param_groups": groups})


def test_everything_is_plain():
    found = gradients(network("GELU", dtype=torch.float32), batches(3, dtype=torch.float32), DECLARED)

    def check(value):
        if isinstance(value, dict):
            return all(isinstance(k, str) and check(v) for k, v in value.items())
        if isinstance(value, list):
            return all(check(v) for v in value)
        return value is None or isinstance(value, str | int | float)

    assert check(found)
    assert not isinstance(found["whole"]["ratio"]["value"], np.floating) or math.isfinite(found["groups"])


@pytest.mark.parametrize("weighting", ["sample", "component"])
def test_products_of_unequal_batches_use_the_weights_of_their_samples(weighting):
    """Batch b's gradient is M_b G: |g|^2 = |G|^2 sum_{b != c} w_b M_b w_c M_c / (1 - sum w^2), w its share."""
    model, data = pooled.TwoMaps(), pooled.dealt(4)
    found = gradients(model, data, pooled.declared(weighting, 2.0, both=False), parameters=["a"])["whole"]
    counts = [len(b["mask"]) if weighting == "sample" else float(b["mask"].sum()) for b in data]
    w = np.array(counts) / sum(counts)
    own = w * np.array([float(pooled.moment([b], "mask", weighting)) for b in data])
    matrix = model.a.detach()
    slope = 2 * 2 / 9 * (matrix - torch.eye(3).double() * matrix.trace() / 3)
    square = float(slope.square().sum()) * (own.sum() ** 2 - (own**2).sum()) / (1 - (w**2).sum())
    assert found["norm"]["equivariance"]["square"] == pytest.approx(square, rel=1e-9)
