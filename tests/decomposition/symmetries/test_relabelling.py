"""Orders of atoms and edges: Hoeffding's variance of a permuted sum, all layouts, fields without an axis of atoms."""

import itertools

import pytest
import torch

import equiscope as eq
from equiscope.decomposition.symmetries.moves import MoveKey
from equiscope.decomposition.symmetries.relabelling import shuffled
from equiscope.errors import InputError
from tests.decomposition.models import random_batch, repeated, z_score

ENERGY = {"e": eq.Output("0e", per="sample")}
WEIGHTS = torch.tensor([0.5, -1.0, 2.0, 0.0, 1.5], dtype=torch.float64)


def sample(atoms=5):
    return {"pos": random_batch(samples=1, atoms=atoms, seed=3)["pos"][0], "z": torch.arange(atoms) ** 2}


def hoeffding(w, s):
    """Var over permutations of sum_i w_i s_pi(i) (Hoeffding, Ann. Math. Stat. 22, 1951)."""
    return float((w - w.mean()).square().sum() * (s - s.mean()).square().sum() / (len(w) - 1))


def test_random_orders_are_uniform_and_keep_padding_in_place():
    owner = torch.tensor([0, 0, 0, 0, 1, 1])
    real = torch.tensor([True, True, True, False, True, True])
    seen = {}
    for stream in range(600):
        order = tuple(shuffled(owner, real, MoveKey(0, [7, 8], stream)).tolist())
        assert order[3] == 3
        assert set(order[4:]) == {4, 5}
        seen[order[:3]] = seen.get(order[:3], 0) + 1
    assert set(seen) == set(itertools.permutations(range(3)))
    assert max(abs(n - 100) for n in seen.values()) < 4 * (600 * 5 / 36) ** 0.5


def test_a_weighted_sum_over_places():
    given = sample()
    batch = repeated(given)
    kind = given["z"].double()

    def model(b):
        return {"e": b["z"].double() @ WEIGHTS}

    result = eq.measure(model, [batch], inputs={"pos": "1o"}, outputs=ENERGY, symmetry="permutation", noise_samples=1)
    assert abs(z_score(result.per_sample.equivariance, hoeffding(WEIGHTS, kind))) < 4


def test_forces_that_know_their_place_by_brute_force():
    """All 120 orders of a model of every kind of fault."""
    given = sample()

    def model(b):
        place = torch.linspace(0.5, 1.5, b["pos"].shape[1], dtype=torch.float64)[:, None]
        return {"f": torch.tanh(place * b["pos"]) + 0.1 * b["pos"][:, :1] * b["z"][:, 1:2, None]}

    found = []
    for order in itertools.permutations(range(5)):
        order = torch.tensor(order)
        f = model({k: v[None, order] for k, v in given.items()})["f"][0]
        found.append(f[order.argsort()])
    truth = float(torch.stack(found).var(0, correction=0).mean())
    result = eq.measure(
        model, [repeated(given)], inputs={"pos": "1o"}, outputs={"f": "1o"}, symmetry="permutation", noise_samples=1
    )
    assert abs(z_score(result.per_sample.equivariance, truth)) < 4


def masked():
    real = torch.tensor([[True, True, False, True], [True, True, True, False]])
    pos = torch.where(real[..., None], random_batch(samples=2)["pos"], 0.0)
    return {"pos": pos, "mask": real, "z": torch.arange(8).reshape(2, 4), "pair": torch.cdist(pos, pos)}


def test_padding_pairs_and_numbers_of_atoms():
    batch = masked()
    batch["bonds"] = torch.tensor([[[0, 1], [3, 1]], [[2, 0], [-1, -1]]])
    declared = {"inputs": {"pos": "1o"}, "outputs": {"f": "1o", **ENERGY}, "mask": "mask", "fixed": ["pair"]}

    def model(b, faulty=""):
        both = b["mask"][:, :, None] & b["mask"][:, None]
        pair = torch.where(both, b["pair"], 0.0) * (1 + b["z"] % 2)[:, None]
        bond = b["bonds"].clamp_min(0)
        ends = [b["pos"].gather(1, bond[..., i : i + 1].expand(-1, -1, 3)) for i in (0, 1)]
        length = torch.where(b["bonds"][..., 0] >= 0, (ends[0] - ends[1]).norm(dim=-1), 0.0).sum(1)
        return {"f": pair @ b["pos"], "e": length + (b["bonds"][:, 0, 0] if faulty else 0)}

    family = eq.symmetries.Permutation(pairs=["pair"], indices=["bonds"])
    sound = eq.measure(model, [batch], symmetry=family, **declared)
    assert sound.equivariance < 1e-28
    assert not sound.distinguishable
    for forgotten in ({"pairs": ["pair"]}, {"indices": ["bonds"]}):
        partly = eq.measure(model, [batch], symmetry=eq.symmetries.Permutation(**forgotten), **declared)
        assert partly.equivariance > 1e-3
    planted = eq.measure(lambda b: model(b, "number"), [batch], symmetry=family, cosets=200, **declared)
    # Atom 0's (or 2's) number after a renumbering is uniform among the real ones: {0, 1, 3} and {0, 1, 2}.
    truth = (torch.tensor([0.0, 1, 3]).var(correction=0) + torch.tensor([0.0, 1, 2]).var(correction=0)) / 2
    assert planted.outputs["e"].equivariance == pytest.approx(float(truth), rel=0.2)


