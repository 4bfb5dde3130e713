"""Space groups: a projection known in closed form, exact isometries, and crystals that cannot be measured."""

import sys

import numpy as np
import pytest
import torch

import equiscope as eq
from equiscope.decomposition.symmetries import crystals as module
from equiscope.decomposition.symmetries.crystals import operations
from equiscope.errors import InputError

pytest.importorskip("spglib")
bulk = pytest.importorskip("ase.build").bulk
DECLARED = {
    "inputs": {"pos": eq.Input("1o", points=True), "cell": eq.Input("1o", points=False, per="sample")},
    "outputs": {"f": "1o", "s": eq.Output("cartesian", per="sample")},
    "per": {"numbers": "atom"},
}


def batch_of(*crystals):
    return {
        "pos": torch.stack([torch.tensor(a.positions) for a in crystals]),
        "cell": torch.stack([torch.tensor(np.array(a.cell)) for a in crystals]),
        "numbers": torch.stack([torch.tensor(a.numbers) for a in crystals]),
        "pbc": torch.stack([torch.tensor(a.pbc) for a in crystals]),
    }


def constant(vector):
    return lambda b: {
        "f": torch.as_tensor(vector, dtype=torch.float64).expand_as(b["pos"]),
        "s": torch.outer(*[torch.as_tensor(vector, dtype=torch.float64)] * 2).expand(len(b["pos"]), 3, 3),
    }


@pytest.mark.parametrize(
    ("name", "crystal", "orders", "axis"),
    [
        ("Fm-3m", bulk("Cu", cubic=True), (192, 48), None),
        ("Fm-3m", bulk("Cu"), (48, 48), None),
        ("F-43m", bulk("ZnS", "zincblende", a=5.4), (24, 24), None),
        # Hexagonal, polar: a vector along c is allowed.
        ("P6_3mc", bulk("ZnO", "wurtzite", a=3.25, c=5.2, u=0.382), (12, 12), [0, 0, 1]),
    ],
)
def test_what_the_group_leaves_of_a_vector_and_a_tensor(name, crystal, orders, axis):
    """|v|^2 - |P v|^2 with P the projection on what the group leaves: nothing, or the polar axis."""
    v = np.array([0.3, -0.5, 0.7])
    left = np.zeros(3) if axis is None else np.array(axis) * (v @ axis)
    tensor = np.outer(v, v)
    kept = np.eye(3) * (v @ v) / 3
    if axis is not None:
        kept = np.diag([(v[0] ** 2 + v[1] ** 2) / 2] * 2 + [v[2] ** 2])
    truth = {"f": (v @ v - left @ left) / 3, "s": ((tensor**2).sum() - (kept**2).sum()) / 9}
    for symmetry, order in zip(("space_group", "point_group"), orders, strict=True):
        found = eq.measure(constant(v), [batch_of(crystal)], symmetry=symmetry, **DECLARED)
        assert found.passes == order
        for output, value in truth.items():
            assert found.outputs[output].equivariance == pytest.approx(value, rel=1e-12)
    assert operations(np.array(crystal.cell), crystal.positions, crystal.numbers, 1e-3, False).name.startswith(name)


def test_operations_are_looked_up_once_for_all_passes(monkeypatch):
    """Each look-up copies the positions from where the model computes."""
    asked = []
    monkeypatch.setattr(module, "operations", lambda *given: asked.append(given) or operations(*given))
    found = eq.measure(constant([1.0, 0.0, 0.0]), [batch_of(bulk("Cu"))], symmetry="space group", **DECLARED)
    assert found.passes == 48
    assert len(asked) < 12


def test_translations_of_a_conventional_cell_exchange_its_atoms():
    """A planted force on one of four: over the space group every atom has it, v minus nothing; the point group too."""
    v = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)

    def model(b):
        force = torch.zeros_like(b["pos"])
        force[:, 0] = v
        return {"f": force, "s": b["cell"] * 0}

    whole = eq.measure(model, [batch_of(bulk("Cu", cubic=True))], symmetry="space group", **DECLARED)
    # |p_g|^2 is 1/4 an atom and the mean vanishes: 1 / (4 atoms x 3 components).
    assert whole.outputs["f"].equivariance == pytest.approx(1 / 12, rel=1e-12)
    # Energies of atoms, without a direction: f_i = 1 on atom 0 has mean 1/4.
    energy = {**DECLARED, "outputs": {"e": "0e"}}
    whole = eq.measure(
        lambda b: {"e": torch.eye(4, dtype=torch.float64)[:1, :, None]},
        [batch_of(bulk("Cu", cubic=True))],
        symmetry="space group",
        **energy,
    )
    assert whole.equivariance == pytest.approx(1 / 4 - 1 / 16, rel=1e-12)


