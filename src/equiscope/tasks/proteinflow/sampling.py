"""Draw backbones: integrate the flow from noise to chains, with or without test-time twirling."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from equiscope.errors import NonFiniteError
from equiscope.tasks.guards import at_least, one_of
from equiscope.tasks.proteinflow.flow import centre, clean_estimate, draw_noise

METHODS = ("euler", "heun")


@dataclass(frozen=True)
class Sampling:
    """How chains are drawn.

    Attributes:
        length, number: residues of each chain, and how many chains.
        steps: integration steps from t = 0 to t = 1.
        method: ``"euler"``, or ``"heun"`` (second order, two model calls a step).
        self_conditioning: give the model the estimate of the step before.
        seed: of the noise; equal seeds give equal noise whatever the method.
        batch_size: chains integrated together.
    """

    length: int = 96
    number: int = 8
    steps: int = 100
    method: str = "euler"
    self_conditioning: bool = True
    seed: int = 0
    batch_size: int = 16

    def __post_init__(self) -> None:
        at_least(2, length=self.length)
        at_least(1, number=self.number, steps=self.steps, batch_size=self.batch_size)
        one_of(METHODS, method=self.method)


def sample(model: nn.Module, settings: Sampling, progress: Callable[[int], None] | None = None) -> Tensor:
    """Chains (number, length, 3) in nm, centred, on the model's device.

    Integrates dx/dt = v(x, t) from x_0 ~ N(0, 1), centred, at t = 0 to t = 1 on a uniform grid. The last step of Heun's
    method is Euler's, as the velocity at t = 1 was never trained. The model is left in the mode it was in. ``progress``
    is called with the number of steps done after each. A NonFiniteError if the integration diverges.
    """
    parameter = next(model.parameters())
    was_training = model.training
    model.eval()
    drawn = []
    try:
        generator = torch.Generator().manual_seed(settings.seed)
        real = torch.ones(settings.number, settings.length, dtype=torch.bool)
        noise = draw_noise(real, generator).to(parameter.device, parameter.dtype)
        with torch.no_grad():
            for part in noise.split(settings.batch_size):
                drawn.append(_integrate(model, part, settings, progress))
    finally:
        model.train(was_training)
    return torch.cat(drawn)


def _integrate(model: nn.Module, x: Tensor, settings: Sampling, progress: Callable[[int], None] | None) -> Tensor:
    mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    residue = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
    x_sc = torch.zeros_like(x)
    grid = torch.linspace(0, 1, settings.steps + 1, dtype=torch.float64).tolist()

    def times(time: float) -> Tensor:
        return x.new_full((len(x),), time)

    def velocity(x_t: Tensor, time: float, guess: Tensor) -> Tensor:
        return model({"x_t": x_t, "x_sc": guess, "t": times(time), "residue": residue, "mask": mask})["velocity"]

    for step, (now, then) in enumerate(itertools.pairwise(grid), start=1):
        v = velocity(x, now, x_sc)
        if settings.self_conditioning:
            x_sc = centre(clean_estimate(x, v, times(now)), mask)
        ahead = centre(x + (then - now) * v, mask)
        if settings.method == "heun" and then < 1:
            v = (v + velocity(ahead, then, x_sc)) / 2
            ahead = centre(x + (then - now) * v, mask)
        x = ahead
        if progress is not None:
            progress(step)
    if not torch.isfinite(x).all():
        raise NonFiniteError(
            f"{int((~torch.isfinite(x)).any(-1).any(-1).sum())} of {len(x)} sampled chains are not finite: "
            "train the model longer, or take more steps"
        )
    return x
