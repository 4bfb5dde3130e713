"""Force-field models by name and size: nano for a laptop, and the 1M, 4M and 6M parameters of the paper."""

from __future__ import annotations

from typing import Any

from torch import nn

from equiscope.tasks.forcefield.edge_transformer import EdgeTransformer, EdgeTransformerConfig
from equiscope.tasks.forcefield.escaip import Escaip, EscaipConfig
from equiscope.tasks.forcefield.nequip_field import NequipConfig, NequipField
from equiscope.tasks.forcefield.pet_field import PetConfig, PetField
from equiscope.tasks.seeded import Models, configured

EDGE_TRANSFORMER = {
    "nano": EdgeTransformerConfig(width=40, layers=3, heads=4, feedforward=104, radial=24),
    "1M": EdgeTransformerConfig(width=136, layers=4, heads=8, feedforward=544, radial=32),
    "4M": EdgeTransformerConfig(width=216, layers=6, heads=8, feedforward=864, radial=48),
    "6M": EdgeTransformerConfig(width=264, layers=6, heads=8, feedforward=1056, radial=48),
}

ESCAIP = {
    "nano": EscaipConfig(width=36, layers=2, heads=4, radial=24, degree=4),
    "1M": EscaipConfig(width=112, layers=4, heads=8, radial=48, degree=6),
    "4M": EscaipConfig(width=184, layers=6, heads=8, radial=64, degree=9),
    "6M": EscaipConfig(width=224, layers=6, heads=8, radial=64, degree=9),
}

NEQUIP = {
    "nano": NequipConfig(layers=3, features=22, radial_width=32),
    "1M": NequipConfig(layers=4, features=51, radial_width=64),
}

NEQUIP_DIRECT = {
    "nano": NequipConfig(layers=3, features=19, radial_width=32),
    "1M": NequipConfig(layers=4, features=46, radial_width=64),
}

PET = {
    "nano": PetConfig(),
    "1M": PetConfig(width=96, nodes=136, feedforward=136, layers=3, heads=8),
}

MODELS: Models = {
    "edge_transformer": (EdgeTransformer, EDGE_TRANSFORMER, {}),
    "escaip": (Escaip, ESCAIP, {"tied": False}),
    "escaip_tied": (Escaip, ESCAIP, {"tied": True}),
    "nequip": (NequipField, NEQUIP, {"forces": "gradient"}),
    "nequip_direct": (NequipField, NEQUIP_DIRECT, {"forces": "direct"}),
    "pet": (PetField, PET, {}),
}


def build(name: str, size: str = "nano", **overrides: Any) -> nn.Module:
    """A freshly initialised model (weights from torch's global generator, in the default dtype and device).

    Args:
        name: ``edge_transformer``, ``escaip``, ``escaip_tied`` (the exactly equivariant twin of ``escaip``), ``nequip``
            or ``nequip_direct`` (the equivariant peer with gradient or direct forces; needs the extra ``peers``), or
            ``pet`` (needs metatrain).
        size: ``nano``, ``1M``, ``4M`` or ``6M`` (``nequip`` and ``pet``: ``nano`` or ``1M``).
        overrides: fields of the model's configuration, for example ``cutoff=6.0`` or ``layers=4``; see
            :func:`equiscope.tasks.seeded.configured`, also for what is refused.
    """
    network, config = configured("force-field", MODELS, name, size, overrides)
    return network(config)
