"""Find inputs that should rotate and were declared fixed: the forgotten cell."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from equiscope.decomposition.collect import Collector
from equiscope.decomposition.ragged import batch_of
from equiscope.symmetry.declaration import Declaration, Input
from equiscope.testing.equivariance import judged, label_free, listed, orbits

# A field the model uses as a vector takes nearly all of the error with it, sample by sample; a lucky one does not
# halve it in most of them. (A standard error says little here: errors of a few samples are heavy-tailed.)
FALL = 0.5
MOST = 0.75
NAMES = {"1o": "vectors", "cartesian": "a rank-2 tensor", "voigt": "a stress in Voigt order", "3x1o": "three vectors"}


@dataclass(frozen=True)
class Trial:
    """One field (or several at once) rotated that was declared fixed.

    Attributes:
        fields: the names; inputs: how each was turned in the trial.
        output: the output that changed most; before, after: its root mean square deviation, per component.
        forgotten: whether the mean square error falls below half, as a mean and in three of four samples.
    """

    fields: tuple[str, ...]
    inputs: tuple[Input, ...]
    output: str
    before: float
    after: float
    forgotten: bool

    def __str__(self) -> str:
        spelled = [f"{'positions' if w.points else NAMES[str(w.irreps)]} ({w.irreps!r})" for w in self.inputs]
        ways = " and ".join(f"{f!r} as {way}" for f, way in zip(self.fields, spelled, strict=True))
        change = f"changes the RMS deviation of {self.output!r} from {self.before:.3g} to {self.after:.3g}"
        if not self.forgotten:
            return f"rotating {ways} {change}"
        names = " and ".join("the cell" if re.search("cell|lattice|box", f.lower()) else repr(f) for f in self.fields)
        return f"rotating {ways} {change}: did you forget {names}?"


@dataclass(frozen=True)
class Completeness:
    """What :func:`assert_declared_symmetry_complete` tried; ``invariant`` fields are integers or boolean."""

    trials: tuple[Trial, ...]
    invariant: tuple[str, ...]


def assert_declared_symmetry_complete(
    model: Any,
    batches: Iterable[Any],
    declaration: Declaration,
    *,
    forward: Callable[[Any, Any], Any] | None = None,
    rotations: str = "T",
    cosets: int = 2,
    seed: int = 0,
) -> Completeness:
    """No field that is declared fixed takes the equivariance error away when it is rotated.

    Every floating field held fixed that has the shape of a vector (…, 3), a matrix (…, 3, 3), a flattened matrix
    (…, 9) or a Voigt stress (…, 6) is rotated in turn, then all of them together, on the same rotations. Labels are
    never inputs and are left alone. Integer and boolean fields (species, edge lists, cell shifts in units of the
    cell) are invariant: they are listed, never turned.

    Args:
        model, batches, declaration, forward, rotations, cosets, seed: as for :func:`equiscope.measure`.

    Returns:
        The trials made, none of which lowers the error to half.

    Raises:
        AssertionError: naming the forgotten fields, how they rotate and the deviation with and without them.
        InputError: as :func:`equiscope.measure`.
    """
    given = listed(batches)
    labels = {o.target for o in declaration.outputs.values()}
    base = label_free(declaration, given[0])

    def measured(chosen: Declaration) -> Collector:
        return orbits(model, given, chosen, forward, rotations, cosets, seed)

    collector = measured(base)
    samples = collector.samples()
    before = {k: v.equivariance for k, v in samples.figures.items()}
    # The largest mean error that rounding explains.
    allowed = {k: judged(k, samples, collector).allowed ** 2 for k in before}
    fields = batch_of(given[0], declaration).fields()
    ways = {f: _ways(fields[f], base) for f in base.fixed if f not in labels and fields[f].is_floating_point()}

    def attempt(added: dict[str, Input]) -> Trial:
        fixed = tuple(f for f in base.fixed if f not in added)
        turned = measured(replace(base, inputs={**base.inputs, **added}, fixed=fixed)).samples()
        return _trial(added, before, {k: v.equivariance for k, v in turned.figures.items()}, allowed)

    trials = [attempt({f: spec}) for f, specs in ways.items() for spec in specs]
    together = {f: specs[0] for f, specs in ways.items() if specs}
    if len(together) > 1 and not any(t.forgotten for t in trials):
        trials.append(_fewest(together, attempt))
    found = [t for t in trials if t.forgotten]
    if found:
        best = list({t.fields: t for t in sorted(found, key=lambda t: -t.after)}.values())
        names = [name for t in best for name in t.fields]
        remedy = ", ".join(f"{f!r}: eq.{way}" for t in best for f, way in zip(t.fields, t.inputs, strict=True))
        head = f"fields {names} are held fixed but belong to the symmetry:"
        raise AssertionError("\n".join([head, *(f"  {t}" for t in best), f"  declare inputs={{…, {remedy}}}"]))
    invariant = sorted(k for k, v in fields.items() if not (v.is_floating_point() or v.is_complex()))
    return Completeness(tuple(trials), tuple(invariant))


def _ways(values: Tensor, declaration: Declaration) -> list[Input]:
    """How a field of this shape could rotate."""
    shape, found = tuple(values.shape[1:]), []
    if shape[-1:] == (3,):
        found.append(Input("1o", points=False))
        if declaration.center != "origin" and declaration.points:
            found.append(Input("1o", points=True))
    if shape[-2:] == (3, 3):
        found.append(Input("cartesian"))
    if shape[-1:] == (6,):
        found.append(Input("voigt"))
    if shape[-1:] == (9,):
        found.append(Input("3x1o"))
    return found


def _trial(
    added: dict[str, Input], before: dict[str, Tensor], after: dict[str, Tensor], allowed: dict[str, float]
) -> Trial:
    """The output whose error falls most, and whether it falls enough to mean that the fields belong to the symmetry."""
    means = {k: (float(before[k].mean()), float(after[k].mean())) for k in before}
    ratios = {k: late / early if early > 0 else math.inf for k, (early, late) in means.items()}
    output = min(ratios, key=lambda k: ratios[k])
    fell = float((after[output] < FALL * before[output]).double().mean())
    forgotten = means[output][0] > allowed[output] and ratios[output] < FALL and fell >= MOST
    early, late = (math.sqrt(max(mean, 0.0)) for mean in means[output])
    return Trial(tuple(added), tuple(added.values()), output, early, late, forgotten)


def _fewest(together: dict[str, Input], attempt: Callable[[dict[str, Input]], Trial]) -> Trial:
    """The trial of all fields, or, if they were forgotten, of the fewest among them that are needed."""
    trial = attempt(together)
    for name in [*together] if trial.forgotten else []:
        fewer = {k: v for k, v in together.items() if k != name}
        smaller = attempt(fewer) if fewer else trial
        if fewer and smaller.forgotten:
            together, trial = fewer, smaller
    return trial
