"""Analyses of a trained run at the steps whose checkpoints were kept: each result is a record of the run.

A record has ``kind="analysis"`` and ``analysis`` (one of :data:`KINDS`, or ``"relations"``), ``step``, ``probe``,
``settings`` and ``values``. What is recorded with the same settings is not made again, so that an analysis that was
stopped goes on where it was.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from tqdm.auto import tqdm

from equiscope.analysis.heads import find_head, heads
from equiscope.analysis.hessian import hessian
from equiscope.analysis.landscape import landscape
from equiscope.analysis.layers import layers
from equiscope.analysis.linear_head import linear_head
from equiscope.decomposition.measure import measure
from equiscope.errors import InputError
from equiscope.records import Record, Records, plain
from equiscope.runs import progress
from equiscope.runs.curvature import GRADIENTS, BatchDesign, dealt, doubled, probe_gradients, thinned
from equiscope.runs.identity import check_data
from equiscope.runs.relate import relate
from equiscope.runs.trained import Trained, available_steps, open_run
from equiscope.tasks.task import Probe


@dataclass(frozen=True)
class Settings:
    """How an analysis is made.

    Attributes:
        rotations, cosets, seed: as for :func:`equiscope.measure`.
        samples: held-out samples used, evenly spread; None for all of them.
        batch: samples in each of the independent batches, whose spread gives the error bars of gradients, curvature,
            landscapes and condition numbers.
        degrees: highest Wigner degree told apart, for ``layers`` and ``spectrum``. With content of degree l in a set of
            degree t, degrees up to t - l come without noise from it, hence the defaults.
        layers: patterns of layer names, for ``layers``. head: name of the head's layer, for ``heads`` and
            ``conditioning``.
        matrices: ``"hessian"``, ``"gauss_newton"`` or both, and vectors: random probe vectors, for ``hessian``.
        part: ``"track"``, the samples measured along training, or ``"final"``, the independent and often larger set of
            the final figure.
    """

    rotations: str
    cosets: int = 2
    seed: int = 0
    samples: int | None = None
    batch: int | None = None
    degrees: int | None = None
    layers: tuple[str, ...] | None = None
    head: str | None = None
    matrices: tuple[str, ...] | None = None
    vectors: int | None = None
    part: str = "track"


@dataclass(frozen=True)
class Kind:
    """One analysis: its default settings and ``make(trained, probe, other, settings) -> values``.

    ``own`` names the settings that mean something to it; ``fixed`` are counts and tolerances recorded with them.

    ``probe`` is of the part asked for, the tracked set by default, ``other`` the same probe of the other part.
    """

    settings: Settings
    make: Callable[[Trained, Probe, Probe, Settings], dict[str, Any]]
    own: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)


def _design(probe: Probe, chosen: Settings) -> dict[str, Any]:
    names = ("rotations", "cosets", "seed")
    return {"forward": probe.forward, **{name: getattr(chosen, name) for name in names}}


def _spectrum(trained: Trained, probe: Probe, other: Probe, chosen: Settings) -> dict[str, Any]:
    result = measure(trained.model, probe.batches, probe.declaration, spectrum=chosen.degrees or True,
                     **_design(probe, chosen))  # fmt: skip
    assert result.spectrum is not None
    return {**result.spectrum, "percent": result.percent, "equivariance": result.equivariance, "r2": result.r2}


def _layers(trained: Trained, probe: Probe, other: Probe, chosen: Settings) -> dict[str, Any]:
    return layers(trained.model, probe.batches, probe.declaration, names=chosen.layers, degrees=chosen.degrees,
                  **_design(probe, chosen))  # fmt: skip


def _heads(trained: Trained, probe: Probe, other: Probe, chosen: Settings) -> dict[str, Any]:
    """The head on these samples, and on others: an error must not be explained by its own samples."""
    here, elsewhere = (
        heads(trained.model, part.batches, part.declaration, head=chosen.head, **_design(part, chosen))
        for part in (probe, other)
    )
    return {**here, "elsewhere": elsewhere}


def _gradients(trained: Trained, probe: Probe, other: Probe, chosen: Settings) -> dict[str, Any]:
    assert chosen.batch is not None
    design = BatchDesign(chosen.rotations, chosen.cosets, chosen.seed, chosen.samples, chosen.batch)
    return probe_gradients(trained.model, probe, design, trained.optimizer_state)


def _hessian(trained: Trained, probe: Probe, other: Probe, chosen: Settings) -> dict[str, Any]:
    """The curvature of the two losses; tolerance and counts as :data:`CURVATURE` says."""
    assert chosen.batch is not None
    assert chosen.matrices is not None
    assert chosen.vectors is not None
    batches = dealt(probe.batches, probe.declaration, chosen.batch, chosen.seed)
    return hessian(trained.model, batches, probe.declaration, kinds=chosen.matrices, probes=chosen.vectors, **CURVATURE,
                   **_design(probe, chosen))  # fmt: skip


def _landscape(trained: Trained, probe: Probe, other: Probe, chosen: Settings) -> dict[str, Any]:
    """The plane of the two losses' leading eigenvectors, with the lines along them."""
    assert chosen.batch is not None
    batches = dealt(probe.batches, probe.declaration, chosen.batch, chosen.seed)
    return landscape(trained.model, batches, probe.declaration, **PLANE, **_design(probe, chosen))


