"""ASE structures for the measure: cells, labels and their units, and the batch of one structure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

from equiscope import labels as labels_
from equiscope.adapters.ase_files import UNREADABLE, read
from equiscope.decomposition.symmetries.lattices import spanning
from equiscope.errors import DataError, InputError

OUTPUTS = ("energy", "forces", "stress")
DIRECT = "non_conservative_"
"""Before the names of forces and stresses that are answered directly, beside those that are gradients of the energy."""
STORED = "calculator"
ENERGY_UNITS = {
    "eV": units.eV, "meV": 1e-3 * units.eV, "Hartree": units.Hartree, "Ha": units.Hartree, "Rydberg": units.Rydberg,
    "Ry": units.Rydberg, "kcal/mol": units.kcal / units.mol, "kJ/mol": units.kJ / units.mol,
}  # fmt: skip
LENGTH_UNITS = {"Å": 1.0, "Ang": 1.0, "Angstrom": 1.0, "Bohr": units.Bohr, "nm": units.nm, "pm": 1e-2}
STRESS_UNITS = {"eV/Å^3": 1.0, "eV/Ang^3": 1.0, "GPa": units.GPa, "kbar": 0.1 * units.GPa, "kB": 0.1 * units.GPa}
# Å by which atoms may have moved since their labels were stored: what files round to.
MOVED = 1e-3
_LABEL_KEYS = {
    "energy": re.compile(r"(^|.*[_\-. ])energy$", re.IGNORECASE),
    "forces": re.compile(r"(^|.*[_\-. ])forces?$", re.IGNORECASE),
    "stress": re.compile(r"(^|.*[_\-. ])stress$", re.IGNORECASE),
}
# Energies of another kind than a calculator's own.
_OTHER_ENERGY = re.compile(r"formation|free|kinetic|atomi[sz]ation|binding|adsorption|interaction|hull", re.IGNORECASE)


def kind(output: str) -> str:
    """energy, forces or stress: what an output is a prediction of, or its own name if that is none of them."""
    bare = output.removeprefix(DIRECT)
    return bare if bare in OUTPUTS else output


def as_structures(structures: Any) -> list[Atoms]:
    """A list of structures from a path or any iterable of ``Atoms``.

    Raises:
        InputError: for a single ``Atoms``, for anything that is not ``Atoms``, or for nothing at all.
    """
    if isinstance(structures, Atoms):
        raise InputError("structures must be a list of Atoms, got one Atoms: write [atoms]")
    if isinstance(structures, str | Path):
        listed = read(structures)
    elif isinstance(structures, Iterable):
        listed = list(structures)
    else:
        raise InputError(f"structures must be a path or a list of Atoms, got {type(structures).__name__}")
    for index, atoms in enumerate(listed):
        if not isinstance(atoms, Atoms):
            raise InputError(f"structures[{index}] is {type(atoms).__name__}, not ase.Atoms")
    if not listed:
        raise InputError("there are no structures: nothing to measure (a used-up generator?)")
    return listed


@dataclass(frozen=True)
class Units:
    """Units of a file, only where the user states them; ASE's eV and Å otherwise.

    Attributes:
        energy: of energy labels, and in force and stress labels. None: eV.
        length: of positions and cells, and in force and stress labels. None: Å.
        label_length: in force and stress labels, where it differs from ``length``.
        stress: of stress labels, where they are not in energy/length^3.
    """

    energy: str | None = None
    length: str | None = None
    label_length: str | None = None
    stress: str | None = None

    def __post_init__(self) -> None:
        tables = {"energy": ENERGY_UNITS, "length": LENGTH_UNITS, "label_length": LENGTH_UNITS, "stress": STRESS_UNITS}
        for name, table in tables.items():
            value = getattr(self, name)
            if value is not None and value not in table:
                raise InputError(f"{name}_unit={value!r} is not known: use one of {', '.join(table)}")

    @property
    def positions(self) -> float:
        return LENGTH_UNITS[self.length or "Å"]

    def factor(self, output: str) -> float:
        """What a label of ``output`` is multiplied by to be in eV, eV/Å or eV/Å^3."""
        energy, length = ENERGY_UNITS[self.energy or "eV"], LENGTH_UNITS[self.label_length or self.length or "Å"]
        if output == "stress" and self.stress is not None:
            return STRESS_UNITS[self.stress]
        return energy / length ** {"energy": 0, "forces": 1, "stress": 3}[output]

    def describe(self) -> dict[str, str]:
        """The units the labels and positions were converted from, for the record."""
        stated = {k: v for k in ("energy", "length", "label_length", "stress") if (v := getattr(self, k)) is not None}
        return {"results": "eV, eV/Å, eV/Å^3", **{f"{k} of the file": v for k, v in stated.items()}}


@dataclass(frozen=True)
class Field:
    """A field of a structure, besides positions and cell, that rotates with it.

    Attributes:
        name: key of ``atoms.arrays`` (``place`` "arrays") or ``atoms.info`` ("info").
        irreps: its action, as in :class:`equiscope.Input`.
        shape: shape of its value for one atom, or for the structure.
    """

    name: str
    place: str
    irreps: Any
    shape: tuple[int, ...]

    @property
    def rows(self) -> str:
        """What its rows are for, "atom" or "sample"."""
        return "atom" if self.place == "arrays" else "sample"

    def value(self, atoms: Atoms) -> NDArray[np.float64]:
        """The field of a structure; zero where a structure lacks it."""
        stored = getattr(atoms, self.place).get(self.name)
        leading = (len(atoms),) if self.place == "arrays" else ()
        return np.zeros(leading + self.shape) if stored is None else np.asarray(stored, dtype=np.float64)

    def put(self, atoms: Atoms, value: NDArray[np.float64]) -> None:
        """Store a rotated value in a structure that has the field."""
        if self.name in getattr(atoms, self.place):
            getattr(atoms, self.place)[self.name] = value


def find_fields(structures: Sequence[Atoms], rotate: Mapping[str, Any]) -> tuple[Field, ...]:
    """Momenta, vector magnetic moments (pseudovectors) and the fields the user names, as far as they are there.

    Raises:
        InputError: if a named field is in no structure, is not numeric, or differs in shape.
    """
    found = []
    for name, irreps in {"momenta": "1o", "initial_magmoms": "1e", **rotate}.items():
        shapes = {
            (place, np.shape(getattr(a, place)[name])[1 if place == "arrays" else 0 :])
            for a in structures
            for place in ("arrays", "info")
            if name in getattr(a, place)
        }
        if name in rotate and (len(shapes) != 1 or name in ("positions", "cell", "numbers")):
            seen = f"with shapes {sorted(shapes)}" if shapes else "in no structure"
            raise InputError(f"rotate={{{name!r}: …}}: the field must be in the structures in one shape, it is {seen}")
        if name not in rotate and {shape for _, shape in shapes} != {(3,)}:
            continue
        place, shape = shapes.pop()
        found.append(Field(name, place, irreps, shape))
    return tuple(found)


def not_rotated(structures: Sequence[Atoms], fields: Sequence[Field], label_keys: Iterable[str]) -> tuple[str, ...]:
    """Fields a calculator may read that stay as in the file: charges, scalar moments, anything shaped like a tensor."""
    known = {"numbers", "positions", *(f.name for f in fields), *label_keys}
    # Labels that are not used are no input of a calculator either.
    known |= {k for a in structures for k in (*a.arrays, *a.info) if any(_sounds_like(o, k) for o in OUTPUTS)}
    seen: dict[str, None] = {}
    for atoms in structures:
        for name, values in atoms.arrays.items():
            shape = np.shape(values)[1:]
            scalar = name in ("initial_charges", "initial_magmoms")
            if name not in known and (scalar or (_tensor_like(shape) and np.issubdtype(values.dtype, np.floating))):
                seen[f"{name} {shape or 'scalar'} per atom"] = None
        for name, value in atoms.info.items():
            if name not in known and isinstance(value, np.ndarray | list | tuple) and _tensor_like(np.shape(value)):
                seen[f"{name} {np.shape(value)}"] = None
    return tuple(seen)


def _tensor_like(shape: tuple[int, ...]) -> bool:
    return shape in {(3,), (6,), (9,), (3, 3)}


def check(atoms: Atoms) -> str:
    """Refuse what has no meaning, and name what is unusual.

    Returns a remark ("left-handed cell"), or "".

    Raises:
        InputError: for no atoms, NaN or infinity, or periodic directions whose lattice vectors are not independent.
    """
    if UNREADABLE in atoms.info:
        raise DataError(f"ASE cannot read this frame: {atoms.info[UNREADABLE]}")
    if len(atoms) == 0:
        raise InputError("the structure has no atoms")
    if atoms.numbers.min() < 0 or atoms.numbers.max() >= len(chemical_symbols):
        raise InputError(f"atomic numbers must be 0 … {len(chemical_symbols) - 1}, got {np.unique(atoms.numbers)}")
    cell = np.asarray(atoms.cell)
    for name, values in (("positions", atoms.positions), ("cell", cell)):
        if not np.isfinite(values).all():
            raise InputError(f"NaN or infinity in the {name}")
    if atoms.pbc.any() and not spanning(cell[atoms.pbc]):
        raise InputError(
            f"singular cell: the lattice vectors of the periodic directions {pbc_name(atoms)} are zero or not "
            f"independent, {cell[atoms.pbc].tolist()}"
        )
    return "left-handed cell" if np.linalg.det(cell) < 0 else ""


def formula(atoms: Atoms) -> str:
    """Chemical formula; the number of atoms where a number among them is no element's."""
    known = len(atoms) == 0 or 0 <= atoms.numbers.min() <= atoms.numbers.max() < len(chemical_symbols)
    return atoms.get_chemical_formula() if known else f"{len(atoms)} atoms"


