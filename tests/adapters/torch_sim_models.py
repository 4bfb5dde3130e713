"""A torch-sim model with known equivariance error, and torch-sim's state where torch-sim itself cannot be had.

The stand-in keeps to what the door uses of torch-sim 0.6.2: the state's fields (lattice vectors as columns), its
keyword constructor with further tensors by their number of rows, and a module called with a state.
"""

from __future__ import annotations

import importlib.metadata
import sys
import types
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import equiscope.adapters
from tests.adapters.calculators import BEND, CUTOFF

VERSION = "0.6.2"


class SimState:
    def __init__(self, *, positions, masses, cell, pbc, atomic_numbers, system_idx, **extras):  # type: ignore[no-untyped-def]
        self.positions, self.masses, self.cell, self.pbc = positions, masses, cell, pbc
        self.atomic_numbers, self.system_idx = atomic_numbers, system_idx
        self._atom_extras = {k: v for k, v in extras.items() if len(v) == len(positions)}
        self._system_extras = {k: v for k, v in extras.items() if k not in self._atom_extras}

    @property
    def n_systems(self) -> int:
        return len(self.cell)


def put_in_place(patch: Any, version: str | None = None) -> bool:
    """Make ``torch_sim`` importable, the real one if it is installed; whether it is."""
    for name in [m for m in sys.modules if m.startswith("equiscope.adapters.torch_sim")]:
        patch.delitem(sys.modules, name)
    patch.delitem(vars(equiscope.adapters), "torch_sim", raising=False)
    try:
        real = version is None and bool(importlib.metadata.version("torch-sim-atomistic"))
    except importlib.metadata.PackageNotFoundError:
        real = False
    if not real:
        package, state = types.ModuleType("torch_sim"), types.ModuleType("torch_sim.state")
        state.SimState = SimState  # type: ignore[attr-defined]
        patch.setitem(sys.modules, "torch_sim", package)
        patch.setitem(sys.modules, "torch_sim.state", state)
        right = importlib.metadata.version
        said = version or VERSION
        patch.setattr(importlib.metadata, "version", lambda n: said if n == "torch-sim-atomistic" else right(n))
    return real


class PairsOfStates(nn.Module):
    """The function of ``PairsInAse(direct=True)`` on a state, by all images up to two cells away."""

    memory_scales_with = "n_atoms"

    def __init__(self, bend: Any = BEND, stress: bool = True, forces: bool = True):
        super().__init__()
        self.register_buffer("bend", torch.tensor(np.asarray(bend)))
        self.compute_stress, self.compute_forces = stress, forces
        self.device, self.dtype = torch.device("cpu"), torch.float64
        self.calls = 0

    def forward(self, state: Any) -> dict[str, Tensor]:
        self.calls += 1
        energies, forces, stresses = [], [], []
        steps = [torch.arange(-2.0, 3.0, dtype=torch.float64) if p else torch.zeros(1).double() for p in state.pbc]
        images = torch.cartesian_prod(*steps)
        for system in range(state.n_systems):
            own = state.system_idx == system
            x, z, rows = state.positions[own], state.atomic_numbers[own].double(), state.cell[system].mT
            vector = x[None, :, None] + images @ rows - x[:, None, None]
            square = (vector**2).sum(-1)
            near = (square < CUTOFF**2) & (square > 1e-12)
            inside = torch.where(near, 1 - square / CUTOFF**2, 0.0)
            weight = ((1 + z[:, None]) * (1 + z[None, :]) / 100)[..., None]
            pull = -(weight * 6 * inside**2 / CUTOFF**2)[..., None] * vector
            energies.append((weight * inside**3).sum() / 2)
            forces.append(pull.sum((1, 2)))
            volume = torch.linalg.det(rows).abs().clamp(min=1e-9)
            stresses.append(torch.einsum("abni,abnj->ij", vector, pull) / 2 / volume)
        force = torch.cat(forces)
        answer = {"energy": torch.stack(energies)}
        if self.compute_forces:
            answer["forces"] = force + force @ self.bend
        if self.compute_stress:
            answer["stress"] = torch.stack(stresses)
        return answer
