"""The figures by which other benchmarks judge rotation symmetry, from the passes of this measure, beside its own.

    equiscope measure --calculator … structures.extxyz --export mlip-arena arena.csv --export ml-peg peg.csv

**MLIP Arena** (force equivariance, arXiv 2509.20630; 12 angles about 100 axes, 1,201 evaluations a structure) compares
every turned answer with the answer as given: the mean absolute change of the force components, and the cosine between
the forces on each atom (1 where both are below 1e-10, -1 where one is). A turn passes where the change is under 1e-3
eV/Å and every cosine over 1 - 1e-3; a structure where every turn does.

**ml-peg** (rotational symmetry, its issue 834; 115 orientations of each structure) compares each orientation with the
one before: change of the energy per atom, and mean absolute change of force components; means and maxima.

Here the turns are those of the measure, Haar distributed, 24 by default, and both comparisons are of forces turned
back. Means over structures have 95 % intervals by structures; a maximum over more turns is larger, and so is their
number that fails where a few do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equiscope.adapters.ase_result import MEASURED, AseResult
from equiscope.adapters.many import TURN, sizes
from equiscope.decomposition.plan import Plan
from equiscope.decomposition.statistics import ratio
from equiscope.errors import InputError
from equiscope.words import as_csv
from equiscope.writing import write_atomically

THRESHOLD = 1e-3
"""eV/Å, and of a cosine: what MLIP Arena lets pass."""
_ZERO, _SAME = 1e-10, 1e-9
_NEEDS = {"mlip-arena": ("forces",), "ml-peg": ("energy", "forces")}
Array = NDArray[np.float64]


def check_exports(exports: Mapping[str, Any] | None, outputs: Sequence[str]) -> Peers | None:
    """What keeps the passes; None where nothing is exported.

    Raises:
        InputError: for a benchmark that is not known, or needs an output that is not measured.
    """
    for name in exports or {}:
        if name not in _NEEDS:
            raise InputError(f"exports (--export) are for {', '.join(_NEEDS)}, got {name!r}")
        missing = [o for o in _NEEDS[name] if o not in outputs]
        if missing:
            raise InputError(f"the columns of {name} need {missing}, but the outputs are {list(outputs)}")
    return Peers() if exports else None


@dataclass
class Peers:
    """Answers as given and turned back, structure by structure.

    Attributes:
        given: id -> forces (atoms, 3) and energy per atom; turned: id -> place of a turn -> the same.
        turns: id -> the turns of the measure, (passes, 3, 3); a model is also asked at others, for the floor.
    """

    given: dict[int, tuple[Array, float]] = field(default_factory=dict)
    turned: dict[int, dict[int, tuple[Array, float]]] = field(default_factory=dict)
    turns: dict[int, Tensor] = field(default_factory=dict)

    def expect(self, plan: Plan, ids: Sequence[int]) -> None:
        """The turns of these structures are those of the plan."""
        walked = [one.turns for one in plan.walk(ids, torch.device("cpu"), 0, math.ceil(plan.design.cosets))]
        self.turns |= dict(zip(ids, torch.stack(walked, dim=1), strict=True))

    def keep(self, batch: Mapping[str, Any], answer: Mapping[str, Tensor]) -> None:
        """Keep the answer to a batch as given, or at turns of the measure."""
        images, counts = batch[TURN], sizes(batch)
        back = torch.einsum("ni,nji->nj", answer["forces"].double(), images[batch["system"]])
        nothing = torch.full((len(counts),), torch.nan, dtype=torch.float64, device="cpu")
        energies = answer["energy"].double() / counts if "energy" in answer else nothing
        parts = zip(batch["id"].tolist(), images.cpu(), back.detach().cpu().split(counts.tolist()), energies.tolist(),
                    strict=True)  # fmt: skip
        for name, image, forces, energy in parts:
            if torch.equal(image, torch.eye(3, dtype=image.dtype, device="cpu")):
                self.given[name] = (forces.numpy(), energy)
                continue
            apart = (self.turns[name] - image.mT).abs().amax((1, 2))
            if float(apart.min()) < _SAME:
                self.turned.setdefault(name, {})[int(apart.argmin())] = (forces.numpy(), energy)

    def rows(self, benchmark: str, result: AseResult) -> list[dict[str, Any]]:
        """A row for each structure that was measured, and one for all of them first."""
        measured = [row for row in result.rows if row.status == MEASURED and row.id in self.turned]
        judged = [_JUDGES[benchmark](self.given[row.id], self._in_order(row.id)) for row in measured]
        rows = [
            {"structure": str(row), **own, "equiscope_forces_rms": row.values["forces_rms"],
             "equiscope_forces_relative": row.values["forces_relative"]}
            for row, own in zip(measured, judged, strict=True)
        ]  # fmt: skip
        return [_all(rows), *rows]

    def _in_order(self, name: int) -> list[tuple[Array, float]]:
        return [answer for _, answer in sorted(self.turned[name].items())]

    def write(self, benchmark: str, path: str | Path, result: AseResult) -> None:
        """The table as CSV.

        Raises:
            InputError: where it cannot be written.
        """
        rows = self.rows(benchmark, result)
        names = list(rows[0])
        try:
            write_atomically(path, as_csv([names, *([row.get(name, "") for name in names] for row in rows)]))
        except OSError as error:
            raise InputError(f"cannot write the table to {str(path)!r}: {error.strerror}") from error


def arena(given: tuple[Array, float], turned: Sequence[tuple[Array, float]]) -> dict[str, Any]:
    """MLIP Arena's figures of one structure."""
    forces, others = given[0], np.stack([f for f, _ in turned])
    mae = np.abs(others - forces).mean((1, 2))
    sizes_given, sizes_turned = np.linalg.norm(forces, axis=-1)[None], np.linalg.norm(others, axis=-1)
    nothing = np.stack(np.broadcast_arrays(sizes_given < _ZERO, sizes_turned < _ZERO))
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = (others * forces).sum(-1) / (sizes_given * sizes_turned)
    cosine = np.where(nothing.all(0), 1.0, np.where(nothing.any(0), -1.0, cosine))
    passes = (mae < THRESHOLD) & (cosine > 1 - THRESHOLD).all(-1)
    return {
        "turns": len(turned),
        "mae": float(mae.mean()),
        "cosine": float(cosine.mean()),
        "equivariant_ratio": float(passes.mean()),
        "passed": bool(passes.all()),
    }


