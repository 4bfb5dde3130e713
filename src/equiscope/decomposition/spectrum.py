"""The equivariance error by Wigner degree, from the passes of the orbit alone.

As a function on SO(3), p_g = g^-1 f(g x) has Peter-Weyl components of degree l = 0, 1, 2, ...; degree 0 is the
twirled prediction and the powers S_l of the others add up to the equivariance error. With chi_l the character and
g, h independent Haar rotations,

    S_l = (2l + 1) E chi_l(g^-1 h) <p_g, p_h>,

estimated from pairs of passes of different cosets: pairs within one coset are not independent and biased. A common
mean of the two does not change the expectation for l >= 1 but carries the power of degree 0, which would drown
everything, so each pass is centred first:

- on its own coset's mean for degrees up to the set's degree t, where sum_k chi_l((k u)^-1 h) = 0 makes it exact;
- on the mean of all *other* cosets beyond t (or for independent rotations), which needs three or more cosets.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from equiscope.decomposition import statistics
from equiscope.decomposition.batches import Rows
from equiscope.errors import InputError
from equiscope.symmetry.rotations import RotationSet, characters_of_traces

# Rows times passes squared held at once.
_CHUNK = 4_000_000


def degrees_available(rotations: RotationSet, cosets: float, asked: bool | int, group: str) -> int:
    """The highest degree to be estimated: the set's own, or what was asked for.

    Raises:
        InputError: if the design cannot give the degrees asked for.
    """
    if asked is False:
        return 0
    if not isinstance(asked, int) or asked < 1:
        raise InputError(f"spectrum must be True or a degree >= 1, got {asked!r}")
    if group != "SO3":
        raise InputError("the spectrum by Wigner degree is that of SO(3): measure with group='SO3'")
    highest = rotations.degree if asked is True else asked
    if asked is True and highest == 0:
        highest = 3
    if highest > rotations.degree and cosets < 3:
        raise InputError(
            f"degree {highest} is above the degree {rotations.degree} of {rotations.name!r} and needs at least three "
            f"cosets to be told apart, got {cosets}: use cosets=3 or more, or rotations of a higher degree"
        )
    return highest


class Spectrum:
    """Keeps the passes of one output over one batch and turns them into powers per degree."""

    def __init__(self, rows: Rows, rotations: RotationSet, highest: int):
        self.rows, self.set, self.highest = rows, rotations, highest
        self._passes: list[Tensor] = []
        self._elements: list[Tensor] = []
        self._reference: Tensor | None = None

    def add(self, prediction: Tensor, elements: Tensor) -> None:
        """One pass: rows (n, c, d) in the loss's coordinates, and the rotation of each sample (samples, 3, 3)."""
        flat = prediction.flatten(1)
        if self._reference is None:
            self._reference = flat
        self._passes.append(flat - self._reference)
        self._elements.append(elements)

    def powers(self) -> Tensor:
        """S_l per component for l = 1..highest, (samples, highest) float64; unbiased, may be negative."""
        size = len(self.set)
        cosets = len(self._passes) // size
        gram = self._gram()
        weights = self.set.weights.to(gram.device)
        elements = torch.stack(self._elements, dim=1).flatten(2)
        traces = elements @ elements.mT
        blocks = (cosets, size, cosets, size)
        gram = gram.unflatten(2, (cosets, size)).unflatten(1, (cosets, size))
        means = torch.einsum("nrksj,j->nrks", gram, weights)
        mean_gram = torch.einsum("nrks,k->nrs", means, weights)
        result = torch.zeros(len(gram), self.highest, dtype=torch.float64, device=gram.device)
        pairs = [(r, s) for r in range(cosets) for s in range(r + 1, cosets)]
        traces = traces.reshape(-1, *blocks)
        for r, s in pairs:
            chi = characters_of_traces(traces[:, r, :, s], self.highest)
            for own in (True, False):
                columns = [d for d in range(1, self.highest + 1) if (d <= self.set.degree) == own]
                if not columns:
                    continue
                centre = _own_centred if own else _others_centred
                centred = centre(gram, means, mean_gram, r, s)
                for d in columns:
                    power = torch.einsum("nkj,nkj,k,j->n", chi[d], centred, weights, weights)
                    result[:, d - 1] += (2 * d + 1) * power
        return result / len(pairs)

    def _gram(self) -> Tensor:
        """<p_a, p_b> per component over each sample, (samples, passes, passes)."""
        stacked = torch.stack(self._passes, dim=1)
        count, passes, width = stacked.shape
        total = torch.zeros(self.rows.samples, passes, passes, dtype=torch.float64, device=stacked.device)
        step = max(1, _CHUNK // passes**2)
        for start in range(0, count, step):
            part = stacked[start : start + step]
            total.index_add_(0, self.rows.sample[start : start + step], part @ part.mT)
        return total / (self.rows.counts * width)[:, None, None]


def _own_centred(gram: Tensor, means: Tensor, mean_gram: Tensor, r: int, s: int) -> Tensor:
    """<p_a - P_r, p_b - P_s> for passes a of coset r and b of coset s, (n, k, k)."""
    return (
        gram[:, r, :, s]
        - means[:, r, :, s][:, :, None]
        - means[:, s, :, r][:, None, :]
        + mean_gram[:, r, s][:, None, None]
    )


def _others_centred(gram: Tensor, means: Tensor, mean_gram: Tensor, r: int, s: int) -> Tensor:
    """<p_a - m, p_b - m> with m the mean over all cosets but r and s, (n, k, k)."""
    others = [t for t in range(gram.shape[1]) if t not in (r, s)]
    left = means[:, r][:, :, others].mean(-1)
    right = means[:, s][:, :, others].mean(-1)
    square = mean_gram[:, others][:, :, others].mean(dim=(1, 2))
    return gram[:, r, :, s] - left[:, :, None] - right[:, None, :] + square[:, None, None]


def summarise_spectrum(
    powers: statistics.Array, equivariance: statistics.Array, codes: Any, count: int, first: int = 1
) -> dict[str, Any]:
    """Shares of the equivariance error at each degree, with standard errors over clusters, and the remainder.

    powers: (samples, L) weighted like ``equivariance`` (samples,), the first column of degree ``first``. Shares are
    ratios of means.
    """
    remainder = equivariance - powers.sum(axis=1)
    total = statistics.cluster_totals(equivariance, codes, count)
    columns = [*powers.T, remainder]
    ratios = [statistics.ratio(statistics.cluster_totals(c, codes, count), total) for c in columns]
    errors = [max(r.error, r.jackknife_error) if np.isfinite(r.error) else float("nan") for r in ratios]
    return {
        "degrees": list(range(first, powers.shape[1] + first)),
        "share": [r.value for r in ratios[:-1]],
        "error": errors[:-1],
        "remainder": ratios[-1].value,
        "remainder_error": errors[-1],
    }
