"""Graph batches: the figures of padded batches, one rotation a graph, PyG's slices, and refusals."""

from __future__ import annotations

import math
import sys

import pytest
import torch
import torch_geometric.typing
from torch import Tensor, nn
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.loader import DataLoader
from torch_geometric.nn import SchNet
from torch_geometric.nn.models import ViSNet

import equiscope as eq
import equiscope.adapters.pyg
from equiscope.decomposition.batches import as_batch
from equiscope.decomposition.orbit import rotated
from equiscope.errors import DeclarationError, InputError
from equiscope.symmetry.rotations import haar

SIZES = (3, 5, 4, 2, 6)


def graph(size: int, seed: int, one_edge_less: bool = False) -> Data:
    """A complete graph with periodic edge shifts, labels on nodes and on the graph."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    source, target = (~torch.eye(size, dtype=torch.bool)).nonzero().T
    edges = torch.stack([source, target])[:, int(one_edge_less) :]
    return Data(
        pos=normal(size, 3),
        z=torch.randint(1, 9, (size,), generator=g),
        edge_index=edges,
        edge_shift=normal(edges.shape[1], 3),
        cell=normal(1, 3, 3),
        forces=normal(size, 3),
        energy=normal(1),
        frame=torch.tensor([100 + seed]),
    )


class MessagePassing(nn.Module):
    """A message is a network of the edge vector's components: no symmetry at all. Sparse and padded twins."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.message = nn.Sequential(nn.Linear(5, 16), nn.SiLU(), nn.Linear(16, 8)).double()
        self.update = nn.Sequential(nn.Linear(9, 16), nn.SiLU(), nn.Linear(16, 4)).double()
        self.poses: list[Tensor] = []

    def edge(self, vector: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return self.message(torch.cat([vector, a[..., None], b[..., None]], dim=-1))

    def forward(self, data: Data) -> dict[str, Tensor]:
        self.poses.append(data.pos.clone())
        source, target = data.edge_index
        z = data.z.double() / 10
        vectors = data.pos[source] - data.pos[target] + (data.edge_shift if "edge_shift" in data else 0)
        messages = self.edge(vectors, z[source], z[target])
        inbox = torch.zeros(len(z), 8, dtype=torch.float64).index_add(0, target, messages)
        nodes = self.update(torch.cat([inbox, z[:, None]], dim=-1))
        assigned = data.batch if "batch" in data else torch.zeros_like(data.z)
        graphs = int(assigned.max()) + 1
        energy = torch.zeros(graphs, dtype=torch.float64).index_add(0, assigned, nodes[:, 3])
        return {"forces": nodes[:, :3], "energy": energy}

    def dense(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        pos, mask, z = batch["pos"], batch["mask"], batch["z"].double() / 10
        count = pos.shape[1]
        vectors = pos[:, :, None] - pos[:, None, :]  # source, target
        shape = vectors.shape[:3]
        messages = self.edge(vectors, z[:, :, None].expand(shape), z[:, None, :].expand(shape))
        real = mask[:, :, None] & mask[:, None, :] & ~torch.eye(count, dtype=torch.bool)
        inbox = torch.where(real[..., None], messages, 0.0).sum(1)
        nodes = torch.where(mask[..., None], self.update(torch.cat([inbox, z[..., None]], dim=-1)), 0.0)
        return {"forces": nodes[..., :3], "energy": nodes[..., 3].sum(1)}


class Pair(nn.Module):
    """Equivariant: each edge pushes along its vector, by a function of its length."""

    def forward(self, data: Data) -> dict[str, Tensor]:
        source, target = data.edge_index
        vectors = data.pos[source] - data.pos[target] + data.edge_shift
        push = vectors * torch.exp(-vectors.norm(dim=-1, keepdim=True))
        return {"forces": torch.zeros_like(data.pos).index_add(0, target, push)}


def molecules(*drop: str) -> list[Data]:
    graphs = [graph(n, i) for i, n in enumerate(SIZES)]
    for data in graphs:
        for name in drop:
            del data[name]
    return graphs


def padded(graphs: list[Data]) -> dict[str, Tensor]:
    count = max(SIZES)

    def pad(values: Tensor) -> Tensor:
        return torch.cat([values, values.new_zeros(count - len(values), *values.shape[1:])])

    return {
        "pos": torch.stack([pad(d.pos) for d in graphs]),
        "z": torch.stack([pad(d.z) for d in graphs]),
        "forces": torch.stack([pad(d.forces) for d in graphs]),
        "mask": torch.stack([pad(torch.ones(len(d.z), dtype=torch.bool)) for d in graphs]),
        "energy": torch.cat([d.energy for d in graphs]),
    }


OUTPUTS = {
    "forces": eq.Output("1o", target="forces"),
    "energy": eq.Output("0e", target="energy", per="sample"),
}
VECTORS = {"edge_shift": eq.Input("1o", points=False), "cell": eq.Input("1o", points=False)}
ALL = {"pos": eq.Input("1o", points=True), **VECTORS}


def same(a: eq.Result, b: eq.Result) -> None:
    assert a.percent > 1
    for name in ("percent", "percent_error", "total", "twirled", "equivariance", "r2", "relative_equivariance",
                 "loss_as_given", "mean_of_ratios_percent"):  # fmt: skip
        assert getattr(a, name) == pytest.approx(getattr(b, name), rel=1e-10), name
    assert torch.allclose(a.per_sample.equivariance, b.per_sample.equivariance, rtol=1e-10, atol=0)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize("center", ["origin", "mean"])
def test_graphs_give_the_figures_of_padded_batches(batch_size: int, center: str) -> None:
    graphs = molecules("edge_shift", "cell", "frame")
    model = MessagePassing()
    sparse = eq.measure(model, DataLoader(graphs, batch_size), inputs={"pos": "1o"}, outputs=OUTPUTS, center=center)
    dense = eq.measure(
        model,
        [padded(graphs)],
        inputs={"pos": "1o"},
        outputs=OUTPUTS,
        mask="mask",
        center=center,
        forward=lambda m, b: m.dense(b),
    )
    same(sparse, dense)
    assert sparse.orientation == pytest.approx(dense.orientation, abs=1e-10)


def test_single_graphs_outside_a_batch_give_the_same() -> None:
    graphs = molecules("frame")
    model = MessagePassing()
    one_by_one = eq.measure(model, graphs, inputs=ALL, outputs=OUTPUTS)
    together = eq.measure(model, [Batch.from_data_list(graphs)], inputs=ALL, outputs=OUTPUTS)
    same(one_by_one, together)
    scalar = molecules("frame")
    for data in scalar:
        data.energy = data.energy[0]
    same(one_by_one, eq.measure(model, scalar, inputs=ALL, outputs=OUTPUTS))


def test_every_graph_turns_by_its_own_rotation_with_its_edges_and_cell() -> None:
    graphs = molecules()
    batch = as_batch(Batch.from_data_list(graphs))
    rotations = haar(len(SIZES), torch.Generator().manual_seed(1))
    declaration = eq.Declaration(ALL, OUTPUTS)
    turned = rotated(batch, rotations, declaration).to_data_list()
    for before, after, rotation in zip(graphs, turned, rotations, strict=True):
        for name in ("pos", "edge_shift", "cell"):
            assert torch.allclose(after[name], before[name] @ rotation.T, rtol=0, atol=1e-12), name
        for name in ("forces", "energy", "z", "edge_index"):
            assert torch.equal(after[name], before[name])
        assert (after.pos - before.pos).abs().max() > 0.1


def test_cells_joined_as_rows_turn_like_cells_with_a_leading_one() -> None:
    joined = molecules()
    for data in joined:
        data.cell = data.cell[0]
    rotations = haar(len(SIZES), torch.Generator().manual_seed(1))
    declaration = eq.Declaration(ALL, OUTPUTS)
    a = rotated(as_batch(Batch.from_data_list(joined)), rotations, declaration)
    b = rotated(as_batch(Batch.from_data_list(molecules())), rotations, declaration)
    assert a.cell.shape == (3 * len(SIZES), 3)
    assert torch.allclose(a.cell, b.cell.flatten(0, 1), atol=1e-14)


def test_edge_shifts_must_turn_for_an_equivariant_model_to_pass() -> None:
    loader = DataLoader(molecules("cell", "energy", "frame"), 5)
    forces = {"forces": eq.Output("1o", target="forces")}
    good = eq.measure(Pair(), loader, inputs={"pos": eq.Input("1o", points=True), "edge_shift": "1o"}, outputs=forces)
    assert good.relative_equivariance < 1e-25
    forgotten = eq.measure(Pair(), loader, inputs={"pos": "1o"}, fixed=["edge_shift"], outputs=forces)
    assert forgotten.relative_equivariance > 0.05
    assert forgotten.held_fixed == ("edge_shift",)


def test_an_undeclared_edge_vector_is_refused() -> None:
    with pytest.raises(DeclarationError, match="edge_shift"):
        eq.measure(Pair(), DataLoader(molecules("cell", "energy"), 5), inputs={"pos": "1o"}, outputs={"forces": "1o"})


def test_the_users_batch_and_model_are_left_alone() -> None:
    batch = Batch.from_data_list(molecules("frame"))
    before = batch.clone()

    class Editing(MessagePassing):
        def forward(self, data: Data) -> dict[str, Tensor]:
            answer = super().forward(data)
            data.pos.zero_()
            data.z.zero_()
            data.edge_shift.zero_()
            return answer

    edited = eq.measure(Editing(), [batch], inputs=ALL, outputs=OUTPUTS)
    for name in set(before.keys()):
        assert torch.equal(batch[name], before[name]), name
    same(edited, eq.measure(MessagePassing(), [batch], inputs=ALL, outputs=OUTPUTS))


def test_gradient_forces() -> None:
    class Conservative(nn.Module):
        def forward(self, data: Data) -> dict[str, Tensor]:
            data.pos.requires_grad_()
            source, target = data.edge_index
            length = (data.pos[source] - data.pos[target] + data.edge_shift).norm(dim=-1)
            (slope,) = torch.autograd.grad(torch.exp(-length).sum(), data.pos)
            return {"forces": -slope}

    loader = DataLoader(molecules("cell", "energy", "frame"), 3)
    inputs = {"pos": eq.Input("1o", points=True), "edge_shift": eq.Input("1o", points=False)}
    result = eq.measure(Conservative(), loader, inputs=inputs, outputs={"forces": "1o"}, target="forces")
    assert 0 <= result.relative_equivariance < 1e-25


def test_ids_and_clusters_are_fields_of_the_graphs() -> None:
    graphs = molecules("cell")
    for data, name in zip(graphs, "aabbc", strict=True):
        data.family = name
    inputs = {"pos": eq.Input("1o", points=True), "edge_shift": eq.Input("1o", points=False)}
    result = eq.measure(
        MessagePassing(), DataLoader(graphs, 2), inputs=inputs, outputs=OUTPUTS, ids="frame", clusters="family"
    )
    assert result.per_sample.ids == [100, 101, 102, 103, 104]
    assert result.per_sample.clusters == list("aabbc")
    assert result.clusters == 3
    alone = eq.measure(MessagePassing(), graphs[3:4], inputs=inputs, outputs=OUTPUTS, ids="frame", clusters="family")
    assert alone.per_sample.equivariance[0] == pytest.approx(float(result.per_sample.equivariance[3]), rel=1e-10)


def test_masked_nodes_are_left_out() -> None:
    graphs = molecules("frame")
    marked = molecules("frame")
    for data in marked:
        data.real = torch.ones(data.num_nodes, dtype=torch.bool)
    for data in graphs:
        assert data.num_nodes == len(data.pos)
    outputs = {"forces": eq.Output("1o", target="forces")}

    def without_last(model: nn.Module, data: Data) -> dict[str, Tensor]:
        return {"forces": torch.where(data.real[:, None], model(data)["forces"], torch.nan)}

    for data in marked:
        data.real[-1] = False
        data.forces[-1] = torch.nan
    settings = {"inputs": ALL, "outputs": outputs, "mask": "real", "forward": without_last, "fixed": ["energy"]}
    masked = eq.measure(MessagePassing(), marked, **settings)
    same(masked, eq.measure(MessagePassing(), DataLoader(marked, 3), **settings))
    whole = eq.measure(MessagePassing(), graphs, inputs=ALL, outputs=outputs, fixed=["energy"])
    assert masked.percent != pytest.approx(whole.percent)


# Nodes, edges and graphs ------------------------------------------------------------------------------------------


def ambiguous() -> list[Data]:
    """Two graphs of 3 and 5 nodes with 5 and 3 edges, so that lengths alone cannot tell nodes from edges."""
    graphs = [graph(3, 0, one_edge_less=True), graph(5, 1)]
    graphs[1].edge_index = graphs[1].edge_index[:, :3]
    graphs[1].edge_shift = graphs[1].edge_shift[:3]
    return graphs


def test_slices_tell_edges_from_nodes_of_the_same_total() -> None:
    graphs = ambiguous()
    rotations = haar(2, torch.Generator().manual_seed(5))
    batch = Batch.from_data_list(graphs)
    assert len(batch.pos) == len(batch.edge_shift) == 8
    turned = rotated(as_batch(batch), rotations, eq.Declaration(ALL, OUTPUTS)).to_data_list()
    for before, after, rotation in zip(graphs, turned, rotations, strict=True):
        assert torch.allclose(after.edge_shift, before.edge_shift @ rotation.T, atol=1e-12)


def test_without_slices_the_same_total_is_refused() -> None:
    batch = Batch.from_data_list(ambiguous())
    by_hand = Data(**{k: batch[k] for k in ("pos", "z", "edge_index", "edge_shift", "batch")})
    declaration = eq.Declaration({k: ALL[k] for k in ("pos", "edge_shift")}, {"forces": "1o"})
    with pytest.raises(InputError, match=r"'(pos|edge_shift)' has 8 rows, which may be nodes or edges"):
        rotated(as_batch(by_hand), haar(2), declaration)


def test_without_slices_lengths_decide_where_they_can() -> None:
    graphs = molecules("frame")
    batch = Batch.from_data_list(graphs)
    by_hand = Data(**{k: v for k, v in batch.to_dict().items() if k != "ptr"})
    same(
        eq.measure(MessagePassing(), [by_hand], inputs=ALL, outputs=OUTPUTS),
        eq.measure(MessagePassing(), [batch], inputs=ALL, outputs=OUTPUTS),
    )


def test_a_field_resized_after_batching_no_longer_follows_its_slices() -> None:
    batch = Batch.from_data_list(molecules("frame"))
    batch.edge_shift = batch.edge_shift[:-7]
    with pytest.raises(InputError, match="edge_shift"):
        rotated(as_batch(batch), haar(5), eq.Declaration(ALL, OUTPUTS))


def test_nodes_in_mixed_order_follow_the_batch_vector() -> None:
    batch = Batch.from_data_list(molecules("edge_shift", "cell", "edge_index", "frame"))
    order = torch.randperm(len(batch.pos), generator=torch.Generator().manual_seed(0))
    mixed = Data(pos=batch.pos[order], z=batch.z[order], batch=batch.batch[order])
    rotations = haar(5, torch.Generator().manual_seed(2))
    declaration = eq.Declaration({"pos": "1o"}, {"forces": "1o"})
    turned = rotated(as_batch(mixed), rotations, declaration)
    assert torch.allclose(turned.pos, torch.einsum("nij,nj->ni", rotations[mixed.batch], mixed.pos), atol=1e-12)


# Refusals ---------------------------------------------------------------------------------------------------------


def measured(batch: Data, **changes: object) -> eq.Result:
    return eq.measure(MessagePassing(), [batch], **{"inputs": ALL, "outputs": OUTPUTS, **changes})


def plain() -> Data:
    return Batch.from_data_list(molecules("frame"))


def _no_nodes() -> Data:
    return Batch.from_data_list([Data(pos=torch.zeros(0, 3), z=torch.zeros(0, dtype=torch.int64))])


def _empty_graph() -> Data:
    empty = graph(2, 9)
    for name in ("pos", "z", "forces"):
        empty[name] = empty[name][:0]
    for name in ("edge_index", "edge_shift"):
        empty[name] = empty[name][..., :0] if name == "edge_index" else empty[name][:0]
    return Batch.from_data_list([graph(3, 1), empty, graph(4, 2)])


def _short_batch_vector() -> Data:
    batch = Batch.from_data_list(molecules("frame"))
    batch.batch = batch.batch[:-1]
    return batch


def _stress_without_leading_one() -> Data:
    graphs = molecules("frame")
    for data in graphs:
        data.stress = torch.eye(3, dtype=torch.float64)
    return Batch.from_data_list(graphs)


def _index_named() -> Data:
    graphs = molecules("frame", "edge_shift")
    for data in graphs:
        data.edge_shift_index = torch.zeros(3, 3, dtype=torch.float64)
    return Batch.from_data_list(graphs)


@pytest.mark.parametrize(
    ("batch", "changes", "message"),
    [
        (_no_nodes, {}, "without nodes"),
        (_empty_graph, {}, r"graphs \[1\] of the batch of 3 have no nodes"),
        (_short_batch_vector, {}, "batch vector has shape"),
        (_stress_without_leading_one, {"inputs": {**ALL, "stress": "stress"}}, "stress"),
        (_index_named, {"inputs": {"pos": "1o", "cell": VECTORS["cell"], "edge_shift_index": "15x0e"}}, "rename"),
        (plain, {"mask": "z"}, "mask 'z' must be boolean"),
        (plain, {"clusters": "z"}, "one value a graph"),
        (plain, {"clusters": "family"}, "family"),
        (HeteroData, {}, "several node types"),
        (plain, {"forward": lambda m, b: {**m(b), "forces": m(b)["forces"][:-1]}}, "forces"),
        (plain, {"forward": lambda m, b: {**m(b), "energy": m(b)["forces"][:, 0]}}, "energy"),
    ],
)
def test_bad_batches_get_typed_errors(batch, changes, message) -> None:
    with pytest.raises(InputError, match=message):
        measured(batch(), **changes)


def test_one_batch_instead_of_several_is_refused_with_the_remedy() -> None:
    with pytest.raises(InputError, match=r"\[batch\]"):
        eq.measure(MessagePassing(), Batch.from_data_list(molecules()), inputs=ALL, outputs=OUTPUTS)


def test_a_mask_with_too_few_predictions_is_refused() -> None:
    graphs = molecules("frame")
    for data in graphs:
        data.real = torch.ones(data.num_nodes, dtype=torch.bool)
    with pytest.raises(InputError, match="nodes first"):
        eq.measure(
            MessagePassing(),
            [Batch.from_data_list(graphs)],
            inputs=ALL,
            outputs={"forces": "1o"},
            mask="real",
            fixed=["energy", "forces"],
            forward=lambda m, b: torch.cat([m(b)["forces"]] * 2),
        )


# Atoms without neighbours, and fields that say what they are.


def isolated(size: int, seed: int) -> Data:
    data = graph(size, seed)
    data.edge_vec = data.pos[data.edge_index[0]] - data.pos[data.edge_index[1]]
    return data


class Repulsion(nn.Module):
    """Forces along the edges' vectors: exactly equivariant, zero for an atom alone."""

    def forward(self, data: Data) -> dict[str, Tensor]:
        vectors = data.edge_vec * torch.exp(-data.edge_vec.square().sum(-1, keepdim=True))
        return {"forces": torch.zeros_like(data.pos).index_add(0, data.edge_index[0], vectors)}


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("cosets", [2, 1.5])
def test_an_atom_without_neighbours_is_a_sample(size: int, cosets: float) -> None:
    graphs = [isolated(n, seed) for seed, n in enumerate([3, 1, 4, 1, 1] * 8)]
    fields = ["pos", "edge_vec", "edge_index", "forces"]
    small = [Data(**{name: data[name] for name in fields}) for data in graphs]
    inputs = {"pos": eq.Input("1o", points=True), "edge_vec": eq.Input("1o", points=False)}
    result = eq.measure(
        Repulsion(), DataLoader(small, batch_size=size), inputs=inputs, outputs={"forces": "1o"}, target="forces",
        cosets=cosets,
    )  # fmt: skip
    assert result.samples == 40
    assert result.percent < 1e-20
    # What an atom alone is answered is zero, its loss that of the label.
    alone = torch.tensor([len(data.pos) == 1 for data in small])
    labels = torch.stack([data.forces.square().mean() for data in small])
    assert result.per_sample.total[alone] == pytest.approx(labels[alone], rel=1e-12)


def test_rows_that_are_said_need_no_slices() -> None:
    """Three lattice vectors a graph and as many nodes, in graphs of other sizes, added after batching."""
    batch = Batch.from_data_list([Data(pos=graph(n, n).pos) for n in (2, 4)])
    batch.cell = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = lambda b: {"f": b.pos + b.cell.reshape(2, 3, 3).sum(1)[b.batch]}  # noqa: E731

    def measured(**per):
        inputs = {"pos": eq.Input("1o", points=True), "cell": eq.Input("1o", points=False, **per)}
        return eq.measure(model, [batch], inputs=inputs, outputs={"f": "1o"}).relative_equivariance

    with pytest.raises(InputError, match=r"6 rows, which may be nodes or lattice vectors.*per='sample'"):
        measured()
    assert measured(per="sample") < 1e-25
    assert measured(per="atom") > 0.01


def test_marked_positions_reach_the_model_as_leaves() -> None:
    graphs = [Data(pos=graph(n, n).pos.requires_grad_()) for n in (3, 4)]

    def by_backward(data: Data) -> dict[str, Tensor]:
        apart = (data.pos[:, None] - data.pos[None]).square().sum(-1)
        (torch.exp(-apart) * (data.batch[:, None] == data.batch[None])).sum().backward()
        return {"forces": -data.pos.grad}

    for batches in (DataLoader(graphs, batch_size=1), [Batch.from_data_list(graphs)]):
        result = eq.measure(by_backward, batches, inputs={"pos": "1o"}, outputs={"forces": "1o"})
        assert result.relative_equivariance < 1e-25


def pairs_by_hand(x, r, batch, loop, most):
    """Every pair looked at in turn, with the distances of Python's own numbers."""
    edges = set()
    for centre, there in enumerate(x.tolist()):
        away = [(math.dist(there, other), i) for i, other in enumerate(x.tolist()) if batch[i] == batch[centre]]
        near = sorted((d, i) for d, i in away if d <= r and (loop or i != centre))
        edges |= {(i, centre) for _, i in near[:most]}
    return edges


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("most", [None, 32, 3, 1])
def test_neighbours_without_pyg_lib_are_those_of_every_pair(loop, most):
    g = torch.Generator().manual_seed(4)
    batch = torch.tensor([0] * 7 + [1] + [2] * 12)
    x = torch.randn(20, 3, generator=g, dtype=torch.float64)
    found = equiscope.adapters.pyg.radius_graph(x, 1.6, batch, loop, most)
    assert {tuple(e) for e in found.T.tolist()} == pairs_by_hand(x, 1.6, batch.tolist(), loop, most)
    assert len(found.T) == len({tuple(e) for e in found.T.tolist()}) > 0
    other_way = equiscope.adapters.pyg.radius_graph(x, 1.6, batch, loop, most, "target_to_source", num_workers=2)
    assert torch.equal(other_way, found.flip(0))
    one = equiscope.adapters.pyg.radius_graph(x[:7], 1.6, None, loop, most)
    assert torch.equal(one, found[:, (batch[found[0]] == 0)])


@pytest.fixture
def no_pyg_lib(monkeypatch):
    """PyG as it is without pyg-lib, and its modules as they were afterwards."""
    door = equiscope.adapters.pyg
    monkeypatch.setattr(torch_geometric.typing, "WITH_RADIUS", False)
    for module in [m for m in sys.modules.values() if m is not door]:
        for name, value in list(vars(module).items()):
            if value is door.radius_graph or value is door._OF_PYG:
                monkeypatch.setattr(module, name, door._OF_PYG)


def test_networks_of_pyg_run_without_pyg_lib(no_pyg_lib):
    """SchNet is exact, and answers as it does with its edges written down; the failing call says what to call."""
    torch.manual_seed(0)
    data = [Data(pos=torch.randn(n, 3), z=torch.randint(1, 9, (n,)), y=torch.randn(1)) for n in SIZES]
    loader = DataLoader(data, batch_size=3)
    settings = {"inputs": {"pos": "1o"}, "outputs": {"energy": "0e"}, "target": "y"}
    models = [SchNet(8, 8, 1, 5), ViSNet(hidden_channels=8, num_layers=1, num_heads=2, num_rbf=4)]
    for model in models:
        with pytest.raises(eq.errors.ModelError, match=r"call equiscope\.adapters\.pyg\.without_pyg_lib\(\) once$"):
            eq.measure(model, loader, **settings)
    equiscope.adapters.pyg.without_pyg_lib()
    for model in models:
        found = eq.measure(model, loader, **settings)
        assert found.relative_equivariance < 1e-10
        assert not found.distinguishable
    batch = next(iter(loader))
    edges = torch.tensor(sorted(pairs_by_hand(batch.pos, 10.0, batch.batch.tolist(), False, None))).T
    with torch.no_grad():
        edged = lambda pos, batch: (edges, (pos[edges[0]] - pos[edges[1]]).norm(dim=-1))  # noqa: E731
        given = SchNet(8, 8, 1, 5, interaction_graph=edged)
        given.load_state_dict(models[0].state_dict())
        answer = models[0](batch.z, batch.pos, batch.batch)
        assert torch.allclose(answer, given(batch.z, batch.pos, batch.batch), rtol=1e-5, atol=1e-6)
