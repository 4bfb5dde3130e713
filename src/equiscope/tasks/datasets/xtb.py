"""Energies and forces by GFN2-xTB (tblite); a geometry or result that must not become a label is refused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from equiscope.errors import InputError
from equiscope.files import needed
from equiscope.tasks.datasets.chemistry import Rejected
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
        Rejected: a non-finite position; two atoms nearer than 0.6 Å; a bond longer than 1.45 times the sum of
            the covalent radii; an odd number of electrons.
        InputError: shapes that do not fit.
    """
    if positions.shape != (len(species), 3):
        raise InputError(
            f"positions of {len(species)} atoms must be ({len(species)}, 3), got {positions.shape}"
        )
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

    Every call starts from a fresh calculator, so that a label does not depend on what was labelled before.

    Args:
        species: (N,) atomic numbers.
        positions: (N, 3) Å.
        bonds: (B, 2) bonded atoms; if given, none may be stretched.

    Raises:
        Rejected: see :func:`check_geometry`; SCF not converged within 100 cycles; another failure in tblite;
            a non-finite result; a force above 25 eV/Å.
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
