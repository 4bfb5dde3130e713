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
``DataLoader``) records. For fields that were added or resized afterwards, and for batches built by hand, it is what
``per="atom"`` or ``per="sample"`` of the ``Input`` says, or else read from the number of rows, and refused where that
fits two readings that differ. Graphs without edges are samples like any other.

SchNet, ViSNet and others of PyG search neighbours with the package pyg-lib; where there is none,
:func:`without_pyg_lib` puts :func:`radius_graph` in its place.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.nn import pool
from torch_geometric.utils import to_dense_batch

from equiscope.decomposition.batches import Rows, as_batch, marked, refuse_hidden, repeated
from equiscope.decomposition.ragged import Ragged
from equiscope.errors import InputError

#: PyG's own search, whatever is put in its place later.
_OF_PYG = pool.radius_graph


class GraphBatch(Ragged):
    """A ``torch_geometric.data.Batch``, or one ``Data`` as a batch of one graph, in the protocol of the orbit.

    Raises:
        InputError: for a batch without nodes, with an empty graph, or whose ``batch`` vector does not fit its nodes.
    """

    words = ("nodes", "graphs")
    remedy = (
        "build the batch with Batch.from_data_list (or DataLoader), which records it, or say which, per='atom' or "
        "per='sample' of its eq.Input"
    )

    def __init__(self, graphs: Data):
        self._graphs = graphs
        stored = graphs.to_dict()
        for name, value in stored.items():
            refuse_hidden(name, value)
        self._stored = {k: v for k, v in stored.items() if isinstance(v, Tensor)}
        nodes = self._graph_of_nodes()
        # The stored number of graphs also counts trailing graphs that have no node.
        count = getattr(graphs, "num_graphs", None) if "batch" in graphs or "ptr" in graphs else 1
        pairs = self._stored.get("edge_index")
        super().__init__(
            {k: v if v.ndim else v[None] for k, v in self._stored.items()},
            nodes,
            int(count) if count else int(nodes.max()) + 1,
            nodes[pairs[0]] if pairs is not None and pairs.layout == torch.strided and pairs.ndim == 2 else None,
        )

    def _graph_of_nodes(self) -> Tensor:
        count = self._graphs.num_nodes
        if not count:
            raise InputError(f"a graph batch without nodes: its fields are {sorted(self._graphs.keys())}")
        assigned = self._stored.get("batch")
        if assigned is None:
            device = next(iter(self._stored.values())).device
            return torch.zeros(count, dtype=torch.int64, device=device)
        if assigned.shape != (count,):
            raise InputError(f"the batch vector has shape {tuple(assigned.shape)}, but there are {count} nodes")
        return assigned.long()

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

    def field_rows(self, name: str, per: str) -> Rows:
        """Rows of a field by PyG's slices, or as for any batch of atoms one after another where there are none."""
        length, device = len(self.fields()[name]), self.nodes.device
        sample = self._sliced(name, length, device)
        if sample is None:
            return super().field_rows(name, "any" if per == "points" else per)
        return Rows(sample, None, 1, self.size, length, "rows")

    def _sliced(self, name: str, length: int, device: torch.device) -> Tensor | None:
        slices = (getattr(self._graphs, "_slice_dict", None) or {}).get(name)
        if slices is None or len(slices) != self.size + 1:
            return None
        if self.size > 1 and self._graphs.__cat_dim__(name, self._stored[name]) not in (0, None):
            raise InputError(
                f"field {name!r} is joined along its last axis (PyG does so for names with 'index'): "
                "rename it, so that its rows come first"
            )
        # A field replaced after batching by one of another length has outlived its slices.
        if int(slices[-1]) != length:
            return None
        counts = torch.as_tensor(slices).diff().to(device)
        return torch.arange(self.size, device=device).repeat_interleave(counts)

    def part(self, places: list[int]) -> Data:
        if places == list(range(self.size)):
            return self._graphs
        if not hasattr(self._graphs, "_slice_dict"):
            raise InputError(
                "some graphs of the batch are needed by themselves: build it with Batch.from_data_list (or "
                "DataLoader), or, for a second coset of some, give a whole number of cosets"
            )
        return Batch.from_data_list(self._graphs.index_select(places))

    def copies(self, count: int) -> Data:
        # One graph of all, so that PyG joins so many large pieces and not so many times as many small ones.
        kinds = type(self._graphs).__mro__
        kind: type[Data] = next(c for c in kinds if issubclass(c, Data) and not issubclass(c, Batch))
        stored = {k: v for k, v in self._graphs.to_dict().items() if k not in ("batch", "ptr", "num_nodes")}
        whole = kind.from_dict(stored)
        whole.num_nodes = len(self.nodes)
        made = Batch.from_data_list([whole] * count)
        for name, value in stored.items():
            if isinstance(value, list | tuple):
                made[name] = repeated(value, count)
        for name, pieces in (getattr(self._graphs, "_slice_dict", None) or {}).items():
            ends = torch.as_tensor(pieces)
            later = ends[1:] + ends[-1] * torch.arange(count, device="cpu")[:, None]
            made._slice_dict[name] = torch.cat([ends[:1], later.flatten()])
        copy = torch.arange(count, device=self.nodes.device)[:, None]
        made.batch = (self.nodes + self.size * copy).flatten()
        ends = torch.cat([self.counts.new_zeros(1), self.counts.cumsum(0)])
        made.ptr = torch.cat([ends[:1], (ends[1:] + len(self.nodes) * copy).flatten()])
        made._num_graphs = self.size * count
        return made

    def with_fields(self, changed: Mapping[str, Tensor]) -> Data:
        fresh = copy.copy(self._graphs)
        rest = set(fresh.keys()) - set(changed)
        if rest:
            fresh.apply(torch.clone, *rest)
        for name, values in changed.items():
            fresh[name] = values.reshape(self._stored[name].shape)
        for name, original in self._stored.items():
            if original.requires_grad:
                fresh[name] = marked(fresh[name], original)
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


