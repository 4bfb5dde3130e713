"""Run a model over rotated copies of its samples and rotate the answers back: p_g(x) = g^-1 f(g x).

An orbit is a loop of such passes, not a bigger batch: memory does not grow with the number of rotations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from equiscope.decomposition.batches import Batch, Rows
from equiscope.errors import DeclarationError, InputError
from equiscope.symmetry.declaration import Declaration

Forward = Callable[[Any, Any], Any]


def rotated(batch: Batch, rotations: Tensor, declaration: Declaration) -> Any:
    """The batch as the model is called with it, each sample i turned by rotations[i] about its centre.

    Positions become R (x - c) + c, other declared inputs D(R) x, in float64 and then the field's own dtype;
    padding is left as it is.
    """
    changed: dict[str, Tensor] = {}
    centers = center(batch, declaration)
    for name, spec in declaration.inputs.items():
        values, action = batch.fields()[name], spec.action
        is_points = name in declaration.points
        rows = input_rows(batch, name, declaration)
        selected = rows.select(values, action.shape).double()
        turning = rotations[rows.sample]
        if is_points and centers is not None:
            middle = centers[rows.sample][:, None, :]
            selected = action.act(turning, selected - middle) + middle
        else:
            selected = action.act(turning, selected)
        changed[name] = rows.scatter(selected, values, fill=values).to(values.dtype)
    return batch.with_fields(changed)


def input_rows(batch: Batch, name: str, declaration: Declaration) -> Rows:
    """The rows of an input that rotate: real atoms of masked positions, every entry of anything else."""
    masked = name in declaration.points and declaration.mask is not None
    return batch.rows(name, "atom" if masked else "any", declaration.mask if masked else None)


def center(batch: Batch, declaration: Declaration) -> Tensor | None:
    """The point (samples, 3) about which each sample turns, float64; None for the origin."""
    if declaration.center == "origin":
        return None
    if declaration.center == "mean":
        name = declaration.points[0]
        rows = input_rows(batch, name, declaration)
        points = rows.select(batch.fields()[name], (3,)).double()
        sums = torch.stack([rows.sum(points[..., i].sum(1)) for i in range(3)], dim=-1)
        return sums / (rows.counts * points.shape[1])[:, None]
    return batch.fields()[declaration.center].double().reshape(batch.size, 3)


def predict(
    model: Any, native: Any, batch: Batch, declaration: Declaration, forward: Forward | None
) -> dict[str, Tensor]:
    """The declared outputs of one model call as real rows (n, c, *shape) in the model's dtype.

    Raises:
        DeclarationError: if a declared output is missing or its shape does not fit its action.
    """
    answer = forward(model, native) if forward is not None else model(native)
    # Copies: a model may answer every call in the same memory (CUDA graphs do).
    return {k: rows_of(v, k, batch, declaration).clone() for k, v in outputs_of(answer, declaration).items()}


def outputs_of(answer: Any, declaration: Declaration) -> dict[str, Tensor]:
    """The declared outputs by name from a model's answer: a dict, an object with attributes, or the only tensor.

    Raises:
        DeclarationError: if a declared output is missing or no tensor.
    """
    if isinstance(answer, Tensor):
        if len(declaration.outputs) > 1:
            raise DeclarationError(
                f"the model returned one tensor, but the outputs {sorted(declaration.outputs)} are declared: "
                "return a dict, or use forward=lambda model, batch: {...}"
            )
        return {next(iter(declaration.outputs)): answer}
    found: dict[str, Tensor] = {}
    for name in declaration.outputs:
        value = answer.get(name) if isinstance(answer, Mapping) else getattr(answer, name, None)
        if not isinstance(value, Tensor):
            known = sorted(answer) if isinstance(answer, Mapping) else type(answer).__name__
            raise DeclarationError(f"the model's answer has no tensor {name!r}; it has {known}")
        found[name] = value
    return found


def rows_of(value: Tensor, name: str, batch: Batch, declaration: Declaration, what: str = "") -> Tensor:
    """Real rows of a tensor shaped like output ``name`` (the output itself, or its target, named by ``what``)."""
    spec = declaration.outputs[name]
    shape = spec.action.shape
    rows = batch.rows(name, spec.per, spec.mask)
    what = what or f"output {name!r}"
    if shape != (1,) and (tuple(value.shape[-len(shape) :]) != shape or value.ndim <= len(shape)):
        raise DeclarationError(
            f"{what} is declared {spec.action.label!r} with trailing shape {shape}, got {tuple(value.shape)}"
        )
    if value.numel() == 0:
        raise DeclarationError(f"{what} has no entries: shape {tuple(value.shape)}")
    if spec.mask is not None and rows.leading == 2:
        expected = tuple(batch.fields()[spec.mask].shape)
        if tuple(value.shape[:2]) != expected:
            raise DeclarationError(
                f"{what} is declared per atom with mask {spec.mask!r} {expected}, got {tuple(value.shape)}; "
                "for one value a sample declare per='sample'"
            )
    elif rows.leading == 1 and rows.index is None and value.shape[:1] != (len(rows.sample),):
        raise DeclarationError(f"{what} has {tuple(value.shape)}, expected {len(rows.sample)} rows first")
    if not value.is_floating_point():
        raise InputError(f"{what} must be floating, got {value.dtype}")
    return rows.select(value, shape)


def rotated_back(
    values: Mapping[str, Tensor], batch: Batch, rotations: Tensor, declaration: Declaration
) -> dict[str, Tensor]:
    """g^-1 applied to each output's rows, in float64."""
    inverse = rotations.mT
    back: dict[str, Tensor] = {}
    for name, rows in values.items():
        spec = declaration.outputs[name]
        sample = batch.rows(name, spec.per, spec.mask).sample
        back[name] = spec.action.act(inverse[sample], rows)
    return back


def twisted(
    model: Any, batch: Batch, rotations: Tensor, declaration: Declaration, forward: Forward | None = None
) -> dict[str, Tensor]:
    """The twisted predictions p_g = g^-1 f(g x) of every declared output, rows (n, c, *shape) in float64.

    rotations: (samples, 3, 3) float64, one per sample, on the batch's device.
    """
    native = rotated(batch, rotations, declaration)
    return rotated_back(predict(model, native, batch, declaration, forward), batch, rotations, declaration)
