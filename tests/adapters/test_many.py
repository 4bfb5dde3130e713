"""Many structures in one call: the batch, its windows, calculators that answer lists, and one failure among many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress

from equiscope.adapters.ase import measure
from equiscope.adapters.ase_structures import AsePlan, find_fields
from equiscope.adapters.many import joined, sizes, voigt, windows
from equiscope.errors import RandomModelError
from tests.adapters.calculators import Broken, Random, crystals, molecules, stress_matrix

EXACT = 1e-10


class Lists(Broken):
    """Answers lists of structures, as metatomic's calculators do; refuses lists that hold gold."""

    def __init__(self, *constants: Any, peer: Any = None):
        super().__init__(*constants)
        self.lengths: list[int] = []
        self.one = peer or Broken(*constants)

    def compute_energy(self, systems: Any, compute_forces_and_stresses: bool = False) -> dict[str, list[Any]]:
        self.lengths.append(len(systems))
        if any(79 in atoms.numbers for atoms in systems):
            raise ValueError("no parameters for gold")
        found: dict[str, list[Any]] = {"energy": [], "forces": [], "stress": []}
        for atoms in systems:
            self.one.calculate(atoms)
            for name in found:
                value = self.one.results.get(name, np.zeros(6))
                found[name].append(stress_matrix(value) if name == "stress" else value)
        return found

    def calculate(self, atoms: Any = None, *more: Any) -> None:
        if 79 in atoms.numbers:
            raise ValueError("no parameters for gold")
        super().calculate(atoms, *more)


def run(calculator: Any, structures: list[Atoms], **settings: Any) -> Any:
    return measure(calculator, structures, progress=False, **{"rotations": "D2", "noise_samples": 0, **settings})


def test_lists_in_one_call_are_the_same_as_one_by_one() -> None:
    structures = [s for pair in zip(crystals()[:2], molecules(), strict=True) for s in pair]
    calculator = Lists()
    together, alone = run(calculator, structures), run(Broken(), structures)
    assert all(length % 2 == 0 for length in calculator.lengths)
    assert together.result.per_sample.ids == [0, 1, 2, 3]
    for kind, result in alone.results.items():
        assert together.results[kind].per_sample.ids == result.per_sample.ids
        assert together.results[kind].equivariance == pytest.approx(result.equivariance, rel=EXACT)
    assert [row.id for row in together.rows] == [0, 1, 2, 3]
    for one, other in zip(together.rows, alone.rows, strict=True):
        assert one.values == pytest.approx(dict(other.values), rel=EXACT)
    small = Lists()
    run(small, structures, most_atoms=2)
    assert small.lengths == []


def test_rotations_share_a_call_up_to_its_atoms() -> None:
    """Two cosets of T, 24 rotations, of three crystals with N atoms together: in calls of up to five rotations."""
    structures, calculator = crystals(), Lists()
    atoms, count = sum(map(len, structures)), len(structures)
    found = run(calculator, structures, most_atoms=5 * atoms, rotations="T", noise_samples=0)
    shared = [length // count for length in calculator.lengths if length > count]
    assert max(shared) == 5
    assert sum(shared) >= 24 - 4
    alone = run(Broken(), structures, rotations="T")
    assert found.result.equivariance == pytest.approx(alone.result.equivariance, rel=EXACT)


def test_one_structure_that_fails_costs_one_row() -> None:
    gold = crystals()[0]
    gold.numbers[:] = 79
    result = run(Lists(), [*crystals()[:2], gold, *crystals()[2:]])
    assert [row.status for row in result.rows] == ["measured", "measured", "failed", "measured"]
    assert "no parameters for gold" in result.rows[2].message
    assert result.result.samples == 3


def test_a_random_answer_to_a_list_is_refused() -> None:
    with pytest.raises(RandomModelError, match=r"structure 0 \(Cu2\) to 2"):
        run(Lists(peer=Random()), crystals(), outputs=["forces"])


def test_windows_hold_whole_structures_in_order() -> None:
    structures = [Atoms("H" * n) for n in (3, 2, 7, 1, 1)]
    assert list(windows(structures, 5)) == [[0, 1], [2], [3, 4]]
    assert list(windows(structures, None)) == [[0], [1], [2], [3], [4]]
    assert list(windows(structures, 100)) == [[0, 1, 2, 3, 4]]


def test_a_batch_of_structures_field_by_field() -> None:
    structures = [a.copy() for a in crystals()]
    for place, atoms in enumerate(structures):
        atoms.set_momenta(np.full((len(atoms), 3), float(place)))
        atoms.info |= {"e_field": np.array([place, 1.0, 2.0]), "E": 5.0 * place}
    fields = find_fields(structures, {"e_field": "1o"})
    plan = AsePlan(("energy",), {"energy": "E"}, fields)
    batch = joined([4, 7, 9], structures, plan, ["a", "b", "c"], torch.float32)
    assert sizes(batch).tolist() == [len(a) for a in structures]
    assert batch["positions"].dtype == batch["e_field"].dtype == torch.float32
    for place, atoms in enumerate(structures):
        own = batch["system"] == place
        assert np.allclose(batch["positions"][own], atoms.positions, atol=1e-6)
        assert (batch["momenta"][own] == place).all()
        assert np.allclose(batch["cell"][place], atoms.cell, atol=1e-6)
        assert batch["e_field"][place].tolist() == [place, 1, 2]
        assert float(batch["energy label"][place]) == pytest.approx(5 * place / len(atoms))


def test_voigt_is_that_of_ase() -> None:
    stress = np.random.default_rng(0).standard_normal((4, 3, 3))
    stress = (stress + stress.transpose(0, 2, 1)) / 2
    assert np.allclose(voigt(torch.from_numpy(stress)), [full_3x3_to_voigt_6_stress(s) for s in stress], atol=1e-15)