def peg(given: tuple[Array, float], turned: Sequence[tuple[Array, float]]) -> dict[str, Any]:
    """ml-peg's figures of one structure, over pairs of orientations in a row, the first as given."""
    forces = np.stack([given[0], *(f for f, _ in turned)])
    energies = np.array([given[1], *(e for _, e in turned)])
    by_force, by_energy = np.abs(np.diff(forces, axis=0)).mean((1, 2)), np.abs(np.diff(energies))
    return {
        "pairs": len(turned),
        "mean_energy_change": float(by_energy.mean()),
        "max_energy_change": float(by_energy.max()),
        "mean_force_change": float(by_force.mean()),
        "max_force_change": float(by_force.max()),
        "passed": bool(by_force.max() < THRESHOLD),
    }


_JUDGES = {"mlip-arena": arena, "ml-peg": peg}


def _all(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over structures with their intervals, maxima, and whether all passed."""
    made: dict[str, Any] = {"structure": f"all {len(rows)}"}
    for name in [k for k in rows[0] if k != "structure"]:
        values = np.array([row[name] for row in rows], dtype=np.float64)
        if name in ("turns", "pairs"):
            made[name] = int(values.max())
        elif name == "passed":
            made[name] = bool(values.all())
        elif name.startswith("max_"):
            made[name] = float(values.max())
        else:
            made |= zip((name, f"{name}_low", f"{name}_high"), _mean(name, values, rows), strict=True)
    return made


def _mean(name: str, values: Array, rows: Sequence[Mapping[str, Any]]) -> tuple[float, float, float]:
    """The mean of a column and its interval; ours as roots and ratios of means."""
    ones = np.ones(len(values))
    if name == "cosine":
        value, low, high = _interval(1 - values, ones)
        return 1 - value, 1 - high, 1 - low
    if name == "equiscope_forces_rms":
        value, low, high = (math.sqrt(max(v, 0.0)) for v in _interval(values**2, ones))
        return value, low, high
    if name == "equiscope_forces_relative":
        error = np.array([row["equiscope_forces_rms"] ** 2 for row in rows])
        square = np.divide(error, values, out=ones, where=values > 0)
        return _interval(error, square)
    return _interval(values, ones)


def _interval(values: Array, weights: Array) -> tuple[float, float, float]:
    """sum of values / sum of weights, neither negative, and its interval over structures."""
    # Intervals are of ratios between 0 and 1: there is room above the largest seen.
    scale = 2 * float((values / weights).max()) or 1.0
    found = ratio(values / scale, weights)
    return found.value * scale, found.interval[0] * scale, found.interval[1] * scale
