"""Tests of pair features, distance tables and embeddings."""

import math

import pytest
import torch

from equiscope.tasks.proteinflow.features import (
    FARTHEST,
    NEAREST,
    DistanceTable,
    PairBias,
    TimeEmbedding,
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
