"""What a batch must be before it is measured: every field declared, of the right shape and dtype, and finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from equiscope.decomposition.batches import Batch, Rows
from equiscope.decomposition.losses import loss as find_loss
from equiscope.decomposition.orbit import input_rows, rows_of
from equiscope.errors import DeclarationError, InputError, NonFiniteError
from equiscope.symmetry.declaration import Declaration

# A rotation mixes components: what is this far below the largest number of its dtype cannot overflow.
HEADROOM = 16


def check_inputs(batch: Batch, declaration: Declaration) -> None:
    """Every field that is needed to rotate the batch is there, with the dtype and shape it was declared with.

    Raises:
        DeclarationError: naming the field, what was expected and what was seen.
    """
    fields = batch.fields()
    for name, spec in declaration.inputs.items():
        if name not in fields:
            raise DeclarationError(f"the batch has no tensor {name!r}; it has {sorted(fields)}")
        values, shape = fields[name], spec.action.shape
        seen = tuple(values.shape)
        if not values.is_floating_point():
            raise DeclarationError(f"input {name!r} is declared to rotate but has dtype {values.dtype}")
        if shape != (1,) and (seen[-len(shape) :] != shape or len(seen) <= len(shape)):
            raise DeclarationError(
                f"input {name!r} is declared {spec.action.label!r} with trailing shape {shape}, got {seen}"
            )
        if values.numel() == 0:
            raise DeclarationError(f"input {name!r} has no entries: shape {seen}; samples without atoms have no figure")
    for name in _tensors_besides_inputs(declaration):
        _require_tensor(batch, name)
    for name in declaration.points:
        rows = input_rows(batch, name, declaration)
        real = fields[declaration.mask] if declaration.mask is not None else None
        if real is not None and rows.leading == 2 and fields[name].shape[:2] != real.shape:
            raise DeclarationError(
                f"input {name!r} {tuple(fields[name].shape)} does not fit the mask {declaration.mask!r} "
                f"{tuple(real.shape)}: both are (samples, atoms, …)"
            )
    if declaration.center not in ("origin", "mean"):
        seen = tuple(fields[declaration.center].shape)
        if seen not in ((batch.size, 3), (batch.size, 1, 3)):
            raise InputError(f"center {declaration.center!r} must hold a point a sample ({batch.size}, 3), got {seen}")


def check_batch(batch: Batch, declaration: Declaration) -> None:
    """Every declared field is there and finite where it is real, and every floating field is declared.

    Raises:
        DeclarationError: naming the missing, misshapen or undeclared field and the remedy.
        NonFiniteError: naming the field and the samples.
        InputError: for class labels that are no class.
    """
    check_inputs(batch, declaration)
    fields = batch.fields()
    for name in declaration.fixed:
        if name not in fields:
            raise DeclarationError(f"the batch has no tensor {name!r}; it has {sorted(fields)}")
    for output in declaration.outputs.values():
        if output.target is not None:
            _require_tensor(batch, output.target)
    for name in {declaration.ids, declaration.clusters} - set(fields) - {None}:
        try:
            batch.labels(str(name))
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
        rows = _real_rows(batch, name, declaration)
        values = rows.select(fields[name], spec.action.shape)
        limit = torch.finfo(values.dtype).max / HEADROOM
        _refuse(~(values.abs() <= limit), rows, f"input {name!r} is NaN, infinite or too large to turn")
    if declaration.center not in ("origin", "mean"):
        point = fields[declaration.center].reshape(batch.size, 1, 3)
        rows = batch.rows(declaration.center, "sample", None)
        _refuse(~torch.isfinite(point), rows, f"center {declaration.center!r} is NaN or infinite")
    for name in declaration.outputs:
        _check_target(batch, name, declaration)


def _tensors_besides_inputs(declaration: Declaration) -> list[str]:
    named = {declaration.mask, *(o.mask for o in declaration.outputs.values())}
    if declaration.center not in ("origin", "mean"):
        named.add(declaration.center)
    return sorted(name for name in named if name)


def _require_tensor(batch: Batch, name: str) -> None:
    fields = batch.fields()
    if name in fields:
        return
    try:
        batch.labels(name)
    except KeyError:
        raise DeclarationError(f"the batch has no field {name!r}; it has {sorted(fields)}") from None
    except InputError:
        pass
    raise DeclarationError(f"field {name!r} of the batch must be a tensor with samples first")


def _real_rows(batch: Batch, name: str, declaration: Declaration) -> Rows:
    """The rows of an input that are not padding: those of the mask for anything laid out like the mask."""
    fields, mask = batch.fields(), declaration.mask
    if mask is not None and fields[mask].ndim == 2 and fields[name].shape[:2] == fields[mask].shape:
        return batch.rows(name, "atom", mask)
    return input_rows(batch, name, declaration)


def _check_target(batch: Batch, name: str, declaration: Declaration) -> None:
    spec = declaration.outputs[name]
    if spec.target is None:
        return
    values, loss = batch.fields()[spec.target], find_loss(spec.loss)
    rows = batch.rows(name, spec.per, spec.mask)
    if loss.classes:
        _check_classes(rows, values, spec.action.shape[0], f"target {spec.target!r} of output {name!r}")
    elif values.is_floating_point():
        selected = rows_of(values, name, batch, declaration, f"target {spec.target!r} of output {name!r}")
        _refuse(~torch.isfinite(selected), rows, f"target {spec.target!r} is NaN or infinite")
    elif values.is_complex():
        raise InputError(f"target {spec.target!r} must be real, got {values.dtype}")


def _check_classes(rows: Rows, values: Tensor, count: int, what: str) -> None:
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise InputError(f"{what} must be integer classes 0..{count - 1} for cross-entropy, got {values.dtype}")
    real = rows.select(values, (1,))
    wrong = real[(real < 0) | (real >= count)]
    if len(wrong):
        raise InputError(f"{what} holds class {int(wrong[0])}, but there are {count} classes, 0..{count - 1}")


def _refuse(bad: Tensor, rows: Rows, what: str) -> None:
    bad = bad.flatten(1).any(dim=1)
    if bool(bad.any()):
        samples = rows.sample[bad].unique().tolist()
        raise NonFiniteError(
            f"{what} in {len(samples)} of {rows.samples} samples of a batch "
            f"(positions {samples[:5]}): remove these samples, or mask the entries that are padding"
        )


def one_each(values: list[Any], name: str, size: int) -> list[Any]:
    """The label of each sample (cluster or id), plain: a tensor or array of one element counts as that number.

    Raises:
        InputError: if there is not one hashable value a sample, or one is NaN (which is not equal to itself).
    """
    if len(values) != size:
        raise InputError(f"field {name!r} must hold one value a sample ({size}), it holds {len(values)}")
    plain = [_plain(value) for value in values]
    for value in plain:
        try:
            hash(value)
        except TypeError:
            raise InputError(
                f"field {name!r} must hold one plain value a sample (number or string), got {value!r}"
            ) from None
        if value != value:
            raise InputError(f"field {name!r} holds {value!r}, which names nothing: give every sample a value")
    return plain


def _plain(value: Any) -> Any:
    """The Python value of a scalar in an array; tensors, which hash by identity, would each be a label of their own."""
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return value.item() if value.shape in ((), (1,)) else value.tolist()
    return value
