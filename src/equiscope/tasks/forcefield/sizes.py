"""Named sizes of the force-field models: nano for a laptop, and the 1M, 4M and 6M parameters of the paper."""

from __future__ import annotations

from equiscope.tasks.forcefield.edge_transformer import EdgeTransformerConfig
from equiscope.tasks.forcefield.escaip import EscaipConfig
from equiscope.tasks.forcefield.nequip_field import NequipConfig

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
