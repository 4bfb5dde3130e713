"""What is trained on, followed along training and kept for the final figure: splits by molecule, and by sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from equiscope.errors import DataError
from equiscope.tasks.datasets.protein_chains import ProteinChains

PARTS = ("train", "track", "final")
HELD_OUT = 0.1
"""Share of the molecules in each of the two held-out parts."""


def split_molecules(molecules: int, seed: int) -> Tensor:
    """(molecules,) part of every molecule, 0 train, 1 track, 2 final: a pure function of its arguments.

    Raises:
        DataError: fewer than three molecules, a part would be empty.
    """
    if molecules < 3:
        raise DataError(
            f"{molecules} molecules cannot be split into {', '.join(PARTS)}; ask for more frames, "
            "or fewer frames_per_molecule"
        )
    held = max(1, round(HELD_OUT * molecules))
    order = torch.from_numpy(np.random.default_rng([seed, 2]).permutation(molecules))
    part = torch.zeros(molecules, dtype=torch.int64)
    part[order[:held]] = 1
    part[order[held : 2 * held]] = 2
    return part


WORD = 6
_COMMON = 200  # a 6-mer in more chains than this (poly-alanine, tags) says nothing about kinship


@dataclass(frozen=True)
class Clusters:
    """Groups of similar chains: ``labels`` (chains,) int64, the cluster of each; ``by``: how they were grouped."""

    labels: np.ndarray
    by: str

    @property
    def number(self) -> int:
        return int(self.labels.max()) + 1


def cluster_chains(chains: ProteinChains, shared: float = 0.2) -> Clusters:
    """Group chains that share more than ``shared`` of the 6-mers of the shorter one (single linkage).

    The share of a and b is |A ∩ B| / min(|A|, |B|) with A, B their sets of distinct 6-mers. Without sequences that
    cannot be computed; chains of the same entry (the part of the id before the first underscore) are then kept
    together, and ``by`` says so.
    """
    if chains.sequences is None:
        entries = [name.split("_")[0].upper() for name in chains.ids]
        labels = np.unique(entries, return_inverse=True)[1].astype(np.int64)
        return Clusters(labels, "entry (no sequences in the data: similar chains of other entries are not excluded)")
    return Clusters(
        similarity_labels(chains.sequences, shared), f"more than {shared:.0%} of {WORD}-mers shared, single linkage"
    )


def similarity_labels(sequences: Sequence[str], shared: float = 0.2) -> np.ndarray:
    """Cluster label of each sequence, int64; see :func:`cluster_chains`."""
    number = len(sequences)
    words = [np.unique(_words(sequence)) for sequence in sequences]
    sizes = np.array([len(w) for w in words])
    owner = np.repeat(np.arange(number), sizes)
    word = np.unique(np.concatenate(words), return_inverse=True)[1]
    frequency = np.bincount(word)
    useful = frequency[word] <= _COMMON
    incidence = coo_array(
        (np.ones(useful.sum(), dtype=np.int32), (owner[useful], word[useful])), shape=(number, len(frequency))
    ).tocsr()
    common = (incidence @ incidence.T).tocoo()
    enough = common.data > shared * np.minimum(sizes[common.row], sizes[common.col])
    links = coo_array((np.ones(enough.sum()), (common.row[enough], common.col[enough])), shape=(number, number))
    return connected_components(links, directed=False)[1].astype(np.int64)


def split_clusters(clusters: Clusters, parts: Mapping[str, int], seed: int = 0) -> dict[str, np.ndarray]:
    """Deal whole clusters to parts: ``parts`` gives the least number of chains wanted of each held-out part.

    Clusters are taken in a random order fixed by ``seed``; the rest is ``"train"``. Returned are sorted chain indices.
    No cluster is in two parts.

    Raises:
        DataError: fewer clusters than the parts need, so that nothing would be left to train on.
    """
    order = np.random.default_rng([seed, 6]).permutation(clusters.number)
    # Smallest clusters first: a large family in a small held-out part would be most of that part.
    sizes = np.bincount(clusters.labels, minlength=clusters.number)
    queue = order[np.argsort(sizes[order], kind="stable")]
    split: dict[str, np.ndarray] = {}
    for part, wanted in parts.items():
        taken = int(np.searchsorted(np.cumsum(sizes[queue]), wanted)) + 1 if wanted > 0 else 0
        split[part] = np.flatnonzero(np.isin(clusters.labels, queue[:taken]))
        queue = queue[taken:]
    split["train"] = np.flatnonzero(np.isin(clusters.labels, queue))
    if not len(split["train"]):
        raise DataError(
            f"{len(clusters.labels)} chains in {clusters.number} clusters are too few to hold out "
            f"{dict(parts)}: give more chains or smaller parts"
        )
    return split


def _words(sequence: str) -> np.ndarray:
    """6-mers as integers; a sequence shorter than one word is a word of its own."""
    codes = np.frombuffer(sequence.upper().encode("ascii"), dtype=np.uint8).astype(np.int64) & 31
    if len(codes) < WORD:
        codes = np.concatenate([codes, np.zeros(WORD - len(codes), dtype=np.int64)])
    windows = np.lib.stride_tricks.sliding_window_view(codes, WORD)
    return windows @ (32 ** np.arange(WORD))
