"""What every reader of a data set yields: blocks of frames with the same atoms, in Å, eV and eV/Å."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

FRAMES_AT_ONCE = 512
"""Frames of one block at most: what bounds the memory of a reader whose groups are long."""
SYMBOLS = (
    "X", "H", "He", "Li", "Be", "B", "C", "N", "O", "F", "Ne", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "Ar", "K",
    "Ca", "Sc", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Se", "Br", "Kr", "Rb", "Sr",
    "Y", "Zr", "Nb", "Mo", "Tc", "Ru", "Rh", "Pd", "Ag", "Cd", "In", "Sn", "Sb", "Te", "I", "Xe", "Cs", "Ba", "La",
    "Ce", "Pr", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb", "Lu", "Hf", "Ta", "W", "Re", "Os",
    "Ir", "Pt", "Au", "Hg", "Tl", "Pb", "Bi", "Po", "At", "Rn", "Fr", "Ra", "Ac", "Th", "Pa", "U", "Np", "Pu", "Am",
    "Cm", "Bk", "Cf", "Es", "Fm", "Md", "No", "Lr", "Rf", "Db", "Sg", "Bh", "Hs", "Mt", "Ds", "Rg", "Cn", "Nh", "Fl",
    "Mc", "Lv", "Ts", "Og",
)  # fmt: skip
"""Chemical symbols by atomic number."""
ARRAYS = ("positions", "energy", "forces", "stress", "cell")
NUMBER_OF = {symbol: number for number, symbol in enumerate(SYMBOLS)}


@dataclass(frozen=True)
class Block:
    """F frames of one group whose N atoms are the same, in the same order.

    Attributes:
        group: what belongs together and must stay on one side of a split: molecule, material, piece of a trajectory.
        numbers: (N,) int64 atomic numbers; positions: (F, N, 3) float64 Å.
        energy: (F,) float64 eV of the whole frame; forces: (F, N, 3) float64 eV/Å; or None.
        stress: (F, 3, 3) float64 eV/Å³, positive under tension (ASE's sign), or None.
        cell: (F, 3, 3) float64 Å, rows are lattice vectors; None for molecules.
        charge: total charge, where the source says it.
    """

    group: str
    numbers: np.ndarray
    positions: np.ndarray
    energy: np.ndarray | None = None
    forces: np.ndarray | None = None
    stress: np.ndarray | None = None
    cell: np.ndarray | None = None
    charge: int | None = None

    def __len__(self) -> int:
        return len(self.positions)

    def take(self, keep: np.ndarray) -> Block:
        """The frames that a boolean (F,) or an index array picks."""
        arrays = {name: getattr(self, name) for name in ARRAYS}
        return replace(self, **{name: array[keep] for name, array in arrays.items() if array is not None})

    def frames(self) -> Iterator[Block]:
        """One block for each frame."""
        for i in range(len(self)):
            yield self.take(np.array([i]))


def formula(numbers: np.ndarray) -> str:
    """Hill formula of atomic numbers: C6H6O."""
    counts = Counter(SYMBOLS[z] for z in np.asarray(numbers).tolist())
    first = [s for s in ("C", "H") if s in counts] if "C" in counts else []
    rest = sorted(set(counts) - set(first))
    return "".join(f"{s}{counts[s] if counts[s] > 1 else ''}" for s in [*first, *rest])
