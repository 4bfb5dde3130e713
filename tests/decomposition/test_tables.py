"""Per-sample figures survive the way through flat tables: many batches, any order, repeated samples."""

import pytest
import torch
from equiscope.decomposition.tables import Layout, Table

from equiscope.decomposition.collect import Collector
from equiscope.decomposition.plan import make_plan
from equiscope.decomposition.pool import summarise
from equiscope.errors import InputError
from equiscope.symmetry.declaration import Declaration, Output
from tests.decomposition.test_metric import SAMPLES, VARYING, Net, assert_same, batches, dataset, declaration

CPU = torch.device("cpu")
DESIGN = {"passes": 16, "model_calls": 1, "rotations": "D2", "cosets": 4, "seed": 0}


def collected(chosen, data=None, size=6):
    collector = Collector(Net(), make_plan(chosen, rotations="D2", cosets=4))
    for batch in batches(dataset() if data is None else data, range(SAMPLES), size):
        collector.run(batch, 12)
    return collector


def permuted(table, order):
    return Table(table.ids[order], table.clusters[order], table.figures[order], table.owners, table.labels)


@pytest.mark.parametrize("loss", ["mse", "l2_norm"])
def test_several_batches_there_and_back(loss):
    chosen = declaration(loss=loss)
    collector = collected(chosen)
    layout = Layout(chosen, collector.plan.losses)
    table = layout.pack(collector.collected, CPU)
    assert table.figures.shape == (SAMPLES, layout.width)
    order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(0))
    back = layout.unpack(permuted(table, order))
    assert back.ids == sorted(collector.collected.ids)
    assert back.clusters == [i % 4 for i in back.ids]
    back.noise_samples = collector.collected.noise_samples
    direct = summarise(collector.collected, chosen, collector.plan.losses, DESIGN, [])
    assert_same(summarise(back, chosen, collector.plan.losses, DESIGN, []), direct)
    # Floors of some samples alone.
    assert torch.isfinite(back.floors["forces"][0][:, 0]).sum() == torch.isfinite(
        torch.cat(collector.collected.floors["forces"])[:, 0]).sum() < SAMPLES


def test_an_empty_table_adds_nothing():
    chosen = declaration(loss="l2_norm")
    collector = collected(chosen)
    layout = Layout(chosen, collector.plan.losses)
    table, none = layout.pack(collector.collected, CPU), layout.empty(CPU)
    assert none.labels["forces"].shape[1] == table.labels["forces"].shape[1]
    joined = Table(
        torch.cat([none.ids, table.ids]),
        torch.cat([none.clusters, table.clusters]),
        torch.cat([none.figures, table.figures]),
        {"forces": torch.cat([none.owners["forces"], table.owners["forces"]])},
        {"forces": torch.cat([none.labels["forces"], table.labels["forces"]])},
    )
    a, b = (summarise(layout.unpack(t), chosen, collector.plan.losses, DESIGN, []) for t in (joined, table))
    assert_same(a, b, skip=VARYING)


def test_labels_other_than_integers_have_one_code_in_every_process():
    data = dataset()
    names = ["aspirin", "benzene", "water", "water"]
    outputs = {"forces": Output("1o", target="forces")}
    chosen = Declaration({"pos": "1o"}, outputs, clusters="name", ids="id", mask="mask", fixed=["energy"])
    collector = Collector(Net(), make_plan(chosen, rotations="D2"))
    for batch in batches(data, range(4), 4):
        collector.run({**batch, "name": names}, 4)
    codes = Layout(chosen, collector.plan.losses).pack(collector.collected, CPU).clusters.tolist()
    # blake2b does not depend on the process, as Python's own hash of a string does.
    assert codes[0] == 8093577793630727531
    assert codes[2] == codes[3]
    assert len(set(codes)) == 3


def test_samples_that_differ_in_labels_alone_are_told_apart():
    chosen = declaration()
    data = dataset()
    collector = collected(chosen, data)
    layout = Layout(chosen, collector.plan.losses)
    table = layout.pack(collector.collected, CPU)
    other = {**data, "forces": data["forces"] * 1.001}
    again = layout.pack(collected(chosen, other).collected, CPU)
    both = Table(
        torch.cat([table.ids, again.ids]),
        torch.cat([table.clusters, again.clusters]),
        torch.cat([table.figures, again.figures]),
        {},
        {},
    )
    with pytest.raises(InputError, match="two different samples share an id"):
        layout.unpack(both)
