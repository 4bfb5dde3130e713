"""
Other symmetries
================

Translations, orders of atoms and parity by the same measure, and how much of a whole error each one adds.
"""

import torch

import equiscope as eq

torch.manual_seed(0)


class Forces(torch.nn.Module):
    """Forces from pairs, with three small faults: a frame, an absolute place, an order of atoms."""

    def forward(self, batch):
        pos = batch["pos"]
        delta = pos[:, :, None] - pos[:, None]
        forces = (delta * torch.exp(-delta.square().sum(-1, keepdim=True))).sum(2)
        frame = 0.02 * forces * torch.tensor([1.0, 0.0, -1.0])
        place = 0.001 * pos
        order = 0.01 * forces * torch.linspace(-1, 1, pos.shape[1])[:, None]
        return {"forces": forces + frame + place + order}


# %%
# One symmetry at a time.
pos = 1.5 * torch.randn(64, 5, 3)
delta = pos[:, :, None] - pos[:, None]
labels = (delta * torch.exp(-delta.square().sum(-1, keepdim=True))).sum(2)
data = [{"pos": pos, "forces": labels + 0.05 * torch.randn_like(pos), "species": torch.randint(1, 9, (64, 5))}]
declared = {"inputs": {"pos": "1o"}, "outputs": {"forces": "1o"}, "target": "forces"}

for symmetry in ("rotation", "translation=10", "permutation", "parity"):
    print(f"{symmetry}: {eq.measure(Forces(), data, symmetry=symmetry, **declared)}\n")

# %%
# Together, taken apart in nested order.
whole = eq.measure(Forces(), data, symmetry=("rotation", "permutation", "translation=10"), cosets=4, **declared)
print(whole)
