"""Conformers for the voxel task: made once with RDKit, kept in a checksummed file, split by molecule."""

from __future__ import annotations

import importlib.metadata
import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equiscope.errors import DataError, InputError
from equiscope.tasks.datasets import conformers, molecules, processes, store
from equiscope.tasks.datasets.molecule_split import PARTS, split_molecules
from equiscope.tasks.datasets.molecules import ELEMENTS, Molecule, MoleculeFilter, Rejected
from equiscope.tasks.datasets.orientation import orientation
from equiscope.tasks.voxels.voxelise import Grid

FORMAT = "equiscope-conformers"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class ConformerData:
    """What a set of conformers is made of; two equal configurations give equal files.

    Attributes:
        molecules: most molecules, in an order drawn from the seed; None for all that pass.
        conformers: of each molecule, by ETKDG and MMFF.
        seed: of the choice of molecules, the conformers and the split.
        min_atoms, max_atoms: of a molecule, with hydrogens.
        elements: that a molecule may hold.
        smiles: a SMILES file of one's own (plain, .csv or .gz, such as MOSES'); None for the NCI list inside RDKit.
        path: of the data file; None for a name made of the above, under ``data/``.
    """

    molecules: int | None = None
    conformers: int = 4
    seed: int = 0
    min_atoms: int = 10
    max_atoms: int = 20
    elements: tuple[str, ...] = ELEMENTS
    smiles: str | None = None
    path: str | None = None

    def __post_init__(self) -> None:
        if self.molecules is not None and self.molecules < 3:
            raise InputError(f"molecules must be at least 3, one for each part, got {self.molecules}")
        if self.conformers < 1:
            raise InputError(f"conformers must be at least 1, got {self.conformers}")
        if self.seed < 0:
            raise InputError(f"seed must not be negative, got {self.seed}")
        if not 2 <= self.min_atoms <= self.max_atoms:
            raise InputError(f"need 2 <= min_atoms <= max_atoms, got {self.min_atoms} and {self.max_atoms}")

    def resolved_path(self) -> Path:
        """``path``, or ``data/conformers-….npz`` under the current folder."""
        if self.path is not None:
            return Path(self.path)
        name = f"conformers-{self.molecules or 'all'}x{self.conformers}-seed{self.seed}"
        name += f"-atoms{self.min_atoms}to{self.max_atoms}"
        if self.elements != ELEMENTS:
            name += "-" + "".join(self.elements)
        if self.smiles is not None:
            name += f"-{Path(self.smiles).name.split('.')[0]}"
        return Path("data") / f"{name}.npz"

    def content(self) -> dict[str, Any]:
        """All but the path, as plain types."""
        plain = {name: value for name, value in asdict(self).items() if name != "path"}
        return {**plain, "elements": list(self.elements)}


@dataclass(frozen=True)
class Job:
    """One molecule whose conformers some process makes."""

    molecule: Molecule
    conformers: int
    seed: int


def make(job: Job) -> tuple[np.ndarray, np.ndarray] | str:
    """Atomic numbers (N,) and centred positions (C, N, 3) in Å of a molecule, or the reason it was dropped for."""
    draw = np.random.default_rng([job.seed, job.molecule.index, 1])
    try:
        found = conformers.embed(job.molecule.smiles, int(draw.integers(2**31 - 1)), job.conformers)
    except Rejected as rejection:
        return rejection.reason
    centred = found.positions - found.positions.mean(axis=1, keepdims=True)
    return found.species.astype(np.uint8), centred.astype(np.float32)


def generate(config: ConformerData, workers: int | None = None, progress: bool = True) -> Path:
    """Make the data file of ``config`` if it is not there, and return its path.

    Raises:
        DataError: no molecule of the list passes; fewer than three are left; the file at the path is of another
            configuration; RDKit is missing.
        IntegrityError: the path holds a damaged file.
    """
    path = config.resolved_path()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with processes.exclusive(path):
            if not path.exists():
                _make(config, path, workers or processes.available_cores(), progress)
                return path
    _, metadata = store.read(path)
    found = metadata.get("config", {})
    differs = [f"{k}={found.get(k)!r} (asked: {v!r})" for k, v in config.content().items() if found.get(k) != v]
    if metadata.get("format") != FORMAT or differs:
        raise DataError(f"{path} was made with {', '.join(differs) or 'another tool'}; give another path, or delete it")
    return path


