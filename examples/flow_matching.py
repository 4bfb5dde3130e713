"""
A flow at several times
=======================

The noised point turns, the time does not: one declaration, a measurement at each flow time.
"""

import matplotlib.pyplot as plt
import torch

import equiscope as eq

torch.manual_seed(0)


class Velocity(torch.nn.Module):
    """v(x_t, t) from raw coordinates."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.SiLU(), torch.nn.Linear(64, 3))

    def forward(self, batch):
        time = batch["t"][:, None, None].expand(*batch["x_t"].shape[:2], 1)
        return {"v": self.net(torch.cat([batch["x_t"], time], -1))}


def batch(t, count=64, points=8, seed=0):
    """x_t = (1 - t) x_0 + t x_1 with noise x_0 and rings x_1 in random orientation; the target is x_1 - x_0."""
    generator = torch.Generator().manual_seed(seed)
    angle = torch.linspace(0, 2 * torch.pi, points + 1)[:-1]
    ring = torch.stack([angle.cos(), angle.sin(), torch.zeros(points)], -1)
    turns, _ = torch.linalg.qr(torch.randn(count, 3, 3, generator=generator))
    chain, noise = ring @ turns.mT, torch.randn(count, points, 3, generator=generator)
    return {"x_t": (1 - t) * noise + t * chain, "t": torch.full((count,), t), "v": chain - noise}


# %%
# A short training.
model = Velocity()
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for step in range(300):
    data = batch(float(torch.rand(())), seed=step + 1)
    loss = (model(data)["v"] - data["v"]).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

# %%
# The noise is part of the input: drawn once, turned with the sample. Late in the flow this small network has no skill
# (R² under zero), so a small percent means little there.
measured = {}
for t in (0.0, 0.4, 0.8, 0.95):
    measured[t] = eq.measure(
        model,
        [batch(t)],
        inputs={"x_t": eq.Input("1o", points=True)},
        outputs={"v": "1o"},
        target="v",
        fixed=["t"],
    )
    print(f"t = {t}: {str(measured[t]).splitlines()[0]}")

plt.semilogy(list(measured), [result.percent for result in measured.values()], "o-")
plt.xlabel("flow time t")
plt.ylabel("equivariance error, percent of the loss")
plt.show()
