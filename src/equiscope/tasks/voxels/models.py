"""Voxel denoisers by name and size: the one place where a configuration becomes a network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from equiscope.tasks.seeded import Models, configured
from equiscope.tasks.voxels.steerable import Steerable, SteerableConfig
from equiscope.tasks.voxels.unet import UNet, UNetConfig

PAPER = UNetConfig(
    multipliers=(1, 2, 2, 4), blocks=2, attention=(False, False, True, True), heads=1, groups=16, dropout=0.1
)
UNETS = {
    "nano": UNetConfig(width=8),
    "1M": UNetConfig(width=14, heads=2),
    "7M": replace(PAPER, width=8),
    "28M": replace(PAPER, width=16),
    "111M": replace(PAPER, width=32),
}
"""U-Nets by name; the last three have VoxMol's levels and widths, but pool where it strides."""

_PUBLISHED = {"tied": False, "downsampling": "stride", "attention_norm": False, "head_scale": 1.0}

STEERABLES = {"nano": SteerableConfig(), "1M": SteerableConfig(layers=8, scalars=80, vectors=60, tensors=32)}

MODELS: Models = {
    "unet": (UNet, UNETS, {"tied": False}),
    "unet_tied": (UNet, UNETS, {"tied": True}),
    "voxmol": (UNet, UNETS, _PUBLISHED),
    "steerable": (Steerable, STEERABLES, {}),
}


def build(name: str, size: str = "nano", channels: int = 7, recompute: bool = False, **overrides: Any) -> nn.Module:
    """A freshly initialised model (weights from torch's global generator).

    Args:
        name: ``unet``, ``unet_tied`` (its twin that is exactly equivariant under the octahedral group), ``voxmol`` (the
            published network, with strided and transposed convolutions; its 111M is the published one) or ``steerable``
            (equivariant under all rotations, up to the grid's own error).
        size: ``nano``, ``1M``, ``7M``, ``28M`` or ``111M``; ``nano`` or ``1M`` of ``steerable``.
        channels: of the grid, one an element.
        recompute: U-Nets run their levels again in the backward pass, to save memory.
        overrides: fields of the configuration, for example ``width=12``; see :func:`equiscope.tasks.seeded.configured`,
            also for what is refused.
    """
    network, config = configured("voxel", MODELS, name, size, {**overrides, "channels": channels})
    if network is not UNet:
        return network(config)
    # Module.to is annotated without the memory format it takes.
    return cast(Any, UNet(config, recompute)).to(memory_format=torch.channels_last_3d)
