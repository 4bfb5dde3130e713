"""Rotations crossed with noise: the equivariance error of the noise-averaged model, and what the noise adds to it.

A model whose input holds noise that does not turn with the sample (voxel noise on its lattice) shows two scatters at
once. With rotations g_1..g_R and noises e_1..e_K, every pair measured, the twisted predictions are

    p_gj = mu + A_g + B_j + C_gj,        A rotation, B noise, C both together,

and with S_A = K sum_g |p_g. - p..|^2, S_B = R sum_j |p_.j - p..|^2, S_C = sum_gj |p_gj - p_g. - p_.j + p..|^2

    rotation           var A = (S_A - S_C / (K-1)) / (K D)          Var_g E_e p, the noise-averaged equivariance error
    rotation x noise   var C = S_C / (D (K-1))
    noise              var B = (S_B / (K-1) - var C) / R

exactly unbiased for independent Haar rotations with D = R - 1 (two-way analysis of variance; Scheffe, The Analysis of
Variance, 1959, ch. 4). For a whole finite group, measured once, A is fixed: then D = R and var B = S_B / (R (K-1)).
With one noise held while the sample turns, the plain measure shows var A + var C; with a fresh one every time it shows
var A + var B + var C.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from equiscope.decomposition.batches import as_batches, names
from equiscope.decomposition.collect import BatchOrbit, Collector
from equiscope.decomposition.losses import loss as find_loss
from equiscope.decomposition.measure import result_of
from equiscope.decomposition.orbit import Forward
from equiscope.decomposition.plan import make_plan
from equiscope.decomposition.pool import counted_outputs, host, sample_weights
from equiscope.decomposition.preserve import untouched
from equiscope.decomposition.ragged import batch_of
from equiscope.decomposition.result import Result
from equiscope.decomposition.samples import Samples
from equiscope.decomposition.split import add_pass
from equiscope.errors import InputError, ModelError, around, check_count, first_line
from equiscope.symmetry.declaration import Declaration

PARTS = ("rotation", "rotation x noise", "noise")


@dataclass(frozen=True)
class Redraw:
    """Noise that can be drawn again.

    Attributes:
        field: the batch field that holds it, declared as held fixed.
        draw: ``draw(batch fields, number) -> values`` of the field, a function of its arguments alone.
        draws: K, how many noises every rotation is measured with.
    """

    field: str
    draw: Callable[[Mapping[str, Tensor], int], Tensor]
    draws: int = 2

    def __post_init__(self) -> None:
        if isinstance(self.draws, bool) or not isinstance(self.draws, int) or self.draws < 2:
            raise InputError(f"draws must be an integer of at least 2 noises, got {self.draws!r}")
        if not callable(self.draw):
            raise InputError(f"draw must be a function draw(fields, number), got {self.draw!r}")


def measure_crossed(
    model: nn.Module | Callable[[Any], Any],
    batches: Iterable[Any],
    declaration: Declaration,
    redraw: Redraw,
    *,
    forward: Forward | None = None,
    rotations: str = "haar",
    count: int = 4,
    seed: int = 0,
    noise_samples: int = 1,
) -> Result:
    """The split of :func:`equiscope.measure` with the noise averaged out of the equivariance error.

    ``equiscope.measure`` and this have the same total loss in expectation; ``equivariance`` is var A of the module's
    docstring, and ``Result.variance_parts`` holds all three variances, means over samples in the unit of the loss.

    Args:
        redraw: what the noise is.
        rotations: ``"haar"``, or ``"O"`` for the whole group where ``declaration.group`` is ``"O"``.
        count: R, independent Haar rotations a sample (at least 2); not used for a whole group.

    Raises:
        InputError: for a loss other than squared error, a noise field that is not declared fixed, or a bad count.
        NonFiniteError, ModelError, RandomModelError: as for :func:`equiscope.measure`.
    """
    check_count("noise_samples", noise_samples)
    whole = rotations == declaration.group
    if rotations != "haar" and not whole:
        raise InputError(f"the crossed design takes rotations 'haar', or the group that is claimed, got {rotations!r}")
    if count < 2 and not whole:
        raise InputError(f"the crossed design needs at least 2 rotations a sample, got {count}")
    if redraw.field not in declaration.fixed:
        raise InputError(f"the noise field {redraw.field!r} must be declared fixed, declared are {declaration.fixed}")
    if not all(find_loss(spec.loss).exact for spec in declaration.outputs.values()):
        raise InputError("the crossed design takes variances apart, which only squared error has: loss='mse'")
    plan = make_plan(declaration, forward, rotations, count, seed)
    collector = Collector(model, plan, noise_samples)
    with untouched(model):
        for native in as_batches(batches):
            collector.keep(_cross(collector.begin(native), redraw))
    averaged = (
        f"averaged over {redraw.draws} noises in {redraw.field!r}: the scatter that the noise causes is taken out of "
        "the equivariance error"
    )
    parts = _pooled(collector.samples(), declaration)
    passes = int(plan.design.passes) * redraw.draws
    return result_of(collector, [averaged], passes=passes, variance_parts=parts)


@torch.no_grad()
def _cross(orbit: BatchOrbit, redraw: Redraw) -> Samples:
    """All pairs on one batch."""
    of, plan, fields = orbit.of, orbit.of.plan, orbit.of.batch.fields()
    if redraw.field not in fields:
        raise InputError(f"the batch has no tensor {redraw.field!r}; it has {names(fields)}")
    noisy = [of.batch.with_fields({redraw.field: _drawn(redraw, fields, j)}) for j in range(redraw.draws)]
    wrapped = [batch_of(native, plan.declaration) for native in noisy]
    columns: dict[str, list[Tensor]] = {}
    reference: dict[str, Tensor] = {}
    elements = int(plan.design.passes)
    walk = list(plan.walk(of.ids, of.device))
    for noises in zip(*(orbit.passes(batch, walk) for batch in wrapped), strict=True):
        for j, (_, rows) in enumerate(noises):
            for name, prediction in rows.items():
                # Centred on the first prediction, so that a small variance keeps its digits.
                reference.setdefault(name, prediction)
                sums = columns.setdefault(name, [torch.zeros_like(prediction) for _ in wrapped])
                sums[j] += prediction - reference[name]
            add_pass(orbit.splits, of.outputs, rows, 1 / redraw.draws, j == len(wrapped) - 1)
    samples = orbit.samples()
    figures = {}
    for name, split in orbit.splits.items():
        values, whole = samples.figures[name], not plan.design.shift
        within = torch.stack([figure for figure, _ in split.coset_figures]).mean(0)
        means = torch.stack(columns[name]) / elements
        apart = (split.of.rows.mean(d.square()) for d in means - means.mean(0))
        spread = sum(apart, torch.zeros_like(within))
        parts = _components(within, values.between, spread, elements, redraw.draws, whole)
        # The answer as given has another noise than the mean over noises.
        figures[name] = dataclasses.replace(
            values,
            equivariance=parts[:, 0],
            between=torch.zeros_like(values.between),
            deviation=torch.full_like(values.deviation, torch.nan),
            parts=parts,
        )
    return dataclasses.replace(samples, figures=figures)


def _drawn(redraw: Redraw, fields: Mapping[str, Tensor], number: int) -> Tensor:
    held = fields[redraw.field]
    try:
        drawn = redraw.draw(fields, number)
    except Exception as error:
        text = f"the noise {redraw.field!r} cannot be drawn again: {first_line(error)}"
        raise around(ModelError, text, error) from error
    if not isinstance(drawn, Tensor) or drawn.shape != held.shape or drawn.dtype != held.dtype:
        seen = f"{drawn.dtype} {tuple(drawn.shape)}" if isinstance(drawn, Tensor) else type(drawn).__name__
        raise InputError(
            f"draw must return values of the field {redraw.field!r}, {held.dtype} {tuple(held.shape)}, got {seen}"
        )
    return drawn


def _components(within: Tensor, between: Tensor, spread: Tensor, r: int, k: int, whole: bool) -> Tensor:
    """(samples, 3) variances from the mean population variance within rotations, the sample variance of the K-means
    between them, and sum_j |p_.j - p..|^2."""
    s_a, s_b = k * (r - 1) * between, r * spread
    s_c = r * k * within - s_b
    d = r if whole else r - 1
    both = s_c / (d * (k - 1))
    noise = s_b / (r * (k - 1)) if whole else (s_b / (k - 1) - both) / r
    return torch.stack([(s_a - s_c / (k - 1)) / (k * d), both, noise], dim=-1)


def _pooled(samples: Samples, declaration: Declaration) -> dict[str, float]:
    """Means over samples, outputs added up with their weights."""
    sums = np.zeros(len(PARTS))
    for name, weight in counted_outputs(declaration).items():
        values = samples.figures[name]
        sums += weight * (sample_weights(values, declaration.weighting)[:, None] * host(values.parts)).mean(axis=0)
    return dict(zip(PARTS, sums.tolist(), strict=True))
