"""The force field's baseline: a pair potential fitted by least squares, the best predictor linear in pair functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

#: Functions of the distance for each pair of elements, and the distances (Å) between which their centres lie.
FUNCTIONS, NEAREST, FARTHEST = 16, 0.7, 6.0
#: Ridge relative to the mean square of a feature: pairs that training hardly has get no weight.
RIDGE = 1e-8


class PairPotential(nn.Module):
    """Forces of a pair potential, exactly rotation equivariant and free of parameters that are trained.

        F_i = Σ_{j≠i} Σ_k c_{p(i,j),k} φ_k(r_ij) (x_i − x_j) / r_ij,      φ_k(r) = exp(−(r − r_k)² / 2w²)

    with c a least-squares fit of the forces for each unordered pair p of elements; centres r_k are evenly spaced and
    w is their spacing. Pairs beyond the last centre plus 3w are left out.

    Args:
        coefficients: (P, K) float64; elements: (S,) atomic numbers, ascending, P = S (S + 1) / 2.
    """

    coefficients: Tensor
    elements: Tensor

    def __init__(self, coefficients: Tensor, elements: Tensor) -> None:
        super().__init__()
        self.register_buffer("coefficients", coefficients)
        self.register_buffer("elements", elements)

    @classmethod
    def fit(cls, batches: Iterable[Mapping[str, Tensor]], elements: Tensor) -> PairPotential:
        """The potential with the least squared error of the ``forces`` of ``batches`` (``pos``, ``species``, ``mask``).

        Normal equations in float64, one batch after the other.
        """
        count = len(elements) * (len(elements) + 1) // 2
        size = count * FUNCTIONS
        normal, moment = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
        for batch in batches:
            mask = batch["mask"]
            basis, pair = _basis(batch["pos"], mask), _pairs(batch["species"], elements)
            features = _by_pair(basis, pair, count)[mask].flatten(0, 1).flatten(1)
            normal += features.T @ features
            moment += features.T @ batch["forces"][mask].double().flatten()
        normal.diagonal().add_(RIDGE * float(normal.diagonal().mean().clamp_min(1e-300)))
        return cls(torch.linalg.solve(normal, moment).reshape(count, FUNCTIONS), elements)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``forces`` (B, N, 3) and ``energy`` (B,) zero, in the dtype of the positions."""
        pos, mask = batch["pos"], batch["mask"]
        basis = _basis(pos, mask)
        pair = _pairs(batch["species"], self.elements.to(pos.device)).clamp_min(0)
        forces = torch.einsum("bijck,bijk->bic", basis, self.coefficients.to(pos.device)[pair])
        return {"forces": forces.to(pos.dtype), "energy": pos.new_zeros(len(pos))}


def _basis(pos: Tensor, mask: Tensor) -> Tensor:
    """φ_k(r_ij) times the unit vector from j to i, (B, N, N, 3, K) float64; zero for what is no pair."""
    points = pos.double()
    apart = points[:, :, None] - points[:, None]
    real = mask[:, :, None] & mask[:, None] & ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    distance = torch.where(real, apart.norm(dim=-1), torch.ones_like(apart[..., 0])).clamp_min(1e-6)
    centres = torch.linspace(NEAREST, FARTHEST, FUNCTIONS, dtype=torch.float64, device=pos.device)
    width = (FARTHEST - NEAREST) / (FUNCTIONS - 1)
    near = real & (distance < FARTHEST + 3 * width)
    radial = torch.exp(-0.5 * ((distance[..., None] - centres) / width) ** 2) * near[..., None]
    return torch.where(real[..., None], apart / distance[..., None], 0.0)[..., None] * radial[..., None, :]


def _pairs(species: Tensor, elements: Tensor) -> Tensor:
    """Number of the unordered pair of elements of each two atoms, (B, N, N)."""
    place = torch.searchsorted(elements, species).clamp_max(len(elements) - 1)
    low, high = torch.minimum(place[:, :, None], place[:, None]), torch.maximum(place[:, :, None], place[:, None])
    return high * (high + 1) // 2 + low


def _by_pair(basis: Tensor, pair: Tensor, count: int) -> Tensor:
    """The basis added up over neighbours by pair of elements, (B, N, 3, P, K)."""
    b, n, _, _, k = basis.shape
    out = basis.new_zeros(b, n, count, 3, k)
    index = pair[..., None, None].expand(-1, -1, -1, 3, k)
    return out.scatter_add_(2, index, basis).transpose(2, 3)