def pbc_name(atoms: Atoms) -> str:
    """Periodic directions as ASE writes them: TTF for a slab."""
    return "".join("T" if p else "F" for p in atoms.pbc)


def has_stress(atoms: Atoms) -> bool:
    """A stress needs a volume and at least one periodic direction."""
    return bool(atoms.pbc.any()) and atoms.cell.rank == 3


def _sounds_like(output: str, key: str) -> bool:
    return bool(_LABEL_KEYS[output].match(key) or labels_.kind(output, key))


def _stored(atoms: Atoms) -> Mapping[str, Any]:
    return atoms.calc.results if isinstance(atoms.calc, SinglePointCalculator) else {}


def moved_since(atoms: Atoms) -> bool:
    """Whether a structure was changed, by more than a shift of all of it, since its results were stored with it."""
    before = atoms.calc.atoms if isinstance(atoms.calc, SinglePointCalculator) else None
    if before is None or len(atoms) == 0:
        return False
    if len(before) != len(atoms) or (before.numbers != atoms.numbers).any():
        return True
    apart = (atoms.positions - before.positions) - (atoms.positions - before.positions)[0]
    return bool(np.abs(apart).max() > MOVED or np.abs(atoms.cell.array - before.cell.array).max() > MOVED)


def find_labels(
    structures: Sequence[Atoms], outputs: Sequence[str], labels: bool | Mapping[str, str]
) -> dict[str, str]:
    """Output -> where its label is, from ``labels=True`` or names given by the user for energy, forces and stress.

    Raises:
        InputError: if a label is missing in some structures, several candidates exist, or a name is wrong.
    """
    if labels is False:
        return {}
    found = _sources(structures, [k for k in OUTPUTS if k in map(kind, outputs)], labels)
    return {name: found[kind(name)] for name in outputs if kind(name) in found}


