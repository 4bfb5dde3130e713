"""What a model costs: FLOPs, seconds and memory of a training step, and the throughput of inference.

Seconds of several models are taken in turn, A B C A B C …, in one process, so that a machine whose speed drifts treats
all alike; memory is that of a process of its own. FLOPs are counted with the formulas of ``torch.utils.flop_counter``:
matrix products, convolutions and attention, forward and backward, no elementwise work.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from equiscope import tasks
from equiscope.decomposition.orbit import Caller
from equiscope.errors import RunError
from equiscope.runs.devices import TRAINED, Arithmetic, fitting, settle
from equiscope.runs.module import arrange, build_optimizer, compiled


@dataclass
class Bench:
    """One model with its task, ready to be timed: ``batch`` is trained on, ``asked`` is the first tracked batch."""

    model: nn.Module
    task: Any
    batch: dict[str, Tensor]
    optimizer: torch.optim.Optimizer
    samples: int
    asked: dict[str, Tensor]
    caller: Caller
    called: nn.Module
    arithmetic: Arithmetic

    @classmethod
    def of(cls, config: Mapping[str, Any], device: torch.device | None = None) -> Bench:
        """The model of a configuration at its initial weights, on a batch of its own task, as it is trained."""
        device = device or torch.device(fitting(None))
        task = tasks.build(config, trust=True)
        task.prepare(progress=False)
        model = task.build_model().to(device)
        probe = next(probe for probe in task.probes("track") if probe.headline)
        arithmetic, given = Arithmetic.of(config.get("trainer") or {}), task.training_batch(0)
        if device.type != "cpu" or arithmetic.backend:
            given = arrange(task, arithmetic.backend is not None, given)
        stays = getattr(task, "host_fields", ())
        batch = {name: value if name in stays else value.to(device) for name, value in given.items()}
        asked = {name: value.to(device) for name, value in probe.batches[0].items()}
        optimizer = build_optimizer(model.parameters(), dict(config["optimizer"]), device.type == "cuda")
        called = compiled(model, arithmetic.backend)
        size = int(config["batch_size"])
        return cls(model, task, batch, optimizer, size, asked, Caller(probe.forward), called, arithmetic)

    def train_step(self) -> None:
        """Forward, backward and the optimiser's step, as in training."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.arithmetic.measuring(self.called, TRAINED, next(self.model.parameters()).device) as net:
            loss = self.task.training_loss(net, self.batch)["loss"]
        with self.arithmetic.training():
            loss.backward()
        self.optimizer.step()

    def infer(self) -> None:
        """The model's answer to the tracked batch, with gradients only where it needs them for its forces."""
        self.model.eval()
        self.caller(self.model, self.asked)
        self.model.train()

    def flops(self) -> int:
        """Floating-point operations of one training step (two for a multiply-add)."""
        self.train_step()
        with FlopCount() as count:
            self.train_step()
        return count.total


class FlopCount(TorchDispatchMode):
    """Counts the FLOPs of everything run inside its ``with``.

    torch's own ``FlopCounterMode`` also follows modules, by hooks that fail where a model calls ``autograd.grad``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += int(formula(*args, **(kwargs or {}), out_val=out))
        return out


def seconds(benches: Sequence[Any], what: str, rounds: int, warmup: int = 2) -> np.ndarray:
    """Seconds of one call of ``what`` (``"train_step"`` or ``"infer"``), (rounds, models), the models in turn.

    On a GPU the clock is read after the device has finished.
    """
    for bench in benches:
        for _ in range(warmup):
            getattr(bench, what)()
    taken = np.empty((rounds, len(benches)))
    device = torch.device(fitting(None))
    for turn in range(rounds):
        for place, bench in enumerate(benches):
            settle(device)
            begun = time.perf_counter()
            getattr(bench, what)()
            settle(device)
            taken[turn, place] = time.perf_counter() - begun
    return taken


def peak_memory(config: Mapping[str, Any]) -> float:
    """MiB that training steps add at their peak to what a process holds once model and data are loaded.

    Raises:
        RunError: if the process that measures it fails.
    """
    command = [sys.executable, "-m", "equiscope.runs.efficiency"]
    answer = subprocess.run(command, input=json.dumps(dict(config)), capture_output=True, text=True)
    if answer.returncode:
        raise RunError(f"the memory of {config.get('model')} cannot be measured: {answer.stderr.strip()[-300:]}")
    return float(answer.stdout.strip().splitlines()[-1])


def _own_peak(config: Mapping[str, Any]) -> float:
    torch.set_num_threads(int(config.get("threads") or 1))
    bench = Bench.of(config)
    bench.optimizer.zero_grad(set_to_none=True)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        for _ in range(3):
            bench.train_step()
        return float(torch.cuda.max_memory_allocated() - before) / 2**20
    with _ResidentPeak() as resident:
        for _ in range(3):
            bench.train_step()
    return resident.added / 2**20


class _ResidentPeak:
    """The most bytes that this process's resident memory rose by inside the ``with``, looked at every millisecond."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.added = 0

    def __enter__(self) -> _ResidentPeak:
        self._before = self._process.memory_info().rss
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.001):
            self.added = max(self.added, self._process.memory_info().rss - self._before)


def profile(configs: Mapping[str, Mapping[str, Any]], rounds: int = 15) -> dict[str, dict[str, Any]]:
    """Name -> FLOPs and seconds of a training step, its samples, peak memory; seconds and samples of inference.

    ``step_seconds`` and ``infer_seconds`` are lists, one entry a round; entry i of every model was taken in round i, so
    ratios pair by pair are those of the same moment.
    """
    benches = {name: Bench.of(config) for name, config in configs.items()}
    steps = seconds(list(benches.values()), "train_step", rounds)
    answers = seconds(list(benches.values()), "infer", rounds)
    return {
        name: {
            "parameters": sum(p.numel() for p in bench.model.parameters()), "samples": bench.samples,
            "infer_samples": len(next(iter(bench.asked.values()))), "flops": bench.flops(),
            "step_seconds": steps[:, place].tolist(), "infer_seconds": answers[:, place].tolist(),
            "peak_mib": peak_memory(configs[name]),
        }
        for place, (name, bench) in enumerate(benches.items())
    }  # fmt: skip


def paces(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Name -> median seconds of a training step, the models in turn and nothing else on the device."""
    benches = {name: Bench.of(config) for name, config in configs.items()}
    taken = seconds(list(benches.values()), "train_step", rounds=9, warmup=3)
    return {name: float(np.median(taken[:, place])) for place, name in enumerate(benches)}


if __name__ == "__main__":
    print(_own_peak(json.load(sys.stdin)))
