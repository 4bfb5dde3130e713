"""Tests of the chain set, its split, and the training stream."""

import numpy as np
import pytest
import torch

from equiscope.errors import DataError, InputError
from equiscope.tasks.datasets.protein_chains import ProteinChains, shipped_chains, write_npz
from equiscope.tasks.datasets.splits import Clusters
from equiscope.tasks.proteinflow.chains import ChainSet, ChainSettings, TrainingStream, load_chains


@pytest.fixture(scope="module")
def data() -> ChainSet:
    return ChainSet.load(ChainSettings(longest=60, track_chains=6, final_chains=8), seed=0)


def test_length_limits_leave_out_and_count():
    chains = load_chains(ChainSettings(longest=96))
    assert chains.lengths.max() <= 96
    assert chains.counts["kept"] == len(chains)
    assert chains.counts["kept"] + chains.counts["outside the length limits"] == 1000
    with pytest.raises(DataError, match="40 to 128"):
        load_chains(ChainSettings(shortest=200, longest=300))


def test_every_source_is_read(tmp_path):
    from tests.tasks.datasets.test_promod3 import database, entry
    from tests.tasks.datasets.test_structures import cif, structure

    write_npz(shipped_chains().select(range(5)), tmp_path / "c.npz")
    assert len(load_chains(ChainSettings("npz", str(tmp_path / "c.npz"), longest=128))) == 5
    (tmp_path / "structure_db.dat").write_bytes(database([entry()]))
    assert len(load_chains(ChainSettings("structure_db", str(tmp_path / "structure_db.dat")))) == 1
    cif(structure(entry()[4]), tmp_path / "a.cif")
    assert len(load_chains(ChainSettings("folder", str(tmp_path)))) == 1


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(InputError, match="shipped, npz"):
        ChainSettings("download")
    with pytest.raises(InputError, match=r"data\.path"):
        ChainSettings("npz")
    with pytest.raises(InputError, match="shortest"):
        ChainSettings(shortest=90, longest=80)
    with pytest.raises(InputError, match="fraction"):
        ChainSettings(fraction=0)
    with pytest.raises(InputError, match="two held-out"):
        ChainSettings(track_chains=1)


def test_a_padded_batch_holds_the_chains_in_nm_centred(data):
    numbers = [3, 0, 11]
    batch = data.padded(numbers)
    for row, number in enumerate(numbers):
        ca = data.chains.ca[number]
        assert torch.allclose(batch["x_1"][row, : len(ca)], 0.1 * torch.from_numpy(ca), atol=1e-6)
        assert batch["mask"][row].sum() == len(ca)
        assert batch["x_1"][row].sum(0).abs().max() < 1e-4
    steps = batch["x_1"].diff(dim=1).norm(dim=-1)[batch["mask"][:, 1:]]
    assert abs(steps.mean().item() - 0.38) < 0.01


def test_parts_do_not_share_chains_and_a_fraction_leaves_the_held_out_parts_alone(data):
    whole = data.parts
    assert sorted(np.concatenate(list(whole.values())).tolist()) == list(range(len(data.chains)))
    half = ChainSet.load(ChainSettings(longest=60, track_chains=6, final_chains=8, fraction=0.5), seed=0).parts
    assert np.array_equal(half["track"], whole["track"])
    assert np.array_equal(half["final"], whole["final"])
    assert len(half["train"]) == round(0.5 * len(whole["train"]))
    assert set(half["train"]) < set(whole["train"])


def test_batches_are_pure_functions_of_seed_and_step(data):
    stream, again = TrainingStream(data, 4, seed=1), TrainingStream(data, 4, seed=1)
    for step in (7, 0, 123, 7):
        first, second = stream.batch(step), again.batch(step)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(stream.batch(8)["id"], stream.batch(9)["id"])
    other = TrainingStream(data, 4, seed=2).batch(7)
    assert other["x_t"].shape != first["x_t"].shape or not torch.equal(other["x_t"], first["x_t"])


