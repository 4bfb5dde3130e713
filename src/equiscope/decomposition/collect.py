"""Measure one batch after another: the model's orbit, its split, and the per-sample figures to be pooled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from equiscope.decomposition import noise
from equiscope.decomposition.arcs import Site, row_mean
from equiscope.decomposition.batches import Batch, Rows
from equiscope.decomposition.calling import Call, check_model
from equiscope.decomposition.checks import check_batch, follows_points, one_each
from equiscope.decomposition.computing import Computing, watched
from equiscope.decomposition.design import Design
from equiscope.decomposition.losses import loss as find_loss
from equiscope.decomposition.orbit import (
    Forward,
    input_rows,
    output_middle,
    predict,
    rows_of,
    twisted,
)
from equiscope.decomposition.ragged import batch_of
from equiscope.decomposition.spectrum import Spectrum
from equiscope.decomposition.split import OutputSplit, SampleValues
from equiscope.errors import InputError, NonFiniteError, first_line
from equiscope.symmetry.declaration import Declaration
from equiscope.symmetry.orientation import longest_axis_outer
from equiscope.symmetry.rotations import uniform_keyed


class Caller:
    """Calls the model without gradients, or with them once it turns out to need them (gradient forces)."""

    def __init__(self, forward: Callable[[Any, Any], Any] | None, declaration: Declaration | None = None):
        if forward is not None and not callable(forward):
            raise InputError(f"forward must be a function forward(model, batch), got {forward!r}")
        self.given = forward
        self._call = Call(declaration)
        self._grad = False
        self.calls = 0

    def __call__(self, model: Any, native: Any) -> Any:
        self.calls += 1
        return self._attempt(model, native)

    def _attempt(self, model: Any, native: Any) -> Any:
        try:
            with torch.set_grad_enabled(self._grad):
                return self._run(model, native)
        except RuntimeError as error:
            if not self._grad and "does not require grad" in str(error):
                self._grad = True
                return self._attempt(model, native)
            self._explain(model, native, error)
            raise

    def _run(self, model: Any, native: Any) -> Any:
        if self.given is not None:
            return self.given(model, native)
        if not callable(model):
            raise InputError(f"the model must be callable, or give forward=…; got {type(model).__name__}")
        return self._call(model, native)

    @staticmethod
    def _explain(model: Any, native: Any, error: RuntimeError) -> None:
        """Turn torch's message into one with the remedy: no gradient by the positions, another device or dtype."""
        if "does not require grad" in str(error):
            raise InputError(
                f"the model differentiates by something that requires no gradient ({first_line(error)}): mark the "
                "positions in the model, pos.requires_grad_(), or in the loader"
            ) from error
        parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
        if parameter is None:
            return
        stored = native if isinstance(native, Mapping) else getattr(native, "to_dict", dict)()
        for name, value in stored.items():
            if not isinstance(value, Tensor):
                continue
            if value.device != parameter.device:
                raise InputError(
                    f"batch field {name!r} is on {value.device} but the model is on {parameter.device}: "
                    "move the batch or the model"
                ) from error
            if value.is_floating_point() and value.dtype != parameter.dtype:
                raise InputError(
                    f"batch field {name!r} is {value.dtype} but the model's parameters are {parameter.dtype}: "
                    f"convert the batch, or the model with model.to({value.dtype})"
                ) from error


@dataclass
class Collected:
    """Per-sample figures of everything measured so far; lists hold one entry per batch.

    ``deviations`` are mean squares of the answer as given less the twirled prediction, ``floors`` the columns of
    :mod:`equiscope.decomposition.noise`, NaN for samples without a floor; ``noise_samples`` is how many get one.
    ``notes`` holds what a reader must know of an output, by its name.
    """

    ids: list[Any] = field(default_factory=list)
    clusters: list[Any] = field(default_factory=list)
    values: dict[str, list[SampleValues]] = field(default_factory=dict)
    as_given: dict[str, list[Tensor]] = field(default_factory=dict)
    targets: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = field(default_factory=dict)
    constants: dict[str, list[tuple[OutputSplit, torch.Size]]] = field(default_factory=dict)
    deviations: dict[str, list[Tensor]] = field(default_factory=dict)
    floors: dict[str, list[Tensor]] = field(default_factory=dict)
    powers: dict[str, list[Tensor]] = field(default_factory=dict)
    axes: list[Tensor] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    noise_samples: int = 0
    known: noise.Known = field(default_factory=noise.Known)
    stored: float = 0.0

    @property
    def float64_change(self) -> float | None:
        """The largest change of an output in a float64 copy; None where no copy was made."""
        return max((self.known.rounding or {}).values(), default=None)


