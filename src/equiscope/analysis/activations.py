"""What the modules of a model answer, call by call, heard with forward hooks, and kept for named layers."""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from equiscope.errors import InputError

ANSWER = "answer"


@contextlib.contextmanager
def listening(modules: Mapping[str, nn.Module], note: Callable[[str, Any], None]) -> Iterator[None]:
    """``note(name, answer)`` for every call of these modules inside; no hook is left afterwards."""
    handles = [
        module.register_forward_hook(lambda _module, _inputs, answer, name=name: note(name, answer))
        for name, module in modules.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def default_layers(model: nn.Module) -> list[str]:
    """The blocks of a model: items of its module lists, modules beside them, and the model itself (its answer)."""
    return [*_blocks(model, ""), ""]


def _blocks(module: nn.Module, prefix: str) -> list[str]:
    found: list[str] = []
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if isinstance(child, nn.ModuleList):
            found += [f"{path}.{index}" for index in range(len(child))]
        elif any(isinstance(part, nn.ModuleList) for part in child.modules()):
            found += _blocks(child, f"{path}.")
        else:
            found.append(path)
    return found


def find_layers(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Names of submodules that match shell patterns such as ``layers.*.attention``, in the model's order.

    Raises:
        InputError: for a pattern that matches nothing, with names that exist.
    """
    known = [name for name, _ in model.named_modules()]
    chosen: set[str] = set()
    for pattern in patterns:
        matching = [name for name in known if fnmatch.fnmatchcase(name or ANSWER, pattern)]
        if not matching:
            shown = ", ".join(_blocks(model, "")[:12]) or "none but the model itself"
            raise InputError(f"no layer of {type(model).__name__} is named {pattern!r}; its blocks are {shown}")
        chosen.update(matching)
    return [name for name in known if name in chosen]


class Recorder:
    """Keeps the floating tensors that chosen layers answer during one call of the model.

    ``calls`` maps "name", or "name[key]" for dicts and tuples and "name #2" for a layer's second call, to the tensor,
    in the order of execution.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        self._modules = {name: model.get_submodule(name) for name in names}
        self._counts: dict[str, int] = {}
        self.calls: dict[str, Tensor] = {}

    def recording(self) -> contextlib.AbstractContextManager[None]:
        """Layers are recorded inside, and left as they were afterwards."""
        return listening(self._modules, self._keep)

    def silent(self) -> list[str]:
        """The layers that gave nothing in the last call of the model."""
        heard = {name.split(" #")[0].split("[")[0] for name in self.calls}
        return [name or ANSWER for name in self._modules if (name or ANSWER) not in heard]

    def clear(self) -> None:
        """Forget the last call of the model."""
        self.calls, self._counts = {}, {}

    def _keep(self, name: str, answer: Any) -> None:
        shown = name or ANSWER
        self._counts[shown] = self._counts.get(shown, 0) + 1
        again = f" #{self._counts[shown]}" if self._counts[shown] > 1 else ""
        for part, value in _tensors(answer):
            # Copies: later layers may work in place.
            self.calls[f"{shown}{part}{again}"] = value.detach().clone()


def _tensors(answer: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(answer, Tensor):
        if answer.is_floating_point() and answer.ndim > 0:
            yield "", answer
    elif isinstance(answer, Mapping):
        for key, value in answer.items():
            yield from ((f"[{key}]{part}", tensor) for part, tensor in _tensors(value))
    elif isinstance(answer, tuple | list):
        for index, value in enumerate(answer):
            yield from ((f"[{index}]{part}", tensor) for part, tensor in _tensors(value))


def rows_of_features(value: Tensor, limit: int) -> Tensor:
    """(rows, 1, features) float64 of an activation of one sample: the last axis holds the features.

    At most ``limit`` rows, evenly spread over those there are.
    """
    flat = value.reshape(-1, value.shape[-1]) if value.ndim > 1 else value[:, None]
    if len(flat) > limit:
        flat = flat[torch.arange(limit, device=flat.device) * len(flat) // limit]
    return flat[:, None, :].double()