def _conditioning(trained: Trained, probe: Probe, other: Probe, chosen: Settings) -> dict[str, Any]:
    """The head's exact Hessians, in float64: their smallest eigenvalues drown in the rounding of single precision."""
    assert chosen.batch is not None
    model, batches = doubled(
        trained.model, dealt(probe.batches, probe.declaration, chosen.batch, chosen.seed), probe.forward
    )
    layer = find_head(model, batches[0], probe.declaration, probe.forward, chosen.head)
    found = linear_head(model, batches, probe.declaration, layer, **_design(probe, chosen))
    for part in found["parts"].values():
        del part["matrix"]
    return {"layer": layer, "samples": sum(len(next(iter(batch.values()))) for batch in batches), **found}


# What a nano model affords in about two minutes a checkpoint on one core.
CURVATURE: dict[str, Any] = {
    "which": ("twirled", "equivariance"), "tolerance": 0.02, "steps": 40, "depth": 14, "bias": False,
}  # fmt: skip
PLANE: dict[str, Any] = {"points": 11, "plane_points": 9, "span": 0.005, "tolerance": 0.1, "steps": 15}
KINDS: dict[str, Kind] = {
    "gradients": Kind(Settings(**asdict(GRADIENTS)), _gradients, ("batch",)),
    "hessian": Kind(Settings("T", cosets=1, samples=16, batch=4, matrices=("hessian",), vectors=2), _hessian,
                    ("batch", "matrices", "vectors"), CURVATURE),
    "landscape": Kind(Settings("T", cosets=1, samples=16, batch=4), _landscape, ("batch",), PLANE),
    "conditioning": Kind(Settings("O", cosets=1, samples=32, batch=4), _conditioning, ("batch", "head")),
    "heads": Kind(Settings("T", samples=64), _heads, ("head",)),
    "layers": Kind(Settings("O", samples=16, degrees=2), _layers, ("layers", "degrees")),
    "spectrum": Kind(Settings("I", degrees=3), _spectrum, ("degrees",)),
}  # fmt: skip


PARTS = ("track", "final")
_OWN = frozenset(name for kind in KINDS.values() for name in kind.own)


