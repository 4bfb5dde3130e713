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

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from equiscope.decomposition.batches import Rows
from equiscope.decomposition.losses import Loss
from equiscope.errors import InputError, ModelError, around, first_line
from equiscope.symmetry.actions import Action

JACKKNIFE_COSETS = 4
# What one coset alone is, see :meth:`OutputSplit.values`.
Lone = Literal["refuse", "whole", "partial"]


@dataclass
class SampleValues:
    """Per-sample figures of one output, each (samples,) float64; concatenated over batches.

    Attributes:
        total, equivariance: the loss and its part from imperfect symmetry; NaN total without a target.
        between: what the variance between cosets contributes to ``equivariance``; NaN where a sample has one coset of a
            design in which others have two, and is still to be added.
        variance: variance of p over rotations, mean over components; for squared error the same as ``equivariance``.
        square: mean of |p|^2 over components and passes.
        components: number of real components.
        target_square: mean of |y|^2 over components.
        target_invariant: (samples, k) mean over rows of the invariant part of y.
        halvings: (samples, 3) plug-in twirled loss from all, half and a quarter of the cosets (jackknifed losses).
    """

    total: Tensor
    equivariance: Tensor
    between: Tensor
    variance: Tensor
    square: Tensor
    components: Tensor
    target_square: Tensor
    target_invariant: Tensor
    halvings: Tensor

    @staticmethod
    def cat(parts: list[SampleValues]) -> SampleValues:
        names = SampleValues.__dataclass_fields__
        return SampleValues(**{n: torch.cat([getattr(p, n) for p in parts]) for n in names})

    def take(self, places: Tensor) -> SampleValues:
        """The figures of some samples, or of all in another order."""
        return SampleValues(**{n: getattr(self, n)[places] for n in self.__dataclass_fields__})


