"""An ASE calculator over structures: no labels needed; here EMT, whose symmetry is exact, so all is rounding."""

from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT

import equiscope as eq

structures = [bulk("Cu", cubic=True), fcc111("Al", (2, 2, 3), vacuum=6.0), molecule("CO"), molecule("N2")]
for atoms in structures:
    atoms.rattle(0.05, seed=1)

result = eq.adapters.ase.measure(EMT(), structures, progress=False)
print(result)
for row in result.worst(2):
    print(row, row.values)
