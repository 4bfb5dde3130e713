"""ASE calculators whose equivariance error is known in closed form, and structures to try them on."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.neighborlist import neighbor_list
from ase.stress import full_3x3_to_voigt_6_stress

FORCE = np.array([0.3, -0.2, 0.5])
DIPOLE = np.array([0.1, 0.4, -0.2])
STRESS = np.array([0.02, -0.01, -0.04, 0.03, -0.05, 0.01])
CUTOFF = 4.0
# Symmetric and traceless: what a fixed one does to a vector is of Wigner degree 2 alone.
BEND = np.array([[0.02, 0.03, -0.01], [0.03, -0.05, 0.02], [-0.01, 0.02, 0.03]])
TILT = np.array([0.01, -0.02, 0.03])


def bent_share() -> float:
    """Relative equivariance error of vectors v + B v: q / (1 + q) with q = tr(B B) / 3, since E R^T B B R = q."""
    q = float((BEND @ BEND).trace()) / 3
    return q / (1 + q)


def stress_matrix(voigt: np.ndarray) -> np.ndarray:
    """The 3x3 tensor of ASE's xx, yy, zz, yz, xz, xy."""
    xx, yy, zz, yz, xz, xy = voigt
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


class Broken(Calculator):
    """Lennard-Jones plus constants fixed in the laboratory: force on every atom, stress, and energy d . sum_i Z_i r_i.

    With p_g = f + g^T c the equivariance error per component is |c|^2/3 for forces, |dev S|_F^2/9 for the stress and
    |d|^2 |sum_i Z_i r_i|^2/3 for the energy.
    """

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, force: Any = FORCE, dipole: Any = 0 * DIPOLE, stress: Any = STRESS):
        super().__init__()
        self.peer = LennardJones(sigma=2.2, epsilon=0.3, rc=4.5, smooth=True)
        self.constants = (np.asarray(force), np.asarray(dipole), np.asarray(stress))
        self.calls = 0

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        self.calls += 1
        self.peer.calculate(atoms, ["energy", "forces"], all_changes)
        force, dipole, stress = self.constants
        self.results = dict(self.peer.results)
        self.results["energy"] += float(dipole @ (atoms.numbers @ atoms.positions))
        self.results["forces"] = self.results["forces"] + force
        if "stress" in self.results:
            self.results["stress"] = self.results["stress"] + stress


class Raising(Broken):
    """Refuses structures with an atom of the given number, at its third call for them."""

    def __init__(self, number: int = 79):
        super().__init__()
        self.number, self.seen = number, 0

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        if self.number in atoms.numbers:
            self.seen += 1
            if self.seen > 2:
                raise ValueError("no parameters\nfor gold")
        super().calculate(atoms, properties, system_changes)


class Random(Broken):
    """Adds noise from NumPy's global state."""

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        self.results["forces"] = self.results["forces"] + 0.1 * np.random.standard_normal(self.results["forces"].shape)


class ForgetsCell(Broken):
    """Takes the periodic box as orthorhombic along the laboratory axes, as if the lattice never turned."""

    def __init__(self) -> None:
        super().__init__(0 * FORCE, 0 * DIPOLE, 0 * STRESS)

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        boxed = atoms.copy()
        boxed.set_cell(np.diag(atoms.cell.lengths()), scale_atoms=False)
        super().calculate(boxed, properties, system_changes)


class Fields(Calculator):
    """An energy that couples momenta, moments, a field of ``info`` and charges to the positions."""

    implemented_properties = ("energy", "forces")

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        centred = atoms.positions - atoms.positions.mean(0)
        momenta, moments = atoms.get_momenta(), atoms.get_initial_magnetic_moments()
        charges = atoms.get_initial_charges()
        field = np.asarray(atoms.info.get("e_field", np.zeros(3)), dtype=float)
        energy = float((momenta * centred).sum() + charges @ (centred @ field))
        forces = charges[:, None] * field
        if moments.ndim == 2:
            # m . (r x p): a scalar only if the moment is a pseudovector.
            energy += float((moments * np.cross(centred, momenta)).sum())
            forces = forces + np.cross(moments, momenta)
        self.results = {"energy": energy, "forces": forces}


class PairsInAse(Calculator):
    """Energy: sum over pairs (1 - r²/c²)³ / 2 + t . sum of positions; forces its gradient, or ``direct``: (1 + B) times
    those of the pairs.
    """

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, bend: Any = BEND, tilt: Any = 0 * TILT, direct: bool = False):
        super().__init__()
        self.bend, self.tilt, self.direct = np.asarray(bend), np.asarray(tilt), direct

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        first, second, vector = neighbor_list("ijD", atoms, CUTOFF)
        inside = 1 - (vector**2).sum(-1) / CUTOFF**2
        weight = (1 + atoms.numbers[first]) * (1 + atoms.numbers[second]) / 100
        pull = -(weight * 6 * inside**2 / CUTOFF**2)[:, None] * vector
        forces = np.zeros((len(atoms), 3))
        np.add.at(forces, first, pull)
        self.results["energy"] = (weight * inside**3).sum() / 2 + float((atoms.positions @ self.tilt).sum())
        self.results["forces"] = forces + forces @ self.bend if self.direct else forces - self.tilt
        if atoms.cell.rank == 3:
            gradient = vector.T @ pull / 2 + atoms.positions.sum(0)[:, None] * self.tilt[None]
            whole = gradient / atoms.get_volume()
            self.results["stress"] = full_3x3_to_voigt_6_stress((whole + whole.T) / 2)


def crystals() -> list[Atoms]:
    """Copper and aluminium, sheared and rattled, so that no symmetry hides a wrong rotation."""
    made = [bulk("Cu") * (2, 1, 1), bulk("Al", cubic=True), bulk("Cu", "bcc", a=2.9) * (1, 2, 1)]
    for seed, atoms in enumerate(made):
        shear = np.eye(3) + 0.05 * np.random.default_rng(seed).standard_normal((3, 3))
        atoms.set_cell(atoms.cell @ shear, scale_atoms=True)
        atoms.rattle(0.08, seed=seed)
    return made


def molecules() -> list[Atoms]:
    """Water and methane, off the origin."""
    made = [molecule("H2O"), molecule("CH4")]
    for seed, atoms in enumerate(made):
        atoms.rattle(0.05, seed=seed)
        atoms.translate([1.0, -2.0, 0.5])
    return made


def make_emt() -> EMT:
    """A factory, for the command line."""
    return EMT()
