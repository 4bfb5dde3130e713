"""An ASE calculator on the same rotations in several precisions: which part of its equivariance error is arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from ase import Atoms

from equiscope.adapters import ase
from equiscope.adapters import ase_structures as st
from equiscope.adapters.ase_result import AseResult
from equiscope.decomposition.ladder import DEFAULT, Figures, Ladder, checked, climbed, outermost
from equiscope.decomposition.pool import host
from equiscope.decomposition.samples import Samples
from equiscope.errors import InputError
from equiscope.signatures import handing_on

__all__ = ["precisions"]


# Of labels, of one precision, or files, which every precision would write anew.
WITHOUT = (
    "labels", "energy_unit", "label_length_unit", "stress_unit", "precision", "csv", "exports", "on_error"
)  # fmt: skip


@handing_on(ase.measure, without=WITHOUT)
def precisions(
    calculator: Any,
    structures: str | Path | Iterable[Atoms],
    names: Sequence[str] | str = DEFAULT,
    outputs: Sequence[str] | None = None,
    *,
    progress: bool = False,
    noise_samples: int = 0,
    **settings: Any,
) -> Ladder:
    """The precision ladder of a calculator; see :func:`equiscope.precisions`.

    The modules that a copy of the calculator holds are converted, what it hands them is cast, and positions and cells
    are rounded to the precision before. A calculator that makes its inputs in float32 keeps that rounding in the row of
    float64: then make one calculator for each precision and measure them one by one.

    Args:
        calculator, structures, outputs: as for :func:`equiscope.adapters.ase.measure`.
        names: as for :func:`equiscope.precisions`.
        progress, noise_samples: as for :func:`equiscope.adapters.ase.measure`, by default without either.
        rotations, cosets, seed, symmetry, spectrum, clusters, rotate, center, group: likewise.
        energy_weight, force_weight, stress_weight, energy_per_atom, length_unit, most_atoms: likewise.

    Raises:
        InputError: a calculator in which no torch module is found; else as for both functions.
    """
    wanted = checked(names)
    found = outermost(calculator)
    if not found:
        name = type(calculator).__name__
        raise InputError(f"{name} holds no torch module whose precision could be changed: measure it as it is")
    listed = st.as_structures(structures)
    device = next((p.device for module in found for p in module.parameters()), torch.device("cpu"))

    def measured(prepared: Any, dtype: torch.dtype) -> dict[str, Figures]:
        precision = str(dtype).removeprefix("torch.")
        given = {"progress": progress, "noise_samples": noise_samples, **settings}
        return figures(ase.measure(prepared, listed, outputs, precision=precision, on_error="raise", **given))

    return climbed(calculator, device, wanted, measured)


def figures(result: AseResult) -> dict[str, Figures]:
    """Equivariance error and mean square of every structure, by output."""
    found = {}
    for output in result.outputs:
        own = [table for table in result.tables if output in table.figures]
        if own:
            table = Samples.cat(own, [output])
            table = table.take(torch.tensor(table.ids, device="cpu").argsort())
            values = table.figures[output]
            found[output] = Figures(host(values.equivariance), host(values.square), table.clusters)
    return found
