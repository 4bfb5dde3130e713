"""What the name of a label says about its value: a gradient, an energy per atom, a virial; and the value meant."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from equiscope.errors import DataError

_SAYS = {
    "forces": ("gradient", re.compile(r"(^|.*[_\-. ])(gradients?|grad)$", re.IGNORECASE)),
    "energy": ("energy per atom", re.compile(r".*(per[_\-. ]?atom|/atom)([_\-. ]energy)?$", re.IGNORECASE)),
    "stress": ("virial", re.compile(r"(^|.*[_\-. ])virials?$", re.IGNORECASE)),
}
REMARKS = {
    "gradient": "forces are minus the gradient",
    "energy per atom": "energies are the energy per atom times the number of atoms",
    "virial": "stresses are minus the virial over the volume",
}


def kind(output: str, name: str | None) -> str:
    """"gradient" under forces, "energy per atom" under energy, "virial" under stress; "" for what is named as it is."""
    what, pattern = _SAYS[output]
    return what if name is not None and pattern.match(name) else ""


def meant(output: str, name: str | None, value: Any, atoms: int, volume: float) -> np.ndarray:
    """The energy E, forces F or stress σ that a label stands for: F = −gradient, E = N e, σ = −virial / V.

    Args:
        value: real numbers, one frame or many, in units that the caller converts before or after.
        atoms: N; volume: V, in the length unit of σ.

    Raises:
        DataError: a virial where there is no volume.
    """
    array = np.asarray(value)
    match kind(output, name):
        case "gradient":
            return -array
        case "energy per atom":
            return array * atoms
        case "virial":
            if not volume > 0:
                raise DataError(f"label {name!r} is a virial, and without a cell it has no stress")
            return -array / volume
        case _:
            return array
