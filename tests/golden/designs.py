"""Partial cosets, searches for a precision, comparisons, crossed noise, averaged models, grids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

import equiscope as eq
from equiscope.decomposition.crossed import Redraw, measure_crossed
from tests.golden.measuring import FORCES, SEVERAL, TURNING, batches, told
from tests.golden.models import Net, Voxels, cut, grids, molecules, numbers
from tests.golden.registry import add, case

POINTS = {"pos": "1o"}


def partial(size: int, count: int = 60, **settings: Any) -> Mapping[str, Any]:
    found = eq.measure(Net(mask="mask" in settings), batches(size, POINTS, FORCES, settings, count), inputs=POINTS,
                       outputs=FORCES, **settings)  # fmt: skip
    return told(found)


# Two-phase designs: a second coset on a part of the samples.
@case(16, 25)
def a_quarter_twice(size: int) -> Mapping[str, Any]:
    return partial(size, cosets=1.25, rotations="D2")


@case(16, 25)
def half_twice_with_clusters(size: int) -> Mapping[str, Any]:
    return partial(size, 40, cosets=1.5, rotations="T", clusters="family", ids="id", mask="real", seed=2)


@case(16, 25)
def some_twice_of_several_outputs(size: int) -> Mapping[str, Any]:
    given = batches(size, TURNING, SEVERAL, {}, 40)
    return told(eq.measure(Net(), given, inputs=TURNING, outputs=SEVERAL, cosets=1.4, rotations="D2"))


# Searches: where they stop depends on how samples come in batches.
@case(10)
def rtol_reached_with_samples(size: int) -> Mapping[str, Any]:
    return partial(size, 80, rtol=0.05, rotations="D2")


@case(10)
def rtol_needs_cosets(size: int) -> Mapping[str, Any]:
    return partial(size, 40, rtol=0.045, rotations="haar", cosets=2)


@case(10)
def rtol_out_of_samples(size: int) -> Mapping[str, Any]:
    return partial(size, 40, rtol=0.001)


@case(10)
def rtol_stopped_by_max_passes(size: int) -> Mapping[str, Any]:
    return partial(size, 80, rtol=0.001, max_passes=1200)


# Two models on the same orbits.
@case(5, 12)
def compared(size: int) -> Mapping[str, Any]:
    settings = {"clusters": "family", "mask": "real", "ids": "id"}
    given = batches(size, POINTS, FORCES, settings)
    found = eq.compare(Net(mask=True), Net(start=40, scale=0.7, mask=True), given, inputs=POINTS, outputs=FORCES,
                       **settings)  # fmt: skip
    return {
        "difference": [found.difference, found.error, *found.interval, found.unpaired_error],
        "parts": [found.twirled_difference, found.equivariance_difference],
        "percents": [found.a.percent, found.b.percent],
        "printed": str(found),
    }


# Noise that does not turn.
def redrawn(fields: Mapping[str, torch.Tensor], number: int) -> torch.Tensor:
    """Noise that is a function of the sample's id and the number alone."""
    name = "noise" if "noise" in fields else "charge"
    return torch.stack([0.2 * numbers(*fields[name].shape[1:], start=37 * int(i) + 5003 * number)
                        for i in fields["id"]])  # fmt: skip


@case(5, 12)
def crossed_haar(size: int) -> Mapping[str, Any]:
    declared = eq.Declaration(POINTS, FORCES, fixed=("charge",), ids="id", clusters="family")
    given = cut(molecules(), size, "pos", "charge", "forces", "id", "family")
    return told(measure_crossed(Net(), given, declared, Redraw("charge", redrawn, 3), count=4, seed=1))


@case(4, 6)
def crossed_grids(size: int) -> Mapping[str, Any]:
    turning = eq.GridAction(4)
    outputs = {"grid": eq.Output(turning, target="label", per="sample")}
    declared = eq.Declaration({"grid": eq.Input(turning)}, outputs, fixed=("noise",), ids="id", group="O")
    given = _grids(size)
    return told(measure_crossed(Voxels(), given, declared, Redraw("noise", redrawn, 2), rotations="O"))


def _grids(size: int, *fields: str) -> list[dict[str, Any]]:
    whole = grids()
    return [{k: whole[k][i : i + size] for k in fields or whole} for i in range(0, len(whole["grid"]), size)]


def voxels(rotations: str, group: str, resampling: str | None, size: int) -> Mapping[str, Any]:
    turning = eq.GridAction(4, resampling)
    return told(eq.measure(Voxels(), _grids(size, "grid", "label"), inputs={"grid": eq.Input(turning)}, group=group,
                           outputs={"grid": eq.Output(turning, target="label", per="sample")},
                           rotations=rotations))  # fmt: skip


def _add_voxels(name: str, *arguments: Any) -> None:
    add(lambda size: voxels(*arguments, size), name, (4, 6))


_add_voxels("grid_whole_group", "O", "O", None)
_add_voxels("grid_cosets_of_T", "T", "O", None)
_add_voxels("grid_trilinear", "D2", "SO3", "trilinear")
_add_voxels("grid_cubic", "T", "SO3", "cubic")


# Averaged models.
@case(5, 12)
def twirled(size: int) -> Mapping[str, Any]:
    settings = {"mask": "real", "center": "mean"}
    outputs = {k: eq.Output(v.irreps, per=v.per) for k, v in SEVERAL.items()}
    model = eq.Twirled(Net(mask=True), inputs=TURNING, outputs=outputs, cosets=2, seed=5, **settings)
    answers = [model(batch) for batch in cut(molecules(), size, "pos", "field", "cell", "real")]
    return {name: torch.cat([a[name] for a in answers]) for name in outputs}


@case(12)
def twirled_over_a_group(size: int) -> Mapping[str, Any]:
    """An exactly symmetric model under O, and its gradient by the parameters."""
    net = Net()
    model = eq.Twirled(net, inputs=POINTS, outputs={"forces": eq.Output("1o")}, rotations="O", shift=False)
    [batch] = cut(molecules(), size, "pos")
    answer = model(batch)["forces"]
    answer.square().mean().backward()
    return {"forces": answer, "gradient": [p.grad for p in (net.inward, net.outward, net.shared)]}
