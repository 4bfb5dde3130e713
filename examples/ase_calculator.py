"""
An ASE calculator
=================

Structures without labels; here EMT, whose symmetry is exact, so all that is found is rounding.
"""

from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT

import equiscope as eq

structures = [bulk("Cu", cubic=True), fcc111("Al", (2, 2, 3), vacuum=6.0), molecule("CO"), molecule("N2")]
for atoms in structures:
    atoms.rattle(0.05, seed=1)

# %%
# One line an output: relative error, noise floor, and whether they can be told apart.
result = eq.adapters.ase.measure(EMT(), structures, progress=False)
print(result)

# %%
# The structures with the largest errors, by name.
for row in result.worst(2):
    print(row, row.values)
