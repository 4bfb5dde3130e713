"""A 3D U-Net on voxel grids, after VoxMol's, and its twin whose kernels are tied over the octahedral group.

Residual blocks (GroupNorm, SiLU, 3^3 convolutions), attention over voxels at the low levels, averaging over 2^3 voxels
down and nearest neighbours up, each with a convolution after it: on grids whose size is a multiple of 2^(levels-1) all
of it commutes with the 24 rotations of the grid, except the 3^3 kernels. With ``tied`` each kernel is one number for
its centre, faces, edges and corners, and the network is exactly equivariant under the octahedral group.

With ``downsampling="stride"`` it halves and doubles its grids as VoxMol's published network does. A convolution of
stride 2 on an even grid sees the voxels 2i−1, 2i, 2i+1 of each axis: not the mirror image of what it sees from the
other end, so that no kernel, tied or not, makes it commute with the rotations of the grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from equiscope.errors import InputError
from equiscope.tasks.guards import one_of, positive


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of the network.

    Attributes:
        width: channels of the first level, ``n_channels`` of VoxMol.
        multipliers: factor of the channels from level to level, cumulative.
        blocks: residual blocks a level, one more on the way up.
        attention: which levels attend over their voxels; heads: of the attention.
        groups: of GroupNorm, or as many as divide the channels.
        dropout: inside residual blocks, while training; tied: kernels tied over the octahedral group.
        downsampling: ``"pool"``, averages down and nearest neighbours up; or ``"stride"``, a 3^3 convolution of stride
            2 down and a transposed 4^3 one up.
        attention_norm: GroupNorm before attention.
        head_scale: of the initial weights of the last convolution; under 1 its bias starts at zero.
        channels: of the grid, one an element.
    """

    width: int = 16
    multipliers: tuple[int, ...] = (1, 2, 2)
    blocks: int = 1
    attention: tuple[bool, ...] = (False, False, True)
    heads: int = 4
    groups: int = 8
    dropout: float = 0.0
    tied: bool = False
    downsampling: str = "pool"
    attention_norm: bool = True
    # Grids are nearly empty: a full-size answer would start a hundred times above the zero predictor's loss.
    head_scale: float = 0.1
    channels: int = 7

    def __post_init__(self) -> None:
        one_of(("pool", "stride"), downsampling=self.downsampling)
        if self.tied and self.strided:
            raise InputError("tied kernels need downsampling=pool: strides break the symmetry of the grid by structure")
        positive(head_scale=self.head_scale)
        if min(self.width, self.blocks, self.heads, self.groups, self.channels, *self.multipliers) < 1:
            raise InputError(f"the sizes of a U-Net must be positive, got {self}")
        if len(self.attention) != len(self.multipliers):
            raise InputError(f"attention has {len(self.attention)} flags for {len(self.multipliers)} levels")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout must be in [0, 1), got {self.dropout}")

    @property
    def strided(self) -> bool:
        """Whether convolutions change the size of the grid, in place of pooling and copying before them."""
        return self.downsampling == "stride"

    @property
    def widths(self) -> list[int]:
        """Channels of each level."""
        found, width = [], self.width
        for factor in self.multipliers:
            width *= factor
            found.append(width)
        return found


class TiedConv3d(nn.Module):
    """A 3^3 convolution, padding 1, whose kernel takes four values, one for each orbit of its voxels."""

    classes: Tensor

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        # The variance of nn.Conv3d's kernel: uniform, 1 / (3 x fan in).
        bound = (27 * inner) ** -0.5
        self.weight = nn.Parameter(torch.empty(outer, inner, 4).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outer).uniform_(-bound, bound))
        # (27,) 0 centre, 1 face, 2 edge, 3 corner: the orbits of a kernel's voxels under the octahedral group.
        axis = torch.arange(-1, 2).abs()
        classes = (axis[:, None, None] + axis[None, :, None] + axis[None, None, :]).flatten()
        self.register_buffer("classes", classes, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight[..., self.classes].unflatten(-1, (3, 3, 3))
        return functional.conv3d(x, kernel, self.bias, padding=1)


def _convolution(inner: int, outer: int, config: UNetConfig) -> TiedConv3d | nn.Conv3d:
    return TiedConv3d(inner, outer) if config.tied else nn.Conv3d(inner, outer, 3, padding=1)


def _halving(width: int, config: UNetConfig) -> nn.Module:
    return nn.Conv3d(width, width, 3, 2, padding=1) if config.strided else _convolution(width, width, config)


def _doubling(width: int, config: UNetConfig) -> nn.Module:
    return nn.ConvTranspose3d(width, width, 4, 2, padding=1) if config.strided else _convolution(width, width, config)


def _norm(channels: int, groups: int) -> nn.GroupNorm:
    groups = min(groups, channels)
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels)


