"""Atoms of all samples one after another: the figures of padded batches in every door, parts of batches, refusals."""

import pytest
import torch
from torch import nn

import equiscope as eq
from equiscope.analysis.layers import layers
from equiscope.analysis.parts import Parts
from equiscope.decomposition.crossed import Redraw, measure_crossed
from equiscope.decomposition.ragged import RaggedBatch, batch_of
from equiscope.errors import DeclarationError, InputError
from equiscope.symmetry.declaration import Declaration, Input, Output, declare
from equiscope.testing import assert_equivariant

from .models import linear_error

SIZES = (3, 5, 4, 6, 1)
MATRIX = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SHORT = dict(inputs={"pos": "1o"}, outputs={"f": "1o"})
FLAT, DENSE = declare(**SHORT, target="y", batch="batch"), declare(**SHORT, target="y", mask="mask")


def flat(sizes=SIZES, seed=1, **more):
    generator = torch.Generator().manual_seed(seed)
    atoms = sum(sizes)
    pos, y = torch.randn(2, atoms, 3, generator=generator, dtype=torch.float64)
    return {"pos": pos, "y": y, "batch": torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))} | more


def padded(batch):
    counts = torch.bincount(batch["batch"])
    mask = torch.arange(int(counts.max()))[None] < counts[:, None]
    made = {"mask": mask}
    for name in set(batch) - {"batch"}:
        made[name] = torch.zeros(*mask.shape, *batch[name].shape[1:], dtype=batch[name].dtype)
        made[name][mask] = batch[name]
    return made


def means(batch):
    """The mean of each sample's atoms, for each atom."""
    if "batch" not in batch:
        real = batch["mask"][..., None]
        return (batch["pos"] * real).sum(1, keepdim=True) / real.sum(1, keepdim=True)
    index = batch["batch"].long()
    counts = torch.bincount(index)
    return (torch.zeros(len(counts), 3).double().index_add(0, index, batch["pos"]) / counts[:, None])[index]


class Rough(nn.Module):
    """tanh of each atom's vector from the mean of its sample: it matters which atoms turn together."""

    def __init__(self):
        super().__init__()
        self.a, self.features = nn.Parameter(MATRIX.clone()), nn.Identity()

    def forward(self, batch):
        answer = self.features(torch.tanh((batch["pos"] - means(batch)) @ self.a.T))
        noise = 0.1 * batch["noise"] if "noise" in batch else 0
        return {"f": answer + noise * answer.norm(dim=-1, keepdim=True)}


def linear(batch):
    return {"f": (batch["pos"] - means(batch)) @ MATRIX.T}


def test_the_closed_form_of_a_linear_model():
    batch = flat()
    each = linear_error(MATRIX, batch["pos"] - means(batch))
    error = torch.stack([each[batch["batch"] == sample].mean() for sample in range(len(SIZES))])
    result = eq.measure(linear, [batch], **SHORT, target="y", batch="batch")
    assert result.samples == len(SIZES)
    assert result.per_sample.equivariance == pytest.approx(error, rel=1e-9)


@pytest.mark.parametrize(
    "settings", [{}, {"center": "mean"}, {"loss": "l1", "cosets": 4}, {"weighting": "component"}, {"group": "O3"}]
)
def test_the_figures_of_padded_batches(settings):
    batch, call = flat(), {**SHORT, "target": "y", **settings}
    whole = eq.measure(Rough(), [padded(batch)], mask="mask", **call)
    order = torch.randperm(len(batch["pos"]), generator=torch.Generator().manual_seed(4))
    shuffled = {name: value[order] for name, value in batch.items()}
    for given in (batch, shuffled, batch | {"batch": batch["batch"].int()}):
        found = eq.measure(Rough(), [given], batch="batch", **call)
        assert found.percent == pytest.approx(whole.percent, rel=1e-9)
        assert found.r2 == pytest.approx(whole.r2, rel=1e-9)
        assert found.percent > 1


def test_the_other_doors():
    batch, model = flat(), Rough()
    truth = eq.measure(model, [batch], FLAT).percent
    metric = eq.EquivarianceError(FLAT)
    metric.update(model, batch)
    assert float(metric.compute()) == pytest.approx(truth, rel=1e-12)
    averaged = eq.Twirled(model, **SHORT, batch="batch", rotations="O")(batch)["f"].detach()
    other = eq.Twirled(model, **SHORT, mask="mask", rotations="O")(padded(batch))["f"].detach()
    assert averaged == pytest.approx(other[padded(batch)["mask"]], abs=1e-12)
    shares = [layers(model, [b], d, names=["features"])["layers"][0]["share"]
              for b, d in ((batch, FLAT), (padded(batch), DENSE))]  # fmt: skip
    assert shares[0] == pytest.approx(shares[1], abs=1e-12)
    parts = [Parts(model, [b], d).gradient()["equivariance"] for b, d in ((batch, FLAT), (padded(batch), DENSE))]
    assert parts[0] == pytest.approx(parts[1], abs=1e-12)
    assert parts[0].norm() > 0.01
    assert eq.compare(model, model, [batch], FLAT).difference == 0
    assert_equivariant(lambda b: {"f": b["pos"] - means(b)}, [batch], FLAT)


