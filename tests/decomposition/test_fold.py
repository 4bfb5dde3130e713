"""Passes that share a call: the figures of single passes, for every kind of batch, or one pass a call and a word."""

import itertools
import re
from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import equiscope as eq
from equiscope.decomposition import fold
from equiscope.decomposition.batches import DenseBatch
from equiscope.decomposition.collect import Collector, prepare
from equiscope.decomposition.computing import Computing, watched
from equiscope.decomposition.crossed import Redraw, measure_crossed
from equiscope.decomposition.fold import Folding, folded, out_of_memory
from equiscope.decomposition.orbit import twisted
from equiscope.decomposition.plan import make_plan
from equiscope.decomposition.ragged import RaggedBatch
from equiscope.errors import InputError, ModelError
from equiscope.symmetry.declaration import declare

SHORT = {"inputs": {"pos": "1o"}, "outputs": {"forces": "1o"}, "target": "forces"}
FIELDS = ("percent", "total", "twirled", "equivariance", "r2", "loss_as_given")


class Tanh(nn.Module):
    """Not equivariant; atoms of a sample see each other, samples do not. Keeps the sizes of its calls."""

    def __init__(self, mask=None):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.a = nn.Parameter(torch.randn(3, 8, generator=generator, dtype=torch.float64))
        self.b = nn.Parameter(torch.randn(8, 3, generator=generator, dtype=torch.float64))
        self.mask, self.sizes = mask, []

    def forward(self, batch):
        self.sizes.append(len(batch["pos"]))
        hidden = torch.tanh(batch["pos"] @ self.a)
        real = batch[self.mask][..., None] if self.mask else torch.ones_like(hidden[..., :1])
        return (hidden + (hidden * real).sum(1, keepdim=True) / real.sum(1, keepdim=True)) @ self.b


def dense(samples, seed=0, atoms=4):
    generator = torch.Generator().manual_seed(seed)
    pos, forces = torch.randn(2, samples, atoms, 3, generator=generator, dtype=torch.float64)
    return {"pos": pos, "forces": forces, "mask": torch.arange(atoms) < 2 + torch.arange(samples)[:, None] % 3}


def same(a, b):
    for name in FIELDS:
        assert getattr(a, name) == pytest.approx(getattr(b, name), rel=1e-12, abs=1e-14), name
    assert torch.allclose(a.per_sample.equivariance, b.per_sample.equivariance, rtol=1e-12, atol=1e-14)


# The same figures, in fewer calls.


@pytest.mark.parametrize("more", [
    {}, {"mask": "mask", "center": "mean"}, {"loss": "l2_norm", "cosets": 4}, {"rotations": "lebedev-3"},
    {"rotations": "haar", "cosets": 5, "spectrum": 1}, {"loss": lambda p, y: (p - y).abs().mean((1, 2)), "cosets": 4},
    {"group": "O3"}, {"group": "O", "rotations": "O"}, {"cosets": 1.5},
], ids=["plain", "masked", "jackknifed", "weights", "spectrum", "own loss", "improper", "whole group", "partial"])
@pytest.mark.parametrize("size", [5, 100])
def test_folded_figures_are_those_of_single_passes(more, size):
    batches = [dense(9), dense(7, 1)]
    single, folded_ = (
        eq.measure(Tanh(more.get("mask")), batches, fold=k, **SHORT, **more) for k in (1, size)
    )
    same(folded_, single)
    # Of five passes, two are answered again.
    assert folded_.model_calls < single.model_calls / (1.25 if more.get("cosets") == 5 else 2)
    assert folded_.notes == single.notes
    assert folded_.noise_floor == pytest.approx(single.noise_floor, rel=0.3, abs=0)