class Residual(nn.Module):
    """x + conv(drop(silu(norm(conv(silu(norm x)))))), with a 1^3 convolution where the channels change."""

    def __init__(self, inner: int, outer: int, config: UNetConfig) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(inner, config.groups), _norm(outer, config.groups)
        self.conv1, self.conv2 = _convolution(inner, outer, config), _convolution(outer, outer, config)
        self.skip = nn.Conv3d(inner, outer, 1) if inner != outer else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(functional.silu(self.norm1(x)))
        y = self.conv2(self.dropout(functional.silu(self.norm2(y))))
        return self.skip(x) + y


class VoxelAttention(nn.Module):
    """x + attention over the voxels of x, without positions, so that it commutes with any permutation of voxels."""

    def __init__(self, channels: int, config: UNetConfig) -> None:
        super().__init__()
        self.heads = config.heads if channels % config.heads == 0 else 1
        self.norm = _norm(channels, config.groups) if config.attention_norm else nn.Identity()
        self.qkv, self.out = nn.Conv3d(channels, 3 * channels, 1), nn.Conv3d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(x)).flatten(2).unflatten(1, (3, self.heads, -1)).transpose(-1, -2)
        q, k, v = qkv.unbind(1)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return x + self.out(mixed.transpose(-1, -2).reshape(x.shape))


class Level(nn.Module):
    """Residual blocks, each followed by attention if the level attends."""

    def __init__(self, widths: list[tuple[int, int]], attends: bool, config: UNetConfig) -> None:
        super().__init__()
        self.steps = nn.ModuleList()
        for inner, outer in widths:
            self.steps.append(Residual(inner, outer, config))
            if attends:
                self.steps.append(VoxelAttention(outer, config))

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x


class UNet(nn.Module):
    """``noisy`` (B, channels, N, N, N) -> ``clean``, the same shape; see :meth:`check` for what is refused.

    ``recompute`` trades time for memory: levels are run again in the backward pass.
    """

    def __init__(self, config: UNetConfig, recompute: bool = False) -> None:
        super().__init__()
        self.config, self.recompute = config, recompute
        widths, blocks = config.widths, config.blocks
        self.embed = _convolution(config.channels, widths[0], config)
        self.down, self.up, self.resize = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        previous, skips = widths[0], [widths[0]]
        for width, attends in zip(widths, config.attention, strict=True):
            for _ in range(blocks):
                self.down.append(Level([(previous, width)], attends, config))
                previous = width
                skips.append(width)
            if len(self.down) < blocks * len(widths):
                self.resize.append(_halving(width, config))
                skips.append(width)
        self.middle = nn.Sequential(
            Residual(previous, previous, config), VoxelAttention(previous, config), Residual(previous, previous, config)
        )
        lower = [*reversed(widths[:-1]), widths[0]]
        for width, attends, below in zip(reversed(widths), reversed(config.attention), lower, strict=True):
            for place in range(blocks + 1):
                outer = width if place < blocks else below
                self.up.append(Level([(previous + skips.pop(), outer)], attends, config))
                previous = outer
            if skips:
                self.resize.append(_doubling(previous, config))
        self.norm = _norm(previous, config.groups)
        self.head = _convolution(previous, config.channels, config)
        if config.head_scale < 1:
            with torch.no_grad():
                self.head.weight.mul_(config.head_scale)
                assert self.head.bias is not None
                self.head.bias.zero_()

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        x = self.embed(self.check(batch["noisy"]))
        blocks, levels = self.config.blocks, len(self.config.multipliers)
        skips, resize = [x], iter(self.resize)
        for place, level in enumerate(self.down):
            x = self._run(level, x)
            skips.append(x)
            if place % blocks == blocks - 1 and place < blocks * levels - 1:
                x = next(resize)(x if self.config.strided else functional.avg_pool3d(x, 2))
                skips.append(x)
        x = self.middle(x)
        for place, level in enumerate(self.up):
            x = self._run(level, torch.cat([x, skips.pop()], dim=1))
            if place % (blocks + 1) == blocks and skips:
                x = x if self.config.strided else functional.interpolate(x, scale_factor=2, mode="nearest")
                x = next(resize)(x)
        return {"clean": self.head(functional.silu(self.norm(x)))}

    def _run(self, level: nn.Module, x: Tensor) -> Tensor:
        if self.recompute and self.training:
            return checkpoint(level, x, use_reentrant=False)
        return level(x)

    def check(self, noisy: Tensor) -> Tensor:
        """The grids as they are; an InputError for another number of channels or a size no multiple of 2^(levels-1)."""
        shape, multiple = tuple(noisy.shape), 2 ** (len(self.config.multipliers) - 1)
        if noisy.ndim != 5 or shape[1] != self.config.channels or len(set(shape[2:])) != 1:
            raise InputError(f"the U-Net takes grids (batch, {self.config.channels}, N, N, N), got {shape}")
        if shape[2] % multiple:
            raise InputError(
                f"the U-Net halves its grid {len(self.config.multipliers) - 1} times: its size must be a multiple of "
                f"{multiple}, got {shape[2]}"
            )
        return noisy
