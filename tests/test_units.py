"""Units against ASE's tables, and spellings that files carry."""

import ase.units
import pytest

from equiscope import units
from equiscope.errors import InputError


def test_against_ase():
    # ASE has CODATA 2014, these are CODATA 2018: they differ in the ninth digit.
    assert pytest.approx(ase.units.Hartree, rel=1e-7) == units.energy("hartree")
    assert pytest.approx(ase.units.kcal / ase.units.mol, rel=1e-7) == units.energy("kcal/mol")
    assert pytest.approx(ase.units.kJ / ase.units.mol, rel=1e-7) == units.energy("kJ/mol")
    assert pytest.approx(ase.units.Bohr, rel=1e-7) == units.length("bohr")
    assert pytest.approx(ase.units.GPa, rel=1e-7) == units.factor("GPa", units.STRESS_UNITS)
    assert pytest.approx(ase.units.Hartree / ase.units.Bohr, rel=1e-7) == units.force("hartree/bohr")
    assert pytest.approx(ase.units.kcal / ase.units.mol, rel=1e-7) == units.force("kcal/mol/Å")


def test_spellings():
    assert units.length("nanometers") == units.length("nm") == 10
    assert units.length("Angstroms") == units.length("å") == 1
    assert units.energy("EV") == 1
    assert units.energy("Eh") == units.energy("Ha") == units.HARTREE


@pytest.mark.parametrize(("call", "unit"), [(units.energy, "furlong"), (units.length, "eV"), (units.force, "hartree")])
def test_unknown(call, unit):
    with pytest.raises(InputError, match=unit):
        call(unit)
