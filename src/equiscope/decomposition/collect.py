"""Measure one batch after another: the model's orbit, its split, and the table of per-sample figures to be pooled."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from equiscope.decomposition import noise
from equiscope.decomposition.arcs import Site
from equiscope.decomposition.batches import Batch, device_of_batch, kept
from equiscope.decomposition.calling import check_model
from equiscope.decomposition.checks import TOGETHER, check_batch, check_figures, one_each, refuse_infinite, remarks
from equiscope.decomposition.computing import Computing
from equiscope.decomposition.fold import CHECKED, Folding, copies_of, folded, rows_at
from equiscope.decomposition.orbit import Caller, input_rows, output_middle, output_rows, predict, rows_of
from equiscope.decomposition.plan import Pass, Plan
from equiscope.decomposition.ragged import batch_of
from equiscope.decomposition.samples import FLOOR, LabelRows, Samples, WholeLabels
from equiscope.decomposition.spectrum import Spectrum
from equiscope.decomposition.split import BatchOutput, Labels, OutputSplit, add_block
from equiscope.errors import InputError, RandomModelError
from equiscope.symmetry.orientation import longest_axis_outer


@dataclass(frozen=True, eq=False)
class Prepared:
    """A batch that fits its plan, and the ids of its samples."""

    plan: Plan
    batch: Batch
    ids: list[int]

    @functools.cached_property
    def device(self) -> torch.device:
        return device_of_batch(self.batch)

    @functools.cached_property
    def outputs(self) -> dict[str, BatchOutput]:
        """What is predicted, and how it is judged."""
        return {name: _output_of(name, self.batch, self.plan) for name in self.plan.declaration.outputs}

    @functools.cached_property
    def passes(self) -> list[Pass]:
        """Those of the plan."""
        return list(self.plan.walk(self.ids, self.device))

    @functools.cached_property
    def copies(self) -> Batch:
        """A batch with the samples of every pass, one pass after another."""
        return copies_of(self.batch, len(self.passes), self.plan.declaration)

    def part(self, places: list[int]) -> Prepared:
        """The same for some of the samples."""
        return prepare(self.batch.part(places), self.plan, ids=[self.ids[i] for i in places])

    def clusters(self) -> list[Any]:
        """The cluster of each sample; its id if no clusters are declared."""
        name = self.plan.declaration.clusters
        return one_each(self.batch.labels(name), name, self.batch.size) if name else list(self.ids)

    def axes(self) -> Tensor | None:
        """u u^T of each sample's longest axis, if the declaration has points."""
        points = self.plan.declaration.points
        if not points:
            return None
        rows = input_rows(self.batch, points[0], self.plan.declaration)
        values = rows.select(self.batch.fields()[points[0]], (3,)).double()
        sample = rows.sample.repeat_interleave(values.shape[1])
        return longest_axis_outer(values.reshape(-1, 3), sample, self.batch.size)


def prepare(native: Any, plan: Plan, first: int = 0, ids: list[int] | None = None) -> Prepared:
    """A user's batch, checked; ids are those given or declared, or places in the data set from ``first`` on.

    Raises:
        DeclarationError, NonFiniteError, InputError: as :func:`equiscope.decomposition.checks.check_batch`.
    """
    batch, name = batch_of(native, plan.declaration), plan.declaration.ids
    check_batch(batch, plan.declaration)
    plan = plan.fitted(batch)
    if ids is None and name is None:
        ids = list(range(first, first + batch.size))
    elif ids is None:
        ids = one_each(batch.labels(str(name)), str(name), batch.size)
        for value in ids:
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
                raise InputError(f"sample ids must be integers >= 0 and < 2**63, got {value!r}")
    return Prepared(plan, batch, ids)


def prepared_batches(batches: Iterable[Any], plan: Plan) -> list[Prepared]:
    """All of them, with the rotations that :func:`equiscope.measure` draws.

    Raises:
        InputError: if there are none; and what :func:`prepare` raises.
    """
    made: list[Prepared] = []
    first = 0
    for native in kept(batches):
        made.append(prepare(native, plan, first))
        first += made[-1].batch.size
    if not made:
        raise InputError("the iterable of batches is empty: nothing to differentiate (a used-up generator?)")
    return made