class Collector:
    """Runs a model over batches and keeps per-sample figures; :func:`equiscope.measure` pools them."""

    def __init__(
        self,
        model: Any,
        declaration: Declaration,
        forward: Forward | None,
        design: Design,
        highest_degree: int = 0,
    ):
        self.model, self.declaration, self.design = model, declaration, design
        self.highest_degree = highest_degree
        check_model(model)
        self.caller = Caller(forward, declaration)
        self.losses = {name: find_loss(spec.loss) for name, spec in declaration.outputs.items()}
        self.collected = Collected()
        # Position in the data set of the first sample, for batches that carry no ids.
        self.first_id = 0

    def run(self, native: Any, noise_samples: int, positions: list[int] | None = None) -> BatchOrbit:
        """Measure one batch with the design's cosets and keep its figures.

        ``positions`` of its samples in the data set are their ids where none are declared; by default they follow on.
        """
        orbit = BatchOrbit(self, native, positions if self.declaration.ids is None else None)
        first = orbit.as_given()
        orbit.noise_floor(first, noise_samples)
        if self.design.partial:
            values = self._partly(orbit)
        else:
            orbit.add_cosets(int(self.design.cosets))
            lone = "refuse" if self.design.shift else "whole"
            values = {name: split.values(lone) for name, split in orbit.splits.items()}
            for name, deviation in orbit.deviations().items():
                self.collected.deviations.setdefault(name, []).append(deviation)
        self.keep(orbit, values)
        return orbit

    def _partly(self, orbit: BatchOrbit) -> dict[str, SampleValues]:
        """Two cosets of some samples and one of the others, each part a smaller batch; in the batch's order."""
        second = self.design.second(orbit.ids)
        order: list[int] = []
        found: dict[str, list[SampleValues]] = {}
        apart: dict[str, list[Tensor]] = {}
        for cosets, places in ((2, second.nonzero().flatten().tolist()), (1, (~second).nonzero().flatten().tolist())):
            if places:
                part = BatchOrbit(self, orbit.batch.part(places), [orbit.ids[i] for i in places])
                part.add_cosets(cosets)
                part.first = {k: rows[_rows_at(orbit.splits[k].rows, places)] for k, rows in orbit.first.items()}
                for name, deviation in part.deviations().items():
                    apart.setdefault(name, []).append(deviation)
                order += places
                for name, split in part.splits.items():
                    found.setdefault(name, []).append(split.values("partial"))
        back = torch.tensor(order, device=orbit.device).argsort()
        for name, parts in apart.items():
            self.collected.deviations.setdefault(name, []).append(torch.cat(parts)[back])
        return {name: SampleValues.cat(parts).take(back) for name, parts in found.items()}

    def keep(self, orbit: BatchOrbit, figures: Mapping[str, SampleValues]) -> None:
        """Keep the figures of a batch, which must be finite.

        Raises:
            NonFiniteError: naming the samples.
        """
        kept = self.collected
        for name, values in figures.items():
            _check_figures(name, values, orbit.ids, orbit.splits[name].target is not None)
            kept.values.setdefault(name, []).append(values)
            if self.highest_degree:
                kept.powers.setdefault(name, []).append(orbit.spectra[name].powers())
        kept.ids += orbit.ids
        kept.clusters += orbit.labels()
        kept.axes += orbit.axes()

    def refresh(self, place: int, orbit: BatchOrbit) -> None:
        """Replace the figures of the batch at ``place`` after cosets were added to it."""
        for name, deviation in orbit.deviations().items():
            self.collected.deviations[name][place] = deviation
        for name, split in orbit.splits.items():
            self.collected.values[name][place] = split.values()
            if self.highest_degree:
                self.collected.powers[name][place] = orbit.spectra[name].powers()


