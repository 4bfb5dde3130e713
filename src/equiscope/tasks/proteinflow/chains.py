"""The task's chains in memory: chosen source, split, and padded batches that are pure functions of (seed, step)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from equiscope.errors import DataError, InputError
from equiscope.symmetry.rotations import haar
from equiscope.tasks.datasets import store
from equiscope.tasks.datasets.promod3 import read_structure_db
from equiscope.tasks.datasets.protein_chains import ProteinChains, read_npz, shipped_chains
from equiscope.tasks.datasets.splits import Clusters, cluster_chains, split_clusters
from equiscope.tasks.datasets.structures import read_structures
from equiscope.tasks.guards import at_least, one_of
from equiscope.tasks.proteinflow.flow import draw_noise, draw_times, interpolate
from equiscope.tasks.seeded import Shuffled

ANGSTROM_TO_NM = 0.1
SOURCES = ("shipped", "npz", "structure_db", "folder")
_BUCKET = 4  # batches whose chains are sorted by length together, so that little is padding


@dataclass(frozen=True)
class ChainSettings:
    """Which chains are used.

    Attributes:
        source: ``"shipped"``, ``"npz"``, ``"structure_db"`` (ProMod3) or ``"folder"`` (mmCIF and PDB files).
        path: file or folder of every source but ``"shipped"``.
        shortest, longest: residues; chains outside are left out and counted.
        fraction: part of the training chains that is used, for studies of data size.
        seed: of the split, the fraction and the held-out samples' noise and times; None for that of the run, as runs
            from before this setting have it.
        track_chains, final_chains: held-out chains measured along training and at the end.
    """

    source: str = "shipped"
    path: str | None = None
    shortest: int = 40
    longest: int = 96
    fraction: float = 1.0
    seed: int | None = None
    track_chains: int = 24
    final_chains: int = 64

    def __post_init__(self) -> None:
        one_of(SOURCES, "data.", source=self.source)
        if self.source != "shipped" and not self.path:
            raise InputError(f"the chain source {self.source!r} needs a path: set data.path")
        if not 2 <= self.shortest <= self.longest:
            raise InputError(f"2 <= shortest <= longest is needed, got {self.shortest} and {self.longest}")
        at_least(0, "data.", seed=self.seed)
        if not 0 < self.fraction <= 1:
            raise InputError(f"fraction must be in (0, 1], got {self.fraction}")
        if min(held := (self.track_chains, self.final_chains)) < 2:
            raise InputError(f"an interval needs two held-out chains or more, got {held[0]} and {held[1]}")


def load_chains(settings: ChainSettings) -> ProteinChains:
    """The chains of a source within the length limits; what is left out is added to ``counts``.

    Raises:
        DataError: the source cannot be read, or no chain has a length within the limits.
    """
    path = settings.path or ""
    if settings.source == "structure_db":
        return read_structure_db(path, settings.shortest, settings.longest)
    if settings.source == "folder":
        return read_structures(path, settings.shortest, settings.longest)
    chains = shipped_chains() if settings.source == "shipped" else read_npz(path)
    fits = np.flatnonzero((chains.lengths >= settings.shortest) & (chains.lengths <= settings.longest))
    if not len(fits):
        raise DataError(
            f"no chain of {chains.source} has {settings.shortest} to {settings.longest} residues "
            f"(they have {chains.lengths.min()} to {chains.lengths.max()}): change data.shortest or data.longest"
        )
    counts = {**chains.counts, "kept": len(fits), "outside the length limits": len(chains) - len(fits)}
    return replace(chains.select(fits), counts=counts)


@dataclass(frozen=True)
class ChainSet:
    """Chains (Cα traces in Å), their clusters of similar ones, the chain numbers of each part; no cluster is in two."""

    chains: ProteinChains
    clusters: Clusters
    parts: Mapping[str, np.ndarray]

    @classmethod
    def load(cls, settings: ChainSettings, seed: int) -> ChainSet:
        """Read, cluster and split: a pure function of the data, the settings and the seed."""
        chains = load_chains(settings)
        clusters = cluster_chains(chains)
        wanted = {"track": settings.track_chains, "final": settings.final_chains}
        parts = split_clusters(clusters, wanted, seed)
        if settings.fraction < 1:
            keep = max(1, round(settings.fraction * len(parts["train"])))
            drawn = np.random.default_rng([seed, 7]).permutation(parts["train"])[:keep]
            parts["train"] = np.sort(drawn)
        return cls(chains, clusters, parts)

    def padded(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """Chains as ``x_1`` (B, N, 3) float32 nm centred, ``mask``, ``residue`` (B, N), ``chain``, ``id`` (B,)."""
        traces = [torch.from_numpy(ANGSTROM_TO_NM * self.chains.ca[i]) for i in numbers]
        points = pad_sequence(traces, batch_first=True)
        residue = torch.arange(points.shape[1]).repeat(len(traces), 1)
        return {
            "x_1": points,
            "mask": residue < torch.tensor([[len(trace)] for trace in traces]),
            "residue": residue,
            "chain": torch.from_numpy(self.clusters.labels[np.asarray(numbers)]),
            "id": torch.as_tensor(np.asarray(numbers), dtype=torch.int64),
        }

    def checksum(self) -> str:
        """SHA-256 of the chains."""
        letters = "".join(self.chains.sequences or ())
        return store.digest({
            "ids": np.array(self.chains.ids), "ca": np.concatenate(self.chains.ca), "length": self.chains.lengths,
            "sequence": np.frombuffer(letters.encode(), dtype=np.uint8),
        })  # fmt: skip

    def describe(self) -> dict[str, Any]:
        """Plain facts for a run's record: source, licence, counts, lengths, clusters and parts."""
        lengths = self.chains.lengths
        return {
            "source": self.chains.source,
            "licence": self.chains.licence,
            "counts": dict(self.chains.counts),
            "chains": len(self.chains),
            "residues": int(lengths.sum()),
            "lengths": [int(lengths.min()), int(lengths.max())],
            "clusters": self.clusters.number,
            "clusters_by": self.clusters.by,
            "parts": {part: len(numbers) for part, numbers in self.parts.items()},
        }


