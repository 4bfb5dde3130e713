"""A steerable convolutional network on voxel grids: fields of scalars, vectors and l = 2 tensors, kernels by e3nn.

Kernels are R(|q|) Y_l(q) times Clebsch-Gordan coefficients (Weiler et al., NeurIPS 2018, arXiv 1807.02547). They turn
exactly with the octahedral group; for other rotations the grid itself breaks the symmetry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from e3nn import o3
from e3nn.nn import Gate
from e3nn.nn.models.v2104.voxel_convolution import Convolution
from torch import Tensor, nn

from equiscope.errors import InputError


@dataclass(frozen=True)
class SteerableConfig:
    """Sizes of the network.

    Attributes:
        layers: convolutions, at the full resolution.
        scalars, vectors, tensors: multiplicity of 0e, 1o and 2e between them.
        diameter: of the kernels in voxels; 3.6 reaches the corners of 3^3.
        radial: radial basis functions of a kernel; channels: of the grid, one an element.
    """

    layers: int = 4
    scalars: int = 16
    vectors: int = 8
    tensors: int = 4
    diameter: float = 3.6
    radial: int = 3
    channels: int = 7

    def __post_init__(self) -> None:
        if min(self.layers - 1, self.scalars, self.vectors, self.tensors, self.radial, self.channels) < 1:
            raise InputError(f"a steerable network needs positive sizes and at least two layers, got {self}")
        if not self.diameter >= 3:
            raise InputError(f"a kernel must span its neighbours, 3 voxels or more, got {self.diameter!r}")


class Steerable(nn.Module):
    """``noisy`` (B, channels, N, N, N) -> ``clean``; gated convolutions, and the input added through a learned mix."""

    def __init__(self, config: SteerableConfig) -> None:
        super().__init__()
        self.config = config
        kernel = o3.Irreps.spherical_harmonics(2), config.diameter, config.radial
        grid = o3.Irreps(f"{config.channels}x0e")
        gated = o3.Irreps(f"{config.vectors}x1o+{config.tensors}x2e")
        self.convolutions, self.gates = nn.ModuleList(), nn.ModuleList()
        current = grid
        for _ in range(config.layers - 1):
            scalars, gates = f"{config.scalars}x0e", f"{gated.num_irreps}x0e"
            gate = Gate(scalars, [nn.functional.silu], gates, [torch.sigmoid], gated)
            self.convolutions.append(Convolution(current, gate.irreps_in, *kernel))
            self.gates.append(gate)
            current = gate.irreps_out
        self.last = Convolution(current, grid, *kernel)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        x = batch["noisy"]
        if x.ndim != 5 or x.shape[1] != self.config.channels:
            raise InputError(f"the network takes grids (batch, {self.config.channels}, N, N, N), got {tuple(x.shape)}")
        for convolution, gate in zip(self.convolutions, self.gates, strict=True):
            x = gate(convolution(x).movedim(1, -1)).movedim(-1, 1)
        return {"clean": self.last(x)}