def ragged(samples=3, seed=0):
    """Atoms one after another, in no order of samples, with pairs within each."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.arange(samples).repeat_interleave(3)[torch.randperm(3 * samples, generator=generator)]
    pairs = [(i, j) for i, j in itertools.permutations(range(len(index)), 2) if index[i] == index[j]]
    pos, forces = torch.randn(2, 3 * samples, 3, generator=generator, dtype=torch.float64)
    energy = torch.randn(samples, 1, generator=generator, dtype=torch.float64)
    return {"pos": pos, "forces": forces, "batch": index, "edge_index": torch.tensor(pairs).T, "energy": energy}


def edges(batch):
    """Forces along the edges, and an energy a sample."""
    src, dst = batch["edge_index"]
    pull = torch.tanh((batch["pos"][src] - batch["pos"][dst]) * torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64))
    forces = torch.zeros_like(batch["pos"]).index_add(0, dst, pull)
    energy = torch.zeros(int(batch["batch"].max()) + 1, 1, dtype=torch.float64)
    energy = energy.index_add(0, batch["batch"], forces[:, :1])
    return {"forces": forces, "energy": energy}


RAGGED = {"inputs": {"pos": eq.Input("1o", points=True)}, "batch": "batch", "outputs": {
    "forces": eq.Output("1o", target="forces"), "energy": eq.Output("0e", target="energy", per="sample")}}  # fmt: skip


def test_atoms_one_after_another_with_their_edges():
    single, folded_ = (eq.measure(edges, [ragged(6)], fold=k, **RAGGED) for k in (1, 7))
    same(folded_, single)
    assert folded_.model_calls < single.model_calls / 2
    assert not any("a call" in note for note in folded_.notes)


def ranks(owner):
    """The place of each entry among those of its owner."""
    same = owner[:, None] == owner
    return torch.tril(same, -1).sum(1).double()


def ordered(b):
    """Forces in which atoms and edges count by their places in the batch: no symmetry is perfect, samples are apart."""
    src, dst = b["edge_index"]
    pull = torch.tanh(b["pos"][src] - b["pos"][dst]) * (1 + 0.1 * ranks(b["batch"][src]))[:, None]
    forces = torch.zeros_like(b["pos"]).index_add(0, dst, pull)
    forces = forces * (1 + 0.1 * ranks(b["batch"]) + b["z"])[:, None]
    return {"forces": forces + 0.05 * b["pos"].square(), "energy": edges(b)["energy"]}


MOVES = ["translation=2", "parity", "mirror", "permutation", "edges", ("rotation", "parity", "permutation")]


@pytest.mark.parametrize("symmetry", MOVES, ids=str)
def test_moves_of_other_symmetries_share_calls(symmetry):
    """Atoms of the samples in no order, so that edges are renumbered and numbers of atoms go on from copy to copy."""
    batch, sizes = {**ragged(6), "z": torch.arange(18.0).double()}, []

    def model(b):
        sizes.append(len(b["z"]) // 18)
        return ordered(b)

    settings = {"fixed": ["z"], "per": {"z": "atom"}, "symmetry": symmetry, "noise_samples": 1, **RAGGED}
    single = eq.measure(model, [batch], fold=1, **settings)
    sizes.clear()
    folded_ = eq.measure(model, [batch], fold=7, **settings)
    same(folded_, single)
    assert single.equivariance > 1e-6
    # As given, twice; two that a shared call is compared with; perhaps a single one that is left over.
    assert sizes.count(1) <= 5
    assert sizes.count(0) + sizes.count(1) < len(sizes)
    assert not any("a call" in note for note in folded_.notes)


@pytest.mark.parametrize("symmetry", ["translation=2", "permutation", "mirror", ("rotation", "permutation")], ids=str)
def test_moves_of_padded_samples_share_calls(symmetry):
    single, folded_ = (
        eq.measure(Tanh("mask"), [dense(9), dense(7, 1)], fold=k, mask="mask", symmetry=symmetry, **SHORT)
        for k in (1, 5)
    )
    same(folded_, single)
    # Four passes of mirrors a batch are one call, which is compared with two of them.
    assert folded_.model_calls < 0.6 * single.model_calls


def test_copies_of_every_kind_are_whole_batches_one_after_another():
    batch = {**ragged(2), "ptr": torch.tensor([0, 3, 6]), "name": ["a", "b"], "cut": 5.0}
    made = RaggedBatch(batch, declare(**{k: v for k, v in RAGGED.items()})).copies(3)
    assert made["batch"].tolist() == [i + 2 * k for k in range(3) for i in batch["batch"].tolist()]
    assert made["ptr"].tolist() == [0, 3, 6, 9, 12, 15, 18]
    assert torch.equal(made["edge_index"][:, 12:24], batch["edge_index"] + 6)
    assert (made["name"], made["cut"], made["pos"].shape) == (["a", "b"] * 3, 5.0, (18, 3))
    pos = torch.arange(6.0).reshape(2, 1, 3).requires_grad_()
    twice = DenseBatch({"pos": pos, "name": ("a", "b"), "t": torch.tensor(1.0)}).copies(2)
    assert torch.equal(twice["pos"], torch.cat([pos, pos]))
    assert (twice["pos"].requires_grad, twice["pos"].is_leaf, twice["name"]) == (True, True, ("a", "b", "a", "b"))


def test_graphs_of_pyg():
    pytest.importorskip("torch_geometric")
    from torch_geometric.data import Batch, Data

    import equiscope.adapters.pyg  # noqa: F401

    whole, graphs = ragged(5), []
    for i in range(5):
        own = whole["batch"] == i
        pairs = torch.tensor([p for p in itertools.permutations(range(3), 2)]).T
        graphs.append(Data(pos=whole["pos"][own], forces=whole["forces"][own], edge_index=pairs, name=str(i),
                           energy=whole["energy"][i : i + 1]))  # fmt: skip
    batch = Batch.from_data_list(graphs)
    plan = {k: v for k, v in RAGGED.items() if k != "batch"}
    single, folded_ = (eq.measure(lambda b: edges(b.to_dict()), [batch], fold=k, **plan) for k in (1, 5))
    same(folded_, single)
    assert folded_.model_calls < single.model_calls / 2
    moved, together = (
        eq.measure(lambda b: edges(b.to_dict()), [batch], fold=k, symmetry="permutation", **plan) for k in (1, 5)
    )
    same(together, moved)
    assert together.model_calls < moved.model_calls / 1.5
    copies = eq.adapters.pyg.GraphBatch(batch).copies(4)
    by_hand = Batch.from_data_list(graphs * 4)
    assert (copies.num_graphs, copies.name) == (20, by_hand.name)
    for name in ("pos", "edge_index", "batch", "ptr", "energy"):
        assert torch.equal(copies[name], by_hand[name]), name
        if name in by_hand._slice_dict:
            assert torch.equal(copies._slice_dict[name], torch.as_tensor(by_hand._slice_dict[name])), name


@pytest.mark.parametrize("samples", [1, 3, 4, 9])
def test_on_a_cpu_only_batches_under_four_are_folded(samples):
    model = Tanh()
    single, automatic = (eq.measure(model, [dense(samples)], fold=k, **SHORT) for k in (1, "auto"))
    same(automatic, single)
    assert (automatic.model_calls < single.model_calls) is (samples < 4)
    # 24 passes in calls of even size, of up to 16 samples; three copies in the check.
    assert max(model.sizes) == {1: 12, 3: 15, 4: 4, 9: 9}[samples]


def test_crossed_designs_the_metric_and_a_comparison_fold_too(monkeypatch):
    batches = [{**dense(3, i), "noise": torch.zeros(3, 4, 3, dtype=torch.float64)} for i in range(2)]
    declaration = declare(**SHORT, fixed=["noise"])
    redraw = Redraw("noise", lambda f, n: torch.full_like(f["noise"], 0.1 * n))

    def noisy(batch):
        return Tanh()({"pos": batch["pos"] + batch["noise"]})

    def figures():
        metric = eq.EquivarianceError(**SHORT)
        for batch in batches:
            metric.update(Tanh(), {k: v for k, v in batch.items() if k != "noise"})
        return measure_crossed(noisy, batches, declaration, redraw), metric.result()

    automatic = figures()
    monkeypatch.setattr(fold, "FEW", 0)
    for ours, single in zip(automatic, figures(), strict=True):
        same(ours, single)
        assert ours.model_calls < 0.7 * single.model_calls
    assert automatic[0].variance_parts == pytest.approx(figures()[0].variance_parts, rel=1e-11)
    found = eq.compare(Tanh(), Tanh(), batches, fold=4, **SHORT, fixed=["noise"])
    assert found.difference == 0
    assert found.a.model_calls < 80


# Models that are measured one pass a call.


class Statistics(Tanh):
    """BatchNorm with the statistics of its batch."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3, track_running_stats=False, dtype=torch.float64)

    def forward(self, batch):
        return super().forward({**batch, "pos": self.norm(batch["pos"].mT).mT})


