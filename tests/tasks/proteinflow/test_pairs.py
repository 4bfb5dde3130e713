"""Pair updates against sums that are written out, and padding that takes no part."""

import pytest
import torch

from equiscope.tasks.proteinflow.pairs import PairUpdate, Triangle


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
