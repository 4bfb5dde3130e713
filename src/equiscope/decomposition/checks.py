"""What a batch must be before it is measured: every field declared, of the right shape and dtype, and finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from equiscope.decomposition.batches import Batch, Rows, boolean, names
from equiscope.decomposition.losses import loss as find_loss
from equiscope.decomposition.orbit import (
    center,
    check_elements,
    check_plain,
    check_rows,
    has_inner_axis,
    input_rows,
    matrix_remark,
    means_of_points,
    one_a_sample,
    output_rows,
    rows_of,
    sample_means,
    turning_rows,
)
from equiscope.decomposition.samples import SampleValues
from equiscope.errors import DeclarationError, InputError, NonFiniteError
from equiscope.symmetry.declaration import VECTORS, Declaration
from equiscope.words import nearest

# A rotation mixes components: what is this far below the largest number of its dtype cannot overflow.
HEADROOM = 16
# Squares of distances: a centre at least so far from the origin, and means at most so far apart.
FAR, NEAR = 1e-6, 0.02

TOGETHER = (
    "samples see each other: asked without the rest of their batch, some are answered otherwise (batch statistics, "
    "neighbours in other samples?), and the figures are of these batches"
)


def check_inputs(batch: Batch, declaration: Declaration) -> None:
    """Every field that is needed to rotate the batch is there, with the dtype and shape it was declared with.

    Raises:
        DeclarationError: naming the field, what was expected and what was seen.
    """
    fields = batch.fields()
    for name, spec in declaration.inputs.items():
        if name not in fields:
            raise _missing(name, batch)
        values, what = fields[name], f"input {name!r}"
        check_plain(values, what)
        if not values.is_floating_point():
            raise DeclarationError(f"{what} is declared to rotate but has dtype {values.dtype}")
        check_elements(values, spec.action, what)
        if values.numel() == 0 and declaration.rows_of_field(name) == "atom":
            seen = tuple(values.shape)
            raise DeclarationError(f"{what} has no entries: shape {seen}; samples without atoms have no figure")
    for name in _tensors_besides_inputs(declaration):
        _require_tensor(batch, name)
    if batch.dense:
        _check_rows_of_samples(batch, declaration)
        _check_masked(batch, declaration)
    if declaration.center not in ("origin", "mean"):
        seen = tuple(fields[declaration.center].shape)
        if seen not in ((batch.size, 3), (batch.size, 1, 3)):
            raise InputError(f"center {declaration.center!r} must hold a point a sample ({batch.size}, 3), got {seen}")


def _check_rows_of_samples(batch: Batch, declaration: Declaration) -> None:
    """Samples are the first axis: said by per='sample', or shown by a field with an axis for atoms behind it.

    (n, 3) alone may be a point for each of n samples, or the atoms of one sample or several: turning each row by a
    rotation of its own would measure something else without a word.
    """
    fields = batch.fields()
    shapes = {name: spec.action.shape for name, spec in declaration.inputs.items()}
    flat = [name for name, shape in shapes.items() if len(shape) < 3 and not has_inner_axis(fields[name], shape)]
    of_atoms = [name for name in flat if declaration.rows_of_input(name) == "atom"]
    said = "sample" in {*map(declaration.rows_of_input, shapes), *(o.per for o in declaration.outputs.values())}
    known = said or declaration.mask is not None or declaration.center not in ("origin", "mean")
    if known or not set(declaration.points or declaration.inputs) <= set(flat):
        flat = of_atoms
    for name in flat:
        seen, label = tuple(fields[name].shape), declaration.inputs[name].action.label
        raise DeclarationError(
            f"input {name!r} has no axis for atoms, shape {seen}: are its {seen[0]} rows one for each sample, or the "
            f"atoms of fewer samples, which turn together? For one a sample say per='sample', {{{name!r}: "
            f"eq.Input({label!r}, per='sample')}}; for the atoms of one sample give the batch an axis of samples, "
            "[None]; for those of several, one after another, name the field with the sample of each, batch='batch', "
            "or pad them to (samples, atoms, …) with a mask"
        )


def _check_masked(batch: Batch, declaration: Declaration) -> None:
    if declaration.mask is None:
        return
    fields = batch.fields()
    real = fields[declaration.mask]
    for name, spec in declaration.inputs.items():
        if declaration.rows_of_field(name) != "atom":
            continue
        batch.rows(name, "atom", declaration.mask)
        if fields[name].shape[:2] != real.shape or not has_inner_axis(fields[name], spec.action.shape):
            raise DeclarationError(
                f"input {name!r} {tuple(fields[name].shape)} does not fit the mask {declaration.mask!r} "
                f"{tuple(real.shape)}: both are (samples, atoms, …); what has rows for samples is declared per='sample'"
            )


def check_batch(batch: Batch, declaration: Declaration, labels: bool = True) -> None:
    """Every declared field is there and finite where it is real, and every floating field is declared.

    ``labels=False`` is for what is measured without targets: they may be missing or hold anything.

    Raises:
        DeclarationError: naming the missing, misshapen or undeclared field and the remedy.
        NonFiniteError: naming the field and the samples.
        InputError: for class labels that are no class.
    """
    check_inputs(batch, declaration)
    fields = batch.fields()
    for name in declaration.fixed:
        if name not in fields:
            raise _missing(name, batch)
    for output in declaration.outputs.values():
        if output.target is not None and labels:
            _require_tensor(batch, output.target)
    for labels_field in (declaration.ids, declaration.clusters):
        if labels_field is None or labels_field in fields:
            continue
        try:
            batch.labels(labels_field)
        except KeyError:
            raise _missing(labels_field, batch, "field") from None
    floating = {k for k, v in fields.items() if v.is_floating_point() or v.is_complex()}
    unknown = sorted(floating - declaration.known_fields)
    if unknown:
        raise DeclarationError(
            f"the floating fields {unknown} of the batch are neither rotated nor a target nor held fixed: declare each "
            f"as an input (inputs={{'{unknown[0]}': '1o'}}) or say fixed={unknown!r}; what "
            f"holds the labels of an output is its target, target='{unknown[0]}'"
        )
    check_finite(batch, declaration)
    if torn := [k for k in declaration.inputs if declaration.mask_of_outputs and _left_behind(batch, k, declaration)]:
        mask = declaration.mask
        raise DeclarationError(
            f"mask {mask!r} is said of the outputs alone, and behind it {torn[0]!r} holds numbers that differ, as "
            f"padding does not: if it is padding all the same, say mask={mask!r} of the declaration too; if these are "
            "atoms that the loss leaves out, which turn with the others, name the field with all atoms, mask='…', or "
            f"say that every entry turns, {{{torn[0]!r}: eq.Input({declaration.inputs[torn[0]].action.label!r}, "
            "per='sample')}"
        )
    for name in declaration.outputs if labels else ():
        _check_target(batch, name, declaration)


def check_finite(batch: Batch, declaration: Declaration) -> None:
    """What turns, and the centre it turns about, is finite where it is real.

    Raises:
        NonFiniteError: naming the field and the samples.
    """
    fields = batch.fields()
    for name, spec in declaration.inputs.items():
        rows = _rows_needed(batch, name, declaration)
        values = rows.select(fields[name], spec.action.shape)
        limit = torch.finfo(values.dtype).max / HEADROOM
        _refuse(~(values.abs() <= limit), rows, f"input {name!r} is NaN, infinite or too large to turn")
    if declaration.center not in ("origin", "mean"):
        point = fields[declaration.center].reshape(batch.size, 1, 3)
        rows = batch.rows(declaration.center, "sample", None)
        _refuse(~torch.isfinite(point), rows, f"center {declaration.center!r} is NaN or infinite")


def follows_points(values: Tensor, name: str, batch: Batch, declaration: Declaration) -> bool:
    """Whether labels or answers of an output, turned as vectors, lie where the positions of their sample lie.

    By the distance between the means of both in each sample, far less than that of the centre from the origin.
    """
    spec, middle = declaration.outputs[name], center(batch, declaration)
    if middle is None or spec.points is not None or spec.irreps not in VECTORS:
        return False
    off = sample_means(values, output_rows(batch, name, declaration)) - means_of_points(batch, declaration)
    far = middle.square().sum()
    return bool((far > FAR * values.square().mean() * len(middle)) & (off.square().sum() < NEAR * far))


def _tensors_besides_inputs(declaration: Declaration) -> list[str]:
    named = {declaration.mask, *(o.mask for o in declaration.outputs.values())}
    if declaration.center not in ("origin", "mean"):
        named.add(declaration.center)
    return sorted(name for name in named if name)


def _missing(name: str, batch: Batch, kind: str = "tensor") -> DeclarationError:
    fields = batch.fields()
    return DeclarationError(f"the batch has no {kind} {name!r}; it has {names(fields)}{nearest(name, fields)}")


def _require_tensor(batch: Batch, name: str) -> None:
    if name in batch.fields():
        return
    try:
        batch.labels(name)
    except KeyError:
        raise _missing(name, batch, "field") from None
    except InputError:
        pass
    raise DeclarationError(f"field {name!r} of the batch must be a tensor with samples first")


def _rows_needed(batch: Batch, name: str, declaration: Declaration) -> Rows:
    """The rows of an input that must be finite: those that turn, less what may be padding where per is not said.

    What was no padding after all reaches the model, whose answers are checked.
    """
    values = batch.fields()[name]
    if declaration.mask is not None and batch.dense and declaration.rows_of_input(name) == "any":
        same = values.shape[:2] == batch.fields()[declaration.mask].shape
        if same and has_inner_axis(values, declaration.inputs[name].action.shape):
            return batch.rows(name, "atom", declaration.mask)
    return input_rows(batch, name, declaration)


def _check_target(batch: Batch, name: str, declaration: Declaration) -> None:
    spec = declaration.outputs[name]
    if spec.target is None:
        return
    values, loss = batch.fields()[spec.target], find_loss(spec.loss)
    rows = output_rows(batch, name, declaration)
    if loss.classes:
        what = f"target {spec.target!r} of output {name!r}"
        check_rows(values, name, batch, declaration, what)
        _check_classes(rows, values, spec.action.shape[0], what)
    elif values.is_floating_point():
        selected = rows_of(values, name, batch, declaration, f"target {spec.target!r} of output {name!r}")
        remedy = f"or leave what has no label out of the loss, {name!r}: eq.Output(…, mask='…')"
        _refuse(~torch.isfinite(selected), rows, f"target {spec.target!r} is NaN or infinite", remedy)
    elif values.is_complex():
        raise InputError(f"target {spec.target!r} must be real, got {values.dtype}")
    else:
        check_rows(values, name, batch, declaration, f"target {spec.target!r} of output {name!r}")


def _check_classes(rows: Rows, values: Tensor, count: int, what: str) -> None:
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise InputError(f"{what} must be integer classes 0..{count - 1} for cross-entropy, got {values.dtype}")
    real = rows.select(values, (1,))
    wrong = real[(real < 0) | (real >= count)]
    if len(wrong):
        many = f"; for k classes declare the logits 'kx0e', here '{int(real.max()) + 1}x0e'" if count == 1 else ""
        raise InputError(f"{what} holds class {int(wrong[0])}, but there are {count} classes, 0..{count - 1}{many}")


def _refuse(bad: Tensor, rows: Rows, what: str, remedy: str = "or mask the entries that are padding") -> None:
    bad = bad.flatten(1).any(dim=1)
    if bool(bad.any()):
        samples = rows.sample[bad].unique().tolist()
        raise NonFiniteError(
            f"{what} in {len(samples)} of {rows.samples} samples of a batch "
            f"(positions {samples[:5]}): remove these samples, {remedy}"
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


def remarks(
    name: str, given: Tensor, rows: Tensor, labels: Tensor | None, batch: Batch, declaration: Declaration
) -> dict[str, str]:
    """What a reader must know of an output that was answered by ``given``, ``rows`` in its coordinates, by subject."""
    found = {}
    if one_a_sample(batch, name, declaration):
        found[f"{name} per sample"] = (
            f"{name!r} was taken as one row for each sample, as its labels are: per='sample' says so"
        )
    if remark := matrix_remark(given, name, batch, declaration):
        found[f"{name} matrix"] = remark
    vectors = rows if labels is None or labels.shape != rows.shape else labels
    if follows_points(vectors, name, batch, declaration):
        found[name] = (
            f"{name!r} lies where the positions of its sample lie, but was turned as vectors, about the "
            "origin: if it holds positions, declare eq.Output('1o', points=True), otherwise points=False"
        )
    return found


def _left_behind(batch: Batch, name: str, declaration: Declaration) -> bool:
    """Whether entries of an input that do not turn with their sample hold different finite numbers in some sample."""
    if turning_rows(batch, name, declaration).index is None:
        return False
    values, real = batch.fields()[name].flatten(2), boolean(batch.fields()[str(declaration.mask)], "")
    out = (real[..., None] == 0) & values.isfinite()
    low, high = (values.masked_fill(~out, end) for end in (torch.inf, -torch.inf))
    return bool((high.amax(1) > low.amin(1)).any())


def check_figures(name: str, values: SampleValues, ids: list[int], labelled: bool) -> None:
    """Finite figures only: one infinite sample would make a percent of zero out of any data set."""
    causes = [(values.square, f"prediction {name!r} is NaN, infinite or too large to square", "the model")]
    if labelled:
        what = f"the loss of {name!r} is NaN or infinite, for a finite prediction,"
        causes.append((values.total + values.equivariance, what, "the labels and the loss"))
    for figures, what, where in causes:
        refuse_infinite(torch.isfinite(figures), what, where, ids, ", for at least one rotation")


def refuse_infinite(finite: Tensor, what: str, where: str, ids: list[int], when: str) -> None:
    """Refuse a batch of which some samples are not ``finite`` (samples,), by their ids.

    Raises:
        NonFiniteError: saying what is not finite, and where to look.
    """
    if not bool(finite.all()):
        which = [ids[i] for i in (~finite).nonzero().flatten().tolist()]
        raise NonFiniteError(
            f"{what} in {len(which)} of {len(ids)} samples of a batch (ids {which[:5]}){when}: look at {where} on "
            "these samples"
        )
