"""Add passes until the interval is narrow enough: more samples while there are any, then more rotations of them.

Per sample the variance of the linearised ratio e_i = A_i - R B_i is sigma_b^2 + sigma_w^2 / c with c cosets, at a cost
of c |K| + 1 passes; its minimum per pass is at c = sqrt(sigma_w^2 / (sigma_b^2 |K|)), nearly always the least that is
allowed. So samples come first; once they are used up, only sigma_w^2 / c can be lowered.

An interval counts clusters, and so do the looks at it: the first at 20 clusters, each later one at a quarter more of
them (or twice the samples, where all clusters are in). Stopping at the first look that is narrow enough favours samples
whose spread came out small; the intervals are wide enough for few clusters that 94 to 97 % of them still cover after
stopping (docs/coverage.md).

Samples are taken at random over the whole data set wherever it has places: batches in memory and map-style loaders by
one random permutation of all their samples, in rounds, after each of which those measured so far are a simple random
sample without replacement, in whatever order the data are stored. A stream can only be read from its beginning, and is
said to be so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler, Subset

from equiscope.decomposition.batches import Batch, DenseBatch, Guarded, own
from equiscope.decomposition.collect import BatchOrbit, Collector
from equiscope.decomposition.plan import Design, Plan
from equiscope.decomposition.pool import host
from equiscope.decomposition.result import Result
from equiscope.errors import InputError, check_count

PILOT_CLUSTERS = 20
# Below this share of the variance, more rotations of the same samples cannot narrow the interval visibly.
WORTHWHILE = 0.05
GROWTH, SAMPLE_GROWTH = 1.25, 2.0
# Of the rotations' seed another stream, so that the choice of samples is independent of their rotations.
DRAW_STREAM = 0x647261
FIRST_ROUND, ROUND_GROWTH = 32, 1.25

# Batches, each with the positions of its samples in the data set; None where they follow those before.
Round = list[tuple[list[int] | None, Any]]


@dataclass(frozen=True)
class Goal:
    """When to stop: relative half-width of the 95 % interval, and at most this many sample passes in all."""

    rtol: float
    max_passes: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.rtol, bool) or not isinstance(self.rtol, int | float) or not 0 < self.rtol < 1:
            raise InputError(f"rtol must lie between 0 and 1, got {self.rtol!r}")
        if self.max_passes is not None:
            check_count("max_passes", self.max_passes, 1)


def half_width(result: Result) -> float:
    """Relative half-width of the percent's interval; infinite for an upper limit or none."""
    low, high = result.percent_interval
    if result.interval_kind != "two-sided" or result.percent <= 0:
        return math.inf
    return (high - low) / 2 / result.percent


