"""metatomic models with known equivariance error: the function of ``PairsInAse`` in torch."""

from typing import Any, Dict, List, Optional  # noqa: UP035

import numpy as np
import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import (
    AtomisticModel,
    ModelCapabilities,
    ModelMetadata,
    ModelOutput,
    NeighborListOptions,
    System,
)

from tests.adapters.calculators import BEND, CUTOFF, TILT


class Pairs(torch.nn.Module):
    """Energy: sum over pairs (1 - r²/c²)³ / 2 + t . sum of positions; direct forces: (1 + B) times those of the pairs.

    Gradient forces are those of the pairs less t; features: number of neighbours, and the atom's x.
    """

    def __init__(self, bend: Any, tilt: Any) -> None:
        super().__init__()
        self.register_buffer("bend", torch.tensor(np.asarray(bend), dtype=torch.float64))
        self.register_buffer("tilt", torch.tensor(np.asarray(tilt), dtype=torch.float64))

    def requested_neighbor_lists(self) -> List[NeighborListOptions]:  # noqa: UP006
        return [NeighborListOptions(cutoff=4.0, full_list=True, strict=True)]

    def forward(
        self, systems: List[System], outputs: Dict[str, ModelOutput], selected_atoms: Optional[Labels]  # noqa: UP006, UP045
    ) -> Dict[str, TensorMap]:  # noqa: UP006
        energies: List[torch.Tensor] = []  # noqa: UP006
        forces: List[torch.Tensor] = []  # noqa: UP006
        features: List[torch.Tensor] = []  # noqa: UP006
        owners: List[torch.Tensor] = []  # noqa: UP006
        for place, system in enumerate(systems):
            known = system.known_neighbor_lists()
            pairs = system.get_neighbor_list(known[0])
            first = pairs.samples.column("first_atom").to(torch.int64)
            second = pairs.samples.column("second_atom").to(torch.int64)
            vector = pairs.values.reshape(-1, 3)
            inside = 1.0 - (vector * vector).sum(-1) / 16.0
            weight = (1 + system.types[first].to(vector.dtype)) * (1 + system.types[second].to(vector.dtype)) / 100
            energy = (weight * inside**3).sum() / 2 + (system.positions @ self.tilt.to(vector.dtype)).sum()
            energies.append(energy.reshape(1, 1))
            count = system.positions.shape[0]
            # d/dr of a pair's half, counted twice: vectors point from the first atom to the second.
            pull = -(weight * 3 * inside**2 * 2.0 / 16.0).unsqueeze(-1) * vector
            force = torch.zeros_like(system.positions).index_add(0, first, pull)
            forces.append(force + force @ self.bend.to(vector.dtype))
            near = torch.zeros(count, dtype=vector.dtype).index_add(0, first, torch.ones_like(inside))
            features.append(torch.stack([near, system.positions[:, 0]], dim=-1))
            owners.append(torch.stack([torch.full((count,), place, dtype=torch.int64), torch.arange(count)], dim=1))
        key = Labels(["_"], torch.tensor([[0]]))
        atoms = Labels(["system", "atom"], torch.cat(owners))
        answer: Dict[str, TensorMap] = {}  # noqa: UP006
        if "energy" in outputs:
            each = Labels(["system"], torch.arange(len(systems)).reshape(-1, 1))
            block = TensorBlock(torch.cat(energies), each, [], Labels(["energy"], torch.tensor([[0]])))
            answer["energy"] = TensorMap(key, [block])
        if "non_conservative_force" in outputs:
            xyz = [Labels(["xyz"], torch.arange(3).reshape(-1, 1))]
            name = Labels(["non_conservative_force"], torch.tensor([[0]]))
            block = TensorBlock(torch.cat(forces).unsqueeze(-1), atoms, xyz, name)
            answer["non_conservative_force"] = TensorMap(key, [block])
        if "feature" in outputs:
            answer["feature"] = TensorMap(
                key, [TensorBlock(torch.cat(features), atoms, [], Labels(["feature"], torch.arange(2).reshape(-1, 1)))]
            )
        return answer


def model(
    *names: str, bend: Any = BEND, tilt: Any = 0 * TILT, inner: Any = Pairs, dtype: str = "float64"
) -> AtomisticModel:
    """A model with these outputs; by default energy, direct forces and features."""
    known = {
        "energy": ModelOutput(unit="eV", sample_kind="system"),
        "non_conservative_force": ModelOutput(unit="eV/Angstrom", sample_kind="atom"),
        "feature": ModelOutput(sample_kind="atom"),
    }
    return AtomisticModel(
        inner(bend, tilt).eval(),
        ModelMetadata(name="pairs"),
        ModelCapabilities(
            outputs={name: known[name] for name in names or known},
            atomic_types=list(range(1, 100)),
            interaction_range=CUTOFF,
            length_unit="angstrom",
            supported_devices=["cpu", "cuda"],
            dtype=dtype,
        ),
    )
