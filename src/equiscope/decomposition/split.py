"""The unbiased split of the loss of one batch into twirled loss and equivariance error, pass by pass.

Squared error, R >= 2 independent cosets of K (weights w_k), P_r = sum_k w_k p_{k u_r}:

    total         = mean over r of sum_k w_k |p_{k u_r} - y|^2
    equivariance  = mean_r sum_k w_k |p_{k u_r} - P_r|^2  +  1/(R-1) sum_r |P_r - mean P|^2
    twirled       = total - equivariance

Each k u_r is Haar distributed, so E[within] = tr Cov(p) - tr Cov(P) and E[between] = tr Cov(P): exactly unbiased for
any model and any set K. The factor M/(M-1) on a structured set is not. With K = {1} this is the usual sample variance.

Other convex losses: the plug-in loss(mean P) is biased upwards; the delete-one-coset jackknife
R l(mean P) - (R-1)/R sum_r l(mean of the others) removes the 1/R term, and equals the above for squared error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from equiscope.decomposition.batches import Rows
from equiscope.decomposition.losses import Loss, squares
from equiscope.decomposition.samples import HALVINGS, SampleValues
from equiscope.decomposition.symmetries.nested import StairParts
from equiscope.errors import InputError, ModelError, around, first_line
from equiscope.symmetry.actions import Action

JACKKNIFE_COSETS = 4
# What one coset alone is, see :meth:`OutputSplit.values`.
Lone = Literal["refuse", "whole", "partial"]


@dataclass(frozen=True)
class Labels:
    """Labels of one output over a batch: its real rows in the loss's coordinates, and the whole field as it came."""

    target: Tensor
    layout: Tensor


@dataclass(frozen=True)
class BatchOutput:
    """One output over one batch, and how it is judged.

    Predictions are rows in float64, rotated back and in :meth:`coordinates`.

    Attributes:
        middle: the centre of each row, (n, 1, 3), where the output holds positions: sizes, and the coordinates of all
            losses but the user's own, are taken about it.
        parts: what takes the variance apart where several symmetries are drawn in stairs.
    """

    name: str
    rows: Rows
    action: Action
    loss: Loss
    labels: Labels | None = None
    middle: Tensor | None = None
    parts: StairParts | None = None

    def coordinates(self, values: Tensor) -> Tensor:
        """Prediction rows in the coordinates in which they are averaged and compared."""
        return self.coordinates_of_passes(values, 1)[0]

    def coordinates_of_passes(self, values: Tensor, passes: int) -> Tensor:
        """Rows of several passes (passes n, c, *shape), one after another, in these coordinates, (passes, n, c, d)."""
        if self.loss.per_sample is not None:
            return values.unflatten(0, (passes, -1))
        about = self.about(values.unflatten(0, (passes, -1))).flatten(0, 1)
        return self.loss.prepare(self.action.canonical(about)).unflatten(0, (passes, -1))

    def about(self, values: Tensor) -> Tensor:
        """Rows relative to their centre, where they are positions."""
        return values if self.middle is None else values - self.middle

    def check_shape(self, first: Tensor, now: Tensor) -> None:
        """Every prediction has the shape of the first one, or it would broadcast.

        Raises:
            InputError: if a later one differs.
        """
        if now.shape != first.shape:
            raise InputError(
                f"{self.name!r} changes shape between rotations: rows of {tuple(first.shape[1:])} first, "
                f"{tuple(now.shape[1:])} now"
            )

    def size(self, prediction: Tensor) -> Tensor:
        """Mean square of each sample's prediction, (samples,)."""
        return self.mean_square(prediction if self.loss.per_sample is None else self.about(prediction))

    def sample_loss(self, prediction: Tensor) -> Tensor:
        """The loss of each sample, (samples,), for rows in the loss's coordinates; NaN without labels."""
        if self.labels is None:
            return torch.full((self.rows.samples,), torch.nan, dtype=torch.float64, device=prediction.device)
        if prediction.shape[:2] != self.labels.target.shape[:2]:
            raise InputError(
                f"the target of {self.name!r} has rows of {tuple(self.labels.target.shape[1:])}, the prediction of "
                f"{tuple(prediction.shape[1:])}: they must agree, one value for each"
            )
        if self.loss.per_sample is not None:
            return self._own_loss(self.loss.per_sample, prediction, self.labels)
        return self.rows.mean(self.loss.per_row(prediction, self.labels.target))

    def _own_loss(self, loss: Callable[[Tensor, Tensor], Tensor], prediction: Tensor, labels: Labels) -> Tensor:
        """A user's loss, on whole tensors."""
        # Copies: a loss that works in place would spoil the prediction and the user's own labels.
        target = self.rows.scatter(labels.target, labels.layout).clone()
        whole = self.rows.scatter(prediction, self._layout_of(prediction, labels.layout)).clone()
        try:
            values = loss(whole, target)
        except Exception as error:
            shapes = f"{tuple(whole.shape)} and {tuple(target.shape)}"
            text = f"loss {self.loss.name!r} fails on a prediction and target of {shapes}: {first_line(error)}"
            raise around(ModelError, text, error) from error
        if not isinstance(values, Tensor) or values.shape != (self.rows.samples,):
            seen = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise InputError(
                f"loss {self.loss.name!r} must return one value a sample ({self.rows.samples},), "
                f"got {seen}: average over atoms and components, not over samples"
            )
        return values.double()

    def _layout_of(self, prediction: Tensor, layout: Tensor) -> Tensor:
        """A tensor with the shape of the whole prediction: the target's, unless the target is a class index."""
        if layout.is_floating_point():
            return layout
        width = prediction.shape[2:] if prediction.shape[1] == 1 else prediction.shape[1:]
        return prediction.new_zeros(*layout.shape[: self.rows.leading], *width)

    def mean_square(self, rows: Tensor) -> Tensor:
        """Mean over rows and components of each sample, (samples,)."""
        return self.rows.mean(squares(rows.flatten(2)))

    def target_moments(self) -> dict[str, Tensor]:
        """The figures of the labels alone; all but their size for squared error only."""
        if self.labels is None:
            return {}
        square = self.mean_square(self.labels.target.double())
        if not self.loss.exact:
            return {"target_square": square}
        basis = self.action.invariants("SO3").to(self.labels.target.device)
        parts = self.labels.target @ basis
        means = [self.rows.mean(parts[..., k]) for k in range(parts.shape[-1])]
        none = torch.zeros(len(square), 0, dtype=torch.float64, device=square.device)
        return {"target_square": square, "target_invariant": torch.stack(means, dim=-1) if means else none}


