"""The ASE door: closed forms, cells and stresses that turn, labels and units, failures that cost one row only."""

from __future__ import annotations

import csv
import itertools
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.mixing import MixedCalculator, SumCalculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.units import Bohr, GPa, Hartree

import equiscope as eq
from equiscope.adapters.ase import AseResult, measure
from equiscope.adapters.ase_structures import Units, read
from equiscope.errors import DataError, InputError, RandomModelError
from tests.adapters.calculators import (
    DIPOLE,
    FORCE,
    STRESS,
    Broken,
    Fields,
    ForgetsCell,
    Raising,
    Random,
    crystals,
    molecules,
    stress_matrix,
)

EXACT = 1e-10


def run(calculator: Any, structures: Any, *arguments: Any, **settings: Any) -> AseResult:
    # D2 averages vectors exactly, which is all that most of these tests need; squares of vectors and a stress need T.
    return measure(calculator, structures, *arguments, progress=False, **{"rotations": "D2", **settings})


def labelled(structures: list[Atoms], error: Any = 0.0, stored: bool = True) -> list[Atoms]:
    """Structures with the symmetric part of `Broken` as labels, ``error`` added to every force component."""
    made = []
    for atoms in structures:
        calculator = Broken(0 * FORCE, 0 * DIPOLE, 0 * STRESS)
        copy = atoms.copy()
        copy.calc = calculator
        results = {"energy": copy.get_potential_energy(), "forces": copy.get_forces() + error}
        if copy.cell.rank == 3:
            results["stress"] = copy.get_stress()
        copy.calc = SinglePointCalculator(copy, **results) if stored else None
        if not stored:
            copy.arrays["REF_forces"], copy.info["REF_energy"] = results["forces"], results["energy"]
        made.append(copy)
    return made


# Closed forms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("design", [{"rotations": "T"}, {"cosets": 3}, {"rotations": "O"}, {"group": "O3"}])
def test_a_constant_force_is_its_square_exactly(design: dict[str, Any]) -> None:
    result = run(Broken(), crystals(), ["forces"], **design)
    assert result.result.outputs["forces"].equivariance == pytest.approx(FORCE @ FORCE / 3, rel=EXACT)
    for row in result.rows:
        assert row.values["forces_rms"] == pytest.approx(math.sqrt(FORCE @ FORCE / 3), rel=EXACT)


def test_a_constant_stress_is_its_traceless_square_exactly() -> None:
    matrix = stress_matrix(STRESS)
    traceless = matrix - np.eye(3) * np.trace(matrix) / 3
    result = run(Broken(), crystals(), rotations="T")
    assert result.result.outputs["stress"].equivariance == pytest.approx((traceless**2).sum() / 9, rel=EXACT)
    assert result.result.outputs["energy"].equivariance < 1e-24


def test_a_dipole_in_a_constant_field_exactly_per_atom_and_in_all() -> None:
    calculator = Broken(dipole=DIPOLE)
    structures = molecules()
    for per_atom in (True, False):
        result = run(calculator, structures, ["energy"], energy_per_atom=per_atom, rotations="T")
        for atoms, row in zip(structures, result.rows, strict=True):
            moment = atoms.numbers @ atoms.positions / (len(atoms) if per_atom else 1)
            expected = math.sqrt(DIPOLE @ DIPOLE * (moment @ moment) / 3)
            assert row.values["energy_rms"] == pytest.approx(expected, rel=EXACT)


def test_turning_about_the_mean_is_another_orbit() -> None:
    atoms = molecules()[0]
    centred = atoms.numbers @ (atoms.positions - atoms.positions.mean(0)) / len(atoms)
    (row,) = run(Broken(dipole=DIPOLE), [atoms], ["energy"], center="mean", rotations="T").rows
    assert row.values["energy_rms"] == pytest.approx(math.sqrt(DIPOLE @ DIPOLE * (centred @ centred) / 3), rel=EXACT)


def test_percent_with_labels_exactly() -> None:
    error = 0.7
    result = run(Broken(), labelled(crystals(), error), ["forces"], labels=True)
    expected = 100 * (FORCE @ FORCE / 3) / (FORCE @ FORCE / 3 + error**2)
    assert result.result.percent == pytest.approx(expected, rel=EXACT)
    assert result.result.total == pytest.approx(FORCE @ FORCE / 3 + error**2, rel=EXACT)
    for row in result.rows:
        assert row.values["forces_percent"] == pytest.approx(expected, rel=EXACT)
        assert row.values["forces_total"] == pytest.approx(FORCE @ FORCE / 3 + error**2, rel=EXACT)


