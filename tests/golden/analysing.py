"""Analyses of both losses: curvature, gradients, landscapes, heads, layers, conditioning, tangents, relations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

import equiscope as eq
from equiscope.analysis.gradients import gradients
from equiscope.analysis.heads import commutant_projection, head_form, heads, orbit_moment, row_deviation
from equiscope.analysis.hessian import CurvatureOperator, hessian, largest_eigenvalue
from equiscope.analysis.landscape import landscape, roughness
from equiscope.analysis.layers import layers
from equiscope.analysis.linear_head import linear_head
from equiscope.analysis.parts import Parts
from equiscope.analysis.relations import relation
from equiscope.analysis.tangent import tangent_form
from tests.golden.models import Layered, Net, Rows, cut, molecules, numbers
from tests.golden.registry import case

FORCES = eq.Declaration({"pos": "1o"}, {"forces": eq.Output("1o", target="forces")}, ids="id", clusters="family")
MASKED = eq.Declaration(
    {"pos": "1o"},
    {"forces": eq.Output("1o", target="forces", weight=2.0),
     "energy": eq.Output("0e", target="energy", per="sample", weight=0.5)},
    center="mean", mask="real", ids="id", clusters="family",
)  # fmt: skip
NORMED = eq.Declaration({"pos": "1o"}, {"forces": eq.Output("1o", target="forces", loss="l2_norm")}, ids="id")


def given(size: int, count: int = 12, *fields: str) -> list[dict[str, Any]]:
    """Batches of the declared fields; analyses take each as an independent unit, so their size matters."""
    return cut(molecules(count), size, "pos", "forces", "id", *(fields or ("family",)))


def masked(size: int) -> list[dict[str, Any]]:
    return given(size, 12, "energy", "real", "family")


def flat(found: Any, name: str = "") -> dict[str, Any]:
    """Nested findings by path; a dict with a ``value`` is one vector with its interval and whatever else it holds."""
    if not isinstance(found, Mapping):
        return {name: found}
    if "value" in found:
        figures = {k: v for k, v in found.items() if _figures(v)}
        rest = {k: v for k, v in found.items() if k not in figures}
        entries = {name: list(figures.values())}
        return {**entries, **{k: v for key, part in rest.items() for k, v in flat(part, f"{name}.{key}").items()}}
    return {k: v for key, part in found.items() for k, v in flat(part, f"{name}.{key}" if name else str(key)).items()}


def _figures(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_figures(v) for v in value)
    return isinstance(value, float | np.ndarray | torch.Tensor)


def vector(count: int) -> torch.Tensor:
    return numbers(count, start=20_000)


# The losses as functions of the parameters.
def parts_of(parts: Parts, kinds: tuple[str, ...] = ("hessian", "gauss_newton")) -> dict[str, Any]:
    v = vector(parts.size)
    entries: dict[str, Any] = {"values": list(parts.values.values()), "size": parts.size, "samples": parts.samples}
    for name, gradient in parts.gradient(("twirled", "equivariance", "total")).items():
        entries[f"gradient.{name}"] = gradient
        for kind in kinds:
            entries[f"{kind}.{name}"] = parts.product(name, v, kind)
    for index in range(len(parts)):
        entries[f"batch_{index}.values"] = list(parts.batch_values(index).values())
    entries["shifted"] = list(parts.batch_values(0, 0.1 * v).values())
    return entries


@case(4)
def parts(size: int) -> Mapping[str, Any]:
    return parts_of(Parts(Net(3), given(size), FORCES, rotations="D2"))


@case(4)
def parts_of_several_outputs(size: int) -> Mapping[str, Any]:
    return parts_of(Parts(Net(3, mask=True), masked(size), MASKED, cosets=2, rotations="D2", memory="pass", seed=3))


@case(6)
def parts_of_the_vector_norm(size: int) -> Mapping[str, Any]:
    return parts_of(Parts(Net(3), given(size, 12, "id"), NORMED, cosets=4, rotations="D2"), ("hessian",))


@case(6)
def parts_of_one_coset(size: int) -> Mapping[str, Any]:
    named = ["inward", "outward"]
    return parts_of(Parts(Net(3), given(size), FORCES, cosets=1, rotations="O", parameters=named, memory="batch"))


@case(6)
def parts_of_one_rotation(size: int) -> Mapping[str, Any]:
    found = Parts(Net(3), given(size), FORCES, cosets=1, rotations="haar")
    return {"total": found.values["total"], "gradient": found.gradient(("total",))["total"],
            "hessian": found.product("total", vector(found.size))}  # fmt: skip


# Curvature.
@case(4)
def curvature(size: int) -> Mapping[str, Any]:
    return _spectra(hessian(Layered(), given(size), FORCES, rotations="D2", tolerance=1e-8, depth=8, probes=3))


@case(4)
def curvature_of_one_coset(size: int) -> Mapping[str, Any]:
    return _spectra(hessian(Net(mask=True), masked(size), MASKED, rotations="D2", cosets=1, tolerance=1e-6, depth=8,
                            probes=2, which=("equivariance", "total"), kinds=("hessian",), bias=False))  # fmt: skip


def _spectra(found: dict[str, Any]) -> dict[str, Any]:
    """Quantiles of one spectrum are one vector, and their conditioning is the inverse: small ones are cancellations.

    Of the density every eighth point is kept.
    """
    parts = {}
    for part, kinds in found["parts"].items():
        for kind, figures in kinds.items():
            quantiles = [v for q in figures["quantiles"].values() for v in (q["value"], *q["interval"])]
            inverse = [1 / v for v in figures["conditioning"].values()]
            density = {k: v[::8] if isinstance(v, list) else v for k, v in figures["density"].items()}
            ends = [figures["lambda_max"]["value"], figures["smallest_ritz"]]
            parts[f"{part}.{kind}"] = {**figures, "quantiles": quantiles, "conditioning": inverse, "density": density,
                                       "smallest_ritz": ends}  # fmt: skip
    return flat({**found, "parts": parts})


@case(4)
def largest(size: int) -> Mapping[str, Any]:
    operator = CurvatureOperator(Parts(Layered(), given(size), FORCES, rotations="D2"), "equivariance")
    found = largest_eigenvalue(operator, tolerance=1e-8, seed=1)
    along = found.pop("vector")
    # An eigenvector is known up to its sign.
    return {**flat(found), "vector": along * torch.sign(along[along.abs().argmax()])}


# Gradients.
def adam_state(model: nn.Module) -> dict[str, Any]:
    """As torch's Adam would keep it after 50 steps."""
    kept = {
        i: {"step": torch.tensor(50.0), "exp_avg": torch.zeros_like(p),
            "exp_avg_sq": (0.1 + numbers(*p.shape, start=21_000 + 50 * i)) ** 2}
        for i, p in enumerate(model.parameters())
    }  # fmt: skip
    group = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "params": list(kept)}
    return {"state": kept, "param_groups": [group]}