class TrainingStream(Shuffled):
    """Batches of training chains: batch choice, augmentation, noise and times are pure functions of (seed, step).

    Every epoch takes one chain of each cluster, in a new order; four batches at a time are sorted by length.
    ``augment`` is the share of chains turned by a Haar-random rotation (0 leaves them as they are in the PDB),
    ``self_conditioning`` that of batches trained with a first estimate as input.
    """

    def __init__(
        self, data: ChainSet, batch_size: int, seed: int, augment: float = 1.0, self_conditioning: float = 0.5
    ) -> None:
        train = data.parts["train"]
        labels = data.clusters.labels[train]
        super().__init__([train[labels == label] for label in np.unique(labels)], seed)
        self.data, self.batch_size = data, batch_size
        self.augment, self.self_conditioning = augment, self_conditioning

    def batch(self, step: int) -> dict[str, Tensor]:
        """The batch of a step; see :meth:`ProteinFlow.training_batch` for its fields."""
        padded = self.data.padded(self._numbers(step))
        chain, mask = padded.pop("x_1"), padded["mask"]
        generator = torch.Generator().manual_seed(mix(self.seed, step, 1))
        turned = torch.rand(len(chain), generator=generator) < self.augment
        rotations = haar(len(chain), generator).to(chain.dtype)
        chain = torch.where(turned[:, None, None], chain @ rotations.mT, chain)
        t = draw_times(len(chain), generator)
        x_t, velocity = interpolate(draw_noise(mask, generator), chain, t)
        guess_first = torch.rand((), generator=generator) < self.self_conditioning
        return {
            "x_t": x_t,
            "x_sc": torch.zeros_like(x_t),
            "t": t,
            "velocity": velocity,
            "self_condition": guess_first.expand(len(chain)).clone(),
            **padded,
        }

    def _numbers(self, step: int) -> list[int]:
        bucket, place = divmod(step, _BUCKET)
        first = bucket * _BUCKET * self.batch_size
        numbers = self.take(first, _BUCKET * self.batch_size)
        numbers.sort(key=lambda number: len(self.data.chains.ca[number]))
        order = np.random.default_rng(mix(self.seed, bucket, 2)).permutation(_BUCKET)
        start = int(order[place]) * self.batch_size
        return numbers[start : start + self.batch_size]

    def draw(self, turn: int) -> np.ndarray:
        """One chain of each cluster, in an order of its own."""
        rng = np.random.default_rng(mix(self.seed, turn, 3))
        drawn = np.array([rng.choice(members) for members in self.items])
        return rng.permutation(drawn)


def mix(*keys: int) -> int:
    """One seed of several non-negative integers."""
    return int(np.random.SeedSequence(keys).generate_state(1, dtype=np.uint64)[0] >> 1)
