"""Rules and samples of a stream: every rejection counted, draws exact, even, and a function of the seed alone."""

from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare, kstest

from equiscope.errors import InputError
from equiscope.tasks.datasets.blocks import Block
from equiscope.tasks.datasets.stream import Rules, Sample, chosen, read


class Made:
    """A source of blocks whose energies are the frames' numbers."""

    path = "made"

    def __init__(self, sizes=(3, 1, 5, 2), **more):
        self.sizes, self.more, self.passes = sizes, more, 0

    def units(self):
        return {}

    def blocks(self, rejected):
        self.passes += 1
        first = 0
        for i, size in enumerate(self.sizes):
            numbers = np.array([6, 1] if i % 2 else [8, 1])
            energy = np.arange(first, first + size, dtype=float)
            x = np.random.default_rng(i).normal(size=(size, 2, 3))
            yield Block(f"group {i}", numbers, x, energy, np.zeros((size, 2, 3)), **self.more)
            first += size


def drawn(source, sample, rules=None):
    rejected = Counter()
    blocks = list(read(source, rules or Rules(), sample, rejected))
    return [int(e) for block in blocks for e in block.energy], dict(rejected)


def test_everything_by_default():
    source = Made()
    assert drawn(source, Sample()) == (list(range(11)), {})
    assert source.passes == 1


@pytest.mark.parametrize("frames", [1, 4, 10, 11, 50])
def test_so_many_frames_exactly(frames):
    found, _ = drawn(Made(), Sample(frames))
    assert len(found) == min(frames, 11)
    assert found == sorted(set(found))
    assert found == drawn(Made((11,)), Sample(frames))[0], "the blocks a reader cuts play no part"
    assert set(found) <= set(drawn(Made(), Sample(frames + 1))[0])


def test_draws_follow_the_seed():
    assert drawn(Made((1000,)), Sample(20, seed=1)) == drawn(Made((1000,)), Sample(20, seed=1))
    assert drawn(Made((1000,)), Sample(20, seed=1)) != drawn(Made((1000,)), Sample(20, seed=2))


def test_draws_are_even():
    found = np.concatenate([drawn(Made((700, 300)), Sample(50, seed=s))[0] for s in range(200)])
    assert chisquare(np.histogram(found, bins=20, range=(0, 1000))[0]).pvalue > 1e-3
    keys = Sample(seed=3).keys(0, 20000).astype(float) / 2.0**64
    assert kstest(keys, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(keys, Sample(seed=4).keys(0, 20000).astype(float))[0, 1]) < 4 / 20000**0.5


def test_share():
    found, _ = drawn(Made((20000,)), Sample(share=0.3))
    assert abs(len(found) - 6000) < 4 * (20000 * 0.3 * 0.7) ** 0.5
    both, _ = drawn(Made((20000,)), Sample(100, share=0.3))
    assert len(both) == 100
    assert set(both) <= set(found)


def test_rejected_frames_are_counted_and_replaced():
    energy = np.arange(100.0)
    x = np.ones((100, 2, 3))
    x[:10, 0, 1] = np.nan
    f = np.zeros((100, 2, 3))
    f[5:30, 1, 0] = 40.0
    block = Block("a", np.array([8, 1]), x, energy, f)

    class One(Made):
        def blocks(self, rejected):
            yield block
            yield Block("b", np.array([11, 1]), x[50:], energy[:50], f[50:])
            yield Block("c", np.array([1] * 9), np.ones((3, 9, 3)), energy[:3])
            yield Block("d", np.array([1, 1]), x[50:54], energy[:4], charge=-1)

    rules = Rules(elements=(1, 8), max_atoms=8, max_force=25.0, neutral=True)
    found, rejected = drawn(One(), Sample(), rules)
    assert found == list(range(30, 100))
    assert rejected == {
        "positions not finite": 10,
        "a force above 25 eV/Å": 20,
        "element Na": 50,
        "more than 8 atoms": 3,
        "charged": 4,
    }
    assert len(drawn(One(), Sample(60), rules)[0]) == 60


def test_items_that_are_no_frames():
    every = list(range(500))
    assert list(chosen(lambda: every, Sample())) == every
    some = list(chosen(lambda: every, Sample(40, seed=2)))
    assert len(some) == 40
    assert some == drawn(Made((500,)), Sample(40, seed=2))[0]


@pytest.mark.parametrize(("values", "message"), [((0,), "frames"), ((None, 0.0), "share"), ((None, 1.5), "share")])
def test_impossible_samples(values, message):
    with pytest.raises(InputError, match=message):
        Sample(*values)
    with pytest.raises(InputError, match="seed"):
        Sample(seed=-1)
