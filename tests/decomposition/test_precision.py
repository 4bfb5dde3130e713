"""Precision on demand: goals are met or it is said why not; samples, drawn at random over all, before rotations."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, SubsetRandomSampler, WeightedRandomSampler

import equiscope as eq
from equiscope.decomposition.batches import as_batch
from equiscope.decomposition.plan import make_plan
from equiscope.decomposition.precision import FIRST_ROUND, Goal, Search, draw, half_width
from equiscope.decomposition.samples import Samples
from equiscope.decomposition.statistics import ratio
from equiscope.errors import InputError
from equiscope.symmetry.declaration import declare

from .models import Linear, Tanh, random_batch

SHORT = dict(inputs={"pos": "1o"}, outputs={"forces": "1o"}, target="y")


def stream(batches, size=16, spread=1.0):
    for i in range(batches):
        yield {k: v * spread for k, v in random_batch(size, seed=i).items()}


def test_samples_are_read_until_the_interval_is_narrow():
    read = []

    def counted():
        for batch in stream(500):
            read.append(1)
            yield batch

    result = eq.measure(Tanh(), counted(), rtol=0.03, **SHORT)
    assert half_width(result) <= 0.03
    assert len(read) < 200
    assert any("rtol=0.03 reached" in n for n in result.notes)


def alike(samples=64):
    """The same sample many times, with a loss that is mostly not of symmetry: only rotations differ."""
    one = random_batch(1, atoms=1)
    return [{"pos": one["pos"].expand(samples, -1, -1), "y": 4 * one["y"].expand(samples, -1, -1)}]


def test_when_samples_run_out_more_rotations_are_tried_where_they_help():
    same = alike()
    coarse = eq.measure(Tanh(), same, rotations="haar", cosets=2, **SHORT)
    result = eq.measure(Tanh(), same, rotations="haar", cosets=2, rtol=0.05, **SHORT)
    assert half_width(coarse) > 0.1
    assert half_width(result) <= 0.05
    assert result.cosets > 2


def test_when_the_samples_differ_more_rotations_are_not_wasted():
    result = eq.measure(Linear(torch.eye(3).double() + torch.ones(3, 3).triu()), stream(2), rtol=0.001, **SHORT)
    assert result.cosets == 2
    assert any("only more samples" in n for n in result.notes)


def test_the_budget_is_kept_and_said():
    result = eq.measure(Tanh(), stream(100), rtol=0.0001, max_passes=2000, **SHORT)
    assert result.samples * result.passes < 3000
    assert any("max_passes=2000" in n for n in result.notes)


def test_added_cosets_equal_a_direct_measurement():
    same = alike()
    grown = eq.measure(Tanh(), same, rotations="haar", rtol=0.05, **SHORT)
    direct = eq.measure(Tanh(), same, rotations="haar", cosets=grown.cosets, **SHORT)
    assert (grown.samples, grown.drawn) == (64, "")
    assert grown.percent == pytest.approx(direct.percent, rel=1e-12)


@pytest.mark.parametrize("arguments", [dict(rtol=0.0), dict(rtol=1.5), dict(rtol=0.1, max_passes=0)])
def test_senseless_goals_are_refused(arguments):
    with pytest.raises(InputError):
        eq.measure(Tanh(), stream(1), **SHORT, **arguments)


def test_nothing_to_measure_is_said():
    with pytest.raises(InputError, match="empty"):
        eq.measure(Tanh(), [], rtol=0.1, **SHORT)


# The whole of a sorted set, whatever its order.


def sorted_set(samples=600):
    """Samples that grow, so that the first ones have another percent than all."""
    scale = torch.linspace(0.05, 2, samples, dtype=torch.float64)[:, None, None]
    one = random_batch(samples, atoms=2, seed=0)
    return {"pos": one["pos"] * scale, "y": one["y"] * scale}


def as_list(whole):
    return [{k: v[i : i + 32] for k, v in whole.items()} for i in range(0, len(whole["pos"]), 32)]


def as_loader(whole):
    samples = [{k: v[i] for k, v in whole.items()} for i in range(len(whole["pos"]))]
    return torch.utils.data.DataLoader(samples, batch_size=32)


@pytest.mark.parametrize("make", [as_list, as_loader])
def test_sorted_data_are_sampled_over_all_of_them(make):
    whole = sorted_set()
    truth = eq.measure(Tanh(), [whole], **SHORT)
    hits = 0
    for seed in range(12):
        result = eq.measure(Tanh(), make(whole), rtol=0.2, seed=seed, **SHORT)
        assert result.samples < 600
        assert "drawn at random from 600" in str(result).splitlines()[0]
        hits += result.percent_interval[0] <= truth.percent <= result.percent_interval[1]
    assert hits >= 10


def test_ids_are_positions_so_that_figures_do_not_depend_on_the_order():
    whole = sorted_set()
    every = eq.measure(Tanh(), [whole], seed=5, **SHORT).per_sample
    for make in (as_list, as_loader):
        some = eq.measure(Tanh(), make(whole), rtol=0.2, seed=5, **SHORT).per_sample
        assert torch.allclose(some.equivariance, every.equivariance[some.ids], rtol=1e-10)
        assert torch.allclose(some.total, every.total[some.ids], rtol=1e-10)


def test_the_head_of_a_stream_is_said_to_be_the_head():
    result = eq.measure(Tanh(), iter(as_list(sorted_set())), rtol=0.2, **SHORT)
    assert f"{result.samples} samples, the first {result.samples} of an unknown number" in str(result).splitlines()[0]
    assert any("not of the rest" in n for n in result.notes)
    assert eq.Result.from_dict(result.to_dict()).drawn == result.drawn
    assert eq.measure(Tanh(), iter(as_list(sorted_set(64))), rtol=0.001, **SHORT).drawn == ""


def test_clusters_are_counted_and_not_samples():
    # Two molecules of many frames that hardly differ: no number of frames makes an interval over molecules.
    def frames(molecules, size):
        for i in range(40):
            yield {**random_batch(32, seed=i), "molecule": torch.arange(32) // size + (i * 32 // size) % molecules}

    two = eq.measure(Tanh(), frames(2, 16), rtol=0.2, clusters="molecule", **SHORT)
    assert (two.clusters, two.samples) == (2, 40 * 32)
    many = eq.measure(Tanh(), frames(1000, 8), rtol=0.9, clusters="molecule", **SHORT)
    assert many.clusters == 20


def test_the_budget_holds_before_twenty_clusters():
    one = ({**random_batch(32, seed=i), "molecule": torch.zeros(32, dtype=torch.int64)} for i in range(40))
    result = eq.measure(Tanh(), one, rtol=0.2, max_passes=2000, clusters="molecule", **SHORT)
    assert result.samples == 96
    assert any("max_passes=2000" in n for n in result.notes)


def test_intervals_still_cover_after_stopping():
    # The search itself, its figures taken from a law instead of a model; docs/coverage.md has thousands of repeats.
    hits = {law: np.mean([_stopped(law, seed) for seed in range(500)]) for law in ("normal", "log-normal")}
    assert all(0.93 <= share <= 0.975 for share in hits.values()), hits


def _stopped(law, seed):
    """Whether the interval covers where the search stops, clusters of one sample each."""
    rng = np.random.default_rng([seed, len(law)])
    a = 0.02 * (1 + 0.5 * rng.normal(size=4000) if law == "normal" else rng.lognormal(-0.125, 0.5, 4000))
    fake = FromLaw(a)
    Looks(fake, Goal(0.1), fake.summarise).run([[(None, i)] for i in range(1000)])
    low, high = fake.summarise().percent_interval
    return low <= 2 <= high


class Looks(Search):
    """A search for samples alone."""

    def _best_cosets(self, result):
        return 1


PLAN = make_plan(declare({"pos": "1o"}, {"forces": "1o"}))


class FromLaw:
    """A collector whose batches are four clusters with known totals."""

    def __init__(self, a):
        self.a, self.plan = a, PLAN
        self.parts = []

    def run(self, native, positions):
        new = range(4 * native, 4 * native + 4)
        self.parts.append(Samples(list(new), list(new), {}))

    def summarise(self):
        n = sum(len(part) for part in self.parts)
        found = ratio(self.a[:n], np.ones(n))
        return SimpleNamespace(
            percent=100 * found.value, percent_interval=tuple(100 * x for x in found.interval),
            interval_kind=found.kind, samples=n, clusters=n,
        )  # fmt: skip


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
    # Names in arrays too, of whatever length their longest one is.
    named = [one | {"name": np.array(one["name"])} for one in batches()]
    first = drawn(named)[0]
    assert len(first) <= 3
    assert all(native["name"].tolist() == [f"s{i}" for i in positions] for positions, native in first)


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
