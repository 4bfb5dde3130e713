"""PET, the field's unconstrained point-edge transformer, as metatrain ships it, on our padded batches.

Pozdnyakov & Ceriotti, "Smooth, exact rotational symmetrization for deep learning on point clouds", NeurIPS 36 (2023),
arXiv 2305.19302. Only the network is metatrain's (``metatrain.pet``): forces are its direct head, and loss, optimizer,
batches and schedule are those of every model here, so that its steps are the steps of the others. Needs metatrain, as
in ``make pet``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from equiscope.errors import InputError
from equiscope.tasks.forcefield import neighbours
from equiscope.tasks.forcefield.edges import ORGANIC, SpeciesIndex
from equiscope.tasks.guards import at_least, heads_fit, positive


@dataclass(frozen=True)
class PetConfig:
    """Sizes of a :class:`PetField`; lengths in Å.

    Attributes:
        width: of the messages along edges; nodes: of the atoms. layers: of message passing, with ``attention`` layers
            of attention in each.
    """

    width: int = 28
    nodes: int = 40
    feedforward: int = 40
    layers: int = 2
    attention: int = 1
    heads: int = 4
    cutoff: float = 4.5
    elements: tuple[int, ...] = ORGANIC

    def __post_init__(self) -> None:
        positive(cutoff=self.cutoff)
        at_least(1, layers=self.layers, attention=self.attention)
        heads_fit(self.width, self.heads)


class PetField(nn.Module):
    """Energy (B,) in eV and direct forces (B, N, 3) in eV/Å of a batch with ``pos``, ``species`` and ``mask``.

    Invariant to translations and permutations; no rotation symmetry is built in.

    Raises:
        InputError: if metatrain is not installed.
    """

    # Its edges are sorted into a table whose size is looked up.
    compilable = False

    def __init__(self, config: PetConfig) -> None:
        super().__init__()
        self.config = config
        self.species = SpeciesIndex(config.elements)
        self.net = _network(config)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        atoms = neighbours.flatten(batch)
        found = neighbours.find(atoms, self.config.cutoff)
        self.species(atoms.species, known=atoms.found is not None)
        # Edges added to fill a batch up lead from an atom to itself.
        real = found.centre != found.neighbour
        centres, others = found.centre[real], found.neighbour[real]
        nowhere = atoms.pos.new_zeros(atoms.shape[0] + 1, 3, 3)
        data = self.net.preprocess(
            atoms.pos, centres, others, atoms.species, nowhere, centres.new_zeros(len(centres), 3), atoms.sample, 1.0
        )
        features = self.net.calculate_features(data)
        out = self.net.predict(*features, data, nowhere, atoms.sample, ["energy", "forces"])[0]
        energy, forces = out["energy"][0], out["forces"][0]
        return {"energy": atoms.sum_samples(energy)[:, 0], "forces": atoms.pad(forces)}


def _network(config: PetConfig) -> Any:
    try:
        from metatrain.pet.modules.backend import PETBackend
        from metatrain.utils.architectures import get_default_hypers
    except ImportError as error:
        raise InputError(f"model=pet needs metatrain ({error}): pip install metatrain==2026.4.1") from error
    sizes = {
        "cutoff": config.cutoff, "d_pet": config.width, "d_node": config.nodes, "d_head": config.width,
        "d_feedforward": config.feedforward, "num_heads": config.heads, "num_gnn_layers": config.layers,
        "num_attention_layers": config.attention,
    }  # fmt: skip
    made = PETBackend({**get_default_hypers("pet")["model"], **sizes}, list(config.elements))
    made.add_output("energy", {"energy": [1]})
    made.add_output("forces", {"forces": [3, 1]})
    return made
