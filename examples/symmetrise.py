"""
Test-time averaging
===================

The rotation-averaged model, its loss as the measure predicts it, and two models on the same orbits.
"""

import torch

import equiscope as eq

torch.manual_seed(0)


class Model(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(3, width), torch.nn.Tanh(), torch.nn.Linear(width, 3))

    def forward(self, batch):
        return {"forces": self.net(batch["pos"])}


def data(count):
    pos = torch.randn(count, 5, 3)
    return [{"pos": pos, "forces": -pos / (1 + pos.square().sum(-1, keepdim=True))}]


def trained(width):
    model, train = Model(width), data(512)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(200):
        loss = (model(train[0])["forces"] - train[0]["forces"]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


# %%
# The rotation-averaged model has the loss that was predicted for it, and almost no equivariance error.
fields = {"inputs": {"pos": "1o"}, "outputs": {"forces": "1o"}}
small, large, held_out = trained(8), trained(64), data(96)

before = eq.measure(small, held_out, **fields, target="forces")
averaged = eq.Twirled(small, **fields, rotations="O", shift=False)
after = eq.measure(averaged, held_out, **fields, target="forces")
print(f"as it is: {before}")
print(f"averaged: {after}")
print(f"predicted for the average: {before.twirled:.4g}; found: {after.total:.4g}")

# %%
# Two models on the same samples and rotations: a paired interval.
print(eq.compare(small, large, held_out, **fields, target="forces"))
before.plot()
