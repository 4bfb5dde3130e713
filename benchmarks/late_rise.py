"""The late rise of the flow's percent: drift of the weights or noise of the optimiser, told apart by twins.

    python benchmarks/late_rise.py RUN ...     # held-rate runs of `equiscope study dynamics task=proteinflow`

A run is repeated from its first checkpoint up to step :data:`FORK`, and from there :data:`TWINS` times with mini-batches
of its own each. Twins differ by the optimiser's noise alone. The error is quadratic in what breaks symmetry, so with E the
mean error of the single twins, and M that of the mean of their K weights,

    noise = (E - M) K / (K - 1),        drift = E - noise = (K M - E) / (K - 1):

what a mean over infinitely many twins would keep. Weights are the run's exponential averages, as its curve is measured.
Standard errors: jackknife over held-out chains and over twins, added in quadrature, of the logarithm of a ratio.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

PROBE = "t=0.4"
FORK, MARKS, TWINS = 126, (183, 265, 383, 500), 5
# Mini-batches of twins are those of steps so far on.
FAR = 100_000
DATA = Path(__file__).parent / "results" / "late_rise.json"


def grown(folder: Path) -> dict[str, Any]:
    """Per chain, the error of every twin, of the mean of all weights and of those with one twin left out, at each mark."""
    import torch

    from equiscope import records
    from equiscope.runs.trained import open_run

    torch.set_num_threads(1)
    first = open_run(folder, averaged=False, step=0)
    first.task.prepare(progress=False)
    run = Course(first, first.model, copy.deepcopy(first.model))
    run.go(FORK, shift=0)
    curve = {e["step"]: e["result"]["equivariance"] for e in records.read(folder / "records.jsonl")
             if e["kind"] == "measure" and e["part"] == "track" and e["probe"] == PROBE}  # fmt: skip
    again = held_out(first, run.mean, ("track",)).equivariance
    kept: dict[int, list[list[Any]]] = {mark: [] for mark in MARKS}
    for twin in range(1, TWINS + 1):
        own = run.copy()
        for mark in MARKS:
            own.go(mark, shift=FAR * twin)
            kept[mark].append([p.detach().clone() for p in own.mean.parameters()])
        print(folder.name, "twin", twin, flush=True)
    found = {}
    for mark, weights in kept.items():
        one = [errors(first, with_weights(run.mean, [w])) for w in weights]
        whole = errors(first, with_weights(run.mean, weights))
        rest = [errors(first, with_weights(run.mean, weights[:k] + weights[k + 1 :])) for k in range(TWINS)]
        found[str(mark)] = {"twins": [e for e, _ in one], "mean": whole[0], "without": [e for e, _ in rest],
                            "total": [float(np.mean([np.mean(t) for _, t in one])), float(np.mean(whole[1]))]}  # fmt: skip
    return {"seed": first.config["seed"], "lr": first.config["optimizer"]["lr"], "fork": FORK,
            "recorded": curve.get(FORK), "repeated": again, "marks": found}  # fmt: skip


class Course:
    """A run between two steps: its weights, their average, the optimiser."""

    def __init__(self, trained: Any, net: Any, mean: Any, state: Any = None, step: int = 0):
        from equiscope.runs.module import build_optimizer

        self.trained, self.net, self.mean, self.step = trained, net.train(), mean.requires_grad_(False), step
        self.optimizer = build_optimizer(net.parameters(), trained.config["optimizer"], False)
        if state is not None:
            self.optimizer.load_state_dict(state)

    def copy(self) -> Course:
        net, mean = copy.deepcopy(self.net), copy.deepcopy(self.mean)
        return Course(self.trained, net, mean, copy.deepcopy(self.optimizer.state_dict()), self.step)

    def go(self, until: int, shift: int) -> None:
        """Train at the highest rate, which these runs hold, on the mini-batches of later steps."""
        from equiscope.runs.module import update_average

        task, ema = self.trained.task, self.trained.config["trainer"]["ema"]
        while self.step < until:
            loss = task.training_loss(self.net, task.training_batch(self.step + shift))["loss"]
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.step += 1
            update_average(self.mean, self.net, self.step, ema)


def with_weights(net: Any, weights: Sequence[Any]) -> Any:
    """The network with the mean of several lists of parameters."""
    import torch

    made = copy.deepcopy(net)
    with torch.no_grad():
        for place, parameter in enumerate(made.parameters()):
            parameter.copy_(torch.stack([one[place] for one in weights]).mean(0))
    return made


def errors(trained: Any, net: Any) -> tuple[list[float], list[float]]:
    """Equivariance error and total of every held-out chain at the flow time of the rise."""
    found = held_out(trained, net, ("track", "final")).per_sample
    return found.equivariance.tolist(), found.total.tolist()


def held_out(trained: Any, net: Any, held: tuple[str, ...]) -> Any:
    """The Result of the chains of these parts at the flow time of the rise."""
    from equiscope.decomposition.measure import measured
    from equiscope.decomposition.plan import make_plan

    probes = [p for part in held for p in trained.task.probes(part) if p.name == PROBE]
    plan = make_plan(probes[0].declaration, probes[0].forward, "D2", 2, 0)
    return measured(net.eval(), [batch for p in probes for batch in p.batches], plan)


if __name__ == "__main__":
    DATA.write_text(json.dumps([grown(Path(folder)) for folder in sys.argv[1:]], separators=(",", ":")) + "\n")
