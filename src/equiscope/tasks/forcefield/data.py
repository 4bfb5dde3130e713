"""The force-field data set in memory: tensors, the split by molecule, reference energies, padded batches."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equiscope.errors import DataError, InputError
from equiscope.tasks.datasets import store
from equiscope.tasks.datasets.molecule_split import PARTS, split_molecules
from equiscope.tasks.datasets.orientation import Orientation, orientation
from equiscope.tasks.forcefield.generate import FORMAT, FORMAT_VERSION, ForceFieldData, generate

__all__ = [
    "PARTS",
    "ForceFieldData",
    "FrameSet",
    "check_batch",
    "composition",
    "generate",
    "load",
    "reference_energies",
    "split_molecules",
]


@dataclass(frozen=True)
class FrameSet:
    """Labelled frames, padded to the largest molecule; F frames, N atoms.

    Attributes:
        pos: (F, N, 3) float32 Å, each frame centred on its mean; zero in the padding.
        species: (F, N) int64 atomic numbers, 0 in the padding.
        mask: (F, N) true for atoms.
        forces: (F, N, 3) float32 eV/Å; zero in the padding.
        total_energy: (F,) float64 eV, as labelled.
        energy: (F,) float32 eV, total minus the reference energies of its atoms: what a model learns.
        reference: (119,) float64 eV, reference energy of every atomic number, fitted on the training part.
        molecule: (F,) int64, the cluster a frame belongs to.
        part: (F,) int64, index into ``PARTS``.
        atoms: (F,) int64 atoms of a frame; stays on the CPU, so that a batch's padding needs no transfer.
        metadata: of the data file: configuration, counts of every rejection, versions, SMILES.
    """

    pos: Tensor
    species: Tensor
    mask: Tensor
    forces: Tensor
    total_energy: Tensor
    energy: Tensor
    reference: Tensor
    molecule: Tensor
    part: Tensor
    atoms: Tensor
    metadata: dict[str, Any]

    def __len__(self) -> int:
        return self.pos.shape[0]

    def indices(self, part: str) -> Tensor:
        """Frames (n,) of ``"train"``, ``"track"`` (validation) or ``"final"`` (test), in file order.

        Raises:
            InputError: another name.
        """
        if part not in PARTS:
            raise InputError(f"part must be one of {', '.join(PARTS)}, got {part!r}")
        return torch.nonzero(self.part == PARTS.index(part))[:, 0]

    def batch(self, indices: Tensor | list[int], pad_to: int | None = None) -> dict[str, Tensor]:
        """The frames at ``indices`` as a dense batch, padded to its largest molecule or to ``pad_to`` atoms.

        Returns:
            ``pos`` (B, N, 3), ``species`` (B, N), ``mask`` (B, N), ``energy`` (B,) with the reference
            energies subtracted, ``forces`` (B, N, 3), ``molecule`` (B,), ``id`` (B,) the number in the file.

        Raises:
            InputError: no index, one out of range, or ``pad_to`` smaller than a molecule.
        """
        index, n = check_batch(indices, self.atoms, pad_to)
        index = index.to(self.pos.device)
        out = {
            "pos": self.pos[index, :n],
            "species": self.species[index, :n],
            "mask": self.mask[index, :n],
            "energy": self.energy[index],
            "forces": self.forces[index, :n],
            "molecule": self.molecule[index],
            "id": index,
        }
        missing = n - out["mask"].shape[1]
        if missing > 0:
            for name in ("species", "mask"):
                out[name] = torch.nn.functional.pad(out[name], (0, missing))
            for name in ("pos", "forces"):
                out[name] = torch.nn.functional.pad(out[name], (0, 0, 0, missing))
        return out

    def to(self, device: torch.device | str) -> FrameSet:
        """The same set with its tensors on another device."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("atoms", "metadata")}
        return replace(self, **{name: tensor.to(device) for name, tensor in tensors.items()})

    def label_rms(self, frames: Tensor) -> tuple[float, float]:
        """Root mean squares of the force components (eV/Å) and of the energies learned (eV) of these frames."""
        forces = self.forces[frames][self.mask[frames]].double()
        return float(forces.square().mean().sqrt()), float(self.energy[frames].double().square().mean().sqrt())

    def orientation(self) -> Orientation:
        """The orientation tensor of all frames."""
        return orientation(self.pos, self.mask)

    def describe(self) -> dict[str, Any]:
        """Plain facts for a run's record: counts, split, orientation, label statistics."""
        return {
            **describe_frames(self, sorted(int(z) for z in torch.unique(self.species[self.mask]))),
            "orientation": self.orientation().to_dict(),
            **{k: self.metadata[k] for k in ("config", "source", "method", "versions", "counts")},
        }


def describe_frames(frames: Any, elements: list[int]) -> dict[str, Any]:
    """Counts, split, elements, reference energies (eV) and label statistics of a set of frames, however stored."""
    force, energy = frames.label_rms(frames.indices("train"))
    return {
        "frames": len(frames),
        "molecules": int(frames.molecule.max()) + 1,
        "atoms": [int(frames.atoms.min()), int(frames.atoms.max())],
        "parts": {
            name: {
                "frames": int((frames.part == i).sum()),
                "molecules": int(torch.unique(frames.molecule[frames.part == i]).numel()),
            }
            for i, name in enumerate(PARTS)
        },
        "elements": elements,
        "reference_energies": {str(z): float(frames.reference[z]) for z in elements},
        "force_rms": force,
        "energy_rms": energy,
    }