def test_weights_make_the_headline() -> None:
    result = run(Broken(), labelled(crystals(), 0.5), labels=True, force_weight=2.0, stress_weight=3.0, energy_weight=0)
    parts = result.result.outputs
    expected = 2 * parts["forces"].equivariance + 3 * parts["stress"].equivariance
    assert result.result.equivariance == pytest.approx(expected, rel=EXACT)
    assert result.result.percent == pytest.approx(sum(p.contribution_percent for p in parts.values()), rel=EXACT)


# Equivariant peers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("calculator", [EMT(), LennardJones(sigma=2.2, epsilon=0.3, rc=4.5, smooth=True)])
@pytest.mark.parametrize("group", ["SO3", "O3"])
def test_peers_are_symmetric_on_sheared_crystals(calculator: Any, group: str) -> None:
    result = run(calculator, crystals(), group=group)
    assert result.outputs == ("energy", "forces", "stress")
    for name, output in result.result.outputs.items():
        assert output.relative_equivariance < 1e-22, name
    assert min(abs(a.get_stress()).max() for a in _with(calculator, crystals())) > 1e-3


def _with(calculator: Any, structures: list[Atoms]) -> list[Atoms]:
    for atoms in structures:
        atoms.calc = calculator
    return structures


def test_a_calculator_that_forgets_the_cell_is_found() -> None:
    result = run(ForgetsCell(), crystals(), ["energy", "forces"])
    assert result.result.outputs["forces"].relative_equivariance > 1e-3
    assert result.result.outputs["energy"].relative_equivariance > 1e-3


def test_the_calculator_sees_turned_cells_with_the_fractional_coordinates_kept() -> None:
    seen: list[Atoms] = []

    class Recording(Broken):
        def calculate(self, atoms: Any = None, *more: Any) -> None:
            seen.append(atoms.copy())
            super().calculate(atoms, *more)

    (atoms,) = crystals()[:1]
    run(Recording(), [atoms])
    # The last one is asked as given once more.
    turned = seen[-2]
    assert np.abs(turned.positions - atoms.positions).max() > 0.1
    assert np.allclose(turned.get_scaled_positions(wrap=False), atoms.get_scaled_positions(wrap=False), atol=1e-12)
    assert np.allclose(turned.cell @ turned.cell.T, atoms.cell @ atoms.cell.T, atol=1e-12)
    assert np.linalg.det(turned.cell) == pytest.approx(np.linalg.det(atoms.cell))


def test_structures_calculator_labels_and_random_state_are_left_alone() -> None:
    structures = labelled(crystals() + molecules())
    before = [(a.positions.copy(), a.cell.copy(), dict(a.calc.results)) for a in structures]
    np.random.seed(5)
    state = np.random.get_state()[1].copy()
    run(Broken(), structures, labels=True)
    for atoms, (positions, cell, results) in zip(structures, before, strict=True):
        assert np.array_equal(atoms.positions, positions)
        assert np.array_equal(atoms.cell, cell)
        assert all(np.array_equal(atoms.calc.results[k], v) for k, v in results.items())
    assert np.array_equal(np.random.get_state()[1], state)


@pytest.mark.parametrize(("rotations", "passes"), [("T", 24), ("haar", 10)])
def test_cosets_by_default_are_those_of_the_front_door(rotations: str, passes: int) -> None:
    """Two cosets of a set, and ten independent rotations."""
    assert f"{passes} rotations" in str(run(Broken(), crystals()[:1], rotations=rotations))


def test_each_structure_has_its_own_rotations_that_do_not_depend_on_the_others() -> None:
    structures = crystals()
    together = run(ForgetsCell(), structures, ["forces"])
    copies = run(ForgetsCell(), [structures[0]] * 2, ["forces"])
    assert copies.rows[0].values == pytest.approx(together.rows[0].values, rel=1e-9)
    assert copies.rows[0].values["forces_rms"] != pytest.approx(copies.rows[1].values["forces_rms"], rel=1e-9)
    other = run(ForgetsCell(), structures, ["forces"], seed=1)
    assert other.rows[0].values["forces_rms"] != pytest.approx(together.rows[0].values["forces_rms"], rel=1e-9)


def test_as_equiscope_measure_would_do_it() -> None:
    """The pooled figures are those of `equiscope.measure` on the same structures as batches."""
    import torch

    structures = labelled(molecules(), 0.4)
    calculator = ForgetsCell()
    batches = [
        {
            "pos": torch.from_numpy(a.positions)[None],
            "z": torch.from_numpy(a.numbers)[None],
            "y": torch.from_numpy(a.calc.results["forces"])[None],
        }
        for a in structures
    ]

    def forward(_: Any, batch: Any) -> Any:
        atoms = Atoms(batch["z"][0].numpy(), batch["pos"][0].numpy())
        atoms.calc = Broken()
        return torch.from_numpy(atoms.get_forces())[None]

    expected = eq.measure(
        calculator, batches, inputs={"pos": "1o"}, outputs={"f": "1o"}, target="y", forward=forward, rotations="D2"
    )
    result = run(Broken(), structures, ["forces"], labels=True).result
    for name in ("percent", "percent_error", "total", "equivariance", "r2", "loss_as_given", "noise_floor"):
        assert getattr(result, name) == pytest.approx(getattr(expected, name), rel=1e-9, abs=0), name


