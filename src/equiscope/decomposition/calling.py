"""How a person's batches, model and answers meet the measure: named fields, the call from the signature, outputs found.

Nothing here decides what rotates. A model is called as ``model(batch)``; one that cannot take the batch is called with
the fields that its signature names, or, where it takes one thing, with the only field that is declared to rotate.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from equiscope.errors import DeclarationError, EquiscopeError, InputError
from equiscope.symmetry.declaration import Declaration
from equiscope.words import nearest


def named(native: Any, fields: Sequence[str]) -> Any:
    """A batch with names: a tuple or list, or one tensor, becomes a dict; arrays of numbers in a dict become tensors.

    Raises:
        InputError: for a tuple, list or tensor whose fields have no names, or another number of them.
    """
    if isinstance(native, Mapping):
        found = {k: _tensor(v) for k, v in native.items()}
        return found if any(found[k] is not v for k, v in native.items()) else native
    if not isinstance(native, Tensor | np.ndarray | tuple | list):
        return native
    parts = native if isinstance(native, tuple | list) else [native]
    if not any(isinstance(part, Tensor | np.ndarray) for part in parts):
        return native
    shapes = ", ".join(str(tuple(p.shape)) if hasattr(p, "shape") else type(p).__name__ for p in parts)
    seen = f"a batch is a {type(native).__name__} of {len(parts)} ({shapes})" if len(parts) < 9 else "a batch is a list"
    if not fields:
        example = ("pos", "forces", "mask", "id")[: len(parts)] if 0 < len(parts) < 5 else ("pos", "…")
        raise InputError(f"{seen}: name its fields in order, fields={example!r}, for use in inputs, target, …")
    if len(fields) != len(parts):
        raise InputError(f"{seen}, but fields={tuple(fields)!r} names {len(fields)}: name each, in order")
    return dict(zip(fields, map(_tensor, parts), strict=True))


def _tensor(value: Any) -> Any:
    if not (isinstance(value, np.ndarray) and value.ndim > 0 and value.dtype.kind in "fciub"):
        return value
    # torch knows neither the other order of bytes, which files have, nor more than 64 bits.
    wide = {"f": np.float64, "c": np.complex128}.get(value.dtype.kind, value.dtype)
    known = wide if value.dtype.itemsize > np.dtype(wide).itemsize else value.dtype.newbyteorder("=")
    return torch.from_numpy(np.ascontiguousarray(value, dtype=known))


def check_model(model: Any) -> None:
    """A model is no path, no state and no class.

    Raises:
        InputError: with what to give instead.
    """
    if isinstance(model, str | Path):
        seen = f"the model is a {type(model).__name__}, {str(model)!r}"
        raise InputError(f"{seen}: load it first, model = torch.load(path) or the like")
    if isinstance(model, Mapping) and not isinstance(model, nn.Module):
        raise InputError("the model is a dict, a state_dict? Make the module and model.load_state_dict(…) first")
    if inspect.isclass(model):
        raise InputError(f"the model is the class {model.__name__}: give an instance, {model.__name__}(…)")


class Call:
    """Calls a model in the way that its first call showed to work: ``call(model, native)``."""

    #: No function of the user's: what :func:`equiscope.decomposition.orbit.answer_of` asks.
    given = None

    def __init__(self, declaration: Declaration | None = None):
        # What only the labels hold is no input of a model, also where it would take it (labels=None).
        self._targets = {output.target for output in declaration.outputs.values()} if declaration else set()
        self._inputs = list(declaration.inputs) if declaration else []
        self._how: Callable[[Any, Any], Any] | None = None

    def __call__(self, model: Any, native: Any) -> Any:
        if self._how is not None:
            return self._how(model, native)
        ways = list(self._ways(model, native))
        for place, way in enumerate(ways):
            try:
                answer = way(model, _copied(native) if place + 1 < len(ways) else native)
            except EquiscopeError:
                raise
            except Exception as error:
                if needs_gradient(error):
                    raise
                if place == 0:
                    first = error
                continue
            self._how = way
            return answer
        raise first

    def _ways(self, model: Any, native: Any) -> Iterable[Callable[[Any, Any], Any]]:
        """The calls that may be meant, the likeliest first."""
        found = _parameters(model)
        if found is None:
            yield _whole
            return
        required, optional, rest = found
        fields = _fields(native)
        if len(required) > 1:
            if set(required) <= set(fields):
                yield self._by_name(required, optional, fields)
            else:
                raise InputError(cannot_call(model, native))
            return
        yield _whole
        free = [k for k in fields if k not in self._targets] if rest else []
        wanted = [k for k in (*optional, *free) if k in fields]
        if set(required) <= set(fields) and (required or wanted):
            yield self._by_name(required, [*optional, *free], fields)
        if len(required) == 1 and len(self._inputs) == 1 and self._inputs[0] in fields:
            yield functools.partial(_by_field, self._inputs[0])

    def _by_name(self, required: list[str], optional: list[str], fields: Sequence[str]) -> Callable[[Any, Any], Any]:
        more = dict.fromkeys(k for k in optional if k in fields and k not in (*self._targets, *required))
        return functools.partial(_by_names, [*required, *more])


def _whole(model: Any, native: Any) -> Any:
    return model(native)


# Partials of functions of the module, not lambdas: what keeps a call can be pickled.
def _by_names(names: Sequence[str], model: Any, native: Any) -> Any:
    return model(**{name: native[name] for name in names})


def _by_field(name: str, model: Any, native: Any) -> Any:
    return model(native[name])


def needs_gradient(error: BaseException) -> bool:
    """Whether torch asks for the gradient mode in which a call is repeated."""
    return isinstance(error, RuntimeError) and "does not require grad" in str(error)


def _copied(native: Any) -> Any:
    """A dict of its own for a call that may fail half way, having changed it."""
    return dict(native) if type(native) is dict else native


def _parameters(model: Any) -> tuple[list[str], list[str], bool] | None:
    """(required, optional, whether it takes any name) of what a model is called with; None where nobody can tell."""
    try:
        signature = inspect.signature(model.forward if isinstance(model, nn.Module) else model)
    except (TypeError, ValueError):
        return None
    kinds = list(signature.parameters.values())
    if any(p.kind is p.VAR_POSITIONAL or p.kind is p.POSITIONAL_ONLY for p in kinds):
        return None
    named = [p for p in kinds if p.kind is not p.VAR_KEYWORD]
    required = [p.name for p in named if p.default is p.empty]
    return required, [p.name for p in named if p.default is not p.empty], len(named) < len(kinds)


def _fields(native: Any) -> list[str]:
    keys = native.keys() if isinstance(native, Mapping) or hasattr(native, "keys") else ()
    return [k for k in (keys() if callable(keys) else keys) if isinstance(k, str)]


def cannot_call(model: Any, native: Any) -> str:
    """The ``forward=`` that this model and this batch need, as it is to be written."""
    found = _parameters(model)
    fields = _fields(native)
    if found is None or not fields:
        return "if the model takes something else than the batch, give forward=lambda model, batch: …"
    required = found[0] or found[1][:1]
    arguments = ", ".join(_guess(name, fields) for name in required)
    return (
        f"the model is called with ({', '.join(required)}) and the batch has {fields}: say which is which, "
        f"forward=lambda model, batch: model({arguments})"
    )


def how_called(model: Any, native: Any) -> str:
    """How a model without ``forward=`` is called first, for a message about why it failed."""
    found, fields = _parameters(model), _fields(native)
    if found is not None and len(found[0]) > 1 and set(found[0]) <= set(fields):
        arguments = ", ".join(f"{name}=batch[{name!r}]" for name in found[0])
        return f"model({arguments}); else give forward=lambda model, batch: …"
    what = f"a dict with {sorted(fields)}" if isinstance(native, Mapping) else f"a {type(native).__name__}"
    return f"model(batch) with {what}; {cannot_call(model, native)}"


def _guess(name: str, fields: Sequence[str]) -> str:
    near = [name] if name in fields else difflib.get_close_matches(name, fields, 1, 0.5)
    return f"batch[{near[0]!r}]" if near else f"batch['…']  # {name}" if len(fields) > 1 else f"batch[{fields[0]!r}]"


def found_outputs(answer: Any, declaration: Declaration) -> dict[str, Tensor]:
    """The declared outputs by name from a model's answer.

    A dict, nested or not, a named tuple, a data class or an object with attributes by name; the only tensor; a tuple in
    the order of the declared outputs, or its only tensor of the declared shape.

    Raises:
        DeclarationError: if a declared output is not there, or in two places, or no tensor.
    """
    answer, wanted = _tensor(answer), list(declaration.outputs)
    if answer is None:
        raise DeclarationError("the model returned None: does its forward, or your forward=…, end with a return?")
    if isinstance(answer, Tensor):
        if len(wanted) > 1:
            raise DeclarationError(
                f"the model returned one tensor, but the outputs {sorted(wanted)} are declared: "
                "return a dict, or use forward=lambda model, batch: {...}"
            )
        return {wanted[0]: answer}
    if isinstance(answer, tuple | list) and not hasattr(answer, "_fields"):
        return _of_tuple(answer, declaration)
    return {name: _of_name(answer, name) for name in wanted}


def _of_tuple(answer: Sequence[Any], declaration: Declaration) -> dict[str, Tensor]:
    wanted = list(declaration.outputs)
    tensors = {i: v for i, part in enumerate(answer) if isinstance(v := _tensor(part), Tensor)}
    if len(tensors) == len(wanted):
        return dict(zip(wanted, tensors.values(), strict=True))
    if len(wanted) == 1:
        shape = declaration.outputs[wanted[0]].action.shape
        fitting = {i: v for i, v in tensors.items() if v.ndim > len(shape) and tuple(v.shape[-len(shape) :]) == shape}
        if len(fitting) == 1:
            return {wanted[0]: next(iter(fitting.values()))}
        place = next(iter(fitting or tensors), 0)
        remedy = f"forward=lambda model, batch: model(batch)[{place}]"
    else:
        remedy = "forward=lambda model, batch: dict(zip((" + ", ".join(map(repr, wanted)) + ", …), model(batch)))"
    shapes = ", ".join(f"{i}: {tuple(v.shape)}" for i, v in tensors.items())
    raise DeclarationError(
        f"the model returned a {type(answer).__name__} of {len(answer)} with tensors {shapes or 'none'}, and the "
        f"outputs {wanted} are declared: declare one for each, in order, or name them, {remedy}"
    )


def _of_name(answer: Any, name: str) -> Tensor:
    places = dict(_places(answer))
    fitting = [path for path in places if path[-1] == name]
    if len(fitting) == 1:
        return places[fitting[0]]
    value = None if isinstance(answer, Mapping) else _tensor(getattr(answer, name, None))
    if isinstance(value, Tensor):
        return value
    known = [".".join(map(str, path)) for path in places] or type(answer).__name__
    if fitting:
        path = "".join(f"[{key!r}]" for key in fitting[0])
        raise DeclarationError(
            f"the model's answer has {name!r} in {len(fitting)} places, {known}: say which, "
            f"forward=lambda model, batch: {{{name!r}: model(batch){path}, …}}"
        )
    near = nearest(name, [str(path[-1]) for path in places])
    raise DeclarationError(
        f"the model's answer has no tensor {name!r}; it has {known}{near}: use one of these names in outputs=…, or "
        f"rename it, forward=lambda model, batch: {{{name!r}: …}}"
    )


def _places(answer: Any, path: tuple[Any, ...] = ()) -> Iterable[tuple[tuple[Any, ...], Tensor]]:
    """(path of keys, tensor) of everything in nested dicts, named tuples and data classes."""
    if dataclasses.is_dataclass(answer) and not isinstance(answer, type):
        parts: Mapping[Any, Any] = {f.name: getattr(answer, f.name) for f in dataclasses.fields(answer)}
    elif isinstance(answer, Mapping):
        parts = answer
    elif isinstance(answer, tuple) and hasattr(answer, "_fields"):
        parts = {k: getattr(answer, k) for k in answer._fields}
    else:
        return
    for key, value in parts.items():
        if isinstance(tensor := _tensor(value), Tensor):
            yield (*path, key), tensor
        else:
            yield from _places(value, (*path, key))


def other_irreps(label: str, shape: Sequence[int]) -> str:
    """What a tensor may be declared as whose last axes do not fit ``label``; empty where nobody can tell."""
    if tuple(shape[-2:]) == (3, 3) and label not in ("cartesian", "stress"):
        return ": 3 x 3 tensors are declared 'cartesian', or 'stress' if they are symmetric"
    if label in ("cartesian", "stress") and shape[-1:] == (6,):
        return ": six components in Voigt order are declared 'voigt'"
    if label in ("cartesian", "stress") and shape[-1:] == (9,):
        return ": give the nine components as (…, 3, 3), x.unflatten(-1, (3, 3))"
    if label == "voigt":
        return ": 'voigt' is xx, yy, zz, yz, xz, xy on the last axis"
    if shape and shape[-1] % 3 == 0 and label in ("1o", "1x1o"):
        return f": is it {shape[-1] // 3} vectors side by side, '{shape[-1] // 3}x1o', or (…, {shape[-1] // 3}, 3)?"
    return f": declare what its last axis of {shape[-1]} holds, such as '{shape[-1]}x0e' for scalars" if shape else ""
