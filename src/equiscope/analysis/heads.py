"""Linear heads: how far they are from the maps that commute with rotations, and what that costs.

A head F = W phi on features that turn with rho(g) is symmetric exactly if g^-1 W rho(g) = W for every rotation. With
the projection on such maps and the features' second moment averaged over the orbit,

    P(W) = E_g g^-1 W rho(g),    C = E_{x,g} rho(g) phi phi^T rho(g)^T,    L_equiv = tr((W - P) C (W - P)^T),

exact for any W (cross terms vanish, since P C commutes as well). Shen et al., TMLR 2025, plot the plain variance of the
head's weights instead. For whole networks near a symmetric point see :mod:`equiscope.analysis.tangent`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from equiscope.analysis.activations import listening
from equiscope.analysis.krylov import signs
from equiscope.decomposition import statistics
from equiscope.decomposition.batches import Batch, kept
from equiscope.decomposition.calling import Call
from equiscope.decomposition.measure import measured
from equiscope.decomposition.orbit import output_rows, predict
from equiscope.decomposition.plan import Plan, as_plan, declared, make_plan
from equiscope.decomposition.pool import relative_weights
from equiscope.decomposition.preserve import untouched
from equiscope.decomposition.ragged import batch_of
from equiscope.decomposition.result import Result
from equiscope.errors import InputError, UnsuitedModelError, check_count
from equiscope.signatures import handing_on
from equiscope.symmetry.actions import Action, IrrepsAction, action
from equiscope.symmetry.declaration import Declaration
from equiscope.symmetry.rotations import GROUP_DEGREES, RotationSet, rotation_set

# How closely twice the weights must give twice the answer, relative, for a layer to be a linear head.
_DOUBLES = 1e-4


@runtime_checkable
class RowHead(Protocol):
    """A model whose answer is F_c = sum_k W_ck V_kc: a head of three rows, each multiplying one Cartesian component.

    ``head_weight()``: W (3, H). ``head_features(batch)``: V (atoms, H, 3), which turn like vectors, and the sample of
    each atom (atoms,).
    """

    def head_weight(self) -> Tensor: ...

    def head_features(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]: ...


def _quadrature(degree: int) -> RotationSet:
    """A set of rotations that averages degrees up to ``degree`` exactly."""
    for name, exact in GROUP_DEGREES.items():
        if exact >= degree:
            return rotation_set(name)
    return rotation_set(f"lebedev-{degree + 1 - degree % 2}")


def _matrices(spec: Action, rotations: Tensor) -> Tensor:
    """D(g) of an action as matrices, (n, d, d) float64."""
    width = spec.shape[0]
    basis = torch.eye(width, dtype=torch.float64, device=rotations.device).expand(len(rotations), width, width)
    return spec.act(rotations, basis).mT


def _irreps(spec: str | Action) -> IrrepsAction:
    made = action(spec)
    if not isinstance(made, IrrepsAction):
        raise InputError(f"features and answers of a head are declared by irreps such as '8x0e+4x1o', got {spec!r}")
    return made


def commutant_projection(weight: Tensor, inputs: str, outputs: str) -> Tensor:
    """P(W) = E_g D_out(g)^-1 W D_in(g), the nearest map that commutes with rotations, (d_out, d_in) float64.

    Args:
        weight: W (d_out, d_in).
        inputs, outputs: irreps of features and answer, for example ``"32x0e+16x1o"``, ``"1o"``.

    Raises:
        InputError: if the shape of W does not fit the irreps.
    """
    turns, after = _irreps(inputs), _irreps(outputs)
    if weight.shape != (after.shape[0], turns.shape[0]):
        raise InputError(
            f"a head from {inputs!r} to {outputs!r} has shape {(after.shape[0], turns.shape[0])}, got "
            f"{tuple(weight.shape)}"
        )
    quadrature = _quadrature(turns.irreps.lmax + after.irreps.lmax)
    elements = quadrature.matrices.to(weight.device)
    weights = quadrature.weights.to(weight.device)
    left, right = _matrices(after, elements), _matrices(turns, elements)
    return torch.einsum("n,nba,bc,ncd->ad", weights, left, weight.double(), right)


def orbit_moment(moment: Tensor, inputs: str) -> Tensor:
    """E_g rho(g) M rho(g)^T of a second moment M = E phi phi^T (d, d) of features with the given irreps, float64.

    As rho is orthogonal, it is the nearest moment that commutes with rotations.
    """
    return commutant_projection(moment, inputs, inputs)


def head_form(weight: Tensor, moment: Tensor, inputs: str, outputs: str) -> float:
    """L_equiv = tr((W - P) C (W - P)^T), summed over the answer's components, with C = ``orbit_moment(moment)``."""
    apart = weight.double() - commutant_projection(weight, inputs, outputs)
    return float(torch.einsum("ab,bc,ac->", apart, orbit_moment(moment, inputs), apart))


