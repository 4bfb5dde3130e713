"""How a voxel grid rotates: exactly, by permuting its voxels, under the octahedral group; resampled otherwise.

A grid of N^3 values samples a function at the points (i - (N-1)/2, j - (N-1)/2, k - (N-1)/2) times the spacing, so
that its centre is the origin for odd and even N alike. The rotated function is (g v)(q) = v(g^-1 q).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from equiscope.errors import InputError

RESAMPLING = ("trilinear", "cubic")
OCTAHEDRAL_TOLERANCE = 1e-9


@dataclass(frozen=True)
class GridAction:
    """Scalar fields on a cubic grid, values (…, N, N, N), turned about the grid's centre (N-1)/2.

    The 48 signed permutation matrices (the octahedral group and its mirror images) permute voxels: exact to the bit,
    and unitary. Any other rotation needs resampling, which is neither: ask for it by name, and measure the
    interpolation floor beside the value (:func:`equiscope.tasks.voxels.task` shows how).

    Attributes:
        size: N.
        resampling: None refuses rotations that do not map the grid to itself; ``"trilinear"`` and ``"cubic"``
            (interpolating B-spline of degree 3) resample them, the field being zero outside the grid.

    Raises:
        InputError: for a size under 2 or another resampling; in :meth:`act`, for values of another shape and, without
            resampling, for a rotation outside the octahedral group.
    """

    size: int
    resampling: str | None = None
    label: str = field(init=False)
    shape: tuple[int, int, int] = field(init=False)

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 2:
            raise InputError(f"a grid needs an integer size of at least 2 voxels a side, got {self.size!r}")
        if self.resampling is not None and self.resampling not in RESAMPLING:
            raise InputError(f"resampling must be None or one of {', '.join(RESAMPLING)}, got {self.resampling!r}")
        how = "voxels permuted" if self.resampling is None else f"resampled, {self.resampling}"
        object.__setattr__(self, "label", f"grid of {self.size}³ ({how})")
        object.__setattr__(self, "shape", (self.size,) * 3)

    @property
    def group(self) -> str:
        """The largest group that acts exactly, on which the action is unitary."""
        return "O"

    def act(self, rotations: Tensor, values: Tensor) -> Tensor:
        """(g_i v_i)(q) = v_i(g_i^-1 q): rotations (n, 3, 3), values (n, c, N, N, N) -> float64."""
        if tuple(values.shape[-3:]) != self.shape:
            raise InputError(f"a grid of {self.shape} is declared, got {tuple(values.shape)}")
        exact = octahedral(rotations)
        if bool(exact.all()):
            return permute(values.double(), rotations)
        if self.resampling is None:
            raise InputError(
                f"a grid rotates exactly only under the octahedral group, got {rotations[~exact][0].tolist()}: claim "
                f"group='O' with rotations='O', or ask for GridAction({self.size}, 'cubic')"
            )
        return resample(values.double(), rotations, self.resampling)

    def canonical(self, values: Tensor) -> Tensor:
        return values.flatten(-3)

    def invariants(self, symmetry: str) -> Tensor:
        """None: skill is judged against the empty grid, the zero predictor."""
        return torch.zeros(self.size**3, 0, dtype=torch.float64)


def octahedral(rotations: Tensor) -> Tensor:
    """(n,) bool: which of the matrices (n, 3, 3) are signed permutations, to 1e-9."""
    nearest = rotations.round()
    close = (rotations - nearest).abs().amax(dim=(-2, -1)) <= OCTAHEDRAL_TOLERANCE
    one_each = (nearest.abs().sum(-1) == 1).all(-1) & (nearest.abs().sum(-2) == 1).all(-1)
    return close & one_each


def permute(values: Tensor, rotations: Tensor) -> Tensor:
    """Grids (n, c, N, N, N) turned by signed permutation matrices (n, 3, 3): the same numbers at other places."""
    size = values.shape[-1]
    index = _sources(size, rotations.to(values.device))
    flat = values.flatten(-3)
    return flat.gather(-1, index[:, None, :].expand(flat.shape)).reshape(values.shape)


def _sources(size: int, rotations: Tensor) -> Tensor:
    """(n, N^3) flat index of the voxel g^-1 q for every voxel q."""
    # Twice the coordinates are integers for every N, so nothing is rounded. Each axis of q adds its own to the index.
    doubled = 2 * torch.arange(size, device=rotations.device) - (size - 1)
    strides = doubled.new_tensor([size * size, size, 1])
    # Row r of g^-1 is column r of g: entry (a, r) takes axis a of q to axis r of its source.
    along = (rotations.round().long() * strides).sum(-1)[..., None] * doubled
    middle = (size - 1) * (size * size + size + 1)
    index = along[:, 0, :, None, None] + along[:, 1, None, :, None] + along[:, 2, None, None, :]
    return ((index + middle) >> 1).flatten(1)


def resample(values: Tensor, rotations: Tensor, kind: str) -> Tensor:
    """Grids (n, c, N, N, N) float64 turned by any rotations (n, 3, 3), interpolated, zero outside the grid.

    Trilinear takes the 8 nearest voxels. Cubic passes the B-spline sum_j c_j B3(q - j) through the values, with
    coefficients c that vanish outside the grid, and takes 64 (Unser, Aldroubi, Eden, IEEE TSP 41 (1993) 821).
    """
    size, device = values.shape[-1], values.device
    source = spline_coefficients(values) if kind == "cubic" else values
    axis = torch.arange(size, dtype=torch.float64, device=device) - (size - 1) / 2
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    turned = []
    # One grid at a time: the taps of a whole batch would be many times its memory.
    for grid, rotation in zip(source, rotations.to(device), strict=True):
        index, weight = _taps(points @ rotation + (size - 1) / 2, size, kind)
        table = grid.flatten(1).mT.contiguous()
        turned.append(functional.embedding_bag(index, table, per_sample_weights=weight, mode="sum").mT)
    return torch.stack(turned).reshape(values.shape)


def _taps(places: Tensor, size: int, kind: str) -> tuple[Tensor, Tensor]:
    """Flat voxel indices and weights (N^3, taps) of the interpolation at places (N^3, 3) in voxels."""
    low = places.floor()
    weights = _cubic(places - low) if kind == "cubic" else torch.stack([1 - (places - low), places - low], dim=-1)
    first = -1 if kind == "cubic" else 0
    taps = low.long()[..., None] + torch.arange(first, first + weights.shape[-1], device=places.device)
    weights = torch.where((taps >= 0) & (taps < size), weights, 0.0)
    taps = taps.clamp(0, size - 1)
    (i, j, k), (a, b, c) = taps.unbind(1), weights.unbind(1)
    index = (i[:, :, None, None] * size + j[:, None, :, None]) * size + k[:, None, None, :]
    product = a[:, :, None, None] * b[:, None, :, None] * c[:, None, None, :]
    return index.flatten(1), product.flatten(1)


def _cubic(t: Tensor) -> Tensor:
    """The four values of the cubic B-spline at distances 1+t, t, 1-t, 2-t, for t in [0, 1)."""
    s = 1 - t
    return torch.stack([s**3, 4 - 6 * t**2 + 3 * t**3, 4 - 6 * s**2 + 3 * s**3, t**3], dim=-1) / 6


@functools.cache
def _spline_inverse(size: int) -> Tensor:
    """Inverse of the tridiagonal matrix of B3 at the integers, (1, 4, 1)/6."""
    matrix = torch.eye(size, dtype=torch.float64) * 4 + torch.ones(size - 1, dtype=torch.float64).diag(1)
    return torch.linalg.inv((matrix + torch.ones(size - 1, dtype=torch.float64).diag(-1)) / 6)


def spline_coefficients(values: Tensor) -> Tensor:
    """Coefficients (…, N, N, N) of the cubic B-spline through the values (…, N, N, N), zero outside the grid."""
    inverse = _spline_inverse(values.shape[-1]).to(values)
    return torch.einsum("ia,jb,kc,...abc->...ijk", inverse, inverse, inverse, values)
