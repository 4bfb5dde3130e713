"""Lattice choice and supercells: brute force over all of them, closed forms, and structures that have none."""

import itertools

import numpy as np
import pytest
import torch

import equiscope as eq
from equiscope.decomposition.symmetries.lattices import unimodular
from equiscope.errors import InputError
from tests.decomposition.models import repeated, z_score

CELL = torch.tensor([[4.0, 0.3, 0.0], [0.0, 5.0, 0.0], [0.5, 0.0, 6.0]], dtype=torch.float64)
POS = torch.tensor([[0.1, 0.2, 0.3], [2.0, 1.5, 3.0], [1.0, 4.0, 2.0]], dtype=torch.float64)
INPUTS = {"pos": eq.Input("1o", points=True), "cell": eq.Input("1o", points=False, per="sample")}
OUTPUTS = {"f": "1o", "e": eq.Output("0e", per="sample")}
DECLARED = {"inputs": INPUTS, "outputs": OUTPUTS}


def pair_model(b, power=None, reach=1):
    """Forces and energy per atom of a short-ranged pair potential over images in ``reach`` cells around."""
    pos, cell = b["pos"], b["cell"]
    steps = torch.tensor(list(itertools.product(range(-reach, reach + 1), repeat=3)), dtype=pos.dtype)
    images = torch.einsum("mi,sij->smj", steps, cell)
    # Atoms are wrapped into the cell, so that images around it are all that is near.
    scaled = torch.linalg.solve(cell.mT, pos.mT).mT
    inside = torch.einsum("sni,sij->snj", scaled - scaled.floor(), cell)
    delta = inside[:, :, None, None] - inside[:, None, :, None] - images[:, None, None]
    weight = torch.exp(-3 * delta.square().sum(-1))
    return {"f": 6 * (weight[..., None] * delta).sum((2, 3)), "e": weight.sum((1, 2, 3)) / pos.shape[1]}


def crystal(**more):
    return {"pos": POS, "cell": CELL, **more}


def test_all_unimodular_matrices_by_counting():
    whole = unimodular((True, True, True))
    assert len(whole) == 3480
    assert len(np.unique(whole, axis=0)) == 3480
    assert np.allclose(np.linalg.det(whole), 1)
    slab = unimodular((True, False, True))
    assert len(slab) == sum(a * d - b * c == 1 for a, b, c, d in itertools.product((-1, 0, 1), repeat=4))
    assert (slab[:, 1] == [0, 1, 0]).all()
    assert (slab[:, :, 1] == [0, 1, 0]).all()


def test_a_model_of_the_cell_by_brute_force_over_all_lattices():
    def model(b):
        return {"e": torch.tanh(b["cell"][:, 0].norm(dim=-1) / 10) + b["cell"][:, 1, 2] / 20}

    cells = torch.from_numpy(unimodular((True,) * 3)) @ CELL
    truth = float(model({"cell": cells})["e"].var(correction=0))
    found = eq.measure(
        model, [repeated(crystal())], inputs=INPUTS, outputs={"e": OUTPUTS["e"]}, symmetry="lattice", noise_samples=1
    )
    assert abs(z_score(found.per_sample.equivariance, truth)) < 4


def test_images_of_atoms_in_closed_form():
    """sum_i x_i v with n uniform in {-1, 0, 1}: variance 2/3 sum_j (a_j v)^2 an atom."""
    v = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
    truth = float(2 / 3 * 3 * (CELL @ v).square().sum())
    found = eq.measure(
        lambda b: {"e": (b["pos"] @ v).sum(1)}, [repeated(crystal())], inputs=INPUTS, outputs={"e": OUTPUTS["e"]},
        symmetry="lattice", noise_samples=1,
    )  # fmt: skip
    assert abs(z_score(found.per_sample.equivariance, truth)) < 4


@pytest.mark.parametrize("layout", ["padded", "ragged"])
@pytest.mark.parametrize("symmetry", ["lattice", "supercell", "translation=30", ("supercell", "lattice")])
def test_a_periodic_model_has_none(symmetry, layout):
    # Skewed cells need more images than their neighbours.
    reach = 4 if "lattice" in symmetry else 2

    def model(b):
        if layout == "padded":
            return pair_model(b, reach=reach)
        atoms = int(b["batch"].bincount()[0])
        found = pair_model({"pos": b["pos"].reshape(-1, atoms, 3), "cell": b["cell"]}, reach=reach)
        return {"f": found["f"].flatten(0, 1), "e": found["e"]}

    batch = {k: torch.stack([v, v * 1.01]) for k, v in crystal().items()} | {"z": torch.arange(6).reshape(2, 3)}
    declared = DECLARED | {"per": {"z": "atom"}}
    if layout == "ragged":
        batch = {k: v if k == "cell" else v.flatten(0, 1) for k, v in batch.items()}
        batch |= {"batch": torch.arange(2).repeat_interleave(3), "ptr": torch.tensor([0, 3, 6])}
        declared = DECLARED | {"batch": "batch", "per": {"z": "atom", "ptr": "sample"}}
    found = eq.measure(model, [batch], symmetry=symmetry, cosets=2, **declared)
    assert found.equivariance < 1e-14
    assert found.outputs["f"].relative_equivariance < 1e-8


