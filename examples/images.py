"""
Images
======

Images turn in their plane: quarter turns are exact, other angles need interpolation, which is measured beside.
"""

import torch

import equiscope as eq

torch.manual_seed(0)
SIZE = 24


def images(count):
    """Three smooth spots near the centre of each image, and noise that belongs to it."""
    axis = torch.arange(SIZE) - (SIZE - 1) / 2
    points = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
    places = 3 * torch.randn(count, 3, 2)
    clean = torch.exp(-(points - places[:, :, None, None]).square().sum(-1) / 8).sum(1, keepdim=True)
    return {"noisy": clean + 0.3 * torch.randn_like(clean), "clean": clean}


class Denoiser(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Conv2d(1, 16, 5, padding=2), torch.nn.SiLU(), torch.nn.Conv2d(16, 1, 5, padding=2)
        )

    def forward(self, batch):
        return {"clean": self.net(batch["noisy"])}


# %%
# A short training.
model, data, test = Denoiser(), images(64), images(32)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
for _ in range(60):
    loss = (model(data)["clean"] - data["clean"]).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


# %%
# Quarter turns, all angles, and what interpolation alone does: to the answer, where the images are turned there and
# back with no net turn; and to a model without any error, the image as it is.
def measure(measured, group, rotations, resampling=None, **more):
    image = eq.GridAction(SIZE, resampling, dimensions=2)
    outputs = {"clean": eq.Output(image, target="clean", per="sample")}
    return eq.measure(
        measured, [test], inputs={"noisy": image}, outputs=outputs, group=group, rotations=rotations, **more
    )


print("quarter turns:", measure(model, "C4", "C4"))
print("all angles:", measure(model, "SO2", "C8", "cubic"))
print("there and back:", measure(model, "SO2", "C8", "cubic", symmetry="interpolation"))
print("the image itself:", measure(lambda batch: {"clean": batch["noisy"]}, "SO2", "C8", "cubic"))
