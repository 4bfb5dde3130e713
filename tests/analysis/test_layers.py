"""Layers by Wigner degree: closed forms, quadrature with Wigner matrices, real networks, layouts, bad layers."""

import pytest
import torch
from torch import nn

from equiscope import Declaration, Input, Output
from equiscope.analysis.layers import layers
from equiscope.errors import InputError, ModelError, NonFiniteError
from equiscope.symmetry.actions import wigner_d
from equiscope.symmetry.rotations import lebedev
from equiscope.tasks.forcefield import models
from equiscope.tasks.forcefield.task import FORCES

from ..tasks.forcefield.molecules import random_batch as molecules
from . import pooled

VECTORS = Declaration(
    inputs={"x": Input("1o", points=False)}, outputs={"y": Output("1o", per="sample")}, clusters="id", ids="id"
)


def vectors(count=200, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator, dtype=torch.float64), dim=-1)
    return {"x": x * (1 + torch.rand(count, 1, generator=generator, dtype=torch.float64)), "id": torch.arange(count)}


class Known(nn.Module):
    """Features of known content: c r + 7 (degree 0), b . u (degree 1), u S u (degree 2), and their sum."""

    def __init__(self):
        super().__init__()
        self.parts, self.sum = nn.Identity(), nn.Identity()
        raw = torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        self.b, matrix = raw[0], raw + raw.T
        self.s = matrix - matrix.trace() / 3 * torch.eye(3, dtype=torch.float64)

    def forward(self, batch):
        x = batch["x"]
        r = x.norm(dim=-1, keepdim=True)
        u = x / r
        zero, one = 2 * r + 7, (u @ self.b)[:, None]
        two = torch.einsum("ni,ij,nj->n", u, self.s, u)[:, None]
        self.parts(torch.stack([zero, one, two], dim=1))
        self.sum(zero + one + two)
        return {"y": x * r}


def test_known_content_of_degrees_zero_one_two():
    model, batch = Known(), vectors(80)
    found = layers(model, [batch], VECTORS, names=["sum", "answer"])
    by_name = {layer["name"]: layer for layer in found["layers"]}
    assert list(by_name) == ["sum", "answer[y]"]
    radius = batch["x"].norm(dim=-1)
    powers = [4 * float(radius.var(correction=0)), float(model.b.square().sum()) / 3,
              2 * float(model.s.square().sum()) / 15]  # fmt: skip
    for share, error, power in zip(by_name["sum"]["share"][:3], by_name["sum"]["error"][:3], powers, strict=True):
        assert abs(share - power / sum(powers)) < 4 * error + 1e-9
        assert error < 0.08
    assert by_name["sum"]["degrees"] == [0, 1, 2, 3]
    assert by_name["sum"]["variance"] == pytest.approx(sum(powers), rel=0.1)
    assert sum(by_name["sum"]["share"]) + by_name["sum"]["remainder"] == pytest.approx(1, abs=1e-12)
    # The model's answer turns like a vector: all of it lies at degree 1, to rounding.
    answer = by_name["answer[y]"]
    for share, error, truth in zip(answer["share"], answer["error"], (0, 1, 0, 0), strict=True):
        assert abs(share - truth) < 4 * error + 1e-12
    assert layers(model, [vectors(2)], VECTORS, names=["parts"])["layers"][0]["rows"] == 3


class Lengths(nn.Module):
    """|x| of every real atom, in a layer of its own."""

    def __init__(self):
        super().__init__()
        self.lengths = nn.Identity()

    def forward(self, batch):
        self.lengths(batch["pos"].norm(dim=-1, keepdim=True))
        return {"forces": batch["pos"]}


