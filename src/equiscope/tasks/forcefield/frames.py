"""All labelled frames of one molecule: a pure function of the seed and the molecule."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from equiscope.tasks.datasets import conformers, xtb
from equiscope.tasks.datasets.chemistry import Molecule, Rejected

SAMPLERS = {"jitter": conformers.jittered, "langevin": conformers.langevin}
ORIENTATIONS = ("haar", "embedded")
DRAWS = 2
"""Draws per wanted frame before a molecule is left with fewer."""


@dataclass(frozen=True)
class MoleculeFrames:
    """F labelled frames of one molecule of N atoms.

    Attributes:
        species: (N,) uint8 atomic numbers.
        positions: (F, N, 3) float32 Å, centred on their mean.
        energy: (F,) float64 eV.
        forces: (F, N, 3) float32 eV/Å.
        counts: how often a reason dropped the molecule (``molecules``), refused a frame (``frames``), or was
            only noted (``notes``).
    """

    species: np.ndarray
    positions: np.ndarray
    energy: np.ndarray
    forces: np.ndarray
    counts: dict[str, dict[str, int]]

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name."""
        return {name: getattr(self, name) for name in ("species", "positions", "energy", "forces")}


def sample_molecule(
    molecule: Molecule, frames: int, *, seed: int, sampler: str = "jitter", orientation: str = "haar"
) -> MoleculeFrames:
    """Up to ``frames`` labelled frames; what was refused is counted and replaced by another draw.

    Positions are turned and rounded to float32 before the label is computed, so that a label belongs exactly
    to the stored positions. ``"haar"`` and ``"embedded"`` draw the same geometries, and differ by rotations.
    """
    embedding, sampling, turning = np.random.SeedSequence([seed, molecule.index, 1]).spawn(3)
    turn = np.random.default_rng(turning)
    counts: dict[str, Counter[str]] = {"molecules": Counter(), "frames": Counter(), "notes": Counter()}
    kept: list[tuple[np.ndarray, xtb.Label]] = []
    species = np.zeros(0, dtype=np.int64)
    try:
        wanted = len(conformers.TEMPERATURES) if sampler == "langevin" else min(8, math.ceil(frames / 3))
        relaxed = conformers.embed(molecule.smiles, int(embedding.generate_state(1)[0] >> 1), wanted)
        species = relaxed.species
        counts["notes"]["conformers"] += len(relaxed.positions)
        counts["notes"]["MMFF not converged"] += relaxed.unconverged
        draws = SAMPLERS[sampler](relaxed, np.random.default_rng(sampling))
        for _ in range(DRAWS * frames):
            if len(kept) == frames:
                break
            x = _oriented(next(draws), turn, orientation)
            try:
                kept.append((x, xtb.label(species, x, relaxed.bonds)))
            except Rejected as rejection:
                counts["frames"][rejection.reason] += 1
        if not kept:
            raise Rejected("no frame accepted", molecule.smiles)
    except Rejected as rejection:
        counts["molecules"][rejection.reason] += 1
        kept = []
    shape = (-1, len(species), 3) if kept else (0, len(species), 3)
    return MoleculeFrames(
        species=species.astype(np.uint8),
        positions=np.array([x for x, _ in kept], dtype=np.float32).reshape(shape),
        energy=np.array([y.energy for _, y in kept], dtype=np.float64),
        forces=np.array([y.forces for _, y in kept], dtype=np.float32).reshape(shape),
        counts={name: dict(sorted(counter.items())) for name, counter in counts.items()},
    )


def _oriented(x: np.ndarray, rng: np.random.Generator, orientation: str) -> np.ndarray:
    # A normal 4-vector is a uniform unit quaternion.
    rotation = Rotation.from_quat(rng.normal(size=4)).as_matrix()
    x = x - x.mean(0)
    if orientation == "haar":
        x = x @ rotation.T
    return x.astype(np.float32).astype(np.float64)
