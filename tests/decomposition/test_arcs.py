"""Arcs of orientations: what is smooth is a line on them, what is left is rounding, and jumps are told from it."""

import numpy as np
import pytest
import torch
from torch import nn

import equiscope as eq
from equiscope.decomposition.arcs import ARC, BEND, TWIST, Site, next_arc, off_line
from equiscope.decomposition.batches import DenseBatch
from equiscope.decomposition.losses import LOSSES
from equiscope.decomposition.split import BatchOutput
from equiscope.symmetry.actions import action
from equiscope.symmetry.declaration import Declaration
from equiscope.symmetry.grids import GridAction

from .models import random_batch


def test_what_a_straight_line_leaves_has_two_degrees_of_freedom_less():
    passes = torch.randn(4, 100_000, dtype=torch.float64)
    line = torch.linspace(-1, 1, 4, dtype=torch.float64)[:, None] * passes[0] + passes[1]
    assert off_line(line).abs().max() < 1e-14
    assert torch.allclose(off_line(passes + line), off_line(passes), atol=1e-14)
    assert float(off_line(passes).square().sum(0).mean()) == pytest.approx(2, rel=0.02)


def test_bend_and_twist_take_apart_what_a_line_leaves():
    places = torch.arange(4, dtype=torch.float64)
    for power, bend, twist in ((0, 0, 0), (1, 0, 0), (2, 2, 0), (3, 9, 6 / 20**0.5)):
        values = places**power
        assert float(BEND @ values) == pytest.approx(bend, abs=1e-12)
        assert float(TWIST @ values) == pytest.approx(twist, abs=1e-12)
    passes = torch.randn(4, 50, dtype=torch.float64)
    both = (BEND @ passes).square() + (TWIST @ passes).square()
    assert torch.allclose(both, off_line(passes).square().sum(0), atol=1e-12)


def site(batch, outputs):
    declaration = Declaration({"pos": "1o"}, outputs, fixed=["y"])
    found = {name: BatchOutput(name, batch.rows(name, "atom", None), action(spec), LOSSES["mse"])
             for name, spec in outputs.items()}  # fmt: skip
    return lambda model: Site(model, batch, declaration, None, (0, list(range(batch.size))), found)


def test_passes_are_the_step_apart_and_turned_back():
    batch = DenseBatch(random_batch(5))
    of = site(batch, {"a": "1o", "b": "1o"})
    found = next_arc(of(lambda b: {"a": b["pos"], "b": torch.ones_like(b["pos"])}), 1e-3, 7)
    assert found.rows["a"].shape[0] == ARC
    assert torch.allclose(found.rows["a"], batch.fields()["pos"].expand(4, -1, -1, -1), atol=1e-14)
    # A constant vector turned back by turns that are the step apart about one axis moves by as much at each of them.
    moved = found.rows["b"].diff(dim=0).square().sum(-1).mean((2,))
    assert torch.allclose(moved[0], moved[2], rtol=1e-4)
    assert bool((moved <= 3 * 1e-6 * 1.0001).all())
    assert float(moved.mean()) == pytest.approx(3 * 1e-6 * 2 / 3, rel=0.5)


def test_parts_and_copies_keep_the_turns_of_their_samples():
    batch = DenseBatch(random_batch(5))
    of = site(batch, {"a": "1o"})
    whole = of(lambda b: {"a": torch.ones_like(b["pos"])})
    part = whole.part([3, 1])
    assert part.key == (0, [3, 1])
    arcs = next_arc(whole, 1e-3, 7), next_arc(part, 1e-3, 7)
    assert torch.allclose(arcs[1].rows["a"], arcs[0].rows["a"][:, [3, 1]], atol=1e-14)
    assert whole.in_precision(torch.float32).batch.fields()["pos"].dtype == torch.float32


def test_row_means_are_over_the_rows_of_a_sample():
    batch = DenseBatch(random_batch(3) | {"mask": torch.tensor([[True] * 4, [True] + [False] * 3, [True] * 4])})
    rows = batch.rows("pos", "atom", "mask")
    values = rows.select(batch.fields()["pos"], (3,))
    x = batch.fields()["pos"]
    expected = torch.stack([x[0].mean(), x[1, 0].mean(), x[2].mean()])
    assert torch.allclose(rows.mean(values), expected, atol=1e-14)


GRID = torch.cartesian_prod(*[torch.arange(3.0)] * 3).double()
FIELDS = dict(inputs={"pos": "1o"}, outputs={"forces": "1o"})


