"""Pool per-sample figures into a Result: weights, ratio of means, skill, noise floor, notes."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from equiscope.decomposition import noise, statistics
from equiscope.decomposition.computing import hardware_notes
from equiscope.decomposition.losses import Loss, constant_loss, invariant_under
from equiscope.decomposition.plan import Plan, second_cosets_need
from equiscope.decomposition.result import OutputResult, PerSample, Result
from equiscope.decomposition.samples import Samples, SampleValues
from equiscope.decomposition.spectrum import summarise_spectrum
from equiscope.decomposition.symmetries.nested import by_symmetry
from equiscope.errors import InputError
from equiscope.symmetry.actions import Action
from equiscope.symmetry.declaration import Declaration
from equiscope.symmetry.orientation import eigenvalues

Term = TypeVar("Term", statistics.Array, Tensor)
POOR_SKILL = 0.05
# An error that is the answer's whole size, to rounding: its mean over the moves of the input is nothing.
DEAF = 1e-5
# Of predictions and labels: no model that was trained on the labels is so far on the other side of them.
AGAINST = -0.9
# Order of the bias of a jackknifed loss that the jackknife does not remove, and a share of the figure worth a word.
SLOW, VISIBLE = 0.85, 0.05


def added(terms: Iterable[Term]) -> Term:
    """The sum of arrays or tensors, from left to right; ``sum`` would make it a number where there is none."""
    return functools.reduce(operator.add, terms)


def host(values: Tensor) -> statistics.Array:
    """A tensor's values on the host in float64."""
    return values.detach().to("cpu", torch.float64).numpy()


def relative_weights(components: Tensor, weighting: str) -> Tensor:
    """Weight of each sample beside the others, (samples,): equal, or its number of components."""
    return torch.ones_like(components) if weighting == "sample" else components


def sample_weights(values: SampleValues, weighting: str) -> statistics.Array:
    """Weight of each sample, mean 1: equal, or by its number of components."""
    weights = host(relative_weights(values.components, weighting))
    return weights / weights.mean()


def counted_outputs(declaration: Declaration) -> dict[str, float]:
    """Weight in the pooled figures of each output that counts: those with a target, or all where none has one."""
    labelled = {name: spec for name, spec in declaration.outputs.items() if spec.target is not None}
    return {name: spec.weight for name, spec in (labelled or declaration.outputs).items()}


def pooled_equivariance(
    values: Mapping[str, SampleValues], declaration: Declaration, cosets: float = 2
) -> statistics.Array:
    """Equivariance error of each sample as every Result pools it, (samples,).

        sum over counted outputs o of weight_o w_oi error_oi,        w_oi of :func:`sample_weights`

    ``cosets``: of each sample, as drawn; between one and two where only a part of the samples has a second.
    """
    return added(
        weight * _equivariance(values[name], sample_weights(values[name], declaration.weighting), cosets)
        for name, weight in counted_outputs(declaration).items()
    )


