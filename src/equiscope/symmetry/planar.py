"""Rotations in the plane of images, about the third axis: all of them, SO(2), and the quarter turns, C4."""

from __future__ import annotations

import functools
import math
import re

import torch
from torch import Tensor

from equiscope.errors import InputError

# Groups of images: any angle, which needs interpolation, and quarter turns, which do not.
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
