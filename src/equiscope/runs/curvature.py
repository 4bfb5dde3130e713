"""Gradients, curvature and landscapes of a run's two losses: which samples, and how they are dealt into batches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from equiscope.analysis.gradients import gradients
from equiscope.decomposition.batches import as_batch
from equiscope.decomposition.checks import one_each
from equiscope.errors import InputError
from equiscope.symmetry.declaration import Declaration
from equiscope.tasks.task import Probe

Batch = dict[str, Any]


@dataclass(frozen=True)
class BatchDesign:
    """Rotations, held-out samples used, and samples in each of the independent batches."""

    rotations: str = "T"
    cosets: int = 2
    seed: int = 0
    samples: int | None = 48
    batch: int = 4


#: Of gradients tracked along training, and the default of those analysed afterwards.
GRADIENTS = BatchDesign()


def gradient_identity(probe: str, step: int) -> dict[str, Any]:
    """What tells a record of tracked gradients from others: that of an analysis with the default settings."""
    return {"analysis": "gradients", "step": step, "probe": probe, "settings": asdict(GRADIENTS)}


def dealt(batches: Sequence[Mapping[str, Tensor]], declaration: Declaration, size: int, seed: int = 0) -> list[Batch]:
    """The samples in batches of about ``size``, in random order, no cluster in two of them: independent batches.

    Clusters (molecules, chains) are drawn in random order, each to the batch with the fewest samples so far. Padding is
    made equal with zeros (False in masks).

    Raises:
        InputError: if ``size`` is no integer >= 1.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise InputError(f"batch must be an integer >= 1, got {size!r}")
    singles: list[Mapping[str, Tensor]] = []
    labels: list[Any] = []
    for batch in batches:
        wrapped, name = as_batch(batch), declaration.clusters
        own = (
            one_each(wrapped.labels(name), name, wrapped.size)
            if name
            else [(len(singles), i) for i in range(wrapped.size)]
        )
        labels += own
        singles += [{key: value[i : i + 1] for key, value in batch.items()} for i in range(wrapped.size)]
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


def doubled(
    model: nn.Module, batches: Sequence[Batch], forward: Callable[[nn.Module, Batch], Any] | None
) -> tuple[nn.Module, list[Batch]]:
    """A copy of the model and the batches in float64.

    Raises:
        InputError: if the model does not run in float64.
    """
    exact = copy.deepcopy(model).double()
    made = [{k: v.double() if v.is_floating_point() else v for k, v in batch.items()} for batch in batches]
    try:
        with torch.no_grad():
            exact(made[0]) if forward is None else forward(exact, made[0])
    except RuntimeError as error:
        raise InputError(
            f"{type(model).__name__} does not run in float64, without which no smallest eigenvalue is known "
            f"({str(error).splitlines()[0]}): make its own tensors in the dtype of its inputs, or look at 'hessian'"
        ) from error
    return exact, made


def adam_state(state: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The optimiser's state if it holds Adam's second moments, else None (SGD, or before the first step)."""
    return state if any("exp_avg_sq" in own for own in state.get("state", {}).values()) else None


def probe_gradients(
    net: nn.Module, probe: Probe, design: BatchDesign, optimizer_state: Mapping[str, Any]
) -> dict[str, Any]:
    """Gradients of both losses on a probe; the weights of an average, which are frozen, are let go for it."""
    batches = dealt(probe.batches, probe.declaration, design.batch, design.seed)
    parameters = list(net.parameters())
    frozen = not any(p.requires_grad for p in parameters)
    try:
        if frozen:
            net.requires_grad_(True)
        return gradients(
            net, batches, probe.declaration, forward=probe.forward, optimizer_state=adam_state(optimizer_state),
            rotations=design.rotations, cosets=design.cosets, seed=design.seed,
        )  # fmt: skip
    finally:
        if frozen:
            net.requires_grad_(False)


def thinned(
    batches: Sequence[Mapping[str, Tensor]], samples: int | None, device: str | torch.device = "cpu"
) -> list[Batch]:
    """So many samples, evenly spread over the batches as they come; all of them if there are fewer."""
    sizes = [len(next(iter(batch.values()))) for batch in batches]
    count = sum(sizes)
    places = range(count) if samples is None or samples >= count else [i * count // samples for i in range(samples)]
    return [{k: v.to(device) for k, v in batch.items()} for batch in _chosen(batches, sizes, places)]


def _chosen(
    batches: Sequence[Mapping[str, Tensor]], sizes: Sequence[int], places: Sequence[int]
) -> Iterator[Mapping[str, Tensor]]:
    start = 0
    for batch, size in zip(batches, sizes, strict=True):
        rows = torch.tensor([place - start for place in places if start <= place < start + size], dtype=torch.int64)
        start += size
        if len(rows):
            yield {name: value[rows] for name, value in batch.items()}