def summarise(
    samples: Samples, plan: Plan, known: noise.Known, settings: Mapping[str, Any], notes: Sequence[str]
) -> Result:
    """The Result of all samples; ``settings`` are its fields that describe the design."""
    values, declaration = samples.figures, plan.declaration
    parts = {name: _OutputPool(name, samples, plan, settings["passes"], known) for name in values}
    labelled = [p for p in parts.values() if p.labelled]
    share = counted_outputs(declaration)
    counted = [parts[name] for name in share]

    def weighed(figure: str) -> Any:
        """A figure of the counted outputs, by their weights."""
        return added(share[p.name] * getattr(p, figure) for p in counted)

    a = pooled_equivariance(values, declaration, plan.design.cosets)
    b = weighed("total")
    codes, count = statistics.encode(samples.clusters)
    headline = statistics.ratio(statistics.cluster_totals(a, codes, count), statistics.cluster_totals(b, codes, count))
    total, equivariance = float(b.mean()), float(a.mean())
    floor, spread, rounding = weighed("floor"), weighed("spread"), weighed("rounding")
    allowed = noise.floors_allowed(spread, min(p.pooled.freedom for p in counted))
    baseline, square = weighed("baseline"), weighed("square")
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = a / b
    finite = ratios[np.isfinite(ratios)]
    spectrum = summarise_spectrum(weighed("powers"), a, codes, count) if plan.highest_degree else None
    shares = None
    if plan.scheme is not None and plan.scheme.several:
        shares = by_symmetry(plan.scheme, summarise_spectrum(weighed("parts"), a, codes, count))
    outputs = {
        p.name: p.result(share.get(p.name, 0.0), declaration.outputs[p.name].weight, total) for p in parts.values()
    }
    r2 = 1 - _divide(total, baseline)
    result_notes = [
        *hardware_notes(known.device, known.computing),
        *notes,
        *known.notes.values(),
        *group_notes(declaration.group, settings.get("rotations")),
        *_data_notes(samples.ids, count, total),
        *_notes(parts, labelled, r2, headline, declaration.group),
        *noise.computing_notes(known),
        *(note for p in parts.values() for note in fault_notes(p.name, samples.ids, p.pooled, p.apart)),
    ]
    faulty = any(len(p.apart) or len(p.pooled.jumped) for p in parts.values())
    if not (distinguishable := faulty or float(spread.mean()) > allowed * rounding):
        few = "" if allowed == noise.FLOORS else ", which for so few samples are uncertain"
        result_notes.append("not distinguishable from numerical noise: the equivariance error is under "
                            f"{allowed:.2g} noise floors{few}")  # fmt: skip
    return Result(
        percent=100 * headline.value,
        percent_interval=(100 * headline.interval[0], 100 * headline.interval[1]),
        percent_error=100 * max(headline.error, headline.jackknife_error),
        interval_kind=headline.kind,
        effective_clusters=headline.effective if math.isfinite(headline.effective) else None,
        mean_of_ratios_percent=100 * float(np.mean(finite)) if len(finite) else math.nan,
        total=total,
        twirled=total - equivariance,
        equivariance=equivariance,
        r2=r2,
        relative_equivariance=_divide(equivariance, square),
        noise_floor=floor,
        noise_floor_percent=100 * _divide(floor, total),
        distinguishable=distinguishable,
        loss_as_given=weighed("as_given"),
        samples=len(samples),
        clusters=count,
        loss="+".join(dict.fromkeys(p.loss.name for p in counted)),
        center=declaration.center,
        group=declaration.group,
        weighting=declaration.weighting,
        rotated={k: _describe(k, declaration) for k in declaration.inputs},
        held_fixed=tuple(declaration.fixed),
        orientation=None if samples.axes is None else eigenvalues(samples.axes.mean(0)),
        outputs=outputs,
        notes=tuple(dict.fromkeys(result_notes)),
        spectrum=spectrum,
        symmetry=plan.scheme.label if plan.scheme else "rotation",
        by_symmetry=shares,
        float64_change=known.float64_change,
        per_sample=PerSample(samples.ids, samples.clusters, *map(torch.from_numpy, (b, a, weighed("weights")))),
        **settings,
    )