def test_an_epoch_takes_every_training_cluster_once(data):
    train = data.parts["train"]
    stream = TrainingStream(data, 4, seed=1)
    bucket = 16  # chains that are sorted together
    steps = len(train) // bucket * 4
    seen = [number for step in range(steps) for number in stream.batch(step)["id"].tolist()]
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(train.tolist())


def test_similar_chains_take_turns():
    chain = shipped_chains().select(range(4))
    sequences = ("A" * 40 + chain.sequences[0][40:], *chain.sequences[1:])
    chains = ProteinChains(chain.ids, chain.ca, sequences, "x")
    data = ChainSet(chains, Clusters(np.array([0, 0, 1, 2]), "test"), {"train": np.arange(4)})
    stream = TrainingStream(data, 3, seed=0)
    seen = [set(stream.draw(epoch).tolist()) for epoch in range(40)]
    assert all(len(numbers) == 3 and len(numbers & {0, 1}) == 1 for numbers in seen)
    assert {0, 1} <= set().union(*seen)


def test_a_training_sample_lies_on_the_path_of_its_own_turned_chain(data):
    batch = TrainingStream(data, 4, seed=1).batch(5)
    t = batch["t"][:, None, None]
    chain = batch["x_t"] + (1 - t) * batch["velocity"]
    noise = batch["x_t"] - t * batch["velocity"]
    real = batch["mask"]
    for row, number in enumerate(batch["id"].tolist()):
        ca = 0.1 * torch.from_numpy(data.chains.ca[number]).double()
        found = chain[row, real[row]].double()
        assert torch.allclose(torch.cdist(found, found), torch.cdist(ca, ca), atol=1e-5)
        assert not torch.allclose(found, ca, atol=1e-2)
        # The rotation is proper: chains keep their hand.
        rotation = torch.linalg.lstsq(ca, found).solution
        assert torch.linalg.det(rotation).item() == pytest.approx(1, abs=1e-3)
        assert 0.5 < noise[row, real[row]].std().item() < 1.5
    assert (batch["x_sc"] == 0).all()
    assert (batch["x_t"][~real] == 0).all()


def test_augmentation_is_a_share(data):
    untouched = TrainingStream(data, 4, seed=1, augment=0.0).batch(5)
    chain = untouched["x_t"] + (1 - untouched["t"])[:, None, None] * untouched["velocity"]
    for row, number in enumerate(untouched["id"].tolist()):
        ca = 0.1 * torch.from_numpy(data.chains.ca[number])
        assert torch.allclose(chain[row, : len(ca)], ca, atol=1e-4)
    half, turned = TrainingStream(data, 8, seed=1, augment=0.5), 0
    for step in range(20):
        batch = half.batch(step)
        chain = batch["x_t"] + (1 - batch["t"])[:, None, None] * batch["velocity"]
        for row, number in enumerate(batch["id"].tolist()):
            ca = 0.1 * torch.from_numpy(data.chains.ca[number])
            turned += not torch.allclose(chain[row, : len(ca)], ca, atol=1e-3)
    assert 55 < turned < 105  # 160 draws at one half: four standard deviations are 25


def test_half_of_the_batches_are_self_conditioned_as_a_whole(data):
    stream = TrainingStream(data, 2, seed=1)
    flags = [stream.batch(step)["self_condition"] for step in range(120)]
    assert all(flag.all() or not flag.any() for flag in flags)
    assert 38 < sum(bool(flag[0]) for flag in flags) < 82
    assert not TrainingStream(data, 2, seed=1, self_conditioning=0).batch(0)["self_condition"].any()


def test_batches_of_a_bucket_are_of_similar_length(data):
    stream = TrainingStream(data, 4, seed=1)
    spans = [np.ptp([len(data.chains.ca[i]) for i in stream.batch(step)["id"].tolist()]) for step in range(24)]
    everything = np.ptp(data.chains.lengths)
    assert np.mean(spans) < 0.4 * everything
