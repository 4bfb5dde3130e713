"""Where inside a network symmetry is lost and won back: each layer's variance over the orbit by Wigner degree.

The features h(g x) of a layer are scalar functions of the rotation g: no label says how they turn. Their variance over
samples, rows (atoms, edges) and rotations splits, as any function on SO(3) does (Peter-Weyl), into degree l = 0 (what
stays the same when the sample turns: invariants), l = 1 (what turns like a vector), and so on:

    V_0 = mean over samples of |E_g h(g x)|^2 - |E h|^2,      V_l = (2l + 1) E_{g,g'} chi_l(g^-1 g') <h(g x), h(g' x)>

all per feature and without bias from the finite number of rotations, see :mod:`equiscope.decomposition.spectrum`. The
constant E h, which carries no information, counts for nothing. An invariant network has its whole variance at l = 0 in
every layer; the forces of an exactly equivariant one have it at l = 1.

On the same question: Domina, Abbott, Pegolo, Bigi and Ceriotti, "How unconstrained machine-learning models learn
physical symmetries", arXiv 2603.24638 (March 2026).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from equiscope.analysis.activations import Recorder, default_layers, find_layers, rows_of_features
from equiscope.decomposition import losses, statistics
from equiscope.decomposition.batches import Batch, Rows, as_batches, boolean, device_of_batch
from equiscope.decomposition.checks import check_batch, one_each
from equiscope.decomposition.orbit import Caller, answer_of, has_inner_axis, predict, rotated
from equiscope.decomposition.plan import Plan, as_plan, make_plan
from equiscope.decomposition.pool import relative_weights
from equiscope.decomposition.preserve import untouched
from equiscope.decomposition.ragged import batch_of
from equiscope.decomposition.spectrum import Spectrum, summarise_spectrum
from equiscope.decomposition.split import BatchOutput, OutputSplit, add_pass
from equiscope.errors import EquiscopeError, InputError, NonFiniteError, check_count
from equiscope.signatures import handing_on
from equiscope.symmetry.actions import action
from equiscope.symmetry.declaration import Declaration

ROWS = 512
# Ways of reading fields of which little is said that are tried on the model.
READINGS = 32


@dataclass
class _Layer:
    """Figures of one layer, an entry per sample: V by degree, the orbit variance, E_g |h|^2 and E_g h."""

    powers: list[Tensor] = field(default_factory=list)
    variance: list[float] = field(default_factory=list)
    square: list[float] = field(default_factory=list)
    mean: list[Tensor] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)


@handing_on(make_plan, without=("symmetry", "fold"))
def layers(
    model: nn.Module,
    batches: Iterable[Any],
    plan: Plan | Declaration,
    *,
    names: Sequence[str] | None = None,
    degrees: int | None = None,
    rows: int = ROWS,
    advance: Callable[[], Any] = lambda: None,
    **design: Any,
) -> dict[str, Any]:
    """Share of each layer's variance at each Wigner degree, with standard errors over clusters.

    Samples are run one at a time, without padding, so that every row of every layer belongs to a known sample whatever
    its layout (atoms, edges, tokens, pairs); the rotations are those of :func:`equiscope.measure` with the same seed.

    Args:
        model: any module; called as ``model(batch)`` or ``forward(model, batch)`` in eval mode; left as it was.
        batches: as for :func:`equiscope.measure`; labels are not needed.
        plan: what rotates, and how (:func:`equiscope.decomposition.plan.make_plan` with ``spectrum``, and
            ``judged=False``), or a declaration with the arguments below, rotations ``"O"`` by default.
            Degrees up to the set's own are told apart. With ``weighting="component"`` a sample counts by the layer's
            rows in it.
        names: shell patterns of submodules (``"layers.*.attention"``), ``"answer"`` for the model's own outputs;
            None for its blocks and the answer.
        degrees: highest degree, if the plan does not say it; beyond the set's own it needs three cosets or more.
        rows: most rows of one sample that are kept, evenly spread, which bounds the memory.
        advance: called once a sample, for a progress bar.
        forward, rotations, cosets, seed, shift, spectrum, alone, judged: as for
            :func:`equiscope.decomposition.plan.make_plan`.

    Returns:
        ``layers``: a list in order of execution of ``name``, ``width`` (features), ``rows`` (mean a sample),
        ``variance`` (per feature, in the feature's units squared), ``degrees`` [0, …, L], ``share`` and ``error`` of
        each, ``remainder`` (beyond L) and ``remainder_error``; shares and remainder add up to 1 (None for a layer
        that answers a constant). ``skipped``: layers of the default choice that cannot be taken apart, and why.

    Raises:
        InputError: no such layer, a layer that does not run or answers no floating tensor, or whose shape changes
            between rotations or samples; the message names it.
        NonFiniteError: NaN or infinity in a layer's answer.
        ModelError: around whatever the model raises. And what :func:`equiscope.measure` raises for a bad batch.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"layers of a {type(model).__name__} cannot be recorded: give a torch.nn.Module")
    check_count("rows", rows, 1)
    asked = {} if degrees is None else {"spectrum": degrees}
    plan = as_plan(plan, {**design, **asked}, rotations="O", spectrum=True, judged=False)
    declaration = plan.declaration
    recorder = Recorder(model, default_layers(model) if names is None else find_layers(model, names))
    orbit = _Orbit(model, plan, Caller(plan.forward, declaration), rows, recorder, names is None)
    clusters: list[Any] = []
    with untouched(model), recorder.recording():
        trim = _Trim(model, declaration, orbit.caller)
        for single, label, number in _singles(as_batches(batches), declaration, trim):
            orbit.run(single, number)
            clusters.append(label)
            advance()
    if not clusters:
        raise InputError("the iterable of batches is empty: there is nothing to look at (a used-up generator?)")
    return {
        "layers": orbit.summary(clusters),
        "skipped": orbit.skipped,
        "samples": len(clusters),
        "clusters": len(set(clusters)),
        "rotations": plan.design.rotations.name,
        "cosets": plan.design.cosets,
        "passes": int(plan.design.passes),
        "seed": plan.design.seed,
    }


