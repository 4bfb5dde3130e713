"""Geometries of a molecule: ETKDG conformers relaxed with MMFF, then jittered or run through Langevin MD."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from equiscope.tasks.datasets.chemistry import Rejected, rdkit

JITTER = (0.03, 0.07)
TEMPERATURES = (300.0, 500.0)
BOLTZMANN = 0.0019872042586
"""kcal/mol/K, the energy unit of MMFF."""
ACCELERATION = 4.184e-4
"""1 kcal/mol/Å/Da in Å/fs²."""
BOND_FACTOR = 1.2
"""Atoms of a relaxed geometry nearer than this multiple of their covalent radii's sum count as bonded."""


@dataclass(frozen=True)
class Conformers:
    """Relaxed geometries of one molecule.

    Attributes:
        mol: the RDKit molecule with hydrogens and its conformers.
        species: (N,) atomic numbers; positions: (C, N, 3) Å; bonds: (B, 2) indices of bonded atoms.
        unconverged: conformers whose relaxation ran out of iterations; near a minimum and kept.
    """

    mol: Any
    species: np.ndarray
    positions: np.ndarray
    bonds: np.ndarray
    unconverged: int


def embed(smiles: str, seed: int, count: int = 3, iterations: int = 200) -> Conformers:
    """ETKDGv3 conformers of a SMILES, relaxed with MMFF94.

    Raises:
        Rejected: no embedding even from random coordinates, no MMFF force field, or a relaxed geometry whose
            near atoms are not the bonded ones.
    """
    Chem, AllChem = rdkit("Chem"), rdkit("Chem.AllChem")
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    quiet = rdkit("rdBase").BlockLogs()
    parameters = AllChem.ETKDGv3()
    parameters.randomSeed = seed
    parameters.numThreads = 1
    ids = list(AllChem.EmbedMultipleConfs(mol, count, parameters))
    if not ids:
        parameters.useRandomCoords = True
        ids = list(AllChem.EmbedMultipleConfs(mol, count, parameters))
    if not ids:
        raise Rejected("embedding failed", smiles)
    relaxed = AllChem.MMFFOptimizeMoleculeConfs(mol, numThreads=1, maxIters=iterations)
    if any(status < 0 for status, _ in relaxed):
        raise Rejected("no MMFF force field", smiles)
    del quiet
    species = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
    bonds = np.array([(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()]).reshape(-1, 2)
    positions = np.stack([mol.GetConformer(i).GetPositions() for i in ids])
    expected = {tuple(sorted(bond)) for bond in bonds.tolist()}
    if any(near_pairs(species, x) != expected for x in positions):
        raise Rejected("bonds changed in relaxation", smiles)
    return Conformers(mol, species, positions, bonds, sum(status == 1 for status, _ in relaxed))


def covalent_radii(species: np.ndarray) -> np.ndarray:
    """(N,) covalent radii in Å (RDKit's table)."""
    table = rdkit("Chem").GetPeriodicTable()
    return np.array([table.GetRcovalent(int(z)) for z in species])


def near_pairs(species: np.ndarray, positions: np.ndarray) -> set[tuple[int, int]]:
    """Pairs i < j with |x_i - x_j| below ``BOND_FACTOR`` times the sum of their covalent radii."""
    radii = covalent_radii(species)
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    near = distance < BOND_FACTOR * (radii[:, None] + radii[None])
    i, j = np.nonzero(np.triu(near, 1))
    return set(zip(i.tolist(), j.tolist(), strict=True))


def jittered(conformers: Conformers, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless frames (N, 3): x = conformer + sigma * normal, sigma uniform in 0.03-0.07 Å for each frame."""
    for base in itertools.cycle(conformers.positions):
        yield base + rng.uniform(*JITTER) * rng.normal(size=base.shape)


def mmff_gradient(mol: Any) -> Callable[[np.ndarray], np.ndarray]:
    """The MMFF94 gradient (kcal/mol/Å) of one molecule as a function of any positions, both (N, 3), in Å.

    RDKit caches distances in a force field: ``CalcGrad(list)``, and ``CalcGrad()`` after ``SetPositions``
    alone, answer for an older geometry. ``SetPositions`` followed by ``Initialize`` is exact.
    """
    AllChem = rdkit("Chem.AllChem")
    mol = rdkit("Chem").Mol(mol)
    conformer = mol.GetConformer()
    properties = AllChem.MMFFGetMoleculeProperties(mol)
    field = AllChem.MMFFGetMoleculeForceField(mol, properties, confId=conformer.GetId())

    def gradient(positions: np.ndarray) -> np.ndarray:
        conformer.SetPositions(np.ascontiguousarray(positions, dtype=np.float64))
        field.Initialize()
        return np.array(field.CalcGrad()).reshape(-1, 3)

    return gradient


def langevin(conformers: Conformers, rng: np.random.Generator, **settings: Any) -> Iterator[np.ndarray]:
    """Endless frames (N, 3) of MMFF Langevin dynamics, one trajectory at 300 K and one at 500 K, taken in turn.

    BAOAB splitting (Leimkuhler & Matthews, Appl. Math. Res. Express 2013) with ``step`` (0.5) in fs and ``friction``
    (0.02) in 1/fs; after ``equilibrate`` (500) steps a frame ``every`` (200) steps, centred on its mean.

    Raises:
        Rejected: the dynamics left the finite numbers.
    """
    starts = itertools.cycle(conformers.positions)
    runs = [
        _trajectory(conformers, start, np.random.default_rng(rng.integers(2**63, size=4)), temperature, **settings)
        for temperature, start in zip(TEMPERATURES, starts, strict=False)
    ]
    while True:
        for run in runs:
            x, _ = next(run)
            yield x - x.mean(0)


def _trajectory(
    conformers: Conformers,
    start: np.ndarray,
    rng: np.random.Generator,
    temperature: float,
    step: float = 0.5,
    friction: float = 0.02,
    equilibrate: int = 500,
    every: int = 200,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    gradient = mmff_gradient(conformers.mol)
    mass = np.array([atom.GetMass() for atom in conformers.mol.GetAtoms()])[:, None]
    thermal = np.sqrt(BOLTZMANN * temperature * ACCELERATION / mass)
    keep = np.exp(-friction * step)
    x, v = start.copy(), thermal * rng.normal(size=start.shape)
    a = -ACCELERATION * gradient(x) / mass
    done = -equilibrate
    while True:
        v = v + 0.5 * step * a
        x = x + 0.5 * step * v
        v = keep * v + np.sqrt(1 - keep**2) * thermal * rng.normal(size=v.shape)
        x = x + 0.5 * step * v
        a = -ACCELERATION * gradient(x) / mass
        v = v + 0.5 * step * a
        done += 1
        if not np.isfinite(x).all():
            raise Rejected("dynamics not finite", f"after {done + equilibrate} steps at {temperature} K")
        if done > 0 and done % every == 0:
            yield x.copy(), v.copy()
