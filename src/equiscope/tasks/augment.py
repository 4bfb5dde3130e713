"""Seeds of their own for every purpose and step, and the augmentation by random rotations drawn from them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from equiscope.symmetry.rotations import haar


def rotate(batch: Mapping[str, Tensor], fields: Sequence[str], share: float, seed: int) -> dict[str, Tensor]:
    """Turn the vectors of a share of the samples, each by its own Haar rotation R: x -> R x.

    Args:
        batch: samples first.
        fields: names of its vectors about the origin, (B, N, 3) each.
        share: probability that a sample is turned, in [0, 1].
        seed: of the rotations and of the choice.
    """
    out = dict(batch)
    if share <= 0:
        return out
    generator = torch.Generator().manual_seed(seed)
    count = len(out[fields[0]])
    rotations = haar(count, generator)
    turned = torch.rand(count, generator=generator, dtype=torch.float64) < share
    rotations[~turned] = torch.eye(3, dtype=torch.float64)
    rotations = rotations.to(out[fields[0]].device)
    for name in fields:
        out[name] = (out[name].double() @ rotations.mT).to(out[name].dtype)
    return out


def key(seed: int, *what: str | int) -> int:
    """A 63-bit seed of its own for every purpose and step."""
    text = "/".join(map(str, (seed, *what)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