def _make(config: ConformerData, path: Path, workers: int, progress: bool) -> None:
    from tqdm import tqdm

    source = Path(config.smiles) if config.smiles else molecules.nci_smiles_path()
    smiles, digest = molecules.read_smiles(source)
    order = np.random.default_rng([config.seed, 0]).permutation(len(smiles))
    wanted = len(smiles) if config.molecules is None else config.molecules
    # Reading 1.5 million SMILES takes many minutes: no more of a long list than four times what is wanted.
    tried = sorted(order[: max(4 * wanted, 2000)].tolist())
    chosen = set(tried)
    accepted, rejected = molecules.select(
        (text if i in chosen else "" for i, text in enumerate(smiles)),
        MoleculeFilter(config.min_atoms, config.max_atoms, config.elements),
    )
    place = {int(line): turn for turn, line in enumerate(order)}
    accepted = sorted(accepted, key=lambda m: place[m.index])[:wanted]
    if len(accepted) < 3:
        raise DataError(
            f"{source} gives {len(accepted)} molecules of {sum(map(bool, smiles))} (rejected: {rejected}): at least 3 "
            "are needed; widen min_atoms, max_atoms or elements, or name another SMILES file"
        )
    jobs = (Job(m, config.conformers, config.seed) for m in accepted)
    kept, dropped = [], Counter[str]()
    bar = tqdm(total=len(accepted), unit=" molecules", desc="ETKDG + MMFF conformers", disable=not progress)
    for job, made in processes.ordered(make, jobs, workers):
        if isinstance(made, str):
            dropped[made] += 1
        else:
            kept.append((job.molecule, *made))
        bar.update()
    bar.close()
    arrays = {
        "species": np.concatenate([z for _, z, _ in kept]),
        "atoms": np.array([len(z) for _, z, _ in kept], dtype=np.int32),
        "conformers": np.array([len(x) for _, _, x in kept], dtype=np.int32),
        "positions": np.concatenate([x.reshape(-1, 3) for _, _, x in kept]),
    }
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "config": config.content(),
        "source": {"file": source.name, "sha256": digest},
        "method": "RDKit ETKDGv3 + MMFF94",
        "versions": {name: importlib.metadata.version(name) for name in ("numpy", "rdkit")},
        "counts": {"molecules rejected": rejected, "molecules used": len(kept), "molecules dropped": dict(dropped)},
    }
    store.write(path, arrays, metadata)


@dataclass(frozen=True)
class ConformerSet:
    """Conformers that fit a grid, padded to the largest molecule; F conformers, N atoms.

    Attributes:
        pos: (F, N, 3) float32 Å, centred, zero in the padding; as RDKit left them (along their principal axes).
        species: (F, N) int64, 0 in the padding; mask: (F, N).
        molecule: (F,) int64; part: (F,) int64, index into ``PARTS``.
        metadata: of the data file, and the count of conformers that do not fit the grid.
    """

    pos: Tensor
    species: Tensor
    mask: Tensor
    molecule: Tensor
    part: Tensor
    metadata: dict[str, Any]

    def __len__(self) -> int:
        return len(self.pos)

    def indices(self, part: str) -> Tensor:
        """Conformers of ``"train"``, ``"track"`` or ``"final"``.

        Raises:
            InputError: another name.
        """
        if part not in PARTS:
            raise InputError(f"part must be one of {', '.join(PARTS)}, got {part!r}")
        return torch.nonzero(self.part == PARTS.index(part))[:, 0]

    def batch(self, index: Tensor) -> dict[str, Tensor]:
        """``pos``, ``species``, ``mask``, ``molecule``, ``id`` of some conformers, padded to their largest molecule."""
        most = int(self.mask[index].sum(1).max())
        fields = {"pos": self.pos[index, :most], "species": self.species[index, :most], "mask": self.mask[index, :most]}
        return {**fields, "molecule": self.molecule[index], "id": index}

    def describe(self) -> dict[str, Any]:
        """Plain facts for a run's record."""
        parts = {
            name: {
                "conformers": int((self.part == i).sum()),
                "molecules": int(self.molecule[self.part == i].unique().numel()),
            }
            for i, name in enumerate(PARTS)
        }
        atoms = self.mask.sum(1)
        return {
            "conformers": len(self),
            "molecules": int(self.molecule.unique().numel()),
            "atoms": [int(atoms.min()), int(atoms.max())],
            "parts": parts,
            "orientation as embedded": orientation(self.pos, self.mask).to_dict(),
            **{k: self.metadata[k] for k in ("config", "source", "method", "versions", "counts")},
        }


