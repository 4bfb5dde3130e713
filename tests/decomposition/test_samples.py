"""The table of per-sample figures: joined, taken from, packed and put back, repeated samples once."""

import dataclasses

import pytest
import torch

from equiscope.decomposition.collect import Collector
from equiscope.decomposition.metric import no_samples
from equiscope.decomposition.plan import make_plan
from equiscope.decomposition.pool import summarise
from equiscope.decomposition.samples import LabelRows, Samples, SampleValues
from equiscope.errors import InputError
from equiscope.symmetry.declaration import Declaration, Output
from tests.decomposition.test_metric import SAMPLES, VARYING, Net, assert_same, batches, dataset, declaration

CPU = torch.device("cpu")
DESIGN = {"passes": 16, "model_calls": 1, "rotations": "D2", "cosets": 4, "seed": 0}


def collected(chosen, data=None, size=6):
    collector = Collector(Net(), make_plan(chosen, rotations="D2", cosets=4), 12)
    for batch in batches(dataset() if data is None else data, range(SAMPLES), size):
        collector.run(batch)
    return collector


def joined(none, *tables):
    """The samples of tables in this order, by the columns of a table without samples."""
    return none.unpacked({name: torch.cat([table[name] for table in tables]) for name in tables[0]})


def summary(collector, samples):
    return summarise(samples, collector.plan, collector.known, DESIGN, [])


@pytest.mark.parametrize("loss", ["mse", "l2_norm"])
def test_several_batches_there_and_back(loss):
    chosen = declaration(loss=loss)
    collector = collected(chosen)
    samples, none = collector.samples(), no_samples(collector.plan, CPU)
    table = samples.packed(CPU)
    order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(0))
    moved = table | {name: table[name][order] for name in ("ids", "clusters", "figures")}
    back = none.unpacked(moved).once(chosen)
    assert back.ids == sorted(samples.ids)
    assert back.clusters == [i % 4 for i in back.ids]
    places = torch.tensor([samples.ids.index(i) for i in back.ids])
    for field in dataclasses.fields(SampleValues):
        own, found = (getattr(s.figures["forces"], field.name) for s in (samples, back))
        assert torch.equal(own[places].nan_to_num(-1), found.nan_to_num(-1)), field.name
    assert_same(summary(collector, back), summary(collector, samples))
    # Floors of some samples alone.
    floors = back.figures["forces"].floor[:, 0]
    assert 0 < int(torch.isfinite(floors).sum()) < SAMPLES


def test_an_empty_table_adds_nothing():
    chosen = declaration(loss="l2_norm")
    collector = collected(chosen)
    none, table = no_samples(collector.plan, CPU), collector.samples().packed(CPU)
    assert none.packed(CPU)["labels_forces"].shape[1] == table["labels_forces"].shape[1]
    a, b = (summary(collector, joined(none, *tables)) for tables in ((none.packed(CPU), table), (table,)))
    assert_same(a, b, skip=VARYING)


def test_labels_other_than_integers_have_one_code_in_every_process():
    data = dataset()
    names = ["aspirin", "benzene", "water", "water"]
    outputs = {"forces": Output("1o", target="forces")}
    chosen = Declaration({"pos": "1o"}, outputs, clusters="name", ids="id", mask="mask", fixed=["energy"])
    collector = Collector(Net(), make_plan(chosen, rotations="D2"), 4)
    for batch in batches(data, range(4), 4):
        collector.run({**batch, "name": names})
    codes = collector.samples().packed(CPU)["clusters"].tolist()
    # blake2b does not depend on the process, as Python's own hash of a string does.
    assert codes[0] == 8093577793630727531
    assert codes[2] == codes[3]
    assert len(set(codes)) == 3


def test_samples_that_differ_in_labels_alone_are_told_apart():
    chosen, data = declaration(), dataset()
    collector = collected(chosen, data)
    other = collected(chosen, {**data, "forces": data["forces"] * 1.001})
    both = joined(no_samples(collector.plan, CPU), *(c.samples().packed(CPU) for c in (collector, other)))
    with pytest.raises(InputError, match="two different samples share an id"):
        both.once(chosen)


def test_labels_stay_with_their_samples_when_samples_are_taken_and_joined():
    def table(ids, sample):
        values = SampleValues.unknown(len(ids), total=torch.tensor(ids).double())
        label = LabelRows(10.0 * torch.tensor(sample)[:, None], torch.tensor([ids.index(i) for i in sample]))
        return Samples(ids, ids, {"f": values}, None, {"f": label})

    both = Samples.cat([table([7, 2, 5], [7, 7, 2, 5]), table([9, 1], [1, 9, 9])])
    taken = both.take(torch.tensor([4, 0, 2]))
    assert taken.ids == taken.clusters == taken.figures["f"].total.tolist() == [1, 7, 5]
    assert [taken.ids[i] for i in taken.labels["f"].sample] == [v / 10 for v in taken.labels["f"].rows[:, 0].tolist()]
    assert sorted(taken.labels["f"].rows[:, 0].tolist()) == [10, 50, 70, 70]


def test_a_sample_that_came_twice_counts_once():
    values = SampleValues.unknown(4, total=torch.tensor([1.0, 2, 1, 3]).double(), square=torch.ones(4).double(),
                                  components=torch.ones(4).double(), target_square=torch.ones(4).double())  # fmt: skip
    found = Samples([3, 1, 3, 2], ["c", "a", "c", "b"], {"f": values}).once(declaration())
    assert (found.ids, found.clusters, found.figures["f"].total.tolist()) == ([1, 2, 3], ["a", "b", "c"], [2, 3, 1])
