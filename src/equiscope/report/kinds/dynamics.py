"""What a checkpoint foretells: annealing, twirling against training, the optimiser's noise, the time to 2 %."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from equiscope.report import style
from equiscope.report.chart import Chart, Panel, Series
from equiscope.report.kinds import Kind, Related, Table
from equiscope.report.style import Axis
from equiscope.report.views import NAN, Figure, Interval
from equiscope.words import digits, r2, ranged

#: How each prediction fared when it was tested: benchmarks/results/dynamics.md.
HISTORY = {
    "annealing": "held (within 1.5) in 28 of 28 runs, within 1.45",
    "twirling": "exact by definition",
    "noise": "held (within 1.5) in 14 of 22 runs, within 1.47; off by up to 5.5 times; "
    "measured over foretold 0.799 (0.65 to 0.99) in the geometric mean of 22 runs",
    "crossing": "held (within 1.5) in 6 of 11 runs, within 1.49; off by up to 3.0 times; 3 without any factor",
    "decay": "held (within 1.5) in 72 of 81 points, within 1.49; off by up to 1.7 times",
}


@dataclass(frozen=True)
class Percent(Figure):
    """Percent of some weights, and their equivariance error."""

    equivariance: float


@dataclass(frozen=True)
class Annealing:
    """The weights now and their average; refused: why there is none."""

    weights: Percent
    averaged: Percent | None
    refused: str


@dataclass(frozen=True)
class Ends:
    """Further steps of training, or answers, with their interval."""

    steps: float
    low: float
    high: float

    @property
    def words(self) -> str:
        if not math.isfinite(self.steps):
            return "more than any number"
        most = digits(self.high) if math.isfinite(self.high) else "no limit"
        return f"{digits(self.steps)} ({digits(self.low)} to {most})"


@dataclass(frozen=True)
class Twirling:
    """Loss with and without averaging over rotations on the final set, its cost in seconds, and what it is worth."""

    total: float
    twirled: float
    rotations: int
    cost: float
    worth: Ends | None
    answers: Ends | None
    refused: str


@dataclass(frozen=True)
class Excess:
    """What noise adds to one part of the loss, of the weights and of their average."""

    weights: Figure
    averaged: Figure | None


@dataclass(frozen=True)
class NoiseShare:
    """The optimiser's noise; kappa and share: of all noise vectors."""

    refused: str
    equivariance: Excess | None
    twirled: Excess | None
    of_error: Figure
    kappa_max: float
    edge: float
    kappa: tuple[float, ...] = ()
    share: tuple[float, ...] = ()


@dataclass(frozen=True)
class CrossingAt:
    """The step of 2 %: foretold with its interval, measured with the R² there."""

    refused: str
    step: float
    low: float
    high: float
    measured: float
    r2: float


@dataclass(frozen=True)
class Seen:
    """The mean curvature along one gradient."""

    mean: float


@dataclass(frozen=True)
class GradientSpectra:
    """Both gradients in the spectrum, their cosine, and the decay of the error after so many steps."""

    refused: str
    cosine: Figure
    parts: dict[str, Seen] = field(default_factory=dict)
    steps: tuple[float, ...] = ()
    decay: tuple[float, ...] = ()


@dataclass(frozen=True)
class Dynamics:
    """Values of a record."""

    annealing: Annealing
    twirling: Twirling
    noise: NoiseShare
    crossing: CrossingAt
    spectrum: GradientSpectra


def words(steps: Mapping[int, Dynamics], related: Related) -> tuple[str, list[Table]]:
    """The newest checkpoint in sentences, and every number of every checkpoint with how such predictions fared."""
    rows = [[f"{step:,}", *row] for step, found in steps.items() for row in told(found)]
    head = ["step", "what", "foretold or found", "beside it", "when it was tested"]
    caption = (
        "95 % intervals: over held-out samples for a percent, over noise vectors for the noise, of the fit for steps. "
        "A row that is withheld says why. The tests are those of the study of dynamics, benchmarks/results/dynamics.md."
    )
    return _lead(steps[max(steps)]), [Table(head, rows, caption)]


def _lead(found: Dynamics) -> str:
    now, averaged = found.annealing.weights, found.annealing.averaged
    said = [f"{digits(now.value)} % of the loss now"]
    if averaged is not None:
        said.append(f"the averaged weights have {averaged.words} %: expect that after annealing")
    if found.noise.equivariance is not None:
        said.append(f"the noise of the optimiser makes {ranged(*_percent(found.noise.of_error))} % of the error")
    if found.twirling.answers is not None:
        most = found.twirling.answers.steps
        few = f"fewer than {digits(most)} answers" if math.isfinite(most) else "any number of answers"
        said.append(
            f"averaging answers over {found.twirling.rotations} rotations is the cheaper way to the same gain for {few}"
        )
    return "; ".join(said) + "."


def _percent(one: Figure) -> tuple[float, Interval]:
    return 100 * one.value, (100 * one.interval[0], 100 * one.interval[1])


