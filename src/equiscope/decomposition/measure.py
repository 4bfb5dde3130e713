"""The front door: how much of a model's loss is there only because its symmetry is imperfect."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Unpack

import torch
from torch import nn

from equiscope.decomposition.batches import as_batches
from equiscope.decomposition.collect import Collector
from equiscope.decomposition.plan import Plan, make_plan, refuse_biased, refuse_dependent
from equiscope.decomposition.pool import summarise
from equiscope.decomposition.precision import Goal, Search, draw
from equiscope.decomposition.preserve import untouched
from equiscope.decomposition.ragged import batch_of
from equiscope.decomposition.result import Result
from equiscope.decomposition.symmetries import Symmetry
from equiscope.errors import InputError, check_count
from equiscope.signatures import handing_on
from equiscope.symmetry.declaration import Declaration, DeclarationSettings, declare

NOISE_SAMPLES = 64
FIRST_OF_A_STREAM = (
    "the interval is of what the stream began with, not of the rest: for all of it give a list of batches, or a "
    "DataLoader over a data set with places, of which samples are drawn at random, or leave out rtol"
)


class MeasureSettings(DeclarationSettings, total=False):
    """Keywords of :func:`measure` that every measurement takes, for what hands them on."""

    inputs: Mapping[str, Any] | None
    outputs: Mapping[str, Any] | None
    target: str | None
    loss: Any
    forward: Callable[[Any, Any], Any] | None
    rotations: str
    cosets: float | None
    seed: int
    shift: bool
    spectrum: bool | int
    symmetry: Symmetry
    noise_samples: int
    fold: int | str
    progress: bool


@handing_on(Declaration)
def measure(
    model: nn.Module | Callable[[Any], Any],
    batches: Iterable[Any],
    declaration: Declaration | None = None,
    *,
    inputs: Mapping[str, Any] | None = None,
    outputs: Mapping[str, Any] | None = None,
    target: str | None = None,
    loss: Any = "mse",
    forward: Callable[[Any, Any], Any] | None = None,
    rotations: str = "T",
    cosets: float | None = None,
    seed: int = 0,
    shift: bool = True,
    rtol: float | None = None,
    max_passes: int | None = None,
    spectrum: bool | int = False,
    symmetry: Symmetry = "rotation",
    noise_samples: int = NOISE_SAMPLES,
    fold: int | str = "auto",
    progress: bool = False,
    **settings: Unpack[DeclarationSettings],
) -> Result:
    """Split a model's loss into what a perfectly symmetric version of it would have, and the rest.

    With `p_g = g^-1 f(g x)` and g Haar distributed, for a convex loss l,

        total = E_g l(p_g, y) = l(E_g p_g, y) + equivariance,        percent = 100 mean(equivariance) / mean(total)

    with means over samples; for squared error `equivariance = E_g |p_g - E p|^2`. The rotations of each sample
    are ``cosets`` independent random cosets K u, which makes the estimate exactly unbiased for squared error
    (:mod:`equiscope.decomposition.split`) at ``cosets * len(K)`` passes.

    Args:
        model: called as ``model(batch)`` in eval mode, with the fields that its signature names, or through
            ``forward(model, batch)``; it is left as it was.
        batches: iterable of dicts of tensors, samples first, or with ``batch=`` atoms first, of tuples whose parts
            ``fields=("pos", "forces")`` names, or of batches an adapter registered.
        declaration: what rotates, where it is made beforehand; else give its fields here, as they are explained at
            :class:`Declaration`.
        inputs: what turns among the fields of a batch, ``{"pos": "1o"}``, or :class:`Input` for more.
        outputs: what the model answers, ``{"forces": "1o"}``, or :class:`Output` for more.
        target: the field with the labels of the only output; None measures without labels (no percent).
        loss: of the only output, a name such as ``"mse"`` or a function ``loss(prediction, target)`` -> per sample.
        forward: ``forward(model, batch)``, where the model is not called as ``model(batch)`` or by field names.
        rotations: ``"T"`` (12 rotations, exact to Wigner degree 2), ``"D2"``, ``"O"``, ``"I"``, ``"haar"``,
            ``"superfibonacci-N"`` or ``"lebedev-T"``; with ``group="O"`` give ``"O"``, the whole group once, exact.
        cosets: independent cosets per sample; by default 2 for squared error and 4 for other losses, which is the least
            that is unbiased, and 10 with ``rotations="haar"``. A number between 1
            and 2, such as 1.25, gives each sample one and a random quarter of them a second: unbiased over samples, and
            with ``rotations="O"`` the most exact figure for its passes where the error lies at low Wigner degrees
            (:mod:`equiscope.decomposition.plan`); it needs at least `8 / (cosets - 1)` samples.
        seed: rotations are a pure function of (seed, sample id, coset).
        shift: False with ``cosets=1`` uses the set K itself, unshifted, for a figure without randomness: exact when the
            twisted prediction has no Wigner degree above half the set's, otherwise biased by aliasing.
        rtol: add samples, then cosets, until the 95 % interval's half-width is this fraction of the percent, from 20
            clusters on; the Result's notes say whether it was reached. A list of batches and a ``DataLoader`` over a
            data set with places are drawn at random over all of it, whatever their order (ids stay positions in the
            data set); any other stream is read from its beginning, and the Result says so.
        max_passes: with ``rtol``, stop after about this many sample passes.
        spectrum: True for the shares of the error at each Wigner degree up to the set's degree, or the highest degree
            (more cosets than two are needed beyond the set's own); no extra model call.
        symmetry: ``"rotation"``, or another, g being its transformations: ``"translation"``, ``"parity"``,
            ``"mirror"``, ``"permutation"``, ``"edges"``, ``"lattice"``, ``"supercell"``, ``"space group"``,
            ``"point group"``, or one of ``eq.symmetries`` with its settings. A tuple of several is measured together,
            and ``result.by_symmetry`` says how much of the error each adds, the first by itself on samples that the
            others have moved, the next what it still finds in the model averaged over those before
            (:mod:`equiscope.decomposition.symmetries.nested`).
        noise_samples: samples whose numerical noise floor is used, at most: a quarter of them (all of the first 12),
            of short measurements fewer (:mod:`equiscope.decomposition.noise`), chosen by a hash of their ids, so spread
            over the stream.
        fold: rotations of a batch that share a call of the model, at most: 1 for one after another; ``"auto"`` for as
            many as make a GPU busy in a quarter of its free memory, and on a CPU for batches under four samples only.
            A model whose samples see each other is found out and asked one rotation a call, which a note says.
        progress: show a progress bar.
        fixed: floating fields that do not rotate (charges, times).
        center: what is turned about: ``"origin"``, ``"mean"`` of the points, or a field (samples, 3).
        group: the symmetry claimed: ``"SO3"``, ``"O3"`` or ``"O"``.
        mask: boolean field (samples, atoms) of the real atoms.
        batch: integer field (atoms,) with the sample of each atom, where the atoms of all stand one after another.
        per: whether a further field has rows for atoms or samples, ``{"z": "atom"}``.
        clusters: the field naming what is independent (molecule, protein family), for the interval.
        ids: integer field identifying samples; their position in the data set by default.
        weighting: ``"sample"``: mean over samples of means over components; ``"component"`` pools components.
        fields: names of the parts of batches that are tuples.

    Returns:
        A frozen :class:`Result`; losses in the units of the target squared (squared error) or of the loss.

    Raises:
        DeclarationError: a field is missing, undeclared or of the wrong shape.
        NonFiniteError: NaN or infinity in an input, target or prediction.
        RandomModelError: the model answers identical calls differently.
        ModelError: around whatever the model or a loss of the user's raises; DataError: likewise for the batches.
        InputError: any other bad argument; the message says what was seen and what to do.

    Source: Shen, Nowara, Maser, Cho, "Training Dynamics of Learning 3D-Rotational Equivariance", TMLR 2025.
    """
    declaration = resolve_declaration(declaration, inputs, outputs, target, loss, settings)
    check_count("noise_samples", noise_samples)
    plan = make_plan(
        declaration, forward, rotations, cosets, seed, shift=shift, spectrum=spectrum, symmetry=symmetry, fold=fold
    )
    if max_passes is not None and rtol is None:
        raise InputError(f"max_passes={max_passes!r} limits the search for rtol: give rtol=0.05 too, or leave it out")
    if rtol is None:
        return measured(model, batches, plan, None, noise_samples, progress)
    if plan.scheme is not None and not plan.design.shift:
        raise InputError(f"rtol adds cosets, of which {plan.scheme.label!r} has no independent ones: leave rtol out")
    refuse_dependent(plan.design)
    return measured(model, batches, plan, Goal(rtol, max_passes), noise_samples, progress)


def measured(
    model: Any,
    batches: Iterable[Any],
    plan: Plan,
    goal: Goal | None = None,
    noise_samples: int = NOISE_SAMPLES,
    progress: bool = False,
) -> Result:
    """The Result of a plan; see :func:`measure`."""
    refuse_biased(plan.design, plan.losses)
    collector = Collector(model, plan, noise_samples)
    if goal is None:
        with untouched(model):
            for native in _bar(as_batches(batches), progress):
                collector.run(native)
        # Crystals differ in the number of their symmetries.
        return result_of(collector, passes=plan.design.passes if plan.scheme is None else collector.passes)
    with untouched(model):
        drawing = draw(as_batches(batches), plan.design.seed, lambda native: batch_of(native, plan.declaration))
        search = Search(collector, goal, lambda: result_of(collector))
        notes = [search.run(_bar(drawing.rounds, progress))]
    drawn = drawing.said(search.samples, search.exhausted)
    if drawn and drawing.size is None:
        notes.append(FIRST_OF_A_STREAM)
    return result_of(collector, notes, drawn=drawn)


def result_of(collector: Collector, notes: Sequence[str] = (), **settings: Any) -> Result:
    """The Result of what was collected; ``settings`` are fields of it beside those that the design gives."""
    described = collector.plan.design.described(collector.caller.calls) | settings
    return summarise(collector.samples(), collector.plan, collector.known, described, notes)


def resolve_declaration(
    declaration: Declaration | None,
    inputs: Mapping[str, Any] | None,
    outputs: Mapping[str, Any] | None,
    target: str | None,
    loss: Any,
    settings: DeclarationSettings,
) -> Declaration:
    """The declaration given, or made of its fields.

    Raises:
        InputError: if both or neither are given, or a field is unknown.
    """
    if declaration is not None:
        if not isinstance(declaration, Declaration):
            raise InputError(f"declaration must be an equiscope.Declaration, got {type(declaration).__name__}")
        fields = {"inputs": inputs, "outputs": outputs, "target": target, "loss": None if loss == "mse" else loss}
        given = [*(name for name, value in fields.items() if value), *settings]
        if given:
            raise InputError(f"give either a declaration or its fields, not both (got {given})")
        return declaration
    if inputs is None or outputs is None:
        raise InputError("say what rotates: inputs={'pos': '1o'}, outputs={'forces': '1o'}, target='forces'")
    return declare(inputs, outputs, target, loss, **settings)


def device_of(model: Any) -> torch.device:
    """Where a module's parameters are; the CPU for anything else."""
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return parameter.device if parameter is not None else torch.device("cpu")


def _bar(batches: Iterable[Any], progress: bool) -> Iterable[Any]:
    if not progress:
        return batches
    from tqdm.auto import tqdm

    return tqdm(batches, desc="measuring", unit="batch")
