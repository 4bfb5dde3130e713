"""Run a model over rotated copies of its samples and rotate the answers back: p_g(x) = g^-1 f(g x).

An orbit is a loop of such passes, not a bigger batch: memory does not grow with the number of rotations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from equiscope.decomposition.batches import Batch, Rows
from equiscope.errors import DeclarationError, InputError, NonFiniteError
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
    if isinstance(answer, Tensor):
        if len(declaration.outputs) > 1:
            raise DeclarationError(
                f"the model returned one tensor, but the outputs {sorted(declaration.outputs)} are declared: "
                "return a dict, or use forward=lambda model, batch: {...}"
            )
        answer = {next(iter(declaration.outputs)): answer}
    return {name: _output_rows(answer, name, batch, declaration) for name in declaration.outputs}


def _output_rows(answer: Any, name: str, batch: Batch, declaration: Declaration) -> Tensor:
    value = answer.get(name) if isinstance(answer, Mapping) else getattr(answer, name, None)
    if not isinstance(value, Tensor):
        known = sorted(answer) if isinstance(answer, Mapping) else type(answer).__name__
        raise DeclarationError(f"the model's answer has no tensor {name!r}; it has {known}")
    return rows_of(value, name, batch, declaration)


def rows_of(value: Tensor, name: str, batch: Batch, declaration: Declaration) -> Tensor:
    """Real rows of a tensor shaped like output ``name`` (the output itself, or its target)."""
    spec = declaration.outputs[name]
    shape = spec.action.shape
    rows = batch.rows(name, spec.per, spec.mask)
    if shape != (1,) and tuple(value.shape[-len(shape) :]) != shape:
        raise DeclarationError(
            f"output {name!r} is declared {spec.action.label!r} with trailing shape {shape}, got {tuple(value.shape)}"
        )
    if spec.mask is not None and rows.leading == 2:
        expected = tuple(batch.fields()[spec.mask].shape)
        if tuple(value.shape[:2]) != expected:
            raise DeclarationError(
                f"output {name!r} is declared per atom with mask {spec.mask!r} {expected}, got {tuple(value.shape)}; "
                "for one value a sample declare per='sample'"
            )
    elif rows.leading == 1 and rows.index is None and value.shape[:1] != (len(rows.sample),):
        raise DeclarationError(f"output {name!r} has {tuple(value.shape)}, expected {len(rows.sample)} rows first")
    if not value.is_floating_point():
        raise InputError(f"{name!r} must be floating, got {value.dtype}")
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


def check_batch(batch: Batch, declaration: Declaration) -> None:
    """Every declared field is there and finite where it is real, and every floating field is declared.

    Raises:
        DeclarationError: naming the missing or undeclared field and the remedy.
        NonFiniteError: naming the field and the samples.
    """
    fields = batch.fields()
    for name in (*declaration.inputs, *declaration.fixed):
        if name not in fields:
            raise DeclarationError(f"the batch has no tensor {name!r}; it has {sorted(fields)}")
    for name in declaration.known_fields - set(declaration.inputs) - set(declaration.fixed):
        try:
            batch.labels(name) if name not in fields else None
        except KeyError:
            raise DeclarationError(f"the batch has no field {name!r}; it has {sorted(fields)}") from None
    floating = {k for k, v in fields.items() if v.is_floating_point() or v.is_complex()}
    unknown = sorted(floating - declaration.known_fields)
    if unknown:
        raise DeclarationError(
            f"the floating fields {unknown} of the batch are neither rotated nor a target nor held fixed: declare each "
            f"as an input (inputs={{'{unknown[0]}': '1o'}}) or say fixed={unknown!r}"
        )
    for name, spec in declaration.inputs.items():
        if not fields[name].is_floating_point():
            raise DeclarationError(f"input {name!r} is declared to rotate but has dtype {fields[name].dtype}")
        shape = spec.action.shape
        if shape != (1,) and tuple(fields[name].shape[-len(shape) :]) != shape:
            raise DeclarationError(
                f"input {name!r} is declared {spec.action.label!r} with trailing shape {shape}, "
                f"got {tuple(fields[name].shape)}"
            )
        if name in declaration.points:
            _check_finite(input_rows(batch, name, declaration), fields[name], shape, f"input {name!r}")
    for name, output in declaration.outputs.items():
        if output.target is not None and fields[output.target].is_floating_point():
            rows = batch.rows(name, output.per, output.mask)
            values = rows_of(fields[output.target], name, batch, declaration)
            _finite_rows(rows, values, f"target {output.target!r}")


def _check_finite(rows: Rows, values: Tensor, shape: tuple[int, ...], what: str) -> None:
    _finite_rows(rows, rows.select(values, shape), what)


def _finite_rows(rows: Rows, values: Tensor, what: str) -> None:
    bad = ~torch.isfinite(values).flatten(1).all(dim=1)
    if bool(bad.any()):
        samples = rows.sample[bad].unique().tolist()
        raise NonFiniteError(
            f"{what} is NaN or infinite in {len(samples)} of {rows.samples} samples of a batch "
            f"(positions {samples[:5]}): remove these samples, or mask the entries that are padding"
        )