def pairs(b):
    """Equivariant forces of a crystal, from its images."""
    steps = torch.cartesian_prod(*[torch.arange(-2.0, 3.0, dtype=torch.float64)] * 3)
    images = torch.einsum("mi,sij->smj", steps, b["cell"])
    delta = b["pos"][:, :, None, None] - b["pos"][:, None, :, None] - images[:, None, None]
    weight = torch.exp(-delta.square().sum(-1)) * b["numbers"][:, None, :, None]
    force = (weight[..., None] * delta).sum((2, 3))
    return {"f": force, "s": torch.einsum("sabm,sabmi,sabmj->sij", weight, delta, delta)}


def test_symmetric_models_have_none_also_of_crystals_that_are_nearly_symmetric():
    crystal = bulk("ZnS", "zincblende", a=5.4, cubic=True)
    crystal.rattle(0.02, seed=1)
    strain = 0.005 * np.random.default_rng(0).standard_normal((3, 3))
    crystal.set_cell(crystal.cell @ (np.eye(3) + strain), scale_atoms=True)
    space = eq.symmetries.SpaceGroup(symprec=0.3)
    found = eq.measure(pairs, [batch_of(crystal)], symmetry=space, **DECLARED)
    assert found.passes == 96
    assert found.outputs["f"].equivariance < 1e-26
    assert found.outputs["s"].relative_equivariance < 1e-26
    assert not found.distinguishable


def test_the_model_is_asked_for_the_same_numbers_again():
    given, seen = batch_of(bulk("ZnS", "zincblende", a=5.4, cubic=True)), []

    def model(b):
        seen.append(torch.cat([b["pos"], b["cell"]], dim=1))
        return pairs(b)

    eq.measure(model, [given], symmetry="space_group", noise_samples=0, fold=1, **DECLARED)
    own = torch.cat([given["pos"], given["cell"]], dim=1)
    assert sum(bool((one - own).abs().max() < 1e-12) for one in seen) >= 96


def test_crystals_of_different_groups_in_one_batch():
    cubic, tetragonal = bulk("ZnS", "zincblende", a=5.4), bulk("CsCl", "cesiumchloride", a=4.1)
    tetragonal.set_cell([4.1, 4.1, 4.5], scale_atoms=True)
    v = [0.3, -0.5, 0.7]
    together = eq.measure(constant(v), [batch_of(cubic, tetragonal)], symmetry="space_group", **DECLARED)
    apart = [eq.measure(constant(v), [batch_of(a)], symmetry="space_group", **DECLARED) for a in (cubic, tetragonal)]
    assert [r.passes for r in apart] == [24, 16]
    assert together.passes == 48
    assert together.equivariance == pytest.approx(sum(r.equivariance for r in apart) / 2, rel=1e-12)
    one_by_one = [batch_of(cubic), batch_of(tetragonal)]
    assert eq.measure(constant(v), one_by_one, symmetry="space_group", **DECLARED).passes == 20


def test_space_groups_of_ragged_batches():
    crystals = bulk("ZnS", "zincblende", a=5.4), bulk("Cu", cubic=True)
    batch = {
        "pos": torch.cat([torch.tensor(a.positions) for a in crystals]),
        "numbers": torch.cat([torch.tensor(a.numbers) for a in crystals]),
        "cell": torch.stack([torch.tensor(np.array(a.cell)) for a in crystals]),
        "batch": torch.tensor([0] * 2 + [1] * 4),
    }
    declared = {**DECLARED, "outputs": {"f": "1o"}, "batch": "batch"}
    found = eq.measure(lambda b: {"f": b["pos"] * 0 + 2}, [batch], symmetry="space group", **declared)
    assert found.equivariance == pytest.approx(4, rel=1e-12)


def test_what_cannot_be_measured(monkeypatch):
    def measure(crystal, symmetry="space_group", **more):
        batch = {k: v for k, v in batch_of(crystal).items() if k not in more.pop("without", ())}
        return eq.measure(constant([1, 0, 0]), [batch], symmetry=symmetry, **DECLARED | more)

    rattled = bulk("Cu", cubic=True)
    rattled.rattle(0.2, seed=0)
    with pytest.raises(InputError, match=r"space group P1 \(1\) with the identity alone .* nothing to measure"):
        measure(rattled)
    slab = bulk("Cu", cubic=True)
    slab.pbc = (True, True, False)
    with pytest.raises(InputError, match="periodic in three directions; samples"):
        measure(slab)
    with pytest.raises(InputError, match="no tensor 'species'"):
        measure(bulk("Cu"), eq.symmetries.SpaceGroup(species="species"))
    twice = bulk("Cu", cubic=True)
    twice.positions[1] = twice.positions[0]
    with pytest.raises(InputError, match="spglib finds no space group"):
        measure(twice)
    points = {"outputs": {"f": eq.Output("1o", points=True)}}
    with pytest.raises(InputError, match="no output of positions"):
        measure(bulk("Cu"), **points)
    monkeypatch.setitem(sys.modules, "spglib", None)
    with pytest.raises(InputError, match=r"spglib, which is not installed .*pip install 'equiscope\[crystals\]'"):
        measure(bulk("Au"))
