"""Tests of the transformer trunk and of the named sizes."""

import pytest
import torch

from equiscope.errors import InputError
from equiscope.tasks.proteinflow.task import MODELS, build
from equiscope.tasks.proteinflow.trunk import SIZES, AdaptiveNorm, PairBiasedAttention, Trunk, TrunkConfig


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("size", "parameters"), [("1M", 1e6), ("4M", 4e6), ("60M", 60e6), ("400M", 400e6)])
def test_sizes_are_what_they_are_called(model, size, parameters):
    with torch.device("meta"):
        net = build(model, size)
    count = sum(p.numel() for p in net.parameters())
    assert count == pytest.approx(parameters, rel=0.15)


def test_published_widths_of_the_large_models():
    assert (SIZES["60M"].width, SIZES["60M"].layers, SIZES["60M"].heads, SIZES["60M"].pair) == (512, 10, 8, 256)
    assert (SIZES["400M"].width, SIZES["400M"].layers, SIZES["400M"].heads) == (1024, 18, 16)
    assert SIZES["60M"].registers == 10


def test_bad_sizes_say_what_is_known():
    with pytest.raises(InputError, match="choose one of nano, 1M"):
        build("proteina", "2M")
    with pytest.raises(InputError, match="multiple of heads"):
        build("proteina", "1M", heads=5)
    with pytest.raises(InputError, match=r"\['depth'\].*layers"):
        build("proteina", "1M", depth=3)
    with pytest.raises(InputError, match="even"):
        build("proteina", "1M", condition=3)
    with pytest.raises(InputError, match="proteina_equivariant"):
        build("egnn", "1M")


def test_adaptive_norm_is_layer_norm_scaled_and_shifted_by_the_condition():
    torch.manual_seed(0)
    net = AdaptiveNorm(8, 4).double()
    tokens, condition = torch.randn(2, 5, 8, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    scale, shift = (condition @ net.modulate.weight.T + net.modulate.bias).chunk(2, -1)
    mean, variance = tokens.mean(-1, keepdim=True), tokens.var(-1, unbiased=False, keepdim=True)
    expected = (tokens - mean) / (variance + 1e-5).sqrt() * (1 + scale[:, None]) + shift[:, None]
    assert torch.allclose(net(tokens, condition), expected, atol=1e-12)


def test_attention_agrees_with_one_head_at_a_time():
    torch.manual_seed(0)
    net = PairBiasedAttention(8, 2).double()
    tokens, bias = torch.randn(3, 5, 8, dtype=torch.float64), torch.randn(3, 2, 5, 5, dtype=torch.float64)
    q, k, v = (tokens @ w.T for w in net.qkv.weight.chunk(3))
    mixed = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        logits = net.norm_q(q[..., part]) @ net.norm_k(k[..., part]).mT / 2 + bias[:, head]
        mixed.append(logits.softmax(-1) @ v[..., part])
    gated = torch.cat(mixed, -1) * torch.sigmoid(net.gate(tokens))
    assert torch.allclose(net(tokens, bias), gated @ net.out.weight.T, atol=1e-12)


@pytest.mark.parametrize("model", MODELS)
def test_second_derivatives_agree_with_differences_of_the_gradient(model):
    from tests.tasks.proteinflow.common import batch, make

    net, b = make(model).double(), batch(lengths=(6, 5))
    parameters = [p for p in net.parameters() if p.requires_grad]
    directions = [torch.randn_like(p) for p in parameters]

    def gradient(create_graph: bool = False):
        loss = (net(b)["velocity"] - b["velocity"]).square().mean()
        found = torch.autograd.grad(loss, parameters, create_graph=create_graph)
        return torch.cat([g.flatten() for g in found])

    def shifted(step: float):
        with torch.no_grad():
            for p, d in zip(parameters, directions, strict=True):
                p.add_(step * d)
        found = gradient()
        with torch.no_grad():
            for p, d in zip(parameters, directions, strict=True):
                p.sub_(step * d)
        return found

    along = torch.cat([d.flatten() for d in directions])
    exact = torch.autograd.grad(gradient(create_graph=True) @ along, parameters)
    exact = torch.cat([e.flatten() for e in exact])
    step = 1e-5
    differences = (shifted(step) - shifted(-step)) / (2 * step)
    assert (exact - differences).norm() < 1e-5 * differences.norm()


def test_queries_and_keys_may_be_normalised_over_all_heads_at_once():
    torch.manual_seed(0)
    net = PairBiasedAttention(8, 2, "width").double()
    tokens, bias = torch.randn(3, 5, 8, dtype=torch.float64), torch.randn(3, 2, 5, 5, dtype=torch.float64)
    q, k, v = (tokens @ w.T for w in net.qkv.weight.chunk(3))
    q, k = net.norm_q(q), net.norm_k(k)
    mixed = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        mixed.append((q[..., part] @ k[..., part].mT / 2 + bias[:, head]).softmax(-1) @ v[..., part])
    gated = torch.cat(mixed, -1) * torch.sigmoid(net.gate(tokens))
    assert torch.allclose(net(tokens, bias), gated @ net.out.weight.T, atol=1e-12)


def test_the_flow_time_may_go_through_gated_transitions():
    torch.manual_seed(0)
    net = Trunk(TrunkConfig(width=8, layers=1, heads=2, condition=4, conditioning=2)).double()
    x = torch.randn(3, 4, dtype=torch.float64)
    for transition in net.conditioning[:2]:
        wide, gate = (x @ transition.widen.weight.T).chunk(2, -1)
        x = (gate / (1 + (-gate).exp()) * wide) @ transition.narrow.weight.T
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
    expected = (x - mean) / (variance + 1e-5).sqrt()
    torch.manual_seed(0)
    Trunk(TrunkConfig(width=8, layers=1, heads=2, condition=4, conditioning=2))
    given = torch.randn(3, 4, dtype=torch.float64)
    torch.testing.assert_close(net.conditioning(given), expected, atol=1e-12, rtol=1e-12)


def test_pairs_are_updated_after_the_first_layer_and_every_so_many():
    sizes = {"width": 8, "heads": 2, "condition": 4}
    assert TrunkConfig(**sizes, layers=18, pair_every=5).updated == (0, 5, 10, 15)
    assert TrunkConfig(**sizes, layers=6, pair_every=5).updated == (0,)
    assert TrunkConfig(**sizes, layers=6).updated == ()