@case(2)
def pulls(size: int) -> Mapping[str, Any]:
    model = Layered()
    return flat(gradients(model, given(size), FORCES, rotations="D2", optimizer_state=adam_state(model)))


@case(2)
def pulls_of_several_outputs(size: int) -> Mapping[str, Any]:
    return flat(gradients(Net(mask=True), masked(size), MASKED, groups=3, parameters=["inward", "energy"]))


# Landscapes.
@case(4)
def landscape_of_eigenvectors(size: int) -> Mapping[str, Any]:
    found = landscape(Layered(), given(size), FORCES, points=7, plane_points=5, rotations="D2", tolerance=1e-8)
    return _landscape(found)


@case(4)
def landscape_of_gradients(size: int) -> Mapping[str, Any]:
    model = Layered()
    own = {name: numbers(*p.shape, start=22_000) for name, p in model.named_parameters()}
    found = landscape(model, given(size), FORCES, directions=["gradient:total", own, "random:3"], points=9, span=0.2,
                      plane=False, rotations="D2")  # fmt: skip
    return _landscape(found)


def _landscape(found: dict[str, Any]) -> dict[str, Any]:
    """Without ``rounding``, which is rounding itself; axes that are eigenvectors point either way."""
    return flat({k: v for k, v in found.items() if k != "rounding"})


