"""How one tensor rotates: irreps strings, Cartesian matrices, stress in Voigt order, as exact float64 matrices."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from e3nn import o3
from torch import Tensor

from equiscope.errors import InputError
from equiscope.symmetry.rotations import haar, rotation_set


@runtime_checkable
class Action(Protocol):
    """A unitary representation of O(3) on tensors whose last axes have the shape ``shape``.

    ``label`` and ``shape`` may be attributes of any kind, those of a frozen dataclass too.
    """

    @property
    def label(self) -> str:
        """How it is named in results."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The trailing shape of one element, for example ``(3,)``."""

    def act(self, rotations: Tensor, values: Tensor) -> Tensor:
        """D(g_i) x_i: rotations (n, 3, 3) float64, values (n, c, *shape) -> the same shape in float64."""

    def canonical(self, values: Tensor) -> Tensor:
        """The same elements in coordinates (…, d) whose Euclidean norm the action leaves unchanged."""

    def invariants(self, symmetry: str) -> Tensor:
        """Orthonormal basis (d, k) of the invariant vectors, in canonical coordinates."""


@functools.cache
def _sphere(degree: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """p = 2(2l+1) well spread directions (p, 3), and the inverse (2l+1, p) of the degree-l harmonics there."""
    count = 2 * (2 * degree + 1)
    k = torch.arange(count, dtype=torch.float64, device="cpu") + 0.5
    z, angle = 1 - 2 * k / count, k * 2.399963229728653  # the golden angle
    ring = torch.sqrt(1 - z * z)
    points = torch.stack([ring * angle.cos(), ring * angle.sin(), z], dim=-1)
    inverse = torch.linalg.pinv(o3.spherical_harmonics(degree, points, normalize=False))
    return points.to(device), inverse.to(device)


def wigner_d(degree: int, rotations: Tensor) -> Tensor:
    """Real Wigner matrices D^l(g) in e3nn's basis, (n, 2l+1, 2l+1) float64, for proper rotations (n, 3, 3).

    Solved from Y_l(g x) = D^l(g) Y_l(x) on fixed directions, which, unlike Euler angles, loses no digits near the
    poles, where every finite group has its elements. For l = 1 it is the rotation matrix itself.
    """
    if degree == 0:
        return torch.ones(len(rotations), 1, 1, dtype=torch.float64, device=rotations.device)
    if degree == 1:
        return rotations
    points, inverse = _sphere(degree, rotations.device)
    turned = torch.einsum("nij,pj->npi", rotations, points)
    harmonics = o3.spherical_harmonics(degree, turned, normalize=False)
    return torch.einsum("mp,npk->nkm", inverse, harmonics)


def _signs(rotations: Tensor) -> Tensor:
    """+1 for proper, -1 for improper orthogonal matrices, (n,)."""
    x, y, z = rotations.unbind(1)
    return torch.linalg.vecdot(x, torch.linalg.cross(y, z)).sign()


# What people call what e3nn writes as irreps.
_WORDS = {"vector": "1o", "position": "1o", "force": "1o", "1": "1o", "pseudovector": "1e", "axial": "1e",
          "scalar": "0e", "energy": "0e", "0": "0e", "pseudoscalar": "0o", "2": "2e", "tensor": "cartesian",
          "matrix": "cartesian", "stres": "stress", "voight": "voigt"}  # fmt: skip


@dataclass(frozen=True)
class IrrepsAction:
    """Direct sum of O(3) irreps in e3nn's notation and component order, for example ``2x0e+1o+2e``.

    An improper element -R acts as p D^l(R) with p the parity of the irrep; vectors are ``1o``, pseudovectors ``1e``.
    """

    label: str
    shape: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        try:
            irreps = o3.Irreps(self.label)
        except (ValueError, AssertionError) as error:
            word = _WORDS.get(str(self.label).lower().rstrip("s"))
            meant = f"; a {self.label} is {word!r}" if word else ""
            raise InputError(
                f"{self.label!r} is not an irreps string such as '1o' or '2x0e+1o+2e', nor 'cartesian', 'stress' or "
                f"'voigt'{meant}"
            ) from error
        if irreps.dim == 0:
            raise InputError(f"irreps {self.label!r} have dimension zero")
        object.__setattr__(self, "shape", (irreps.dim,))

    @property
    def irreps(self) -> o3.Irreps:
        return o3.Irreps(self.label)

    def act(self, rotations: Tensor, values: Tensor) -> Tensor:
        values = values.double()
        sign = _signs(rotations)
        proper = rotations * sign[:, None, None]
        parts, start = [], 0
        for multiplicity, irrep in self.irreps:
            width = multiplicity * irrep.dim
            part = values[..., start : start + width]
            start += width
            if irrep.p < 0:
                part = part * sign[:, None, None]
            if irrep.l > 0:
                part = part.unflatten(-1, (multiplicity, irrep.dim))
                part = torch.einsum("nij,ncmj->ncmi", wigner_d(irrep.l, proper), part).flatten(-2)
            parts.append(part)
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def canonical(self, values: Tensor) -> Tensor:
        return values

    def invariants(self, symmetry: str) -> Tensor:
        flags: list[bool] = []
        for multiplicity, irrep in self.irreps:
            fixed = irrep.l == 0 and (symmetry != "O3" or irrep.p == 1)
            flags += [fixed] * (multiplicity * irrep.dim)
        return torch.eye(self.shape[0], dtype=torch.float64, device="cpu")[:, torch.tensor(flags, device="cpu")]


@dataclass(frozen=True)
class MatrixAction:
    """Cartesian rank-2 tensors (…, 3, 3): S -> g S g^T (even under inversion).

    With ``symmetric`` (a stress) only the symmetric part (S + S^T)/2 is compared and averaged.
    """

    label: str = "cartesian"
    symmetric: bool = False
    shape: tuple[int, ...] = (3, 3)

    def act(self, rotations: Tensor, values: Tensor) -> Tensor:
        return torch.einsum("nij,ncjk,nlk->ncil", rotations, values.double(), rotations)

    def canonical(self, values: Tensor) -> Tensor:
        values = (values + values.mT) / 2 if self.symmetric else values
        return values.flatten(-2)

    def invariants(self, symmetry: str) -> Tensor:
        return (torch.eye(3, dtype=torch.float64, device="cpu") / 3**0.5).reshape(9, 1)


# ASE's Voigt order: xx, yy, zz, yz, xz, xy.
_VOIGT_TO_MATRIX = torch.tensor([0, 5, 4, 5, 1, 3, 4, 3, 2], device="cpu")
_MATRIX_TO_VOIGT = torch.tensor([0, 4, 8, 5, 2, 1], device="cpu")


@dataclass(frozen=True)
class VoigtAction:
    """Symmetric 3x3 tensors as six numbers in ASE's order xx, yy, zz, yz, xz, xy (no factor on off-diagonals).

    The plain norm of the six numbers is not rotation invariant, so losses are taken on the nine matrix entries.
    """

    label: str = "voigt"
    shape: tuple[int, ...] = (6,)

    def act(self, rotations: Tensor, values: Tensor) -> Tensor:
        turned = MatrixAction().act(rotations, self.canonical(values).unflatten(-1, (3, 3)))
        return turned.flatten(-2)[..., _MATRIX_TO_VOIGT.to(values.device, non_blocking=True)]

    def canonical(self, values: Tensor) -> Tensor:
        return values[..., _VOIGT_TO_MATRIX.to(values.device, non_blocking=True)]

    def invariants(self, symmetry: str) -> Tensor:
        return MatrixAction().invariants(symmetry)


def action(spec: str | Action) -> Action:
    """The action named by an irreps string, ``"cartesian"``, ``"stress"`` or ``"voigt"``; actions pass through.

    Raises:
        InputError: for anything else, or for an action that is not a unitary representation.
    """
    if isinstance(spec, str):
        stress = MatrixAction("stress", symmetric=True)
        named: dict[str, Action] = {"cartesian": MatrixAction(), "stress": stress, "voigt": VoigtAction()}
        return named.get(spec) or IrrepsAction(spec)
    if isinstance(spec, type):
        raise InputError(f"an action is an instance, got the class {spec.__name__}: write {spec.__name__}(…)")
    if not isinstance(spec, Action):
        raise InputError(f"an action is an irreps string or an object with act, canonical and invariants, got {spec!r}")
    _check_unitary(spec)
    return spec


def _check_unitary(spec: Action) -> None:
    """A custom action must preserve norms and compose like the rotations do, to 1e-9.

    An action that is exact on a finite group only names it as its ``group``, and is checked there.
    """
    generator = torch.Generator().manual_seed(7)
    exact_on = getattr(spec, "group", None)
    if exact_on is None:
        g, h = haar(4, generator), haar(4, generator)
    else:
        matrices = rotation_set(exact_on, exact_on).matrices
        g, h = (matrices[torch.arange(place, place + 4, device="cpu") % len(matrices)] for place in (5, 14))
    x = torch.randn(4, 1, *spec.shape, generator=generator, dtype=torch.float64, device="cpu")
    turned = spec.act(h, x)
    if turned.shape != x.shape:
        raise InputError(f"action {spec.label!r} turns shape {tuple(x.shape)} into {tuple(turned.shape)}")
    before, after = (spec.canonical(v).flatten(1).norm(dim=1) for v in (x, turned))
    # Written so that NaN fails too.
    if not (before - after).abs().max() <= 1e-9 * before.max():
        raise InputError(
            f"action {spec.label!r} is not unitary: it changes the norm of a random tensor from "
            f"{float(before[0]):.6g} to {float(after[0]):.6g}; the split of the loss needs an orthogonal action"
        )
    if not (spec.act(g, turned) - spec.act(g @ h, x)).abs().max() <= 1e-9 * x.abs().max():
        raise InputError(f"action {spec.label!r} is not a representation: D(g) D(h) differs from D(gh)")
