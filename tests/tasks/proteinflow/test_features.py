"""Tests of pair features, distance tables and embeddings."""

import math

import pytest
import torch

from equiscope.tasks.proteinflow.features import (
    FARTHEST,
    NEAREST,
    DistanceTable,
    PairBias,
    PairUpdate,
    TimeEmbedding,
    Triangle,
    distances,
    sinusoids,
)
from tests.tasks.proteinflow.common import batch


def test_distances_are_euclidean_and_have_a_finite_gradient_at_zero():
    points = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    found = distances(points)
    assert torch.allclose(found, torch.cdist(points, points), atol=1e-5)
    assert torch.allclose(found[:, 0, 1:], torch.cdist(points, points)[:, 0, 1:], atol=1e-12)
    found.sum().backward()
    assert torch.isfinite(points.grad).all()


@pytest.mark.parametrize("smooth", [True, False])
def test_table_gives_each_bin_centre_its_own_vector_and_is_open_at_both_ends(smooth):
    table = DistanceTable(64, 5, smooth).double()
    centres = torch.linspace(NEAREST, FARTHEST, 64, dtype=torch.float64)
    assert torch.allclose(table(centres), table.table, atol=1e-12)
    ends = table(torch.tensor([0.0, 100.0], dtype=torch.float64))
    assert torch.allclose(ends, table.table[[0, -1]], atol=1e-12)


def test_only_smooth_tables_are_continuous():
    edge = NEAREST + 10.5 * (FARTHEST - NEAREST) / 63
    jump = {}
    for smooth in (True, False):
        torch.manual_seed(0)
        table = DistanceTable(64, 5, smooth).double()
        low, high = table(torch.tensor([edge - 1e-9, edge + 1e-9], dtype=torch.float64))
        jump[smooth] = (low - high).abs().max().item()
    assert jump[True] < 1e-6
    assert jump[False] > 0.1


def test_bias_has_one_map_for_every_layer_and_head_and_depends_on_the_order_of_residues():
    torch.manual_seed(0)
    bias = PairBias(8, layers=3, heads=2, smooth=True).double()
    b = batch()
    out = bias(bias.features(b["x_t"], b["x_sc"], b["residue"]))
    assert out.shape == (3, 3, 2, 14, 14)
    assert not torch.allclose(out, out.mT)
    far, capped = (bias(bias.features(b["x_t"], b["x_sc"], factor * b["residue"])) for factor in (1000, 64))
    # Separations beyond ±63 share one vector: then only the sign of i − j is left of the order.
    assert torch.allclose(far, capped)


def test_sinusoids_start_at_cos_zero_and_have_the_wavelengths_asked_for():
    waves = sinusoids(torch.tensor([0, 1]), 8, longest=1000.0)
    assert torch.equal(waves[0], torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0]))
    rates = torch.tensor([1.0, 0.1, 0.01, 0.001])
    assert torch.allclose(waves[1], torch.cat([rates.cos(), rates.sin()]), atol=1e-6)


def test_time_embedding_tells_times_apart():
    torch.manual_seed(0)
    net = TimeEmbedding(16)
    out = net(torch.tensor([0.0, 0.5, 0.99, 0.9901]))
    assert out.shape == (4, 16)
    assert math.isfinite(out.sum().item())
    assert (out[2] - out[3]).abs().max() > 1e-4


def pairs(batch: int = 2, residues: int = 5, width: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, residues, residues, width, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("outgoing", [True, False])
def test_a_triangle_is_the_sum_over_the_third_residue(outgoing):
    torch.manual_seed(0)
    net, given = Triangle(6, outgoing).double(), pairs()
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    z = net.norm(given)
    a, b = (torch.sigmoid(net.open(z)) * net.sides(z)).chunk(2, dim=-1)
    summed = torch.zeros_like(given)
    for sample in range(2):
        for i in range(5):
            for j in range(5):
                for k in range(5):
                    if mask[sample, [i, j, k]].all():
                        first, second = ((i, k), (j, k)) if outgoing else ((k, i), (k, j))
                        summed[sample, i, j] += a[sample, *first] * b[sample, *second]
    expected = torch.sigmoid(net.gate(z)) * net.out(net.norm_sum(summed))
    real = (mask[:, :, None] & mask[:, None, :])[..., None]
    found = net(given, real)
    torch.testing.assert_close(torch.where(real, found, 0), torch.where(real, expected, 0), atol=1e-12, rtol=1e-12)


def test_an_update_reads_both_residues_and_nothing_of_the_padding():
    torch.manual_seed(0)
    net, given = PairUpdate(8, 6).double(), pairs()
    tokens = torch.randn(2, 5, 8, dtype=torch.float64)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    found = net(tokens, given, mask)
    alone = net(tokens[1:, :3], given[1:, :3, :3], mask[1:, :3])
    torch.testing.assert_close(found[1:, :3, :3], alone, atol=1e-12, rtol=1e-12)
    for place, changes in ((0, found[0, 0]), (4, found[0, :, 4])):
        moved = tokens.clone()
        moved[0, place, 0] += 1
        again = net(moved, given, mask)
        assert (again[0, 0] if place == 0 else again[0, :, 4]).sub(changes).abs().amax(-1).min() > 1e-6
