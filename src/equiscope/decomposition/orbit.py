"""Run a model over rotated copies of its samples and rotate the answers back: p_g(x) = g^-1 f(g x).

Positions turn about the centre c of their sample, g (x - c) + c, among the inputs and among the outputs alike; anything
else by its action alone.

An orbit is a loop of such passes, of which several may share a call (:mod:`equiscope.decomposition.fold`): memory does
not grow with the number of rotations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from equiscope.decomposition.batches import Batch, Rows
from equiscope.decomposition.calling import Call, found_outputs, how_called, needs_gradient, other_irreps
from equiscope.errors import DeclarationError, EquiscopeError, InputError, ModelError, around, first_line
from equiscope.symmetry.actions import Action
from equiscope.symmetry.declaration import VECTORS, Declaration, Output

Forward = Callable[[Any, Any], Any]


def check_forward(forward: Any) -> None:
    """How a model is called is None or a function.

    Raises:
        InputError: with what was given.
    """
    if forward is not None and not callable(forward):
        raise InputError(f"forward must be a function forward(model, batch), got {forward!r}")


class Caller:
    """Calls the model without gradients, or with them once it turns out to need them (gradient forces)."""

    def __init__(self, forward: Forward | None, declaration: Declaration | None = None):
        check_forward(forward)
        self.given = forward
        self._call = Call(declaration)
        self._grad = False
        self.calls = 0

    def __call__(self, model: Any, native: Any) -> Any:
        self.calls += 1
        return self._attempt(model, native)

    def _attempt(self, model: Any, native: Any) -> Any:
        try:
            with torch.set_grad_enabled(self._grad):
                return self._run(model, native)
        except RuntimeError as error:
            if not self._grad and needs_gradient(error):
                self._grad = True
                return self._attempt(model, native)
            self._explain(model, native, error)
            raise

    def _run(self, model: Any, native: Any) -> Any:
        if self.given is not None:
            return self.given(model, native)
        if not callable(model):
            raise InputError(f"the model must be callable, or give forward=…; got {type(model).__name__}")
        return self._call(model, native)

    @staticmethod
    def _explain(model: Any, native: Any, error: RuntimeError) -> None:
        """Turn torch's message into one with the remedy: no gradient by the positions, another device or dtype."""
        if needs_gradient(error):
            raise InputError(
                f"the model differentiates by something that requires no gradient ({first_line(error)}): mark the "
                "positions in the model, pos.requires_grad_(), or in the loader"
            ) from error
        parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
        if parameter is None:
            return
        stored = native if isinstance(native, Mapping) else getattr(native, "to_dict", dict)()
        for name, value in stored.items():
            if not isinstance(value, Tensor):
                continue
            if value.device != parameter.device:
                raise InputError(
                    f"batch field {name!r} is on {value.device} but the model is on {parameter.device}: "
                    "move the batch or the model"
                ) from error
            if value.is_floating_point() and value.dtype != parameter.dtype:
                raise InputError(
                    f"batch field {name!r} is {value.dtype} but the model's parameters are {parameter.dtype}: "
                    f"convert the batch, or the model with model.to({value.dtype})"
                ) from error


def rotated(batch: Batch, rotations: Tensor, declaration: Declaration) -> Any:
    """The batch as the model is called with it, each sample i turned by rotations[i] about its centre.

    Positions become R (x - c) + c, other declared inputs D(R) x, in float64 and then the field's own dtype;
    padding is left as it is.
    """
    changed: dict[str, Tensor] = {}
    centers = center(batch, declaration)
    for name, spec in declaration.inputs.items():
        values = batch.fields()[name]
        rows = turning_rows(batch, name, declaration)
        selected = rows.select(values, spec.action.shape)
        middle = centers[rows.sample][:, None, :] if name in declaration.points and centers is not None else None
        selected = turned(spec.action, rotations[rows.sample], selected, middle)
        changed[name] = rows.scatter(selected, values, fill=values).to(values.dtype)
    return batch.with_fields(changed)


