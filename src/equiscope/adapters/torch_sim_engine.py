"""A torch-sim model, any ``ModelInterface``, as what answers many structures in one call."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, nn

from equiscope.adapters.many import MOST_ATOMS, voigt
from equiscope.errors import InputError

__all__ = ["SimState", "TorchSim"]

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


class TorchSim(nn.Module):
    """A torch-sim model as an :class:`equiscope.adapters.many.Engine`.

    Raises:
        InputError: for what is no torch-sim model.
    """

    def __init__(self, model: Any):
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
        pbc = batch["pbc"]
        if bool((pbc != pbc[0]).any()):
            raise InputError("structures of mixed periodicity in one call: torch-sim takes those of one at a time")
        with torch.enable_grad():
            state = SimState(
                positions=batch["positions"],
                masses=torch.ones_like(batch["positions"][:, 0]),
                cell=batch["cell"].mT.contiguous(),
                pbc=pbc[0],
                atomic_numbers=batch["numbers"].int(),
                system_idx=batch["system"],
            )
            found = self.model(state)
        missing = [name for name in wanted if name not in found]
        if missing:
            raise InputError(f"{self.name} answers no {missing}, it answers {sorted(found)}")
        answer = {name: found[name].detach() for name in wanted}
        return {name: voigt(value) if name == "stress" else value for name, value in answer.items()}
