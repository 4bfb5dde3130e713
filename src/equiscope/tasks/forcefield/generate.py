"""Make a force-field data file: molecules, frames, GFN2-xTB labels; parallel, restartable, reproducible."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equiscope.errors import DataError, IntegrityError
from equiscope.files import needed
from equiscope.tasks.datasets import chemistry, processes, store
from equiscope.tasks.datasets.chemistry import Molecule, MoleculeFilter
from equiscope.tasks.forcefield.frames import ORIENTATIONS, SAMPLERS, sample_molecule
from equiscope.tasks.guards import at_least, one_of
from equiscope.tasks.molecules.recipe import Recipe, join, make_once
from equiscope.writing import remove_left_over

_SHARD = re.compile(r"\d{7,}\.npz")
FRAMES_PER_MOLECULE = 10
MOST_FRAMES_PER_MOLECULE = 200


@dataclass(frozen=True, kw_only=True)
class ForceFieldData(Recipe):
    """A set of labelled geometries; beside the settings of every :class:`Recipe`:

    Attributes:
        frames: how many.
        sampler: ``"jitter"`` (Gaussian displacements of relaxed conformers) or ``"langevin"`` (MMFF dynamics at 300 and
            500 K).
        frames_per_molecule: most of one molecule; ``None`` for 10, or up to 200 where there are too few molecules.
        orientation: ``"haar"`` (every frame turned by its own uniform rotation) or ``"embedded"`` (as RDKit left it,
            along its principal axes: a deliberate condition, never the default).
    """

    FORMAT = "equiscope-forcefield"

    frames: int = 4000
    sampler: str = "jitter"
    frames_per_molecule: int | None = None
    orientation: str = "haar"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, frames=self.frames, frames_per_molecule=self.frames_per_molecule)
        one_of(SAMPLERS, sampler=self.sampler)
        one_of(ORIENTATIONS, orientation=self.orientation)

    def name(self) -> str:
        """``forcefield-<sampler>-<frames>-seed<seed>``, and whatever else differs from the defaults."""
        name = f"forcefield-{self.sampler}-{self.frames}-seed{self.seed}"
        name += f"-atoms{self.min_atoms}to{self.max_atoms}" if (self.min_atoms, self.max_atoms) != (10, 20) else ""
        name += f"-per{self.frames_per_molecule}" if self.frames_per_molecule is not None else ""
        name += f"-{self.orientation}" if self.orientation != "haar" else ""
        return name if self.smiles is None else f"{name}-{Path(self.smiles).stem}"


@dataclass(frozen=True)
class Job:
    """One molecule to be made by some process: ``fingerprint`` tells whether its shard may be reused."""

    molecule: Molecule
    frames: int
    config: ForceFieldData
    shard: str
    fingerprint: str


def generate(config: ForceFieldData, workers: int | None = None, progress: bool = True) -> Path:
    """Make the data file of ``config`` if it is not there, and return its path; see :func:`make_once`.

    Molecules are taken in an order drawn from the seed until ``frames`` are labelled. A molecule's frames are a
    function of the seed and its line in the SMILES file alone, so the bytes depend neither on ``workers`` nor on
    whether an earlier call was killed: finished molecules are kept in ``<path>.parts/`` until the file is whole.
    (Another CPU type or another version of RDKit or tblite may change the last digits.)

    Raises:
        DataError: the molecules do not give that many frames; RDKit or tblite is missing; a worker died.
    """
    return make_once(config, lambda path, count: _make(config, path, count, progress), workers)


def _make(config: ForceFieldData, path: Path, workers: int, progress: bool) -> None:
    needed("tblite.interface", "tblite")
    source, smiles, digest = config.read_smiles()
    accepted, rejected = chemistry.select(smiles, MoleculeFilter(config.min_atoms, config.max_atoms))
    quota = _frames_per_molecule(config, len(accepted), rejected)
    metadata = config.metadata(source, digest, "GFN2-xTB (tblite)", ("numpy", "rdkit", "scipy", "tblite")) | {
        "frames_per_molecule": quota,
        "units": {"positions": "Å", "energy": "eV", "forces": "eV/Å"},
    }
    parts = path.with_name(f"{path.name}.parts")
    jobs = _jobs(config, accepted, quota, parts, metadata)
    taken, counts = _collect(jobs, config.frames, workers, progress)
    frames = sum(len(arrays["energy"]) for _, arrays in taken)
    if frames < config.frames:
        lost = {**counts["molecules"], **counts["frames"]}
        raise DataError(
            f"{len(accepted)} molecules gave {frames} of {config.frames} frames, at most {quota} each "
            f"(refused: {lost}); ask for fewer frames, more frames_per_molecule or a wider range of atoms"
        )
    metadata["counts"] = {
        "molecules read": sum(bool(text) for text in smiles),
        "molecules rejected": rejected,
        "molecules accepted": len(accepted),
        "molecules used": len(taken),
        "molecules dropped": counts["molecules"],
        "frames": frames,
        "frames rejected": counts["frames"],
        "notes": counts["notes"],
    }
    metadata["molecules"] = [{"line": m.index, "smiles": m.smiles} for m, _ in taken]
    store.write(path, join([arrays for _, arrays in taken], "frames"), metadata)
    _remove_shards(parts)


def _remove_shards(parts: Path) -> None:
    """Delete the shards and their folder; whatever else somebody keeps in it stays, and the folder with it."""
    for shard in parts.glob("*.npz"):
        if _SHARD.fullmatch(shard.name):
            shard.unlink()
    remove_left_over(parts)
    with suppress(OSError):
        parts.rmdir()


def _frames_per_molecule(config: ForceFieldData, accepted: int, rejected: Mapping[str, int]) -> int:
    """Frames of each molecule, or an error before any work where the molecules cannot be enough."""
    if config.frames_per_molecule is not None:
        quota = most = config.frames_per_molecule
    else:
        # A quarter above the mean, so that molecules lost on the way do not leave the set short.
        most = MOST_FRAMES_PER_MOLECULE
        quota = min(most, max(FRAMES_PER_MOLECULE, math.ceil(1.25 * config.frames / max(accepted, 1))))
    if accepted * most < config.frames:
        raise DataError(
            f"{config.frames} frames asked, but {accepted} molecules with at most {most} frames each give at "
            f"most {accepted * most} (molecules rejected: {dict(rejected)}); ask for fewer frames, widen "
            "min_atoms and max_atoms, or raise frames_per_molecule"
        )
    return quota


def _jobs(
    config: ForceFieldData, accepted: list[Molecule], quota: int, parts: Path, metadata: Mapping[str, Any]
) -> Iterator[Job]:
    decides = {name: value for name, value in metadata.items() if name != "config"}
    decides |= {"seed": config.seed, "sampler": config.sampler, "orientation": config.orientation}
    fingerprint = json.dumps(decides, sort_keys=True)
    for i in np.random.default_rng([config.seed, 0]).permutation(len(accepted)):
        shard = str(parts / f"{accepted[i].index:07d}.npz")
        yield Job(accepted[i], quota, config, shard, fingerprint)


def make_shard(job: Job) -> None:
    """Write the frames of one molecule, unless a sound file of the same fingerprint is there already."""
    with suppress(DataError, IntegrityError):
        if store.read(job.shard)[1]["fingerprint"] == job.fingerprint:
            return
    c = job.config
    made = sample_molecule(job.molecule, job.frames, seed=c.seed, sampler=c.sampler, orientation=c.orientation)
    store.write(job.shard, made.arrays(), {"fingerprint": job.fingerprint, "counts": made.counts})


def _collect(
    jobs: Iterable[Job], frames: int, workers: int, progress: bool
) -> tuple[list[tuple[Molecule, dict[str, np.ndarray]]], dict[str, dict[str, int]]]:
    """The first ``frames`` frames in the order of the jobs, and the counts of the molecules they took."""
    from tqdm import tqdm

    taken: list[tuple[Molecule, dict[str, np.ndarray]]] = []
    counts: dict[str, Counter[str]] = {"molecules": Counter(), "frames": Counter(), "notes": Counter()}
    missing = frames
    made = processes.ordered(make_shard, jobs, workers)
    with tqdm(total=frames, unit=" frames", desc="GFN2-xTB labels", disable=not progress) as bar:
        for job, _ in made:
            arrays, metadata = store.read(job.shard)
            for name, counter in counts.items():
                counter.update(metadata["counts"][name])
            new = min(len(arrays["energy"]), missing)
            if new:
                cut = {name: a if name == "species" else a[:new] for name, a in arrays.items()}
                taken.append((job.molecule, cut))
            missing -= new
            bar.update(new)
            if not missing:
                break
    made.close()
    return taken, {name: dict(sorted(counter.items())) for name, counter in counts.items()}
