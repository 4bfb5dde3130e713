import numpy as np
import pytest
import torch
from scipy import ndimage

from equiscope.errors import InputError
from equiscope.symmetry.actions import action
from equiscope.symmetry.grids import GridAction, octahedral, permute, resample
from equiscope.symmetry.rotations import about_z, cyclic, group, haar

OCTAHEDRON = group("O").matrices


def random_grids(count: int, size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 2, size, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def blobs(count: int, size: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random Gaussian bumps well inside the grid: their centres (n, 5, 3) in voxels and a function of centres."""
    centres = torch.randn(count, 5, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return centres * size / 16, torch.tensor(1.6)


def drawn(centres: torch.Tensor, size: int, width: float) -> torch.Tensor:
    axis = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    distance = (points[None, None] - centres[:, :, None, None, None]).square().sum(-1)
    return torch.exp(-distance / (2 * width**2)).sum(1)[:, None]


@pytest.mark.parametrize("size", [2, 5, 6])
def test_permutation_is_the_definition_voxel_by_voxel(size):
    values = random_grids(24, size)
    turned = permute(values, OCTAHEDRON)
    half = (size - 1) / 2
    for element in (3, 8, 17, 23):
        for i, j, k in np.ndindex(size, size, size):
            source = OCTAHEDRON[element].T @ torch.tensor([i - half, j - half, k - half], dtype=torch.float64) + half
            a, b, c = source.round().long().tolist()
            assert torch.equal(turned[element, :, i, j, k], values[element, :, a, b, c])


def test_permutation_is_a_unitary_representation_to_the_bit():
    values = random_grids(24, 6)
    for h in OCTAHEDRON:
        both = h.expand(24, 3, 3)
        assert torch.equal(permute(permute(values, both), OCTAHEDRON), permute(values, OCTAHEDRON @ both))
    assert torch.equal(permute(permute(values, OCTAHEDRON), OCTAHEDRON.mT), values)
    assert torch.equal(permute(values, OCTAHEDRON).flatten(1).sort().values, values.flatten(1).sort().values)


def test_action_checks_itself_on_its_group_and_keeps_float64():
    spec = action(GridAction(6))
    assert spec.act(OCTAHEDRON[:4], random_grids(4, 6).float()).dtype == torch.float64
    assert action(GridAction(6, "cubic")).label.endswith("(resampled, cubic)")
    assert spec.invariants("O").shape == (216, 0)


def test_octahedral_rotations_are_told_from_others():
    assert bool(octahedral(OCTAHEDRON).all())
    assert bool(octahedral(-OCTAHEDRON).all())
    assert not bool(octahedral(haar(50, torch.Generator().manual_seed(0))).any())
    projection = torch.diag(torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64))[None]
    assert not bool(octahedral(projection).any())


@pytest.mark.parametrize("kind", ["trilinear", "cubic"])
def test_resampling_at_octahedral_rotations_is_the_permutation(kind):
    values = random_grids(24, 7)
    assert (resample(values, OCTAHEDRON, kind) - permute(values, OCTAHEDRON)).abs().max() < 1e-12


def test_trilinear_is_exact_for_linear_fields():
    axis = torch.arange(9, dtype=torch.float64) - 4
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    slope = torch.tensor([0.3, -1.1, 0.7], dtype=torch.float64)
    rotation = haar(1, torch.Generator().manual_seed(3))
    turned = resample((points @ slope)[None, None], rotation, "trilinear")[0, 0]
    inside = points.norm(dim=-1) <= 4
    assert (turned - points @ rotation[0] @ slope)[inside].abs().max() < 1e-12


@pytest.mark.parametrize(("kind", "order"), [("trilinear", 1), ("cubic", 3)])
def test_resampling_agrees_with_scipy(kind, order):
    centres, width = blobs(1, 24)
    grid = drawn(centres, 24, float(width))
    rotation = haar(1, torch.Generator().manual_seed(1))
    axis = np.arange(24) - 11.5
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"))
    source = np.einsum("ji,jabc->iabc", rotation[0].numpy(), points) + 11.5
    peer = ndimage.map_coordinates(grid[0, 0].numpy(), source, order=order, mode="constant")
    ours = resample(grid, rotation, kind)[0, 0]
    inside = torch.from_numpy(np.linalg.norm(points, axis=0) < 11)
    assert (ours - torch.from_numpy(peer))[inside].abs().max() < (1e-12 if kind == "trilinear" else 1e-6)


def test_cubic_resampling_is_nearer_the_turned_field_than_trilinear():
    centres, width = blobs(4, 24, seed=2)
    rotations = haar(4, torch.Generator().manual_seed(2))
    exact = drawn(torch.einsum("nij,npj->npi", rotations, centres), 24, float(width))
    errors = {k: (resample(drawn(centres, 24, float(width)), rotations, k) - exact).square().mean()
              for k in ("trilinear", "cubic")}  # fmt: skip
    assert errors["trilinear"] < 1e-4
    assert errors["cubic"] < errors["trilinear"] / 100


def test_bad_grids_are_refused():
    for size in (1, 2.0, True, -4):
        with pytest.raises(InputError, match="integer size"):
            GridAction(size)
    with pytest.raises(InputError, match="trilinear, cubic"):
        GridAction(6, "nearest")
    with pytest.raises(InputError, match=r"is declared, got \(1, 2, 5, 5, 5\)"):
        GridAction(6).act(OCTAHEDRON[:1], random_grids(1, 5))
    with pytest.raises(InputError, match="claim group='O'"):
        GridAction(6).act(haar(1), random_grids(1, 6))


QUARTERS = cyclic(4)


@pytest.mark.parametrize("size", [4, 5])
def test_quarter_turns_of_an_image_by_numpy(size):
    image = torch.arange(float(size * size)).reshape(1, 1, size, size)
    action = GridAction(size, dimensions=2)
    for turns, matrix in enumerate(QUARTERS):
        # The first axis turns towards the second, rot90's sense for (0, 1).
        expected = np.rot90(image[0, 0].numpy(), turns, (0, 1))
        assert np.array_equal(action.act(matrix[None], image)[0, 0].numpy(), expected)
        assert torch.equal(action.act(matrix.mT[None], action.act(matrix[None], image)), image.double())


@pytest.mark.parametrize("kind", ["trilinear", "cubic"])
def test_an_image_by_any_angle(kind):
    """A wide spot turned is the spot at the turned place; quarter turns by interpolation are the permutation."""
    axis = torch.arange(33, dtype=torch.float64) - 16
    points = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)

    def spot(place):
        return torch.exp(-(points - place).square().sum(-1) / 16)[None, None]

    place, turn = torch.tensor([4.0, -2.0], dtype=torch.float64), about_z(torch.tensor([0.7]))
    action = GridAction(33, kind, dimensions=2)
    assert (action.act(turn, spot(place)) - spot(turn[0, :2, :2] @ place)).abs().max() < (4e-2, 2e-3)[kind == "cubic"]
    noise = torch.randn(4, 2, 33, 33, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = GridAction(33, dimensions=2).act(QUARTERS, noise)
    assert (resample(noise, QUARTERS[:, :2, :2], kind) - exact).abs().max() < 1e-12


def test_images_stay_in_their_plane():
    image = torch.zeros(1, 1, 5, 5)
    with pytest.raises(InputError, match="an image turns in its plane"):
        GridAction(5, dimensions=2).act(OCTAHEDRON[5:6], image)
    with pytest.raises(InputError, match="exactly only under quarter turns"):
        GridAction(5, dimensions=2).act(about_z(torch.tensor([0.3])), image)
    with pytest.raises(InputError, match="dimensions must be 3, or 2 for images"):
        GridAction(5, dimensions=1)
    with pytest.raises(InputError, match="a grid of"):
        GridAction(5, dimensions=2).act(QUARTERS[:1], torch.zeros(1, 1, 5, 6))


@pytest.mark.parametrize("kind", [None, "trilinear", "cubic"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_rotations_that_a_plan_has_checked_are_not_read_from_a_device(kind, dimensions):
    values = random_grids(3, 5)[..., 0].float() if dimensions == 2 else random_grids(3, 5).float()
    turns = (QUARTERS if dimensions == 2 else OCTAHEDRON)[[1, 3, 2]]
    if kind:
        turns = about_z(torch.tensor([0.3, 1.0, 2.0])) if dimensions == 2 else haar(3)
    action = GridAction(5, kind, dimensions=dimensions)
    found = action.trusted(turns, values)
    assert torch.equal(found.double(), action.act(turns, values))
    # The same numbers at other places need no other precision.
    assert found.dtype == (torch.float64 if kind else torch.float32)
    # The meta device has shapes and no numbers: whatever asks for one fails.
    assert action.trusted(turns.to("meta"), values.to("meta")).shape == values.shape
    with pytest.raises(RuntimeError, match="meta"):
        action.act(turns.to("meta"), values.to("meta"))
    # On the processor nothing waits, so they are looked at all the same.
    if not kind:
        with pytest.raises(InputError):
            action.trusted(haar(3), values)
