"""Which samples to measure first, when not all may be needed: at random over the whole data set wherever it has places.

Batches in memory and map-style loaders are drawn by one random permutation of all their samples, in rounds: after every
whole round the samples measured so far are a simple random sample without replacement of the data set, in whatever
order that is stored. A stream can only be read from its beginning, and is said to be so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler, Subset

from equiscope.decomposition.batches import Batch, DenseBatch, Guarded

# Of the rotations' seed another stream, so that the choice of samples is independent of their rotations.
DRAW_STREAM = 0x647261
FIRST_ROUND, GROWTH = 32, 1.25

# Batches, each with the positions of its samples in the data set; None where they follow those before.
Round = list[tuple[list[int] | None, Any]]


@dataclass(frozen=True)
class Draw:
    """Samples in rounds.

    Attributes:
        rounds: after each of them, what was measured may be judged.
        size: number of samples of the data set; None for a stream, which is read from its beginning.
    """

    rounds: Iterable[Round]
    size: int | None

    def said(self, samples: int, exhausted: bool) -> str:
        """Which samples were measured, where not all."""
        if exhausted or samples == self.size:
            return ""
        return f"the first {samples} of an unknown number" if self.size is None else f"drawn at random from {self.size}"


def draw(batches: Iterable[Any], seed: int, wrap: Callable[[Any], Batch]) -> Draw:
    """The samples of ``batches`` at random: a list, or a torch or PyG ``DataLoader`` over a data set with places.

    A loader keeps its batch size, collation and workers; one with a sampler of its own is a stream, as is any other
    iterable. ``wrap`` gives a native batch the protocol of :class:`Batch`.
    """
    random = np.random.default_rng([seed, DRAW_STREAM])
    inner = batches.inner if isinstance(batches, Guarded) else batches
    if isinstance(inner, Sequence):
        sizes = [wrap(native).size for native in batches]
        return Draw(_parts(inner, sizes, random, wrap), sum(sizes))
    if isinstance(inner, DataLoader) and _has_places(inner):
        order = random.permutation(_sized(inner.dataset)).tolist()
        return Draw(_loaded(inner, order), len(order))
    return Draw(([(None, native)] for native in batches), None)


def _has_places(loader: DataLoader[Any]) -> bool:
    """Whether the loader reads a map-style data set once through, in order or shuffled."""
    if isinstance(loader.dataset, IterableDataset) or type(loader.batch_sampler) is not BatchSampler:
        return False
    sampler = loader.batch_sampler.sampler
    whole = type(sampler) is SequentialSampler or (type(sampler) is RandomSampler and not sampler.replacement)
    return whole and _sized(sampler) == _sized(loader.dataset) > 0


def _sized(whole: Any) -> int:
    # torch's data sets and samplers are annotated without the length that map-style ones have.
    return len(whole)


def _loaded(loader: DataLoader[Any], order: list[int]) -> Iterator[Round]:
    """The loader's batches over its data set in another order."""
    again = DataLoader(
        Subset(loader.dataset, order), batch_size=loader.batch_size, collate_fn=loader.collate_fn,
        num_workers=loader.num_workers, pin_memory=loader.pin_memory, timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn, multiprocessing_context=loader.multiprocessing_context,
    )  # fmt: skip
    size = loader.batch_size or 1
    for number, native in enumerate(Guarded(again)):
        yield [(order[number * size : (number + 1) * size], native)]


def _parts(
    batches: Sequence[Any], sizes: list[int], random: np.random.Generator, wrap: Callable[[Any], Batch]
) -> Iterator[Round]:
    """Rounds of samples taken out of their batches, as few batches as their shapes allow."""
    starts = np.cumsum([0, *sizes])
    order = random.permutation(starts[-1])
    done = 0
    while done < len(order):
        reach = max(FIRST_ROUND, math.ceil(GROWTH * done))
        chosen = np.sort(order[done:reach])
        owners = np.searchsorted(starts, chosen, side="right") - 1
        found = []
        for owner in np.unique(owners).tolist():
            positions = chosen[owners == owner]
            whole = wrap(batches[owner])
            part = whole.part((positions - starts[owner]).tolist())
            found.append((_shape(part) if type(whole) is DenseBatch else owner, positions.tolist(), part))
        yield _joined(found, max(sizes))
        done = min(reach, len(order))


def _joined(parts: list[tuple[Any, list[int], Any]], most: int) -> Round:
    """Parts of one shape put together into batches of at most ``most`` samples."""
    groups: dict[Any, list[tuple[list[int], Any]]] = {}
    for shape, positions, part in parts:
        groups.setdefault(shape, []).append((positions, part))
    return [joint for group in groups.values() for joint in _filled(group, most)]


def _filled(group: list[tuple[list[int], Any]], most: int) -> Iterator[tuple[list[int], Any]]:
    waiting: list[tuple[list[int], Any]] = []
    for positions, part in group:
        if waiting and sum(len(p) for p, _ in waiting) + len(positions) > most:
            yield _together(waiting)
            waiting = []
        waiting.append((positions, part))
    yield _together(waiting)


def _together(parts: list[tuple[list[int], Any]]) -> tuple[list[int], Any]:
    if len(parts) == 1:
        return parts[0]
    first = parts[0][1]
    joint = {
        name: torch.cat([part[name] for _, part in parts]) if isinstance(value, Tensor) and value.ndim
        else [x for _, part in parts for x in part[name]] if isinstance(value, list) else value
        for name, value in first.items()
    }  # fmt: skip
    return [i for positions, _ in parts for i in positions], joint


def _shape(part: dict[str, Any]) -> tuple[Any, ...]:
    """What must agree between dense batches for them to be put together."""
    return tuple(
        (k, tuple(v.shape[1:]), v.dtype, str(v.device), v.requires_grad) if isinstance(v, Tensor) and v.ndim
        else (k, "list") if isinstance(v, list) else (k, id(v))
        for k, v in part.items()
    )  # fmt: skip