def turned(action: Action, rotations: Tensor, values: Tensor, middle: Tensor | None = None) -> Tensor:
    """D(g) x of rows (n, c, *shape), or g (x - c) + c about their centre (n, 1, 3), in float64.

    Actions that have a method ``trusted`` are not asked to check the rotations again, and may keep the rows' dtype.
    """
    values = values if hasattr(action, "trusted") else values.double()
    if middle is None:
        found: Tensor = getattr(action, "trusted", action.act)(rotations, values)
        return found
    return action.act(rotations, values - middle) + middle


def input_rows(batch: Batch, name: str, declaration: Declaration) -> Rows:
    """The rows of an input that rotate: the real atoms of what is per atom, every entry of anything else."""
    per = declaration.rows_of_input(name)
    if per == "atom" or (per == "points" and declaration.mask is not None):
        return batch.rows(name, "atom", declaration.mask)
    return batch.rows(name, "block" if per == "sample" else per, None)


def turning_rows(batch: Batch, name: str, declaration: Declaration) -> Rows:
    """The rows of an input that move with their sample.

    Those of :func:`input_rows`; where atoms stand one after another, without padding, all of them: a mask then says
    which count, and to leave the others behind would tear the sample.
    """
    per = declaration.rows_of_input(name)
    if batch.dense or declaration.mask is None or per not in ("atom", "points"):
        return input_rows(batch, name, declaration)
    return batch.rows(name, per, None)


def one_a_sample(batch: Batch, name: str, declaration: Declaration) -> bool:
    """Whether the labels of an output of which no rows are declared are one for each sample, not one for each atom.

    Known where the atoms of all samples stand one after another; where samples come first it has to be said.
    """
    spec = declaration.outputs[name]
    label = batch.fields().get(spec.target or "")
    if spec.per is not None or label is None or batch.dense:
        return False
    return len(label) == batch.size != batch.rows(name, "atom", None).first


def output_rows(batch: Batch, name: str, declaration: Declaration) -> Rows:
    """The rows of an output, "atom" or "sample" as declared or as its labels have them."""
    spec = declaration.outputs[name]
    if spec.per == "sample" or one_a_sample(batch, name, declaration):
        return batch.rows(name, "sample", None)
    return batch.rows(name, "atom", spec.mask)


def output_middle(batch: Batch, name: str, declaration: Declaration) -> Tensor | None:
    """The centre about which each row of an output of positions turns, (n, 1, 3) float64; None for the origin."""
    spec = declaration.outputs[name]
    centers = center(batch, declaration) if spec.points else None
    return None if centers is None else centers[output_rows(batch, name, declaration).sample][:, None, :]


def center(batch: Batch, declaration: Declaration) -> Tensor | None:
    """The point (samples, 3) about which each sample turns, float64; None for the origin."""
    if declaration.center == "origin":
        return None
    if declaration.center == "mean":
        return means_of_points(batch, declaration)
    return batch.fields()[declaration.center].double().reshape(batch.size, 3)


def means_of_points(batch: Batch, declaration: Declaration) -> Tensor:
    """The mean of each sample's positions, (samples, 3) float64."""
    rows = input_rows(batch, declaration.points[0], declaration)
    return sample_means(rows.select(batch.fields()[declaration.points[0]], (3,)).double(), rows)


def sample_means(points: Tensor, rows: Rows) -> Tensor:
    """The mean of each sample's vectors (n, c, 3), (samples, 3)."""
    sums = torch.stack([rows.sum(points[..., i].sum(1)) for i in range(3)], dim=-1)
    return sums / (rows.counts * points.shape[1])[:, None]


def predict(
    model: Any,
    native: Any,
    batch: Batch,
    declaration: Declaration,
    forward: Forward | None,
    turned: bool = False,
) -> dict[str, Tensor]:
    """The declared outputs of one model call as real rows (n, c, *shape) in the model's dtype.

    ``turned`` says that ``native`` is a turned copy of ``batch``, for the message where the model fails.

    Raises:
        DeclarationError: if a declared output is missing or its shape does not fit its action.
        ModelError: if the model raises an error of its own.
    """
    answer = answer_of(model, native, forward, batch if turned else None)
    # Copies: a model may answer every call in the same memory (CUDA graphs do).
    return {k: rows_of(v, k, batch, declaration).clone() for k, v in found_outputs(answer, declaration).items()}


