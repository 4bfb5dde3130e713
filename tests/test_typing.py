"""What a type checker says of a user's program: nothing against right ones, something against wrong ones."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import equiscope

pytest.importorskip("mypy")
SOURCE = Path(equiscope.__file__).parents[1]
PROGRAM = """
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import equiscope as eq
from equiscope.symmetry.actions import IrrepsAction, MatrixAction
from equiscope.symmetry.grids import GridAction


@dataclass(frozen=True)
class Spin:
    label: str = "spin"
    shape: tuple[int, ...] = (3,)

    def act(self, rotations: Tensor, values: Tensor) -> Tensor:
        return values @ rotations.mT

    def canonical(self, values: Tensor) -> Tensor:
        return values

    def invariants(self, symmetry: str) -> Tensor:
        return torch.zeros(3, 0)


declared = eq.Declaration(
    inputs={"grid": eq.Input(GridAction(8)), "spin": eq.Input(Spin()), "pos": eq.Input("1o", points=True)},
    outputs={"polarisability": eq.Output(MatrixAction("alpha")), "dipole": eq.Output(IrrepsAction("1o"))},
)
model: nn.Module = nn.Linear(3, 3)
result = eq.measure(model, [{"pos": torch.zeros(2, 4, 3)}], declared, rotations="T", cosets=2)
low, high = result.percent_interval
percent: float = result.percent + low + high
"""
WRONG = "import equiscope as eq\n\neq.Input(3)\neq.measure(lambda b: b, [], cosets='two')\n"


def complaints(folder, text):
    program = folder / "program.py"
    program.write_text(text)
    command = [sys.executable, "-m", "mypy", "--config-file", SOURCE.parent / "pyproject.toml"]
    # The package's own errors are the business of `make lint`.
    command += ["--follow-imports=silent", "--cache-dir", SOURCE.parent / ".mypy_cache", program]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "MYPYPATH": str(SOURCE)})
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if "program.py" in line]


@pytest.mark.timeout(600)
def test_a_users_program(tmp_path):
    assert complaints(tmp_path, PROGRAM) == []
    first, second, *rest = complaints(tmp_path, WRONG)
    assert 'incompatible type "int"; expected "str | Action"' in first
    assert 'incompatible type "str"; expected "float | None"' in second
    assert all("note:" in line for line in rest)
