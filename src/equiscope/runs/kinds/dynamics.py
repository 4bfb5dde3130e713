"""What a checkpoint foretells: annealing, twirling against training, the optimiser's noise, the time to 2 %."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from equiscope.errors import InputError
from equiscope.runs.kinds import Analysis, AnalysisSettings, Probe, Trained, Values, option

if TYPE_CHECKING:
    from torch import nn

    from equiscope.analysis.dynamics import Objective, Stepper
    from equiscope.analysis.parts import Parts

#: Steps over which learning rate and loss must be steady, and by how much.
WINDOW, RATE_CHANGE, LOSS_CHANGE = 100, 0.1, 1.5
#: Cosine of the two gradients beyond which the error's decay is not free of the labels.
ORTHOGONAL = 0.3


@dataclass(frozen=True)
class DynamicsSettings(AnalysisSettings):
    """See :func:`equiscope.analysis.dynamics.noise_share` for minibatches, draws (its ``vectors``) and depth.

    curved: held-out samples of the curvature; products: of the spectra from the gradients; batch: samples in each
    independent batch of their cosine.
    """

    cosets: int = 1
    minibatches: int = option(40, "mini-batches of training whose gradients give the noise")
    draws: int = option(8, "draws of the optimiser's noise, whose spread gives its interval")
    curved: int = 12
    depth: int = 14
    products: int = 5
    batch: int = 4


def make(trained: Trained, probe: Probe, other: Probe, settings: DynamicsSettings) -> Values:
    """The five parts of the analysis; one that cannot be given says why in ``refused``."""
    from equiscope import records
    from equiscope.runs.trained import open_run

    raw = open_run(trained.folder.path, averaged=False, step=trained.step, trust=True).model
    device = next(trained.model.parameters()).device
    raw, average = raw.to(device), float(trained.config["trainer"].get("ema") or 0) > 0
    trained.task.prepare(progress=False)
    entries = records.read(trained.folder.records)
    curve = _curve(entries, probe.name, trained.step)
    parts, objective, batches = _objective(trained, raw, probe, settings)
    return {
        "annealing": _annealing(trained, raw, average, probe, settings),
        "twirling": _twirling(trained, other, settings, curve),
        "noise": _noise(trained, settings, entries, parts, objective, batches),
        "crossing": _crossing(entries, probe.name),
        "spectrum": _spectrum(trained, raw, probe, settings, parts, objective),
    }


def _curve(entries: Sequence[Mapping[str, Any]], probe: str, until: int) -> list[Mapping[str, Any]]:
    """The tracked measurements of a probe up to a step."""
    return [r for r in entries if r["kind"] == "measure" and r["part"] == "track" and r["probe"] == probe
            and r["step"] <= until]  # fmt: skip


def _annealing(trained: Trained, raw: nn.Module, average: bool, probe: Probe, settings: DynamicsSettings) -> Values:
    """Percent of the weights as they are and of their average, which is what annealing is expected to leave."""
    from equiscope.decomposition.measure import measured
    from equiscope.decomposition.plan import make_plan

    plan = make_plan(probe.declaration, probe.forward, settings.rotations, 2, settings.seed)
    models = {"weights": raw, **({"averaged": trained.model} if average else {})}
    found = {}
    for name, model in models.items():
        result = measured(model, probe.batches, plan)
        found[name] = {"value": result.percent, "interval": list(result.percent_interval), "r2": result.r2,
                       "equivariance": result.equivariance, "total": result.total}  # fmt: skip
    reason = "" if average else "the run keeps no average of its weights: train with trainer.ema=0.99"
    return {**found, "refused": reason}


def _twirling(
    trained: Trained, other: Probe, settings: DynamicsSettings, curve: Sequence[Mapping[str, Any]]
) -> Values:
    """The gain of averaging answers over rotations, what it costs, and how much training is worth as much."""
    import torch

    from equiscope.analysis.forecast import cheaper_below, steps_worth
    from equiscope.analysis.parts import HALVES, Parts
    from equiscope.decomposition.orbit import Caller
    from equiscope.decomposition.twirled import Twirled
    from equiscope.runs.clock import Clock
    from equiscope.runs.deal import thinned

    device = next(trained.model.parameters()).device
    batches, plan = thinned(other.batches, 2 * settings.curved, device), settings.plan(other, alone=True)
    parts = Parts(trained.model, batches, plan)
    parts.check_parts(HALVES)
    values, count = parts.values, int(plan.design.passes)
    caller = Caller(other.forward, other.declaration)
    # Once before any clock runs: the caller learns whether the model needs gradients for its answer.
    caller(trained.model, batches[0])
    twirled = Twirled(trained.model, other.declaration, forward=caller, rotations=settings.rotations,
                      cosets=settings.cosets)  # fmt: skip
    seconds = []
    for call in (functools.partial(caller, trained.model), twirled):
        clock = Clock()
        with torch.no_grad(), clock.tracking(device):
            for batch in batches:
                call(batch)
        seconds.append(clock.track)
    found: Values = {"total": values["total"], "twirled": values["twirled"], "rotations": count,
                     "cost": seconds[1] / seconds[0], "refused": ""}  # fmt: skip
    share = values["equivariance"] / values["total"] if values["total"] > 0 else 0.0
    try:
        worth = steps_worth([r["step"] for r in curve], [r["result"]["total"] for r in curve], min(max(share, 0), 0.99))
    except InputError as error:
        return {**found, "refused": str(error)}
    size = int(trained.config["batch_size"])
    answers = {key: cheaper_below(worth[key], size, count) for key in ("steps", "low", "high")}
    return {**found, "worth": worth, "answers": answers}


def _noise(
    trained: Trained, settings: DynamicsSettings, entries: Sequence[Mapping[str, Any]], parts: Parts,
    objective: Objective, batches: Sequence[Any],
) -> Values:  # fmt: skip
    """How much of the error is the optimiser's noise, refused where its state is not stationary."""
    from equiscope.analysis.dynamics import noise_share

    reason = _unsteady(trained, entries)
    if reason:
        return {"refused": reason}
    return noise_share(parts, objective, batches, stepper(trained), steps=trained.step, vectors=settings.draws,
                       depth=settings.depth, seed=settings.seed)  # fmt: skip