class _OutputPool:
    """One output's weighted per-sample arrays and means.

    ``spread`` is what rounding is compared with: the equivariance error of squared error, the variance over rotations
    for other losses, which rounding moves in other ways; ``rounding`` is its floor.
    """

    def __init__(self, name: str, samples: Samples, plan: Plan, passes: float, known: noise.Known):
        values, declaration, loss = samples.figures[name], plan.declaration, plan.losses[name]
        weights = sample_weights(values, declaration.weighting)
        self.name, self.loss, self.weights = name, loss, weights
        self.labelled = declaration.outputs[name].target is not None
        self.action = declaration.outputs[name].action
        self.total = weights * host(values.total)
        self.equivariance = _equivariance(values, weights, plan.design.cosets)
        self.mean_total, self.mean_equivariance = float(self.total.mean()), float(self.equivariance.mean())
        self.square = float((weights * host(values.square)).mean())
        self.as_given = float((weights * host(values.as_given)).mean())
        self.spread = self.equivariance if loss.exact else weights * host(values.variance)
        self.pooled = pooled_floor(samples, name, weights, plan.design.seed, known)
        self.rounding = self.pooled.rounding * self.square
        self.floor = self.rounding if loss.exact else self._loss_floor(passes)
        deviation = host(values.deviation)
        self.mean_deviation = float((weights * deviation).mean())
        own = self.pooled.rounding * np.maximum(host(values.square), self.square)
        cosets = plan.design.cosets * (plan.scheme.cells if plan.scheme else 1)
        spread, worth = map(host, values.independent(passes, cosets))
        self.apart = np.flatnonzero(noise.stands_apart(deviation, spread, own, passes, worth))
        self.powers = weights[:, None] * host(values.powers)
        self.parts = weights[:, None] * host(values.parts)
        self.halvings = (weights[:, None] * host(values.halvings)).mean(axis=0)
        self.baseline = self._baseline(samples, declaration)
        target = float((weights * host(values.target_square)).mean()) if loss.exact else math.nan
        # E |p - y|^2 = E |p|^2 + E |y|^2 - 2 E <p, y>; NaN without labels and for other losses.
        self.cosine = _divide(self.square + target - self.mean_total, 2 * math.sqrt(self.square * target))

    def result(self, share: float, weight: float, total: float) -> OutputResult:
        """The output's own split; ``share`` is its weight in the whole loss ``total``."""
        return OutputResult(
            percent=100 * _divide(self.mean_equivariance, self.mean_total),
            contribution_percent=100 * _divide(share * self.mean_equivariance, total),
            total=self.mean_total,
            twirled=self.mean_total - self.mean_equivariance,
            equivariance=self.mean_equivariance,
            r2=1 - _divide(self.mean_total, self.baseline),
            relative_equivariance=_divide(self.mean_equivariance, self.square),
            noise_floor=self.floor,
            loss_as_given=self.as_given,
            weight=weight,
            loss=self.loss.name,
            distinguishable=self.distinguishable,
            as_given_deviation=self.mean_deviation,
            as_given_apart=len(self.apart),
            jump=self.pooled.jump,
        )

    def _loss_floor(self, passes: float) -> float:
        """The floor in the units of a loss that is not squared; at least what float64 makes of the loss itself."""
        least = 8 * passes * float(np.finfo(np.float64).eps) * abs(self.mean_total)
        return max(self.pooled.loss * self.square, least, float(np.finfo(np.float64).tiny))

    @property
    def distinguishable(self) -> bool:
        """Whether anything but rounding was seen."""
        allowed = noise.floors_allowed(self.spread, self.pooled.freedom)
        return bool(
            len(self.apart) or len(self.pooled.jumped) or float(self.spread.mean()) > allowed * self.rounding
        )

    def _baseline(self, samples: Samples, declaration: Declaration) -> float:
        """Loss of the best constant equivariant predictor; for squared error the mean of the invariant part."""
        if not self.labelled:
            return math.nan
        action, weights, values = self.action, self.weights, samples.figures[self.name]
        if self.loss.exact:
            square = weights * host(values.target_square)
            # Kept in the basis of SO(3)'s invariants; O(3) has fewer, wherever among them they stand.
            invariant = (weights[:, None] * host(values.target_invariant)).mean(axis=0)
            centre = host(action.invariants(declaration.group).mT @ action.invariants("SO3")) @ invariant
            dimension = action.canonical(torch.zeros(1, 1, *action.shape, device="cpu")).shape[-1]
            return float(square.mean() - (centre @ centre) / (weights.mean() * dimension))
        targets = samples.labels.get(self.name) or samples.wholes.get(self.name, [])
        return constant_loss(self.loss, targets, action, declaration.group, weights)


