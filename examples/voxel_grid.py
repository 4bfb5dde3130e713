"""
A voxel network
===============

Grids turn exactly under the octahedral group, by permuting voxels, noise and all.
"""

import torch

import equiscope as eq

torch.manual_seed(0)
SIZE = 12


def grids(count):
    """Two Gaussian atoms at random places near the centre of each grid, which lies at (N-1)/2."""
    axis = torch.arange(SIZE) - (SIZE - 1) / 2
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    places = torch.randn(count, 2, 3)[:, :, None, None, None]
    return torch.exp(-(points - places).square().sum(-1) / 2)


class Denoiser(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Conv3d(2, 8, 3, padding=1), torch.nn.SiLU(), torch.nn.Conv3d(8, 2, 3, padding=1)
        )

    def forward(self, batch):
        return {"clean": self.net(batch["noisy"])}


# %%
# The noise is part of the input: drawn once, turned with it. Fresh noise for each rotation would count as error.
model, clean = Denoiser(), grids(16)
data = [{"noisy": clean + 0.3 * torch.randn_like(clean), "clean": clean}]
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
for _ in range(40):
    loss = (model(data[0])["clean"] - clean).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

# %%
# The whole group is measured, so the figure has no randomness of rotations.
result = eq.measure(
    model,
    data,
    inputs={"noisy": eq.GridAction(SIZE)},
    outputs={"clean": eq.Output(eq.GridAction(SIZE), target="clean", per="sample")},
    group="O",  # what is claimed: a lower bound of the error under all rotations
    rotations="O",
    cosets=1,
)
print(result)
result.plot()
