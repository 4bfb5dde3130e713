"""
Any nn.Module
=============

Padded molecules, forces and energy together, clusters of conformers, and how the symmetry is broken.
"""

import torch

import equiscope as eq

torch.manual_seed(0)


class ForceField(torch.nn.Module):
    """Sees raw positions, so nothing in it respects rotations."""

    def __init__(self):
        super().__init__()
        self.atom = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.SiLU(), torch.nn.Linear(32, 4))

    def forward(self, batch):
        answer = self.atom(torch.cat([batch["pos"], batch["charge"][..., None]], -1))
        answer = torch.where(batch["mask"][..., None], answer, 0)
        return {"forces": answer[..., :3], "energy": answer[..., 3].sum(-1)}


def batches(count=8, size=16, atoms=6):
    """Molecules of 3 to 6 atoms whose forces pull to the centre; two conformers of each molecule."""
    for number in range(count):
        pos = torch.randn(size, atoms, 3)
        mask = torch.arange(atoms) < torch.randint(3, atoms + 1, (size, 1))
        square = pos.square().sum(-1)
        yield {
            "pos": pos,
            "mask": mask,
            "charge": torch.randn(size, atoms),
            "molecule": number * size + torch.arange(size) // 2,
            "forces": -pos * torch.exp(-square / 4)[..., None],
            "energy": torch.where(mask, 1 - torch.exp(-square / 4), 0).sum(-1),
        }


# %%
# A short training.
model, data = ForceField(), list(batches())
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
for step in range(300):
    batch = data[step % len(data)]
    answer = model(batch)
    wrong = torch.where(batch["mask"][..., None], answer["forces"] - batch["forces"], 0).square().mean()
    loss = wrong + 0.1 * (answer["energy"] - batch["energy"]).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

# %%
# Two outputs, each with its own loss and weight.
result = eq.measure(
    model,
    list(batches()),
    inputs={"pos": "1o"},
    outputs={
        "forces": eq.Output("1o", target="forces"),
        "energy": eq.Output("0e", target="energy", per="sample", weight=0.1),
    },
    mask="mask",  # real atoms; the rest is padding
    fixed=["charge"],  # floating, but does not rotate
    clusters="molecule",  # conformers of one molecule are not independent
)
print(result)

# %%
# Where the symmetry is broken: shares of the error by Wigner degree, from the same model calls.
broken = eq.measure(
    model,
    list(batches()),
    inputs={"pos": "1o"},
    outputs={"forces": eq.Output("1o", target="forces")},
    mask="mask",
    fixed=["charge", "energy"],
    clusters="molecule",
    rotations="O",
    spectrum=True,
)
for degree, share in zip(broken.spectrum["degrees"], broken.spectrum["share"], strict=True):
    print(f"degree {degree}: {100 * share:.0f} % of the error")

# %%
# The same as a figure: percent with its interval, shares by degree, every sample, and the worst of them.
broken.plot()