def told(found: Dynamics) -> list[tuple[str, str, str, str]]:
    """(what, the number with its interval, what is beside it, how such predictions fared) of everything foretold."""
    annealing, twirling, noise = found.annealing, found.twirling, found.noise
    crossing, spectrum, averaged = found.crossing, found.spectrum, found.annealing.averaged
    rows = [
        ("percent of the weights, and of their average", annealing.weights.words,
         averaged.words if averaged else f"withheld: {annealing.refused}", HISTORY["annealing"]),
        (f"loss as it is, and over {twirling.rotations} rotations, final set, [loss]", digits(twirling.total),
         f"{digits(twirling.twirled)} at {digits(twirling.cost)} times the seconds", HISTORY["twirling"]),
        ("training steps worth as much, and answers below which twirling is cheaper",
         twirling.worth.words if twirling.worth else f"withheld: {twirling.refused}",
         twirling.answers.words if twirling.answers else "–", "by the run’s own learning curve, taken without a floor"),
        *_noise(noise),
        ("step of 2 % (empirical)",
         f"withheld: {crossing.refused}" if crossing.refused
         else Ends(crossing.step, crossing.low, crossing.high).words,
         f"measured at step {crossing.measured:,.0f}, R² {r2(crossing.r2)}" if math.isfinite(crossing.measured)
         else "not measured yet", HISTORY["crossing"]),
    ]  # fmt: skip
    pull = {part: one.mean for part, one in spectrum.parts.items()}
    rows.append((
        "mean curvature along the gradient of the error, and of the twirled loss, [loss]",
        digits(pull.get("equivariance", NAN)),
        f"{digits(pull.get('twirled', NAN))}; cosine of the two {spectrum.cosine.words}", "",
    ))  # fmt: skip
    decay = f"{digits(spectrum.decay[-1])} at step {spectrum.steps[-1]:,.0f}" if spectrum.decay else "withheld"
    rows.append(("decay of the error by Lanczos", decay, spectrum.refused, HISTORY["decay"]))
    return rows


def _noise(noise: NoiseShare) -> list[tuple[str, str, str, str]]:
    share, history = "share of the error that is the optimiser’s noise, %", HISTORY["noise"]
    if noise.equivariance is None or noise.twirled is None:
        return [(share, "withheld", noise.refused, history)]
    rest = noise.equivariance.averaged
    return [
        (share, ranged(*_percent(noise.of_error)),
         f"{noise.equivariance.weights.words} of the error, {noise.twirled.weights.words} of the twirled loss",
         history),
        ("noise in the error of the averaged weights", rest.words if rest else "no average",
         f"largest κ {digits(noise.kappa_max)}, edge of stability {digits(noise.edge)}", history),
    ]  # fmt: skip


def chart(steps: Mapping[int, Dynamics]) -> Chart | None:
    """Measured over predicted, the error split into noise and rest, and the noise's weight over κ with the edge."""
    split = {step: found for step, found in steps.items() if found.noise.equivariance is not None}
    if not split:
        return None
    at = style.step_axis(list(split))
    places, last = at.place(list(split)), split[max(split)]
    pairs = [(one.annealing, one.noise.equivariance) for one in split.values()]
    error = np.array([now.weights.equivariance for now, _ in pairs])
    noise = np.array([excess.weights.value if excess else NAN for _, excess in pairs])
    ratio = np.array([_ratio(now, excess) for now, excess in pairs])
    bars = [
        Series(places, noise, "the optimiser’s noise", style.EQUIVARIANCE, "", "square", size=9,
               hover=[f"noise {digits(v)}" for v in noise]),
        Series(places, np.maximum(error - noise, 0), "the rest", style.OURS, "", "diamond", size=9,
               hover=[f"rest {digits(max(e - v, 0))}" for e, v in zip(error, noise, strict=True)]),
    ]  # fmt: skip
    kappa, share = np.array(last.noise.kappa), np.array(last.noise.share)
    order = np.argsort(kappa)
    weight = Series(np.maximum(kappa[order], 1e-6), share[order], "the noise’s weight", style.PURPLE, "", "circle")
    edge = Series([last.noise.edge] * 2, [0, float(share.max())], "edge of stability", style.LIMIT, "dash")
    return Chart(
        [[
            Panel(at, Axis("measured over predicted"), [Series(places, ratio, "", style.INK, "", "circle")]),
            Panel(at, Axis("equivariance error, [loss]"), bars),
            Panel(Axis("κ = η λ", True), Axis("share of the noise"), [weight, edge]),
        ]],
        size=(11, 3.8), height=420, legend=4,
    )  # fmt: skip


def _ratio(now: Annealing, excess: Excess | None) -> float:
    """What averaging the weights took from the error, over the noise that it was predicted to take."""
    if now.averaged is None or excess is None or excess.averaged is None:
        return NAN
    return (now.weights.equivariance - now.averaged.equivariance) / (excess.weights.value - excess.averaged.value)


CAPTION = (
    "Left: what averaging the weights took from the equivariance error, over the noise that the Krylov solution says "
    "it takes (1 is a prediction that held). Middle: the error of the weights split into the optimiser’s noise and the "
    "rest. Right: where the noise lies over κ, with the edge beyond which a mode has no stationary state."
)
KIND = Kind(10, "What this checkpoint foretells", Dynamics, words, chart, CAPTION)