class BatchOrbit:
    """One batch and its orbit so far; more cosets can be added at any time."""

    def __init__(self, collector: Collector, native: Any, ids: list[int] | None = None):
        self._c = collector
        self.batch: Batch = batch_of(native, collector.declaration)
        check_batch(self.batch, collector.declaration)
        self.device = next(iter(self.batch.fields().values())).device
        self.ids = self._sample_ids() if ids is None else ids
        self.splits = {name: self._new_split(name) for name in collector.declaration.outputs}
        self.spectra = {
            name: Spectrum(split.rows, collector.design.rotations, collector.highest_degree)
            for name, split in self.splits.items()
            if collector.highest_degree
        }
        self._cosets = 0
        # The answer as given, in the coordinates of the splits.
        self.first: dict[str, Tensor] = {}

    def _sample_ids(self) -> list[int]:
        """The declared ids, or positions in the data set."""
        name, start = self._c.declaration.ids, self._c.first_id + len(self._c.collected.ids)
        if name is None:
            return list(range(start, start + self.batch.size))
        values = one_each(self.batch.labels(name), name, self.batch.size)
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
                raise InputError(f"sample ids must be integers >= 0 and < 2**63, got {value!r}")
        return values

    def labels(self) -> list[Any]:
        """The cluster of each sample; its id if no clusters are declared."""
        name = self._c.declaration.clusters
        return one_each(self.batch.labels(name), name, self.batch.size) if name else list(self.ids)

    def _new_split(self, name: str) -> OutputSplit:
        spec, loss = self._c.declaration.outputs[name], self._c.losses[name]
        rows = self.batch.rows(name, spec.per, spec.mask)
        middle = output_middle(self.batch, name, self._c.declaration)
        split = OutputSplit(rows, spec.action, loss, None, None, name, middle)
        if spec.target is None:
            return split
        raw = split.target_layout = self.batch.fields()[spec.target].detach()
        if not raw.is_floating_point() and (loss.classes or loss.per_sample is not None):
            split.target = rows.select(raw, (1,))
            return split
        what = f"target {spec.target!r} of output {name!r}"
        target = rows_of(raw.double(), name, self.batch, self._c.declaration, what)
        split.target = target if loss.per_sample is not None else spec.action.canonical(split.about(target))
        return split

    # Without graphs, what the loader marked as requiring a gradient reaches the model as a leaf.
    @torch.no_grad()
    def as_given(self) -> dict[str, Tensor]:
        """The model's answer to the batch as it came, its loss kept.

        Raises:
            NonFiniteError: if it is NaN or infinite.
        """
        kept = self._c.collected
        first = self._predict()
        for name, split in self.splits.items():
            rows = self.first[name] = split.coordinates(first[name].double())
            split.check_shape(rows)
            finite = split.rows.sum((~torch.isfinite(first[name])).flatten(1).any(1).double()) == 0
            what = f"prediction {name!r} for the batch as given, before any turn, is NaN or infinite"
            _check_finite(finite, what, "the model", self.ids, "")
            vectors = rows if split.target is None or split.target.shape != rows.shape else split.target
            if follows_points(vectors, name, self.batch, self._c.declaration):
                kept.notes[name] = (
                    f"{name!r} lies where the positions of its sample lie, but was turned as vectors, about the "
                    "origin: if it holds positions, declare eq.Output('1o', points=True), otherwise points=False"
                )
            if split.target is None:
                continue
            kept.as_given.setdefault(name, []).append(split.sample_loss(rows))
            if split.loss.per_sample is not None:
                kept.constants.setdefault(name, []).append((self._new_split(name), rows.shape))
            elif not split.loss.exact:
                kept.targets.setdefault(name, []).append((split.target, split.rows.sample, split.rows.counts))
        return first

    def deviations(self) -> dict[str, Tensor]:
        """Mean square of the answer as given less the twirled prediction, (samples,) of each output."""
        return {
            name: row_mean(split.rows, (self.first[name] - split.twirled_prediction()).square())
            for name, split in self.splits.items()
        }

    def _predict(self) -> dict[str, Tensor]:
        native = self.batch.with_fields({})
        answer = predict(self._c.model, native, self.batch, self._c.declaration, self._c.caller)
        return {k: v.detach() for k, v in answer.items()}

    @torch.no_grad()
    def noise_floor(self, first: Mapping[str, Tensor], wanted: int) -> None:
        """The numerical floor of the samples of this batch that are chosen for it; refuses a model that is random.

        The first batch, and after it the second, fourth, eighth …, is answered twice: a random model gets no figure.
        """
        c, known = self._c, self._c.collected.known
        c.collected.noise_samples = wanted
        known.batches += 1
        if known.batches & (known.batches - 1) == 0:
            self._repeat(first, known)
        new = [int(k) for k in noise.keys(c.design.seed, self.ids)]
        places, known.keys = noise.chosen(known.keys, new, max(wanted, 1))
        columns = {
            name: torch.full((self.batch.size, len(noise.COLUMNS)), torch.nan, dtype=torch.float64, device=self.device)
            for name in self.splits
        }
        if places:
            for name, found in self._floor_of(places, noise.arcs_needed(len(known.keys), wanted)).items():
                columns[name][places] = found
        for name, values in columns.items():
            c.collected.floors.setdefault(name, []).append(values)

    def _repeat(self, first: Mapping[str, Tensor], known: noise.Known) -> None:
        """Answer the batch again, and watch in which precision the first time."""
        stored = max(torch.finfo(v.dtype).eps for v in first.values())
        fields = self.batch.fields()
        inputs = [torch.finfo(fields[name].dtype).eps for name in self._c.declaration.inputs]
        self._c.collected.stored = max([stored, *inputs])
        if known.computing is None:
            second, seen = watched(self._predict)
            known.computing = replace(seen or Computing(), eps=max(stored, seen.eps if seen else 0.0))
        else:
            second = self._predict()
        known.change = max(known.change, noise.check_repeat(first, second, known.computing))

    def _floor_of(self, places: list[int], arcs: int) -> dict[str, Tensor]:
        """The floors of some samples: of them alone, or of the whole batch where it cannot be taken apart."""
        c = self._c

        def found(part: BatchOrbit) -> dict[str, Tensor]:
            site = Site(c.model, part.batch, c.declaration, c.caller, (c.design.seed, part.ids))
            return noise.floor(site, part.splits, c.collected.known, arcs)

        if len(places) < self.batch.size:
            try:
                return found(BatchOrbit(c, self.batch.part(places), [self.ids[i] for i in places]))
            except Exception:
                # A batch made by hand may not say which rows are whose, a model may insist on its batch size. What is
                # wrong with the model itself is raised again by the whole batch.
                pass
        whole = found(BatchOrbit(c, self.batch.with_fields({}), self.ids))
        return {name: columns[places] for name, columns in whole.items()}

    @torch.no_grad()
    def add_cosets(self, count: int) -> None:
        """Run ``count`` more independent cosets K u of every sample."""
        c = self._c
        matrices = c.design.rotations.matrices.to(self.device)
        weights = c.design.rotations.weights.tolist()
        for stream in range(self._cosets, self._cosets + count):
            shift = self._shift(stream)
            for matrix, weight in zip(matrices, weights, strict=True):
                elements = matrix @ shift
                passes = twisted(c.model, self.batch, elements, c.declaration, c.caller)
                for name, prediction in passes.items():
                    rows = self.splits[name].coordinates(prediction.detach())
                    self.splits[name].add(rows, weight)
                    if self.spectra:
                        self.spectra[name].add(rows, elements)
            for split in self.splits.values():
                split.close_coset()
        self._cosets += count

    def _shift(self, stream: int) -> Tensor:
        """The rotation u of each sample's coset, (samples, 3, 3)."""
        if not self._c.design.shift:
            return torch.eye(3, dtype=torch.float64, device=self.device).expand(self.batch.size, 3, 3)
        return uniform_keyed(self._c.declaration.group, self._c.design.seed, self.ids, stream).to(self.device)

    def axes(self) -> list[Tensor]:
        """u u^T of each sample's longest axis, if the declaration has points."""
        points = self._c.declaration.points
        if not points:
            return []
        rows = input_rows(self.batch, points[0], self._c.declaration)
        values = rows.select(self.batch.fields()[points[0]], (3,)).double()
        sample = rows.sample.repeat_interleave(values.shape[1])
        return [longest_axis_outer(values.reshape(-1, 3), sample, self.batch.size)]