def answer_of(model: Any, native: Any, forward: Forward | None, given: Batch | None = None) -> Any:
    """What the model answers to a batch; ``given`` is the batch of which ``native`` is a turned copy.

    Raises:
        ModelError: around whatever the model raises, saying whether it answers the batch as it was given.
    """

    def call(batch: Any) -> Any:
        return model(batch) if forward is None else forward(model, batch)

    try:
        return call(native)
    except EquiscopeError:
        raise
    except Exception as error:
        where, hint = "on the batch as it was given", _how_called(model, forward, native, error)
        if given is not None:
            try:
                call(given.with_fields({}))
                where, hint = "on a turned copy of the batch; as given it answers", ""
            except Exception:
                where = "on a turned copy of the batch, and on the batch as it was given"
        text = f"the model fails {where}: {first_line(error)}{hint}"
        raise around(ModelError, text, error) from error


def _how_called(model: Any, forward: Forward | None, native: Any, error: Exception) -> str:
    """What a person who gave no forward=… may not know."""
    if needs_gradient(error):
        return ": it differentiates, so call it where gradients are recorded, not under torch.no_grad()"
    if getattr(forward, "given", forward) is not None or isinstance(error, ImportError):
        return ""
    return f" (called as {how_called(model, native)})"


def rows_of(value: Tensor, name: str, batch: Batch, declaration: Declaration, what: str = "") -> Tensor:
    """Real rows of a tensor shaped like output ``name`` (the output itself, or its target, named by ``what``)."""
    spec = declaration.outputs[name]
    what = what or f"output {name!r}"
    check_plain(value, what)
    check_elements(value, spec.action, what)
    if value.numel() == 0:
        raise DeclarationError(f"{what} has no entries: shape {tuple(value.shape)}")
    rows = check_rows(value, name, batch, declaration, what)
    if not value.is_floating_point():
        raise InputError(f"{what} must be floating, got {value.dtype}")
    label = batch.fields().get(spec.target or "")
    if label is not None and label.is_floating_point() and _exchanged(value.shape, label.shape):
        raise InputError(
            f"{what} has shape {tuple(value.shape)} and its labels {spec.target!r} {tuple(label.shape)}: axes "
            "exchanged? Give both in one order"
        )
    return rows.select(value, spec.action.shape)


