"""Per-sample figures as flat tensors, so that they can be gathered over processes and put back together.

One row a sample: its id, the code of its cluster, and its figures of every output. Losses other than squared error
also need the labels themselves (for the loss of the best constant), kept as rows beside the id of their sample.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from equiscope.decomposition.collect import Collected
from equiscope.decomposition.losses import Loss
from equiscope.decomposition.noise import COLUMNS as FLOOR_COLUMNS
from equiscope.decomposition.split import SampleValues
from equiscope.errors import InputError
from equiscope.symmetry.declaration import Declaration

# A sample measured twice by the same model answers alike up to rounding, in any batch and in half precision.
SAME_ANSWER = 1e-2
SAME_LABEL = 1e-9


@dataclass(frozen=True)
class Table:
    """Figures of n samples.

    Attributes:
        ids, clusters: (n,) int64.
        figures: (n, width) float64, the columns of :class:`Layout`.
        owners: for each output judged by a loss other than squared error, (m,) int64, the sample id of each label row.
        labels: the same outputs, (m, 1 + d) float64: whether the label is an integer class, then its components.
    """

    ids: Tensor
    clusters: Tensor
    figures: Tensor
    owners: dict[str, Tensor]
    labels: dict[str, Tensor]


class Layout:
    """Which column holds what, for one declaration."""

    def __init__(self, declaration: Declaration, losses: Mapping[str, Loss]):
        self.declaration, self.losses = declaration, losses
        self.columns: dict[str, dict[str, slice]] = {}
        self.width = 9 if declaration.points else 0
        for name in declaration.outputs:
            self.columns[name] = {}
            for part, size in self._sizes(name).items():
                self.columns[name][part] = slice(self.width, self.width + size)
                self.width += size

    def _sizes(self, name: str) -> dict[str, int]:
        spec = self.declaration.outputs[name]
        sizes = {part: 1 for part in SampleValues.__dataclass_fields__}
        if spec.target is not None and self.losses[name].exact:
            sizes["target_invariant"] = spec.action.invariants("SO3").shape[1]
        return sizes | {"halvings": 3, "as_given": 1, "deviation": 1, "floor": len(FLOOR_COLUMNS)}

    @property
    def with_labels(self) -> dict[str, int]:
        """Outputs whose labels are kept, and how many components a label has at most."""
        found = {}
        for name, spec in self.declaration.outputs.items():
            loss = self.losses[name]
            if spec.target is not None and not loss.exact and loss.per_sample is None:
                found[name] = spec.action.canonical(torch.zeros(1, 1, *spec.action.shape)).shape[-1]
        return found

    def empty(self, device: torch.device) -> Table:
        """A table without samples."""
        none = torch.empty(0, dtype=torch.int64, device=device)
        labels = {
            k: torch.empty(0, 1 + d, dtype=torch.float64, device=device) for k, d in self.with_labels.items()
        }
        figures = torch.empty(0, self.width, dtype=torch.float64, device=device)
        return Table(none, none, figures, dict.fromkeys(labels, none), labels)

    def pack(self, collected: Collected, device: torch.device) -> Table:
        """The table of figures collected in this process."""
        ids = torch.tensor(collected.ids, dtype=torch.int64, device=device)
        clusters = torch.tensor([_code(c) for c in collected.clusters], dtype=torch.int64, device=device)
        figures = torch.full((len(ids), self.width), torch.nan, dtype=torch.float64, device=device)
        if collected.axes:
            figures[:, :9] = torch.cat(collected.axes).reshape(-1, 9).to(device)
        for name, columns in self.columns.items():
            values = SampleValues.cat(collected.values[name])
            for part in SampleValues.__dataclass_fields__:
                column, place = getattr(values, part).to(device), columns[part]
                figures[:, place] = column.reshape(len(ids), place.stop - place.start)
            kept = {"as_given": collected.as_given, "deviation": collected.deviations, "floor": collected.floors}
            for part, lists in kept.items():
                if lists.get(name):
                    figures[:, columns[part]] = torch.cat(lists[name]).to(device).reshape(len(ids), -1)
        owners, labels = {}, {}
        for name, width in self.with_labels.items():
            owners[name], labels[name] = _pack_labels(collected, name, width, ids)
        return Table(ids, clusters, figures, owners, labels)

    def unpack(self, table: Table) -> Collected:
        """What :func:`equiscope.decomposition.pool.summarise` pools, each sample once, ordered by id.

        Raises:
            InputError: two different samples share an id, or a sample was measured with different models.
        """
        kept = self._once(table)
        ids, figures = table.ids[kept], table.figures[kept]
        collected = Collected(ids=ids.tolist(), clusters=table.clusters[kept].tolist())
        if self.declaration.points:
            collected.axes = [figures[:, :9].reshape(-1, 3, 3)]
        for name, columns in self.columns.items():
            parts = {p: figures[:, columns[p]] for p in SampleValues.__dataclass_fields__}
            flat = {p: v if p in ("halvings", "target_invariant") else v[:, 0] for p, v in parts.items()}
            collected.values[name] = [SampleValues(**flat)]
            collected.floors[name] = [figures[:, columns["floor"]]]
            collected.deviations[name] = [figures[:, columns["deviation"]][:, 0]]
            if self.declaration.outputs[name].target is not None:
                collected.as_given[name] = [figures[:, columns["as_given"]][:, 0]]
            collected.targets[name] = []
        for name in table.labels:
            collected.targets[name] = [_unpack_labels(table.owners[name], table.labels[name], ids)]
        return collected

    def _once(self, table: Table) -> Tensor:
        """Positions of the samples, each id once, ascending."""
        order = torch.argsort(table.ids, stable=True)
        ordered = table.ids[order]
        first = torch.ones_like(ordered, dtype=torch.bool)
        first[1:] = ordered[1:] != ordered[:-1]
        kept = order[first]
        original = kept[first.cumsum(0) - 1]
        for name, columns in self.columns.items():
            for part, tolerance in (("components", SAME_LABEL), ("target_square", SAME_LABEL), ("square", SAME_ANSWER)):
                a, b = (table.figures[rows, columns[part].start] for rows in (order, original))
                differ = (a - b).abs() > tolerance * torch.maximum(a.abs(), b.abs())
                if bool(differ.any()):
                    raise InputError(_conflict(name, part, ordered[differ].unique().tolist(), self.declaration))
        return kept


def _conflict(name: str, part: str, ids: list[int], declaration: Declaration) -> str:
    which = f"{len(ids)} ids occur twice with different figures of output {name!r} (ids {ids[:5]})"
    if part == "square":
        return f"{which}: the model changed between updates; call reset() before measuring it again"
    remedy = f"field {declaration.ids!r} must identify samples" if declaration.ids else "declare ids='…'"
    return f"{which}: two different samples share an id; {remedy}"


def _code(label: Any) -> int:
    """A cluster's integer label, or 63 bits of a hash of any other label: the same in every process."""
    if isinstance(label, int):
        return int(label)
    digest = hashlib.blake2b(repr(label).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _pack_labels(collected: Collected, name: str, width: int, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Owner and components of every label row; the c values of a row become rows of their own."""
    owners, rows, start = [], [], 0
    for values, sample, counts in collected.targets[name]:
        flat = values.flatten(0, 1).double()
        owner = ids[start + sample.to(ids.device)].repeat_interleave(values.shape[1])
        padded = torch.zeros(len(flat), 1 + width, dtype=torch.float64, device=ids.device)
        padded[:, 0] = float(not values.is_floating_point())
        padded[:, 1 : 1 + flat.shape[1]] = flat.to(ids.device)
        owners.append(owner)
        rows.append(padded)
        start += len(counts)
    return torch.cat(owners), torch.cat(rows)


def _unpack_labels(owners: Tensor, labels: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Label rows (m, 1, d), the position of their sample among ``ids`` (ascending), rows a sample.

    The rows of a sample that was measured r times are all there; its count is r times higher, which is the same mean.
    """
    sample = torch.searchsorted(ids, owners)
    order = torch.argsort(sample, stable=True)
    sample, rows = sample[order], labels[order, None, 1:]
    counts = torch.zeros(len(ids), dtype=torch.float64, device=ids.device)
    counts.index_add_(0, sample, torch.ones(len(sample), dtype=torch.float64, device=ids.device))
    if bool((labels[:, 0] > 0).any()):
        rows = rows[..., :1].long()
    return rows, sample, counts