def _rows_at(rows: Rows, places: list[int]) -> Tensor:
    """The rows of some samples, one sample after another, each in its own order."""
    rank = torch.full((rows.samples,), -1, dtype=torch.int64, device=rows.sample.device)
    rank[torch.tensor(places, device=rank.device)] = torch.arange(len(places), device=rank.device)
    order = rank[rows.sample].argsort(stable=True)
    return order[rank[rows.sample][order] >= 0]


def _check_figures(name: str, values: SampleValues, ids: list[int], labelled: bool) -> None:
    """Finite figures only: one infinite sample would make a percent of zero out of any data set."""
    causes = [(values.square, f"prediction {name!r} is NaN, infinite or too large to square", "the model")]
    if labelled:
        what = f"the loss of {name!r} is NaN or infinite, for a finite prediction,"
        causes.append((values.total + values.equivariance, what, "the labels and the loss"))
    for figures, what, where in causes:
        _check_finite(torch.isfinite(figures), what, where, ids, ", for at least one rotation")


def _check_finite(finite: Tensor, what: str, where: str, ids: list[int], when: str) -> None:
    if not bool(finite.all()):
        which = [ids[i] for i in (~finite).nonzero().flatten().tolist()]
        raise NonFiniteError(
            f"{what} in {len(which)} of {len(ids)} samples of a batch (ids {which[:5]}){when}: look at {where} on "
            "these samples"
        )
