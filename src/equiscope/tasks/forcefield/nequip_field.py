"""NequIP as its authors ship it (the ``nequip`` package), as a force field on our padded batches: the equivariant peer.

Batzner et al., "E(3)-equivariant graph neural networks for data-efficient and accurate interatomic potentials", Nature
Communications 13, 2453 (2022). Needs the extra ``peers``.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from equiscope.errors import InputError
from equiscope.tasks.forcefield import neighbours
from equiscope.tasks.forcefield.edges import ORGANIC, SpeciesIndex
from equiscope.tasks.guards import at_least, one_of, positive

FORCES = ("gradient", "direct")


@dataclass(frozen=True)
class NequipConfig:
    """Sizes of a :class:`NequipField`; lengths in Å.

    Attributes:
        features: multiplicity of every irrep; lmax: highest degree of features and spherical harmonics.
        neighbours: average number of neighbours by which sums over edges are normalised.
        forces: ``"gradient"``, −dE/dx as published, or ``"direct"``, an equivariant vector read from the last layer.
    """

    layers: int = 3
    features: int = 16
    lmax: int = 1
    radial_width: int = 32
    bessels: int = 8
    cutoff: float = 5.0
    neighbours: float = 11.0
    forces: str = "gradient"
    elements: tuple[int, ...] = ORGANIC

    def __post_init__(self) -> None:
        positive(cutoff=self.cutoff)
        one_of(FORCES, forces=self.forces)
        at_least(1, lmax=self.lmax)  # for vectors to exist


class NequipField(nn.Module):
    """Energy (B,) in eV and forces (B, N, 3) in eV/Å of a batch with ``pos``, ``species`` and ``mask``.

    Symmetric under O(3), translations and permutations by construction. Gradient forces need grad mode. An InputError
    where the ``nequip`` package is not installed.
    """

    # Its library scripts code of its own, and forces are a derivative taken on the way.
    compilable = False
    read: nn.Module | None

    def __init__(self, config: NequipConfig) -> None:
        super().__init__()
        self.config = config
        self.species = SpeciesIndex(config.elements)
        with _nequip_state():
            self.net, self.read = _gradient_model(config) if config.forces == "gradient" else _direct_model(config)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        atoms = neighbours.flatten(batch)
        found = neighbours.find(atoms, self.config.cutoff)
        data = {
            "pos": atoms.pos.double(),
            "edge_index": torch.stack([found.centre, found.neighbour]),
            "atom_types": self.species(atoms.species, known=atoms.found is not None),
            "batch": atoms.sample,
            "num_atoms": neighbours.counts(atoms.sample, atoms.shape[0]),
        }
        dtype = batch["pos"].dtype
        # Its library mixes precisions itself, and fails where autocast does.
        with torch.autocast(batch["pos"].device.type, enabled=False):
            out = self.net(data)
            read = None if self.read is None else self.read(out["node_features"])
        if read is None:
            return {"energy": out["total_energy"][:, 0].to(dtype), "forces": atoms.pad(out["forces"].to(dtype))}
        # The network's own dtype inside, the batch's outside.
        energy, forces = read.split([1, 3], dim=1)
        # e3nn's vectors are in the order x, y, z since its version 0.2.
        return {"energy": atoms.sum_samples(energy)[:, 0].to(dtype), "forces": atoms.pad(forces.to(dtype))}


@contextlib.contextmanager
def _nequip_state() -> Iterator[None]:
    """NequIP's global state while a model is built; the process's default dtype is left as it was."""
    try:
        from nequip.utils import conditional_torchscript_mode
        from nequip.utils.global_state import global_state_initialized, set_global_state
    except ImportError as error:
        raise InputError("model=nequip needs the nequip package: pip install 'equiscope[peers]'") from error
    before = torch.get_default_dtype()
    try:
        # On the CPU, also where a default device is set: e3nn draws constants that a meta device cannot give.
        with warnings.catch_warnings(), torch.device("cpu"):
            warnings.simplefilter("ignore")
            if not global_state_initialized():
                set_global_state()
            torch.set_default_dtype(before)
            # As nequip builds its own models; scripted code could not be copied.
            with conditional_torchscript_mode(False):
                yield
    finally:
        torch.set_default_dtype(before)


def _gradient_model(config: NequipConfig) -> tuple[nn.Module, None]:
    from nequip.model import NequIPGNNModel

    made: nn.Module = NequIPGNNModel(
        seed=int(torch.randint(2**31, ())),
        model_dtype=str(torch.get_default_dtype()).removeprefix("torch."),
        r_max=config.cutoff,
        type_names=[f"Z{number}" for number in config.elements],
        num_layers=config.layers,
        l_max=config.lmax,
        parity=False,
        num_features=config.features,
        radial_mlp_width=config.radial_width,
        num_bessels=config.bessels,
        avg_num_neighbors=config.neighbours,
        per_type_energy_scales=1.0,
        per_type_energy_shifts=0.0,
    )
    return made, None


def _direct_model(config: NequipConfig) -> tuple[nn.Module, nn.Module]:
    """The convolution layers of NequIP up to features of every degree, of its own building blocks, and a readout."""
    from e3nn import o3
    from nequip.nn import ConvNetLayer, SequentialGraphNetwork
    from nequip.nn.embedding import (
        BesselEdgeLengthEncoding,
        EdgeLengthNormalizer,
        NodeTypeEmbed,
        PolynomialCutoff,
        SphericalHarmonicEdgeAttrs,
    )

    names = [f"Z{number}" for number in config.elements]
    hidden = o3.Irreps([(config.features, (degree, (-1) ** degree)) for degree in range(config.lmax + 1)])
    embed = NodeTypeEmbed(type_names=names, num_features=config.features)
    harmonics = SphericalHarmonicEdgeAttrs(
        irreps_edge_sh=repr(o3.Irreps.spherical_harmonics(config.lmax)), irreps_in=embed.irreps_out
    )
    lengths = EdgeLengthNormalizer(r_max=config.cutoff, type_names=names, irreps_in=harmonics.irreps_out)
    bessel = BesselEdgeLengthEncoding(
        num_bessels=config.bessels, cutoff=PolynomialCutoff(6), irreps_in=lengths.irreps_out
    )
    modules: dict[str, nn.Module] = {"embed": embed, "harmonics": harmonics, "lengths": lengths, "bessel": bessel}
    irreps = bessel.irreps_out
    for index in range(config.layers):
        layer = ConvNetLayer(
            irreps_in=irreps,
            feature_irreps_hidden=repr(hidden),
            convolution_kwargs={
                "radial_mlp_depth": 1,
                "radial_mlp_width": config.radial_width,
                "use_sc": index != 0,
                "is_first_layer": index == 0,
                "avg_num_neighbors": config.neighbours,
                "type_names": names,
            },
        )
        modules[f"layer{index}"], irreps = layer, layer.irreps_out
    return SequentialGraphNetwork(modules), o3.Linear(hidden, o3.Irreps("1x0e+1x1o"))