class OutputSplit:
    """Running split of one output over one batch, from its first prediction on.

    Call :meth:`add` for every pass of a coset (the first one too), :meth:`close_coset` after its last, and
    :meth:`values` at the end. Sums are centred on the first prediction, so that a small variance on top of a large mean
    keeps its digits.

    Attributes:
        coset_figures: each coset's own (within-coset variance, mean loss), (samples,) each: their spread says what more
            cosets would gain.
    """

    def __init__(self, of: BatchOutput, first: Tensor):
        self.of = of
        self._reference = first
        zero = torch.zeros(of.rows.samples, dtype=torch.float64, device=first.device)
        self._total, self._square, self._within_sum, self._between = (zero.clone() for _ in range(4))
        self._mean = torch.zeros_like(first)
        self._means: list[Tensor] = []
        self.coset_figures: list[tuple[Tensor, Tensor]] = []
        self._open()

    def _open(self) -> None:
        """Sums of a coset's own."""
        self._shift, self._within, self._weight = torch.zeros_like(self._mean), torch.zeros_like(self._total), 0.0

    def add(self, prediction: Tensor, weight: float) -> None:
        """One pass of the coset, in the output's coordinates, with its weight in the set K."""
        self.of.check_shape(self._reference, prediction)
        delta = prediction - self._reference
        self._shift.add_(delta, alpha=weight)
        self._within.add_(self.of.mean_square(delta), alpha=weight)
        self._square.add_(self.of.size(prediction), alpha=weight)
        if self.of.labels is not None:
            self._total.add_(self.of.sample_loss(prediction), alpha=weight)
        self._weight += weight

    def add_block(self, predictions: Tensor, weights: Sequence[float]) -> None:
        """Several passes of the coset at once, (passes, n, c, d)."""
        if len(weights) == 1 or not self.of.loss.exact or min(weights) != max(weights):
            for prediction, weight in zip(predictions, weights, strict=True):
                self.add(prediction, weight)
            return
        self.of.check_shape(self._reference, predictions[0])
        delta, weight = predictions - self._reference, weights[0]
        self._shift.add_(delta.sum(0), alpha=weight)
        self._within.add_(self._summed(squares(delta.flatten(2))), alpha=weight)
        self._square.add_(self._summed(squares(predictions.flatten(2))), alpha=weight)
        if self.of.labels is not None:
            # The first pass is checked against the labels.
            self._total.add_(self.of.sample_loss(predictions[0]), alpha=weight)
            per_row = self.of.loss.per_row(predictions[1:], self.of.labels.target)
            self._total.add_(self._summed(per_row.mean(2)), alpha=weight)
        self._weight += sum(weights)

    def _summed(self, values: Tensor) -> Tensor:
        """Mean over rows of each sample of means of rows (passes, n), summed over passes, (samples,)."""
        return self.of.rows.sum(values.sum(0)) / self.of.rows.counts

    def close_coset(self) -> None:
        """Fold the passes since the last call into the between-coset moments."""
        if abs(self._weight - 1) > 1e-9:
            raise InputError(f"a coset was closed with weights summing to {self._weight:.6g} instead of 1")
        within = self._within - self.of.mean_square(self._shift)
        done = sum((t for _, t in self.coset_figures), torch.zeros_like(self._total))
        self.coset_figures.append((within, self._total - done))
        self._within_sum.add_(within)
        step = self._shift - self._mean
        self._mean = self._mean + step / self.cosets
        # Welford: the new deviation from the old mean times that from the new one.
        self._between.add_(self.of.mean_square(step), alpha=1 - 1 / self.cosets)
        if not self.of.loss.exact or self.of.parts is not None:
            self._means.append(self._shift)
        self._open()

    @property
    def cosets(self) -> int:
        """Closed cosets."""
        return len(self.coset_figures)

    def twirled_prediction(self) -> Tensor:
        """The mean prediction over all passes, rows in the loss's coordinates."""
        return self._reference + self._mean

    def values(self, lone: Lone = "refuse") -> SampleValues:
        """The per-sample figures from all closed cosets; those of the answer as given and of the floor are unknown.

        ``lone`` says what one coset alone is: refused; the whole set as it is, unshifted, whose plug-in variance is the
        figure; or the part of a design in which other samples have a second, so that ``between`` is NaN.

        Raises:
            InputError: with fewer than two cosets (four for losses that need the jackknife).
        """
        loss, cosets = self.of.loss, self.cosets
        needed = (2 if loss.exact else JACKKNIFE_COSETS) if lone == "refuse" else 1
        if cosets < needed:
            raise InputError(f"{loss.name} needs at least {needed} independent cosets, got {cosets}")
        if self.of.labels is None and not loss.exact:
            raise InputError(f"loss {loss.name!r} needs a target; without one only 'mse' can be measured")
        between = self._between / max(cosets - 1, 1)
        variance = self._within_sum / cosets + between
        columns = self.of.target_moments()
        if self.of.parts is not None:
            columns["parts"] = self.of.parts.of(self._means, [w for w, _ in self.coset_figures], self.of.rows)
            variance = columns["parts"].sum(-1)
            between = variance - self._within_sum / cosets
        total = torch.full_like(variance, torch.nan) if self.of.labels is None else self._total / cosets
        equivariance = variance
        if not loss.exact and lone == "whole":
            equivariance = total - self.of.sample_loss(self.twirled_prediction())
        elif not loss.exact:
            equivariance = total - self._jackknife()
            columns["halvings"] = self._halvings()
        if lone == "partial" and cosets == 1:
            between = torch.full_like(between, torch.nan)
        return SampleValues.unknown(
            len(total),
            total.device,
            total=total,
            equivariance=equivariance,
            between=between,
            variance=variance,
            square=self._square / cosets,
            components=self.of.rows.counts * self._reference[0].numel(),
            **columns,
        )

    def _jackknife(self) -> Tensor:
        count = self.cosets
        full = self.of.sample_loss(self.twirled_prediction())
        rest = torch.zeros_like(full)
        for mean in self._means:
            others = (self._mean * count - mean) / (count - 1)
            rest += self.of.sample_loss(self._reference + others)
        return count * full - (count - 1) / count * rest

    def _halvings(self) -> Tensor:
        """Plug-in twirled loss from all, each half and each quarter of the cosets: its decrease shows the bias."""
        count = self.cosets // 4 * 4
        columns = []
        for parts in (2**i for i in range(HALVINGS)):
            size = count // parts
            groups = [self._means[i * size : (i + 1) * size] for i in range(parts)]
            losses = [self.of.sample_loss(self._reference + torch.stack(g).mean(0)) for g in groups]
            columns.append(torch.stack(losses).mean(0))
        return torch.stack(columns, dim=-1)


def add_pass(
    splits: dict[str, OutputSplit],
    outputs: Mapping[str, BatchOutput],
    rows: Mapping[str, Tensor],
    weight: float,
    last_of_coset: bool,
) -> None:
    """One pass into the splits of all outputs, in their coordinates; the first makes them."""
    add_block(splits, outputs, {name: prediction[None] for name, prediction in rows.items()}, [weight], last_of_coset)


def add_block(
    splits: dict[str, OutputSplit],
    outputs: Mapping[str, BatchOutput],
    rows: Mapping[str, Tensor],
    weights: Sequence[float],
    last_of_coset: bool,
) -> None:
    """Several passes of one coset, (passes, n, c, d) of each output, as :func:`add_pass` takes one."""
    for name, predictions in rows.items():
        if name not in splits:
            splits[name] = OutputSplit(outputs[name], predictions[0])
        splits[name].add_block(predictions, weights)
        if last_of_coset:
            splits[name].close_coset()