def _output_of(name: str, batch: Batch, plan: Plan) -> BatchOutput:
    spec, loss = plan.declaration.outputs[name], plan.losses[name]
    rows = output_rows(batch, name, plan.declaration)
    parts = plan.scheme.parts(batch, plan.declaration) if plan.scheme else None
    output = BatchOutput(name, rows, spec.action, loss, None, output_middle(batch, name, plan.declaration), parts)
    if spec.target is None:
        return output
    raw = batch.fields()[spec.target].detach()
    if not raw.is_floating_point() and (loss.classes or loss.per_sample is not None):
        return replace(output, labels=Labels(rows.select(raw, (1,)), raw))
    target = rows_of(raw.double(), name, batch, plan.declaration, f"target {spec.target!r} of output {name!r}")
    if loss.per_sample is None:
        target = spec.action.canonical(output.about(target))
    return replace(output, labels=Labels(target, raw))


class Collector:
    """Runs a model over batches and keeps their figures, a table each; :func:`equiscope.measure` pools them.

    ``noise_samples`` are those of which the numerical floor is measured, at most.
    """

    def __init__(self, model: Any, plan: Plan, noise_samples: int):
        check_model(model)
        self.model, self.plan, self.noise_samples = model, plan, noise_samples
        self.caller = Caller(plan.forward, plan.declaration)
        self.parts: list[Samples] = []
        self.known = noise.Known()
        # Position in the data set of the next sample, for batches that carry no ids.
        self.next_id = 0
        self._passes = 0.0

    def run(self, native: Any, positions: list[int] | None = None) -> BatchOrbit:
        """Measure one batch with the design's cosets and keep its figures.

        ``positions`` of its samples in the data set are their ids where none are declared; by default they follow on.

        Raises:
            NonFiniteError: naming samples whose figures are not finite.
        """
        orbit = self.begin(native, positions)
        if self.plan.design.partial:
            self.keep(self._partly(orbit))
        else:
            orbit.add_cosets(int(self.plan.design.cosets))
            self.keep(orbit.samples())
        if self.known.batches == 1:
            # Some samples once more after all rotations: a model that calls change gets no figure.
            some = list(range(min(CHECKED, orbit.of.batch.size - 1) or 1))
            self._again(orbit, orbit.first, some, BatchOrbit.judged, True)
        self._passes += orbit.of.plan.design.passes * orbit.of.batch.size
        return orbit

    def begin(self, native: Any, positions: list[int] | None = None) -> BatchOrbit:
        """The orbit of a batch with its answer as given and its floor, and without any coset."""
        ids = positions if self.plan.declaration.ids is None else None
        of = prepare(native, self.plan, self.next_id, ids)
        orbit = BatchOrbit(self.model, self.caller, of, self.known.folding)
        first = orbit.as_given()
        self.known.notes |= orbit.notes
        self.known.device = of.device
        orbit.floors = self._floors(orbit, first)
        return orbit

    def keep(self, samples: Samples) -> None:
        """Keep the figures of a batch, which must be finite.

        Raises:
            NonFiniteError: naming the samples.
        """
        for name, values in samples.figures.items():
            check_figures(name, values, samples.ids, self.plan.declaration.outputs[name].target is not None)
        if note := self.known.folding.note():
            self.known.notes["fold"] = note
        self.parts.append(samples)
        self.next_id += len(samples)

    @property
    def passes(self) -> float:
        """Passes of a sample on average: crystals differ in the number of their symmetries."""
        passes = self._passes / max(self.next_id, 1)
        return int(passes) if passes.is_integer() else passes

    def samples(self) -> Samples:
        """Everything measured.

        Raises:
            InputError: if that is nothing.
        """
        if not self.parts:
            raise InputError("the iterable of batches is empty: there is nothing to measure (a used-up generator?)")
        return Samples.cat(self.parts)

    def _partly(self, orbit: BatchOrbit) -> Samples:
        """Two cosets of some samples and one of the others, each part a smaller batch; in the batch's order."""
        second = self.plan.design.second(orbit.of.ids)
        order, done = list[int](), list[Samples]()
        for cosets, places in ((2, second.nonzero().flatten().tolist()), (1, (~second).nonzero().flatten().tolist())):
            if places:
                part = orbit.part(places)
                part.add_cosets(cosets)
                done.append(part.samples())
                order += places
        return Samples.cat(done).take(torch.tensor(order, device="cpu").argsort())

    @torch.no_grad()
    def _floors(self, orbit: BatchOrbit, first: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The numerical floor of the samples of a batch that are chosen for it; refuses a model that is random.

        Samples of the first batch, and after it of the second, fourth, eighth …, are answered twice: a random model
        gets no figure.
        """
        known, of = self.known, orbit.of
        known.wanted, known.passes = self.noise_samples, known.passes if known.batches else self.plan.design.passes
        known.batches += 1
        new = [int(k) for k in noise.keys(self.plan.design.seed, of.ids)]
        places, known.keys = noise.chosen(known.keys, new, known.wanted, known.passes)
        if known.batches & (known.batches - 1) == 0:
            self._repeat(orbit, first, places or [new.index(min(new))])
        unknown = torch.full((of.batch.size, len(FLOOR)), torch.nan, dtype=torch.float64, device=of.device)
        columns = {name: unknown.clone() for name in of.outputs}
        if places:
            arcs = noise.arcs_needed(len(known.keys), known.wanted)
            for name, found in self._floor_of(of, places, arcs).items():
                columns[name][places] = found
        return columns

    def _repeat(self, orbit: BatchOrbit, first: Mapping[str, Tensor], places: list[int]) -> None:
        """Answer some samples again, and watch in which precision the first time, and whether calls can be shared."""
        known, inputs = self.known, noise.coarsest_input(orbit.of.batch, self.plan.declaration)
        known.stored = max([known.stored, inputs, *(torch.finfo(v.dtype).eps for v in first.values())])
        some, computing = self._again(orbit, first, places, BatchOrbit.answer)
        if known.computing is None:
            known.computing = computing
            known.folding.watch(computing, some.of.batch, self.plan.declaration)
        if known.batches.bit_length() % 2 == 0:
            return
        # The first batch, and after it the fourth, sixteenth, …
        known.folding.asked = self.plan.fold
        known.folding.check(self.model, orbit.of.batch, first, self.plan.declaration, self.caller, known.change)

    @torch.no_grad()
    def _again(
        self, orbit: BatchOrbit, first: Mapping[str, Tensor], places: list[int],
        answer: Callable[[BatchOrbit], Mapping[str, Tensor]], later: bool = False,
    ) -> tuple[BatchOrbit, Computing]:  # fmt: skip
        """Ask some samples of a batch again that were answered by ``first``, or all of it where these say little.

        The change enters what is known of the model, and so its floors. Returns who was asked, and the precision.
        """
        known, seen, otherwise = self.known, None, False
        if len(places) < orbit.of.batch.size:
            # Made by hand, of a fixed size, seeing each other, random: the whole batch tells.
            try:
                some = orbit.part(places)
                rows = {k: v[rows_at(orbit.of.outputs[k].rows, places)] for k, v in first.items()}
                seen = noise.again(known, rows, functools.partial(answer, some), later)
            except Exception as error:
                otherwise = isinstance(error, RandomModelError)
        if seen is None or seen[1] > min(noise.ORDER_UNITS * seen[0].eps, noise.RANDOM_MODEL):
            some, seen = orbit, noise.again(known, first, functools.partial(answer, orbit), later)
            known.notes |= {"together": TOGETHER} if otherwise else {}
        known.change = max(known.change, seen[1])
        return some, seen[0]

    def _floor_of(self, whole: Prepared, places: list[int], arcs: int) -> dict[str, Tensor]:
        """The floors of some samples: of them alone, or of the whole batch where it cannot be taken apart."""

        def found(part: Prepared) -> dict[str, Tensor]:
            plan, known, key = self.plan, self.known, (self.plan.design.seed, part.ids)
            of = part.batch, plan.declaration, self.caller, key, part.outputs
            return noise.floor(Site(self.model, *of, known.folding), known, arcs)

        if len(places) < whole.batch.size:
            try:
                return found(whole.part(places))
            except Exception:
                # A batch made by hand may not say which rows are whose, a model may insist on its batch size. What is
                # wrong with the model itself is raised again by the whole batch.
                pass
        columns = found(prepare(whole.batch.with_fields({}), self.plan, ids=whole.ids))
        return {name: values[places] for name, values in columns.items()}


class BatchOrbit:
    """One batch and its orbit so far; more cosets can be added at any time.

    Attributes:
        first: the answer as given, in the coordinates of the outputs; floors: their floors, where measured.
        notes: what a reader must know of an output.
    """

    def __init__(self, model: Any, caller: Caller, of: Prepared, folding: Folding):
        self.model, self.caller, self.of, self.folding = model, caller, of, folding
        self.splits: dict[str, OutputSplit] = {}
        self.spectra = {
            name: Spectrum(output.rows, of.plan.design.rotations, of.plan.highest_degree)
            for name, output in of.outputs.items()
            if of.plan.highest_degree
        }
        self.first: dict[str, Tensor] = {}
        self.floors: dict[str, Tensor] = {}
        self.notes: dict[str, str] = {}
        self._cosets = 0

    def part(self, places: list[int]) -> BatchOrbit:
        """An orbit of some of the samples, as given alone."""
        part = BatchOrbit(self.model, self.caller, self.of.part(places), self.folding)
        part.first = {k: rows[rows_at(self.of.outputs[k].rows, places)] for k, rows in self.first.items()}
        part.floors = {name: columns[places] for name, columns in self.floors.items()}
        return part

    # Without graphs, what the loader marked as requiring a gradient reaches the model as a leaf.
    @torch.no_grad()
    def as_given(self) -> dict[str, Tensor]:
        """The model's answer to the batch as it came.

        Raises:
            NonFiniteError: if it is NaN or infinite.
        """
        given, declaration = self.answer(), self.of.plan.declaration
        for name, output in self.of.outputs.items():
            rows = self.first[name] = output.coordinates(given[name].double())
            finite = output.rows.sum((~torch.isfinite(given[name])).flatten(1).any(1).double()) == 0
            what = f"prediction {name!r} for the batch as given, before any turn, is NaN or infinite"
            refuse_infinite(finite, what, "the model", self.of.ids, "")
            labels = None if output.labels is None else output.labels.target
            self.notes |= remarks(name, given[name], rows, labels, self.of.batch, declaration)
        return given

    def answer(self) -> dict[str, Tensor]:
        """Rows of the model's answer to the batch as it came."""
        batch, declaration = self.of.batch, self.of.plan.declaration
        answer = predict(self.model, batch.with_fields({}), batch, declaration, self.caller)
        return {k: v.detach() for k, v in answer.items()}

    def judged(self) -> dict[str, Tensor]:
        """The same in the coordinates of the outputs."""
        return {name: self.of.outputs[name].coordinates(rows.double()) for name, rows in self.answer().items()}

    def passes(self, batch: Batch, walk: Sequence[Pass]) -> Iterator[tuple[Pass, dict[str, Tensor]]]:
        """Each pass over a batch, whose samples are the orbit's, and its twisted predictions in their coordinates."""
        for some, rows in self._blocks(batch, walk, len(walk)):
            for place, one in enumerate(some):
                yield one, {name: block[place] for name, block in rows.items()}

    def _blocks(self, batch: Batch, walk: Iterable[Pass], count: int) -> Iterator[tuple[list[Pass], dict[str, Tensor]]]:
        """The passes of each call that are of one coset, ``count`` in all, and their predictions (passes, n, c, d)."""
        declaration, outputs = self.of.plan.declaration, self.of.outputs
        for some, found in folded(self.model, batch, walk, count, declaration, self.caller, self.folding):
            rows = {k: outputs[k].coordinates_of_passes(each.detach(), len(some)) for k, each in found.items()}
            ends = [end for end, one in enumerate(some, start=1) if one.last_of_coset or end == len(some)]
            for start, end in itertools.pairwise([0, *ends]):
                yield some[start:end], {name: block[start:end] for name, block in rows.items()}

    @torch.no_grad()
    def add_cosets(self, count: int) -> None:
        """Run ``count`` more independent cosets K u of every sample."""
        of = self.of
        walk = of.plan.walk(of.ids, of.device, self._cosets, count)
        for some, rows in self._blocks(of.batch, walk, count * len(of.plan.design.rotations)):
            for name, block in rows.items():
                of.outputs[name].check_shape(self.first[name], block[0])
                for one, prediction in zip(some, block, strict=True) if self.spectra else ():
                    self.spectra[name].add(prediction, one.turns)
            add_block(self.splits, of.outputs, rows, [one.weight for one in some], some[-1].last_of_coset)
        self._cosets += count

    def samples(self) -> Samples:
        """The table of the batch's figures, from all cosets so far."""
        of = self.of
        figures, labels, wholes = {}, {}, {}
        for name, split in self.splits.items():
            output, first = of.outputs[name], self.first[name]
            figures[name] = replace(
                split.values(of.plan.design.lone),
                as_given=output.sample_loss(first),
                deviation=output.rows.mean((first - split.twirled_prediction()).square()),
                floor=self.floors[name],
                **({"powers": self.spectra[name].powers()} if self.spectra else {}),
            )
            if output.labels is not None and output.loss.per_sample is not None:
                wholes[name] = [WholeLabels(output.labels.target, first.shape, output.sample_loss)]
            elif output.labels is not None and not output.loss.exact:
                rows = output.labels.target.flatten(0, 1)
                sample = output.rows.sample.repeat_interleave(output.labels.target.shape[1])
                labels[name] = LabelRows(rows if rows.is_floating_point() else rows.long(), sample)
        return Samples(list(of.ids), of.clusters(), figures, of.axes(), labels, wholes)