def _sources(
    structures: Sequence[Atoms], outputs: Sequence[str], labels: bool | Mapping[str, str]
) -> dict[str, str]:
    named = dict(labels) if isinstance(labels, Mapping) else {}
    unknown = sorted(set(named) - set(OUTPUTS))
    if unknown:
        raise InputError(f"labels (--label OUTPUT=KEY) names {unknown}; labels are for {', '.join(OUTPUTS)}")
    unused = sorted(set(named) - set(outputs))
    if unused:
        raise InputError(f"labels are given for {unused}, which is not measured: outputs are {list(outputs)}")
    found: dict[str, str] = {}
    for output in outputs if labels is True else named:
        where = [i for i, a in enumerate(structures) if len(a) and (output != "stress" or has_stress(a))]
        source = named.get(output) or _only_source(structures, where, output)
        if source is None:
            continue
        source = STORED if source == output and any(output in _stored(structures[i]) for i in where) else source
        missing = [i for i in where if _raw(structures[i], output, source) is None]
        if missing:
            raise InputError(
                f"{len(missing)} of {len(where)} structures have no label {source!r} for {output} "
                f"(structures {missing[:5]}): leave them out, or measure without labels"
            )
        found[output] = source
    if not found:
        raise InputError(
            f"labels are asked for, but no structure has any for {list(outputs)}: measure without labels (relative "
            "equivariance error), or name their keys, labels={'forces': 'REF_forces'} or --label forces=REF_forces"
        )
    return found