class Search:
    """Measures batch by batch towards a goal, by the collector's plan, which grows; :meth:`run` says why it stopped."""

    def __init__(self, collector: Collector, goal: Goal, summarise: Callable[[], Result]):
        self.collector, self.goal, self.summarise = collector, goal, summarise
        self.orbits: list[BatchOrbit] = []
        self.exhausted = False
        self.samples = 0

    @property
    def plan(self) -> Plan:
        """The plan as it now stands; later batches are measured with it."""
        return self.collector.plan

    @property
    def design(self) -> Design:
        return self.collector.plan.design

    @property
    def cosets(self) -> int:
        return int(self.design.cosets)

    def run(self, rounds: Iterable[Round]) -> str:
        planned = False
        clusters = samples = 0.0
        seen: set[Any] = set()
        for batches in rounds:
            for positions, native in batches:
                self.orbits.append(self.collector.run(native, positions))
                self.samples += len(self.collector.parts[-1])
                seen.update(self.collector.parts[-1].clusters)
            more = len(seen) >= GROWTH * clusters or self.samples >= SAMPLE_GROWTH * samples
            look = len(seen) >= PILOT_CLUSTERS and more
            if look or self._spent():
                clusters, samples = len(seen), self.samples
                result = self.summarise()
                if look and half_width(result) <= self.goal.rtol:
                    return self._said("reached", result)
                if self._spent():
                    return self._said("max_passes", result)
                if not planned:
                    planned = True
                    self._raise_to(max(self.cosets, self._best_cosets(result)))
        self.exhausted = True
        return self._more_cosets()

    def _more_cosets(self) -> str:
        """All samples are in use: turn each more often, as long as that can narrow the interval."""
        result = self.summarise()
        while half_width(result) > self.goal.rtol:
            seen, noise = self._variances(result)
            if not seen > 0 or noise / seen < WORTHWHILE:
                return self._said("samples", result)
            if self._spent():
                return self._said("max_passes", result)
            self._raise_to(self.cosets + max(1, self.cosets // 2))
            result = self.summarise()
        return self._said("reached", result)

    def _raise_to(self, cosets: int) -> None:
        for place, orbit in enumerate(self.orbits):
            if cosets > self.cosets:
                orbit.add_cosets(cosets - self.cosets)
                self.collector.parts[place] = orbit.samples()
        self.collector.plan = self.plan.with_cosets(cosets)

    def _spent(self) -> bool:
        used = self.samples * (self.cosets * len(self.design.rotations) + 1)
        return self.goal.max_passes is not None and used >= self.goal.max_passes

    def _variances(self, result: Result) -> tuple[float, float]:
        """Mean over samples of e_i^2 as seen, and of its part from the finite number of cosets."""
        ratio = result.percent / 100
        per_coset = np.concatenate([self._residuals(orbit, ratio) for orbit in self.orbits], axis=1)
        assert result.per_sample is not None
        seen = host(result.per_sample.equivariance) - ratio * host(result.per_sample.total)
        return float((seen**2).mean()), float(per_coset.var(axis=0, ddof=1).mean()) / len(per_coset)

    def _residuals(self, orbit: BatchOrbit, ratio: float) -> np.ndarray[Any, Any]:
        """e of each coset alone, (cosets, samples), summed over the labelled outputs."""
        total: Any = 0.0
        for name, split in orbit.splits.items():
            weight = self.plan.declaration.outputs[name].weight
            if split.of.labels is not None:
                rows = [host(w if split.of.loss.exact else 0 * w) - ratio * host(t) for w, t in split.coset_figures]
                total = total + weight * np.stack(rows)
        return np.asarray(total)

    def _best_cosets(self, result: Result) -> int:
        seen, noise = self._variances(result)
        between, within = max(seen - noise, 1e-300), noise * self.cosets
        return round(min(math.sqrt(within / (between * len(self.design.rotations))), 16.0))

    def _said(self, why: str, result: Result) -> str:
        width, samples = half_width(result), f"{result.samples} samples of {result.clusters} clusters"
        shown = f"±{100 * width:.2g} %" if math.isfinite(width) else "only an upper limit"
        return {
            "reached": f"rtol={self.goal.rtol:g} reached: interval {shown} of the value with {samples}",
            "max_passes": f"stopped at max_passes={self.goal.max_passes}: interval {shown} of the value, "
            f"rtol={self.goal.rtol:g} not reached",
            "samples": f"all {samples} used: interval {shown} of the value, rtol={self.goal.rtol:g} not "
            "reached; the spread between samples dominates, so only more samples can narrow it",
        }[why]


@dataclass(frozen=True)
class Draw:
    """Samples in rounds.

    Attributes:
        rounds: after each of them, what was measured may be judged.
        size: number of samples of the data set; None for a stream, which is read from its beginning.
    """

    rounds: Iterable[Round]
    size: int | None

    def said(self, samples: int, exhausted: bool) -> str:
        """Which samples were measured, where not all."""
        if exhausted or samples == self.size:
            return ""
        return f"the first {samples} of an unknown number" if self.size is None else f"drawn at random from {self.size}"


def draw(batches: Iterable[Any], seed: int, wrap: Callable[[Any], Batch]) -> Draw:
    """The samples of ``batches`` at random: a list, or a torch or PyG ``DataLoader`` over a data set with places.

    A loader keeps its batch size, collation and workers; one with a sampler of its own is a stream, as is any other
    iterable. ``wrap`` gives a native batch the protocol of :class:`Batch`.
    """
    random = np.random.default_rng([seed, DRAW_STREAM])
    inner = batches.inner if isinstance(batches, Guarded) else batches
    if isinstance(inner, Sequence):
        sizes = [wrap(native).size for native in batches]
        return Draw(_parts(inner, sizes, random, wrap), sum(sizes))
    if isinstance(inner, DataLoader) and _has_places(inner):
        order = random.permutation(_sized(inner.dataset)).tolist()
        return Draw(_loaded(inner, order), len(order))
    # Held until the goal is reached, while a stream may fill one memory for all.
    return Draw(([(None, own(native))] for native in batches), None)


def _has_places(loader: DataLoader[Any]) -> bool:
    """Whether the loader reads a map-style data set once through, in order or shuffled."""
    if isinstance(loader.dataset, IterableDataset) or type(loader.batch_sampler) is not BatchSampler:
        return False
    sampler = loader.batch_sampler.sampler
    whole = type(sampler) is SequentialSampler or (type(sampler) is RandomSampler and not sampler.replacement)
    return whole and _sized(sampler) == _sized(loader.dataset) > 0


def _sized(whole: Any) -> int:
    # torch's data sets and samplers are annotated without the length that map-style ones have.
    return len(whole)


def _loaded(loader: DataLoader[Any], order: list[int]) -> Iterator[Round]:
    """The loader's batches over its data set in another order."""
    again = DataLoader(
        Subset(loader.dataset, order), batch_size=loader.batch_size, collate_fn=loader.collate_fn,
        num_workers=loader.num_workers, pin_memory=loader.pin_memory, timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn, multiprocessing_context=loader.multiprocessing_context,
    )  # fmt: skip
    size = loader.batch_size or 1
    for number, native in enumerate(Guarded(again)):
        yield [(order[number * size : (number + 1) * size], own(native))]


def _parts(
    batches: Sequence[Any], sizes: list[int], random: np.random.Generator, wrap: Callable[[Any], Batch]
) -> Iterator[Round]:
    """Rounds of samples taken out of their batches, as few batches as their shapes allow."""
    starts = np.cumsum([0, *sizes])
    order = random.permutation(starts[-1])
    done = 0
    while done < len(order):
        reach = max(FIRST_ROUND, math.ceil(ROUND_GROWTH * done))
        chosen = np.sort(order[done:reach])
        owners = np.searchsorted(starts, chosen, side="right") - 1
        found = []
        for owner in np.unique(owners).tolist():
            positions = chosen[owners == owner]
            whole = wrap(batches[owner])
            part = whole.part((positions - starts[owner]).tolist())
            found.append((_shape(part) if type(whole) is DenseBatch else owner, positions.tolist(), part))
        yield _joined(found, max(sizes))
        done = min(reach, len(order))


def _joined(parts: list[tuple[Any, list[int], Any]], most: int) -> Round:
    """Parts of one shape put together into batches of at most ``most`` samples."""
    groups: dict[Any, list[tuple[list[int], Any]]] = {}
    for shape, positions, part in parts:
        groups.setdefault(shape, []).append((positions, part))
    return [joint for group in groups.values() for joint in _filled(group, most)]


def _filled(group: list[tuple[list[int], Any]], most: int) -> Iterator[tuple[list[int], Any]]:
    waiting: list[tuple[list[int], Any]] = []
    for positions, part in group:
        if waiting and sum(len(p) for p, _ in waiting) + len(positions) > most:
            yield _together(waiting)
            waiting = []
        waiting.append((positions, part))
    yield _together(waiting)


def _together(parts: list[tuple[list[int], Any]]) -> tuple[list[int], Any]:
    if len(parts) == 1:
        return parts[0]
    joint = {name: _one_after_another([part[name] for _, part in parts]) for name in parts[0][1]}
    return [i for positions, _ in parts for i in positions], joint


def _one_after_another(values: list[Any]) -> Any:
    """A field of several batches; what has no rows for samples is the same in all of them."""
    first = values[0]
    if isinstance(first, Tensor) and first.ndim:
        return torch.cat(values)
    if isinstance(first, np.ndarray) and first.ndim:
        return np.concatenate(values)
    return [x for value in values for x in value] if isinstance(first, list) else first


def _shape(part: dict[str, Any]) -> tuple[Any, ...]:
    """What must agree between dense batches for them to be put together."""
    return tuple(
        (k, tuple(v.shape[1:]), v.dtype, str(v.device), v.requires_grad) if isinstance(v, Tensor) and v.ndim
        else (k, v.shape[1:], v.dtype.kind) if isinstance(v, np.ndarray) and v.ndim
        else (k, "list") if isinstance(v, list) else (k, id(v))
        for k, v in part.items()
    )  # fmt: skip
