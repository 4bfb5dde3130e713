"""EScAIP in closed form: the twirl and the equivariance error of its force head, for any weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from equiscope.tasks.forcefield.escaip import Escaip
from equiscope.tasks.forcefield.neighbours import FlatAtoms


@dataclass(frozen=True)
class HeadInputs:
    """What the force head reads, per atom and neighbour: F_i = m_i Σ_j (W h_ij) ⊙ d_ij.

    Attributes:
        magnitude: m (A,). features: h (A, K, H), the cutoff envelope included. unit: d (A, K, 3).
        valid: (A, K), which entries are neighbours; features and units are zero elsewhere.
        atoms: the atoms, to bring per-atom values back into the padded batch.
    """

    magnitude: Tensor
    features: Tensor
    unit: Tensor
    valid: Tensor
    atoms: FlatAtoms


def head_inputs(model: Escaip, batch: dict) -> HeadInputs:
    """Magnitudes, features, directions and their mask, as the force head reads them, by atom and neighbour."""
    atoms, edges, magnitude, features, _ = model._read_out(batch)
    valid, slot = edges.found.valid, edges.found.slot

    def table(values: Tensor) -> Tensor:
        flat = values.new_zeros(valid.numel(), values.shape[1]).index_copy(0, slot, values)
        return flat.reshape(*valid.shape, values.shape[1])

    return HeadInputs(magnitude, table(features), table(edges.unit), valid, atoms)


@dataclass(frozen=True)
class ClosedForm:
    """Result of :func:`closed_form`, padded like the batch.

    Attributes:
        forces, twirled: (B, N, 3) eV/Å, the model's own prediction, and the mean μ of its twisted ones over rotations.
        equivariance: (B, N) (eV/Å)², E_g |p_g − μ|² of every atom (summed over its three components).
        per_sample: (B,) (eV/Å)², the mean of the equivariance error over the real components of a sample.
    """

    forces: Tensor
    twirled: Tensor
    equivariance: Tensor
    per_sample: Tensor


def closed_form(model: Escaip, batch: dict) -> ClosedForm:
    """Twirl and equivariance error of ``model``, without dropout, on ``batch``, exact for any weights.

    With a_j = W h_j ∈ R³ per neighbour and invariant h, m and neighbour sets, the twisted prediction is
    p_g = m Σ_j gᵀ diag(a_j) g d_j. From E_g gᵀ S g = (tr S / 3) 1 follows, with ā_j the mean of the components of a_j,

        μ = m Σ_j ā_j d_j   and   E_g |p_g − μ|² = (m² / 3) Σ_c |Σ_j (a_jc − ā_j) d_j|².

    p_g is quadratic in g, so averages over the octahedral (or tetrahedral) rotations give the same values. Everything
    is differentiable.
    """
    inputs = head_inputs(model, batch)
    atoms, magnitude = inputs.atoms, inputs.magnitude[:, None]
    rows = torch.where(inputs.valid[..., None], model.force_head(inputs.features), 0.0)
    mean = rows.mean(-1, keepdim=True)
    forces, twirled = (atoms.pad(magnitude * (some * inputs.unit).sum(1)) for some in (rows, mean))
    broken = torch.einsum("ajc,ajx->acx", rows - mean, inputs.unit)
    error = inputs.magnitude.square() / 3 * broken.square().sum((1, 2))
    counts = torch.bincount(atoms.sample, minlength=atoms.shape[0])
    return ClosedForm(forces, twirled, atoms.pad(error), atoms.sum_samples(error) / (3 * counts))