def _singles(batches: Iterable[Any], declaration: Declaration, trim: _Trim) -> Iterator[tuple[Batch, Any, int]]:
    """(a batch of one sample without padding, its cluster, its id)."""
    first = 0
    for native in batches:
        batch = batch_of(native, declaration)
        check_batch(batch, declaration, labels=False)
        for place in range(batch.size):
            own = batch_of(batch.part([place]), declaration) if batch.size > 1 else batch
            if own.dense and declaration.mask is not None:
                own = trim(own)
            number = one_each(own.labels(declaration.ids), declaration.ids, 1)[0] if declaration.ids else first + place
            named = declaration.clusters
            label = one_each(own.labels(named), named, 1)[0] if named else number
            yield own, label, int(number)
        first += batch.size


class _Trim:
    """Cuts the padding at the end of a sample's fields with rows for atoms, where no field runs over pairs of them.

    Fields as long as the mask, of which nobody said whether they have rows for atoms, are cut or kept whole, whichever
    leaves the model's answer for the real atoms as it was.
    """

    def __init__(self, model: nn.Module, declaration: Declaration, caller: Caller):
        self.model, self.declaration, self.caller = model, declaration, caller
        self._per_atom: dict[str, bool] = {}

    @torch.no_grad()
    def __call__(self, sample: Batch) -> Batch:
        fields, declaration = sample.fields(), self.declaration
        real = boolean(fields[str(declaration.mask)], str(declaration.mask))
        atoms, kept = real.shape[1], int(real[0].nonzero().max()) + 1
        rows = {name: declaration.rows_of_field(name) for name in fields}
        said = {name for name, per in rows.items() if per == "atom"}
        unsaid = {name for name, per in rows.items() if per is None and self._may_have(name, fields[name], atoms)}
        known = {*declaration.inputs, *declaration.per, *(o.target for o in declaration.outputs.values())}
        pairs = any(fields[name].shape[2:3] == (atoms,) for name in (said | unsaid) - known)
        if kept == atoms or pairs:
            return sample

        def cut(names: set[str]) -> Batch:
            return batch_of(sample.with_fields({k: fields[k][:, :kept] for k in names}), declaration)

        if not unsaid <= set(self._per_atom):
            found = self._same(sample, [(names, cut(said | names)) for names in _readings(unsaid, declaration)])
            self._per_atom |= {name: name in found for name in unsaid}
        return cut(said | {name for name in unsaid if self._per_atom[name]})

    def _may_have(self, name: str, values: Tensor, atoms: int) -> bool:
        spec = self.declaration.inputs.get(name)
        roomy = spec is None or has_inner_axis(values, spec.action.shape)
        return roomy and values.ndim >= 2 and values.shape[1] == atoms

    def _same(self, sample: Batch, cuts: list[tuple[set[str], Batch]]) -> set[str]:
        """The first reading under which real atoms are answered as with their padding.

        Raises:
            InputError: naming the fields, if there is none.
        """
        whole = predict(self.model, sample.with_fields({}), sample, self.declaration, self.caller)
        for names, cut in cuts:
            try:
                found = predict(self.model, cut.with_fields({}), cut, self.declaration, self.caller)
            except EquiscopeError:
                continue
            if all(_alike(found[name], rows) for name, rows in whole.items()):
                return names
        unsaid = sorted(set.union(*(names for names, _ in cuts)))
        raise InputError(
            f"the model answers otherwise when the padding of a sample is cut off, whether its fields {unsaid} are cut "
            f"too or not. Say which have rows for atoms, per={dict.fromkeys(unsaid, 'atom')!r} or 'sample', or give "
            "samples without padding"
        )


