"""Sets of rotations: Haar samples, finite groups, random cosets, quadratures, and their exact Wigner degree.

A set {(g_k, w_k)} has *degree* t when sum_k w_k D^l(g_k) = 0 for every Wigner degree 1 <= l <= t, so that its
average of a function on SO(3) without components above t is the Haar average.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import roma
import torch
from torch import Tensor

from equiscope.errors import InputError

GROUP_DEGREES = {"D2": 1, "T": 2, "O": 3, "I": 5}
# Groups that permute the numbers of a grid, without interpolation.
EXACT = ("O", "C4")


@dataclass(frozen=True)
class RotationSet:
    """A weighted set of rotations, used as K in the random coset K u (u first, then k).

    Attributes:
        name: ``"haar"``, a group's name, ``"superfibonacci-N"`` or ``"lebedev-T"``.
        matrices: (n, 3, 3) float64, orthogonal; determinant -1 for the improper half under O(3).
        weights: (n,) float64, positive, summing to 1.
        degree: every Wigner degree 1 <= l <= degree averages to zero exactly.
    """

    name: str
    matrices: Tensor
    weights: Tensor
    degree: int

    def __len__(self) -> int:
        return len(self.matrices)


def haar(count: int, generator: torch.Generator | None = None) -> Tensor:
    """``count`` independent Haar-distributed rotations, (count, 3, 3) float64.

    A normalised standard normal 4-vector is uniform on the unit quaternions, whose image in SO(3) is Haar
    (Shoemake 1992). The global random state is untouched when a generator is given.
    """
    device = generator.device if generator is not None else "cpu"
    return from_quaternions(torch.randn(count, 4, generator=generator, dtype=torch.float64, device=device))


def haar_keyed(seed: int, ids: Sequence[int], stream: int = 0) -> Tensor:
    """One Haar rotation per id, (len(ids), 3, 3) float64: a pure function of (seed, id, stream).

    Philox is counter based: equal keys give equal rotations whatever the batch size or process. They are non-negative
    and fit 64 bits, or are an InputError.
    """
    outside = [k for k in (seed, stream, *ids) if not 0 <= k < 2**64]
    if outside:
        raise InputError(f"seed, ids and stream must be non-negative and below 2**64, got {outside[0]}")
    normals = np.empty((len(ids), 4))
    for row, sample in enumerate(ids):
        bits = np.random.Philox(key=[seed, int(sample)], counter=[0, 0, 0, stream])
        normals[row] = np.random.Generator(bits).standard_normal(4)
    return from_quaternions(torch.from_numpy(normals))


def uniform_keyed(symmetry: str, seed: int, ids: Sequence[int], stream: int = 0) -> Tensor:
    """One uniformly distributed element of the claimed symmetry per id, keyed as in :func:`haar_keyed`.

    For ``"SO3"`` and ``"O3"`` a Haar rotation (the inversion is part of the set K), for ``"O"`` one of its 24, for
    images a turn in their plane.
    """
    if symmetry in PLANAR:
        return planar_element(symmetry, haar_keyed(seed, ids, stream))
    if symmetry != "O":
        return haar_keyed(seed, ids, stream)
    matrices = group("O").matrices
    # The group element nearest to a Haar rotation is uniform: the group moves its Voronoi cells into one another.
    traces = torch.einsum("nij,kij->nk", haar_keyed(seed, ids, stream), matrices)
    return matrices[traces.argmax(dim=1)]


def turned_by(angle: float, seed: int, ids: Sequence[int], stream: int = 0, symmetry: str = "SO3") -> Tensor:
    """One rotation by ``angle`` (radians) about a uniformly random axis per id, keyed as in :func:`haar_keyed`.

    Of images about their own axis, and of a group without small rotations none.
    """
    if symmetry in EXACT:
        return torch.eye(3, dtype=torch.float64, device="cpu").expand(len(ids), 3, 3)
    if symmetry in PLANAR:
        return about_z(torch.full((len(ids),), angle, dtype=torch.float64, device="cpu"))
    return roma.rotvec_to_rotmat(angle * haar_keyed(seed, ids, stream)[:, :, 0])


def from_quaternions(quaternions: Tensor) -> Tensor:
    """Rotation matrices of quaternions (n, 4) in (x, y, z, w) order, normalised first."""
    return roma.unitquat_to_rotmat(quaternions / quaternions.norm(dim=-1, keepdim=True))


@functools.cache
def _group_matrices(name: str) -> Tensor:
    """The rotations of a finite group, float64."""
    even: list[tuple[int, ...]] = [(0, 1, 2), (1, 2, 0), (2, 0, 1)]
    orders = {"D2": even[:1], "T": even, "O": list[tuple[int, ...]](itertools.permutations(range(3)))}
    if name in orders:
        signs = itertools.product((1.0, -1.0), repeat=3)
        signed = [np.eye(3)[list(p)] * np.array(s)[:, None] for p, s in itertools.product(orders[name], signs)]
        return torch.from_numpy(np.stack([m for m in signed if np.linalg.det(m) > 0]))
    return from_quaternions(torch.tensor(_icosian_quaternions(), dtype=torch.float64, device="cpu"))


def _icosian_quaternions() -> list[tuple[float, ...]]:
    """One of each ± pair of the 120 unit icosians, whose rotations are the icosahedral group."""
    golden = (1 + math.sqrt(5)) / 2
    units = {tuple(float(v) for v in row) for row in np.concatenate([np.eye(4), -np.eye(4)])}
    units |= set(itertools.product((0.5, -0.5), repeat=4))
    for signs in itertools.product((1, -1), repeat=3):
        base = [0.0, signs[0] / (2 * golden), signs[1] / 2, signs[2] * golden / 2]
        for order in itertools.permutations(range(4)):
            inversions = sum(a > b for a, b in itertools.combinations(order, 2))
            if inversions % 2 == 0:
                units.add(tuple(base[i] for i in order))
    halves = [q for q in units if next(v for v in reversed(q) if abs(v) > 1e-9) > 0]
    return sorted(halves, reverse=True, key=lambda q: (q[3], q))


def group(name: str) -> RotationSet:
    """A finite rotation group: D2 (4 rotations, degree 1), T (12, 2), O (24, 3) or I (60, 5); an InputError
    for others.
    """
    if name not in GROUP_DEGREES:
        raise InputError(f"unknown rotation group {name!r}; the finite groups are {', '.join(GROUP_DEGREES)}")
    matrices = _group_matrices(name)
    return RotationSet(name, matrices, _uniform(len(matrices)), GROUP_DEGREES[name])


def _uniform(count: int) -> Tensor:
    return torch.full((count,), 1.0 / count, dtype=torch.float64, device="cpu")


def super_fibonacci(count: int) -> RotationSet:
    """``count`` >= 1 evenly spread rotations on a super-Fibonacci spiral (Alexa, CVPR 2022); exact degree 0."""
    if count < 1:
        raise InputError(f"super-Fibonacci needs at least one rotation, got {count}")
    phi, psi = math.sqrt(2.0), 1.533751168755204288118041  # psi**4 = psi + 4
    s = torch.arange(count, dtype=torch.float64, device="cpu") + 0.5
    r, big = torch.sqrt(s / count), torch.sqrt(1 - s / count)
    alpha, beta = 2 * math.pi * s / phi, 2 * math.pi * s / psi
    quaternions = torch.stack([r * alpha.sin(), r * alpha.cos(), big * beta.sin(), big * beta.cos()], dim=-1)
    return RotationSet(f"superfibonacci-{count}", from_quaternions(quaternions), _uniform(count), 0)


@functools.cache
def lebedev(degree: int) -> RotationSet:
    """Product of a Lebedev grid of odd degree t on the sphere with t+1 equal angles about each axis: degree t.

    With D^l(R(n, gamma)) built from functions of the axis of degree l and e^{i m gamma}, |m| <= l <= t, the angles
    remove every m != 0 and the grid every remaining l. Degrees with negative weights are refused.

    Raises:
        InputError: for a degree without a Lebedev grid of positive weights in SciPy's table.
    """
    from scipy.integrate import lebedev_rule

    try:
        points, weights = lebedev_rule(degree)
    except (NotImplementedError, ValueError) as error:
        raise InputError(f"no Lebedev grid of degree {degree} is tabulated: choose 3, 5, 7, 9, 11, 15 …") from error
    if weights.min() <= 0:
        raise InputError(f"the Lebedev grid of degree {degree} has weights <= 0: choose another degree")
    frames = _frames_with_z(torch.from_numpy(np.ascontiguousarray(points.T)))
    angles = 2 * math.pi * torch.arange(degree + 1, dtype=torch.float64, device="cpu") / (degree + 1)
    matrices = (frames[:, None] @ about_z(angles)[None]).reshape(-1, 3, 3)
    shares = torch.from_numpy(weights / weights.sum()).repeat_interleave(len(angles)) / len(angles)
    return RotationSet(f"lebedev-{degree}", matrices, shares, degree)


def _frames_with_z(axis: Tensor) -> Tensor:
    """Rotations whose third column is the given unit axis, (n, 3, 3)."""
    helper = torch.zeros_like(axis)
    helper.scatter_(1, axis.abs().argmin(dim=1, keepdim=True), 1.0)
    x = torch.linalg.cross(helper, axis)
    x = x / x.norm(dim=-1, keepdim=True)
    return torch.stack([x, torch.linalg.cross(axis, x), axis], dim=-1)


def rotation_set(name: str, symmetry: str = "SO3") -> RotationSet:
    """The set K of a design by its name, doubled by the inversion when the claimed symmetry is O(3).

    ``"haar"`` is the trivial group (independent rotations), ``"D2"|"T"|"O"|"I"`` the finite groups,
    ``"superfibonacci-N"`` and ``"lebedev-T"`` deterministic sets. Of the octahedral group ``"O"`` only itself, its
    subgroups T and D2, and ``"haar"`` (its own elements, drawn independently) can be sets.

    Raises:
        InputError: for an unknown name, or one whose rotations are not all in the claimed symmetry.
    """
    if symmetry in PLANAR:
        matrices = planar_matrices(name, symmetry)
        return RotationSet(name, matrices, _uniform(len(matrices)), 0)
    if not isinstance(name, str):
        raise InputError(f"unknown rotations {reprlib.repr(name)}: give a name, such as 'T' or 'haar'")
    if symmetry == "O" and name not in ("O", "T", "D2", "haar"):
        raise InputError(f"rotations {name!r} leave the octahedral group that is claimed: use 'O', 'T', 'D2' or 'haar'")
    if name == "haar":
        base = RotationSet("haar", torch.eye(3, dtype=torch.float64, device="cpu")[None], _uniform(1), 0)
    elif name in GROUP_DEGREES:
        base = group(name)
    elif match := re.fullmatch(r"superfibonacci-(\d+)", name):
        base = super_fibonacci(int(match[1]))
    elif match := re.fullmatch(r"lebedev-(\d+)", name):
        base = lebedev(int(match[1]))
    else:
        raise InputError(
            f"unknown rotations {name!r}: use 'haar', one of {', '.join(GROUP_DEGREES)}, "
            "'superfibonacci-N' or 'lebedev-T'"
        )
    if symmetry != "O3":
        return base
    both = torch.cat([base.matrices, -base.matrices])
    return RotationSet(base.name, both, torch.cat([base.weights, base.weights]) / 2, base.degree)


def characters_of_traces(traces: Tensor, degree: int) -> Tensor:
    """SO(3) characters chi_l(g) = 1 + 2 sum_{m=1}^{l} cos(m theta) for l = 0..degree, (degree+1, ...), from tr g.

    cos(m theta) by the Chebyshev recurrence from cos(theta) = (tr g - 1)/2.
    """
    cosine = ((traces - 1) / 2).clamp(-1, 1)
    previous, current = torch.ones_like(cosine), cosine
    rows = [torch.ones_like(cosine)]
    for _ in range(degree):
        rows.append(rows[-1] + 2 * current)
        previous, current = current, 2 * cosine * current - previous
    return torch.stack(rows)


# Groups of images, which turn in their plane about the third axis: by any angle, which needs interpolation, and by
# quarter turns, which do not.
PLANAR = ("SO2", "C4")


def about_z(angles: Tensor) -> Tensor:
    """Rotations (n, 3, 3) float64 by angles (n,) in radians, which turn the first axis towards the second."""
    cosine, sine = angles.double().cos(), angles.double().sin()
    zero, one = torch.zeros_like(cosine), torch.ones_like(cosine)
    return torch.stack([cosine, -sine, zero, sine, cosine, zero, zero, zero, one], dim=-1).unflatten(-1, (3, 3))


@functools.cache
def cyclic(count: int) -> Tensor:
    """The group C_n of turns by 2 pi k / n, (n, 3, 3) float64; quarter turns are exact."""
    steps = torch.arange(count, dtype=torch.float64, device="cpu")
    matrices = about_z(2 * math.pi * steps / count)
    return torch.where((matrices - matrices.round()).abs() < 1e-9, matrices.round(), matrices)


def planar_matrices(name: str, symmetry: str) -> Tensor:
    """The turns of a set by its name: ``"haar"`` for one, ``"Cn"`` for n even ones, which average out every wave
    exp(i m angle) with m not a multiple of n.

    Raises:
        InputError: for another name, or turns that are no quarter turns where ``symmetry`` is C4.
    """
    found = re.fullmatch(r"C([1-9]\d{0,3})", name) if isinstance(name, str) else None
    count = 1 if name == "haar" else int(found[1]) if found else 0
    if count == 0 or (symmetry == "C4" and count not in (1, 2, 4)):
        known = "'C4', 'C2' or 'haar'" if symmetry == "C4" else "'C4', 'C8' or any 'Cn', or 'haar'"
        raise InputError(f"rotations {name!r} are none of the group {symmetry} of images: use {known}")
    return cyclic(count)


def planar_element(symmetry: str, turns: Tensor) -> Tensor:
    """A uniform element of the group from Haar rotations (n, 3, 3), whose first column has a uniform azimuth."""
    angles = torch.atan2(turns[:, 1, 0], turns[:, 0, 0])
    if symmetry == "C4":
        return cyclic(4)[(angles / (math.pi / 2)).floor().long() % 4]
    return about_z(angles)
