"""The one table of per-sample figures: joined, taken from, each sample once, packed for gathering over processes.

A row is a sample: its id, its cluster, and its figures of every output. Losses other than squared error also need the
labels themselves (for the loss of the best constant), kept beside the table.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from equiscope.errors import InputError
from equiscope.symmetry.declaration import Declaration

# Columns of a sample's numerical floor, see :mod:`equiscope.decomposition.noise`.
FLOOR = ("loss", "rounding", "square", "freedom", "jump")
# Plug-in twirled losses that are kept: from all, half and a quarter of the cosets.
HALVINGS = 3
# A sample measured twice by the same model answers alike up to rounding, in any batch and in half precision.
SAME_ANSWER = 1e-2
SAME_LABEL = 1e-9


@dataclass(frozen=True)
class SampleValues:
    """Per-sample figures of one output, float64, (samples,) where no other shape is given.

    Attributes:
        total, equivariance: the loss and its part from imperfect symmetry; NaN total without a target.
        between: what the variance between cosets contributes to ``equivariance``; NaN where a sample has one coset of a
            design in which others have two, and is still to be added.
        variance: variance of p over rotations, mean over components; for squared error the same as ``equivariance``.
        square: mean of |p|^2 over components and passes.
        components: number of real components.
        target_square: mean of |y|^2 over components, of classes as numbers.
        target_invariant: (samples, k) mean over rows of the invariant part of y.
        halvings: (samples, 3) plug-in twirled loss from all, half and a quarter of the cosets (jackknifed losses).
        as_given: loss of the batch as it came; deviation: mean square of that answer less the twirled prediction.
        floor: (samples, 5) the columns ``FLOOR``, NaN for samples without one.
        powers: (samples, degrees) of the spectrum, if asked for.
        parts: (samples, 3) variances of a crossed design, no columns elsewhere.
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
    as_given: Tensor
    deviation: Tensor
    floor: Tensor
    powers: Tensor
    parts: Tensor

    @classmethod
    def unknown(cls, samples: int, device: torch.device | str = "cpu", **columns: Tensor) -> SampleValues:
        """NaN in every column but those given."""

        def nan(*shape: int) -> Tensor:
            return torch.full((samples, *shape), torch.nan, dtype=torch.float64, device=device)

        wide = {"target_invariant": 1, "halvings": HALVINGS, "floor": len(FLOOR), "powers": 0, "parts": 0}
        made = {f.name: nan(wide[f.name]) if f.name in wide else nan() for f in fields(cls)}
        return cls(**made | columns)

    @classmethod
    def cat(cls, parts: Sequence[SampleValues]) -> SampleValues:
        """One after another."""
        return cls(**{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(cls)})

    def independent(self, passes: float, cosets: float) -> tuple[Tensor, Tensor]:
        """(variance over rotations, how many independent rotations its estimate is worth), (samples,) each.

        Passes of a coset move together: of a variance w + b that lies between cosets, not within, few are known. With
        Satterthwaite's degrees of freedom that is 1 + (w + b)^2 / (w^2 / (passes - cosets) + b^2 / (cosets - 1)).
        Samples with one coset of a design in which others have two take the mean b of those.
        """
        lone = self.between.isnan()
        between = torch.where(lone, self.between.nanmean(), self.between).nan_to_num(0.0)
        within, variance = self.variance, self.variance + between
        within, variance = torch.where(lone, within, within - between), torch.where(lone, variance, within)
        spread = within.square() / max(passes - cosets, 1.0) + between.square() / max(cosets - 1, 1.0)
        free = torch.where(spread > 0, variance.square() / spread, torch.full_like(spread, passes - 1))
        return variance, 1 + free

    def take(self, places: Tensor) -> SampleValues:
        """The figures of some samples, or of all in another order."""
        return SampleValues(**{f.name: getattr(self, f.name)[places] for f in fields(self)})


@dataclass(frozen=True)
class LabelRows:
    """Labels in the loss's coordinates, (m, d), floating or integer classes, and the place of each one's sample."""

    rows: Tensor
    sample: Tensor


