"""Other symmetries through the ASE door: planted faults found at their exact size, sound calculators at none."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

from equiscope.adapters.ase import AseResult, measure
from equiscope.errors import InputError

V = np.array([0.3, -0.5, 0.7])


class Zero(Calculator):
    """No forces at all."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces", "stress"]

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 0.0, "forces": np.zeros((len(self.atoms), 3)), "stress": np.zeros(6)}


class Faulty(Calculator):
    """A pair potential with one fault."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces", "stress"]

    def __init__(self, fault: str = "", sound: Any = None):
        super().__init__()
        self.fault, self.sound = fault, sound or EMT()

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        inner = self.atoms.copy()
        inner.calc = self.sound
        forces, energy = inner.get_forces(), inner.get_potential_energy()
        if self.fault == "place":
            energy += len(inner) * V @ inner.positions[0]
        if self.fault == "order":
            forces = forces + np.arange(len(inner))[:, None] * V
        if self.fault == "cell":
            energy += len(inner) * np.linalg.norm(inner.cell[0])
        if self.fault == "constant":
            forces = forces + V
        if self.fault == "count":
            energy += len(inner) ** 2
        self.results = {"energy": energy, "forces": forces, "stress": inner.get_stress()}


def crystals() -> list[Any]:
    rattled = bulk("Cu", cubic=True)
    rattled.rattle(0.05, seed=0)
    return [rattled, bulk("Au", cubic=True) * (1, 1, 2)]


def run(calculator: Any, symmetry: Any, structures: Any = None, **settings: Any) -> AseResult:
    return measure(calculator, structures or crystals(), symmetry=symmetry, progress=False, **settings)


ALL = ["translation=5", "parity", "mirror", "permutation", "lattice", "supercell", ("rotation", "permutation")]


@pytest.mark.parametrize("symmetry", ALL)
def test_a_sound_calculator_has_none(symmetry: Any) -> None:
    found = run(EMT(), symmetry)
    assert all(row.status == "measured" for row in found.rows)
    for output in found.result.outputs.values():
        assert output.relative_equivariance < 1e-20
    assert "rotations" not in str(found).splitlines()[0]


def test_planted_faults_at_their_size() -> None:
    """Energies per atom V t: |V|^2 r^2 / 5. Forces i V of the i-th place: |V|^2 (n^2 - 1) / 12. A constant force."""
    structures, few = [bulk("Cu")] * 100, {"noise_samples": 1}
    found = run(Faulty("place", Zero()), "translation=2", structures, outputs=["energy"], **few)
    values = found.result.per_sample.equivariance
    truth = float(V @ V) * 4 / 5
    assert abs(float((values.mean() - truth) / (values.std() / len(values) ** 0.5))) < 4
    fault, structures = Faulty("order", Zero()), [bulk("Cu") * (1, 1, 4)] * 100
    found = run(fault, "permutation", structures, outputs=["forces"], cosets=4, **few)
    values = found.result.per_sample.equivariance
    truth = float(V @ V) * 15 / 12 / 3
    assert abs(float((values.mean() - truth) / (values.std() / len(values) ** 0.5))) < 4
    exact = run(Faulty("constant"), "parity", outputs=["forces"])
    assert [row.values["forces_rms"] for row in exact.rows] == pytest.approx([(V @ V / 3) ** 0.5] * 2, rel=1e-12)


def test_lattices_and_supercells() -> None:
    assert run(Faulty("cell"), "lattice", outputs=["energy"]).result.distinguishable
    assert run(EMT(), "supercell", outputs=["energy"], energy_per_atom=False).result.equivariance < 1e-20
    # N^2 more: N an atom, twice in three of four shapes, variance 3/16 N^2; as a total energy the same times N^2.
    for per_atom, power in ((True, 2), (False, 4)):
        found = run(Faulty("count"), "supercell", outputs=["energy"], energy_per_atom=per_atom)
        truth = 3 / 16 * np.mean([4.0**power, 8.0**power])
        assert found.result.equivariance == pytest.approx(truth, rel=1e-9)


def test_a_cubic_crystals_forces() -> None:
    pytest.importorskip("spglib")
    perfect, rattled = bulk("Cu"), crystals()[0]
    sound = run(EMT(), "space_group", [perfect, rattled])
    # Forces vanish by symmetry: what is left of them is rounding.
    assert sound.result.outputs["forces"].equivariance < 1e-26
    assert sound.result.outputs["stress"].relative_equivariance < 1e-24
    assert sound.result.passes == 48
    assert [row.status for row in sound.rows] == ["measured", "failed"]
    assert "space group P1 (1) with the identity alone" in sound.rows[1].message
    broken = run(Faulty("constant"), "space_group", [perfect], outputs=["forces"])
    assert broken.rows[0].values["forces_rms"] == pytest.approx((V @ V / 3) ** 0.5, rel=1e-12)
    assert broken.rows[0].values["forces_relative"] == pytest.approx(1, rel=1e-12)
    assert run(EMT(), "point_group", [perfect]).result.passes == 48


def test_how_much_each_adds() -> None:
    found = run(Faulty("order"), ("rotation", "permutation"), outputs=["forces"])
    shares = found.result.by_symmetry
    # An order that also has a direction is gone with the rotations.
    assert shares["share"] == pytest.approx([1, 0], abs=1e-12)
    assert "permutation, what the averages before leave" in str(found)


def test_structures_without_what_is_asked_for() -> None:
    mixed = [molecule("CO"), bulk("Cu", cubic=True)]
    for symmetry in ("lattice", "supercell"):
        found = run(EMT(), symmetry, mixed)
        assert [row.status for row in found.rows] == ["failed", "measured"]
        assert f"{symmetry} is of periodic structures" in found.rows[0].message
    slab = fcc111("Al", (1, 1, 2), vacuum=5.0)
    assert run(EMT(), "lattice", [slab]).result.relative_equivariance < 1e-20
    assert run(EMT(), "supercell", [slab]).result.passes == 6
    with pytest.raises(InputError, match="periodic in three directions"):
        run(EMT(), "space_group", [slab])
    with pytest.raises(InputError, match="there is no symmetry 'lattices'"):
        run(EMT(), "lattices")
