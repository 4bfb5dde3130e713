"""The same measure through its other doors: ASE's calculators and PyTorch Geometric's graphs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.singlepoint import SinglePointCalculator
from torch import nn
from torch_geometric.data import Batch, Data

import equiscope as eq
import equiscope.adapters.ase
import equiscope.adapters.pyg
from tests.golden.measuring import told
from tests.golden.models import numbers
from tests.golden.registry import case


class Laboratory(Calculator):
    """A harmonic trap about the mean, and smooth terms of positions and cell that know the laboratory's axes."""

    implemented_properties = ("energy", "forces", "stress")

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        first, second, third = (numbers(3, 3, start=30_000 + 100 * i).numpy() for i in range(3))
        away = atoms.positions - atoms.positions.mean(0)
        cell = np.asarray(atoms.cell) / 4
        strain = cell.T @ cell + 0.5 * np.tanh(cell @ third)
        self.results = {
            "energy": float((away**2).sum() / 2 + np.tanh(atoms.positions @ first).sum() / 3),
            "forces": -away + 0.4 * np.tanh(away @ second) * (1 + atoms.numbers[:, None] / 20),
            "stress": ((strain + strain.T) / 40)[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]],
        }
        if "field" in atoms.info:
            self.results["energy"] += float(np.tanh(atoms.info["field"] @ first[0]))


def structures(labelled: bool) -> list[Atoms]:
    """Three molecules and three crystals, one of them with a left-handed cell."""
    made = []
    for i, (formula, periodic) in enumerate((("H2O", False), ("CH4", False), ("Cu2", True), ("NH3", False),
                                             ("Al3", True), ("CuO", True))):  # fmt: skip
        atoms = Atoms(formula)
        atoms.positions = 1.5 * numbers(len(atoms), 3, start=31_000 + 100 * i).numpy()
        if periodic:
            cell = 4 * np.eye(3) + 0.7 * numbers(3, 3, start=32_000 + 100 * i).numpy()
            atoms.cell = cell[[1, 0, 2]] if i == 4 else cell
            atoms.pbc = True
        atoms.info["name"], atoms.info["kind"] = f"s{i}", "ab"[i % 2]
        atoms.info["field"] = numbers(3, start=33_000 + 100 * i).numpy()
        if labelled:
            label = {"energy": float(numbers(1, start=34_000 + i)), "forces": -atoms.positions}
            label["forces"] = label["forces"] + 0.2 * numbers(len(atoms), 3, start=35_000 + 100 * i).numpy()
            atoms.calc = SinglePointCalculator(atoms, **label)
        made.append(atoms)
    return made


def of_ase(found: Any) -> dict[str, Any]:
    """Results of each kind, and the table of structures without its times."""
    entries = {f"{kind}.{k}": v for kind, result in found.results.items() for k, v in told(result).items()}
    for row in found.rows:
        entries[f"{row.name}.words"] = [row.formula, row.atoms, row.pbc, row.kind, row.status, row.remark, row.message]
        for key, value in row.values.items():
            entries[f"{row.name}.{key}"] = float(value)
    entries["words"] = [found.calculator, *found.outputs, *found.labels, found.energy_per_atom, *found.rotated]
    entries["not_rotated"] = list(found.not_rotated)
    entries["notes"] = list(found.notes)
    entries["worst"] = [row.name for row in found.worst(3)]
    return entries


@case(1)
def ase(_: int) -> Mapping[str, Any]:
    return of_ase(eq.adapters.ase.measure(Laboratory(), structures(False), progress=False))


@case(1)
def ase_with_labels(_: int) -> Mapping[str, Any]:
    found = eq.adapters.ase.measure(
        Laboratory(), structures(True), ["energy", "forces"], True, rotations="O", cosets=3, seed=2, progress=False,
        energy_weight=0.5, energy_per_atom=False, clusters="kind", rotate={"field": "1o"}, center="mean",
    )  # fmt: skip
    return of_ase(found)


# Graphs.
class Graphs(nn.Module):
    """Messages over edges and the cell of each graph, tied to the axes of the frame."""

    def __init__(self) -> None:
        super().__init__()
        self.inward = nn.Parameter(0.8 * numbers(4, 3, start=36_000))
        self.outward = nn.Parameter(0.4 * numbers(3, 4, start=36_100))
        self.energy = nn.Parameter(numbers(4, start=36_200))
        self.celled = nn.Parameter(0.3 * numbers(4, 3, start=36_300))

    def forward(self, batch: Any) -> dict[str, torch.Tensor]:
        first, second = batch.edge_index
        edges = batch.pos[second] - batch.pos[first] + batch.shift
        messages = torch.tanh(edges @ self.inward.T) * batch.charge[second][:, None]
        nodes = torch.zeros(len(batch.pos), 4, dtype=batch.pos.dtype).index_add(0, first, messages)
        nodes = torch.tanh(nodes + (batch.cell.sum(1) @ self.celled.T)[batch.batch])
        pooled = torch.zeros(batch.num_graphs, 4, dtype=batch.pos.dtype).index_add(0, batch.batch, nodes)
        return {"forces": batch.pos + nodes @ self.outward.T, "energy": pooled @ self.energy}


def graphs(size: int, count: int = 9) -> list[Batch]:
    made = []
    for i in range(count):
        nodes, start = 2 + i % 3, 40_000 + 200 * i
        pairs = [(a, b) for a in range(nodes) for b in range(nodes) if a != b]
        pos = 1.2 * numbers(nodes, 3, start=start)
        made.append(Data(
            pos=pos, charge=1 + 0.5 * numbers(nodes, start=start + 30), edge_index=torch.tensor(pairs).T,
            shift=0.2 * numbers(len(pairs), 3, start=start + 50), cell=numbers(1, 3, 3, start=start + 100),
            forces=pos + 0.3 * numbers(nodes, 3, start=start + 120), energy=numbers(1, start=start + 150),
            molecule=torch.tensor([i % 4]), number=torch.tensor([5 * i]),
        ))  # fmt: skip
    return [Batch.from_data_list(made[i : i + size]) for i in range(0, count, size)]


GRAPHS: dict[str, Any] = {
    "inputs": {"pos": eq.Input("1o", points=True), "shift": eq.Input("1o", points=False),
               "cell": eq.Input("1o", points=False)},
    "outputs": {"forces": eq.Output("1o", target="forces"),
                "energy": eq.Output("0e", target="energy", per="sample", weight=0.3)},
    "fixed": ("charge",),
    "center": "mean",
}  # fmt: skip


@case(4, 9)
def pyg(size: int) -> Mapping[str, Any]:
    return told(eq.measure(Graphs(), graphs(size), **GRAPHS, clusters="molecule", ids="number"))


@case(4, 9)
def pyg_partial(size: int) -> Mapping[str, Any]:
    given = graphs(size, 36)
    return told(eq.measure(Graphs(), given, **GRAPHS, rotations="D2", cosets=1.5, weighting="component"))


@case(4, 9)
def pyg_metric(size: int) -> Mapping[str, Any]:
    found = eq.EquivarianceError(**GRAPHS, clusters="molecule", ids="number", rotations="O")
    for batch in graphs(size):
        found.update(Graphs(), batch)
    return told(found.result())
