"""The precision ladder of an ASE calculator: a network behind float64 positions, and what cannot be converted."""

import json

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.io import write
from torch import nn

from equiscope import cli
from equiscope.adapters.ase import measure
from equiscope.adapters.ase_ladder import figures, precisions
from equiscope.errors import InputError


class Network(nn.Module):
    """Exactly equivariant forces sum_j w(x_i . x_j) x_j, plus ``broken`` times A x."""

    def __init__(self, broken):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.7))
        self.matrix = nn.Parameter(broken * torch.tensor([[1.0, 0.5, 0.0], [0.0, -1.0, 0.0], [0.0, 0.3, 0.5]]))

    def forward(self, data):
        x = data["positions"] - data["positions"].mean(0)
        return torch.mm(torch.tanh(self.weight * torch.mm(x, x.mT)), x) + torch.mm(x, self.matrix.mT)


class Holds(Calculator):
    implemented_properties = ("energy", "forces")

    def __init__(self, broken=0.0):
        super().__init__()
        self.model = Network(broken)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        dtype = self.model.weight.dtype
        with torch.no_grad():
            forces = self.model({"positions": torch.tensor(atoms.positions, dtype=dtype)})
        self.results = {"energy": 1.0, "forces": forces.to(dtype).numpy()}


def structures(count=12):
    random = np.random.default_rng(0)
    return [Atoms("H5", positions=random.normal(size=(5, 3))) for _ in range(count)]


def test_arithmetic_alone_and_broken():
    exact = precisions(Holds(), structures(), "float64,float32,bf16")
    forces = {r.precision: r.relative for r in exact.rungs if r.output == "forces"}
    assert 1e-34 < forces["float64"] < 1e-30
    assert 1e-16 < forces["float32"] < 1e-13
    assert 1e-7 < forces["bfloat16"] < 1e-4
    # An energy without any error has a share of none.
    energy = [r for r in exact.rungs if r.output == "energy"]
    assert [r.relative for r in energy] == [0, 0, 0]
    broken = precisions(Holds(0.5), structures(), "float64,float32", outputs=["forces"])
    first, second = (r.relative for r in broken.rungs)
    assert first > 1e-3
    assert second == pytest.approx(first, rel=1e-5)


def test_sizes_of_structures_without_any_error_are_their_own():
    class Sized(Holds):
        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            turned = len(atoms) == 5
            self.results["energy"] = len(atoms) * (atoms.positions[0, 0] if turned else len(atoms))

    alone = [Atoms("H" * n, positions=np.eye(3)[:n]) for n in (1, 3)]
    found = figures(measure(Sized(), [alone[0], *structures(2), alone[1]], ["energy"], progress=False))
    assert found["energy"].equivariance[[0, 3]].tolist() == [0, 0]
    assert found["energy"].square[[0, 3]] == pytest.approx([1, 9])
    assert list(found["energy"].clusters) == [0, 1, 2, 3]


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("a.extxyz", structures(4))
    common = ["measure", "a.extxyz", "--calculator", "tests.adapters.test_ase_ladder:Holds", "--outputs", "forces"]
    common += ["--precisions", "float64,fp32,tf32"]
    assert cli.main([*common, "--json", "l.json"]) == 0
    shown = capsys.readouterr().out
    assert "float32    forces" in shown
    if not torch.cuda.is_available():
        assert "tf32: not measured here: TF32 is arithmetic of NVIDIA cards" in shown
    stored = json.loads((tmp_path / "l.json").read_text())
    assert [r["precision"] for r in stored["rungs"]] == ["float64", "float32"]
    assert cli.main([*common, "--with-labels"]) == 2
    assert "leave out --with-labels" in capsys.readouterr().err
    assert cli.main([*common[:-1], "float8"]) == 2


def test_a_calculator_without_modules():
    with pytest.raises(InputError, match="EMT holds no torch module whose precision could be changed"):
        precisions(EMT(), structures(1))
