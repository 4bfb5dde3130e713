"""SevenNet and CHGNet, whose wheels hold their weights: symmetric by construction, so expected at rounding.

    make pretrained

Both are taken as their authors ship them, through ASE, on molecules displaced from their minima.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np
from ase.build import molecule

import equiscope as eq

warnings.filterwarnings("ignore")
NAMES = ("CH3CH2OH", "C6H6", "CH3COOH", "C2H6", "CH3SH", "H2O")


def structures(box: float | None = None) -> list:
    """Molecules with atoms displaced by 0.1 Å, in a periodic box where the calculator needs one."""
    random = np.random.default_rng(0)
    made = []
    for name in NAMES:
        atoms = molecule(name)
        atoms.positions += random.normal(0, 0.1, atoms.positions.shape)
        if box:
            atoms.set_cell([box] * 3)
            atoms.center()
            atoms.pbc = True
        made.append(atoms)
    return made


def main() -> None:
    from chgnet.model import CHGNetCalculator
    from sevenn.calculator import SevenNetCalculator

    found = {}
    for name, calculator, box, limit in (
        ("SevenNet-0", SevenNetCalculator("7net-0", device="cpu"), None, 1e-5),
        ("CHGNet 0.3.0", CHGNetCalculator(use_device="cpu", verbose=False), 15.0, 1e-4),
    ):
        result = eq.adapters.ase.measure(calculator, structures(box), ("energy", "forces"), progress=False)
        print(name, result, sep="\n")
        relative = next(iter(result.results.values())).outputs["forces"].relative_equivariance ** 0.5
        found[name] = {"forces": relative}
        assert relative < limit, f"{name} breaks rotation symmetry by {relative:.2g}, expected under {limit:g}"
    Path(sys.argv[1]).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