def analyse(
    path: str | os.PathLike[str],
    kinds: Sequence[str],
    at: Sequence[int] | None = None,
    probes: Sequence[str] | None = None,
    changes: Mapping[str, Any] | None = None,
    device: str | torch.device = "cpu",
    show_progress: bool | None = None,
    trust: bool = False,
) -> list[Record]:
    """Analyse a run's checkpoints and append what is new to its records.

    Args:
        path: the run's folder.
        kinds: names of :data:`KINDS`.
        at: training steps; None for every checkpoint the run has.
        probes: names of the run's probes; None for the headline probe.
        changes: fields of :class:`Settings` that differ from the defaults of each kind.
        device: where the model runs.
        trust: as for :func:`equiscope.runs.trained.open_run`.

    Returns:
        The records asked for, in order of kind, step and probe, and the relations between them.

    Raises:
        InputError: an unknown kind, probe, layer or setting, or a model that cannot be analysed so.
        RunError: no checkpoint of a step, a checkpoint of another model, or a run that is in use.
        IntegrityError: damaged records or checkpoints.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise InputError(f"unknown analysis {unknown[0] if unknown else ''!r}: choose from {', '.join(KINDS)}")
    for name, value in (changes or {}).items():
        if name in _OWN and not any(name in KINDS[kind].own for kind in kinds):
            raise InputError(f"{name}={value!r} means nothing to {', '.join(kinds)}")
    first = open_run(path, trust=trust)
    steps = sorted(set(at)) if at is not None else available_steps(first.folder)
    held = [_checked(first, step) for step in steps]
    first.task.prepare(progress=False)
    pairs = _probes(first, probes)
    for kind in kinds:
        for probe, _ in pairs:
            _check_degrees(kind, probe)
    work = [(kind, step, pair) for kind in dict.fromkeys(kinds) for step in held for pair in pairs]
    first.folder.acquire()
    found: list[Record] = []
    try:
        with Records(first.folder.records, first.folder.lock) as records:
            check_data(first.task, records.entries)
            with tqdm(total=len(work), unit="analysis", disable=not progress.shown(show_progress)) as bar:
                opened: dict[int, Trained] = {}
                for kind, step, pair in work:
                    bar.set_description(f"{kind}, step {step}, {pair[0].name}")
                    settings = _settings(KINDS[kind], changes or {})
                    found.append(_one(records, path, opened, kind, step, pair, settings, device))
                    bar.update(1)
            found += relate(records)
    finally:
        first.folder.release()
    return found


def _checked(first: Trained, step: int) -> int:
    if step != first.step:
        open_run(first.folder.path, step=step)
    return step


def _check_degrees(kind: str, probe: Probe) -> None:
    """Wigner degrees are those of SO(3): a model of the octahedral group alone has none."""
    if "degrees" in KINDS[kind].own and probe.declaration.group == "O":
        able = ", ".join(name for name, other in KINDS.items() if "degrees" not in other.own)
        raise InputError(
            f"{kind}: the shares by Wigner degree need a model of all rotations, and probe {probe.name!r} declares the "
            f"octahedral group, group='O', whose 24 rotations cannot tell degrees apart; {able} can be made of it"
        )


def _settings(kind: Kind, changes: Mapping[str, Any]) -> Settings:
    """The kind's defaults with the changes that concern it."""
    try:
        made = replace(kind.settings, **{k: v for k, v in changes.items() if k not in _OWN or k in kind.own})
    except TypeError as error:
        raise InputError(f"unknown setting of an analysis among {sorted(changes)}: {error}") from error
    if made.samples is not None and (isinstance(made.samples, bool) or made.samples < 2):
        raise InputError(f"samples must be an integer >= 2, got {made.samples!r}")
    if made.part not in PARTS:
        raise InputError(f"part must be one of {', '.join(PARTS)}, got {made.part!r}")
    return made


def _probes(first: Trained, names: Sequence[str] | None) -> list[tuple[Probe, Probe]]:
    """(tracked probe, the same probe of the final set) for each name."""
    tracked, final = ({p.name: p for p in first.task.probes(part)} for part in ("track", "final"))
    if names is None:
        names = [name for name, probe in tracked.items() if probe.headline][:1]
    unknown = [name for name in names if name not in tracked]
    if unknown:
        raise InputError(f"this run has no probe {unknown[0]!r}; it has {', '.join(tracked)}")
    return [(tracked[name], final[name]) for name in names]


def _one(
    records: Records,
    path: str | os.PathLike[str],
    opened: dict[int, Trained],
    kind: str,
    step: int,
    pair: tuple[Probe, Probe],
    settings: Settings,
    device: str | torch.device,
) -> Record:
    """The record of one analysis, made if there is none."""
    shown = {"rotations": settings.rotations, "cosets": settings.cosets, "seed": settings.seed,
             "samples": settings.samples}  # fmt: skip
    for name in KINDS[kind].own:
        value = getattr(settings, name)
        shown[name] = list(value) if isinstance(value, tuple) else value
    if settings.part != "track":
        shown["part"] = settings.part
    shown |= plain(KINDS[kind].fixed)
    identity = {"analysis": kind, "step": step, "probe": pair[0].name, "settings": shown}
    record = records.find("analysis", **identity)
    if record is not None:
        return record
    if step not in opened:
        opened.clear()
        opened[step] = open_run(path, step=step)
        opened[step].model.to(device)
    begun = time.perf_counter()
    ordered = pair if settings.part == "track" else pair[::-1]
    here, other = (replace(probe, batches=thinned(probe.batches, settings.samples, device)) for probe in ordered)
    values = KINDS[kind].make(opened[step], here, other, settings)
    return records.append("analysis", **identity, values=values, seconds=time.perf_counter() - begun)
