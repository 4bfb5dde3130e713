"""How a grid rotates: exactly, by permuting its values, under the octahedral group; resampled otherwise.

A grid of N^3 values samples a function at the points (i - (N-1)/2, j - (N-1)/2, k - (N-1)/2) times the spacing, so
that its centre is the origin for odd and even N alike. The rotated function is (g v)(q) = v(g^-1 q). An image of N^2
values lies in the plane of the first two axes and turns about the third: exactly by quarter turns, C4.
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
_EXACT = {"O": "the octahedral group", "C4": "quarter turns"}


@dataclass(frozen=True)
class GridAction:
    """Scalar fields on a cubic grid, values (…, N, N, N), or images (…, N, N), turned about their centre (N-1)/2.

    The 48 signed permutation matrices (the octahedral group and its mirror images) permute voxels: exact to the bit,
    and unitary. Any other rotation needs resampling, which is neither: ask for it by name, and measure the
    interpolation floor beside the value (:func:`equiscope.tasks.voxels.task` shows how).

    Attributes:
        size: N.
        resampling: None refuses rotations that do not map the grid to itself; ``"trilinear"`` and ``"cubic"``
            (interpolating B-spline of degree 3) resample them, the field being zero outside the grid.
        dimensions: 3, or 2 for images, which turn in their plane: claim ``group="C4"`` or ``"SO2"``.

    Raises:
        InputError: for a size under 2 or another resampling; in :meth:`act`, for values of another shape and, without
            resampling, for a rotation outside the octahedral group.
    """

    size: int
    resampling: str | None = None
    dimensions: int = 3
    label: str = field(init=False)
    shape: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 2:
            raise InputError(f"a grid needs an integer size of at least 2 voxels a side, got {self.size!r}")
        if self.resampling is not None and self.resampling not in RESAMPLING:
            raise InputError(f"resampling must be None or one of {', '.join(RESAMPLING)}, got {self.resampling!r}")
        if self.dimensions not in (2, 3):
            raise InputError(f"dimensions must be 3, or 2 for images, got {self.dimensions!r}")
        what, power = ("voxels", "³") if self.dimensions == 3 else ("pixels", "²")
        how = f"{what} permuted" if self.resampling is None else f"resampled, {self.resampling}"
        object.__setattr__(self, "label", f"grid of {self.size}{power} ({how})")
        object.__setattr__(self, "shape", (self.size,) * self.dimensions)

    @property
    def group(self) -> str:
        """The largest group that acts exactly, on which the action is unitary."""
        return "O" if self.dimensions == 3 else "C4"

    def act(self, rotations: Tensor, values: Tensor) -> Tensor:
        """(g_i v_i)(q) = v_i(g_i^-1 q): rotations (n, 3, 3), values (n, c, N, N, N) -> float64."""
        return self._turned(rotations, values.double(), self.check(rotations))

    def trusted(self, rotations: Tensor, values: Tensor) -> Tensor:
        """As :meth:`act` for rotations of a plan, which has checked them; permuted values keep their dtype.

        Nothing is read from a device: what could be permuted there is resampled alike, where that is asked for.
        """
        here = rotations.device.type == "cpu"
        return self._turned(rotations, values, self.check(rotations) if here else self.resampling is None)

    def _turned(self, rotations: Tensor, values: Tensor, exact: bool) -> Tensor:
        if tuple(values.shape[-self.dimensions :]) != self.shape:
            raise InputError(f"a grid of {self.shape} is declared, got {tuple(values.shape)}")
        turns = rotations[:, : self.dimensions, : self.dimensions]
        return permute(values, turns) if exact else resample(values.double(), turns, str(self.resampling))

    def check(self, rotations: Tensor) -> bool:
        """Whether all of the rotations permute the values.

        Raises:
            InputError: for rotations that the grid cannot follow.
        """
        exact = octahedral(rotations if self.dimensions == 3 else in_plane(rotations))
        all_exact = bool(exact.all())
        if not all_exact and self.resampling is None:
            raise InputError(
                f"a grid rotates exactly only under {_EXACT[self.group]}, got {rotations[~exact][0].tolist()}: claim "
                f"group={self.group!r} with rotations={self.group!r}, or ask for GridAction({self.size}, 'cubic')"
            )
        return all_exact

    def canonical(self, values: Tensor) -> Tensor:
        return values.flatten(-self.dimensions)

    def invariants(self, symmetry: str) -> Tensor:
        """None: skill is judged against the empty grid, the zero predictor."""
        return torch.zeros(self.size**self.dimensions, 0, dtype=torch.float64, device="cpu")


def in_plane(rotations: Tensor) -> Tensor:
    """The turns (n, 2, 2) of images; an InputError for rotations (n, 3, 3) that leave the plane."""
    away = (rotations[:, 2, 2] - 1).abs() > OCTAHEDRAL_TOLERANCE
    if bool(away.any()):
        raise InputError(
            f"an image turns in its plane, got {rotations[away][0].tolist()}: claim group='C4' with rotations='C4', or "
            "group='SO2' with rotations='C8' and GridAction(N, 'cubic', dimensions=2)"
        )
    return rotations[:, :2, :2]


def octahedral(rotations: Tensor) -> Tensor:
    """(n,) bool: which of the matrices (n, 3, 3) are signed permutations, to 1e-9."""
    nearest = rotations.round()
    close = (rotations - nearest).abs().amax(dim=(-2, -1)) <= OCTAHEDRAL_TOLERANCE
    return close & (nearest.abs().sum(-1) == 1).all(-1) & (nearest.abs().sum(-2) == 1).all(-1)


def permute(values: Tensor, rotations: Tensor) -> Tensor:
    """Grids (n, c, N, N, N) turned by signed permutation matrices (n, 3, 3): the same numbers at other places.

    Images (n, c, N, N) are turned by matrices (n, 2, 2).
    """
    size = values.shape[-1]
    index = _sources(size, rotations.to(values.device))
    flat = values.flatten(2)
    return flat.gather(-1, index[:, None, :].expand(flat.shape)).reshape(values.shape)


def _sources(size: int, rotations: Tensor) -> Tensor:
    """(n, N^d) flat index of the voxel g^-1 q for every voxel q."""
    # Twice the coordinates are integers for every N, so nothing is rounded. Each axis of q adds its own to the index.
    axes = rotations.shape[-1]
    doubled = 2 * torch.arange(size, device=rotations.device) - (size - 1)
    strides = size ** torch.arange(axes - 1, -1, -1, device=rotations.device)
    # Row r of g^-1 is column r of g: entry (a, r) takes axis a of q to axis r of its source.
    along = (rotations.round().long() * strides).sum(-1)[..., None] * doubled
    index = (size - 1) * strides.sum()
    for axis in range(axes):
        index = index + along[:, axis].reshape(len(along), *[1] * axis, size, *[1] * (axes - 1 - axis))
    return (index >> 1).flatten(1)


def resample(values: Tensor, rotations: Tensor, kind: str) -> Tensor:
    """Grids (n, c, N, N, N) float64 turned by any rotations (n, 3, 3), interpolated, zero outside; images likewise.

    Trilinear takes the 8 nearest voxels. Cubic passes the B-spline sum_j c_j B3(q - j) through the values, with
    coefficients c that vanish outside the grid, and takes 64 (Unser, Aldroubi, Eden, IEEE TSP 41 (1993) 821).
    """
    size, device, axes = values.shape[-1], values.device, rotations.shape[-1]
    source = spline_coefficients(values) if kind == "cubic" else values
    axis = torch.arange(size, dtype=torch.float64, device=device) - (size - 1) / 2
    points = torch.stack(torch.meshgrid(*[axis] * axes, indexing="ij"), dim=-1).reshape(-1, axes)
    turned = []
    # One grid at a time: the taps of a whole batch would be many times its memory.
    for grid, rotation in zip(source, rotations.to(device), strict=True):
        index, weight = _taps(points @ rotation + (size - 1) / 2, size, kind)
        table = grid.flatten(1).mT.contiguous()
        turned.append(functional.embedding_bag(index, table, per_sample_weights=weight, mode="sum").mT)
    return torch.stack(turned).reshape(values.shape)


def _taps(places: Tensor, size: int, kind: str) -> tuple[Tensor, Tensor]:
    """Flat voxel indices and weights (N^d, taps) of the interpolation at places (N^d, d) in voxels."""
    low = places.floor()
    weights = _cubic(places - low) if kind == "cubic" else torch.stack([1 - (places - low), places - low], dim=-1)
    first = -1 if kind == "cubic" else 0
    taps = low.long()[..., None] + torch.arange(first, first + weights.shape[-1], device=places.device)
    weights = torch.where((taps >= 0) & (taps < size), weights, 0.0)
    taps = taps.clamp(0, size - 1)
    index, product = taps[:, 0], weights[:, 0]
    for axis in range(1, places.shape[-1]):
        index = (index[..., None] * size + taps[:, None, axis]).flatten(1)
        product = (product[..., None] * weights[:, None, axis]).flatten(1)
    return index, product


def _cubic(t: Tensor) -> Tensor:
    """The four values of the cubic B-spline at distances 1+t, t, 1-t, 2-t, for t in [0, 1)."""
    s = 1 - t
    return torch.stack([s**3, 4 - 6 * t**2 + 3 * t**3, 4 - 6 * s**2 + 3 * s**3, t**3], dim=-1) / 6


@functools.cache
def _spline_inverse(size: int, device: torch.device) -> Tensor:
    """Inverse of the tridiagonal matrix of B3 at the integers, (1, 4, 1)/6."""
    beside = torch.ones(size - 1, dtype=torch.float64, device="cpu")
    matrix = 4 * torch.eye(size, dtype=torch.float64, device="cpu") + beside.diag(1) + beside.diag(-1)
    return torch.linalg.inv(matrix / 6).to(device)


def spline_coefficients(values: Tensor) -> Tensor:
    """Coefficients (n, c, N, N, N) of the cubic B-spline through values of that shape or (n, c, N, N), zero outside."""
    inverse = _spline_inverse(values.shape[-1], values.device).to(values.dtype)
    axes = values.ndim - 2
    turns = "ia,jb,...ab->...ij" if axes == 2 else "ia,jb,kc,...abc->...ijk"
    return torch.einsum(turns, *[inverse] * axes, values)
