"""The force-field data set in memory: labelled frames, reference energies, the split by molecule."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from equiscope.tasks.datasets.splits import split_molecules
from equiscope.tasks.forcefield.generate import ForceFieldData, generate
from equiscope.tasks.molecules.padded import PaddedSet, describe_split, read

__all__ = ["ForceFieldData", "FrameSet", "composition", "generate", "load", "reference_energies"]


@dataclass(frozen=True, kw_only=True)
class FrameSet(PaddedSet):
    """Labelled frames; F frames, N atoms. A batch also has ``forces`` (B, N, 3) and ``energy`` (B,).

    Attributes:
        forces: (F, N, 3) float32 eV/Å; zero in the padding.
        total_energy: (F,) float64 eV, as labelled.
        energy: (F,) float32 eV, total minus the reference energies of its atoms: what a model learns.
        reference: (119,) float64 eV, reference energy of every atomic number, fitted on the training part.
    """

    PER_ATOM: ClassVar[tuple[str, ...]] = ("pos", "species", "mask", "forces")
    PER_SAMPLE: ClassVar[tuple[str, ...]] = ("energy", "molecule")

    forces: Tensor
    total_energy: Tensor
    energy: Tensor
    reference: Tensor

    def label_rms(self, frames: Tensor) -> tuple[float, float]:
        """Root mean squares of the force components (eV/Å) and of the energies learned (eV) of these frames."""
        forces = self.forces[frames][self.mask[frames]].double()
        return float(forces.square().mean().sqrt()), float(self.energy[frames].double().square().mean().sqrt())

    def describe(self) -> dict[str, Any]:
        """Plain facts for a run's record: counts, split, orientation, label statistics."""
        elements = sorted(int(z) for z in torch.unique(self.species[self.mask]))
        return super().describe() | describe_frames(self, elements) | {"orientation": self.orientation().to_dict()}


def describe_frames(frames: Any, elements: list[int]) -> dict[str, Any]:
    """Counts, split, elements, reference energies (eV) and label statistics of a set of frames, however stored."""
    force, energy = frames.label_rms(frames.indices("train"))
    return describe_split(frames) | {
        "elements": elements,
        "reference_energies": {str(z): float(frames.reference[z]) for z in elements},
        "force_rms": force,
        "energy_rms": energy,
    }


def composition(species: Tensor) -> Tensor:
    """(F, 119) float64 atoms of each element in padded species (F, N), 0 in the padding."""
    counts = torch.nn.functional.one_hot(species, 119).sum(1).double()
    counts[:, 0] = 0
    return counts


def reference_energies(counts: Tensor, energy: Tensor, train: Tensor, weight: Tensor | None = None) -> Tensor:
    """Energies e per element minimising Σ w (E − Σ_atoms e[Z])² over training frames; (119,) eV, 0 if absent.

    An element that no training frame has would leave its energy, tens of eV or more, in the labels of held-out frames;
    it gets the least-squares fit to what the other elements leave of those frames. ``counts`` (F, 119) as of
    :func:`composition`, ``energy`` (F,) eV, ``train`` (F,) true for the training part, ``weight`` (F,) w, 1 if None.
    """
    reference = torch.zeros(119, dtype=torch.float64)
    for frames in (train, ~train):
        rows = counts[frames]
        missing = (rows.sum(0) > 0) & (reference == 0)
        rows, rest = rows[:, missing], energy[frames] - rows @ reference
        if weight is not None:
            root = weight[frames].sqrt()
            rows, rest = rows * root[:, None], rest * root
        if missing.any():
            reference[missing] = torch.linalg.lstsq(rows, rest[:, None], driver="gelsd").solution[:, 0]
    return reference


def load(path: str | Path, verbose: bool = True) -> FrameSet:
    """Read a data file made by :func:`generate`, and print its orientation tensor.

    The split is a function of the file's seed; reference energies come from the training part alone.

    Raises:
        DataError: no such file, another kind of file, or fewer than three molecules. IntegrityError: it is damaged.
    """
    arrays, metadata = read(path, ForceFieldData, "frames")
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    tensors["pos"], tensors["total_energy"] = tensors.pop("positions"), tensors.pop("energy")
    config, molecules = metadata["config"], int(tensors["molecule"][-1]) + 1
    part = split_molecules(molecules, config["seed"])[tensors["molecule"]]
    species, total = tensors["species"], tensors["total_energy"]
    reference = reference_energies(composition(species), total, part == 0)
    energy = (total - reference[species].sum(1)).float()
    frames = FrameSet(**tensors, energy=energy, reference=reference, part=part, metadata=metadata)
    if verbose:
        print(f"{path}: {len(frames)} frames of {molecules} molecules ({config['sampler']}), {frames.orientation()}")
    return frames