def graphs():
    pos = random_batch(samples=1, atoms=7, seed=5)["pos"][0]
    return {
        "pos": pos,
        "z": torch.arange(7),
        "batch": torch.tensor([0, 0, 0, 1, 1, 1, 1]),
        "edge_index": torch.tensor([[0, 1, 2, 3, 3, 5, 6, 4], [1, 2, 0, 4, 5, 6, 3, 3]]),
        "length": torch.rand(8, generator=torch.Generator().manual_seed(0), dtype=torch.float64),
    }


RAGGED = {"inputs": {"pos": "1o"}, "outputs": {"f": "1o", **ENERGY}, "batch": "batch", "fixed": ["length"]}


def passing(b, atom=0.0, edge=0.0):
    start, end = b["edge_index"]
    message = (b["pos"][start] - b["pos"][end]) * b["length"][:, None]
    message = message + edge * torch.arange(len(start))[:, None]
    forces = torch.zeros_like(b["pos"]).index_add(0, end, message) + atom * torch.arange(len(b["pos"]))[:, None]
    own = forces.square().sum(1) * (1 + b["z"])
    return {"f": forces, "e": torch.zeros(2, dtype=torch.float64).index_add(0, b["batch"], own)}


@pytest.mark.parametrize(("symmetry", "fault"), [("permutation", "atom"), ("edges", "edge")])
def test_graphs(symmetry, fault):
    sound = eq.measure(passing, [graphs()], symmetry=symmetry, **RAGGED)
    assert sound.outputs["f"].equivariance < 1e-28
    assert not sound.distinguishable
    planted = eq.measure(lambda b: passing(b, **{fault: 0.1}), [graphs()], symmetry=symmetry, **RAGGED)
    assert planted.outputs["f"].equivariance > 1e-4


def test_the_order_of_edges_in_closed_form():
    given = graphs()
    given = {k: v[:3] if k in ("pos", "z", "batch") else v for k, v in given.items()}
    given["edge_index"], given["length"] = given["edge_index"][:, :3], given["length"][:3] * 3
    count = 2000
    batch = {
        "pos": given["pos"].repeat(count, 1),
        "batch": torch.arange(count).repeat_interleave(3),
        "edge_index": (given["edge_index"][:, None] + 3 * torch.arange(count)[:, None]).reshape(2, -1),
        "length": given["length"].repeat(count),
    }
    weights = WEIGHTS[:3]

    def model(b):
        return {"e": b["length"].reshape(-1, 3) @ weights}

    edges = eq.symmetries.EdgeOrder(fields=["length"])
    result = eq.measure(
        model, [batch], inputs={"pos": "1o"}, outputs=ENERGY, batch="batch", fixed=["length"], symmetry=edges,
        noise_samples=1,
    )  # fmt: skip
    assert abs(z_score(result.per_sample.equivariance, hoeffding(weights, given["length"]))) < 4


def test_neighbour_lists_of_a_padded_batch():
    batch = {"pos": random_batch(samples=3)["pos"], "near": torch.randint(0, 4, (3, 4, 6))}

    def model(b, first=0.0):
        near = b["near"].flatten(1)[..., None].expand(-1, -1, 3)
        delta = b["pos"].gather(1, near).unflatten(1, (4, 6)) - b["pos"][:, :, None]
        return {"f": delta.sum(2) + first * delta[:, :, 0]}

    declared = {"inputs": {"pos": "1o"}, "outputs": {"f": "1o"}}
    family = eq.symmetries.EdgeOrder(fields=["near"], axis=2)
    assert eq.measure(model, [batch], symmetry=family, **declared).equivariance < 1e-28
    assert eq.measure(lambda b: model(b, 1.0), [batch], symmetry=family, **declared).equivariance > 0.01
    for wrong in ({}, {"fields": ["far"]}, {"fields": ["near", "pos"], "axis": 2}, {"fields": ["pos"], "axis": 3}):
        with pytest.raises(InputError, match="edges"):
            eq.measure(model, [batch], symmetry=eq.symmetries.EdgeOrder(**wrong), **declared)