class Mean(Tanh):
    """A little of the mean answer of the batch, a millionth of it."""

    def forward(self, batch):
        answer = super().forward(batch)
        return answer + 1e-6 * answer.mean(0, keepdim=True)


class Drawn(Tanh):
    """Noise from a generator of its own: the same in every call, and another for every sample."""

    def forward(self, batch):
        noise = torch.randn(batch["pos"].shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        return super().forward({**batch, "pos": batch["pos"] + 0.1 * noise})


class Insists(Tanh):
    """Of a fixed batch size."""

    def forward(self, batch):
        if len(batch["pos"]) != 9:
            raise ValueError("nine samples, please")
        return super().forward(batch)


@pytest.mark.parametrize(("model", "word"), [
    (Statistics, "samples see each other"), (Mean, "samples see each other"), (Drawn, "samples see each other"),
    (Insists, "does not take several copies of a batch side by side .*nine samples, please"),
])  # fmt: skip
def test_models_whose_samples_are_not_independent_are_measured_one_pass_a_call(model, word):
    batches = [dense(9), dense(9, 1)]
    single, asked = (eq.measure(model(), batches, fold=k, **SHORT) for k in (1, 6))
    same(asked, single)
    assert single.model_calls <= asked.model_calls <= single.model_calls + 2
    notes = [n for n in asked.notes if n.startswith("one rotation a call")]
    assert len(notes) == 1
    assert re.search(word, notes[0])
    assert not any(n.startswith("one rotation a call") for n in single.notes)


class ByTheLargest(Tanh):
    """Scaled by the largest number of the batch, which the copy in the check may or may not have."""

    def forward(self, batch):
        return super().forward({"pos": batch["pos"] / batch["pos"][..., 0].abs().max()})


class Cached(Tanh):
    """Keeps what it found for batches of a shape."""

    def forward(self, batch):
        known = self.__dict__.setdefault("known", {})
        centre = known.setdefault(batch["pos"].shape, batch["pos"].mean(1, keepdim=True))
        return super().forward({"pos": batch["pos"] - centre})


class Large(Tanh):
    """Another way for large batches."""

    def forward(self, batch):
        return super().forward(batch) + 1e-3 * (len(batch["pos"]) > 9)


class Placed(Tanh):
    """The place in the batch counts from the tenth on."""

    def forward(self, batch):
        return super().forward(batch) + 0.1 * (torch.arange(len(batch["pos"])) > 9)[:, None, None]


class Capacity(Tanh):
    """Room for so many atoms a call; of others it knows nothing."""

    def forward(self, batch):
        answer = super().forward(batch).flatten(0, 1)
        return (answer * (torch.arange(len(answer)) < 100)[:, None]).reshape(batch["pos"].shape)


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("model", [ByTheLargest, Cached, Large, Placed])
def test_what_only_calls_of_the_real_size_show_is_found_out(model, samples):
    batches = [dense(samples, seed) for seed in range(3)]
    single, asked = (eq.measure(model(), batches, fold=k, **SHORT) for k in (1, 12))
    same(asked, single)
    assert any(n.startswith("one rotation a call") for n in asked.notes)


def test_an_index_that_is_not_moved_on_is_found_out():
    """A field of its own that holds the places of neighbours: copies would read those of the first."""
    batch = ragged(4)
    batch["neighbours"] = batch["edge_index"].flatten()
    declared = {**RAGGED, "outputs": {"forces": RAGGED["outputs"]["forces"]}, "fixed": ["energy"]}

    def model(batch):
        pairs = batch["neighbours"].reshape(-1, *batch["edge_index"].shape)[0]
        return edges({**batch, "edge_index": pairs})["forces"]

    single, asked = (eq.measure(model, [batch], fold=k, **declared) for k in (1, 4))
    same(asked, single)
    assert any(n.startswith("one rotation a call") for n in asked.notes)


def test_a_bad_number_of_rotations_a_call():
    for bad in (0, -1, 2.0, True, "all"):
        with pytest.raises(InputError, match="fold must be"):
            eq.measure(Tanh(), [dense(2)], fold=bad, **SHORT)


# Memory.


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(),
                                   RuntimeError("DefaultCPUAllocator: can't allocate memory: 1 TB")])  # fmt: skip