@case(4)
def rough(size: int) -> Mapping[str, Any]:
    values, weights = 1 + 0.1 * numbers(11, size, start=23_000), np.full(size, 1 / size)
    plane = 1 + 0.1 * numbers(7, 7, size, start=24_000)
    return {"line": list(roughness(values.numpy(), weights).values()),
            "plane": list(roughness(plane.numpy(), weights).values())}  # fmt: skip


# Heads.
@case(4)
def head_of_rows(size: int) -> Mapping[str, Any]:
    return flat(heads(Rows(), given(size), FORCES))


@case(4)
def head_of_a_network(size: int) -> Mapping[str, Any]:
    return flat(heads(Layered(), given(size), FORCES, rotations="O", seed=2, probes=4))


@case(4)
def head_maps(_: int) -> Mapping[str, Any]:
    inputs, outputs = "3x0e+2x1o+1x2e", "1x0e+2x1o"
    weight, factor = numbers(7, 14, start=25_000), numbers(14, 14, start=26_000)
    moment = orbit_moment(factor @ factor.T, inputs)
    return {"projection": commutant_projection(weight, inputs, outputs), "moment": moment,
            "form": head_form(weight, moment, inputs, outputs), "rows": row_deviation(weight[:3])}  # fmt: skip


@case(4)
def conditioning(size: int) -> Mapping[str, Any]:
    return _conditions(linear_head(Layered(), given(size, 24), FORCES, "head", rank_tolerance=1e-3))


@case(6)
def conditioning_of_one_coset(size: int) -> Mapping[str, Any]:
    return _conditions(linear_head(Layered(), given(size, 24), FORCES, "head", rotations="I", cosets=1, seed=4,
                                   rank_tolerance=1e-3))  # fmt: skip


def _conditions(found: dict[str, Any]) -> dict[str, Any]:
    """Condition numbers as the smallest eigenvalue over the largest: it is known to a rounding of the largest.

    Left out: the interval of their ratio, a jackknife of logarithms of small eigenvalues.
    """
    parts = {}
    for name, figures in found["parts"].items():
        inverse = [1.0, *(1 / v for v in (figures["condition"], *figures["interval"]))]
        parts[name] = {k: v for k, v in figures.items() if k not in ("condition", "interval")} | {"inverse": inverse}
    return flat({**found, "parts": parts, "ratio": [1.0, found["ratio"]["value"]]})


# Layers, tangents, relations.
def _layers(found: dict[str, Any]) -> dict[str, Any]:
    entries: dict[str, Any] = {"names": [layer["name"] for layer in found["layers"]],
                               "skipped": [str(v) for v in found["skipped"]]}  # fmt: skip
    for layer in found["layers"]:
        name = layer["name"]
        entries[f"{name}.sizes"] = [layer["width"], layer["degrees"]]
        entries[f"{name}.figures"] = [float(layer["variance"]), float(layer["rows"])]
        entries[f"{name}.shares"] = [layer[k] for k in ("share", "remainder", "error", "remainder_error")]
    return entries


@case(4, 12)
def by_layer(size: int) -> Mapping[str, Any]:
    return _layers(layers(Layered(), given(size), FORCES, names=["*"], rotations="T", rows=3))


@case(4, 12)
def by_layer_masked(size: int) -> Mapping[str, Any]:
    return _layers(layers(Net(mask=True), masked(size), MASKED, degrees=4, cosets=3, seed=1))


@case(4, 12)
def tangent(size: int) -> Mapping[str, Any]:
    model, symmetric = Layered(), Layered()
    with torch.no_grad():
        reference = {name: p.clone() for name, p in symmetric.named_parameters() if name.startswith("head")}
        for p in reference.values():
            p.zero_()
    return {k: float(v) for k, v in tangent_form(model, reference, given(size), FORCES).items()}


@case(4)
def relations(_: int) -> Mapping[str, Any]:
    steps = [0.0, *(float(2**i) for i in range(12))]
    first = [None, *(100 * 0.8**i * (1 + 0.3 * float(v)) for i, v in enumerate(numbers(12, start=27_000)))]
    second = [1.0, *(3 * 0.7**i * (1 + 0.4 * float(v)) for i, v in enumerate(numbers(12, start=28_000)))]
    second[5] = -1.0
    return flat(relation(steps, first, second))
