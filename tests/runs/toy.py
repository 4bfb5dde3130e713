"""A task that trains in a second: a small network with dropout learns y = x tanh(|x|^2) on single vectors."""

import os
import signal

import torch
from torch import nn

from equiscope.symmetry.declaration import Declaration, Input, Output
from equiscope.tasks.task import Probe


class Toy:
    name = "toy"

    def __init__(
        self,
        seed: int,
        batch_size: int,
        nan_at: int | None = None,
        dropout: float = 0.1,
        final: int = 32,
        samples: int | None = None,
    ) -> None:
        self.seed, self.batch_size, self.nan_at, self.dropout = seed, batch_size, nan_at, dropout
        self.final, self.training_samples = final, samples

    @classmethod
    def from_config(cls, config):
        return cls(config["seed"], config["batch_size"], **config.get("data", {}))

    def prepare(self, progress=True):
        pass

    def build_model(self):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Dropout(self.dropout), nn.Linear(32, 3))

    def _samples(self, count, key):
        generator = torch.Generator().manual_seed(key)
        x = torch.randn(count, 3, generator=generator)
        y = x * torch.tanh(x.square().sum(-1, keepdim=True))
        return {"x": x, "y": y, "id": torch.arange(count)}

    def training_batch(self, step):
        batch = self._samples(self.batch_size, 1000 * (self.seed + 1) + step)
        if step == self.nan_at:
            batch["y"][0, 0] = torch.nan
        return batch

    def training_loss(self, model, batch):
        error = (model(batch["x"]) - batch["y"]).square().mean()
        return {"loss": error, "force": error}

    def probes(self, part):
        count, key = (16, 7) if part == "track" else (self.final, 8)
        declaration = Declaration(
            inputs={"x": Input("1o", points=False)},
            outputs={"y": Output("1o", target="y", per="sample")},
            ids="id",
        )
        batches = [self._samples(count, key)]
        return [Probe("y", batches, declaration, forward=lambda model, batch: {"y": model(batch["x"])})]

    def describe(self):
        return {"samples": "endless"}

    def reference(self):
        return {"label": "none", "points": {}, "source": ""}


def config(root, **changes):
    made = {
        "task": "tests.runs.toy:Toy",
        "run": "a",
        "root": str(root),
        "seed": 0,
        "threads": 1,
        "batch_size": 8,
        "model": {"name": "mlp"},
        "data": {},
        "optimizer": {"name": "adamw", "lr": 0.01},
        "schedule": {"warmup": 0.1},
        "trainer": {
            "max_steps": 40,
            "checkpoint_every": 10,
            "log_every": 4,
            "accelerator": "cpu",
            "devices": 1,
            "clip": 1.0,
            "ema": 0.9,
        },
        "track": {"points": 7, "first": 3, "rotations": "T", "cosets": 2},
        "final": {"rotations": "T", "cosets": 2, "seed": 1},
    }
    for key, value in changes.items():
        part, _, rest = key.partition("__")
        if rest:
            made[part] = {**made[part], rest: value}
        else:
            made[part] = value
    return made


def kill_at(event: int) -> None:
    """SIGKILL this process at its n-th durable write (records, counts and checkpoints alike)."""
    counter = {"left": event}
    real = os.fsync

    def fsync(descriptor):
        counter["left"] -= 1
        if counter["left"] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        real(descriptor)

    os.fsync = fsync
