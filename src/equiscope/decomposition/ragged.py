"""Batches in which the atoms of all samples stand one after another, with a field that names the sample of each.

    inputs={"pos": eq.Input("1o", points=True), "cell": eq.Input("1o", points=False, per="sample")},
    outputs={"forces": "1o", "energy": eq.Output("0e", target="energy", per="sample")},
    batch="batch",                          # (atoms,) integers, the sample of each atom

Whether a field has rows for atoms or for samples is what the declaration says of it. Inputs of which it says nothing
turn with their sample whole, and their rows are known by their number, nodes, edges of ``edge_index``, samples or three
lattice vectors a sample, and refused where that fits two readings that differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equiscope.decomposition.batches import (
    Batch,
    Rows,
    as_batch,
    boolean,
    fresh,
    labels_of,
    names,
    repeated,
    tensors_of,
)
from equiscope.decomposition.calling import named
from equiscope.errors import DeclarationError, InputError
from equiscope.symmetry.declaration import Declaration

LATTICE = 3


class Ragged:
    """What batches of atoms one after another share.

    Attributes:
        nodes: (atoms,) the sample of each atom.
        edges: (edges,) the sample of each edge; None without edges.
        words: what an atom and a sample are called in messages.

    Raises:
        InputError: for an empty batch, or samples without atoms.
    """

    dense = False
    words = ("atoms", "samples")
    remedy = "say which, per='atom' or per='sample' of its eq.Input"

    def __init__(self, tensors: Mapping[str, Tensor], nodes: Tensor, size: int, edges: Tensor | None):
        self._tensors, self.nodes, self.size, self.edges = tensors, nodes, size, edges
        self.counts = torch.bincount(nodes, minlength=size)
        if len(self.counts) > size or bool((self.counts == 0).any()):
            empty = (self.counts == 0).nonzero().flatten().tolist()
            raise InputError(f"{self.words[1]} {empty[:5]} of the batch of {size} have no {self.words[0]}: remove them")
        self._rows: dict[tuple[str, ...], Rows] = {}

    def fields(self) -> Mapping[str, Tensor]:
        return self._tensors

    def rows(self, name: str, per: str, mask: str | None) -> Rows:
        own = per in ("any", "block", "points")
        key = (per, name) if own else (per, mask or "")
        if key not in self._rows:
            self._rows[key] = self.field_rows(name, per) if own else self._declared_rows(per, mask)
        return self._rows[key]

    def field_rows(self, name: str, per: str) -> Rows:
        """The rows of an input field of which no mask is said."""
        length, device = len(self.fields()[name]), self.nodes.device
        if per == "points":
            return self._declared_rows("atom", None)
        if per == "any":
            return Rows(self.counted(name, length), None, 1, self.size, length, "rows")
        if length == 0 or length % self.size:
            raise InputError(
                f"field {name!r} is declared per='sample' and has {length} rows for {self.size} {self.words[1]}"
            )
        each = torch.arange(self.size, device=device).repeat_interleave(length // self.size)
        return Rows(each, None, 1, self.size, length, "rows")

    def _declared_rows(self, per: str, mask: str | None) -> Rows:
        if per == "sample":
            each = torch.arange(self.size, device=self.nodes.device)
            return Rows(each, None, 1, self.size, self.size, self.words[1])
        if mask is None:
            return Rows(self.nodes, None, 1, self.size, len(self.nodes), self.words[0])
        real = boolean(self._tensors[mask], mask)
        if real.shape != self.nodes.shape:
            raise InputError(
                f"mask {mask!r} must be boolean with one entry for each of {len(self.nodes)} {self.words[0]}, "
                f"({len(self.nodes)},), got {real.dtype} {tuple(real.shape)}"
            )
        index = real.nonzero().flatten()
        sample = self.nodes[index]
        missing = (torch.bincount(sample, minlength=self.size) == 0).nonzero().flatten().tolist()
        if missing:
            raise InputError(f"{self.words[1]} {missing[:5]} of a batch have zero atoms in mask {mask!r}: remove them")
        return Rows(sample, index, 1, self.size, len(real), self.words[0])

    def counted(self, name: str, length: int) -> Tensor:
        """The sample of each row of a field, by their number.

        Raises:
            InputError: if no reading fits, or two that differ.
        """
        device = self.nodes.device
        if self.size == 1:
            return torch.zeros(length, dtype=torch.int64, device=device)
        each = torch.arange(self.size, device=device)
        readings: dict[str, Tensor] = {self.words[0]: self.nodes, self.words[1]: each}
        if self.edges is not None:
            readings["edges"] = self.edges
        readings["lattice vectors"] = each.repeat_interleave(LATTICE)
        fitting = {what: sample for what, sample in readings.items() if len(sample) == length}
        if not fitting:
            counts = ", ".join(f"{len(s)} {what}" for what, s in readings.items() if what != "lattice vectors")
            raise InputError(f"field {name!r} has {length} rows, but the batch has {counts}: {self.remedy}")
        first, *others = fitting.values()
        if any(not torch.equal(first, other) for other in others):
            raise InputError(
                f"field {name!r} has {length} rows, which may be {' or '.join(fitting)}, and the batch does not say: "
                f"{self.remedy}"
            )
        return first

    def picked(self, sample: Tensor, places: list[int]) -> tuple[Tensor, Tensor]:
        """(rows of the samples asked for, in that order; which of them each belongs to)."""
        order = sample.argsort(stable=True)
        counts = torch.bincount(sample, minlength=self.size)
        starts = counts.cumsum(0) - counts
        asked = torch.tensor(places, device=sample.device)
        copies = torch.arange(len(places), device=sample.device).repeat_interleave(counts[asked])
        within = torch.arange(len(copies), device=sample.device)
        within = within - (counts[asked].cumsum(0) - counts[asked])[copies]
        return order[starts[asked][copies] + within], copies


class RaggedBatch(Ragged):
    """A dict of tensors with atoms first, where ``declaration.batch`` names the field with the sample of each.

    Raises:
        InputError: as :class:`Ragged`, and for an index that is not (atoms,) integers from 0 up.
    """

    def __init__(self, batch: Mapping[str, Any], declaration: Declaration):
        tensors = tensors_of(batch)
        self._batch, self._declaration = dict(batch), declaration
        name = declaration.batch
        nodes = tensors.get(str(name))
        if nodes is None:
            raise DeclarationError(f"the batch has no tensor {name!r} (batch={name!r}); it has {names(tensors)}")
        whole = not (nodes.is_floating_point() or nodes.is_complex() or nodes.dtype == torch.bool)
        if not whole or nodes.ndim != 1 or len(nodes) == 0 or int(nodes.min()) < 0:
            raise InputError(
                f"batch={name!r} must hold the sample of each atom, (atoms,) integers from 0 up, got {nodes.dtype} "
                f"{tuple(nodes.shape)}"
            )
        pairs = tensors.get("edge_index")
        edges = nodes[pairs[0]] if pairs is not None and pairs.ndim == 2 and len(pairs) == 2 else None
        super().__init__(tensors, nodes.long(), int(nodes.max()) + 1, edges)

    def labels(self, name: str) -> list[Any]:
        return labels_of(self._batch[name], name, self.size)

    def with_fields(self, changed: Mapping[str, Tensor]) -> dict[str, Any]:
        return fresh(self._batch, changed)

    def part(self, places: list[int]) -> dict[str, Any]:
        """The batch of some samples, renumbered from 0.

        Raises:
            InputError: for fields of which nobody said whether they have rows for atoms or for samples.
        """
        if places == list(range(self.size)):
            return dict(self._batch)
        nodes, copies = self.picked(self.nodes, places)
        picked: dict[str, Any] = {}
        unsaid: list[str] = []
        for name, value in self._batch.items():
            if name == self._declaration.batch:
                picked[name] = copies.to(value.dtype)
            elif name == "edge_index" and self.edges is not None:
                picked[name] = self._picked_edges(value, nodes, places)
            elif name == "ptr":
                picked[name] = self._offsets(value, copies, len(places))
            elif isinstance(value, list | tuple) or (isinstance(value, Tensor | np.ndarray) and value.ndim > 0):
                rows = self._rows_to_pick(name)
                if rows is None or len(rows) != len(value):
                    unsaid.append(name)
                else:
                    order = self.picked(rows, places)[0]
                    listed = isinstance(value, list | tuple)
                    picked[name] = [value[i] for i in order.tolist()] if listed else value[order]
            else:
                picked[name] = value
        if unsaid:
            example = {name: "atom" for name in unsaid}
            raise InputError(
                f"some samples of the batch are needed by themselves, and nothing says whether its fields {unsaid} "
                f"have rows for atoms or for samples: declare per={example!r}, or 'sample', or leave them out"
            )
        return picked

    def copies(self, count: int) -> dict[str, Any]:
        made = {name: repeated(value, count) for name, value in self._batch.items()}
        device = self.nodes.device
        name, pairs, ends = str(self._declaration.batch), self._batch.get("edge_index"), self._batch.get("ptr")
        copy = torch.arange(count, device=device)
        index = self._batch[name]
        made[name] = (index + (copy * self.size).to(index.dtype)[:, None]).flatten()
        if pairs is not None and self.edges is not None:
            moved = pairs[:, None, :] + (copy * len(self.nodes)).to(pairs.dtype)[:, None]
            made["edge_index"] = moved.flatten(1)
        if isinstance(ends, Tensor):
            later = ends[1:] + (copy * len(self.nodes)).to(ends.dtype)[:, None]
            made["ptr"] = torch.cat([ends[:1], later.flatten()])
        return made

    def _picked_edges(self, pairs: Tensor, nodes: Tensor, places: list[int]) -> Tensor:
        assert self.edges is not None
        edges, copies = self.picked(self.edges, places)
        asked = torch.tensor(places, device=nodes.device)
        place = torch.empty_like(self.nodes)
        order = self.nodes.argsort(stable=True)
        place[order] = torch.arange(len(order), device=nodes.device)
        own = self.counts.cumsum(0) - self.counts
        starts = self.counts[asked].cumsum(0) - self.counts[asked]
        moved = place[pairs[:, edges].long()] - own[asked[copies]] + starts[copies]
        return moved.to(pairs.dtype)

    def _offsets(self, value: Any, copies: Tensor, count: int) -> Tensor:
        counts = torch.bincount(copies, minlength=count)
        return torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(value)

    def _rows_to_pick(self, name: str) -> Tensor | None:
        per = self._declaration.rows_of_field(name)
        if name in self._declaration.inputs:
            return self.rows(name, {"atom": "points", "sample": "block", None: "any"}[per], None).sample
        if per is None:
            return None
        # Of an output of which nobody said it, the labels show it.
        unsaid = any(o.target == name and o.per is None for o in self._declaration.outputs.values())
        if unsaid and len(self._batch[name]) == self.size:
            per = "sample"
        return self.nodes if per == "atom" else torch.arange(self.size, device=self.nodes.device)


def batch_of(native: Any, declaration: Declaration) -> Batch:
    """The batch protocol for a user's batch, as declared.

    Raises:
        InputError: for a type nobody registered, or one that does not fit its kind.
    """
    native = named(native, declaration.fields)
    if declaration.batch is not None and isinstance(native, Mapping):
        return RaggedBatch(native, declaration)
    if declaration.batch not in (None, "batch"):
        raise InputError(
            f"batch={declaration.batch!r} is for dicts of tensors; a {type(native).__name__} says itself which atoms "
            "belong together"
        )
    return as_batch(native)
