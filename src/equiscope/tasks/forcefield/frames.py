"""All labelled frames of one molecule: a pure function of the seed and the molecule."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from equiscope.errors import InputError
from equiscope.files import needed
from equiscope.tasks.datasets import conformers
from equiscope.tasks.datasets.chemistry import Molecule, Rejected
from equiscope.tasks.datasets.conformers import covalent_radii
from equiscope.units import BOHR, HARTREE

MIN_DISTANCE = 0.6
MAX_STRETCH = 1.45
MAX_FORCE = 25.0
MAX_CYCLES = 100


@dataclass(frozen=True)
class Label:
    """Energy (eV) and forces (N, 3) (eV/Å, minus the gradient) of one geometry, float64."""

    energy: float
    forces: np.ndarray


def check_geometry(species: np.ndarray, positions: np.ndarray, bonds: np.ndarray | None = None) -> None:
    """Nothing if a geometry may be labelled: tblite itself answers for overlapping and torn molecules.

    Raises:
        Rejected: a non-finite position; two atoms nearer than 0.6 Å; a bond longer than 1.45 times the sum of the
            covalent radii; an odd number of electrons. InputError: shapes that do not fit.
    """
    if positions.shape != (len(species), 3):
        raise InputError(f"positions of {len(species)} atoms must be ({len(species)}, 3), got {positions.shape}")
    if not np.isfinite(positions).all():
        raise Rejected("position not finite")
    if species.sum() % 2:
        raise Rejected("odd electrons", str(int(species.sum())))
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    nearest = (distance + np.diag(np.full(len(species), np.inf))).min()
    if nearest < MIN_DISTANCE:
        raise Rejected("atoms too near", f"{nearest:.3f} Å < {MIN_DISTANCE} Å")
    if bonds is not None and len(bonds):
        i, j = bonds.T
        radii = covalent_radii(species)
        stretch = (distance[i, j] / (radii[i] + radii[j])).max()
        if stretch > MAX_STRETCH:
            raise Rejected("bond stretched", f"{stretch:.2f} x covalent radii > {MAX_STRETCH}")


def label(species: np.ndarray, positions: np.ndarray, bonds: np.ndarray | None = None) -> Label:
    """GFN2-xTB energy and forces of a neutral closed-shell molecule (Bannwarth et al., JCTC 2019, 15, 1652).

    ``species`` (N,), ``positions`` (N, 3) Å, and if given ``bonds`` (B, 2), of which none may be stretched. Every call
    starts from a fresh calculator, so that a label does not depend on what was labelled before.

    Raises:
        Rejected: see :func:`check_geometry`; SCF not converged within 100 cycles; another failure in tblite; a
            non-finite result; a force above 25 eV/Å.
    """
    species, positions = np.asarray(species), np.asarray(positions, dtype=np.float64)
    check_geometry(species, positions, bonds)
    Calculator = needed("tblite.interface").Calculator
    TBLiteRuntimeError = needed("tblite.exceptions").TBLiteRuntimeError
    try:
        calculator = Calculator("GFN2-xTB", species, positions / BOHR)
        calculator.set("verbosity", 0)
        calculator.set("max-iter", MAX_CYCLES)
        result = calculator.singlepoint()
    except TBLiteRuntimeError as error:
        reason = "SCF not converged" if "not converged" in str(error) else "tblite failed"
        raise Rejected(reason, str(error)) from error
    energy = float(result.get("energy")) * HARTREE
    forces = -np.array(result.get("gradient")) * (HARTREE / BOHR)
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise Rejected("label not finite")
    largest = np.linalg.norm(forces, axis=-1).max()
    if largest > MAX_FORCE:
        raise Rejected("force too large", f"{largest:.1f} eV/Å > {MAX_FORCE} eV/Å")
    return Label(energy, forces)


SAMPLERS = {"jitter": conformers.jittered, "langevin": conformers.langevin}
ORIENTATIONS = ("haar", "embedded")
DRAWS = 2
"""Draws per wanted frame before a molecule is left with fewer."""


@dataclass(frozen=True)
class MoleculeFrames:
    """F labelled frames of one molecule of N atoms.

    Attributes:
        species: (N,) uint8 atomic numbers; positions: (F, N, 3) float32 Å, centred on their mean.
        energy: (F,) float64 eV; forces: (F, N, 3) float32 eV/Å.
        counts: how often a reason dropped the molecule (``molecules``), refused a frame (``frames``), or was only noted
            (``notes``).
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

    Positions are turned and rounded to float32 before the label is computed, so that a label belongs exactly to the
    stored positions. ``"haar"`` and ``"embedded"`` draw the same geometries, and differ by rotations.
    """
    embedding, sampling, turning = np.random.SeedSequence([seed, molecule.index, 1]).spawn(3)
    turn = np.random.default_rng(turning)
    counts: dict[str, Counter[str]] = {"molecules": Counter(), "frames": Counter(), "notes": Counter()}
    kept: list[tuple[np.ndarray, Label]] = []
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
                kept.append((x, label(species, x, relaxed.bonds)))
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