def test_rotations_crossed_with_noise():
    def draw(fields, number):
        # The same noise for the same atom, whatever the layout.
        return torch.sin(fields["pos"] * (number + 1) * 7)

    batch = flat()
    batch["noise"] = draw(batch, 8)
    found = [
        measure_crossed(Rough(), [b], declare(**SHORT, target="y", fixed=["noise"], **how), Redraw("noise", draw))
        for b, how in ((batch, {"batch": "batch"}), (padded(batch), {"mask": "mask"}))
    ]
    assert found[0].variance_parts == pytest.approx(found[1].variance_parts, rel=1e-9)
    assert found[0].percent == pytest.approx(found[1].percent, rel=1e-9)


def test_a_second_coset_of_some_samples():
    batches = [flat([2, 4, 3] * 8, seed) for seed in range(3)]
    call = dict(**SHORT, target="y", cosets=1.5)
    whole = eq.measure(Rough(), [padded(b) for b in batches], mask="mask", **call).percent
    assert eq.measure(Rough(), batches, batch="batch", **call).percent == pytest.approx(whole, rel=1e-9)
    typed = [b | {"z": torch.ones(len(b["pos"]), dtype=torch.int64)} for b in batches]
    with pytest.raises(InputError, match=r"its fields \['z'\] have rows.*per=\{'z': 'atom'\}"):
        eq.measure(Rough(), typed, batch="batch", **call)
    said = eq.measure(Rough(), typed, batch="batch", per={"z": "atom"}, **call)
    assert said.percent == pytest.approx(whole, rel=1e-9)


def test_edges_cells_and_offsets_of_some_samples():
    """Each sample of a part has the distances, cell and labels that it had in the whole batch."""
    sizes = (2, 4, 3)
    index = torch.arange(3).repeat_interleave(torch.tensor(sizes))
    shuffled = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    batch = flat(sizes, batch=index[shuffled])
    pairs = [(i, j) for i in range(9) for j in range(9) if i != j and batch["batch"][i] == batch["batch"][j]]
    batch |= {
        "edge_index": torch.tensor(pairs).T,
        "shift": torch.arange(3.0 * len(pairs)).reshape(-1, 3).double(),
        "cell": torch.arange(27.0).reshape(9, 3).double(),
        "ptr": torch.tensor([0, 2, 6, 9]),
        "name": ["a", "b", "c"],
        "e": torch.arange(3.0).double(),
    }
    declaration = Declaration(
        {"pos": Input("1o", points=True), "shift": Input("1o", points=False), "cell": Input("1o", False, "sample")},
        {"f": Output("1o", target="y"), "e": Output("0e", target="e", per="sample")},
        batch="batch", clusters="name",
    )  # fmt: skip
    part = RaggedBatch(batch, declaration).part([2, 0, 2])
    assert part["batch"].tolist() == [0] * 3 + [1] * 2 + [2] * 3
    assert part["ptr"].tolist() == [0, 3, 5, 8]
    assert part["name"] == ["c", "a", "c"]
    assert part["e"].tolist() == [2, 0, 2]
    assert torch.equal(part["cell"].reshape(3, 3, 3), batch["cell"].reshape(3, 3, 3)[[2, 0, 2]])
    i, j = part["edge_index"]
    assert torch.equal(part["batch"][i], part["batch"][j])
    distances = lambda b: (b["pos"][b["edge_index"][0]] - b["pos"][b["edge_index"][1]]).norm(dim=-1)  # noqa: E731
    of_edge = batch["batch"][batch["edge_index"][0]]
    for place, sample in enumerate([2, 0, 2]):
        own = part["batch"][i] == place
        assert distances(part)[own].tolist() == distances(batch)[of_edge == sample].tolist()
        assert torch.equal(part["shift"][own], batch["shift"][of_edge == sample])


