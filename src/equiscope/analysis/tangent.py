"""The equivariance error near a symmetric point: the quadratic form of the orbit covariance of the derivative.

With theta* a symmetric set of weights, delta = theta - theta* and J_g the derivative at theta* of the twisted
prediction,

    L_equiv(theta) = delta^T G delta + O(delta^3),      G = E Cov_g(J_g),

so that lambda_min |delta|^2 <= L_equiv <= lambda_max |delta|^2: how far the weights are from symmetric says little
until one says in which direction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from equiscope.analysis.heads import refuse_other_losses
from equiscope.analysis.parts import Parts
from equiscope.decomposition.batches import kept
from equiscope.decomposition.measure import measured
from equiscope.decomposition.plan import Plan, as_plan, declared
from equiscope.decomposition.preserve import untouched
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

    J_g is the derivative of the twisted prediction at theta*, applied as half a Gauss-Newton product of the
    equivariance error; nothing of the size of G is ever held. Exact where the answer is linear in what differs; else
    the error is of third order in delta. Rotations, weights and means are those of :func:`equiscope.measure` with the
    same arguments.

    Args:
        plan: what is measured, or a declaration with ``forward, rotations, cosets, seed`` as for
            :func:`equiscope.measure`.
        model: with the weights theta. reference: the weights theta* of a symmetric model, by parameter name; those left
            out are the model's own.

    Returns:
        ``form``: delta^T G delta; ``equivariance``: L_equiv(theta); ``at_reference``: L_equiv(theta*), zero if theta*
        is symmetric; ``distance``: |delta|^2.

    Raises:
        InputError: for a name or shape the model does not have, a loss other than squared error, and what
            :class:`equiscope.analysis.parts.Parts` refuses.
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
    # Put back afterwards, with the flags of those that were frozen.
    with untouched(model):
        delta = {name: own[name].detach() - reference[name].to(own[name]) for name in names}
        for name in names:
            own[name].requires_grad_(True).detach().copy_(reference[name])
        rest = measured(model, batches, plan).equivariance
        parts = Parts(model, batches, plan, parameters=names)
        along = parts.flat(delta[name] for name in parts.parameters)
        # The Gauss-Newton matrix of E Var_g(p_g) is 2 E Cov_g(J_g).
        form = float(along @ parts.product("equivariance", along, "gauss_newton")) / 2
    return {"form": form, "equivariance": error, "at_reference": rest, "distance": float(along @ along)}
