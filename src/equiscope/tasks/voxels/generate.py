"""Make a file of conformers for the voxel task: molecules from a SMILES list, ETKDG and MMFF, in parallel.

Nothing here needs torch, so that the processes that make conformers start at once.
"""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from equiscope.errors import DataError
from equiscope.tasks.datasets import chemistry, processes, store
from equiscope.tasks.datasets.chemistry import ELEMENTS, Molecule, MoleculeFilter, Rejected
from equiscope.tasks.datasets.conformers import embed
from equiscope.tasks.guards import at_least
from equiscope.tasks.molecules.recipe import Recipe, join, make_once


@dataclass(frozen=True, kw_only=True)
class ConformerData(Recipe):
    """A set of conformers; beside the settings of every :class:`Recipe`:

    Attributes:
        molecules: most molecules, in an order drawn from the seed; None for all that pass.
        conformers: of each molecule, by ETKDG and MMFF.
        elements: that a molecule may hold.
    """

    FORMAT = "equiscope-conformers"

    molecules: int | None = None
    conformers: int = 4
    elements: tuple[str, ...] = ELEMENTS

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(3, molecules=self.molecules)  # one for each part
        at_least(1, conformers=self.conformers)

    def name(self) -> str:
        """``conformers-<molecules>x<conformers>-seed<seed>-atoms<min>to<max>``, and what differs from the defaults."""
        name = f"conformers-{self.molecules or 'all'}x{self.conformers}-seed{self.seed}"
        name += f"-atoms{self.min_atoms}to{self.max_atoms}"
        name += "-" + "".join(self.elements) if self.elements != ELEMENTS else ""
        return name if self.smiles is None else f"{name}-{Path(self.smiles).name.split('.')[0]}"


def make(molecule: Molecule, conformers: int, seed: int) -> dict[str, np.ndarray] | str:
    """``species`` (N,) and centred ``positions`` (C, N, 3) in Å of a molecule, or the reason it was dropped for."""
    draw = np.random.default_rng([seed, molecule.index, 1])
    try:
        found = embed(molecule.smiles, int(draw.integers(2**31 - 1)), conformers)
    except Rejected as rejection:
        return rejection.reason
    centred = found.positions - found.positions.mean(axis=1, keepdims=True)
    return {"species": found.species.astype(np.uint8), "positions": centred.astype(np.float32)}


def generate(config: ConformerData, workers: int | None = None, progress: bool = True) -> Path:
    """Make the data file of ``config`` if it is not there, and return its path; see :func:`make_once`.

    Raises:
        DataError: fewer than three molecules of the list pass, or get conformers; RDKit is missing.
    """
    return make_once(config, lambda path, count: _make(config, path, count, progress), workers)


def _accepted(config: ConformerData, source: Path, smiles: list[str]) -> tuple[list[Molecule], dict[str, int]]:
    """The molecules to be made, in the order drawn from the seed, and how many were rejected for each reason."""
    order = np.random.default_rng([config.seed, 0]).permutation(len(smiles))
    wanted = len(smiles) if config.molecules is None else config.molecules
    # Reading 1.5 million SMILES takes many minutes: no more of a long list than four times what is wanted.
    chosen = set(order[: max(4 * wanted, 2000)].tolist())
    accepted, rejected = chemistry.select(
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
    return accepted, rejected


def _make(config: ConformerData, path: Path, workers: int, progress: bool) -> None:
    from tqdm import tqdm

    source, smiles, digest = config.read_smiles()
    accepted, rejected = _accepted(config, source, smiles)
    kept, dropped = [], Counter[str]()
    one = functools.partial(make, conformers=config.conformers, seed=config.seed)
    # One worker is this process: a new one would take longer to start than a small set to make.
    pairs = processes.ordered(one, accepted, workers) if workers > 1 else ((m, one(m)) for m in accepted)
    bar = tqdm(pairs, total=len(accepted), unit=" molecules", desc="ETKDG + MMFF conformers", disable=not progress)
    for _, made in bar:
        if isinstance(made, str):
            dropped[made] += 1
        else:
            kept.append(made)
    if len(kept) < 3:
        raise DataError(
            f"conformers were found for {len(kept)} of {len(accepted)} molecules (dropped: {dict(dropped)}): at least "
            "3 are needed; take more molecules, or name another SMILES file"
        )
    counts = {"molecules rejected": rejected, "molecules used": len(kept), "molecules dropped": dict(dropped)}
    metadata = config.metadata(source, digest, "RDKit ETKDGv3 + MMFF94", ("numpy", "rdkit"))
    store.write(path, join(kept, "conformers"), {**metadata, "counts": counts})