def test_lattice_vectors_one_after_another():
    cell = torch.randn(len(SIZES), 3, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    model = lambda b: {"f": linear(b)["f"] + b["cell"].reshape(-1, 3, 3).sum(1)[b["batch"]]}  # noqa: E731
    call = dict(outputs={"f": "1o"}, target="y", batch="batch")
    inputs = {"pos": Input("1o", points=True), "cell": Input("1o", points=False)}
    whole = eq.measure(model, [flat(cell=cell)], inputs=inputs, **call).percent
    rows = flat(cell=cell.reshape(-1, 3))
    assert eq.measure(model, [rows], inputs=inputs, **call).percent == pytest.approx(whole, rel=1e-12)
    # As many lattice vectors as atoms, in samples of other sizes.
    even = flat((2, 4), cell=cell[:2].reshape(-1, 3))
    with pytest.raises(InputError, match=r"6 rows, which may be atoms or lattice vectors.*per='sample'"):
        eq.measure(model, [even], inputs=inputs, **call)
    said = inputs | {"cell": Input("1o", points=False, per="sample")}
    found = eq.measure(lambda b: {"f": b["pos"] + model(b)["f"] - linear(b)["f"]}, [even], inputs=said, **call)
    assert found.relative_equivariance < 1e-25
    with pytest.raises(InputError, match="declared per='sample' and has 6 rows for 4 samples"):
        eq.measure(model, [flat((2, 1, 2, 1), cell=even["cell"])], inputs=said, **call)


BAD = {
    "no such field": (flat(), {"batch": "molecule"}, "no tensor 'molecule'"),
    "floating": (flat(batch=torch.zeros(19)), {}, "integers from 0 up, got torch.float32"),
    "boolean": (flat(batch=torch.zeros(19, dtype=torch.bool)), {}, "integers from 0 up, got torch.bool"),
    "negative": (flat(batch=torch.arange(19) - 1), {}, "integers from 0 up"),
    "with an axis too many": (flat(batch=torch.zeros(19, 1).long()), {}, r"\(19, 1\)"),
    "samples without atoms": (flat(batch=torch.arange(19) * 2), {}, r"samples \[1, 3, 5, 7, 9\] .*have no atoms"),
    "fewer atoms": (flat(batch=torch.zeros(7).long()), {}, "expected 7 atoms first"),
    "another number of labels": (flat(y=torch.zeros(5, 3).double()), {}, "19, 3.* labels 'y' have one row for each"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_ragged_batch(name):
    batch, changes, message = BAD[name]
    with pytest.raises(InputError, match=message):
        eq.measure(lambda b: {"f": b["pos"]}, [batch], **(SHORT | {"target": "y", "batch": "batch"} | changes))


def test_atoms_of_several_samples_are_not_taken_for_samples():
    """An exactly equivariant model, whose atoms must turn together, had 36 % before."""
    exact = lambda b: {"f": b["pos"] - means(b)}  # noqa: E731
    with pytest.raises(DeclarationError, match=r"'pos' has no axis for atoms, shape \(19, 3\).*batch='batch'"):
        eq.measure(exact, [flat()], **SHORT, target="y")
    assert eq.measure(exact, [flat()], **SHORT, target="y", batch="batch").percent < 1e-20
    energies = flat(e=torch.zeros(5).double())
    with pytest.raises(InputError, match=r"differ in length.*batch='batch'"):
        eq.measure(exact, [energies], **SHORT, target="y", fixed=["e"])
    total = lambda b: {"e": b["pos"].new_zeros(5).index_add(0, b["batch"], b["pos"].norm(dim=-1))}  # noqa: E731
    of_samples = {"e": Output("0e", per="sample")}
    with pytest.raises(DeclarationError, match=r"'e' has \(5,\), expected 19 rows first.*batch='batch'"):
        eq.measure(total, [flat()], inputs={"pos": "1o"}, outputs=of_samples, fixed=["y"])
    whole = eq.measure(total, [flat()], inputs={"pos": "1o"}, outputs=of_samples, fixed=["y"], batch="batch")
    assert whole.relative_equivariance < 1e-25


def test_masked_atoms_of_a_ragged_batch():
    batch = flat(real=(torch.arange(19) % 3 > 0).long())
    with pytest.raises(InputError, match=r"samples \[4\] of a batch have zero atoms in mask 'real'"):
        eq.measure(linear, [batch | {"real": (torch.arange(19) < 18).long()}], **SHORT, batch="batch", mask="real",
                   fixed=["y"])  # fmt: skip
    batch["real"][-1] = 1
    model = lambda b: {"f": torch.where(b["real"][:, None] > 0, b["pos"], torch.nan) @ MATRIX.T}  # noqa: E731
    result = eq.measure(model, [batch], **SHORT, target="y", batch="batch", mask="real")
    each, real = linear_error(MATRIX, batch["pos"]), batch["real"] > 0
    error = torch.stack([each[real & (batch["batch"] == sample)].mean() for sample in range(5)])
    assert result.per_sample.equivariance == pytest.approx(error, rel=1e-9)


def test_batches_of_other_kinds_say_themselves_what_belongs_together():
    with pytest.raises(InputError, match="batch='molecule' is for dicts of tensors; a tuple"):
        batch_of((1, 2), declare(**SHORT, batch="molecule"))
