"""Make a file of conformers for the voxel task: molecules from a SMILES list, ETKDG and MMFF, in parallel.

Nothing here needs torch, so that the processes that make conformers start at once.
"""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equiscope.errors import DataError, InputError
from equiscope.tasks.datasets import conformers, molecules, processes, store
from equiscope.tasks.datasets.molecules import ELEMENTS, Molecule, MoleculeFilter, Rejected

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
    # One worker is this process: a new one would take longer to start than a small set to make.
    pairs = processes.ordered(make, jobs, workers) if workers > 1 else ((job, make(job)) for job in jobs)
    for job, made in pairs:
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