def test_figures_do_not_depend_on_batches():
    batch = masked()
    declared = {"inputs": {"pos": "1o"}, "outputs": {"f": "1o"}, "mask": "mask", "fixed": ["pair"]}
    settings = {"symmetry": eq.symmetries.Permutation(pairs=["pair"]), **declared}

    def model(b):
        return {"f": b["pos"] * torch.arange(4)[:, None]}

    together = eq.measure(model, [batch], **settings)
    apart = eq.measure(model, [{k: v[i : i + 1] for k, v in batch.items()} for i in (0, 1)], **settings)
    assert torch.equal(together.per_sample.equivariance, apart.per_sample.equivariance)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fields": ["box"]}, "field 'box' .* has no axis of 4 atoms to be renumbered"),
        ({"fields": ["species"]}, "no tensor 'species'"),
        ({"pairs": ["pos"]}, r"pairs='pos' must be \(samples, atoms, atoms"),
        ({"indices": ["pos"]}, "indices='pos' must hold whole numbers"),
    ],
)
def test_fields_that_cannot_be_renumbered(settings, message):
    batch = {"pos": random_batch(samples=2)["pos"], "box": torch.ones(2, 3, dtype=torch.float64)}
    with pytest.raises(InputError, match=message):
        eq.measure(
            lambda b: {"f": b["pos"]}, [batch], inputs={"pos": "1o"}, outputs={"f": "1o"}, fixed=["box"],
            symmetry=eq.symmetries.Permutation(**settings),
        )  # fmt: skip


def test_lone_atoms_axes_that_may_be_atoms_and_positions_without_atoms():
    def measure(given, **more):
        declared = {"inputs": {"pos": eq.Input("1o", points=True)}, "outputs": {"f": "1o"}, **more}
        return eq.measure(lambda b: {"f": b["pos"]}, [given], symmetry="permutation", **declared)

    with pytest.raises(InputError, match="no sample of the batch has two atoms"):
        measure({"pos": torch.ones(2, 1, 3)})
    with pytest.raises(InputError, match=r"with 3 atoms the axis of \['box'\] may be atoms"):
        measure({"pos": random_batch(atoms=3)["pos"], "box": torch.ones(6, 3, dtype=torch.float64)}, fixed=["box"])
    ragged = graphs() | {"length": torch.ones(8, dtype=torch.float64), "odd": torch.arange(8)}
    ragged["edge_index"] = ragged["edge_index"][:, :7]
    ragged["length"] = ragged["length"][:7]
    with pytest.raises(InputError, match="may be atoms or components"):
        measure(ragged, batch="batch", fixed=["length"])
    with pytest.raises(InputError, match="lengths do not say which fields"):
        eq.measure(passing, [ragged], symmetry="edges", **RAGGED)
    with pytest.raises(InputError, match="has no edge_index"):
        eq.measure(
            lambda b: {"f": b["pos"]},
            [{"pos": ragged["pos"], "batch": ragged["batch"]}],
            inputs={"pos": "1o"},
            outputs={"f": "1o"},
            batch="batch",
            symmetry="edges",
        )


@pytest.mark.parametrize("ragged", [False, True])
def test_lists_of_atoms_are_refused(ragged):
    """They would keep their order."""
    batch = {"pos": random_batch(3, 4)["pos"], "symbols": [list("CHHO")] * 3, "name": ["a", "b", "c"]}
    more = {}
    if ragged:
        sample = torch.arange(3).repeat_interleave(4)
        batch = {"pos": batch["pos"].flatten(0, 1), "symbols": list("CHHO") * 3, "sample": sample}
        more = {"batch": "sample", "per": {"symbols": "atom"}}

    def model(b):
        heavy = torch.tensor([s != "H" for row in b["symbols"] for s in row])
        sizes = b["pos"].square().sum(-1).flatten() * heavy
        return {"e": sizes.reshape(3, 4).sum(1)}

    settings = dict(inputs={"pos": "1o"}, outputs=ENERGY, **more)
    assert eq.measure(model, [batch], **settings).relative_equivariance < 1e-25
    for symmetry in ("permutation", ("rotation", "permutation")):
        with pytest.raises(InputError, match="field 'symbols' lists one entry an atom"):
            eq.measure(model, [batch], symmetry=symmetry, **settings)


def test_lists_of_the_nodes_of_graphs_are_refused():
    pytest.importorskip("torch_geometric")
    from torch_geometric.data import Batch, Data

    import equiscope.adapters.pyg

    pos = random_batch(3, 4)["pos"]
    batch = Batch.from_data_list([Data(pos=x, symbols=list("CHHO"), label="abcd") for x in pos])
    assert isinstance(equiscope.adapters.pyg._graphs(batch).labels("symbols")[0], list)
    with pytest.raises(InputError, match="field 'symbols' lists one entry an atom"):
        eq.measure(lambda b: {"e": b.pos.reshape(3, 12).sum(1)}, [batch], inputs={"pos": "1o"}, outputs=ENERGY,
                   symmetry="permutation")  # fmt: skip
