"""Labels whose names say that they are something else: F = −gradient, E = N e, σ = −virial / V."""

import numpy as np
import pytest

from equiscope.errors import DataError
from equiscope.labels import kind, meant


@pytest.mark.parametrize(
    ("output", "name", "expected"),
    [
        ("forces", "gradient", "gradient"),
        ("forces", "dft_total_gradient", "gradient"),
        ("forces", "E_grad", "gradient"),
        ("forces", "REF_forces", ""),
        ("forces", "graded", ""),
        ("energy", "energy_per_atom", "energy per atom"),
        ("energy", "dft.energy/atom", "energy per atom"),
        ("energy", "per_atom_energy", "energy per atom"),
        ("energy", "energy", ""),
        ("energy", None, ""),
        ("stress", "virial", "virial"),
        ("stress", "REF_Virials", "virial"),
        ("stress", "stress", ""),
    ],
)
def test_names(output, name, expected):
    assert kind(output, name) == expected


def test_values():
    value = np.arange(9.0).reshape(3, 3)
    assert meant("forces", "gradient", value, 3, 0.0).tolist() == (-value).tolist()
    assert meant("forces", "forces", value, 3, 0.0).tolist() == value.tolist()
    assert float(meant("energy", "energy_per_atom", 2.5, 4, 0.0)) == 10.0
    assert meant("stress", "virial", value, 3, 2.0).tolist() == (-value / 2).tolist()
    with pytest.raises(DataError, match="'virial' is a virial, and without a cell"):
        meant("stress", "virial", value, 3, 0.0)