def check_batch(indices: Tensor | list[int], atoms: Tensor, pad_to: int | None) -> tuple[Tensor, int]:
    """Frame numbers (B,) on the CPU and the atoms the batch is padded to.

    Args:
        indices: frame numbers.
        atoms: (F,) atoms of every frame.
        pad_to: atoms; None for the largest of the batch.

    Raises:
        InputError: no index, one out of range, or ``pad_to`` smaller than a molecule.
    """
    index = torch.as_tensor(indices, dtype=torch.int64, device="cpu")
    if index.ndim != 1 or index.numel() == 0:
        raise InputError(f"indices must be a non-empty list of frames, got shape {tuple(index.shape)}")
    low, high = int(index.min()), int(index.max())
    if low < 0 or high >= len(atoms):
        raise InputError(f"frame numbers must be in 0..{len(atoms) - 1}, got {low}..{high}")
    largest = int(atoms[index].max())
    if pad_to is not None and pad_to < largest:
        raise InputError(f"pad_to={pad_to} is smaller than the largest molecule, {largest} atoms")
    return index, largest if pad_to is None else pad_to


def composition(species: Tensor) -> Tensor:
    """(F, 119) float64 atoms of each element in padded species (F, N), 0 in the padding."""
    counts = torch.nn.functional.one_hot(species, 119).sum(1).double()
    counts[:, 0] = 0
    return counts


def reference_energies(counts: Tensor, energy: Tensor, train: Tensor, weight: Tensor | None = None) -> Tensor:
    """Energies e per element minimising Σ w (E − Σ_atoms e[Z])² over training frames; (119,) eV, 0 if absent.

    An element that no training frame has would leave its energy, tens of eV or more, in the labels of
    held-out frames; it gets the least-squares fit to what the other elements leave of those frames.

    Args:
        counts: (F, 119) atoms of each element, see :func:`composition`.
        energy: (F,) total energies in eV.
        train: (F,) true for the training part.
        weight: (F,) w; 1 if None.
    """
    reference = torch.zeros(119, dtype=torch.float64)
    for frames in (train, ~train):
        missing = (counts[frames].sum(0) > 0) & (reference == 0)
        rows = counts[frames]
        rest = energy[frames] - rows @ reference
        rows = rows[:, missing]
        if weight is not None:
            root = weight[frames].sqrt()
            rows, rest = rows * root[:, None], rest * root
        if missing.any():
            fit = torch.linalg.lstsq(rows, rest[:, None], driver="gelsd").solution
            reference[missing] = fit[:, 0]
    return reference


def load(path: str | Path, verbose: bool = True) -> FrameSet:
    """Read a data file made by :func:`generate`, and print its orientation tensor.

    The split is a function of the file's seed; reference energies come from the training part alone.

    Raises:
        DataError: no such file, another kind of file, or fewer than three molecules.
        IntegrityError: the file is damaged.
    """
    arrays, metadata = store.read(path)
    if metadata.get("format") != FORMAT or metadata.get("format_version") != FORMAT_VERSION:
        raise DataError(
            f"{path} holds {metadata.get('format')!r} version {metadata.get('format_version')}, "
            f"not {FORMAT!r} version {FORMAT_VERSION}; make it again with this version"
        )
    dense = _pad(arrays)
    molecule = dense["molecule"]
    part = split_molecules(len(arrays["atoms"]), metadata["config"]["seed"])[molecule]
    species, total = dense["species"], dense["total_energy"]
    reference = reference_energies(composition(species), total, part == 0)
    frames = FrameSet(
        **dense,
        energy=(total - reference[species].sum(1)).float(),
        reference=reference,
        part=part,
        metadata=metadata,
    )
    if verbose:
        config = metadata["config"]
        print(
            f"{path}: {len(frames)} frames of {len(arrays['atoms'])} molecules ({config['sampler']}), "
            f"{frames.orientation()}"
        )
    return frames


def _pad(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    atoms = np.repeat(arrays["atoms"].astype(np.int64), arrays["frames"])
    mask = np.arange(atoms.max())[None] < atoms[:, None]
    species = np.zeros(mask.shape, dtype=np.int64)
    starts = np.cumsum(arrays["atoms"]) - arrays["atoms"]
    molecule = np.repeat(np.arange(len(arrays["atoms"])), arrays["frames"])
    species[mask] = arrays["species"][(starts[molecule][:, None] + np.arange(atoms.max()))[mask]]
    pos = np.zeros((*mask.shape, 3), dtype=np.float32)
    forces = np.zeros_like(pos)
    pos[mask], forces[mask] = arrays["positions"], arrays["forces"]
    dense = {
        "pos": pos,
        "species": species,
        "mask": mask,
        "forces": forces,
        "total_energy": arrays["energy"],
        "molecule": molecule,
        "atoms": atoms,
    }
    return {name: torch.from_numpy(array) for name, array in dense.items()}
