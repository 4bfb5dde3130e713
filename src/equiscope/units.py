"""Units of energy, length and stress of data files, in eV, Å, eV/Å³ (CODATA 2018; the ASE adapter keeps ASE's own)."""

from __future__ import annotations

from collections.abc import Mapping

from equiscope.errors import InputError

HARTREE = 27.211386245988
"""eV, CODATA 2018."""
BOHR = 0.529177210903
"""Å, CODATA 2018."""
# Exact since 2019: the elementary charge in C and Avogadro's number.
_CHARGE, _AVOGADRO = 1.602176634e-19, 6.02214076e23
KCAL_PER_MOL = 4184 / (_CHARGE * _AVOGADRO)
GPA = 1e-21 / _CHARGE

ENERGY_UNITS = {
    "eV": 1.0, "meV": 1e-3, "Hartree": HARTREE, "Ha": HARTREE, "Rydberg": HARTREE / 2, "Ry": HARTREE / 2,
    "kcal/mol": KCAL_PER_MOL, "kJ/mol": KCAL_PER_MOL / 4.184,
}  # fmt: skip
LENGTH_UNITS = {"Å": 1.0, "Ang": 1.0, "Angstrom": 1.0, "Bohr": BOHR, "nm": 10.0, "pm": 1e-2}
STRESS_UNITS = {"eV/Å^3": 1.0, "eV/Ang^3": 1.0, "GPa": GPA, "kbar": 0.1 * GPA, "kB": 0.1 * GPA}
# Other spellings that files are known to carry.
_SPELLINGS = {
    "angstroms": "Å", "a": "Å", "nanometer": "nm", "nanometers": "nm", "bohrs": "Bohr", "a0": "Bohr",
    "hartrees": "Hartree", "eh": "Hartree", "electronvolt": "eV", "kilocalorie/mole": "kcal/mol",
}  # fmt: skip


def factor(unit: str, table: Mapping[str, float]) -> float:
    """What a number in ``unit`` is multiplied by, whatever the case of the name.

    Raises:
        InputError: a unit that the table does not have.
    """
    name = str(unit).strip()
    plain = {known.lower(): value for known, value in table.items()}
    found = plain.get(_SPELLINGS.get(name.lower(), name).lower())
    if found is None:
        raise InputError(f"the unit {unit!r} is not known: use one of {', '.join(table)}")
    return found


def energy(unit: str) -> float:
    """eV in one ``unit``."""
    return factor(unit, ENERGY_UNITS)


def length(unit: str) -> float:
    """Å in one ``unit``."""
    return factor(unit, LENGTH_UNITS)


def force(unit: str) -> float:
    """eV/Å in one ``unit``, which is an energy over a length: ``hartree/bohr``, ``kcal/mol/Å``.

    Raises:
        InputError: no such quotient.
    """
    over, slash, below = str(unit).rpartition("/")
    if not slash:
        raise InputError(f"{unit!r} is no unit of force: it is an energy over a length, such as hartree/bohr")
    return energy(over) / length(below)