def row_deviation(weight: Tensor) -> Tensor:
    """D = W - its mean row, (3, H) float64: zero exactly if the model is symmetric."""
    weight = weight.detach().double()
    return weight - weight.mean(0)


def refuse_other_losses(declaration: Declaration, why: str) -> None:
    """Only squared error is a quadratic form of predictions.

    Raises:
        InputError: naming the loss declared.
    """
    others = sorted({str(spec.loss) for spec in declaration.outputs.values() if spec.loss != "mse"})
    if others:
        raise UnsuitedModelError(f"{why} under squared error only: declare loss='mse', got {', '.join(others)}")


@handing_on(make_plan)
def heads(
    model: nn.Module,
    batches: Iterable[Any],
    plan: Plan | Declaration,
    *,
    head: str | None = None,
    probes: int = 8,
    **design: Any,
) -> dict[str, Any]:
    """How far a model's linear head is from symmetric, and the equivariance error it causes.

    A :class:`RowHead` (EScAIP) has its error in closed form, with D the deviation from the mean row and
    `Q = E V V^T`: `tr(D Q D^T) / 3`, here divided by 3 once more as losses are means over components. E is the mean of
    :func:`equiscope.measure`: over a sample's atoms and then over samples, or over all atoms where ``weighting`` says
    so, times the output's weight. It is taken apart exactly into three factors whose product it is:

        variance  = |D|^2 / (3 H)             the paper's plain variance of the weights
        features  = tr(Q) / 3                 how large the features are
        alignment = H tr(D Q D^T) / (|D|^2 tr Q)   whether D lies where the features are

    Any other linear head w (the answer doubles when its weights do) has `L_equiv = w^T G w` exactly,
    `G = E Cov_g(A_g)`, and the same three factors with `|w|^2 / n`, `tr G` and `n w^T G w / (|w|^2 tr G)`.

    Args:
        model, batches: as for :func:`equiscope.measure`.
        plan: what is measured, or a declaration with the arguments below.
        head: name of the head's layer; None finds it, the last layer on which the answer depends linearly.
        forward, rotations, cosets, seed, shift, spectrum, alone, judged, symmetry, fold: as for
            :func:`equiscope.decomposition.plan.make_plan`; the closed form of a :class:`RowHead` is of
            rotations alone.
        probes: random heads (signs) whose mean error is `tr G` (Hutchinson), for heads without the closed form.

    Returns:
        ``layer``, ``kind`` ("rows" or "linear"), ``variance``, ``normalised_variance`` (by the mean square of the
        weights), ``features`` (with ``features_error`` over the probes of a linear head), ``alignment``, ``form``, and
        ``equivariance``, ``equivariance_error`` (standard error over clusters), ``percent`` as measured with rotations
        on the same samples.

    Raises:
        InputError: no linear head (the message names the last layers), several outputs, or a loss other than squared
            error.
    """
    declaration = declared(plan)
    if len(declaration.outputs) > 1:
        raise InputError(f"a head gives one output, {sorted(declaration.outputs)} are declared: declare one of them")
    refuse_other_losses(declaration, "the error of a head is a quadratic form of its weights")
    batches, plan = kept(batches), as_plan(plan, design)
    result = measured(model, batches, plan)
    if isinstance(model, RowHead) and head is None:
        found = _rows(model, batches, declaration)
    else:
        layer = find_head(model, batches[0], plan, head)
        found = _linear(model, layer, batches, plan, result.equivariance, probes)
    return {**found, "equivariance": result.equivariance, "equivariance_error": _error(result),
            "percent": result.percent, "samples": result.samples, "clusters": result.clusters}  # fmt: skip


def _rows(model: RowHead, batches: Sequence[Any], declaration: Declaration) -> dict[str, Any]:
    """The closed form of a head of three rows."""
    weight = model.head_weight().detach().double()
    apart = row_deviation(weight)
    moment = torch.zeros(weight.shape[1], weight.shape[1], dtype=torch.float64, device=weight.device)
    everyone = 0.0
    assert isinstance(model, nn.Module)
    with untouched(model), torch.no_grad():
        for native in batches:
            features, sample = model.head_features(native)
            features, counts = features.double(), _atom_counts(batch_of(native, declaration), sample, declaration)
            weights = relative_weights(counts, declaration.weighting)
            share = (weights / (3 * counts))[sample]
            moment += torch.einsum("akx,alx,a->kl", features, features, share)
            everyone += float(weights.sum())
    moment *= next(iter(declaration.outputs.values())).weight / everyone
    form = float(torch.einsum("ck,kl,cl->", apart, moment, apart)) / 3
    square, size = float(apart.square().sum()), float(weight.square().sum())
    return {
        "layer": "the three rows of head_weight()",
        "kind": "rows",
        "normalised_variance": square / size if size > 0 else None,
        **_factors(form, square, weight.numel(), float(moment.trace())),
    }