def pooled_floor(
    samples: Samples, name: str, weights: statistics.Array, seed: int, known: noise.Known
) -> noise.Pooled:
    """The floor of an output over the samples that have one."""
    keys = noise.keys(seed, samples.ids)
    return noise.pooled(host(samples.figures[name].floor), weights, keys, known.wanted, known.passes)


def _equivariance(values: SampleValues, weights: statistics.Array, cosets: float) -> statistics.Array:
    """Weighted equivariance error of each sample; where only some have a second coset, two-phase values."""
    equivariance, between = weights * host(values.equivariance), weights * host(values.between)
    known = ~np.isnan(between)
    if known.all():
        return equivariance
    needed = second_cosets_need(cosets)
    # Scattered ids may hold fewer second cosets than so many in a row would; with two there is a spread to be shown.
    if len(known) < needed or known.sum() < 2:
        raise InputError(
            f"{len(known)} samples, {int(known.sum())} of them with a second coset, are too few to know what it adds: "
            f"cosets={cosets} needs {needed} samples; give cosets=2, a larger share, or more samples"
        )
    return statistics.two_phase(np.where(known, equivariance - between, equivariance), between, known)


def _divide(a: float, b: float) -> float:
    return a / b if b not in (0, 0.0) and not math.isnan(b) else math.nan


def _describe(name: str, declaration: Declaration) -> str:
    label = declaration.inputs[name].action.label
    return f"{label} (positions, about {declaration.center})" if name in declaration.points else label


def _notes(
    parts: Mapping[str, _OutputPool], labelled: list[_OutputPool], r2: float, headline: statistics.Ratio, group: str
) -> list[str]:
    missing = sorted(set(parts) - {p.name for p in labelled})
    silent = [p.name for p in parts.values() if p.square == 0]
    deaf = [p.name for p in parts.values() if p.loss.exact and p.square and not p.action.invariants(group).numel()
            and abs(p.mean_equivariance / p.square - 1) < DEAF]  # fmt: skip
    alike = all(p.baseline == 0 for p in labelled)
    why = "the labels do not vary, so that a constant answer is perfect" if alike else (
        "the loss of the best constant answer is not known, of a loss of your own in the torchmetrics metric")
    own = ", ".join(p.loss.name for p in labelled if p.loss.per_sample is not None)
    negative = f"as it is where {own} is not convex: no share of it" if own else (
        "which an unbiased estimate of a small quantity may be; it is not clipped")
    how = "worse" if round(r2, 2) < 0 else "hardly better"
    notes = _those_that_hold(
        (missing, f"no target for {missing}: percent needs labels, the relative equivariance error does not"),
        (silent, f"the model answers zero to everything in {silent}: a percent of 0 says nothing of it"),
        (deaf, f"nothing of {deaf} follows the input as declared: answers to a moved input average to zero, as "
         "constants do, a cache that takes one input for another, inputs that do not reach the model, exchanged axes "
         "(y, z, x for x, y, z), or the other parity"),
        (labelled and math.isnan(r2) and any(p.mean_total for p in labelled), f"skill unknown: {why}"),
        (labelled and r2 < POOR_SKILL,
         f"the model is {how} than the best constant predictor (R² {r2:.2f}): a small percent says nothing yet"),
        (labelled and headline.value < 0, f"the estimate is negative, {negative}"),
        (labelled and headline.clusters > 1 and headline.error == 0,
         "all clusters have the same ratio: the interval says what clusters unlike them might add, unseen so far"),
    )  # fmt: skip
    for part in labelled:
        if part.cosine < AGAINST:
            notes.append(
                f"{part.name} points against its labels (cosine {part.cosine:.2f}): has one of them the other sign, as "
                "a virial and a stress, or a gradient and a force?"
            )
        notes += loss_notes(part.loss, part.halvings, part.mean_total, part.mean_equivariance, part.action, group)
    return notes


