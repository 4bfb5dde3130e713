"""The twirled forces and the equivariance error of an EScAIP model in closed form, without any rotation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from equiscope.tasks.forcefield.escaip import Escaip


@dataclass(frozen=True)
class ClosedForm:
    """Result of :func:`closed_form`, padded like the batch.

    Attributes:
        forces: (B, N, 3) eV/Å, the model's own prediction.
        twirled: (B, N, 3) eV/Å, the mean μ of the twisted predictions over all rotations.
        equivariance: (B, N) (eV/Å)², E_g |p_g − μ|² of every atom (summed over its three components).
        per_sample: (B,) (eV/Å)², the mean of the equivariance error over the real components of a sample.
    """

    forces: Tensor
    twirled: Tensor
    equivariance: Tensor
    per_sample: Tensor


def closed_form(model: Escaip, batch: Mapping[str, Tensor]) -> ClosedForm:
    """Twirl and equivariance error of ``model`` on ``batch``, exact for any weights.

    With a_j = W h_j ∈ R³ per neighbour and invariant h, m and neighbour sets, the twisted prediction is
    p_g = m Σ_j gᵀ diag(a_j) g d_j. From E_g gᵀ S g = (tr S / 3) 1 follows, with ā_j the mean of the components of a_j,

        μ = m Σ_j ā_j d_j   and   E_g |p_g − μ|² = (m² / 3) Σ_c |Σ_j (a_jc − ā_j) d_j|².

    p_g is quadratic in g, so averages over the octahedral (or tetrahedral) rotations give the same values. Holds in
    evaluation and training alike (the model has no dropout), and everything is differentiable.
    """
    inputs = model.head_inputs(batch)
    atoms, valid = inputs.atoms, inputs.valid
    rows = model.force_head(inputs.features)
    rows = torch.where(valid[..., None], rows, 0.0)
    mean = rows.mean(-1, keepdim=True)
    magnitude = inputs.magnitude[:, None]
    forces = magnitude * (rows * inputs.unit).sum(1)
    twirled = magnitude * (mean * inputs.unit).sum(1)
    broken = torch.einsum("ajc,ajx->acx", rows - mean, inputs.unit)
    error = inputs.magnitude.square() / 3 * broken.square().sum((1, 2))
    counts = torch.bincount(atoms.sample, minlength=atoms.shape[0])
    return ClosedForm(
        forces=atoms.pad(forces),
        twirled=atoms.pad(twirled),
        equivariance=atoms.pad(error),
        per_sample=atoms.sum_samples(error) / (3 * counts),
    )
