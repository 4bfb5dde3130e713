"""Columns of ml-peg and MLIP Arena from our passes: closed forms, and the verdicts of their own protocols."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from scipy.spatial.transform import Rotation

from equiscope.adapters.ase import measure
from equiscope.adapters.peers import arena, peg
from equiscope.errors import InputError
from tests.adapters.calculators import BEND, FORCE, STRESS, Broken, PairsInAse, crystals

STEPS = (*np.linspace(1, 40, 14), *([None] * 100))


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open()))


def run(calculator: Any, folder: Path, structures: list[Atoms] | None = None, **settings: Any) -> dict[str, list[Any]]:
    paths = {name: folder / f"{name}.csv" for name in ("ml-peg", "mlip-arena")}
    design = {"noise_samples": 0, "progress": False, **settings}
    measure(calculator, structures or crystals(), ["energy", "forces"], exports=paths, **design)
    return {name: table(path) for name, path in paths.items()}


def answer(calculator: Any, atoms: Atoms, turn: Rotation) -> tuple[np.ndarray, float]:
    """Forces turned back and energy per atom, of a turned copy."""
    turned = atoms.copy()
    turned.set_cell(turn.apply(atoms.cell.array), scale_atoms=False)
    turned.positions = turn.apply(atoms.positions)
    turned.calc = calculator
    return turn.inv().apply(turned.get_forces()), turned.get_potential_energy() / len(atoms)


def their_arena(calculator: Any, atoms: Atoms, axes: int) -> bool:
    """Twelve angles about each axis, against the answer as given."""
    axis = np.random.default_rng(1).standard_normal((axes, 3))
    axis /= np.linalg.norm(axis, axis=1)[:, None]
    turns = [Rotation.from_rotvec(a * v) for a in np.radians(np.arange(30, 361, 30)) for v in axis]
    given = answer(calculator, atoms, Rotation.identity())
    return arena(given, [answer(calculator, atoms, t) for t in turns])["passed"]


def their_peg(calculator: Any, atoms: Atoms) -> bool:
    """As built, 14 steps of 1 to 40 degrees, and 100 at random, each compared with the one before."""
    random = np.random.default_rng(2)
    turn, turns = Rotation.identity(), []
    for step in STEPS:
        axis = random.standard_normal(3)
        axis *= np.radians(step or 0) / np.linalg.norm(axis)
        turn = Rotation.from_rotvec(axis) * turn if step else Rotation.random(rng=random)
        turns.append(turn)
    given = answer(calculator, atoms, Rotation.identity())
    return peg(given, [answer(calculator, atoms, t) for t in turns])["passed"]


@pytest.mark.parametrize("size", [0.0, 1e-4, 1e-2])
def test_verdicts_of_24_turns_are_those_of_their_own_protocols(size: float, tmp_path: Path) -> None:
    structures = crystals()[:2]
    # By 1e-4 and 1e-2 of forces of about one eV/Å: well inside and well outside what is let pass.
    bend = size * BEND / np.linalg.norm(BEND)
    calculator = PairsInAse(bend, direct=True) if size else EMT()
    found = run(calculator, tmp_path, structures)
    for place, atoms in enumerate(structures, start=1):
        assert found["ml-peg"][place]["passed"] == str(their_peg(calculator, atoms))
        assert found["mlip-arena"][place]["passed"] == str(their_arena(calculator, atoms, 10))
    assert found["mlip-arena"][0]["passed"] == str(size < 1e-3)


def test_every_turn_is_one_of_the_measure_and_ours_stands_beside(tmp_path: Path) -> None:
    found = run(Broken(stress=0 * STRESS), tmp_path, cosets=3, noise_samples=3)
    whole, *rows = found["mlip-arena"]
    assert len(rows) == 3
    assert {row["turns"] for row in rows} == {whole["turns"]} == {"36"}
    assert {row["pairs"] for row in found["ml-peg"]} == {"36"}
    # A constant force c: its equivariance error is |c|²/3, and three of the same size have an interval of no width but
    # for structures unlike them.
    assert float(whole["equiscope_forces_rms"]) == pytest.approx(np.sqrt(FORCE @ FORCE / 3), rel=1e-9)
    assert float(whole["equiscope_forces_rms_low"]) < float(whole["equiscope_forces_rms"])
    # The difference of a turned and the given constant has mean square 2 |c|²/3 a component; its mean size is less.
    assert 0.5 < float(whole["mae"]) / np.sqrt(2 * FORCE @ FORCE / 3) < 1
    assert float(whole["mae_low"]) < float(whole["mae"]) < float(whole["mae_high"])
    assert whole["equivariant_ratio"] == "0.0"
    assert float(found["ml-peg"][0]["max_energy_change"]) < 1e-12


def test_cosines_of_forces_that_vanish() -> None:
    zero, one = np.zeros((2, 3)), np.eye(3)[:2]
    assert arena((zero, 0.0), [(zero, 0.0)])["cosine"] == 1
    assert arena((zero, 0.0), [(one, 0.0)])["cosine"] == -1
    assert arena((one, 0.0), [(2 * one, 0.0), (-one, 0.0)])["cosine"] == 0
    assert arena((one, 0.0), [(one, 0.0), (one[::-1], 0.0)])["equivariant_ratio"] == 0.5


def test_pairs_are_of_orientations_in_a_row() -> None:
    forces = [np.full((1, 3), v) for v in (0.0, 1.0, 3.0)]
    found = peg((forces[0], 0.0), [(forces[1], 1.0), (forces[2], 1.5)])
    assert (found["mean_force_change"], found["max_force_change"]) == (1.5, 2.0)
    assert (found["mean_energy_change"], found["max_energy_change"]) == (0.75, 1.0)


def test_what_cannot_be_exported_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"exports \(--export\) are for mlip-arena, ml-peg, got 'matbench'"):
        measure(EMT(), crystals(), exports={"matbench": "x.csv"})
    with pytest.raises(InputError, match=r"columns of ml-peg need \['energy'\]"):
        measure(EMT(), crystals(), ["forces"], exports={"ml-peg": tmp_path / "x.csv"})
    calculator = Broken()
    with pytest.raises(InputError, match=r"exports \(--export\) are of rotations: leave out symmetry='permutation'"):
        run(calculator, tmp_path, symmetry="permutation")
    assert calculator.calls == 0
    with pytest.raises(InputError, match="cannot write the table to '/nowhere"):
        measure(EMT(), crystals()[:1], exports={"mlip-arena": "/nowhere/x.csv"}, progress=False, noise_samples=0)
