"""Drawing samples: each once, at random over the whole set, a round a simple random sample, ids positions."""

import itertools

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, SubsetRandomSampler, WeightedRandomSampler

from equiscope.decomposition.batches import as_batch
from equiscope.decomposition.draw import FIRST_ROUND, draw

SIZES = (16, 5, 16, 16, 1, 16, 16, 16, 16, 2)
TOTAL = sum(SIZES)


def batches(width=lambda i: 3):
    """Batches whose samples hold their position in the data set."""
    starts = np.cumsum([0, *SIZES])
    return [
        {
            "pos": torch.arange(a, b).double()[:, None, None].expand(-1, width(i), 3),
            "name": [f"s{j}" for j in range(a, b)],
        }
        for i, (a, b) in enumerate(itertools.pairwise(starts))
    ]


def drawn(source, seed=0):
    return list(draw(source, seed, as_batch).rounds)


@pytest.mark.parametrize("width", [lambda i: 3, lambda i: 2 + i % 2, lambda i: 2 + i])
def test_every_sample_comes_once_with_its_position(width):
    rounds = drawn(batches(width))
    seen = []
    for found in rounds:
        for positions, native in found:
            assert native["pos"][:, 0, 0].tolist() == positions
            assert native["name"] == [f"s{i}" for i in positions]
            assert 1 <= len(positions) <= max(SIZES)
            seen += positions
    assert sorted(seen) == list(range(TOTAL))
    assert sum(len(p) for p, _ in rounds[0]) == FIRST_ROUND


def test_equal_shapes_are_put_together():
    assert len(drawn(batches())[0]) <= 3
    assert len(drawn(batches(lambda i: 2 + i))[0]) > 5


def test_a_round_is_a_simple_random_sample():
    # Inclusion of each sample, and of pairs from one batch, against counting: n/N and n(n-1)/(N(N-1)).
    repeats, source = 1500, batches()
    inside = np.zeros((repeats, TOTAL))
    for seed in range(repeats):
        for positions, _ in next(iter(draw(source, seed, as_batch).rounds)):
            inside[seed, positions] = 1
    share, pair = FIRST_ROUND / TOTAL, FIRST_ROUND * (FIRST_ROUND - 1) / TOTAL / (TOTAL - 1)
    assert np.abs(inside.mean(0) - share).max() < 4 * (share * (1 - share) / repeats) ** 0.5
    together = np.array([(inside[:, i] * inside[:, i + 1]).mean() for i in range(0, 14, 2)])
    assert np.abs(together - pair).max() < 4 * (pair * (1 - pair) / repeats) ** 0.5


class Places(Dataset):
    def __len__(self):
        return 50

    def __getitem__(self, i):
        return {"pos": torch.full((2, 3), float(i))}


class Stream(IterableDataset):
    def __iter__(self):
        return ({"pos": torch.zeros(2, 3)} for _ in range(50))


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_loader_over_places_is_drawn_over_all_of_them(shuffle):
    loader = DataLoader(Places(), batch_size=8, shuffle=shuffle, drop_last=True)
    found = [batch for one in drawn(loader, 3) for batch in one]
    assert [len(p) for p, _ in found] == [8] * 6 + [2]
    for positions, native in found:
        assert native["pos"][:, 0, 0].tolist() == positions
    order = [i for p, _ in found for i in p]
    assert sorted(order) == list(range(50))
    assert order != sorted(order)
    assert [p for one in drawn(loader, 3) for p, _ in one] == [p for p, _ in found]
    assert [p for one in drawn(loader, 4) for p, _ in one] != [p for p, _ in found]


def test_graphs_are_drawn_from_their_loader_and_from_lists():
    geometric = pytest.importorskip("torch_geometric.data")
    from torch_geometric.loader import DataLoader as GraphLoader

    import equiscope as eq

    eq.adapters.pyg  # noqa: B018
    graphs = [geometric.Data(pos=torch.full((2 + i % 3, 3), float(i))) for i in range(40)]
    lists = [geometric.Batch.from_data_list(graphs[i : i + 10]) for i in range(0, 40, 10)]
    for source in (GraphLoader(graphs, batch_size=10), lists):
        order = []
        for positions, native in (batch for one in drawn(source) for batch in one):
            firsts = native.pos[native.ptr[:-1], 0]
            assert firsts.tolist() == positions
            order += positions
        assert sorted(order) == list(range(40)) != order


@pytest.mark.parametrize(
    "source",
    [
        DataLoader(Stream(), batch_size=8),
        DataLoader(Places(), batch_size=8, sampler=WeightedRandomSampler([1.0] * 50, 50)),
        DataLoader(Places(), batch_size=8, sampler=SubsetRandomSampler(range(20))),
        DataLoader(Places(), batch_size=None),
        iter([{"pos": torch.zeros(1, 2, 3)}] * 3),
    ],
)
def test_what_has_no_places_is_a_stream_and_said_to_be(source):
    found = draw(source, 0, as_batch)
    assert found.size is None
    assert found.said(24, False) == "the first 24 of an unknown number"
    assert found.said(24, True) == ""
    assert all(positions is None for one in found.rounds for positions, _ in one)


def test_what_was_drawn_is_said_unless_it_is_all():
    found = draw(batches(), 0, as_batch)
    assert found.said(64, False) == f"drawn at random from {TOTAL}"
    assert found.said(TOTAL, False) == found.said(TOTAL, True) == ""