def fault_notes(name: str, ids: Sequence[Any], pooled: noise.Pooled, apart: np.ndarray[Any, Any]) -> list[str]:
    """Faults of a model that its spread over random rotations does not show, or that look like rounding."""
    notes = []
    if len(pooled.jumped):
        which = [ids[i] for i in pooled.jumped[:5]]
        notes.append(
            "discontinuous: ties at a neighbour limit, a cutoff, a sort? A change of the input as small as its "
            f"rounding moves {name!r} by {100 * pooled.jump:.2g} % of its size in {len(pooled.jumped)} of "
            f"{len(pooled.checked)} samples that were looked at (ids {which})"
        )
    if len(apart):
        which = [ids[i] for i in apart[:5]]
        notes.append(
            f"the answer as given stands apart: for {len(apart)} of {len(ids)} samples (ids {which}) {name!r} as the "
            "batch came is none of what it is when turned: a singular orientation, such as a bond along an axis?"
        )
    return notes


def group_notes(group: str, rotations: Any) -> list[str]:
    """What a claim smaller than SO(3) means for the reader."""
    whole = {"O": ("octahedral group O", "SO(3) error"), "C4": ("quarter turns, C4", "error of all angles")}
    if group not in whole:
        return []
    name, all_turns = whole[group]
    how = "exact" if rotations == group else "unbiased"
    return [f"{how} for the {name}, without interpolation; a lower bound of the {all_turns}"]


def _data_notes(ids: list[Any], clusters: int, total: float) -> list[str]:
    """What must be said of the samples, whatever the model answers."""
    repeated = len(ids) - len(set(ids))
    return _those_that_hold(
        (clusters < 2, "fewer than two clusters: no confidence interval"),
        (total == 0, "the total loss is zero: every rotation of every sample is predicted exactly, and percent is 0/0"),
        (repeated, f"{repeated} samples repeat an id: they were given the same rotations and each counts"),
    )


def _those_that_hold(*notes: tuple[object, str]) -> list[str]:
    """The texts of (whether it holds, text)."""
    return [text for holds, text in notes if holds]


def loss_notes(
    loss: Loss, halvings: statistics.Array, total: float, equivariance: float, action: Action, group: str
) -> list[str]:
    """What must be said of a loss that is not squared error: frame dependence, remaining bias.

    ``halvings`` are the mean plug-in twirled losses from all, half and a quarter of the cosets. Where the residual lies
    far under the spread s over rotations their bias falls as 1 / cosets^p with p near 1/2 (the loss has a kink there),
    and the jackknife, made for p = 1, leaves a good part of it. How much is said by sqrt(t^2 + s^2 / cosets), the mean
    of a norm to leading order at either end, through the values from all and a quarter.
    """
    notes = []
    if not invariant_under(loss, action, group):
        notes.append(
            f"loss {loss.name!r} acts on components and is not rotation invariant: "
            "it is taken in the frame of the labels"
        )
    if not loss.exact and np.isfinite(halvings).all():
        full, half, quarter = halvings
        if half > full and quarter > half:
            order = math.log2((quarter - half) / (half - full))
            falls = (
                f"{loss.name}: the plug-in twirled loss falls {quarter:.5g}, {half:.5g}, {full:.5g} at a quarter, half "
                f"and all cosets (bias of order {order:.2f} in 1/cosets); the jackknife removes order 1"
            )
            twirled = math.sqrt(max(4 * full**2 - quarter**2, 0.0) / 3)
            low = 1 - equivariance / (total - twirled) if total > twirled else 0.0
            if order < SLOW and low > VISIBLE:
                falls += (
                    f" and leaves the equivariance error too low, by about {100 * low:.0f} %: the residual lies far "
                    "under the spread over rotations; give more cosets, or squared error, which has no such bias"
                )
            notes.append(falls)
    return notes
