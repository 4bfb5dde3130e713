"""Assert that a model is equivariant, to rounding or to a stated tolerance, with a report per output."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from equiscope.decomposition import noise
from equiscope.decomposition.batches import kept
from equiscope.decomposition.collect import Collector
from equiscope.decomposition.measure import NOISE_SAMPLES
from equiscope.decomposition.plan import check_cosets, make_plan
from equiscope.decomposition.pool import fault_notes, host, pooled_floor
from equiscope.decomposition.preserve import untouched
from equiscope.decomposition.ragged import batch_of
from equiscope.decomposition.samples import Samples
from equiscope.errors import InputError
from equiscope.symmetry.declaration import Declaration
from equiscope.testing import readings
from equiscope.words import aligned

TITLES = (
    "output", "irreps", "RMS f", "RMS deviation", "as given", "relative", "allowed", "noise", "verdict", "worst sample"
)  # fmt: skip


@dataclass(frozen=True)
class OutputReport:
    """How far one output is from equivariant; all figures per component, in the output's unit.

    Attributes:
        name, irreps: the output and how it should turn.
        size: root mean square of f over samples, components and rotations.
        deviation: root mean square of g^-1 f(g x) minus its average over rotations.
        floor: the deviation that rounding alone would give.
        allowed: the largest deviation that passes.
        worst_id, worst_deviation: the sample that deviates most.
        as_given: root mean square of f(x), for x as it came, minus that average; as_given_allowed: the largest that
            passes.
        faults: what stands apart as given, and discontinuities, in words.
    """

    name: str
    irreps: str
    size: float
    deviation: float
    floor: float
    allowed: float
    worst_id: Any
    worst_deviation: float
    as_given: float = 0.0
    as_given_allowed: float = math.inf
    faults: tuple[str, ...] = ()

    @property
    def relative(self) -> float:
        """deviation / size; 0 for an output that is zero everywhere."""
        return self.deviation / self.size if self.size > 0 else 0.0

    @property
    def passed(self) -> bool:
        return self.deviation <= self.allowed and self.as_given <= self.as_given_allowed and not self.faults


@dataclass(frozen=True)
class EquivarianceReport:
    """What :func:`assert_equivariant` found; ``str()`` is the report."""

    outputs: tuple[OutputReport, ...]
    declaration: Declaration
    passes: float
    samples: int
    tolerance: float | str
    hints: tuple[str, ...] = ()
    symmetry: str = "rotation"

    @property
    def passed(self) -> bool:
        return all(o.passed for o in self.outputs)

    def __str__(self) -> str:
        broken = [o.name for o in self.outputs if not o.passed]
        d = self.declaration
        turns = self.symmetry == "rotation"
        claim = f"{d.group} equivariant" if turns else f"equivariant under {self.symmetry}"
        verdict = f"not {claim} in {broken}" if broken else claim
        allowed = "noise floor" if isinstance(self.tolerance, str) else f"relative deviation {self.tolerance:g}"
        turning = ", ".join(
            f"{k} as {v.action.label}" + (f" about {d.center}" if k in d.points else "") for k, v in d.inputs.items()
        )
        rows: list[tuple[str, ...]] = [TITLES]
        for o in self.outputs:
            figures = [f"{v:.3g}" for v in (o.size, o.deviation, o.as_given, o.relative, o.allowed, o.floor)]
            end = "zero output" if o.size == 0 else "ok" if o.passed else "BROKEN"
            rows.append((o.name, o.irreps, *figures, end, f"id {o.worst_id} ({o.worst_deviation:.3g})"))
        lines = [
            f"the model is {verdict} (tolerance: {allowed}; {self.passes:g} {'rotations' if turns else 'passes'} x "
            f"{self.samples} samples)",
            *aligned(rows, indent="  "),
            *(f"  {fault}" for o in self.outputs for fault in o.faults),
            f"  {'rotated' if turns else 'declared'}: {turning}; held fixed: {', '.join(d.fixed) or 'nothing'}",
            *(f"  hint: {h}" for h in self.hints),
        ]
        return "\n".join(lines)


def assert_equivariant(
    model: Any,
    batches: Iterable[Any],
    declaration: Declaration,
    tolerance: float | str = "noise floor",
    *,
    forward: Callable[[Any, Any], Any] | None = None,
    rotations: str = "T",
    cosets: int | None = None,
    seed: int = 0,
    symmetry: Any = "rotation",
) -> EquivarianceReport:
    """Every declared output satisfies `f(g x) = D(g) f(x)`, to rounding or to a tolerance.

    For each output, with `p_g = g^-1 f(g x)` over random cosets, the root mean square deviation

        sqrt(E_x E_g |p_g - E_g p_g|^2)   must be   <= sqrt(3) x the noise floor,   or   <= tolerance x sqrt(E |f|^2),

    and more floors where few samples carry the deviation or the floor
    (:func:`equiscope.decomposition.noise.floors_allowed`). The same holds for f(x) of the samples as they came, which
    are points of the orbit too; no sample as given may stand apart from its own orbit, and no output may be
    discontinuous (:mod:`equiscope.decomposition.noise`), by more than a tolerance that is a number.

    Args:
        tolerance: ``"noise floor"`` for models that are symmetric by construction: the floor is measured in the
            precision in which the model computes (:mod:`equiscope.decomposition.noise`). Or a number from 0 to 1,
            relative to the size of the output.
        model, batches, declaration, forward, rotations, cosets, seed, symmetry: as for :func:`equiscope.measure`;
            labels are not needed and losses not used. A translation far beyond the size of a sample rounds positions
            more coarsely than the floor has it, which is then reported: give a tolerance for what is acceptable.

    Returns:
        The report of a model that passed.

    Raises:
        AssertionError: with the report, naming outputs and the worst sample, and hints at what would pass: another
            centre, parity, or reading of the same numbers (:mod:`equiscope.testing.readings`).
        InputError: as :func:`equiscope.measure`; for inputs that are zero in every sample.
    """
    number = isinstance(tolerance, int | float) and not isinstance(tolerance, bool)
    if not ((number and 0 <= tolerance <= 1) or tolerance == "noise floor"):  # type: ignore[operator]
        # The spread of an answer is never more than its size: above 1 every model would pass.
        raise InputError(
            f"tolerance must be 'noise floor' or a number from 0 to 1, a part of the output's size (5 % is 0.05), got "
            f"{tolerance!r}"
        )
    given = listed(batches)
    declaration = label_free(declaration, given[0])
    fields = [batch_of(native, declaration).fields() for native in given]
    still = all(name in some and not some[name].any() for some in fields for name in declaration.inputs)
    if still and symmetry == "rotation":
        raise InputError(f"{list(declaration.inputs)} are zero in every sample, which no rotation moves")

    def report(chosen: Declaration, called: Any = forward) -> EquivarianceReport:
        collector = orbits(model, given, chosen, called, rotations, cosets, seed, symmetry)
        samples, scheme = collector.samples(), collector.plan.scheme
        outputs = tuple(judged(name, samples, collector, tolerance) for name in chosen.outputs)
        label = "rotation" if scheme is None else scheme.label
        return EquivarianceReport(outputs, chosen, collector.passes, len(samples), tolerance, symmetry=label)

    found = report(declaration)
    if found.passed:
        return found
    if found.symmetry != "rotation":
        raise AssertionError(str(found))
    called = readings.remembered(forward, declaration)
    hints = tuple(text for variant, text in _variants(declaration) if report(variant).passed)
    broken = [o.name for o in found.outputs if not o.passed]
    hints += readings.hints(declaration, broken, lambda chosen: report(chosen, called).passed)
    hints += ("assert_declared_symmetry_complete finds inputs that were forgotten",) if declaration.fixed else ()
    raise AssertionError(str(replace(found, hints=hints)))


def listed(batches: Iterable[Any]) -> list[Any]:
    """The batches as a list, which checks go through more than once; an InputError if there are none."""
    given = kept(batches)
    if not given:
        raise InputError("the iterable of batches is empty: there is nothing to check (a used-up generator?)")
    return given


def label_free(declaration: Declaration, native: Any) -> Declaration:
    """The declaration without labels and losses; label fields that the batch has are held fixed."""
    fields = batch_of(native, declaration).fields()
    present = native if isinstance(native, Mapping) else fields
    targets = {o.target for o in declaration.outputs.values() if o.target is not None and o.target in fields}
    outputs = {k: replace(o, target=None, loss="mse", weight=1.0) for k, o in declaration.outputs.items()}
    return replace(
        declaration,
        inputs={k: replace(v, points=k in declaration.points) for k, v in declaration.inputs.items()},
        outputs=outputs,
        fixed=tuple(dict.fromkeys([*declaration.fixed, *sorted(targets)])),
        clusters=declaration.clusters if declaration.clusters in present else None,
        ids=declaration.ids if declaration.ids in present else None,
    )


def orbits(
    model: Any,
    given: Sequence[Any],
    declaration: Declaration,
    forward: Callable[[Any, Any], Any] | None,
    rotations: str,
    cosets: int | None,
    seed: int,
    symmetry: Any = "rotation",
) -> Collector:
    """What has the per-sample figures of every output over random cosets, and the number of passes of each sample."""
    if cosets is None and symmetry == "rotation":
        cosets = 2
    if cosets is not None:
        check_cosets(cosets, fractional=False)
    plan = make_plan(declaration, forward, rotations, cosets, seed, symmetry=symmetry)
    collector = Collector(model, plan, NOISE_SAMPLES)
    with untouched(model):
        for native in given:
            collector.run(native)
    return collector


def judged(
    name: str, samples: Samples, collector: Collector, tolerance: float | str = "noise floor"
) -> OutputReport:
    """How far one output is from equivariant, and how far it may be; ``samples`` are those of the collector."""
    values, plan, passes = samples.figures[name], collector.plan, collector.passes
    variance, squares, deviation = (host(v) for v in (values.equivariance, values.square, values.deviation))
    pooled = pooled_floor(samples, name, np.ones(len(squares)), plan.design.seed, collector.known)
    size, rms = (math.sqrt(max(float(v.mean()), 0.0)) for v in (squares, variance))
    floor = math.sqrt(pooled.rounding) * size
    drawn = plan.design.cosets * (plan.scheme.cells if plan.scheme else 1)
    spread, worth = map(host, values.independent(passes, drawn))
    apart = noise.stands_apart(deviation, spread, pooled.rounding * np.maximum(squares, size**2), passes, worth)
    if isinstance(tolerance, str):
        allowed, given = (math.sqrt(noise.floors_allowed(v, pooled.freedom)) * floor for v in (variance, deviation))
        given *= math.sqrt(1 + 1 / passes)
    else:
        allowed = given = tolerance * size
        apart &= deviation > allowed**2
        if pooled.jump <= tolerance:
            pooled = replace(pooled, jumped=pooled.jumped[:0])
    worst = int(variance.argmax())
    return OutputReport(
        name=name,
        irreps=plan.declaration.outputs[name].action.label,
        size=size,
        deviation=rms,
        floor=floor,
        allowed=allowed,
        worst_id=samples.ids[worst],
        worst_deviation=math.sqrt(max(float(variance[worst]), 0.0)),
        as_given=math.sqrt(float(deviation.mean())),
        as_given_allowed=given,
        faults=tuple(fault_notes(name, samples.ids, pooled, np.flatnonzero(apart))),
    )


def _variants(declaration: Declaration) -> Iterator[tuple[Declaration, str]]:
    """Other declarations under which the same model may be symmetric, and what that would mean."""
    if declaration.group == "O3":
        text = "it is equivariant under proper rotations: look at parities (vectors are '1o', pseudovectors '1e')"
        yield replace(declaration, group="SO3"), text
    if declaration.points and declaration.center == "origin":
        text = "it is equivariant about each sample's mean position: declare center='mean'"
        yield replace(declaration, center="mean"), text
    if declaration.center != "origin":
        yield replace(declaration, center="origin"), "it is equivariant about the origin: declare center='origin'"
