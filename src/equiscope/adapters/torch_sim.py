"""torch-sim models: one ``SimState`` of many structures, each with its own rotation, through any ``ModelInterface``.

    import equiscope as eq
    from torch_sim.models.mace import MaceModel

    result = eq.adapters.torch_sim.measure(MaceModel(…), "structures.extxyz")

or ``equiscope measure --torch-sim my_model:make structures.extxyz``. Structures go in calls of a bounded number of
atoms, ``most_atoms``, halved where memory is short. A ``SimState`` of one's own is a batch of :func:`equiscope.measure`
once this file is imported:

    from equiscope.adapters.torch_sim import INPUTS, OUTPUTS

    eq.measure(model, [state], inputs=INPUTS, outputs=OUTPUTS)

torch-sim keeps lattice vectors as columns; the field "cell" that turns holds them as rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from equiscope.adapters import ase
from equiscope.adapters.torch_sim_engine import SimState, TorchSim
from equiscope.decomposition.batches import as_batch, labels_of
from equiscope.decomposition.ragged import Ragged
from equiscope.symmetry.declaration import Input, Output

__all__ = ["INPUTS", "OUTPUTS", "StateBatch", "TorchSim", "measure"]

INPUTS = {
    "positions": Input("1o", points=True, per="atom"),
    "cell": Input("1o", points=False, per="sample"),
}
OUTPUTS = {"energy": Output("0e", per="sample"), "forces": Output("1o"), "stress": Output("stress", per="sample")}


class StateBatch(Ragged):
    """A ``SimState`` in the protocol of the orbit; its extras are fields, masses and numbers are not."""

    words = ("atoms", "systems")

    def __init__(self, state: SimState):
        self._state = state
        self._atom = dict(getattr(state, "_atom_extras", None) or {})
        self._system = dict(getattr(state, "_system_extras", None) or {})
        tensors = {"positions": state.positions, "cell": state.cell.mT.contiguous(), **self._atom, **self._system}
        super().__init__(tensors, state.system_idx.long(), state.n_systems, None)

    def labels(self, name: str) -> list[Any]:
        return labels_of(self._tensors[name].flatten(), name, self.size)

    def counted(self, name: str, length: int) -> Tensor:
        if name in self._atom or name in self._system:
            return self.nodes if name in self._atom else torch.arange(self.size, device=self.nodes.device)
        return super().counted(name, length)

    def part(self, places: list[int]) -> SimState:
        if places == list(range(self.size)):
            return self._state
        rows, copies = self.picked(self.nodes, places)
        systems = torch.tensor(places, device=rows.device)
        return self._made(
            {k: v[rows if k == "positions" or k in self._atom else systems] for k, v in self._tensors.items()},
            self._state.masses[rows],
            self._state.atomic_numbers[rows],
            copies,
        )

    def with_fields(self, changed: Mapping[str, Tensor]) -> SimState:
        state = self._state
        fields = {k: changed.get(k, v).clone() for k, v in self._tensors.items()}
        return self._made(fields, state.masses.clone(), state.atomic_numbers.clone(), state.system_idx.clone())

    def _made(self, fields: Mapping[str, Tensor], masses: Tensor, numbers: Tensor, systems: Tensor) -> SimState:
        extras = {k: v for k, v in fields.items() if k not in ("positions", "cell")}
        return SimState(
            positions=fields["positions"],
            cell=fields["cell"].mT.contiguous(),
            masses=masses,
            atomic_numbers=numbers,
            pbc=self._state.pbc,
            system_idx=systems,
            **extras,
        )


@as_batch.register(SimState)
def _state(batch: SimState) -> StateBatch:
    return StateBatch(batch)


def measure(model: Any, structures: Any, *arguments: Any, **settings: Any) -> Any:
    """The equivariance error of a torch-sim model: :func:`equiscope.adapters.ase.measure` with ``TorchSim(model)``.

    Raises:
        InputError: as :class:`TorchSim` and :func:`equiscope.adapters.ase.measure`.
    """
    return ase.measure(model if isinstance(model, TorchSim) else TorchSim(model), structures, *arguments, **settings)