# Noise and random calculators -------------------------------------------------------------------------------------


def test_a_random_calculator_is_refused_and_named() -> None:
    with pytest.raises(RandomModelError, match=r"structure 0 \(Cu2\).*'forces'"):
        run(Random(), crystals(), ["forces"])


class Mixture(Calculator):
    """A calculator of one's own that adds up others, which it keeps in a holder of its own."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def __init__(self, *parts: Any) -> None:
        super().__init__()
        self.holder = SimpleNamespace(parts={"parts": list(parts)})

    def calculate(self, atoms: Any = None, *more: Any) -> None:
        super().calculate(atoms, *more)
        parts = self.holder.parts["parts"]
        self.results = {
            "energy": sum(p.get_potential_energy(atoms) for p in parts),
            "forces": sum(p.get_forces(atoms) for p in parts),
        }


@pytest.mark.parametrize(
    "made",
    [
        lambda part: SumCalculator([part, Broken()]),
        lambda part: MixedCalculator(Broken(), part, 0.5, 0.5),
        lambda part: SumCalculator([Broken(), SumCalculator([Broken(), part])]),
        lambda part: Mixture(Broken(), part),
    ],
)
def test_a_random_calculator_inside_another_is_found(made: Any) -> None:
    # At once, and not only after the rotations, when the caches hold other structures.
    with pytest.raises(RandomModelError, match=r"structure 0.*between two identical calls"):
        run(made(Random()), crystals(), ["forces"])
    # What is not random is measured through the same caches: a sum of two is twice one.
    alone = run(Broken(), crystals(), ["forces"]).result.equivariance
    both = run(SumCalculator([Broken(), Broken()]), crystals(), ["forces"]).result.equivariance
    assert both == pytest.approx(4 * alone, rel=1e-9)


class Single(Broken):
    """Rounds what it is given and what it answers to float32, as most learned potentials do."""

    def calculate(self, atoms: Any = None, *more: Any) -> None:
        rounded = atoms.copy()
        rounded.positions = rounded.positions.astype(np.float32)
        rounded.set_cell(np.asarray(rounded.cell).astype(np.float32))
        super().calculate(rounded, *more)
        self.results["forces"] = self.results["forces"].astype(np.float32)


def test_single_precision_is_noise_and_not_equivariance_error() -> None:
    result = run(Single(force=0 * FORCE), crystals(), ["forces"])
    assert 0.2 < result.result.equivariance / result.result.noise_floor < 3
    assert not result.result.distinguishable
    assert any("single precision" in note for note in result.notes)
    assert run(Single(force=1e-3 * FORCE), crystals(), ["forces"]).result.distinguishable
    told = run(Single(force=0 * FORCE), crystals(), ["forces"], precision="float32")
    assert told.result.noise_floor == result.result.noise_floor
    double = run(Single(force=0 * FORCE), crystals(), ["forces"], precision="float64")
    assert not any("single precision" in note for note in double.notes)
    # What the model rounds inside is seen whatever precision is claimed for it.
    assert 0.2 < double.result.equivariance / double.result.noise_floor < 3


def test_the_calculator_is_asked_anew_although_it_caches() -> None:
    calculator = Broken()
    result = run(calculator, crystals()[:1], ["energy", "forces"], noise_samples=0)
    # Precision, as given, a repeat, 12 for the floor and 12 at each of two larger steps, one displaced, 8 rotations,
    # as given once more; one calculation serves energy and forces.
    assert result.result.model_calls == calculator.calls == 49


def test_a_spurious_force_as_given_and_ties_are_named() -> None:
    class Nearest(Broken):
        """Pulls each atom towards its nearest, and those with a bond along y sideways."""

        def __init__(self, count: int, extra: float) -> None:
            super().__init__()
            self.count, self.extra = count, extra

        def calculate(self, atoms: Any = None, *more: Any) -> None:
            Calculator.calculate(self, atoms, *more)
            apart = atoms.positions[None] - atoms.positions[:, None]
            far = np.linalg.norm(apart, axis=-1)
            kept = np.zeros_like(far)
            np.put_along_axis(kept, far.argsort(axis=1)[:, : self.count], 1.0, axis=1)
            along = (np.abs(apart[..., [0, 2]]).sum(-1) < 1e-9) & (np.abs(apart[..., 1]) > 1e-9)
            forces = (kept * np.exp(-far))[..., None] * apart
            self.results = {"forces": forces.sum(1) + self.extra * along.any(1)[:, None] * np.eye(3)[0]}

    methane = [molecule("CH4") for _ in range(3)]
    grid = Atoms("H8", positions=list(itertools.product([0.0, 1.0], repeat=3)))
    sound = run(Nearest(5, 0.0), methane, ["forces"])
    assert not any("discontinuous" in n or "stands apart" in n for n in sound.notes)
    ties = run(Nearest(3, 0.0), [grid, grid], ["forces"])
    assert any("discontinuous: ties" in n and "2 of 2 samples" in n for n in ties.notes)
    assert ties.result.distinguishable
    apart = run(Nearest(8, 1.0), [grid, grid], ["forces"])
    assert any("stands apart: for 2 of 2 samples" in n for n in apart.notes)


# Kinds, stress, fields ----------------------------------------------------------------------------------------------


def test_periodic_and_molecules_are_reported_apart() -> None:
    result = run(Broken(), [*molecules(), *crystals()])
    assert list(result.results) == ["all", "non-periodic", "periodic"]
    assert [result.results[k].samples for k in result.results] == [5, 2, 3]
    assert set(result.results["all"].outputs) == {"energy", "forces"}
    assert "stress" in result.results["periodic"].outputs
    assert [row.kind for row in result.rows] == ["non-periodic"] * 2 + ["periodic"] * 3
    assert "stress_rms" not in result.rows[0].values
    assert any("stress was measured on 3 of 5" in note for note in result.notes)
    means = {k: r.outputs["forces"].equivariance for k, r in result.results.items()}
    assert means["all"] == pytest.approx((2 * means["non-periodic"] + 3 * means["periodic"]) / 5)


def test_kinds_are_pooled_in_the_order_given_with_their_floors() -> None:
    structures = [s for pair in zip(molecules(), crystals()[:2], strict=True) for s in pair]
    result = run(Broken(), structures, ["forces"], noise_samples=4)
    assert result.result.per_sample.ids == [0, 1, 2, 3]
    assert result.results["periodic"].per_sample.ids == [1, 3]
    floors = [result.results[k].noise_floor for k in ("periodic", "non-periodic")]
    assert result.result.noise_floor == pytest.approx(np.mean(floors), rel=1e-6, abs=0)
    assert min(floors) > 0


def test_a_slab_without_a_third_vector_has_no_stress() -> None:
    slab = fcc111("Al", (2, 2, 3), vacuum=5.0)
    flat = slab.copy()
    flat.cell[2] = 0
    result = run(EMT(), [slab, flat])
    assert [row.pbc for row in result.rows] == ["TTF", "TTF"]
    assert [row.status for row in result.rows] == ["measured", "measured"]
    assert ["stress_rms" in row.values for row in result.rows] == [True, False]
    assert set(result.results) == {"all", "periodic", "periodic without volume"}
    for output in result.result.outputs.values():
        assert output.relative_equivariance < 1e-22


def test_stress_alone_skips_molecules() -> None:
    result = run(Broken(), [*crystals(), *molecules()], ["stress"])
    assert [row.status for row in result.rows] == ["measured"] * 3 + ["skipped"] * 2
    assert "no periodic cell" in result.unmeasured[0].message
    with pytest.raises(InputError, match="none of the 2 structures"):
        run(Broken(), molecules(), ["stress"])


def _with_fields() -> Atoms:
    atoms = molecules()[0]
    atoms.set_momenta(np.random.default_rng(0).standard_normal((3, 3)))
    atoms.set_initial_magnetic_moments(np.random.default_rng(1).standard_normal((3, 3)))
    atoms.set_initial_charges([-1.0, 0.5, 0.7])
    atoms.info["e_field"] = np.array([0.1, 0.2, 0.3])
    return atoms


@pytest.mark.parametrize("group", ["SO3", "O3"])
def test_momenta_moments_and_named_fields_turn(group: str) -> None:
    result = run(Fields(), [_with_fields(), molecules()[1]], rotate={"e_field": "1o"}, group=group)
    assert result.rotated == ("positions", "cell", "momenta", "initial_magmoms", "e_field")
    assert result.result.equivariance < 1e-24
    assert result.result.outputs["energy"].relative_equivariance < 1e-22
    assert result.result.rotated["initial_magmoms"] == "1e"
    wrong = run(Fields(), [_with_fields()], rotate={"e_field": "1o", "initial_magmoms": "1o"}, group=group)
    assert (wrong.result.equivariance > 1e-3) == (group == "O3")


def test_a_structure_without_the_fields_is_given_none() -> None:
    seen = []

    class Recording(Broken):
        def calculate(self, atoms: Any = None, *more: Any) -> None:
            seen.append((len(atoms), "momenta" in atoms.arrays, "e_field" in atoms.info))
            super().calculate(atoms, *more)

    run(Recording(), [_with_fields(), molecules()[1]], rotate={"e_field": "1o"})
    assert set(seen) == {(3, True, True), (5, False, False)}


def test_fields_that_did_not_turn_are_named() -> None:
    result = run(Fields(), [_with_fields()])
    assert result.result.outputs["energy"].equivariance > 1e-6
    assert result.not_rotated == ("initial_charges scalar per atom", "e_field (3,)")
    assert any("e_field" in note and "rotate=" in note for note in result.notes)
    scalar = molecules()[0]
    scalar.set_initial_magnetic_moments([1.0, 0, 0])
    assert run(EMT(), [bulk("Cu")]).not_rotated == ()
    assert run(Broken(), [scalar]).not_rotated == ("initial_magmoms scalar per atom",)


def test_constraints_are_left_out_and_said() -> None:
    atoms = crystals()[1]
    atoms.set_constraint(FixAtoms([0, 1]))
    result = run(Broken(), [atoms], ["forces"])
    assert result.result.equivariance == pytest.approx(FORCE @ FORCE / 3, rel=EXACT)
    assert any("constraints" in note for note in result.notes)
    assert len(atoms.constraints) == 1


# Failures cost one row --------------------------------------------------------------------------------------------


def test_one_failing_structure_costs_one_row_and_nothing_of_the_rest(tmp_path: Path) -> None:
    gold = bulk("Au") * (2, 1, 1)
    structures = crystals()
    table = tmp_path / "rows.csv"
    mixed = run(Raising(), [structures[0], gold, *structures[1:]], labels=False, csv=table)
    assert [row.status for row in mixed.rows] == ["measured", "failed", "measured", "measured"]
    assert mixed.rows[1].message == "ValueError: no parameters for gold"
    assert mixed.result.samples == 3
    assert mixed.result.per_sample.ids == [0, 2, 3]
    assert mixed.result.outputs["forces"].equivariance == pytest.approx(FORCE @ FORCE / 3, rel=EXACT)
    assert "structure 1 Au2: ValueError: no parameters for gold" in str(mixed)
    rows = list(csv.DictReader(table.open()))
    assert [r["status"] for r in rows] == ["measured", "failed", "measured", "measured"]
    with pytest.raises(ValueError, match="no parameters"):
        run(Raising(), [structures[0], gold], on_error="raise")


def test_a_failure_half_way_leaves_the_labelled_figures_aligned() -> None:
    gold = labelled([bulk("Au") * (2, 1, 1)], 0.9)
    good = labelled(crystals(), 0.5)
    mixed = run(Raising(), [*gold, *good], ["forces"], labels=True)
    assert mixed.result.loss_as_given == pytest.approx(((FORCE - 0.5) ** 2).mean(), rel=EXACT)
    assert mixed.result.total == pytest.approx(FORCE @ FORCE / 3 + 0.25, rel=EXACT)


def test_rows_are_on_disk_before_the_next_structure_starts(tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    lines: list[int] = []

    class Looking(Broken):
        def calculate(self, atoms: Any = None, *more: Any) -> None:
            lines.append(len(table.read_text().splitlines()))
            super().calculate(atoms, *more)

    run(Looking(), crystals(), csv=table, noise_samples=0)
    assert sorted(set(lines)) == [1, 2, 3]

    class Stopped(Broken):
        def calculate(self, atoms: Any = None, *more: Any) -> None:
            if atoms.get_chemical_formula() == "Al4":
                raise KeyboardInterrupt
            super().calculate(atoms, *more)

    with pytest.raises(KeyboardInterrupt):
        run(Stopped(), crystals(), csv=table)
    assert len(table.read_text().splitlines()) == 2


def _nan_forces() -> Any:
    class Nan(Broken):
        def calculate(self, atoms: Any = None, *more: Any) -> None:
            super().calculate(atoms, *more)
            self.results["forces"] = self.results["forces"] * np.nan

    return Nan()


def _short_forces() -> Any:
    class Short(Broken):
        def calculate(self, atoms: Any = None, *more: Any) -> None:
            super().calculate(atoms, *more)
            self.results["forces"] = self.results["forces"][1:]

    return Short()


def _structure(**changes: Any) -> Atoms:
    atoms = crystals()[0]
    for name, value in changes.items():
        setattr(atoms, name, value)
    return atoms


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms(), "no atoms"),
        (Atoms("Cu", pbc=True), "singular cell"),
        (_structure(cell=[[3, 0, 0], [6, 0, 0], [0, 0, 3]]), "singular cell"),
        (_structure(cell=[[3, 0, 0], [0, 3, 0], [0, 0, 0]]), "singular cell"),
        (_structure(cell=[[3, 0, 0], [0, np.inf, 0], [0, 0, 3]]), "infinity in the cell"),
        (Atoms("H2", [[0, 0, np.nan], [0, 0, 1]]), "NaN or infinity in the positions"),
        (Atoms("H2", [[0, 0, 0], [0, 0, 0]]), "Error"),
    ],
)
def test_bad_structures_are_failed_rows(atoms: Atoms, message: str) -> None:
    with np.errstate(all="ignore"):
        result = run(Broken(), [atoms, *crystals()[:1]])
        assert [row.status for row in result.rows] == ["failed", "measured"]
        assert message in result.rows[0].message
        with pytest.raises(InputError, match="none of the 1 structures could be measured"):
            run(Broken(), [atoms])


@pytest.mark.parametrize(("make", "message"), [(_nan_forces, "NaN"), (_short_forces, "shape")])
def test_bad_answers_are_failed_rows(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(make(), crystals()[:1], ["forces"])


def test_left_handed_cells_stay_left_handed_and_are_named() -> None:
    atoms = crystals()[0]
    atoms.set_cell(np.asarray(atoms.cell)[[1, 0, 2]])
    assert np.linalg.det(atoms.cell) < 0
    result = run(EMT(), [atoms, crystals()[1]])
    assert result.rows[0].remark == "left-handed cell"
    assert any("left-handed cells: structures 0;" in note for note in result.notes)
    assert result.result.outputs["stress"].relative_equivariance < 1e-22


def test_one_atom() -> None:
    result = run(Broken(), [Atoms("Cu", [[1.0, 2.0, 3.0]])])
    assert result.result.outputs["forces"].equivariance == pytest.approx(FORCE @ FORCE / 3, rel=EXACT)
    silent = run(Broken(force=0 * FORCE), [Atoms("Cu", [[1.0, 2.0, 3.0]])], ["forces"])
    assert silent.rows[0].values["forces_rms"] == 0
    assert math.isnan(silent.rows[0].values["forces_relative"])


# Labels and units ---------------------------------------------------------------------------------------------------


def test_without_labels_percent_is_missing_and_said() -> None:
    result = run(Broken(), crystals())
    assert math.isnan(result.result.percent)
    assert "percent needs labels" in str(result)
    assert "forces_percent" not in result.rows[0].values
    assert result.rows[0].values["forces_relative"] > 0


def test_labels_by_name() -> None:
    structures = labelled(crystals(), 0.5, stored=False)
    result = run(Broken(), structures, labels={"forces": "REF_forces", "energy": "REF_energy"})
    assert result.labels == {"energy": "REF_energy", "forces": "REF_forces"}
    assert result.result.outputs["forces"].total == pytest.approx(FORCE @ FORCE / 3 + 0.25, rel=EXACT)
    assert result.result.outputs["energy"].total < 1e-20
    assert math.isnan(result.result.outputs["stress"].total)
    assert result.not_rotated == ()


def test_two_labels_need_a_choice() -> None:
    structures = labelled(crystals(), 0.5)
    for atoms in structures:
        atoms.arrays["REF_forces"] = atoms.calc.results["forces"] - 0.5
    with pytest.raises(InputError, match=r"several labels for forces: \['calculator', 'REF_forces'\]"):
        run(Broken(), structures, ["forces"], labels=True)
    for chosen, error in (("calculator", 0.5), ("forces", 0.5), ("REF_forces", 0.0)):
        result = run(Broken(), structures, ["forces"], labels={"forces": chosen})
        assert result.result.total == pytest.approx(FORCE @ FORCE / 3 + error**2, rel=EXACT)


def test_a_key_that_only_sounds_like_a_label_needs_the_users_word() -> None:
    with pytest.raises(InputError, match=r"labels=\{'energy': 'REF_energy'\}"):
        run(Broken(), labelled(crystals(), stored=False), labels=True)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (True, "no structure has any for"),
        ({"forces": "REF_forces"}, r"3 of 3 structures have no label 'REF_forces'"),
        ({"dipole": "mu"}, r"labels .*names \['dipole'\]; labels are for energy, forces, stress"),
        ({"stress": "virial"}, "not measured"),
        ("REF_forces", "labels must be"),
    ],
)
def test_missing_labels(labels: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(Broken(), crystals(), ["energy", "forces"], labels=labels)


def test_labels_that_some_structures_lack_are_refused_before_the_first_call() -> None:
    calculator = Broken()
    structures = [*labelled(crystals()), crystals()[0]]
    with pytest.raises(InputError, match=r"1 of 4 structures have no label .* for energy \(structures \[3\]\)"):
        run(calculator, structures, labels=True)
    assert calculator.calls == 0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("REF_forces", np.zeros((2, 2)), "has shape"),
        ("REF_forces", np.full((2, 3), np.nan), "NaN"),
        ("REF_forces", np.array([["a"] * 3] * 2), "not numeric"),
    ],
)
def test_bad_labels_are_failed_rows(name: str, value: Any, message: str) -> None:
    structures = labelled(crystals(), stored=False)
    structures[0].arrays[name] = value
    result = run(Broken(), structures, ["forces"], labels={"forces": name})
    assert [row.status for row in result.rows] == ["failed", "measured", "measured"]
    assert message in result.rows[0].message


def test_a_stress_label_as_a_matrix() -> None:
    structures = labelled(crystals())
    for atoms in structures:
        atoms.info["dft_stress"] = stress_matrix(atoms.calc.results.pop("stress"))
    result = run(Broken(stress=0 * STRESS), structures, ["stress"], labels={"stress": "dft_stress"})
    assert result.result.total < 1e-24
    structures[0].info["dft_stress"] = structures[0].info["dft_stress"] + np.triu(np.ones((3, 3)))
    result = run(Broken(), structures, ["stress"], labels={"stress": "dft_stress"})
    assert "not symmetric" in result.rows[0].message


def test_units_of_the_file() -> None:
    structures = labelled(crystals(), 0.5, stored=False)
    for atoms in structures:
        atoms.arrays["REF_forces"] = atoms.arrays["REF_forces"] / (Hartree / Bohr)
        atoms.info["REF_energy"] /= Hartree
    labels = {"forces": "REF_forces", "energy": "REF_energy"}
    right = run(Broken(), structures, labels=labels, energy_unit="Hartree", label_length_unit="Bohr")
    assert right.result.outputs["forces"].total == pytest.approx(FORCE @ FORCE / 3 + 0.25, rel=EXACT)
    assert right.result.outputs["energy"].total < 1e-20
    assert right.units["energy of the file"] == "Hartree"
    for atoms in structures:
        atoms.set_cell(atoms.cell / Bohr, scale_atoms=True)
    atomic = run(Broken(), structures, labels=labels, energy_unit="Hartree", length_unit="Bohr")
    assert atomic.result.outputs["forces"].total == pytest.approx(FORCE @ FORCE / 3 + 0.25, rel=1e-8)


def test_stress_units() -> None:
    assert Units(stress="GPa").factor("stress") == pytest.approx(GPa)
    assert Units(stress="kbar").factor("stress") == pytest.approx(0.1 * GPa)
    assert Units(energy="Hartree", length="Bohr").factor("stress") == pytest.approx(Hartree / Bohr**3)
    assert Units().factor("forces") == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"energy_unit": "furlong", "labels": True}, "energy_unit='furlong' is not known: use one of eV"),
        ({"length_unit": "bohr"}, "length_unit='bohr'"),
        ({"stress_unit": "psi", "labels": True}, "stress_unit"),
        ({"energy_unit": "Hartree"}, "labels=False"),
        ({"cosets": 1}, "cosets must be an integer >= 2, got 1"),
        ({"seed": -1}, "seed"),
        ({"noise_samples": 1.5}, "noise_samples"),
        ({"most_atoms": 0}, "most_atoms must be an integer >= 1, got 0"),
        ({"most_atoms": True}, "most_atoms must be an integer >= 1"),
        ({"on_error": "ignore"}, "on_error"),
        ({"precision": "half"}, "precision"),
        ({"outputs": "forces"}, r"\['forces'\]"),
        ({"outputs": ["dipole"]}, "outputs must be some of"),
        ({"outputs": []}, "outputs must be some of"),
        ({"rotations": "Q8"}, "Q8"),
        ({"group": "U1"}, "group"),
        ({"center": "corner"}, "corner"),
        ({"force_weight": -1.0}, "weight"),
        ({"clusters": "config"}, "no such info key"),
        ({"clusters": [0, 1]}, r"one cluster a structure \(3\)"),
        ({"rotate": {"e_field": "1o"}}, "in no structure"),
        ({"rotate": {"positions": "1o"}}, "positions"),
        ({"csv": "/nowhere/at/all.csv"}, "cannot write the table"),
    ],
)
def test_bad_arguments_name_the_argument(settings: dict[str, Any], message: str) -> None:
    calculator = Broken()
    with pytest.raises(InputError, match=message):
        run(calculator, labelled(crystals()), **settings)
    assert calculator.calls == 0


@pytest.mark.parametrize(
    ("calculator", "structures", "message"),
    [
        (EMT, [bulk("Cu")], r"give an instance, EMT\(…\)"),
        (object(), [bulk("Cu")], "not an ASE calculator"),
        (EMT(), bulk("Cu"), r"\[atoms\]"),
        (EMT(), [], "there are no structures"),
        (EMT(), [bulk("Cu"), "H2O"], r"structures\[1\] is str"),
        (EMT(), 7, "a path or a list of Atoms"),
        (EMT(), "/nowhere.extxyz", "no file"),
        (SinglePointCalculator(bulk("Cu")), [bulk("Ag")], "has none of"),
    ],
)
def test_bad_calculators_and_structures(calculator: Any, structures: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(calculator, structures)


def test_outputs_a_calculator_lacks() -> None:
    class EnergyOnly(Calculator):
        implemented_properties = ("energy",)

        def calculate(self, atoms: Any = None, *more: Any) -> None:
            super().calculate(atoms, *more)
            self.results = {"energy": float(DIPOLE @ atoms.positions.sum(0))}

    assert run(EnergyOnly(), crystals()).outputs == ("energy",)
    with pytest.raises(InputError, match=r"does not implement \['forces'\]"):
        run(EnergyOnly(), crystals(), ["energy", "forces"])
    EnergyOnly.implemented_properties = ("dipole",)
    with pytest.raises(InputError, match="none of"):
        run(EnergyOnly(), crystals())


# Files --------------------------------------------------------------------------------------------------------------


def test_through_an_extended_xyz_file(tmp_path: Path) -> None:
    path = tmp_path / "structures.extxyz"
    ase.io.write(path, labelled([*crystals(), *molecules()], 0.5))
    result = run(Broken(), path, labels=True)
    assert result.result.samples == 5
    assert result.results["periodic"].outputs["forces"].total == pytest.approx(FORCE @ FORCE / 3 + 0.25, rel=1e-6)
    assert set(result.labels) == {"energy", "forces", "stress"}


def test_empty_and_broken_files(tmp_path: Path) -> None:
    path = tmp_path / "structures.extxyz"
    path.touch()
    with pytest.raises(InputError, match="is empty"):
        read(path)
    path.write_text("3\nwater\nO 0 0 0\n")
    with pytest.raises(DataError, match="ASE cannot read"):
        read(path)


def test_tables(tmp_path: Path) -> None:
    structures = labelled([*crystals(), *molecules()], 0.5)
    structures[0].info["name"] = "rhombus"
    result = run(Raising(8), structures, labels=True, clusters=["a", "a", "b", "c", "d"])
    assert result.result.clusters == 3
    result.to_csv(tmp_path / "rows.csv")
    rows = list(csv.DictReader((tmp_path / "rows.csv").open()))
    assert [r["formula"] for r in rows] == ["Cu2", "Al4", "Cu2", "H2O", "CH4"]
    assert float(rows[1]["forces_percent"]) == result.rows[1].values["forces_percent"]
    assert (rows[3]["status"], rows[3]["forces_rms"], rows[4]["stress_rms"]) == ("failed", "", "")
    result.to_json(tmp_path / "all.json")
    stored = json.loads((tmp_path / "all.json").read_text(), parse_constant=pytest.fail)
    assert stored["results"]["all"]["samples"] == 4
    assert stored["rows"][0]["name"] == "rhombus"
    assert stored["labels"] == {"energy": "calculator", "forces": "calculator", "stress": "calculator"}
    assert eq.Result.from_dict(result.results["periodic"].to_dict()).samples == 3


def test_the_worst_are_named() -> None:
    result = run(ForgetsCell(), crystals(), ["energy", "forces"])
    by = [r.values["forces_rms"] for r in result.worst()]
    assert by == sorted(by, reverse=True)
    assert re.search(rf"worst by forces_rms: {result.worst(1)[0]} \(\S+ eV/Å\)", str(result))
    units = {name: result.unit(name) for name in ("energy_rms", "energy_relative", "forces_percent", "stress_total")}
    assert units == {"energy_rms": "eV per atom", "energy_relative": "", "forces_percent": "%",
                     "stress_total": "(eV/Å^3)²"}  # fmt: skip
    assert [r.id for r in result.worst(1, "energy_relative")] == [
        max(result.rows, key=lambda r: r.values["energy_relative"]).id
    ]
    with pytest.raises(InputError, match="there is no column 'formula'"):
        result.worst(by="formula")


def test_a_molecule_as_the_docstring_says() -> None:
    result = eq.adapters.ase.measure(EMT(), [bulk("Cu", cubic=True), molecule("CO")], progress=False)
    assert "Cu4" in str(result)
    assert "not distinguishable from numerical noise" in str(result)
