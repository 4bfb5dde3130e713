"""Several symmetries at once, and how much of the error each adds in nested order.

With independent transformations g_1, …, g_k of k families, p = p_{g_1 … g_k} with g_k moving a sample first and g_1
last. Averaging over g_1, then over g_2 and so on, the law of total variance is

    Var p = V_1 + … + V_k,        V_j = E_{g_{j+1} … g_k} Var_{g_j} E_{g_1 … g_{j-1}} p

V_1 is the error of the first family; V_2 what the second still finds in the model that is averaged over the first; and
so on. A stair of k + 1 cells shows them all: from one cell to the next all families up to the step's are drawn anew,

    cell 0    g_1     g_2    g_3              P_c: the mean over the coset of g_1 in cell c, W_c: the variance in it
    cell 1    g_1'    g_2    g_3              D_j = mean over a < j of |P_a - P_j|^2 / 2
    cell 2    g_1''   g_2'   g_3
    cell 3    g_1'''  g_2''  g_3'

Cells a < j share g_{j+1} … g_k and nothing else, so E D_j = E Var_{g_1 … g_j}(P), and with W the mean of W_c

    V_1 = W + D_1,        V_j = D_j - D_{j-1}

are unbiased (pairs that share some inputs: Sobol, Math. Comput. Simul. 55, 2001, 271). An outermost family that is
finite and taken whole (n elements) gives its two draws without replacement, which makes its term n / (n - 1) times as
large: V_k = (1 - 1/n) (D_k - D_{k-1}).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from equiscope.decomposition.batches import Batch, Rows
from equiscope.decomposition.symmetries.moves import Family, MoveKey, Moves, Step
from equiscope.symmetry.declaration import Declaration
from equiscope.symmetry.rotations import RotationSet

# Far above the streams of the noise floor and of second cosets.
MOVES_STREAM = 1 << 42
_LEVEL, _STAIR = 1 << 36, 1 << 8


@dataclass(frozen=True)
class Scheme:
    """Families, innermost first, and how their transformations are drawn: one alone, or several in stairs."""

    families: tuple[Family, ...]

    @property
    def label(self) -> str:
        return ", ".join(family.label for family in self.families)

    @property
    def several(self) -> bool:
        return len(self.families) > 1

    @property
    def exact(self) -> bool:
        """Whether one coset is everything there is."""
        return not self.several and self.families[0].whole

    @property
    def cells(self) -> int:
        """Cosets of the innermost family that belong together."""
        return len(self.families) + 1 if self.several else 1

    def placed(self, batch: Batch | None, declaration: Declaration) -> RotationSet:
        """The passes that belong together, for a design that counts them; they are no rotations."""
        count = self.cells * self.families[0].size(batch, declaration)
        uniform = torch.full((count,), 1.0 / count, dtype=torch.float64, device="cpu")
        return RotationSet(self.label, torch.eye(3, dtype=torch.float64, device="cpu").expand(count, 3, 3), uniform, 0)

    def walk(self, seed: int, ids: Sequence[int], stair: int, size: int) -> Iterator[tuple[Moves, float, bool]]:
        """(moves, weight, last of its coset) of one coset, or of one stair of them; ``size`` is that of a coset."""
        weights = self.families[0].weights(size).tolist()
        for cell in range(self.cells):
            outer = tuple(self._step(seed, ids, stair, cell, level) for level in range(len(self.families) - 1, 0, -1))
            draw = MoveKey(seed, ids, _stream(stair, 0, cell))
            for place, weight in enumerate(weights):
                yield Moves((*outer, Step(self.families[0], draw, place))), weight, place == size - 1

    def _step(self, seed: int, ids: Sequence[int], stair: int, cell: int, level: int) -> Step:
        """An outer family's element of a cell: level j is drawn anew from cell j + 1 on."""
        number = max(0, cell - level)
        draw = MoveKey(seed, ids, _stream(stair, level, number))
        outermost = level == len(self.families) - 1
        # Without replacement only where two draws are all that is taken.
        choice = (MoveKey(seed, ids, _stream(stair, level, _STAIR - 1)), number) if outermost else (draw, 0)
        return Step(self.families[level], draw, choice=choice)

    def parts(self, batch: Batch, declaration: Declaration) -> StairParts | None:
        """What takes the variance apart; None for one family."""
        if not self.several:
            return None
        last = self.families[-1]
        return StairParts(len(self.families), 1 - 1 / last.size(batch, declaration) if last.whole else 1.0)


def _stream(stair: int, level: int, number: int) -> int:
    return MOVES_STREAM + level * _LEVEL + stair * _STAIR + number


@dataclass(frozen=True)
class StairParts:
    """The parts V_1 … V_k of the variance from the cells of stairs.

    Attributes:
        levels: k; finite: 1 - 1/n of an outermost family of n elements taken without replacement, 1 otherwise.
    """

    levels: int
    finite: float

    def of(self, means: Sequence[Tensor], within: Sequence[Tensor], rows: Rows) -> Tensor:
        """(samples, k) float64 from the coset means (n, c, d) and the variances (samples,) in the cosets."""
        size = self.levels + 1
        stairs = [means[start : start + size] for start in range(0, len(means), size)]
        stair_parts = []
        for cells in stairs:
            apart = [torch.zeros_like(within[0])]
            for step in range(1, size):
                pairs = [_mean_square(cells[a] - cells[step], rows) / 2 for a in range(step)]
                apart.append(torch.stack(pairs).mean(0))
            stair_parts.append(torch.stack(apart, dim=-1).diff(dim=-1))
        parts = torch.stack(stair_parts).mean(0)
        parts[:, -1] *= self.finite
        parts[:, 0] += torch.stack(list(within)).mean(0)
        return parts


def _mean_square(values: Tensor, rows: Rows) -> Tensor:
    """Over rows and components of each sample, (samples,)."""
    return rows.mean(values.square().flatten(2).mean(dim=-1))


def by_symmetry(scheme: Scheme, spectrum: Mapping[str, list[float]]) -> dict[str, list[Any]]:
    """Shares of the error of each family, innermost first, with their errors over clusters."""
    names = [family.label for family in scheme.families]
    return {"symmetries": names, "share": spectrum["share"], "error": spectrum["error"]}
