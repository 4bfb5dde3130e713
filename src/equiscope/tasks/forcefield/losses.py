"""The training losses of a force field, on standardised energies and forces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from equiscope.tasks.guards import at_least, one_of

LOSSES = ("squared", "escaip")


@dataclass(frozen=True)
class ForceFieldLoss:
    """A weighted sum of an energy and a force term, with E in units of sigma_E and F in units of sigma_F.

    With e = (E_hat - E) / sigma_E of a sample, d = (F_hat - F) / sigma_F of an atom and n its sample's atoms,

        squared:  w_F mean_samples (1 / 3n) sum_atoms |d|^2  +  w_E mean_samples e^2
        escaip:   w_F mean_atoms |d|                         +  w_E mean_samples |e|

    the second being the loss of EScAIP (arXiv 2410.24169), there with w_F = 100 and w_E = 4.

    Attributes:
        name: one of :data:`LOSSES`.
        forces, energy: the weights w_F and w_E.
        force_scale: sigma_F in eV/Å; energy_scale: sigma_E in eV.
    """

    name: str
    forces: float
    energy: float
    force_scale: float = 1.0
    energy_scale: float = 1.0

    def __post_init__(self) -> None:
        one_of(LOSSES, "loss.", name=self.name)
        at_least(0, "loss.", forces=self.forces, energy=self.energy)

    def __call__(self, answer: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``loss`` and its parts ``forces`` and ``energy``, unweighted, all scalars.

        Args:
            answer: ``energy`` (B,) in eV, ``forces`` (B, N, 3) in eV/Å.
            batch: with the same fields and ``mask`` (B, N).
        """
        mask = batch["mask"]
        error = (answer["forces"] - batch["forces"]) / self.force_scale
        error = torch.where(mask[..., None], error, error.new_zeros(()))
        offset = (answer["energy"] - batch["energy"]) / self.energy_scale
        if self.name == "squared":
            forces = (error.square().sum(dim=(1, 2)) / (3 * mask.sum(1))).mean()
            energy = offset.square().mean()
        else:
            length = torch.linalg.vector_norm(error, dim=-1)
            # Padding has length zero; picking atoms by the mask would wait for a GPU to count them.
            forces = length.sum() / mask.sum() if length.is_cuda else length[mask].mean()
            energy = offset.abs().mean()
        return {"loss": self.forces * forces + self.energy * energy, "forces": forces, "energy": energy}
