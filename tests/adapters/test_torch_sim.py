"""The torch-sim door: figures equal to ASE's on the same function, planted errors at their exact size, old versions.

Where torch-sim is not installed, its state is a stand-in (``torch_sim_models``); `make torch-sim` runs this file beside
the real one.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import ase.io
import pytest
import torch

import equiscope as eq
from equiscope.decomposition.batches import as_batch
from equiscope.errors import InputError
from tests.adapters.calculators import PairsInAse, bent_share, crystals, molecules
from tests.adapters.torch_sim_models import PairsOfStates, put_in_place

EXACT = 1e-10


@pytest.fixture(scope="module")
def door() -> Iterator[ModuleType]:
    import equiscope.adapters as doors

    with pytest.MonkeyPatch.context() as patch:
        put_in_place(patch)
        yield doors.torch_sim


def state_of(structures: list[Any], **extras: torch.Tensor) -> Any:
    from torch_sim.state import SimState

    counts = torch.tensor([len(a) for a in structures])
    return SimState(
        positions=torch.cat([torch.from_numpy(a.positions) for a in structures]),
        masses=torch.ones(int(counts.sum()), dtype=torch.float64),
        cell=torch.stack([torch.from_numpy(a.cell.array.T.copy()) for a in structures]),
        pbc=torch.from_numpy(structures[0].pbc),
        atomic_numbers=torch.cat([torch.from_numpy(a.numbers) for a in structures]).int(),
        system_idx=torch.arange(len(structures)).repeat_interleave(counts),
        **extras,
    )


def test_energy_forces_and_stress_are_those_of_the_same_function_in_ase(door: ModuleType) -> None:
    structures = crystals() + molecules()
    design = {"progress": False, "rotations": "D2", "noise_samples": 0}
    here = door.measure(PairsOfStates(), structures, **design)
    there = eq.adapters.ase.measure(PairsInAse(direct=True), structures, **design)
    for one, other in zip(here.rows, there.rows, strict=True):
        for name, value in other.values.items():
            # What is symmetric has an error of rounding alone, other in each.
            rounding = value < (1e-24 if "relative" in name else 1e-12)
            assert rounding or one.values[name] == pytest.approx(value, rel=EXACT), (name, one)


def test_a_planted_error_of_degree_two_has_its_exact_size(door: ModuleType) -> None:
    model = PairsOfStates()
    result = door.measure(model, crystals(), ["forces"], rotations="I", progress=False, noise_samples=0)
    assert result.result.outputs["forces"].relative_equivariance == pytest.approx(bent_share(), rel=EXACT)
    # All three crystals in one call: 120 rotations, and a few calls for the floor.
    assert model.calls < 150


def test_a_state_of_ones_own_is_a_batch(door: ModuleType) -> None:
    state = state_of(crystals(), forces_label=torch.zeros(sum(map(len, crystals())), 3, dtype=torch.float64))
    result = eq.measure(
        PairsOfStates(),
        [state],
        inputs=door.INPUTS,
        outputs={**door.OUTPUTS, "forces": eq.Output("1o", target="forces_label")},
        rotations="I",
    )
    assert result.outputs["forces"].relative_equivariance == pytest.approx(bent_share(), rel=EXACT)
    assert result.outputs["forces"].percent == pytest.approx(100 * bent_share(), rel=EXACT)
    assert result.outputs["stress"].relative_equivariance < 1e-24
    single = eq.measure(PairsOfStates(), [state_of([a]) for a in crystals()], inputs=door.INPUTS, outputs=door.OUTPUTS)
    assert single.outputs["energy"].relative_equivariance < 1e-24


def test_parts_of_a_state_in_any_order_and_number(door: ModuleType) -> None:
    structures = crystals()
    field = torch.arange(3.0).double()[:, None]
    batch = as_batch(state_of(structures, field=field))
    assert torch.equal(batch.fields()["cell"][1], torch.from_numpy(structures[1].cell.array))
    part = batch.part([2, 0, 2])
    expected = state_of([structures[i] for i in (2, 0, 2)])
    for name in ("positions", "cell", "atomic_numbers", "system_idx"):
        assert torch.equal(getattr(part, name), getattr(expected, name)), name
    assert as_batch(part).fields()["field"].flatten().tolist() == [2, 0, 2]
    assert as_batch(part).labels("field") == [2, 0, 2]


def test_bad_input_is_a_sentence_each(door: ModuleType) -> None:
    from equiscope.adapters.torch_sim_engine import check_version

    check_version("0.4.0")
    check_version("1.0")
    with pytest.raises(InputError, match=r"torch-sim 0\.3\.0 computes wrong energies for turned cells.*>= 0\.4.*3\.12"):
        check_version("0.3.0")
    with pytest.raises(InputError, match=r"does not implement \['forces'\]"):
        door.measure(PairsOfStates(forces=False), crystals(), ["forces"], progress=False)
    with pytest.raises(InputError, match="give a torch-sim model"):
        door.TorchSim(torch.nn.Linear(1, 1))
    from equiscope.adapters.ase_structures import AsePlan
    from equiscope.adapters.many import joined

    mixed = joined([0, 1], [*crystals()[:1], *molecules()[:1]], AsePlan(("energy",)), [0, 1])
    with pytest.raises(InputError, match="mixed periodicity"):
        door.TorchSim(PairsOfStates()).answer(mixed, ["energy"])


def test_an_old_version_is_refused_when_the_door_is_opened() -> None:
    import equiscope.adapters as doors

    with pytest.MonkeyPatch.context() as patch:
        put_in_place(patch, "0.3.0")
        with pytest.raises(InputError, match=r"0\.3\.0 computes wrong energies"):
            _ = doors.torch_sim


def test_a_model_in_the_command(door: ModuleType, tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from equiscope.cli import main

    ase.io.write(tmp_path / "some.extxyz", crystals())
    given = ["measure", "--torch-sim", "tests.adapters.torch_sim_models:PairsOfStates", str(tmp_path / "some.extxyz")]
    assert main([*given, "--quiet", "--outputs", "forces", "--rotations", "D2"]) == 0
    assert "PairsOfStates: 3 structures x 8 rotations" in capsys.readouterr().out
    assert main(["measure", "--torch-sim", "tests.adapters.calculators:Broken", str(tmp_path / "some.extxyz")]) == 2
    assert "the factory returned Broken, not a torch-sim model" in capsys.readouterr().err