def test_out_of_memory_halves_the_passes_of_a_call(error):
    class Small(Tanh):
        def forward(self, batch):
            if len(batch["pos"]) > 20:
                self.sizes.append(-len(batch["pos"]))
                raise error
            return super().forward(batch)

    model = Small()
    single, asked = (eq.measure(model, [dense(5)] * 2, fold=k, **SHORT) for k in (1, 12))
    same(asked, single)
    # Twelve, then six passes are too many, three are not, in the second batch either.
    assert [-s for s in model.sizes if s < 0] == [60, 30]
    assert max(model.sizes) == 20 or max(model.sizes) == 15
    assert not any("a call" in note for note in asked.notes)


def test_a_single_pass_that_has_no_memory_is_an_error_as_ever():
    def model(batch):
        if not torch.equal(batch["pos"][:5], dense(5)["pos"]):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return batch["pos"]

    with pytest.raises(ModelError, match="out of memory"):
        eq.measure(model, [dense(5)], fold=4, **SHORT)
    assert not out_of_memory(RuntimeError("expected a tensor in channels-last memory format"))


def test_the_passes_of_a_call_by_operations_and_memory(monkeypatch):
    batch, declaration = DenseBatch(dense(8)), declare(**SHORT)
    monkeypatch.setattr(fold, "device_of_batch", lambda batch: torch.device("cuda"))
    monkeypatch.setattr(fold, "free_memory", lambda device: 64e6)
    folding = Folding()
    # 100 operations that write 1.6 MB together: ten passes to 16 MB an operation would be 1000; memory allows 16.
    folding.watch(Computing(operations=100, written=1_600_000, held=1_000_000), batch, declaration)
    assert folding.wanted(batch, declaration) == 16
    assert folding.size(batch, declaration) == 1
    folding.sound = True
    assert folding.size(batch, declaration) == 16
    # Twice the atoms hold twice as much.
    assert folding.size(DenseBatch(dense(16)), declaration) == 8
    folding.watch(Computing(operations=10, written=40_000_000, held=1000), batch, declaration)
    assert folding.size(batch, declaration) == 4
    folding.most = 17
    assert folding.size(batch, declaration) == 2
    folding.seen, folding.most = Computing(), None
    assert folding.size(batch, declaration) == fold.BLIND // 8


