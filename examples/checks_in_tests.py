"""
Checks in a test suite
======================

The symmetry that a model claims, and mistakes that break it.
"""

import torch

import equiscope as eq
from equiscope import testing


class Claimed(torch.nn.Module):
    """Forces along position vectors, scaled by an invariant: equivariant by construction."""

    def forward(self, batch):
        pos = batch["pos"]
        return {"forces": -pos * torch.exp(-pos.square().sum(-1, keepdim=True))}


class Broken(Claimed):
    """The same with an axis singled out, as a wrong einsum might."""

    def forward(self, batch):
        return {"forces": super().forward(batch)["forces"] * torch.tensor([1.0, 1.0, 1.01])}


torch.manual_seed(0)
batches = [{"pos": torch.randn(8, 5, 3)}]
declaration = eq.Declaration(inputs={"pos": eq.Input("1o")}, outputs={"forces": eq.Output("1o")})

# %%
# What is symmetric passes in silence. The tolerance is the numerical noise floor, so there is none to choose.
testing.assert_equivariant(Claimed(), batches, declaration)
testing.assert_permutation_equivariant(Claimed(), batches, declaration)

# %%
# What is not says by how much, on which samples, and what the error looks like.
try:
    testing.assert_equivariant(Broken(), batches, declaration)
except AssertionError as report:
    print(report)
else:
    raise SystemExit("the broken model passed")