def test_supercells_in_closed_form():
    """Forces B x of copy m a: no repeat, or a_i once in two; an energy that counts atoms: N and 2 N."""
    matrix = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def model(b):
        return {"f": b["pos"] @ matrix.T, "e": b["pos"].new_tensor(b["pos"].shape[1]).expand(len(b["pos"]))}

    steps = CELL @ matrix.T
    truth = (steps.square().sum() / 8 - (steps.sum(0) / 8).square().sum()) / 3
    found = eq.measure(model, [repeated(crystal())], symmetry="supercell", noise_samples=1, **DECLARED)
    settings = {"symmetry": "supercell", "noise_samples": 1, "inputs": INPUTS}
    figures = {
        k: eq.measure(model, [repeated(crystal())], outputs={k: spec}, **settings).per_sample.equivariance
        for k, spec in OUTPUTS.items()
    }
    assert abs(z_score(figures["f"], float(truth))) < 4
    counts = torch.tensor([3.0, 6, 6, 6]).var(correction=0)
    assert figures["e"].numpy() == pytest.approx(float(counts), rel=1e-12)
    assert found.passes == 8
    total = eq.symmetries.Supercell(extensive=["e"])
    assert eq.measure(model, [repeated(crystal(), 3)], symmetry=total, **DECLARED).outputs["e"].equivariance == 0


def test_slabs_keep_their_open_direction():
    slab = {"pos": POS[None], "cell": CELL[None], "pbc": torch.tensor([[True, True, False]])}
    seen = []

    def model(b):
        seen.append(b["cell"][0, 2].clone())
        return {"f": b["pos"] * 0, "e": b["pos"].new_zeros(1)}

    for symmetry in ("lattice", "supercell"):
        eq.measure(model, [slab], symmetry=symmetry, noise_samples=0, group="O", rotations="O", **DECLARED)
        moved = [c for c in seen if not any(torch.equal(c.abs().sort()[0], x.abs().sort()[0]) for x in [CELL[2]])]
        assert not moved


@pytest.mark.parametrize("symmetry", ["lattice", "supercell", "space_group"])
def test_structures_that_have_none(symmetry):
    def measure(declared=DECLARED, **more):
        batch = {k: v[None] for k, v in crystal(numbers=torch.tensor([1, 6, 8])).items()} | more
        return eq.measure(lambda b: {"f": b["pos"], "e": b["pos"].sum((1, 2))}, [batch], symmetry=symmetry, **declared)

    with pytest.raises(InputError, match=r"is of periodic structures: samples \[0\] of 1"):
        measure(pbc=torch.zeros(1, 3, dtype=torch.bool))
    with pytest.raises(InputError, match="is of periodic structures"):
        measure(cell=torch.zeros(1, 3, 3, dtype=torch.float64))
    with pytest.raises(InputError, match="needs the lattice vectors: declare them"):
        measure({"inputs": {"pos": INPUTS["pos"]}, "outputs": OUTPUTS, "fixed": ["cell"]})
    with pytest.raises(InputError, match="neighbours made for this cell"):
        measure(edge_index=torch.zeros(1, 2, 5, dtype=torch.int64))
    with pytest.raises(InputError, match="three lattice vectors a sample"):
        measure(cell=torch.ones(1, 2, 3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shapes": [(1, 1, 1)]}, "two shapes or more"),
        ({"shapes": [(1, 1, 1), (2, 0, 1)]}, r"three whole numbers of repeats such as \(2, 1, 1\), got \(2, 0, 1\)"),
    ],
)
def test_supercells_that_are_none(settings, message):
    with pytest.raises(InputError, match=message):
        eq.symmetries.Supercell(**settings)


def test_supercells_of_mixed_periodicity():
    batch = {k: torch.stack([v, v]) for k, v in crystal().items()}
    batch["pbc"] = torch.tensor([[True, True, True], [True, True, False]])
    with pytest.raises(InputError, match="periodic in different directions"):
        eq.measure(pair_model, [batch], symmetry="supercell", **DECLARED)
    shapes = eq.symmetries.Supercell(shapes=[(1, 1, 1), (1, 1, 2)])
    with pytest.raises(InputError, match=r"supercell \(1, 1, 2\) repeats samples \[1\] along a direction that is not"):
        eq.measure(pair_model, [batch], symmetry=shapes, **DECLARED)
    with pytest.raises(InputError, match="are no outputs"):
        eq.measure(pair_model, [batch], symmetry=eq.symmetries.Supercell(extensive=["E"]), **DECLARED)
    batch["pbc"] = batch["pbc"][:1].expand(2, 3)
    with pytest.raises(InputError, match="supercell after another symmetry needs batches of one sample"):
        eq.measure(pair_model, [batch], symmetry=("lattice", "supercell"), seed=3, **DECLARED)


@pytest.mark.parametrize("symmetry", ["lattice", "supercell", "space_group"])
@pytest.mark.parametrize("third", [CELL[0], CELL[0] - CELL[1], 0 * CELL[0]])
def test_cells_whose_vectors_span_no_volume_are_refused(symmetry, third):
    if symmetry == "space_group":
        pytest.importorskip("spglib")
    batch = {k: v[None] for k, v in crystal(cell=torch.stack([CELL[0], CELL[1], third])).items()}
    batch |= {"numbers": torch.ones(1, 3).long(), "pbc": torch.ones(1, 3).bool()}
    settings = dict(inputs=INPUTS, outputs={"f": "1o"}, per={"numbers": "atom"}, symmetry=symmetry)
    with pytest.raises(InputError, match="or one without a lattice vector of its own"):
        eq.measure(lambda b: {"f": 0 * b["pos"]}, [batch], **settings)
    if symmetry == "lattice":
        # Of a slab the third vector says nothing.
        batch["pbc"][0, 2] = False
        assert eq.measure(lambda b: {"f": 0 * b["pos"]}, [batch], **settings).equivariance == 0
