"""Molecules as grids: Gaussian atoms, one channel per element, V(k x) = k V(x) to the bit for octahedral k.

    V_e(q) = 1 - prod_{atoms i of element e} (1 - a_i(q)),     a_i(q) = exp(-(|q - x_i| / (0.93 r))^2)

(the density of VoxMol and PyUUL). A rotation of 90 degrees permutes the three coordinates and the places in memory.
Neither may change a bit, so |q - x|^2 is added up without rounding, in fixed point; the exponential of a number is
looked up, since vectorised ones may depend on its place; and the product over atoms runs in the atoms' order.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from equiscope.errors import InputError, check_count
from equiscope.tasks.guards import positive

RATIO = 0.93
# Atoms end where their density is exp(-16) = 1e-7, the rounding of float32.
CUTOFF = 16.0
# Squared distances over the squared width are multiples of this: a sum of three stays exact in float64.
FINEST = 2.0**40
# Steps of the table in which exp(-t) is interpolated linearly: relative error (2^-14)^2 / 8 = 5e-10.
STEPS = 2**14


@dataclass(frozen=True)
class Grid:
    """A cubic grid about the origin and the atoms drawn on it.

    Attributes:
        size: voxels a side, N; their centres are (i - (N-1)/2) times the resolution.
        resolution: spacing in Å; radius: r of an atom in Å.
        elements: atomic number of each channel.
        crop: atoms beyond the grid are cut off, as VoxMol does, where they are refused otherwise. A molecule that is
            cut off does not turn with its grid, except by the 24 rotations of the grid.

    Raises:
        InputError: for sizes that are no integer >= 2, lengths that are not positive, or no or repeated elements.
    """

    size: int = 24
    resolution: float = 0.5
    radius: float = 0.6
    elements: tuple[int, ...] = (1, 6, 7, 8, 9, 16, 17)
    crop: bool = False

    def __post_init__(self) -> None:
        check_count("grid.size", self.size, 2)
        positive("grid.", resolution=self.resolution, radius=self.radius)
        if not self.elements or len(set(self.elements)) != len(self.elements) or min(self.elements) < 1:
            raise InputError(f"grid.elements must be different atomic numbers, got {self.elements!r}")

    @property
    def width(self) -> float:
        """The length w of exp(-(d/w)^2), in Å."""
        return RATIO * self.radius

    @property
    def half(self) -> float:
        """Distance in Å from the centre to the outermost voxel centres."""
        return (self.size - 1) / 2 * self.resolution

    @property
    def reach(self) -> float:
        """Largest distance in Å of an atom from the centre, at which its density has fallen to exp(-4) at the edge."""
        return self.half - 2 * self.width

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(channels, N, N, N)."""
        return (len(self.elements), self.size, self.size, self.size)


def voxelise(positions: Tensor, species: Tensor, mask: Tensor, grid: Grid, checked: bool = False) -> Tensor:
    """The grids (B, channels, N, N, N) float32 of padded molecules, on their device.

    Args:
        positions: (B, A, 3) in Å, each molecule about the origin.
        species: (B, A) atomic numbers; mask: (B, A) true for real atoms.
        checked: that they are inside and have channels is known; finding it out again would wait for a GPU.

    Raises:
        InputError: unless ``checked``, positions that are not finite, an atom outside a grid without ``crop``, or an
            element without a channel.
    """
    channel = channels(species, mask, grid.elements, checked)
    positions = torch.where(mask[..., None], positions, 0.0).double()
    if not checked:
        _check_inside(positions, grid)
    reach = math.ceil(math.sqrt(CUTOFF) * grid.width / grid.resolution + 0.5)
    margin = reach
    if grid.crop:
        # Atoms that do not reach the grid are left out; the others have all their voxels in its margin.
        near = positions.abs().amax(-1) < grid.half + reach * grid.resolution
        mask, positions, margin = mask & near, torch.where(near[..., None], positions, 0.0), 2 * reach
    padded = grid.size + 2 * margin
    empty = torch.ones(len(positions), len(grid.elements), padded**3, dtype=torch.float64, device=positions.device)
    offsets = torch.arange(-reach, reach + 1, device=positions.device)
    nearest = (positions / grid.resolution + (grid.size - 1) / 2).round().long()
    # (B, A, 3, W): voxels about each atom, and their squared distances along each axis.
    voxel = nearest[..., None] + offsets
    along = (voxel - (grid.size - 1) / 2) * grid.resolution - positions[..., None]
    squared = ((along / grid.width).square() * FINEST).round()
    voxel = voxel + margin
    row = torch.arange(len(positions), device=positions.device)
    for atom in range(positions.shape[1]):
        x, y, z = squared[:, atom].unbind(1)
        t = (x[:, :, None, None] + y[:, None, :, None] + z[:, None, None, :]) / FINEST
        i, j, k = voxel[:, atom].unbind(1)
        place = (i[:, :, None, None] * padded + j[:, None, :, None]) * padded + k[:, None, None, :]
        place = (row * len(grid.elements) + channel[:, atom])[:, None] * padded**3 + place.flatten(1)
        factor = 1 - torch.where(mask[:, atom, None], gaussian(t.flatten(1)), 0.0)
        flat = empty.view(-1)
        flat[place] = flat[place] * factor
    full = (1 - empty).view(len(positions), len(grid.elements), padded, padded, padded)
    inside = slice(margin, margin + grid.size)
    return full[:, :, inside, inside, inside].float()


def gaussian(t: Tensor) -> Tensor:
    """exp(-t) for t >= 0 in float64, interpolated in a table, 0 from the cutoff on: equal bits for equal t."""
    table = _table(t.device)
    place = t.clamp(max=CUTOFF) * STEPS
    low = place.floor()
    index = low.long()
    value = table[index] + (place - low) * (table[index + 1] - table[index])
    return torch.where(t < CUTOFF, value, 0.0)


@functools.cache
def _table(device: torch.device) -> Tensor:
    # Made on the CPU whatever the device: its bits are the same everywhere.
    return torch.exp(-torch.arange(int(CUTOFF * STEPS) + 2, dtype=torch.float64) / STEPS).to(device)


@functools.cache
def _known(elements: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(elements, device=device)


def channels(species: Tensor, mask: Tensor, elements: Sequence[int], checked: bool = False) -> Tensor:
    """(B, A) channel of every atom, 0 in the padding; an InputError, unless ``checked``, where there is none."""
    match = species[..., None] == _known(tuple(elements), species.device)
    unknown = mask & ~match.any(-1)
    if not checked and bool(unknown.any()):
        seen = sorted({int(z) for z in species[unknown]})
        raise InputError(f"atomic numbers {seen} have no channel; the grid has {list(elements)}: add them to it")
    return match.long().argmax(-1)


def _check_inside(positions: Tensor, grid: Grid) -> None:
    farthest = positions.abs().amax(dim=(1, 2)) if positions.numel() else positions.new_zeros(0)
    # Cut-off atoms may lie anywhere, but somewhere.
    outside = ~(farthest <= (torch.finfo(farthest.dtype).max if grid.crop else grid.half))
    if bool(outside.any()):
        rows = outside.nonzero().flatten().tolist()
        raise InputError(
            f"molecules {rows[:5]} of the batch do not fit the grid: an atom is {float(farthest[outside][0]):.2f} Å "
            f"from the centre along an axis, the grid ends at {grid.half:.2f} Å; centre them, or take a larger grid"
        )