def jump(model, batches, **settings):
    found = eq.measure(model, batches, **FIELDS, **settings)
    return found.outputs["forces"].jump, found


class Cancelling(nn.Module):
    """The identity in exact arithmetic, but what is added and subtracted takes digits with it."""

    def __init__(self, gain):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, batch):
        return {"forces": (batch["pos"] + self.gain) - self.gain}


def clouds(samples=8, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [{"pos": torch.randn(samples, 6, 3, generator=generator, dtype=torch.float64).to(dtype)}]


@pytest.mark.parametrize(("dtype", "gain"), [(torch.float32, 256.0), (torch.float32, 3e4), (torch.float64, 1e6)])
def test_rounding_that_the_precision_explains_is_no_jump(dtype, gain):
    size, found = jump(Cancelling(gain).to(dtype), clouds(dtype=dtype))
    assert size == 0
    assert not found.distinguishable
    # Far more than sixteen units.
    assert found.relative_equivariance > (16 * torch.finfo(dtype).eps) ** 2


def nearest(x, count):
    """Sum of vectors to the nearest, among which equal distances tie."""
    apart = x[:, None] - x[:, :, None]
    far = apart.norm(dim=-1)
    kept = torch.zeros_like(far).scatter_(-1, far.topk(count, largest=False).indices, 1.0)
    return ((kept * torch.exp(-far))[..., None] * apart).sum(2)


def test_jumps_lend_nothing_to_the_floor_of_other_samples():
    free = torch.randn(30, 27, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mixed = [{"pos": torch.cat([free, GRID[None].repeat(30, 1, 1)])}]
    size, found = jump(lambda b: {"forces": nearest(b["pos"], 10)}, mixed)
    assert size > 0.05
    assert found.noise_floor < 1e-28
    (note,) = [n for n in found.notes if n.startswith("discontinuous")]
    ids = [int(i) for i in note[note.index("ids [") + 5 : note.index("])")].split(",")]
    assert all(i >= 30 for i in ids)
    size, found = jump(lambda b: {"forces": nearest(b["pos"], 10)}, [{"pos": free}])
    assert size == 0
    assert not found.distinguishable


def test_forces_that_vanish_by_symmetry_do_not_jump():
    # Opposite neighbours cancel to a few units of 1e-17, whose relative change is all of them.
    def inner(b):
        apart = b["pos"][:, None] - b["pos"][:, :, None]
        return {"forces": (apart * torch.exp(-apart.square().sum(-1, keepdim=True)))[:, 13].sum(1, keepdim=True)}

    unseen = lambda b: {"forces": torch.from_numpy(inner(b)["forces"].numpy())}  # noqa: E731
    size, found = jump(unseen, [{"pos": GRID[None] - 1}] * 4)
    assert found.relative_equivariance > 1e-3
    assert size == 0
    assert not found.distinguishable


IMAGES = torch.cartesian_prod(*[torch.arange(-2.0, 3)] * 3).double()


def force_of_the_cell(cell, dtype, most=None):
    """Force on the one atom of a cell: sum_R R exp(-|R|^2) over its images, or over the nearest so many of them."""
    cell = cell.numpy().astype(dtype)
    corner = cell.sum(1, keepdims=True)
    # Images lie about the atom where it is, and so are rounded.
    apart = (IMAGES[IMAGES.norm(dim=-1) > 0].numpy().astype(dtype) @ cell + corner) - corner
    far = np.square(apart).sum(-1)
    terms = apart * np.exp(-far)[..., None]
    if most is not None:
        nearest = np.argsort(far, axis=-1, kind="stable")[:, :most, None]
        terms = np.take_along_axis(terms, nearest, axis=1)
    return torch.from_numpy(terms.sum(1).astype(np.float64))


@pytest.mark.parametrize(("dtype", "most"), [(np.float64, None), (np.float32, None), (np.float64, 7), (np.float64, 4)])
def test_the_force_on_a_lone_atom_is_rounding_unless_neighbours_are_left_out(dtype, most):
    generator = torch.Generator().manual_seed(0)
    sheared = torch.eye(3).double() + 0.1 * torch.randn(4, 3, 3, generator=generator, dtype=torch.float64)
    found = eq.measure(
        lambda b: {"forces": force_of_the_cell(b["cell"], dtype, most), "energy": b["cell"].square().sum((1, 2))},
        [{"cell": sheared}], inputs={"cell": eq.Input("1o", per="sample")},
        outputs={"forces": eq.Output("1o", per="sample"), "energy": eq.Output("0e", per="sample")},
    )  # fmt: skip
    # Images at R and -R are equally far: the seventh of them is a matter of rounding, and moves the force by all of it.
    forces = found.outputs["forces"]
    assert (forces.jump > 0.1) is (most == 7)
    assert forces.distinguishable is (most == 7)
    assert found.outputs["energy"].jump == 0
    assert any("discontinuous" in note for note in found.notes) is (most == 7)


def blobs(dimensions, both_sides=False):
    size = 6
    axis = torch.arange(size).double() - (size - 1) / 2
    points = torch.stack(torch.meshgrid(*[axis] * dimensions, indexing="ij"), -1)
    generator = torch.Generator().manual_seed(0)
    away = points - torch.randn(4, *[1] * dimensions, dimensions, generator=generator, dtype=torch.float64)
    values = torch.exp(-away.square().sum(-1) / 3)[:, None]
    return values + values.flip(tuple(range(2, values.ndim))) if both_sides else values


@pytest.mark.parametrize("kind", ["trilinear", "cubic"])
@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("fault", ["smooth", "jumps"])
def test_interpolation_is_no_jump(fault, dimensions, kind):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            generator = torch.Generator().manual_seed(0)
            self.weight = nn.Parameter(torch.randn(6**dimensions, generator=generator, dtype=torch.float64) + 1)

        def forward(self, b):
            flat = b["field"].flatten(1)
            # The largest of a field that is alike on both sides is found on either.
            answer = self.weight[flat.argmax(1)] if fault == "jumps" else torch.tanh(flat @ self.weight)
            return {"y": answer[:, None]}

    claimed = dict(group="SO3", rotations="T") if dimensions == 3 else dict(group="SO2", rotations="C8")
    found = eq.measure(
        Net(), [{"field": blobs(dimensions, fault == "jumps")}],
        inputs={"field": GridAction(6, kind, dimensions=dimensions)}, outputs={"y": "0e"}, **claimed,
    )  # fmt: skip
    assert (found.outputs["y"].jump > 0.05) is (fault == "jumps")
    assert any("discontinuous" in note for note in found.notes) is (fault == "jumps")
    assert found.distinguishable


@pytest.mark.parametrize("kink", [0.0, 0.3])
def test_kinks_and_bends_of_a_broken_model_are_not_called_jumps(kink):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.randn(16, 3, generator=torch.Generator().manual_seed(0)))

        def forward(self, b):
            x = b["pos"] @ self.a.T
            return {"forces": (torch.relu(x - kink) if kink else torch.sin(5 * x)) @ self.a}

    for dtype in (torch.float32, torch.float64):
        size, found = jump(Broken().to(dtype), clouds(40, dtype))
        assert size == 0
        assert found.distinguishable
        assert found.relative_equivariance > 1e-2


def through_numpy(function):
    """A calculation that torch does not see, from float64 to float64."""
    return lambda b: {"forces": torch.from_numpy(np.asarray(function(b["pos"].numpy()), dtype=np.float64))}


def pair_forces(x):
    apart = x[:, None] - x[:, :, None]
    return (apart * np.exp(-np.square(apart).sum(-1) / 4)[..., None]).sum(2)


@pytest.mark.parametrize(("dtype", "name"), [(np.float32, "float32"), (np.float16, "float16")])
def test_coarse_rounding_out_of_sight_is_rounding(dtype, name):
    size, found = jump(through_numpy(lambda x: pair_forces(x.astype(dtype))), clouds(16))
    assert size == 0
    assert not found.distinguishable
    assert any(f"computes in {name}" in n for n in found.notes)
    assert found.noise_floor < 10 * found.equivariance


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fault", ["bins", "narrow bins", "smooth", "none"])
def test_a_fault_out_of_sight_is_a_fault(fault, seed):
    def function(x):
        if "bins" in fault:
            width = 0.05 if fault == "bins" else 0.008
            return pair_forces(np.round(x / width) * width)
        return pair_forces(x) + (1e-4 * x[..., [1, 0, 2]] if fault == "smooth" else 0)

    _, found = jump(through_numpy(function), clouds(16), seed=seed)
    assert found.distinguishable is (fault != "none")
    assert not any("computes in" in n for n in found.notes)