def load(path: str | Path, grid: Grid) -> ConformerSet:
    """Read a data file and keep the conformers that fit the grid in every orientation.

    A conformer fits if no atom is farther from its centre than ``grid.reach``; the others, and those with an element
    that has no channel, are counted in ``metadata["counts"]["conformers rejected"]``.

    Raises:
        DataError: another kind of file, or a part of the split without a conformer that fits.
        IntegrityError: the file is damaged.
    """
    arrays, metadata = store.read(path)
    if metadata.get("format") != FORMAT or metadata.get("format_version") != FORMAT_VERSION:
        raise DataError(f"{path} holds {metadata.get('format')!r}, not {FORMAT!r} version {FORMAT_VERSION}")
    atoms = np.repeat(arrays["atoms"].astype(np.int64), arrays["conformers"])
    molecule = np.repeat(np.arange(len(arrays["atoms"])), arrays["conformers"])
    mask = np.arange(atoms.max())[None] < atoms[:, None]
    starts = np.cumsum(arrays["atoms"]) - arrays["atoms"]
    species = np.zeros(mask.shape, dtype=np.int64)
    species[mask] = arrays["species"][(starts[molecule][:, None] + np.arange(atoms.max()))[mask]]
    pos = np.zeros((*mask.shape, 3), dtype=np.float32)
    pos[mask] = arrays["positions"]
    unknown = (mask & ~np.isin(species, grid.elements)).any(1)
    outside = np.linalg.norm(pos, axis=-1).max(1) > grid.reach
    kept = ~(unknown | outside)
    counts = {"element without a channel": int(unknown.sum()), "outside the grid": int((outside & ~unknown).sum())}
    metadata["counts"] = {**metadata["counts"], "conformers rejected": counts}
    part = split_molecules(len(arrays["atoms"]), metadata["config"]["seed"]).numpy()[molecule]
    empty = [name for i, name in enumerate(PARTS) if not (kept & (part == i)).any()]
    if empty:
        largest = float(np.linalg.norm(pos, axis=-1).max())
        raise DataError(
            f"no conformer of part {empty[0]!r} fits the grid ({counts} of {len(kept)}): atoms reach {largest:.2f} Å "
            f"from the centre, the grid holds {max(grid.reach, 0.0):.2f} Å; take more voxels, a coarser resolution or "
            "a smaller radius"
        )
    tensors = (torch.from_numpy(a[kept]) for a in (pos, species, mask, molecule, part))
    return ConformerSet(*tensors, metadata)


def noise_grids(seeds: Tensor, grid: Grid, sigma: float, device: torch.device | str = "cpu") -> Tensor:
    """Voxel noise sigma * N(0, 1), (B, *grid.shape) float32: a function of each sample's seed (B,) and the device type.

    Raises:
        InputError: for a sigma that is negative or not finite.
    """
    if not 0 <= sigma < math.inf:
        raise InputError(f"the noise level sigma must be finite and not negative, got {sigma!r}")
    drawn = []
    for seed in seeds.tolist():
        generator = torch.Generator(device).manual_seed(seed)
        drawn.append(torch.randn(grid.shape, generator=generator, device=device))
    return sigma * torch.stack(drawn)
