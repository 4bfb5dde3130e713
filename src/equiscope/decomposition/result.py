"""The result of a measurement: frozen, printable, and plain enough to be stored."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from equiscope.decomposition import show
from equiscope.decomposition.statistics import FEW, TOO_FEW
from equiscope.words import plain as _digits

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


@dataclass(frozen=True)
class OutputResult:
    """One output's own split.

    Attributes:
        percent: 100 x its equivariance error / its total loss.
        contribution_percent: 100 x weight x its equivariance error / the whole loss; these add up to the headline.
        total, twirled, equivariance, r2, relative_equivariance, noise_floor, loss_as_given: as in :class:`Result`.
        weight, loss: as declared.
        distinguishable: whether its equivariance error is more than rounding, as in :class:`Result`; None in records
            that do not say.
        as_given_deviation: mean square of the answer as given less the twirled prediction; as_given_apart: number of
            samples whose answer as given is none of those they give when turned
            (:func:`equiscope.decomposition.noise.stands_apart`).
        jump: root mean square jump, relative to the output, of samples on which the model is discontinuous; 0 for none.
    """

    percent: float
    contribution_percent: float
    total: float
    twirled: float
    equivariance: float
    r2: float
    relative_equivariance: float
    noise_floor: float
    loss_as_given: float
    weight: float
    loss: str
    distinguishable: bool | None = None
    as_given_deviation: float = math.nan
    as_given_apart: int = 0
    jump: float = 0.0


@dataclass(frozen=True)
class PerSample:
    """Per-sample figures behind a result: combined total loss and equivariance error, ids and clusters.

    ``weight`` is that of each sample in both, summed over outputs.
    """

    ids: list[Any]
    clusters: list[Any]
    total: Tensor
    equivariance: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Result:
    """How much of a loss is there only because the symmetry is imperfect.

    Attributes:
        percent: `100 equivariance / total`, a ratio of means over samples; NaN without labels.
        percent_interval: its 95 % interval over clusters; ``(0, upper)`` where ``interval_kind`` is "upper limit".
        percent_error: its standard error, in percentage points.
        interval_kind: ``"two-sided"``, ``"upper limit"`` or ``"none"`` (fewer than two clusters).
        effective_clusters: how many clusters carry the interval, `(sum r^2)^2 / sum r^4` of their influence values r
            (:mod:`equiscope.decomposition.statistics`); under three it is not to be trusted. None in records that do
            not say.
        drawn: which samples of a longer data set were measured, where not all: "drawn at random from 900", or
            "the first 64 of an unknown number".
        mean_of_ratios_percent: mean of per-sample percents, another and biased quantity, for comparison.
        total: mean over rotations of the loss, in the unit of the loss (that of the target squared for squared error).
        twirled: loss of the rotation-averaged prediction, what a perfectly symmetric version of the model would have.
        equivariance: `total - twirled`.
        r2: `1 - total / constant`, with the loss of the best constant equivariant predictor (called skill for
            losses other than squared).
        relative_equivariance: `equivariance / mean |f|^2`.
        noise_floor: equivariance error that rounding alone would show, same unit as ``equivariance``.
        noise_floor_percent: the same as percent of the total loss.
        distinguishable: whether more than rounding was seen: the variance over rotations exceeds three floors of it, or
            more where few samples carry either (:func:`equiscope.decomposition.noise.floors_allowed`), an answer as
            given stands apart, or the model is discontinuous.
        loss_as_given: the loss on the batches as they came, not averaged over rotations.
        samples: how many were measured.
        clusters: how many independent ones (molecules, protein families), over which the interval is taken.
        passes: rotations a sample, the mean where some have more.
        model_calls: calls of the model in all, those for the noise floor among them.
        rotations: the set of rotations, such as ``"T"``.
        cosets: independent random turns of that set a sample.
        seed: of the rotations.
        weighting: ``"sample"`` or ``"component"``, as declared.
        loss: its name; of several outputs the names, joined by "+".
        rotated: field -> how it turned.
        held_fixed: fields that did not turn.
        center: what was turned about, as declared.
        group: the symmetry claimed, as declared.
        orientation: eigenvalues of the data's orientation tensor, (1/3, 1/3, 1/3) when even; None without points.
        outputs: name -> :class:`equiscope.decomposition.result.OutputResult`, the split of each output.
        notes: what a reader must know, in sentences.
        symmetry: what was measured, "rotation" or others; ``passes`` then counts their moves.
        by_symmetry: of several symmetries, their names, the share of the error that each adds in that order, and its
            standard error (:mod:`equiscope.decomposition.symmetries.nested`).
        spectrum: shares of the error by Wigner degree, if asked for (:mod:`equiscope.decomposition.spectrum`).
        float64_change: relative root mean square change of the outputs in a float64 copy of the model; None where no
            copy was made.
        variance_parts: variances of the prediction over rotations, over noise and over both together, where rotations
            were crossed with noise (:mod:`equiscope.decomposition.crossed`); None elsewhere.
        per_sample: figures of every sample, ``ids``, ``clusters``, ``total``, ``equivariance`` and ``weight``; None in
            a result that was read from records.
    """

    percent: float
    percent_interval: tuple[float, float]
    percent_error: float
    interval_kind: str
    mean_of_ratios_percent: float
    total: float
    twirled: float
    equivariance: float
    r2: float
    relative_equivariance: float
    noise_floor: float
    noise_floor_percent: float
    distinguishable: bool
    loss_as_given: float
    samples: int
    clusters: int
    passes: float
    model_calls: int
    rotations: str
    cosets: float
    group: str
    seed: int
    weighting: str
    loss: str
    center: str
    rotated: dict[str, str]
    held_fixed: tuple[str, ...]
    orientation: tuple[float, float, float] | None
    outputs: dict[str, OutputResult]
    notes: tuple[str, ...] = ()
    spectrum: dict[str, Any] | None = None
    float64_change: float | None = None
    variance_parts: dict[str, float] | None = None
    effective_clusters: float | None = None
    drawn: str = ""
    symmetry: str = "rotation"
    by_symmetry: dict[str, Any] | None = None
    per_sample: PerSample | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain types for storage; ``per_sample`` is left out."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "per_sample"}
        fields["outputs"] = {k: dataclasses.asdict(v) for k, v in self.outputs.items()}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Result:
        """The result stored by :meth:`to_dict`; null, which is how JSON records hold what is not finite, is NaN.

        Raises:
            TypeError: if fields are missing or unknown.
        """
        plain = _numbers(cls, data)
        plain["outputs"] = {k: OutputResult(**_numbers(OutputResult, v)) for k, v in data["outputs"].items()}
        plain["percent_interval"] = tuple(math.nan if end is None else end for end in data["percent_interval"])
        for name in ("held_fixed", "notes", "orientation"):
            plain[name] = tuple(plain[name]) if plain[name] is not None else None
        return cls(**plain)

    def __str__(self) -> str:
        moved = "rotations" if self.symmetry == "rotation" else f"passes ({self.symmetry})"
        measured = f"{self.passes:g} {moved} x {self.samples} samples" + (f", {self.drawn}" if self.drawn else "")
        low, high = (_digits(v) for v in self.percent_interval)
        interval = {
            "two-sided": f"95 % CI {low}–{high}",
            "upper limit": f"95 % upper limit {high}",
            "none": "one cluster: no interval" if self.clusters < 2 else "no interval",
        }[self.interval_kind]
        line = f"{_digits(self.percent)} % of the loss is equivariance error ({interval})"
        if self.interval_kind != "none":
            line += carried(self.effective_clusters, self.clusters)
        line += f"; {show.skill(self.loss, self.r2)}"
        if math.isnan(self.percent):
            why = "the total loss is zero" if self.total == 0 else "percent needs labels"
            line = f"relative equivariance error {self.relative_equivariance:.3g} of mean |f|² ({why})"
        head = f"{line}; {measured}"
        if self.group in ("O", "C4"):
            head += f"; group {self.group}, a lower bound for {'SO(3)' if self.group == 'O' else 'all angles'}"
        if not self.distinguishable:
            head += "; not distinguishable from numerical noise"
        more = filter(None, (*show.of_outputs(self), *show.of_symmetries(self), show.as_errors(self)))
        return "\n".join([head, *(f"  {line}" for line in more), *(f"  note: {n}" for n in self.notes)])

    def _repr_html_(self) -> str:
        """What a notebook shows: headline, bars, a row for each output, notes."""
        return show.html(self)

    def plot(self) -> Figure:
        """Percent of each output with the interval, spectrum, samples, the worst ones: :func:`show.plot`."""
        return show.plot(self)

    def to_frame(self) -> DataFrame:
        """A pandas row a sample: id, cluster, total, equivariance, percent, weight: :func:`show.frame`."""
        return show.frame(self)


def carried(effective: float | None, clusters: int) -> str:
    """How many of the clusters carry an interval, where they are few, to be printed after it."""
    if effective is None or not effective < FEW:
        return ""
    said = "" if effective >= TOO_FEW else " (few clusters, not trustworthy)"
    return f"; carried by {effective:.2g} of {clusters} clusters{said}"


def _numbers(kind: type, stored: Mapping[str, Any]) -> dict[str, Any]:
    """The fields with NaN for those that must be numbers and are None."""
    floats = {f.name for f in dataclasses.fields(kind) if f.type == "float"}
    return {k: math.nan if v is None and k in floats else v for k, v in stored.items()}
