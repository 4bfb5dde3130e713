"""How strongly training pulls at each part of the loss: unbiased gradient norms, their ratio, cosine and rates."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from equiscope.analysis.pairs import Array, cosine, fieller, figure, mean_value, norm, norm_ratio, pair_product
from equiscope.analysis.parts import HALVES, Parts
from equiscope.decomposition.plan import Plan
from equiscope.errors import InputError
from equiscope.symmetry.declaration import Declaration

MIN_GROUPS = 3


def gradients(
    model: nn.Module,
    batches: Iterable[Any],
    plan: Plan | Declaration,
    *,
    optimizer_state: Mapping[str, Any] | None = None,
    parameters: Sequence[str] | None = None,
    groups: int = 16,
    progress: Callable[[Iterable[int]], Iterable[int]] | None = None,
    **design: Any,
) -> dict[str, Any]:
    """Gradients of the twirled loss and of the equivariance error, compared without sampling bias.

    Batches are dealt into ``groups`` independent groups; with g_T, g_E the mean gradients and <·,·> the unbiased
    product over different groups (:mod:`equiscope.analysis.pairs`):

        norm |g|,   ratio |g_E| / |g_T|,   cosine <g_T, g_E> / (|g_T| |g_E|),   rate <g_part, g_T + g_E> / L_part,

    where the rate is -d log L_part / dt under gradient flow. The same per layer, and with ``optimizer_state`` in Adam's
    metric <a, D b>, D = 1 / (sqrt(v / (1 - beta_2^t)) + eps), the rate then per unit of learning rate.

    Near a quadratic minimum the ratio of norms goes with sqrt(L_E / L_T) whatever the geometry: compare the rates too.

    Args:
        batches: at least three, samples in random order across them (sorted ones make the groups differ by more than
            chance, which biases norms down); a molecule should not be in two of them.
        optimizer_state: ``optimizer.state_dict()`` of an Adam over ``model.parameters()`` in their order.
        groups: at most this many groups are kept in memory, each two vectors of the parameters' size.
        progress: wraps the iteration over batches, as ``tqdm`` does.
        others: as for :class:`equiscope.analysis.parts.Parts`.

    Returns:
        Plain types: ``losses``, ``whole``, ``layers`` (by name), ``adam`` (or None), each of them a dict ``norm`` (by
        part), ``ratio``, ``cosine``, ``rate`` (by part) of ``{"value", "interval"}``, 95 %. A value is NaN where an
        unbiased square is negative, an interval infinite where the denominator is not told from zero.

    Raises:
        InputError: fewer than three batches, an optimizer state that is not Adam's or not this model's, and what
            :class:`Parts` refuses.

    Source: relations between gradients and percent in Shen et al., TMLR 2025; Fieller, J. R. Stat. Soc. B 16 (1954).
    """
    parts = Parts(model, batches, plan, parameters=parameters, **design)
    parts.check_parts(HALVES)
    if len(parts) < MIN_GROUPS or groups < MIN_GROUPS:
        raise InputError(
            f"unbiased products need at least {MIN_GROUPS} independent batches, got {min(len(parts), groups)}: "
            "make them smaller (--batch), or take samples of more clusters, of which each stays together (a molecule)"
        )
    metric = None if optimizer_state is None else adam_metric(model, parts, optimizer_state)
    count = min(groups, len(parts))
    weights, losses = np.zeros(count), np.zeros((2, count))
    kept = torch.zeros(2, count, parts.size, dtype=torch.float64, device=parts.own[0].device)
    for index in (progress or iter)(range(len(parts))):
        group = index % count
        weights[group] += parts.shares[index]
        values, found = parts.batch_values(index), parts.batch_gradient(index, HALVES)
        for row, part in enumerate(HALVES):
            losses[row, group] += values[part]
            kept[row, group] += found[part]
    stacked = kept.flatten(0, 1)
    summarise = functools.partial(_block, weights=weights, losses=losses)
    return {
        **parts.described,
        "groups": count,
        "parameters": parts.size,
        "unused": list(parts.unused),
        "whole": summarise(_gram(stacked)),
        "layers": {name: summarise(_gram(stacked[:, places])) for name, places in _layers(parts).items()},
        "adam": None if metric is None else summarise(_gram(stacked, metric)),
    }


def _gram(vectors: Tensor, metric: Tensor | None = None) -> Array:
    weighted = vectors if metric is None else vectors * metric
    return (weighted @ vectors.T).cpu().numpy()


def _block(gram: Array, weights: Array, losses: Array) -> dict[str, Any]:
    """Norms, ratio, cosine and rates from the products of all groups of both parts, (2 groups, 2 groups)."""
    n = len(weights)
    tt, ee, te, et = (
        pair_product(gram[a : a + n, b : b + n], weights) for a, b in ((0, 0), (n, n), (0, n), (n, 0))
    )
    mixed = (te + et) / 2
    totals = [mean_value(row, weights) for row in losses]
    return {
        "norm": {"twirled": norm(tt), "equivariance": norm(ee), "total": norm(tt + ee + 2 * mixed)},
        "ratio": norm_ratio(ee, tt),
        "cosine": cosine(mixed, tt, ee),
        "rate": {
            part: figure(pull[0] / loss[0] if loss[0] != 0 else float("nan"), fieller(pull, loss))
            for part, pull, loss in zip(HALVES, (tt + mixed, ee + mixed), totals, strict=True)
        },
    }


def _layers(parts: Parts) -> dict[str, slice]:
    """Entries of each layer (the module that owns a parameter) in the flat vectors; owners follow one another."""
    found: dict[str, slice] = {}
    start = 0
    for name, parameter in parts.parameters.items():
        owner = name.rpartition(".")[0] or name
        stop = start + parameter.numel()
        found[owner] = slice(found[owner].start if owner in found else start, stop)
        start = stop
    return found


def adam_metric(model: nn.Module, parts: Parts, state: Mapping[str, Any]) -> Tensor:
    """Diagonal of Adam's preconditioner over the chosen parameters, flat."""
    moments, named = state.get("state", {}), dict(model.named_parameters())
    groups = {index: group for group in state.get("param_groups", []) for index in group["params"]}
    if len(groups) != len(named):
        raise InputError(
            f"the optimizer state has {len(groups)} parameters, the model {len(named)}: give the state_dict of the "
            "optimizer that trained this model"
        )
    found = []
    for (index, group), (name, parameter) in zip(groups.items(), named.items(), strict=True):
        if name not in parts.parameters:
            continue
        own = moments.get(index, {})
        if name in parts.unused and not own:
            found.append(torch.ones_like(parameter).flatten())
            continue
        if "exp_avg_sq" not in own or own["exp_avg_sq"].shape != parameter.shape:
            raise InputError(f"the optimizer state has no Adam moments (exp_avg_sq) of the shape of {name!r}")
        correction = 1 - group["betas"][1] ** float(own["step"])
        scale = (own["exp_avg_sq"].to(parameter.device).double() / correction).sqrt() + group["eps"]
        found.append((1 / scale).flatten())
    return torch.cat([f.double() for f in found])