@torch.no_grad()
def radius_graph(
    x: Tensor,
    r: float,
    batch: Tensor | None = None,
    loop: bool = False,
    max_num_neighbors: int | None = 32,
    flow: str = "source_to_target",
    num_workers: int = 1,
    batch_size: int | None = None,
) -> Tensor:
    """Edges between the points of a graph that are no farther apart than ``r``, without pyg-lib.

    The arguments and the answer are those of ``torch_geometric.nn.radius_graph``. Of more than ``max_num_neighbors``
    the nearest are kept, whichever way the graph is turned. Every pair is looked at: for graphs of up to a few thousand
    nodes.

    Args:
        x: (nodes, d) points, those of a graph together.
        r: the radius, in the unit of ``x``.
        batch: (nodes,) ascending integers, the graph of each node; one graph without it.
        loop: whether a node is a neighbour of itself.
        max_num_neighbors: of each node; None for all.
        flow: "source_to_target" or "target_to_source".
        num_workers, batch_size: nothing depends on them.

    Returns:
        (2, edges) of int64, neighbour and centre of each edge.
    """
    points, real = to_dense_batch(x, batch)
    node = real.new_zeros(real.shape, dtype=torch.int64).masked_scatter(real, torch.arange(len(x), device=x.device))
    # Differences, not torch.cdist, whose matrix products depend on how the points are turned.
    away = (points[:, :, None] - points[:, None]).norm(dim=-1)
    near = (away <= r) & real[:, :, None] & real[:, None]
    if not loop:
        near &= ~torch.eye(near.shape[-1], dtype=torch.bool, device=x.device)
    if max_num_neighbors is not None and max_num_neighbors < near.shape[-1]:
        order = away.masked_fill(~near, torch.inf).argsort(dim=-1, stable=True)
        near &= order.argsort(-1) < max_num_neighbors
    graph, centre, neighbour = near.nonzero(as_tuple=True)
    edges = torch.stack([node[graph, neighbour], node[graph, centre]])
    return edges if flow == "source_to_target" else edges.flip(0)


def without_pyg_lib() -> None:
    """Put :func:`radius_graph` in the place of PyG's own, which needs pyg-lib, in every module that has imported it.

    SchNet, ViSNet and whatever else has its neighbours from there then run without pyg-lib until Python ends. To be
    called once, after the imports.
    """
    for name, module in list(sys.modules.items()):
        held = {} if name == __name__ else dict(getattr(module, "__dict__", {}))
        for key in (k for k, v in held.items() if v is _OF_PYG):
            setattr(module, key, radius_graph)
