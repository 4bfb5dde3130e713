"""Tests of the path, the law of flow times and the loss."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from equiscope.tasks.proteinflow import flow


def random_mask(seed=0, batch=5, longest=12) -> torch.Tensor:
    lengths = torch.randint(3, longest + 1, (batch,), generator=torch.Generator().manual_seed(seed))
    lengths[0] = longest
    return torch.arange(longest)[None] < lengths[:, None]


def gen(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_noise_is_centred_standard_normal_and_zero_in_padding():
    mask = random_mask(batch=4000)
    noise = flow.draw_noise(mask, gen())
    assert (noise[~mask] == 0).all()
    assert noise.sum(1).abs().max() < 1e-5
    # Centring takes one of n degrees of freedom: the variance per entry is 1 − 1/n.
    n = mask.sum(1)
    expected = (n - 1).sum().item() * 3
    z = (noise.square().sum().item() - expected) / math.sqrt(2 * expected)
    assert abs(z) < 4


def test_centre_ignores_what_stands_in_the_padding():
    mask = random_mask()
    points = torch.randn(5, 12, 3, generator=gen(1), dtype=torch.float64)
    dirty = torch.where(mask[..., None], points, torch.full_like(points, math.nan))
    out = flow.centre(dirty, mask)
    for row, real in enumerate(mask):
        assert torch.allclose(out[row, real], points[row, real] - points[row, real].mean(0), atol=1e-14)
    assert (out[~mask] == 0).all()


def test_flow_times_follow_the_mixture_of_the_paper():
    times = flow.draw_times(20_000, gen(3)).double().numpy()
    assert times.min() >= 0
    assert times.max() < 1
    law = stats.kstest(times, lambda t: 0.02 * t + 0.98 * t**1.9)
    assert law.pvalue > 1e-3
    # The same test must tell the mixture from the plain Beta law and from a uniform one.
    assert stats.kstest(times, lambda t: t).pvalue < 1e-9


def test_the_quantile_function_inverts_the_law():
    p = torch.linspace(0, 0.999, 300, dtype=torch.float64)
    t = flow.time_quantile(p)
    assert torch.allclose(0.02 * t + 0.98 * t**1.9, p, atol=1e-8)
    assert flow.time_quantile(torch.ones(1)).item() < 1


def test_the_path_begins_in_noise_ends_in_the_chain_and_its_velocity_is_its_derivative():
    noise, chain = torch.randn(2, 4, 7, 3, generator=gen(2), dtype=torch.float64)
    start, velocity = flow.interpolate(noise, chain, torch.zeros(4, dtype=torch.float64))
    end, _ = flow.interpolate(noise, chain, torch.ones(4, dtype=torch.float64))
    assert torch.equal(start, noise)
    assert torch.equal(end, chain)
    t = torch.tensor([0.1, 0.4, 0.7, 0.9], dtype=torch.float64)
    ahead, behind = (flow.interpolate(noise, chain, t + h)[0] for h in (1e-3, -1e-3))
    assert torch.allclose((ahead - behind) / 2e-3, velocity, atol=1e-10)
    x_t, _ = flow.interpolate(noise, chain, t)
    assert torch.allclose(flow.clean_estimate(x_t, velocity, t), chain, atol=1e-12)


def test_the_loss_is_the_weighted_error_of_the_predicted_chain():
    mask = random_mask()
    noise, chain, guess = torch.randn(3, 5, 12, 3, generator=gen(4), dtype=torch.float64)
    t = torch.tensor([0.0, 0.3, 0.6, 0.9, 0.99], dtype=torch.float64)
    x_t, velocity = flow.interpolate(noise, chain, t)
    loss = flow.flow_loss(guess, velocity, mask)
    estimate = flow.clean_estimate(x_t, guess, t)
    for row, real in enumerate(mask):
        error = (estimate[row, real] - chain[row, real]).square().mean() / (1 - t[row]) ** 2
        assert loss[row].item() == pytest.approx(error.item(), rel=1e-10)


def test_the_loss_has_no_gradient_from_padding_even_where_it_is_not_finite():
    mask = random_mask()
    guess = torch.randn(5, 12, 3, generator=gen(5))
    guess = torch.where(mask[..., None], guess, torch.full_like(guess, math.inf)).requires_grad_()
    loss = flow.flow_loss(guess, torch.zeros(5, 12, 3), mask)
    assert torch.isfinite(loss).all()
    loss.sum().backward()
    assert (guess.grad[~mask] == 0).all()
    assert torch.isfinite(guess.grad).all()


def test_the_first_pass_is_the_estimate_without_self_conditioning_and_without_gradient():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(2.0))

        def forward(self, batch):
            assert (batch["x_sc"] == 0).all()
            return {"velocity": self.scale * batch["x_t"] + 1}

    mask = random_mask()
    x_t = flow.draw_noise(mask, gen(6))
    t = torch.linspace(0, 0.9, 5)
    batch = {"x_t": x_t, "x_sc": torch.ones_like(x_t), "t": t, "mask": mask}
    found = flow.first_pass(Net(), batch)
    # The constant part of the velocity is a translation, which centring removes.
    expected = flow.centre(x_t + (1 - t)[:, None, None] * 2 * x_t, mask)
    assert torch.allclose(found, expected, atol=1e-6)
    assert not found.requires_grad


def test_times_of_the_paper():
    assert flow.FLOW_TIMES == (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99)
    assert np.all(np.diff(flow.FLOW_TIMES) > 0)


def test_the_distogram_loss_is_the_cross_entropy_of_the_bins_of_real_pairs_late_in_the_flow():
    mask = torch.tensor([[True] * 4, [True] * 3 + [False], [True] * 4])
    generator = torch.Generator().manual_seed(7)
    chain = torch.randn(3, 4, 3, generator=generator, dtype=torch.float64)
    logits = torch.randn(3, 4, 4, 6, generator=generator, dtype=torch.float64)
    found = flow.distogram_loss(logits, chain, torch.tensor([0.31, 0.9, 0.3]), mask)
    # Six bins: up to 0, 0.25, 0.5, 0.75 and 1 nm, and beyond.
    for sample in (0, 1):
        terms = []
        for i in range(int(mask[sample].sum())):
            for j in range(int(mask[sample].sum())):
                distance = float((chain[sample, i] - chain[sample, j]).norm())
                place = sum(distance > edge for edge in (0, 0.25, 0.5, 0.75, 1.0))
                terms.append(-float(logits[sample, i, j].log_softmax(-1)[place]))
        assert float(found[sample]) == pytest.approx(sum(terms) / len(terms), rel=1e-9)
    assert float(found[2]) == 0
