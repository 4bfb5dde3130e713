"""Calculators that are measured as the torch-sim models of their packages: stand-ins of both, and SevenNet itself."""

from __future__ import annotations

import sys
import types
from importlib.machinery import ModuleSpec
from typing import Any

import numpy as np
import pytest
import torch

import equiscope as eq
from tests.adapters.calculators import PairsInAse, bent_share, crystals, molecules
from tests.adapters.torch_sim_models import PairsOfStates, put_in_place

NOTE = "measured as the torch-sim model"
DESIGN = {"progress": False, "rotations": "D2", "noise_samples": 0}


class SevenNetCalculator(PairsInAse):
    """Counts its calls; its network is that of the stand-in of a torch-sim model."""

    __module__ = "sevenn.calculator"

    def __init__(self, bend: Any = None) -> None:
        super().__init__(direct=True)
        self.model, self.modal, self.device = PairsOfStates(*([] if bend is None else [bend])), None, "cpu"
        self.asked = 0

    def calculate(self, *arguments: Any, **more: Any) -> None:
        self.asked += 1
        super().calculate(*arguments, **more)


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> Any:
    put_in_place(monkeypatch)
    package = sys.modules["torch_sim"]
    if getattr(package, "__spec__", None) is None:
        package.__spec__ = ModuleSpec("torch_sim", None)
    route = types.ModuleType("sevenn.torchsim")
    route.SevenNetModel = lambda network, modal, device: network  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sevenn", types.ModuleType("sevenn"))
    monkeypatch.setitem(sys.modules, "sevenn.torchsim", route)
    return monkeypatch


def routed(result: Any) -> bool:
    return any(NOTE in note for note in result.notes)


def test_a_calculator_of_theirs_is_measured_many_structures_a_call(packages: Any) -> None:
    calculator, structures = SevenNetCalculator(), crystals() + molecules()
    found = eq.adapters.ase.measure(calculator, structures, ["energy", "forces"], **DESIGN)
    alone = eq.adapters.ase.measure(calculator, structures, ["energy", "forces"], most_atoms=1, **DESIGN)
    assert (routed(found), routed(alone), found.calculator) == (True, False, "SevenNetCalculator")
    assert found.result.model_calls < alone.result.model_calls / 3
    for one, other in zip(found.rows, alone.rows, strict=True):
        assert one.values["forces_rms"] == pytest.approx(other.values["forces_rms"], rel=1e-10)
    assert calculator.model.calls == 0, "its own network was left alone"


def test_the_size_of_a_planted_error_by_itself(packages: Any) -> None:
    found = eq.adapters.ase.measure(SevenNetCalculator(), crystals(), ["forces"], **{**DESIGN, "rotations": "I"})
    assert routed(found)
    assert found.result.outputs["forces"].relative_equivariance == pytest.approx(bent_share(), rel=1e-10)


@pytest.mark.parametrize("why", ["other answers", "a class of one's own", "no torch-sim", "a failing model", "rotate"])
def test_everything_else_is_asked_one_after_another(packages: Any, why: str) -> None:
    calculator, structures, more = SevenNetCalculator(), crystals(), dict(DESIGN)
    if why == "other answers":
        calculator.model = PairsOfStates(np.zeros((3, 3)))
    elif why == "a class of one's own":
        calculator.__class__ = type("Mine", (SevenNetCalculator,), {"__module__": "sevenn.calculator"})
    elif why == "no torch-sim":
        packages.setattr("importlib.util.find_spec", lambda name, *rest: None)
    elif why == "a failing model":
        calculator.model.forward = None
    else:
        for atoms in structures:
            atoms.info["field"] = np.ones(3)
        more["rotate"] = {"field": "1o"}
    found = eq.adapters.ase.measure(calculator, structures, ["forces"], **more)
    assert not routed(found)
    assert calculator.asked > 10
    # The calculator's own figure.
    assert found.result.outputs["forces"].relative_equivariance == pytest.approx(bent_share(), rel=0.2)


def test_sevennet_itself() -> None:
    """Only where it is installed, `make torch-sim`."""
    pytest.importorskip("sevenn.torchsim", exc_type=ImportError)
    from sevenn.calculator import SevenNetCalculator as Real

    torch.set_default_dtype(torch.float32)
    calculator = Real("7net-0", device="cpu")
    structures = crystals()[:2]
    found, alone = (
        eq.adapters.ase.measure(calculator, structures, ["energy", "forces"], most_atoms=most, **DESIGN)
        for most in (None, 1)
    )
    assert (routed(found), routed(alone)) == (True, False)
    for result in (found, alone):
        assert result.result.outputs["forces"].relative_equivariance < 1e-9