def _objective(
    trained: Trained, raw: nn.Module, probe: Probe, settings: DynamicsSettings
) -> tuple[Parts, Objective, list[dict[str, Any]]]:
    """Both losses on the held-out samples, the training loss, and the mini-batches that training would take next."""
    from equiscope.analysis.dynamics import Objective
    from equiscope.analysis.parts import Parts
    from equiscope.runs.deal import thinned

    device = next(raw.parameters()).device
    parts = Parts(raw, thinned(probe.batches, settings.curved, device), settings.plan(probe, alone=True))
    batches = [
        {name: value.to(device) for name, value in trained.task.training_batch(trained.step + place).items()}
        for place in range(settings.minibatches)
    ]
    size = max(1, int(trained.config["batch_size"]))
    curved = batches[: max(1, -(-4 * settings.curved // size))]
    objective = Objective(parts, lambda model, batch: trained.task.training_loss(model, batch)["loss"], curved)
    return parts, objective, batches


def stepper(trained: Trained) -> Stepper:
    """The optimiser of a run at its checkpoint; its learning rate is that of the next step."""
    from equiscope.analysis.dynamics import Stepper
    from equiscope.runs.module import schedule_factor

    told, options = trained.config["optimizer"], trained.config["trainer"]
    name = str(told["name"]).lower()
    momentum = told.get("momentum", 0.0) if name == "sgd" else told.get("betas", (0.9, 0.999))[0]
    factor = schedule_factor(int(options["max_steps"]), **trained.config["schedule"])(trained.step)
    return Stepper(name, float(told["lr"]) * factor, float(momentum), float(told.get("weight_decay", 0.0)),
                   float(options.get("clip") or 0), float(options.get("ema") or 0),
                   trained.optimizer_state)  # fmt: skip


def _unsteady(trained: Trained, entries: Sequence[Mapping[str, Any]]) -> str:
    """Why the state is not stationary, or there is none; empty if it is."""
    from equiscope.runs.kinds.gradients import adam_state
    from equiscope.runs.module import schedule_factor

    name, step = str(trained.config["optimizer"]["name"]).lower(), trained.step
    if step == 0 or not trained.optimizer_state.get("param_groups"):
        return "there is no state of the optimiser at this checkpoint: analyse a step after the first"
    if name in ("adam", "adamw") and adam_state(trained.optimizer_state) is None:
        return f"the state of the optimiser holds no second moments, which those of {name} do: it is of another one"
    if name == "sgd" and adam_state(trained.optimizer_state) is not None:
        return "the state of the optimiser is Adam's, the settings say SGD: it is of another one"
    if step < 2 * WINDOW:
        return f"{step} steps are too few for a stationary state, {2 * WINDOW} are needed"
    factor = schedule_factor(int(trained.config["trainer"]["max_steps"]), **trained.config["schedule"])
    rates = [factor(step - place) for place in range(WINDOW + 1)]
    if max(rates) > (1 + RATE_CHANGE) * min(rates):
        return (f"the learning rate went from {rates[-1]:.3g} to {rates[0]:.3g} of its highest in the last {WINDOW} "
                "steps: analyse a step at which it is held (schedule.hold)")  # fmt: skip
    losses = {r["step"]: r["loss"] for r in entries if r["kind"] == "train" and r["step"] <= step}
    late, before = ([v for s, v in losses.items() if step - a * WINDOW < s <= step - (a - 1) * WINDOW] for a in (1, 2))
    if late and before:
        change = sum(before) / len(before) / (sum(late) / len(late))
        if not 1 / LOSS_CHANGE < change < LOSS_CHANGE:
            return f"the training loss still changes {max(change, 1 / change):.2g} times within {WINDOW} steps"
    return ""


def _crossing(entries: Sequence[Mapping[str, Any]], probe: str) -> Values:
    """The step of 2 % by an exponential through the early measurements, beside what was measured later."""
    from equiscope.analysis.forecast import crossing

    curve = [r for r in _curve(entries, probe, 2**62) if r["step"] > 0]
    steps, percents = [r["step"] for r in curve], [r["result"]["percent"] for r in curve]
    try:
        found = crossing(steps, percents)
    except InputError as error:
        return {"refused": str(error)}
    seen = next((r for r in curve if r["result"]["percent"] <= 2), None)
    measured = {} if seen is None else {"measured": seen["step"], "r2": seen["result"]["r2"]}
    return {**found, **measured, "refused": ""}


def _spectrum(
    trained: Trained, raw: nn.Module, probe: Probe, settings: DynamicsSettings, parts: Parts, objective: Objective
) -> Values:
    """Where both gradients lie in the spectrum, their cosine, and for plain descent the decay that follows."""
    import numpy as np

    from equiscope.analysis.dynamics import gradient_spectra, predicted_decay
    from equiscope.analysis.gradients import gradients
    from equiscope.runs.deal import dealt, thinned

    kept = dealt(thinned(probe.batches, settings.curved, next(raw.parameters()).device), probe.declaration,
                 settings.batch, settings.seed)  # fmt: skip
    cosine = gradients(raw, kept, settings.plan(probe, alone=True))["whole"]["cosine"]
    spectra = gradient_spectra(parts, settings.products)
    found: Values = {"cosine": cosine, "parts": spectra, "refused": ""}
    ours = stepper(trained)
    with parts.steady():
        scale = objective.scale(next(iter(probe.declaration.outputs)))
    low, high = cosine["interval"]
    if ours.name != "sgd" or ours.momentum or ours.clip or ours.weight_decay:
        reason = "foretold for plain gradient descent alone: SGD without momentum, clipping and weight decay"
    elif not scale > 0:
        reason = "the training loss is no squared error of what is measured"
    elif not (low > -ORTHOGONAL and high < ORTHOGONAL):
        reason = f"the gradients of the two parts are not orthogonal: their cosine is in [{low:.2f}, {high:.2f}]"
    else:
        own, steps = spectra["equivariance"], sorted({round(1.5**place) for place in range(16)})
        decay = predicted_decay(own["nodes"], own["weights"], own["square"], parts.values["equivariance"],
                                ours.rate * scale, np.array(steps, dtype=np.float64))  # fmt: skip
        return {**found, "steps": [trained.step + s for s in steps], "decay": decay.tolist()}
    return {**found, "refused": reason}


ANALYSIS = Analysis(DynamicsSettings, make)