@pytest.mark.parametrize("weighting", ["sample", "component"])
def test_samples_weigh_alike_or_by_their_rows(weighting):
    """V_0 of an invariant h: the mean of h^2 less the squared mean of h, over samples' means or over all rows."""
    batch = pooled.molecules()
    found = layers(Lengths(), [batch], pooled.declared(weighting, both=False), names=["lengths"], rows=6)["layers"][0]
    lengths = [x[m].norm(dim=-1) for x, m in zip(batch["pos"], batch["mask"], strict=True)]
    # At most six rows of a sample are kept, evenly spread; it weighs by all it has.
    kept = [h[torch.arange(6) * len(h) // 6] if len(h) > 6 else h for h in lengths]
    weights = torch.tensor([1.0 if weighting == "sample" else len(h) for h in lengths]).double()
    weights /= weights.sum()
    square, mean = (torch.stack([f(h) for h in kept]) @ weights for f in (lambda h: h.square().mean(), torch.mean))
    assert found["variance"] == pytest.approx(float(square - mean**2), rel=1e-10)
    assert found["share"][0] == pytest.approx(1, rel=1e-10)


class Tanh(nn.Module):
    def __init__(self, scale=2.0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4)
            self.hidden = nn.Sequential(nn.Linear(3, 6), nn.Tanh()).double()
            self.last = nn.Linear(6, 3).double()
        self.hidden[0].weight.data.mul_(scale)

    def forward(self, batch):
        return {"y": self.last(self.hidden(batch["x"]))}


def test_a_nonlinear_layer_against_quadrature_with_wigner_matrices():
    model, batch = Tanh(), vectors(40)
    grid = lebedev(9)
    turned = torch.einsum("kij,nj->kni", grid.matrices, batch["x"])
    with torch.no_grad():
        values = model.hidden(turned)
    weights = grid.weights[:, None, None]
    orbit_mean = (weights * values).sum(0)
    truth = [float((orbit_mean - orbit_mean.mean(0)).square().mean())]
    for degree in (1, 2, 3):
        matrices = wigner_d(degree, grid.matrices)
        parts = torch.einsum("k,kab,knf->nfab", grid.weights, matrices, values)
        truth.append(float((2 * degree + 1) * parts.square().sum((-1, -2)).mean()))
    whole = truth[0] + float(((weights * values.square()).sum(0) - orbit_mean.square()).mean())
    for rotations, cosets, degrees in (("O", 2, None), ("haar", 24, 3)):
        found = layers(model, [batch], VECTORS, names=["hidden"], rotations=rotations, cosets=cosets, degrees=degrees)
        layer = found["layers"][0]
        for share, error, power in zip(layer["share"], layer["error"], truth, strict=True):
            assert abs(share - power / whole) < 4 * error + 0.01
    assert layer["variance"] == pytest.approx(whole, rel=0.1)


def test_errors_are_those_of_repeats():
    """Over independent samples the estimates scatter as their standard errors say: z-scores of unit size."""
    model = Tanh()
    runs = [layers(model, [vectors(12, s)], VECTORS, names=["hidden"], rotations="T", seed=s) for s in range(24)]
    shares = torch.tensor([run["layers"][0]["share"] for run in runs])
    errors = torch.tensor([run["layers"][0]["error"] for run in runs])
    z = (shares - shares.mean(0)) / errors
    assert ((z.square().mean(0) > 0.5) & (z.square().mean(0) < 2.2)).all()


def float64(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return models.build(name, size="nano").double()


def molecular_batch():
    batch = molecules([5, 8, 7, 6], seed=3)
    sizes = len(batch["mask"])
    return {**batch, "forces": torch.zeros_like(batch["pos"]), "energy": torch.zeros(sizes, dtype=torch.float64),
            "molecule": torch.arange(sizes), "id": torch.arange(sizes)}  # fmt: skip


def test_an_invariant_backbone_stays_at_degree_zero_until_its_head():
    batch = molecular_batch()
    found = layers(float64("escaip"), [batch], FORCES, rotations="T")
    by_name = {layer["name"]: layer for layer in found["layers"]}
    for name in ("layers.0[0]", "layers.1[1]", "force_head", "answer[energy]"):
        assert by_name[name]["share"][0] == pytest.approx(1, abs=1e-10)
    assert abs(by_name["answer[forces]"]["share"][0]) < 0.2
    tied = layers(float64("escaip_tied"), [batch], FORCES, names=["answer"], rotations="T")["layers"][-1]
    assert tied["name"] == "answer[forces]"
    assert abs(tied["share"][1] - 1) < 1e-10 + 4 * tied["error"][1]


def test_raw_directions_bring_degree_one_and_batches_change_nothing():
    batch = molecular_batch()
    model = float64("edge_transformer")
    whole = layers(model, [batch], FORCES, names=["layers.0", "layers.*.mlp"], rotations="T")
    singles = [{k: v[i : i + 1] for k, v in batch.items()} for i in range(len(batch["mask"]))]
    apart = layers(model, singles, FORCES, names=["layers.0", "layers.*.mlp"], rotations="T")
    assert [layer["name"] for layer in whole["layers"]] == ["layers.0.mlp", "layers.0", "layers.1.mlp", "layers.2.mlp"]
    for mine, theirs in zip(whole["layers"], apart["layers"], strict=True):
        assert mine["share"] == pytest.approx(theirs["share"], abs=1e-9)
    assert whole["layers"][1]["share"][1] > 0.01


def test_padding_makes_no_rows():
    class PerAtom(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Identity()

        def forward(self, batch):
            return {"f": self.features(torch.cat([batch["x"], batch["x"].square()], -1))[..., :3]}

    mask = torch.tensor([[True, True, False, False], [True, True, True, True]])
    x = torch.randn(2, 4, 3, dtype=torch.float64) * mask[..., None]
    batch = {"x": x, "mask": mask, "f": x}
    declared = Declaration({"x": "1o"}, {"f": Output("1o", target="f")}, mask="mask")
    (found,) = layers(PerAtom(), [batch], declared, names=["features"], rotations="T")["layers"]
    assert found["rows"] == 3


class Odd(nn.Module):
    """Layers that hold no features."""

    def __init__(self):
        super().__init__()
        self.idle, self.pairs, self.constant, self.bad = (nn.Identity() for _ in range(4))

    def forward(self, batch):
        count = int(batch["n"][0])
        self.pairs(batch["x"].new_zeros(1, count, count))
        self.constant(torch.full((1, 2), 3.3, dtype=torch.float64) * (1 + 0 * batch["x"].sum()))
        self.bad(torch.full((1, 2), torch.nan))
        return {"y": batch["x"]}


def test_layers_that_cannot_be_taken_apart():
    batch = {**vectors(4), "n": torch.tensor([2, 3, 3, 2])}
    with pytest.raises(NonFiniteError, match="layer 'bad' answers NaN"):
        layers(Odd(), [batch], VECTORS)
    with pytest.raises(InputError, match="layer 'idle' cannot be taken apart by degree: it does not run"):
        layers(Odd(), [batch], VECTORS, names=["idle"])
    with pytest.raises(InputError, match=r"layer 'pairs' .* 2 and 3 entries in two samples"):
        layers(Odd(), [batch], VECTORS, names=["pairs"])
    constant = layers(Odd(), [batch], VECTORS, names=["constant"])["layers"][0]
    assert constant["share"] is None
    model = Odd()
    model.bad = nn.Identity()
    model.bad.forward = lambda value: torch.zeros(1, 1)
    skipped = layers(model, [batch], VECTORS)
    assert set(skipped["skipped"]) == {"idle", "pairs"}
    assert "answer[y]" in [layer["name"] for layer in skipped["layers"]]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cosets": 1}, "at least 2"),
        ({"rows": 0}, "rows must be"),
        ({"degrees": 9}, "three"),
        ({"names": ["nothing"]}, "no layer of Tanh"),
    ],
)
def test_bad_arguments(settings, words):
    with pytest.raises(InputError, match=words):
        layers(Tanh(), [vectors(2)], VECTORS, **settings)


def test_no_module_and_no_batches():
    with pytest.raises(InputError, match=r"torch\.nn\.Module"):
        layers(lambda batch: batch, [vectors(2)], VECTORS)
    with pytest.raises(InputError, match="empty"):
        layers(Tanh(), iter([]), VECTORS)


# What is cut with the padding is what has rows for atoms.


class Watched(nn.Module):
    """f = x + v + the sum over rows of a cell + a box, and the shapes that it was called with."""

    def __init__(self, masked=True):
        super().__init__()
        self.features, self.masked, self.seen = nn.Identity(), masked, {}

    def forward(self, batch):
        for name in ("v", "cell", "box", "z"):
            if name in batch:
                self.seen.setdefault(name, []).append(tuple(batch[name].shape[1:]))
        answer = batch["x"] * (1 if self.masked else batch["mask"].shape[1])
        if "v" in batch:
            answer = answer + batch["v"]
        if "cell" in batch:
            answer = answer + batch["cell"].sum(1, keepdim=True)
        if "box" in batch:
            answer = answer * batch["box"][:, None] + batch["z"][..., None]
        return {"f": self.features(answer)}


def water(atoms, samples=6, real=2):
    x, v = torch.randn(2, samples, atoms, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cell = torch.randn(samples, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mask = torch.arange(atoms).expand(samples, -1) < real
    return {"x": x, "v": v, "cell": cell, "mask": mask, "f": x, "box": cell[:, 0], "z": mask.long()}


def declared(*fields, cell=None, per=None):
    inputs = {"x": Input("1o", points=True), "v": Input("1o", points=False), "cell": Input("1o", False, cell)}
    rest = [name for name in ("box",) if name in fields]
    kept = {name: spec for name, spec in inputs.items() if name in fields}
    return Declaration(kept, {"f": Output("1o", target="f")}, mask="mask", fixed=rest, per=per or {})


def figures(model, fields, atoms, **settings):
    batch = {name: value for name, value in water(atoms).items() if name in (*fields, "mask", "f")}
    found = layers(model, [batch], declared(*fields, **settings), names=["features"], rotations="T")["layers"][0]
    return found["rows"], found["variance"]


@pytest.mark.parametrize(
    ("fields", "settings"),
    [
        (("x", "cell"), {}),
        (("x", "cell"), {"cell": "sample"}),
        (("x", "v", "cell"), {}),
        (("x", "box", "z"), {}),
        (("x", "box", "z"), {"per": {"box": "sample", "z": "atom"}}),
    ],
)
def test_as_many_atoms_as_components_changes_nothing(fields, settings):
    """Three places for atoms beside cells (3, 3) and boxes (3,): the same atoms as in four or five places."""
    model, of_atoms = Watched(), ("x", "v", "mask", "f", "z")
    # Only the padding differs: the same numbers for the real atoms.
    batch = {name: value for name, value in water(5).items() if name in (*fields, "mask", "f")}
    declaration = declared(*fields, **settings)
    found = []
    for atoms in (3, 4, 5):
        cut = {name: value[:, :atoms] if name in of_atoms else value for name, value in batch.items()}
        found.append(layers(model, [cut], declaration, names=["features"], rotations="T")["layers"][0])
        # Readings that were tried and rejected aside.
        assert {model.seen["cell"][-1]} == {(3, 3)} if "cell" in fields else model.seen["box"][-1] == (3,)
    assert [one["rows"] for one in found] == [2, 2, 2]
    assert found[0]["variance"] == pytest.approx(found[2]["variance"], rel=1e-12)
    assert found[1]["variance"] == pytest.approx(found[2]["variance"], rel=1e-12)
    if fields == ("x", "cell") or settings:
        assert {*model.seen.get("cell", []), *model.seen.get("box", [])} <= {(3, 3), (3,)}


def test_a_cell_said_to_be_of_atoms_is_cut_as_they_are():
    model = Watched()
    rows, _ = figures(model, ("x", "cell"), 3, cell="atom")
    assert rows == 2
    assert set(model.seen["cell"]) == {(2, 3)}


def test_a_model_that_sees_its_padding_is_asked_about():
    with pytest.raises(InputError, match=r"answers otherwise when the padding.*\['z'\].*per=\{'z': 'atom'\}"):
        figures(Watched(masked=False), ("x", "z"), 4)
    rows, _ = figures(Watched(masked=False), ("x", "z"), 4, per={"z": "atom"})
    assert rows == 2


def test_batches_of_any_kind_are_taken_apart():
    data = pytest.importorskip("torch_geometric.data")
    pytest.importorskip("equiscope.adapters.pyg")
    batch = water(4, real=4)

    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Identity()

        def forward(self, given):
            x = given["x"]
            return {"f": self.features(torch.tanh(x * torch.arange(1.0, 4.0).double()))}

    declaration = Declaration({"x": Input("1o", points=True)}, {"f": Output("1o", target="f")})
    dense = layers(Rows(), [{"x": batch["x"], "f": batch["f"]}], declaration, names=["features"], rotations="T")
    pairs = zip(batch["x"], batch["f"], strict=True)
    graphs = data.Batch.from_data_list([data.Data(x=x, f=f, num_nodes=4) for x, f in pairs])
    found = layers(Rows(), [graphs], declaration, names=["features"], rotations="T")
    assert found["layers"][0]["share"] == pytest.approx(dense["layers"][0]["share"], rel=1e-12)
    assert found["samples"] == 6


def test_batches_are_checked_as_by_measure():
    batch = water(4)
    with pytest.raises(NonFiniteError, match="input 'x' is NaN"):
        layers(Watched(), [{"x": batch["x"] * torch.nan}], Declaration({"x": "1o"}, {"f": "1o"}))
    with pytest.raises(InputError, match=r"floating fields \['v'\] .* neither rotated"):
        layers(Watched(), [{"x": batch["x"], "v": batch["v"]}], Declaration({"x": Input("1o", True)}, {"f": "1o"}))
    with pytest.raises(ModelError, match="KeyError: 'x'"):
        layers(Watched(), [{"y": batch["x"]}], Declaration({"y": "1o"}, {"f": "1o"}))