def _only_source(structures: Sequence[Atoms], where: Sequence[int], output: str) -> str | None:
    """What ASE read as a result, where no key sounds like a label too."""
    for index in where:
        atoms = structures[index]
        likely = [key for key in (*atoms.arrays, *atoms.info) if _sounds_like(output, key)]
        if output == "energy":
            likely = [key for key in likely if not _OTHER_ENERGY.search(key)]
        if likely:
            sources = [STORED, *likely] if _stored(atoms).get(output) is not None else likely
            what = "several labels" if len(sources) > 1 else "no label that ASE reads as such, but a likely key,"
            raise InputError(
                f"structure {index} has {what} for {output}: {sources}. Choose one, labels="
                f"{{{output!r}: {likely[-1]!r}}} or --label {output}={likely[-1]}"
                + (f"; {STORED!r} is what ASE read as the result" if len(sources) > 1 else "")
            )
    return STORED if any(output in _stored(structures[i]) for i in where) else None


def _raw(atoms: Atoms, output: str, source: str) -> Any:
    if source == STORED:
        return _stored(atoms).get(output)
    return atoms.arrays[source] if source in atoms.arrays else atoms.info.get(source)


def label(atoms: Atoms, output: str, source: str, units: Units) -> NDArray[np.float64]:
    """A label in eV (whole structure), eV/Å (atoms, 3) or eV/Å^3 (6, Voigt order xx yy zz yz xz xy).

    A label named as a gradient, an energy per atom or a virial is converted (:mod:`equiscope.labels`).

    Raises:
        InputError: if it has another shape, a 3x3 stress is not symmetric to 1e-3, or a virial is given a stress unit.
    """
    raw = np.asarray(_raw(atoms, output, source))
    if raw.dtype.kind not in "iuf":
        raise InputError(f"label {source!r} for {output} is not numeric, it is {str(raw)[:60]}")
    value = raw.astype(np.float64)
    if output == "stress" and value.size == 9:
        matrix = value.reshape(3, 3)
        if np.abs(matrix - matrix.T).max() > 1e-3 * np.abs(matrix).max():
            raise InputError(f"label {source!r} for stress is not symmetric: {matrix.tolist()}")
        value = full_3x3_to_voigt_6_stress(matrix)
    shape = {"energy": (), "forces": (len(atoms), 3), "stress": (6,)}[output]
    if value.shape != shape and not (output == "energy" and value.size == 1):
        raise InputError(f"label {source!r} for {output} has shape {value.shape}, expected {shape}")
    virial = labels_.kind(output, source) == "virial"
    if virial and units.stress is not None:
        raise InputError(f"label {source!r} is a virial, an energy: give its energy_unit, not a stress_unit")
    volume = atoms.get_volume() * units.positions**3 if atoms.cell.rank == 3 else 0.0
    factor = units.factor("energy" if virial else output)
    return labels_.meant(output, source, value.reshape(shape), len(atoms), volume) * factor


@dataclass(frozen=True)
class AsePlan:
    """What is measured of every structure, the same for all of them.

    Attributes:
        outputs: of energy, forces, stress, and what else an engine answers. labels: output -> source.
        fields: what rotates besides positions and cell. units: of the file.
        per_atom: energies are divided by the number of atoms. features: outputs that are features, and their rows.
    """

    outputs: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    fields: tuple[Field, ...] = ()
    units: Units = Units()
    per_atom: bool = True
    features: Mapping[str, str] = field(default_factory=dict)

    def outputs_of(self, atoms: Atoms) -> tuple[str, ...]:
        """The outputs this structure has."""
        return tuple(o for o in self.outputs if kind(o) != "stress" or has_stress(atoms))


def in_angstrom(atoms: Atoms, units: Units) -> Atoms:
    """A bare copy: positions and cell in Å, no calculator, no constraints."""
    bare = atoms.copy()
    bare.set_constraint()
    if units.length is not None:
        bare.set_cell(bare.cell * units.positions, scale_atoms=False)
        bare.positions *= units.positions
    return bare
