"""Jumps are told from rounding, however large that is, and coarse rounding out of torch's sight from jumps."""

import numpy as np
import pytest
import torch
from torch import nn

import equiscope as eq
from equiscope.symmetry.grids import GridAction

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