@dataclass
class OutputSplit:
    """Running split of one output over one batch.

    Call :meth:`add` for every pass of a coset, :meth:`close_coset` after its last, and :meth:`values` at the end.
    Predictions are rows in float64, rotated back and in :meth:`coordinates`; sums are centred on the first of them, so
    that a small variance on top of a large mean keeps its digits.

    ``middle`` is the centre of each row, (n, 1, 3), where the output holds positions: sizes, and the coordinates of all
    losses but the user's own, are taken about it.

    ``coset_figures`` holds each coset's own (within-coset variance, mean loss), (samples,) each: their spread says what
    more cosets would gain.
    """

    rows: Rows
    action: Action
    loss: Loss
    target: Tensor | None
    target_layout: Tensor | None = None
    name: str = "output"
    middle: Tensor | None = None
    _shape: torch.Size | None = None
    _reference: Tensor | None = None
    _within: Tensor | None = None
    _shift: Tensor | None = None
    _weight: float = 0.0
    _total: Tensor | None = None
    _square: Tensor | None = None
    _within_sum: Tensor | None = None
    _mean: Tensor | None = None
    _between: Tensor | None = None
    _cosets: int = 0
    _means: list[Tensor] = field(default_factory=list)
    coset_figures: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def add(self, prediction: Tensor, weight: float) -> None:
        """One pass of the coset, in :meth:`coordinates`, with its weight in the set K."""
        self.check_shape(prediction)
        if self._reference is None:
            self._reference = prediction
            zero = torch.zeros(self.rows.samples, dtype=torch.float64, device=prediction.device)
            self._total, self._square, self._within_sum = zero, zero.clone(), zero.clone()
        delta = prediction - self._reference
        if self._shift is None:
            self._shift = torch.zeros_like(delta)
            self._within = torch.zeros_like(self._total)
        self._shift.add_(delta, alpha=weight)
        self._within.add_(self._mean_square(delta), alpha=weight)
        size = prediction if self.loss.per_sample is None else self.about(prediction)
        self._square.add_(self._mean_square(size), alpha=weight)
        if self.target is not None:
            self._total.add_(self.sample_loss(prediction), alpha=weight)
        self._weight += weight

    def check_shape(self, prediction: Tensor) -> None:
        """Every prediction has the shape of the first one seen here, or it would broadcast.

        Raises:
            InputError: if a later one differs.
        """
        self._shape = self._shape or prediction.shape
        if prediction.shape != self._shape:
            raise InputError(
                f"{self.name!r} changes shape between rotations: rows of {tuple(self._shape[1:])} first, "
                f"{tuple(prediction.shape[1:])} now"
            )

    def close_coset(self) -> None:
        """Fold the passes since the last call into the between-coset moments."""
        if self._shift is None or abs(self._weight - 1) > 1e-9:
            raise InputError(f"a coset was closed with weights summing to {self._weight:.6g} instead of 1")
        within = self._within - self._mean_square(self._shift)
        done = sum((t for _, t in self.coset_figures), torch.zeros_like(self._total))
        self.coset_figures.append((within, self._total - done))
        self._within_sum.add_(within)
        self._cosets += 1
        if self._mean is None:
            self._mean, self._between = self._shift, torch.zeros_like(self._total)
        else:
            step = self._shift - self._mean
            self._mean = self._mean + step / self._cosets
            # Welford: the new deviation from the old mean times that from the new one.
            self._between.add_(self._mean_square(step), alpha=1 - 1 / self._cosets)
        if not self.loss.exact:
            self._means.append(self._shift)
        self._shift, self._weight = None, 0.0

    @property
    def cosets(self) -> int:
        return self._cosets

    def twirled_prediction(self) -> Tensor:
        """The mean prediction over all passes, rows in the loss's coordinates."""
        return self._reference + self._mean

    def values(self, lone: Lone = "refuse") -> SampleValues:
        """The per-sample figures from all closed cosets.

        ``lone`` says what one coset alone is: refused; the whole set as it is, unshifted, whose plug-in variance is the
        figure; or the part of a design in which other samples have a second, so that ``between`` is NaN.

        Raises:
            InputError: with fewer than two cosets (four for losses that need the jackknife).
        """
        needed = (2 if self.loss.exact else JACKKNIFE_COSETS) if lone == "refuse" else 1
        if self._cosets < needed:
            raise InputError(f"{self.loss.name} needs at least {needed} independent cosets, got {self._cosets}")
        total = self._total / self._cosets
        between = self._between / max(self._cosets - 1, 1)
        variance = self._within_sum / self._cosets + between
        if lone == "partial" and self._cosets == 1:
            between = torch.full_like(between, torch.nan)
        halvings = torch.full((len(total), 3), torch.nan, dtype=torch.float64, device=total.device)
        if self.target is None:
            if not self.loss.exact:
                raise InputError(f"loss {self.loss.name!r} needs a target; without one only 'mse' can be measured")
            total, equivariance = torch.full_like(total, torch.nan), variance
        elif self.loss.exact:
            equivariance = variance
        elif lone == "whole":
            equivariance = total - self.sample_loss(self.twirled_prediction())
        else:
            equivariance = total - self._jackknife()
            halvings = self._halvings()
        components = self.rows.counts * self._reference[0].numel()
        square, invariant = self._target_moments()
        mean_square = self._square / self._cosets
        return SampleValues(
            total, equivariance, between, variance, mean_square, components, square, invariant, halvings
        )

    def sample_loss(self, prediction: Tensor) -> Tensor:
        """The loss of each sample, (samples,), for rows in the loss's coordinates."""
        if prediction.shape[:2] != self.target.shape[:2]:
            raise InputError(
                f"the target of {self.name!r} has rows of {tuple(self.target.shape[1:])}, the prediction of "
                f"{tuple(prediction.shape[1:])}: they must agree, one value for each"
            )
        if self.loss.per_sample is not None:
            # Copies: a loss that works in place would spoil the prediction and the user's own labels.
            target = self.rows.scatter(self.target, self.target_layout).clone()
            whole = self.rows.scatter(prediction, self._layout_of(prediction)).clone()
            try:
                values = self.loss.per_sample(whole, target)
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
        return self._sample_mean(self.loss.per_row(prediction, self.target))

    def coordinates(self, values: Tensor) -> Tensor:
        """Prediction rows in the coordinates in which they are averaged and compared."""
        if self.loss.per_sample is not None:
            return values
        return self.loss.prepare(self.action.canonical(self.about(values)))

    def about(self, values: Tensor) -> Tensor:
        """Rows relative to their centre, where they are positions."""
        return values if self.middle is None else values - self.middle

    def _layout_of(self, prediction: Tensor) -> Tensor:
        """A tensor with the shape of the whole prediction: the target's, unless the target is a class index."""
        if self.target_layout.is_floating_point():
            return self.target_layout
        width = prediction.shape[2:] if prediction.shape[1] == 1 else prediction.shape[1:]
        return prediction.new_zeros(*self.target_layout.shape[: self.rows.leading], *width)

    def _sample_mean(self, per_row: Tensor) -> Tensor:
        return self.rows.sum(per_row.mean(dim=1)) / self.rows.counts

    def _mean_square(self, rows: Tensor) -> Tensor:
        return self._sample_mean(rows.square().flatten(2).mean(dim=-1))

    def _jackknife(self) -> Tensor:
        count = self._cosets
        full = self.sample_loss(self.twirled_prediction())
        rest = torch.zeros_like(full)
        for mean in self._means:
            others = (self._mean * count - mean) / (count - 1)
            rest += self.sample_loss(self._reference + others)
        return count * full - (count - 1) / count * rest

    def _halvings(self) -> Tensor:
        """Plug-in twirled loss from all, each half and each quarter of the cosets: its decrease shows the bias."""
        count = self._cosets // 4 * 4
        columns = []
        for parts in (1, 2, 4):
            size = count // parts
            groups = [self._means[i * size : (i + 1) * size] for i in range(parts)]
            losses = [self.sample_loss(self._reference + torch.stack(g).mean(0)) for g in groups]
            columns.append(torch.stack(losses).mean(0))
        return torch.stack(columns, dim=-1)

    def _target_moments(self) -> tuple[Tensor, Tensor]:
        if self.target is None or not self.loss.exact:
            empty = torch.full_like(self._total, torch.nan)
            return empty, empty[:, None]
        square = self._mean_square(self.target)
        basis = self.action.invariants("SO3").to(self.target.device)
        parts = self.target @ basis
        if parts.shape[-1] == 0:
            return square, torch.zeros(len(square), 0, dtype=torch.float64, device=square.device)
        return square, torch.stack([self._sample_mean(parts[..., k]) for k in range(parts.shape[-1])], dim=-1)
