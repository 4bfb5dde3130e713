"""The split by molecule; clusters of chains by shared 6-mers and the split by clusters."""

import numpy as np
import pytest
import torch

from equiscope.errors import DataError
from equiscope.tasks.datasets.protein_chains import ProteinChains, shipped_chains
from equiscope.tasks.datasets.splits import (
    Clusters,
    cluster_chains,
    similarity_labels,
    split_clusters,
    split_molecules,
)


def test_split_is_a_function_of_the_seed() -> None:
    part = split_molecules(400, 7)
    assert torch.equal(part, split_molecules(400, 7))
    assert not torch.equal(part, split_molecules(400, 8))
    assert torch.bincount(part).tolist() == [320, 40, 40]
    assert torch.bincount(split_molecules(100, 0)).tolist() == [80, 10, 10]
    assert sorted(split_molecules(3, 0).tolist()) == [0, 1, 2]
    with pytest.raises(DataError, match="2 molecules cannot be split"):
        split_molecules(2, 0)


LETTERS = np.array(list("ACDEFGHIKLMNPQRSTVWY"))


def random_sequence(rng, length: int) -> str:
    return "".join(rng.choice(LETTERS, length))


def words(sequence: str) -> set[str]:
    return {sequence[i : i + 6] for i in range(len(sequence) - 5)}


def brute_force(sequences, shared) -> np.ndarray:
    """Single linkage by comparing every pair of word sets."""
    labels = list(range(len(sequences)))
    for i, a in enumerate(sequences):
        for j in range(i):
            wa, wb = words(a), words(sequences[j])
            if len(wa & wb) > shared * min(len(wa), len(wb)):
                old, new = labels[i], labels[j]
                labels = [new if label == old else label for label in labels]
    return np.unique(labels, return_inverse=True)[1]


def same_partition(a, b) -> bool:
    return len(set(zip(a.tolist(), b.tolist(), strict=True))) == len(set(a.tolist())) == len(set(b.tolist()))


def test_labels_agree_with_comparing_every_pair():
    rng = np.random.default_rng(0)
    base = [random_sequence(rng, 60) for _ in range(12)]
    sequences = []
    for i, sequence in enumerate(base):
        sequences.append(sequence)
        keep = 15 + 4 * i  # relatives that share from a tenth to nearly all of the words
        sequences.append(sequence[:keep] + random_sequence(rng, 60 - keep))
    order = rng.permutation(len(sequences))
    sequences = [sequences[i] for i in order]
    for shared in (0.1, 0.2, 0.5):
        assert same_partition(similarity_labels(sequences, shared), brute_force(sequences, shared))


def test_linkage_is_transitive_and_the_share_is_of_the_shorter_chain():
    rng = np.random.default_rng(1)
    a, b = random_sequence(rng, 80), random_sequence(rng, 80)
    chain = [a, a[40:] + b[:40], b, random_sequence(rng, 80)]
    labels = similarity_labels(chain)
    assert labels[0] == labels[1] == labels[2] != labels[3]
    assert len(set(similarity_labels([a + b + random_sequence(rng, 300), a]))) == 1


def test_short_sequences_do_not_fail():
    assert len(set(similarity_labels(["AC", "AC", "ACDE"]))) == 2


def test_the_shipped_chains_are_one_per_cluster():
    assert cluster_chains(shipped_chains()).number == 1000


def test_without_sequences_the_entry_is_the_cluster_and_it_says_so():
    ids = ("1ABC_A_1", "1abc_B_1", "2XYZ_A_1")
    found = cluster_chains(ProteinChains(ids, (np.zeros((2, 3)),) * 3, None, "x"))
    assert found.labels[0] == found.labels[1] != found.labels[2]
    assert "no sequences" in found.by


def test_no_cluster_is_in_two_parts_and_every_chain_in_one():
    labels = np.random.default_rng(2).integers(0, 40, 100)
    clusters = Clusters(np.unique(labels, return_inverse=True)[1], "test")
    split = split_clusters(clusters, {"track": 10, "final": 15}, seed=3)
    assert sorted(np.concatenate(list(split.values())).tolist()) == list(range(100))
    owners = [set(clusters.labels[part].tolist()) for part in split.values()]
    assert sum(len(owner) for owner in owners) == clusters.number
    assert len(split["track"]) >= 10
    assert len(split["final"]) >= 15
    again = split_clusters(clusters, {"track": 10, "final": 15}, seed=3)
    assert all(np.array_equal(split[part], again[part]) for part in split)
    other = split_clusters(clusters, {"track": 10, "final": 15}, seed=4)
    assert not np.array_equal(split["track"], other["track"])


def test_too_few_clusters_is_an_error():
    with pytest.raises(DataError, match="too few to hold out"):
        split_clusters(Clusters(np.arange(5), "test"), {"track": 3, "final": 2})
