"""The voxeliser against its definition, and to the bit under the 24 rotations and any order of atoms."""

import pytest
import torch

from equiscope.errors import InputError
from equiscope.symmetry.grids import permute
from equiscope.symmetry.rotations import group
from equiscope.tasks.voxels.voxelise import CUTOFF, Grid, gaussian, voxelise

SMALL = Grid(size=16, resolution=0.5, radius=0.6, elements=(1, 6, 8))


def molecules(count: int, atoms: int, grid: Grid, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pos = (2 * torch.rand(count, atoms, 3, generator=generator) - 1) * min(grid.half, 2.5)
    species = torch.tensor(grid.elements)[torch.randint(0, len(grid.elements), (count, atoms), generator=generator)]
    mask = torch.rand(count, atoms, generator=generator) < 0.8
    mask[:, 0] = True
    return pos, species, mask


def definition(pos, species, mask, grid):
    axis = (torch.arange(grid.size, dtype=torch.float64) - (grid.size - 1) / 2) * grid.resolution
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    empty = torch.ones(len(pos), *grid.shape, dtype=torch.float64)
    for b, i in mask.nonzero().tolist():
        squared = (points - pos[b, i].double()).square().sum(-1) / grid.width**2
        empty[b, grid.elements.index(int(species[b, i]))] *= 1 - torch.exp(-squared)
    return 1 - empty


@pytest.mark.parametrize(
    "grid", [SMALL, Grid(size=15, resolution=0.4, radius=0.5, elements=(1, 6)), Grid(size=2, elements=(1,))]
)
def test_grid_is_its_definition(grid):
    given = molecules(4, 9, grid)
    made = voxelise(*given, grid)
    assert made.dtype == torch.float32
    assert made.shape == (4, *grid.shape)
    # 16 of the atoms' density of exp(-16) may be cut off at most.
    assert (made - definition(*given, grid)).abs().max() < 2e-6


def test_every_octahedral_rotation_permutes_it_to_the_bit():
    pos, species, mask = molecules(6, 12, SMALL, seed=1)
    # Atoms on voxels, on the borders between them, and in one another, where roundings tie.
    pos[0] = (pos[0] * 4).round() / 4
    pos[1, :6] = pos[1, 6:]
    made = voxelise(pos, species, mask, SMALL)
    for element in group("O").matrices:
        turned = voxelise((pos.double() @ element.T).float(), species, mask, SMALL)
        assert torch.equal(turned, permute(made, element.expand(6, 3, 3)).float())


def test_cropped_atoms_end_at_the_edge_as_they_are_defined_and_turn_to_the_bit():
    grid = Grid(size=8, resolution=0.5, radius=0.6, elements=(1, 6), crop=True)
    pos, species, mask = molecules(4, 12, grid, seed=4)
    pos = 2.2 * pos  # up to 3.9 Å from the centre of a grid that ends at 1.75 Å
    assert (pos.abs().amax(-1) > grid.half).any()
    made = voxelise(pos, species, mask, grid)
    assert (made - definition(pos, species, mask, grid)).abs().max() < 2e-6
    for element in group("O").matrices[::7]:
        turned = voxelise((pos.double() @ element.T).float(), species, mask, grid)
        assert torch.equal(turned, permute(made, element.expand(4, 3, 3)).float())
    far = pos + 100.0
    assert not voxelise(far, species, mask, grid).any()
    with pytest.raises(InputError, match="nan"):
        voxelise(torch.full_like(pos, torch.nan), species, mask, grid)


def test_padding_neighbours_and_batch_change_nothing():
    pos, species, mask = molecules(5, 8, SMALL, seed=2)
    made = voxelise(pos, species, mask, SMALL)
    spoilt = torch.where(mask[..., None], pos, torch.nan)
    assert torch.equal(voxelise(spoilt, torch.where(mask, species, 99), mask, SMALL), made)
    assert torch.equal(voxelise(pos[2:3], species[2:3], mask[2:3], SMALL), made[2:3])
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    other = voxelise(pos[:, order], species[:, order], mask[:, order], SMALL)
    assert (other - made).abs().max() <= 6e-8


def test_table_is_the_exponential():
    t = torch.linspace(0, 20, 100_001, dtype=torch.float64)
    inside = t < CUTOFF
    assert ((gaussian(t) / torch.exp(-t))[inside] - 1).abs().max() < 1e-9
    assert gaussian(t)[~inside].abs().max() == 0


def test_bad_molecules_and_grids_are_refused():
    pos, species, mask = molecules(2, 4, SMALL)
    mask[:] = True
    far = pos.clone()
    far[1, 2, 0] = 9.0
    with pytest.raises(InputError, match=r"\[1\] of the batch do not fit the grid: an atom is 9.00"):
        voxelise(far, species, mask, SMALL)
    far[1, 2, 0] = torch.nan
    with pytest.raises(InputError, match="do not fit the grid"):
        voxelise(far, species, mask, SMALL)
    # A molecule that is not centred leaves the grid on one side.
    with pytest.raises(InputError, match="centre them"):
        voxelise(pos + 5.0, species, mask, SMALL)
    with pytest.raises(InputError, match=r"\[35\] have no channel"):
        voxelise(pos, torch.full_like(species, 35), mask, SMALL)
    for settings in ({"size": 1}, {"size": 2.5}, {"resolution": 0.0}, {"radius": -1.0}, {"elements": ()},
                     {"elements": (6, 6)}, {"resolution": float("nan")}):  # fmt: skip
        with pytest.raises(InputError, match="grid"):
            Grid(**settings)
