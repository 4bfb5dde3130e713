"""The metatomic door: figures equal to ASE's on the same function, planted errors at their exact size, bad models."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import fcc111
from ase.calculators.singlepoint import SinglePointCalculator
from torch.utils._python_dispatch import TorchDispatchMode

import equiscope as eq
from equiscope.analysis.layers import layers
from equiscope.errors import InputError
from tests.adapters.calculators import BEND, TILT, PairsInAse, bent_share, crystals, molecules

if importlib.util.find_spec("metatomic") is None:
    pytest.skip("metatomic is not installed", allow_module_level=True)

from equiscope.adapters.ase_structures import AsePlan
from equiscope.adapters.many import declared, joined
from equiscope.adapters.metatomic import Metatomic, measure
from tests.adapters.metatomic_models import Pairs, model

EXACT = 1e-10


def run(engine: Any, structures: list[Atoms], outputs: list[str], **settings: Any) -> Any:
    return measure(engine, structures, outputs, progress=False, **{"noise_samples": 0, **settings})


def in_ase(calculator: Any, structures: list[Atoms], outputs: list[str], **settings: Any) -> Any:
    return eq.adapters.ase.measure(
        calculator, structures, outputs, progress=False, **{"noise_samples": 0, **settings}
    )


def labelled() -> list[Atoms]:
    made = []
    for atoms in crystals() + molecules():
        results = {"energy": 0.1 * len(atoms), "forces": 0.2 + 0 * atoms.positions}
        if atoms.cell.rank == 3:
            results["stress"] = np.full(6, 0.01)
        atoms.calc = SinglePointCalculator(atoms, **results)
        made.append(atoms)
    return made


@pytest.mark.parametrize("design", [{"rotations": "D2", "cosets": 3, "center": "mean"}, {"group": "O3"}])
def test_gradient_forces_energy_and_stress_are_those_of_the_same_function_in_ase(design: dict[str, Any]) -> None:
    names = ["energy", "forces", "stress"]
    here = run(model(tilt=TILT), labelled(), names, labels=True, **design)
    there = in_ase(PairsInAse(tilt=TILT), labelled(), names, labels=True, **design)
    for one, other in zip(here.rows, there.rows, strict=True):
        assert one.values == pytest.approx(dict(other.values), rel=EXACT)
    for kind, result in there.results.items():
        for field in ("percent", "percent_error", "total", "r2", "loss_as_given"):
            assert getattr(here.results[kind], field) == pytest.approx(getattr(result, field), rel=1e-9), (kind, field)


def test_a_planted_error_of_degree_two_has_its_exact_size_and_degree() -> None:
    structures = crystals()[:2]
    result = run(model(), structures, ["forces", "non_conservative_forces"], rotations="I", spectrum=True)
    forces, direct = result.result.outputs["forces"], result.result.outputs["non_conservative_forces"]
    assert direct.relative_equivariance == pytest.approx(bent_share(), rel=EXACT)
    assert forces.relative_equivariance < 1e-25
    assert result.result.spectrum["share"][1] == pytest.approx(1, abs=1e-9)
    there = in_ase(PairsInAse(direct=True), structures, ["forces"], rotations="I").result.outputs["forces"]
    assert direct.equivariance == pytest.approx(there.equivariance, rel=EXACT)


def test_one_structure_a_call_and_all_of_them_are_the_same(tmp_path: Path) -> None:
    model().save(str(tmp_path / "model.pt"))
    together = run(str(tmp_path / "model.pt"), crystals() + molecules(), ["non_conservative_forces"])
    alone = run(model(), crystals() + molecules(), ["non_conservative_forces"], most_atoms=1)
    # 24 rotations, and what the floor needs, of the crystals in one call each and of the molecules in one.
    assert alone.result.model_calls > 1.5 * together.result.model_calls
    for one, other in zip(together.rows, alone.rows, strict=True):
        assert one.values == pytest.approx(dict(other.values), rel=EXACT)


def test_a_second_coset_of_some_structures_alone() -> None:
    structures = molecules() * 8
    part = run(model(), structures, ["non_conservative_forces"], cosets=1.5)
    there = in_ase(PairsInAse(direct=True), structures, ["forces"], cosets=1.5)
    assert part.result.passes == 18
    assert part.result.equivariance == pytest.approx(there.result.equivariance, rel=EXACT)
    with pytest.raises(InputError, match="needs at least 32 structures, there are 3"):
        run(model(), crystals(), ["non_conservative_forces"], cosets=1.25)


def test_features_are_invariants_or_not_and_layers_say_of_what_degree() -> None:
    engine = Metatomic(model(), outputs=["feature"])
    result = run(engine, molecules(), ["feature"])
    expected = np.mean([(a.positions**2).sum(1).mean() / 3 / 2 for a in molecules()])
    # The number of neighbours stays, the x of an atom turns: |r|²/3 in one of two columns.
    assert result.result.outputs["feature"].equivariance == pytest.approx(expected, rel=EXACT)
    plan = AsePlan(("feature",), features={"feature": "atom"})
    batch = joined([0, 1], molecules(), plan, ["a", "b"])
    found = layers(engine, [batch], declared(("feature",), features=plan.features), names=["answer"])
    (layer,) = found["layers"]
    assert layer["share"][0] + layer["share"][1] == pytest.approx(1, abs=1e-9)
    assert layer["share"][1] > 0.1


def test_slabs_and_mixed_periodicity_in_one_list() -> None:
    slab = fcc111("Al", (1, 1, 2), vacuum=5.0)
    structures = [*crystals()[:1], slab, *molecules()[:1], *crystals()[1:2]]
    result = run(model(tilt=TILT), structures, ["energy", "forces", "stress"])
    there = in_ase(PairsInAse(tilt=TILT), structures, ["energy", "forces", "stress"])
    assert [row.pbc for row in result.rows] == ["TTT", "TTF", "FFF", "TTT"]
    for one, other in zip(result.rows, there.rows, strict=True):
        assert one.values == pytest.approx(dict(other.values), rel=1e-9)


def test_single_precision_models_have_their_floor() -> None:
    single = model(dtype="float32", bend=0 * BEND)
    result = run(single, molecules(), ["forces", "non_conservative_forces"], noise_samples=2)
    assert not result.result.distinguishable
    assert any("single precision" in note for note in result.notes)


class AsOnCuda(TorchDispatchMode):
    """Refuses matrix products of whole numbers, which a CUDA card does not have."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name in ("mm", "mv", "dot", "bmm", "addmm", "addmv") and not args[0].is_floating_point():
            raise RuntimeError(f"{name} is not implemented on CUDA for {args[0].dtype}")
        return function(*args, **(kwargs or {}))


