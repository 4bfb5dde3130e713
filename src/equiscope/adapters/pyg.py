"""PyTorch Geometric batches: importing this file lets `equiscope.measure` take them, each graph with its own rotation.

    import equiscope as eq
    import equiscope.adapters.pyg
    from torch_geometric.loader import DataLoader

    result = eq.measure(
        model,
        DataLoader(dataset, batch_size=32),
        inputs={
            "pos": eq.Input("1o", points=True),
            "edge_shift": eq.Input("1o", points=False),  # one vector an edge
            "cell": eq.Input("1o", points=False),        # lattice vectors as rows, (graphs, 3, 3) or (3 graphs, 3)
        },
        outputs={
            "forces": eq.Output("1o", target="forces"),               # one row a node
            "energy": eq.Output("0e", target="energy", per="sample"),  # one row a graph
        },
    )

Whether a field belongs to nodes, edges or graphs is read from the slices that ``Batch.from_data_list`` (and so
``DataLoader``) records. For fields that were added or resized afterwards, and for batches built by hand, it is read
from the number of rows, and refused where that fits two readings that differ.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data, HeteroData

from equiscope.decomposition.batches import Rows, as_batch, refuse_hidden
from equiscope.errors import InputError


@dataclass(frozen=True)
class GraphRows(Rows):
    """Rows of a tensor whose first axis must have ``length`` entries, nodes, edges or graphs."""

    length: int = 0
    what: str = "rows"

    def select(self, values: Tensor, shape: tuple[int, ...]) -> Tensor:
        if values.shape[:1] != (self.length,):
            raise InputError(f"expected {self.length} {self.what} first, got a tensor of shape {tuple(values.shape)}")
        if len(shape) > values.ndim - 1 and shape != (1,):
            raise InputError(
                f"one element has shape {shape}, but a tensor {tuple(values.shape)} holds {self.length} {self.what} of "
                f"shape {tuple(values.shape[1:])}: store a graph's own tensor with a leading 1, as {(1, *shape)}"
            )
        return super().select(values, shape)


class GraphBatch:
    """A ``torch_geometric.data.Batch``, or one ``Data`` as a batch of one graph, in the protocol of the orbit.

    Raises:
        InputError: for a batch without nodes, with an empty graph, or whose ``batch`` vector does not fit its nodes.
    """

    def __init__(self, graphs: Data):
        self._graphs = graphs
        stored = graphs.to_dict()
        for name, value in stored.items():
            refuse_hidden(name, value)
        self._tensors = {k: v for k, v in stored.items() if isinstance(v, Tensor)}
        self._nodes = self._graph_of_nodes()
        # The stored number of graphs also counts trailing graphs that have no node.
        count = getattr(graphs, "num_graphs", None) if "batch" in graphs or "ptr" in graphs else 1
        self.size = int(count) if count else int(self._nodes.max()) + 1
        counts = torch.bincount(self._nodes, minlength=self.size)
        if len(counts) > self.size or bool((counts == 0).any()):
            empty = (counts == 0).nonzero().flatten().tolist()
            raise InputError(f"graphs {empty[:5]} of the batch of {self.size} have no nodes: remove them")
        self._rows: dict[tuple[str, ...], Rows] = {}

    def _graph_of_nodes(self) -> Tensor:
        count = self._graphs.num_nodes
        if not count:
            raise InputError(f"a graph batch without nodes: its fields are {sorted(self._graphs.keys())}")
        assigned = self._tensors.get("batch")
        if assigned is None:
            device = next(iter(self._tensors.values())).device
            return torch.zeros(count, dtype=torch.int64, device=device)
        if assigned.shape != (count,):
            raise InputError(f"the batch vector has shape {tuple(assigned.shape)}, but there are {count} nodes")
        return assigned

    def fields(self) -> Mapping[str, Tensor]:
        return {k: v if v.ndim else v[None] for k, v in self._tensors.items()}

    def labels(self, name: str) -> list[Any]:
        if name not in self._graphs:
            raise KeyError(name)
        value = self._graphs[name]
        values = value.flatten().tolist() if isinstance(value, Tensor) else value
        if isinstance(values, (str, int)):
            values = [values]
        if len(values) != self.size:
            raise InputError(f"field {name!r} must hold one value a graph ({self.size}), it holds {len(values)}")
        return list(values)

    def rows(self, name: str, per: str, mask: str | None) -> Rows:
        key = (per, mask or "") if per != "any" else (per, name)
        if key not in self._rows:
            self._rows[key] = self._field_rows(name) if per == "any" else self._declared_rows(per, mask)
        return self._rows[key]

    def _declared_rows(self, per: str, mask: str | None) -> Rows:
        if per == "sample":
            each = torch.arange(self.size, device=self._nodes.device)
            return GraphRows(each, None, 1, self.size, self.size, "graphs")
        if mask is None:
            return GraphRows(self._nodes, None, 1, self.size, len(self._nodes), "nodes")
        real = self._tensors[mask]
        if real.dtype != torch.bool or real.shape != self._nodes.shape:
            raise InputError(
                f"mask {mask!r} must be boolean with one entry a node ({len(self._nodes)},), "
                f"got {real.dtype} {tuple(real.shape)}"
            )
        index = real.nonzero().flatten()
        sample = self._nodes[index]
        missing = (torch.bincount(sample, minlength=self.size) == 0).nonzero().flatten().tolist()
        if missing:
            raise InputError(f"graphs {missing[:5]} of the batch have zero atoms in mask {mask!r}: remove them")
        return GraphRows(sample, index, 1, self.size, len(real), "nodes")

    def _field_rows(self, name: str) -> Rows:
        """Rows of a field by PyG's slices, or by its length where there are none."""
        values = self.fields()[name]
        length, device = len(values), values.device
        sample = self._sliced(name, length, device)
        if sample is None:
            sample = self._counted(name, length, device)
        return GraphRows(sample, None, 1, self.size, length, "rows")

    def _sliced(self, name: str, length: int, device: torch.device) -> Tensor | None:
        slices = (getattr(self._graphs, "_slice_dict", None) or {}).get(name)
        if slices is None or len(slices) != self.size + 1:
            return None
        if self.size > 1 and self._graphs.__cat_dim__(name, self._tensors[name]) not in (0, None):
            raise InputError(
                f"field {name!r} is joined along its last axis (PyG does so for names with 'index'): "
                "rename it, so that its rows come first"
            )
        # A field replaced after batching by one of another length has outlived its slices.
        if int(slices[-1]) != length:
            return None
        counts = torch.as_tensor(slices).diff().to(device)
        return torch.arange(self.size, device=device).repeat_interleave(counts)

    def _counted(self, name: str, length: int, device: torch.device) -> Tensor:
        readings: dict[str, Tensor] = {}
        if self.size == 1:
            return torch.zeros(length, dtype=torch.int64, device=device)
        if length == len(self._nodes):
            readings["nodes"] = self._nodes
        edges = self._tensors.get("edge_index")
        if edges is not None and length == edges.shape[1]:
            readings["edges"] = self._nodes[edges[0]]
        if length == self.size:
            readings["graphs"] = torch.arange(self.size, device=device)
        remedy = "build the batch with Batch.from_data_list (or DataLoader), which records it"
        if not readings:
            raise InputError(
                f"field {name!r} has {length} rows, but the batch has {len(self._nodes)} nodes, "
                f"{0 if edges is None else edges.shape[1]} edges and {self.size} graphs: {remedy}"
            )
        first, *others = readings.values()
        if any(not torch.equal(first, other) for other in others):
            raise InputError(
                f"field {name!r} has {length} rows, which may be {' or '.join(readings)}, and the batch does not say: "
                f"{remedy}"
            )
        return first

    def part(self, places: list[int]) -> Data:
        if len(places) == self.size:
            return self._graphs
        if not hasattr(self._graphs, "_slice_dict"):
            raise InputError(
                "a second coset of some graphs needs them one by one: build the batch with Batch.from_data_list (or "
                "DataLoader), or give a whole number of cosets"
            )
        return Batch.from_data_list(self._graphs.index_select(places))

    def with_fields(self, changed: Mapping[str, Tensor]) -> Data:
        fresh = copy.copy(self._graphs)
        rest = set(fresh.keys()) - set(changed)
        if rest:
            fresh.apply(torch.clone, *rest)
        for name, values in changed.items():
            fresh[name] = values.reshape(self._tensors[name].shape)
        return fresh


@as_batch.register(Data)
def _graphs(batch: Data) -> GraphBatch:
    return GraphBatch(batch)


@as_batch.register(HeteroData)
def _hetero(batch: HeteroData) -> GraphBatch:
    raise InputError(
        f"cannot measure {type(batch).__name__}: graphs with several node types are not supported; "
        "give forward= a homogeneous Data and build the heterogeneous one inside it"
    )
