"""The equivariance error near a symmetric point: the quadratic form of the orbit covariance of the derivative.

With theta* a symmetric set of weights, delta = theta - theta* and J_g the derivative at theta* of the twisted
prediction,

    L_equiv(theta) = delta^T G delta + O(delta^3),      G = E Cov_g(J_g),

so that lambda_min |delta|^2 <= L_equiv <= lambda_max |delta|^2: how far the weights are from symmetric says little
until one says in which direction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from equiscope.analysis.differentiable import keeping_graphs
from equiscope.analysis.heads import refuse_other_losses
from equiscope.decomposition.batches import kept
from equiscope.decomposition.collect import prepared_batches
from equiscope.decomposition.measure import measured
from equiscope.decomposition.orbit import predict, rotated, rotated_back
from equiscope.decomposition.plan import Plan, as_plan, declared
from equiscope.decomposition.pool import pooled_equivariance
from equiscope.decomposition.preserve import untouched
from equiscope.decomposition.samples import SampleValues
from equiscope.decomposition.split import OutputSplit, add_pass
from equiscope.errors import InputError
from equiscope.symmetry.declaration import Declaration


def tangent_form(
    model: nn.Module,
    reference: Mapping[str, Tensor],
    batches: Iterable[Any],
    plan: Plan | Declaration,
    **design: Any,
) -> dict[str, float]:
    """delta^T G delta = E Var_g(J_g delta) with delta = theta - theta*, to be compared with L_equiv(theta).

    J_g is the derivative of the twisted prediction at theta*, applied by two backward passes; nothing of the size of G
    is ever held. Exact where the answer is linear in what differs; else the error is of third order in delta.
    Rotations, weights and means are those of :func:`equiscope.measure` with the same arguments.

    Args:
        plan: what is measured, or a declaration with ``forward, rotations, cosets, seed`` as for
            :func:`equiscope.measure`.
        model: with the weights theta. reference: the weights theta* of a symmetric model, by parameter name; those left
            out are the model's own.

    Returns:
        ``form``: delta^T G delta; ``equivariance``: L_equiv(theta); ``at_reference``: L_equiv(theta*), zero if theta*
        is symmetric; ``distance``: |delta|^2.

    Raises:
        InputError: for a name or shape the model does not have, an output that cannot be differentiated twice, or a
            loss other than squared error.
    """
    refuse_other_losses(declared(plan), "the error near a symmetric point is a quadratic form")
    own = dict(model.named_parameters())
    for name, value in reference.items():
        if name not in own or own[name].shape != value.shape:
            has = f"has shape {tuple(own[name].shape)}" if name in own else "is no parameter of the model"
            raise InputError(f"reference {name!r} of shape {tuple(value.shape)} {has}: give weights of the same model")
    names = [name for name in reference if not torch.equal(own[name].detach(), reference[name].to(own[name]))]
    if not names:
        raise InputError("the reference has the model's own weights: there is no difference to follow")
    batches, plan = kept(batches), as_plan(plan, design)
    error = measured(model, batches, plan).equivariance
    with untouched(model):
        delta = [own[name].detach() - reference[name].to(own[name]) for name in names]
        with torch.no_grad():
            for name in names:
                own[name].copy_(reference[name])
        rest = measured(model, batches, plan).equivariance
        form = _tangent_variance(model, [own[name] for name in names], delta, batches, plan)
    distance = float(sum(part.double().square().sum() for part in delta))
    return {"form": form, "equivariance": error, "at_reference": rest, "distance": distance}


def _tangent_variance(
    model: nn.Module,
    parameters: list[nn.Parameter],
    delta: list[Tensor],
    batches: Sequence[Any],
    plan: Plan,
) -> float:
    declaration = plan.declaration
    flags = [p.requires_grad for p in parameters]
    values: dict[str, list[SampleValues]] = {name: [] for name in declaration.outputs}
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        prepared = prepared_batches(batches, plan)
        first = prepared[0].batch
        forward = keeping_graphs(
            plan.forward, lambda: predict(model, first.with_fields({}), first, declaration, plan.forward)
        )
        for fixed in prepared:
            splits: dict[str, OutputSplit] = {}
            for one in fixed.passes:
                with torch.enable_grad():
                    native = rotated(fixed.batch, one.turns, declaration)
                    answer = predict(model, native, fixed.batch, declaration, forward, turned=True)
                    moved = _directional(answer, parameters, delta)
                back = rotated_back(moved, fixed.batch, one.turns, declaration, linear=True)
                rows = {name: output.coordinates(back[name].detach()) for name, output in fixed.outputs.items()}
                add_pass(splits, fixed.outputs, rows, one.weight, one.last_of_coset)
            for name, split in splits.items():
                values[name].append(split.values(plan.design.lone))
    finally:
        for parameter, flag in zip(parameters, flags, strict=True):
            parameter.requires_grad_(flag)
    pooled = pooled_equivariance({name: SampleValues.cat(parts) for name, parts in values.items()}, declaration)
    return float(pooled.mean())


def _directional(
    answer: Mapping[str, Tensor], parameters: list[nn.Parameter], delta: list[Tensor]
) -> dict[str, Tensor]:
    """J delta of every output: J^T u is linear in u, and its derivative along delta is J delta."""
    moved = {}
    for name, rows in answer.items():
        dummy = torch.zeros_like(rows, requires_grad=True)
        try:
            pulled = torch.autograd.grad(rows, parameters, dummy, create_graph=True, allow_unused=True)
            along = sum(
                (p * d).sum() for p, d in zip(pulled, delta, strict=True) if p is not None and p.grad_fn is not None
            )
            if not isinstance(along, Tensor):
                raise InputError(
                    f"output {name!r} does not depend on the weights in which the reference differs, or not "
                    "differentiably: declare the others alone"
                )
            moved[name] = torch.autograd.grad(along, dummy)[0]
        except RuntimeError as error:
            raise InputError(
                f"output {name!r} cannot be differentiated twice by the weights ({error}): switch fused attention to "
                "its math kernel, and detach nothing on the way"
            ) from error
    return moved