def _readings(unsaid: set[str], declaration: Declaration) -> list[set[str]]:
    """Sets of fields that may have rows for atoms, likelier ones first: inputs of which it was not said are less so."""
    subsets = (set(chosen) for n in range(len(unsaid), -1, -1) for chosen in itertools.combinations(sorted(unsaid), n))
    return [unsaid - set(declaration.inputs), *itertools.islice(subsets, READINGS)]


def _alike(a: Tensor, b: Tensor) -> bool:
    """Equal but for rounding."""
    if a.shape != b.shape:
        return False
    return bool((a.double() - b.double()).abs().max() <= torch.finfo(b.dtype).eps ** 0.5 * b.double().abs().max())


@dataclass
class _Orbit:
    """Runs samples over their cosets and keeps each layer's figures."""

    model: nn.Module
    plan: Plan
    caller: Caller
    limit: int
    recorder: Recorder
    lenient: bool
    found: dict[str, _Layer] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    @torch.no_grad()
    def run(self, batch: Batch, number: int) -> None:
        """One sample over all its rotations."""
        device = device_of_batch(batch)
        outputs: dict[str, BatchOutput] = {}
        splits: dict[str, OutputSplit] = {}
        spectra: dict[str, Spectrum] = {}
        for one in self.plan.walk([number], device):
            found = self._pass(batch, one.turns)
            for name, values in found.items():
                if name not in outputs:
                    own = Rows(torch.zeros(len(values), dtype=torch.int64, device=device), None, 1, 1)
                    outputs[name] = BatchOutput(name, own, action("0e"), losses.loss("mse"))
                    spectra[name] = Spectrum(own, self.plan.design.rotations, self.plan.highest_degree)
                if len(values) != len(outputs[name].rows.sample):
                    raise InputError(
                        f"layer {name!r} has {len(outputs[name].rows.sample)} rows for one rotation of sample {number} "
                        f"and {len(values)} for another (a neighbour at the cutoff?): leave the sample or the layer out"
                    )
                spectra[name].add(values, one.turns)
            add_pass(splits, outputs, found, one.weight, one.last_of_coset)
        for name, split in splits.items():
            self._keep(name, split, spectra[name])

    def _pass(self, batch: Batch, elements: Tensor) -> dict[str, Tensor]:
        """Rows (n, 1, features) of every layer for one rotation."""
        self.recorder.clear()
        answer_of(self.model, rotated(batch, elements, self.plan.declaration), self.caller, batch)
        kept = {}
        for name, value in self.recorder.calls.items():
            if name in self.skipped:
                continue
            values = rows_of_features(value, self.limit)
            if not bool(torch.isfinite(values).all()):
                raise NonFiniteError(f"layer {name!r} answers NaN or infinity: leave it out, or look at its inputs")
            known = self.found.get(name)
            if known is not None and known.mean[0].numel() != values.shape[-1]:
                self._unfit(name, f"its last axis has {known.mean[0].numel()} and {values.shape[-1]} entries in two "
                                  "samples, so that it holds no features")  # fmt: skip
                continue
            kept[name] = values
        silent = [name for name in self.recorder.silent() if name not in self.skipped]
        for name in silent:
            self._unfit(name, "it does not run, or answers no floating tensor")
        return kept

    def _unfit(self, name: str, why: str) -> None:
        """Leave a layer of the default choice out; one that was asked for is an error."""
        if not self.lenient:
            raise InputError(f"layer {name!r} cannot be taken apart by degree: {why}; choose other layers")
        self.skipped[name] = why
        self.found.pop(name, None)

    def _keep(self, name: str, split: OutputSplit, spectrum: Spectrum) -> None:
        if name in self.skipped:
            return
        values = split.values()
        layer = self.found.setdefault(name, _Layer())
        layer.powers.append(spectrum.powers()[0].cpu())
        layer.variance.append(float(values.equivariance[0]))
        layer.square.append(float(values.square[0]))
        layer.mean.append(split.twirled_prediction().mean(dim=(0, 1)).cpu())
        layer.rows.append(len(split.of.rows.sample))
        value = self.recorder.calls[name]
        # All rows of the sample, not only those that were kept.
        rows = torch.tensor(float(value.numel() // value.shape[-1] if value.ndim > 1 else len(value)), device="cpu")
        layer.weight.append(float(relative_weights(rows, self.plan.declaration.weighting)))

    def summary(self, clusters: list[Any]) -> list[dict[str, Any]]:
        """Shares of every layer, in order of execution."""
        codes, count = statistics.encode(clusters)
        return [{"name": name, **_shares(layer, codes, count)} for name, layer in self.found.items()]


def _shares(layer: _Layer, codes: Any, count: int) -> dict[str, Any]:
    """V_0 from |E_g h|^2 = E |h|^2 - Var_g h, which is free of bias, less the square of the constant m = E h."""
    weight = np.array(layer.weight) / np.mean(layer.weight)
    variance, square = np.array(layer.variance), np.array(layer.square)
    means = torch.stack(layer.mean)
    constant = (torch.from_numpy(weight)[:, None] * means).mean(0)
    width = constant.numel()
    centring = (constant.square().sum() - 2 * means @ constant).numpy() / width
    invariant = weight * (square - variance + centring)
    powers = np.concatenate([invariant[:, None], weight[:, None] * torch.stack(layer.powers).numpy()], axis=1)
    whole = invariant + weight * variance
    # A constant in floating point still varies by its rounding.
    constant_answer = not whole.mean() > 1e-12 * square.mean()
    found = summarise_spectrum(powers, whole, codes, count, first=0)
    if constant_answer:
        found = {key: value if key == "degrees" else None for key, value in found.items()}
    return {"width": width, "rows": float(np.mean(layer.rows)), "variance": float(whole.mean()), **found}