def test_what_a_call_wrote_and_held():
    x = torch.ones(1000, dtype=torch.float64)

    def call():
        for _ in range(5):
            y = x + 1
        return y.square_()

    _, seen = watched(call)
    # One value at a time, and for a moment the next beside it.
    assert (seen.operations, seen.written) == (6, 6 * 8000)
    assert seen.held == 2 * 8000


def live(passes, samples=6, fold=8):
    """The most bytes that tensors hold at once while so many passes are measured, folded by eight."""
    batch, plan = dense(samples, atoms=50), make_plan(declare(**SHORT), rotations="haar", cosets=passes, fold=fold)

    def run():
        found = Collector(Tanh(), plan, 1)
        found.run(batch)
        return found.samples()

    return watched(run)[1].held


def test_memory_is_flat_in_the_number_of_passes():
    assert live(240) < 1.05 * live(24)
    # Eight passes are one call, after which nothing is added up yet.
    assert live(240) < 1.2 * live(8)
    # Batches under four, which the processor folds by itself.
    assert live(240, 1, "auto") < 1.05 * live(48, 1, "auto")
    assert live(240, 3, "auto") < 1.05 * live(24, 3, "auto")


def test_calls_are_of_even_size_and_in_the_order_of_the_walk():
    plan = make_plan(declare(**SHORT), cosets=2)
    of, model = prepare(dense(5), plan), Tanh()
    walk = list(plan.walk(of.ids, torch.device("cpu")))
    found = list(folded(model, of.batch, walk, 24, plan.declaration, lambda m, b: m(b), Folding(asked=10, sound=True)))
    assert [len(some) for some, _ in found] == [8, 8, 8]
    assert [id(one) for some, _ in found for one in some] == [id(one) for one in walk]
    for some, rows in found:
        for one, block in zip(some, rows["forces"].chunk(len(some)), strict=True):
            alone = twisted(model, of.batch, one.turns, plan.declaration)["forces"]
            assert torch.allclose(block, alone, rtol=1e-13, atol=1e-14)


# Nothing waits for the device.


class Waits(TorchDispatchMode):
    """Counts what makes the host wait for a GPU: numbers read, and shapes that depend on values."""

    NAMES = ("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2", "unique_dim")

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.partition("::")[2]
        masks = name in ("index", "index_put_", "index_put") and any(
            i is not None and i.dtype == torch.bool for i in args[1]
        )
        if name in self.NAMES or masks:
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("size", [1, 6])
@pytest.mark.parametrize("more", [{"mask": "mask", "center": "mean"}, {"group": "O3"}, {"loss": "l2_norm"}],
                         ids=["masked", "improper", "jackknifed"])  # fmt: skip
def test_no_pass_waits_for_the_device(size, more):
    counts = []
    for cosets in (4, 8):
        with Waits() as waits:
            eq.measure(Tanh(more.get("mask")), [dense(6)], fold=size, cosets=cosets, **SHORT, **more)
        counts.append(waits.seen)
    assert counts[0] == counts[1]
    # Of a batch and of the measurement: checks of the input, the floor, what is finite.
    assert sum(counts[0].values()) < 60

def test_larger_samples_in_as_many_copies_are_looked_at_anew():
    pos = [torch.randn(1, atoms, 3, dtype=torch.float64) for atoms in (4, 4, 40, 40)]
    batches = [{"pos": x, "forces": x} for x in pos]
    single, asked = (eq.measure(Capacity(), batches, fold=k, **SHORT) for k in (1, 12))
    same(asked, single)
    assert any(n.startswith("one rotation a call") for n in asked.notes)
