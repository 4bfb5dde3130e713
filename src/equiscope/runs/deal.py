"""The samples of an analysis: how many of a probe's, and how they are dealt into independent batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from equiscope.decomposition.batches import as_batch
from equiscope.decomposition.checks import one_each
from equiscope.errors import check_count
from equiscope.symmetry.declaration import Declaration
from equiscope.tasks.seeded import spread

Batch = dict[str, Any]


def dealt(batches: Sequence[Mapping[str, Tensor]], declaration: Declaration, size: int, seed: int = 0) -> list[Batch]:
    """The samples in batches of about ``size``, in random order, no cluster in two of them: independent batches.

    Clusters (molecules, chains) are drawn in random order, each to the batch with the fewest samples so far. Padding is
    made equal with zeros (False in masks).

    Raises:
        InputError: if ``size`` is no integer >= 1.
    """
    check_count("batch", size, 1)
    singles: list[Mapping[str, Tensor]] = []
    labels: list[Any] = []
    for batch in batches:
        wrapped, name = as_batch(batch), declaration.clusters
        places = range(wrapped.size)
        labels += one_each(wrapped.labels(name), name, wrapped.size) if name else [(len(singles), i) for i in places]
        singles += [{key: value[i : i + 1] for key, value in batch.items()} for i in places]
    members: dict[Any, list[int]] = {}
    for place, label in enumerate(labels):
        members.setdefault(label, []).append(place)
    order = torch.randperm(len(members), generator=torch.Generator().manual_seed(seed)).tolist()
    groups: list[list[int]] = [[] for _ in range(min(len(members), -(-len(singles) // size)))]
    keys = list(members)
    for place in order:
        min(groups, key=len).extend(members[keys[place]])
    return [joined([singles[place] for place in group]) for group in groups]


def joined(samples: Sequence[Mapping[str, Tensor]]) -> Batch:
    """Samples of one row each as a batch; axes of different length are padded with zeros at their end."""
    made = {}
    for name in samples[0]:
        parts = [sample[name] for sample in samples]
        widest = [max(lengths) for lengths in zip(*(part.shape[1:] for part in parts), strict=True)]
        made[name] = torch.cat([_padded(part, widest) for part in parts])
    return made


def _padded(part: Tensor, widest: Sequence[int]) -> Tensor:
    missing = [wide - own for own, wide in zip(part.shape[1:], widest, strict=True)]
    return F.pad(part, [n for gap in reversed(missing) for n in (0, gap)]) if any(missing) else part


def thinned(
    batches: Sequence[Mapping[str, Tensor]], samples: int | None, device: str | torch.device = "cpu"
) -> list[Batch]:
    """So many samples, evenly spread over the batches as they come; all of them if there are fewer."""
    sizes = [len(next(iter(batch.values()))) for batch in batches]
    places, made, start = spread(torch.arange(sum(sizes)), samples), [], 0
    for batch, size in zip(batches, sizes, strict=True):
        rows = places[(places >= start) & (places < start + size)] - start
        start += size
        if len(rows):
            made.append({name: value[rows].to(device) for name, value in batch.items()})
    return made