def test_nothing_is_asked_that_a_cuda_card_cannot() -> None:
    with AsOnCuda():
        found = Metatomic(model()).answer(joined([0, 1], crystals()[:2], AsePlan(("energy",)), [0, 1]), ["forces"])
        with pytest.raises(RuntimeError, match="not implemented on CUDA"):
            torch.eye(3).long() @ torch.arange(3)
    assert found["forces"].shape == (sum(map(len, crystals()[:2])), 3)


def test_labels_of_structures_that_were_moved_are_still_read() -> None:
    structures = labelled()
    for atoms in structures:
        atoms.positions -= atoms.get_center_of_mass()
    result = run(model(), structures, ["forces", "non_conservative_forces"], labels=True)
    assert set(result.labels) == {"forces", "non_conservative_forces"}
    assert result.result.outputs["forces"].total > 0


class NoGradient(Pairs):
    def forward(self, systems: Any, outputs: Any, selected_atoms: Any) -> Any:
        with torch.no_grad():
            return super().forward(systems, outputs, selected_atoms)


NoGradient.forward.__annotations__ = Pairs.forward.__annotations__


def test_bad_models_are_a_sentence_each(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither energies nor direct forces.*'feature'"):
        Metatomic(model("feature"))
    with pytest.raises(InputError, match=r"does not implement \['forces'\]"):
        run(model("non_conservative_force"), crystals(), ["forces"])
    with pytest.raises(InputError, match="does not depend on positions in a way torch can differentiate"):
        run(model(inner=NoGradient), crystals(), ["forces"], on_error="raise")
    with pytest.raises(InputError, match=r"none is downloaded.*mtt export"):
        Metatomic("pet-mad-latest.pt")
    with pytest.raises(InputError, match=r"model is Linear.*model\.export\(\)"):
        Metatomic(torch.nn.Linear(1, 1))
    (tmp_path / "model.ckpt").write_bytes(b"no model")
    with pytest.raises(InputError, match=r"cannot load .*mtt export"):
        Metatomic(tmp_path / "model.ckpt")


def test_a_model_in_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from equiscope.cli import main

    model().save(str(tmp_path / "model.pt"))
    ase.io.write(tmp_path / "some.extxyz", crystals())
    given = ["measure", "--metatomic", str(tmp_path / "model.pt"), str(tmp_path / "some.extxyz"), "--quiet",
             "--outputs", "non_conservative_forces", "--rotations", "I"]  # fmt: skip
    assert main(given) == 0
    told = capsys.readouterr().out
    assert "pairs: 3 structures x 120 rotations" in told
    assert f"{bent_share():.3g} of mean |f|²" in told
    assert main([*given, "--set", "colour=red"]) == 2
    assert "takes device, variant and extensions" in capsys.readouterr().err


def test_the_model_and_the_batch_are_left_as_they_were() -> None:
    whole = model()
    before = copy.deepcopy({k: v.clone() for k, v in whole.state_dict().items()})
    run(whole, crystals(), ["forces"])
    assert all(torch.equal(v, before[k]) for k, v in whole.state_dict().items())