def _exchanged(shape: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two shapes are of as many numbers but not of the same order, whatever axes of length one they have."""
    a, b = ([n for n in each if n != 1] for each in (shape, other))
    return a != b and sorted(a) == sorted(b)


def matrix_remark(rows: Tensor, name: str, batch: Batch, declaration: Declaration) -> str:
    """What a reader must know of an output (n, 3, 3) declared as a vector, whose rows turn as vectors; "" otherwise."""
    spec, fields = declaration.outputs[name], batch.fields()
    if spec.irreps not in VECTORS or spec.points is not None or rows.shape[1:] != (3, 3):
        return ""
    # A vector for each of three atoms has the same shape.
    if spec.per != "sample" and any(fields[point].shape[-2:] == (3, 3) for point in declaration.points):
        return ""
    return (
        f"{name!r} holds 3 x 3 numbers and is declared {spec.irreps!r}: its rows turn as vectors, each alone; if it is "
        "a tensor, declare it 'cartesian' (a stress 'stress'), otherwise points=False"
    )


def check_plain(value: Tensor, what: str) -> None:
    """A tensor with a number in every place, which a rotation can be applied to.

    Raises:
        InputError: for nested and sparse tensors, those on the meta device, and floating ones of eight bits.
    """
    if value.is_meta or value.is_nested or value.layout != torch.strided:
        kind = "on the meta device" if value.is_meta else "nested" if value.is_nested else value.layout
        raise InputError(f"{what} must be a dense tensor with values, got one that is {kind}")
    if value.is_floating_point() and value.element_size() < 2:
        raise InputError(f"{what} has dtype {value.dtype}, with which nothing is computed: convert it, x.float()")


def check_elements(value: Tensor, action: Action, what: str) -> None:
    """The last axes of a tensor hold what an action turns, behind at least one axis of rows.

    Raises:
        DeclarationError: otherwise, with what may have been meant.
    """
    seen, shape = tuple(value.shape), action.shape
    if shape != (1,) and (seen[-len(shape) :] != shape or len(seen) <= len(shape)):
        raise DeclarationError(
            f"{what} is declared {action.label!r} with trailing shape {shape}, got {seen}"
            + other_irreps(action.label, seen)
        )


def check_rows(value: Tensor, name: str, batch: Batch, declaration: Declaration, what: str) -> Rows:
    """The rows of a tensor laid out like output ``name``, be it integer or floating.

    Raises:
        DeclarationError: if its first axes are not those rows.
    """
    spec = declaration.outputs[name]
    rows = output_rows(batch, name, declaration)
    if spec.mask is not None and rows.leading == 2:
        expected = tuple(batch.fields()[spec.mask].shape)
        inner = not value.is_floating_point() or has_inner_axis(value, spec.action.shape)
        if tuple(value.shape[:2]) != expected or not inner:
            raise DeclarationError(
                f"{what} is declared per atom with mask {spec.mask!r} {expected}, got {tuple(value.shape)}; "
                "for one value a sample declare per='sample'"
            )
    elif rows.leading == 1 and value.shape[:1] != (rows.first,):
        raise DeclarationError(
            f"{what} has {tuple(value.shape)}, expected {rows.first} {rows.unit} first: "
            + _rows_first(batch, spec, len(value))
        )
    return rows


def has_inner_axis(value: Tensor, shape: tuple[int, ...]) -> bool:
    """Whether a dense tensor has an axis between samples and one element, as rows for atoms need."""
    # The last axis of scalars, of length one, may be left out.
    return value.ndim > len(shape) + (shape != (1,))


def _rows_first(batch: Batch, spec: Output, seen: int) -> str:
    if batch.dense:
        return "samples come first; where the atoms of several samples stand one after another say batch='batch'"
    label = batch.fields().get(spec.target or "")
    if spec.per is None and label is not None and len(label) == batch.size != seen:
        return f"its labels {spec.target!r} have one row for each sample"
    per = spec.per or "atom"
    fits = f"; one for each of {seen} samples is said by eq.Output(…, per='sample')" if seen == batch.size else ""
    return f"it is declared per={per!r}, one row for each {per}{fits}"


def rotated_back(
    values: Mapping[str, Tensor], batch: Batch, rotations: Tensor, declaration: Declaration
) -> dict[str, Tensor]:
    """g^-1 applied to each output's rows, in float64; positions turn back about their centre."""
    inverse = rotations.mT
    back: dict[str, Tensor] = {}
    for name, rows in values.items():
        spec = declaration.outputs[name]
        sample = output_rows(batch, name, declaration).sample
        middle = output_middle(batch, name, declaration)
        back[name] = turned(spec.action, inverse[sample], rows, middle).double()
    return back


def twisted(
    model: Any,
    batch: Batch,
    rotations: Tensor,
    declaration: Declaration,
    forward: Forward | None = None,
    explained: bool = True,
) -> dict[str, Tensor]:
    """The twisted predictions p_g = g^-1 f(g x) of every declared output, rows (n, c, *shape) in float64.

    rotations: (samples, 3, 3) float64, one per sample, on the batch's device. ``explained``: where the model fails, it
    is called once more to see whether it answers the batch as given.
    """
    native = rotated(batch, rotations, declaration)
    answer = predict(model, native, batch, declaration, forward, turned=explained)
    return rotated_back(answer, batch, rotations, declaration)
