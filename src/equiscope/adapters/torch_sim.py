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

import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, nn

from equiscope.decomposition.batches import as_batch, labels_of
from equiscope.decomposition.ragged import Ragged
from equiscope.errors import InputError
from equiscope.symmetry.declaration import Input, Output

__all__ = ["INPUTS", "OUTPUTS", "StateBatch", "TorchSim", "measure"]

OLDEST = (0, 4)
"""Before this version energies of turned cells are wrong: one crystal of -2.497 eV has -1.618 after a quarter turn."""


def check_version(version: str) -> None:
    """Refuse a torch-sim whose own energies depend on the orientation of the cell.

    Raises:
        InputError: with the version and the remedy.
    """
    numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST:
        raise InputError(
            f"torch-sim {version} computes wrong energies for turned cells: install torch-sim-atomistic >= 0.4, which "
            "needs Python 3.12 or later (on 3.11 pip takes 0.3.0 without a word)"
        )


try:
    check_version(metadata.version("torch-sim-atomistic"))
    from torch_sim.state import SimState
except (ImportError, metadata.PackageNotFoundError) as error:
    text = f"torch-sim is needed ({error}), on Python 3.12 or later: pip install 'equiscope[torch-sim]'"
    raise InputError(text) from error

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


class TorchSim(nn.Module):
    """A torch-sim model as an :class:`equiscope.adapters.many.Engine`.

    Raises:
        InputError: for what is no torch-sim model.
    """

    def __init__(self, model: Any):
        from equiscope.adapters.many import MOST_ATOMS

        super().__init__()
        if not all(hasattr(model, name) for name in ("compute_forces", "compute_stress", "device", "dtype")):
            raise InputError(f"model is {type(model).__name__}: give a torch-sim model (torch_sim.models)")
        self.model = model
        self.name = type(model).__name__
        self.device, self.dtype = torch.device(model.device), model.dtype
        self.most_atoms: int | None = MOST_ATOMS.get(self.device.type, MOST_ATOMS["cuda"])
        has = {"energy": True, "forces": model.compute_forces, "stress": model.compute_stress}
        self.outputs = tuple(name for name, there in has.items() if there)

    def features(self, name: str) -> str | None:
        return None

    def answer(self, batch: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, Tensor]:
        """See :class:`equiscope.adapters.many.Engine`."""
        from equiscope.adapters.many import voigt

        pbc = batch["pbc"]
        if bool((pbc != pbc[0]).any()):
            raise InputError("structures of mixed periodicity in one call: torch-sim takes those of one at a time")
        numbers = batch["numbers"]
        with torch.enable_grad():
            state = SimState(
                positions=batch["positions"],
                masses=torch.ones_like(batch["positions"][:, 0]),
                cell=batch["cell"].mT.contiguous(),
                pbc=pbc[0],
                atomic_numbers=numbers.int(),
                system_idx=batch["system"],
            )
            found = self.model(state)
        missing = [name for name in wanted if name not in found]
        if missing:
            raise InputError(f"{self.name} answers no {missing}, it answers {sorted(found)}")
        answer = {name: found[name].detach() for name in wanted}
        return {name: voigt(value) if name == "stress" else value for name, value in answer.items()}


def measure(model: Any, structures: Any, *arguments: Any, **settings: Any) -> Any:
    """The equivariance error of a torch-sim model: :func:`equiscope.adapters.ase.measure` with ``TorchSim(model)``.

    Raises:
        InputError: as :class:`TorchSim` and :func:`equiscope.adapters.ase.measure`.
    """
    from equiscope.adapters.ase import measure as measured

    return measured(model if isinstance(model, TorchSim) else TorchSim(model), structures, *arguments, **settings)
