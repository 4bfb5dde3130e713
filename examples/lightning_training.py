"""
A curve along a Lightning training
==================================

A callback measures along training, sends the figures to the loggers and keeps its history.
"""

import matplotlib.pyplot as plt
import pytorch_lightning as pl
import torch

import equiscope as eq


class Regression(pl.LightningModule):
    """y = x tanh(|x|²), learned from raw coordinates with random rotations of the data."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(3, 64), torch.nn.SiLU(), torch.nn.Linear(64, 3))

    def forward(self, batch):
        return {"y": self.net(batch["x"])}

    def training_step(self, batch, _):
        return (self(batch)["y"] - batch["y"]).square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def samples(count, seed):
    x = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
    y = x * torch.tanh(x.square().sum(-1, keepdim=True))
    return [{"x": a, "y": b, "id": i} for i, (a, b) in enumerate(zip(x, y, strict=True))]


# %%
# The samples that are followed are always the same, turned by the same rotations.
torch.manual_seed(0)
train = torch.utils.data.DataLoader(samples(2048, 1), batch_size=32, shuffle=True)
held_out = torch.utils.data.DataLoader(samples(128, 2), batch_size=64)

tracker = eq.EquivarianceTracker(
    held_out,
    inputs={"x": eq.Input("1o", points=False)},
    outputs={"y": eq.Output("1o", target="y", per="sample")},
    ids="id",
    when="log",  # step 0 and log-spaced steps
    per_decade=4,
)
trainer = pl.Trainer(
    max_steps=178, callbacks=[tracker], logger=False, accelerator="cpu", enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False,
)  # fmt: skip
trainer.fit(Regression(), train)

# %%
# Symmetry and skill along training.
for tracked in tracker.history:
    print(f"step {tracked.step:4d}: {tracked.result.percent:7.3f} %, R² {tracked.result.r2:.3f}")

figure, (above, below) = plt.subplots(2, 1, sharex=True, layout="constrained")
steps = [tracked.step for tracked in tracker.history]
above.semilogy(steps, [tracked.result.percent for tracked in tracker.history], "o-")
above.set_ylabel("equivariance error,\npercent of the loss")
below.plot(steps, [tracked.result.r2 for tracked in tracker.history], "o-")
below.set(xlabel="training step", xscale="symlog", ylabel="R²")
plt.show()