def _factors(form: float, square: float, count: int, trace: float) -> dict[str, Any]:
    """A form of ``count`` weights, the sum of whose squares is ``square``, and the three factors it is made of."""
    alignment = form * count / (square * trace) if square * trace > 0 else None
    return {"form": form, "parameters": count, "variance": square / count, "features": trace, "alignment": alignment}


def _atom_counts(batch: Batch, sample: Tensor, declaration: Declaration) -> Tensor:
    """Atoms of each sample among the rows of a head, (samples,) float64.

    Raises:
        InputError: where the declared output has other rows than the head.
    """
    counts = torch.bincount(sample, minlength=batch.size).double()
    name, spec = next(iter(declaration.outputs.items()))
    rows = output_rows(batch, name, declaration)
    other = spec.mask is not None and not torch.equal(rows.counts.to(counts.device), counts)
    if other or spec.action.shape != (3,) or len(counts) != batch.size:
        raise UnsuitedModelError(
            f"head_features() gives a vector for each of {len(sample)} atoms of {len(counts)} samples, but output "
            f"{name!r} is declared {spec.action.label!r} on {len(rows.sample)} rows: declare the vectors of all atoms"
        )
    return counts


def find_head(model: nn.Module, batch: Any, plan: Plan | Declaration, head: str | None = None) -> str:
    """Name of the last layer on which the declared output depends linearly: twice its weights, twice the answer.

    Raises:
        InputError: if there is none, or the one named is none; the message names what was tried.
    """
    modules = dict(model.named_modules())
    owners = {name: part for name, part in modules.items() if next(part.parameters(recurse=False), None) is not None}
    if head is not None and (head not in modules or not list(modules[head].parameters())):
        what = "layer with parameters" if head in modules else "layer"
        last = ", ".join(list(owners)[-5:])
        raise InputError(f"no {what} of {type(model).__name__} is named {head!r}; the last are {last}")
    declaration = declared(plan)
    call = plan.call if isinstance(plan, Plan) else Call(declaration)
    wrapped = batch_of(batch, declaration)
    called: list[str] = []

    def answer() -> Tensor:
        found = predict(model, wrapped.with_fields({}), wrapped, declaration, call)
        return torch.cat([rows.detach().double().flatten() for rows in found.values()])

    with untouched(model):
        with listening(owners, lambda name, _: called.append(name)):
            plain = answer()
        tried = list(dict.fromkeys(reversed(called))) if head is None else [head]
        for name in tried:
            own: list[Tensor] = list(model.get_submodule(name).parameters())
            with torch.no_grad():
                torch._foreach_mul_(own, 2.0)
            twice = answer()
            with torch.no_grad():
                torch._foreach_mul_(own, 0.5)
            if bool((twice - 2 * plain).norm() <= _DOUBLES * plain.norm()) and bool(plain.norm() > 0):
                return name
    output = next(iter(declaration.outputs))
    raise UnsuitedModelError(
        f"{type(model).__name__} has no linear head: doubling the weights of none of its layers "
        f"({', '.join(tried[:5]) or 'there are none'}) doubles {output!r}. Give the model a last linear layer, "
        "or look at its gradients and curvature instead"
    )


def _linear(
    model: nn.Module,
    layer: str,
    batches: Sequence[Any],
    plan: Plan,
    form: float,
    probes: int,
) -> dict[str, Any]:
    """Factors of w^T G w = E Var_g(p_g), which is the equivariance error itself, with tr G from random heads."""
    check_count("probes", probes, 2)
    own = list(model.get_submodule(layer).parameters())
    square, count = float(sum(p.detach().double().square().sum() for p in own)), sum(p.numel() for p in own)
    generator = torch.Generator().manual_seed(plan.design.seed)
    traces = []
    with untouched(model):
        for _ in range(probes):
            with torch.no_grad():
                for parameter in own:
                    parameter.copy_(signs(generator, *parameter.shape))
            traces.append(measured(model, batches, plan).equivariance)
    rows = own[0].detach().double().flatten(1) if own[0].ndim > 1 else own[0].detach().double()[None]
    return {
        "layer": layer,
        "kind": "linear",
        "normalised_variance": float((rows - rows.mean(0)).square().sum() / rows.square().sum()),
        "features_error": float(np.std(traces, ddof=1)) / probes**0.5,
        **_factors(form, square, count, float(np.mean(traces))),
    }


def _error(result: Result) -> float | None:
    """Standard error of the mean equivariance error over clusters."""
    figures = result.per_sample
    if figures is None:
        return None
    codes, count = statistics.encode(list(figures.clusters))
    totals = statistics.cluster_totals(figures.equivariance.cpu().numpy(), codes, count)
    weights = figures.weight.cpu().numpy()
    sizes = statistics.cluster_totals(weights / weights.mean(), codes, count)
    return statistics.ratio(totals, sizes).error