@dataclass(frozen=True)
class WholeLabels:
    """Labels of one batch for a user's loss, which acts on whole tensors.

    Attributes:
        rows: in the loss's coordinates.
        shape: of the rows of a prediction; sample_loss: the loss of each sample, for such rows.
    """

    rows: Tensor
    shape: torch.Size
    sample_loss: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Samples:
    """Figures of n samples.

    Attributes:
        ids, clusters: one each.
        figures: by output.
        axes: (n, 3, 3) u u^T of each sample's longest axis, where positions are declared.
        labels: by output judged by rows and not by squared error.
        wholes: by output judged by a user's loss, a batch each. They cannot be taken apart.
    """

    ids: list[int]
    clusters: list[Any]
    figures: Mapping[str, SampleValues]
    axes: Tensor | None = None
    labels: Mapping[str, LabelRows] = field(default_factory=dict)
    wholes: Mapping[str, list[WholeLabels]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def cat(cls, parts: Sequence[Samples], outputs: Iterable[str] | None = None) -> Samples:
        """One after another; of all outputs, or of some that every part has."""
        names = list(parts[0].figures if outputs is None else outputs)
        starts = [sum(len(p) for p in parts[:i]) for i in range(len(parts))] if parts[0].labels else []
        return cls(
            ids=[i for p in parts for i in p.ids],
            clusters=[c for p in parts for c in p.clusters],
            figures={name: SampleValues.cat([p.figures[name] for p in parts]) for name in names},
            axes=None if parts[0].axes is None else torch.cat([p.axes for p in parts if p.axes is not None]),
            labels={
                name: LabelRows(
                    torch.cat([p.labels[name].rows for p in parts]),
                    torch.cat([p.labels[name].sample + start for p, start in zip(parts, starts, strict=True)]),
                )
                for name in names
                if name in parts[0].labels
            },
            wholes={name: [w for p in parts for w in p.wholes[name]] for name in names if name in parts[0].wholes},
        )

    def take(self, places: Tensor) -> Samples:
        """Some samples, or all in another order; labels of whole batches stay behind."""
        order = places.tolist()
        labels = {}
        for name, label in self.labels.items():
            rank = torch.full((len(self),), -1, device=label.sample.device)
            rank[places] = torch.arange(len(order), device=rank.device)
            sample = rank[label.sample]
            labels[name] = LabelRows(label.rows[sample >= 0], sample[sample >= 0])
        return Samples(
            ids=[self.ids[i] for i in order],
            clusters=[self.clusters[i] for i in order],
            figures={name: values.take(places) for name, values in self.figures.items()},
            axes=None if self.axes is None else self.axes[places],
            labels=labels,
        )

    def once(self, declaration: Declaration) -> Samples:
        """Each sample once, ordered by id.

        Raises:
            InputError: two different samples share an id, or a sample was measured with different models.
        """
        order, kept = _by_id(self.ids)
        ids = torch.tensor(self.ids, device="cpu")
        original = kept[torch.searchsorted(ids[kept], ids[order])]
        for name, values in self.figures.items():
            for part, tolerance in (("components", SAME_LABEL), ("target_square", SAME_LABEL), ("square", SAME_ANSWER)):
                a, b = (getattr(values, part)[rows] for rows in (order, original))
                differ = (a - b).abs() > tolerance * torch.maximum(a.abs(), b.abs())
                if bool(differ.any()):
                    raise InputError(_conflict(name, part, ids[order][differ.cpu()].unique().tolist(), declaration))
        return self.take(kept)

    def packed(self, device: torch.device) -> dict[str, Tensor]:
        """Everything but whole batches as tensors that can be joined over processes in any order.

        ``ids`` and ``clusters`` (n,) int64, ``figures`` (n, width) float64, and for each output with labels
        ``owners_NAME`` (m,) the sample id of each label and ``labels_NAME`` (m, d). Clusters that are no integers are
        named by 63 bits of a hash.
        """
        ids = torch.tensor(self.ids, dtype=torch.int64, device=device)
        columns = [column.to(device).reshape(len(ids), math.prod(column.shape[1:])) for column in self._columns()]
        clusters = torch.tensor([_code(c) for c in self.clusters], dtype=torch.int64, device=device)
        found = {"ids": ids, "clusters": clusters, "figures": torch.cat(columns, dim=1)}
        for name, label in self.labels.items():
            found[f"owners_{name}"] = ids[label.sample.to(device)]
            found[f"labels_{name}"] = label.rows.to(device)
        return found

    def unpacked(self, tables: Mapping[str, Tensor]) -> Samples:
        """The samples of joined tables whose columns are those of this table, which may be empty."""
        own = self._columns()
        pieces = tables["figures"].split([math.prod(column.shape[1:]) for column in own], dim=1)
        whole = iter(piece.reshape(len(piece), *column.shape[1:]) for piece, column in zip(pieces, own, strict=True))
        axes = None if self.axes is None else next(whole)
        figures = {name: SampleValues(*(next(whole) for _ in fields(SampleValues))) for name in self.figures}
        ids = tables["ids"].tolist()
        kept = _by_id(ids)[1].to(tables["ids"].device)
        labels = {}
        for name in self.labels:
            # The rows of a sample that was measured r times are all its: r times as many, with the same mean.
            place = torch.searchsorted(tables["ids"][kept], tables[f"owners_{name}"])
            labels[name] = LabelRows(tables[f"labels_{name}"], kept[place])
        return Samples(ids, tables["clusters"].tolist(), figures, axes, labels)

    def _columns(self) -> list[Tensor]:
        values = [getattr(v, f.name) for v in self.figures.values() for f in fields(v)]
        return values if self.axes is None else [self.axes, *values]


def _by_id(ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Places ordered by id, and the first place of each id."""
    numbers = torch.tensor(ids, dtype=torch.int64, device="cpu")
    order = torch.argsort(numbers, stable=True)
    ordered = numbers[order]
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return order, order[first]


def _conflict(name: str, part: str, ids: list[int], declaration: Declaration) -> str:
    which = f"{len(ids)} ids occur twice with different figures of output {name!r} (ids {ids[:5]})"
    if part == "square":
        return f"{which}: the model changed between updates; call reset() before measuring it again"
    remedy = f"field {declaration.ids!r} must identify samples" if declaration.ids else "declare ids='…'"
    return f"{which}: two different samples share an id; {remedy}"


def _code(label: Any) -> int:
    """A cluster's label of 64 bits, or 63 bits of a hash of any other label: the same in every process."""
    if isinstance(label, int) and -(2**63) <= label < 2**63:
        return int(label)
    digest = hashlib.blake2b(repr(label).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
