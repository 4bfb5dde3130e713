"""Leave a measured model and the global random state bitwise as they were, also after an exception."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]

from equiscope.errors import InputError


@contextlib.contextmanager
def untouched(model: Any) -> Iterator[None]:
    """Eval mode inside; afterwards parameters, buffers, gradients, train/eval flags and random states as before.

    Gradients are set aside, so that a model that calls ``backward`` for its forces cannot add to them. A buffer that
    the model replaced by a new tensor is put back, unless the new one has another shape: that is a cache which grew.
    Works inside an outer inference mode. Anything that is not an ``nn.Module`` only has the random states kept.

    Raises:
        InputError: for lazy modules whose parameters have no values yet.
    """
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    if modules:
        refuse_lazy(model)
    # A frozen TorchScript module is in eval mode for good and has no such flag.
    modules = [m for m in modules if hasattr(m, "training")]
    flags = [m.training for m in modules]
    tensors = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []
    values = [t.detach().clone() for t in tensors]
    gradients = [t.grad for t in tensors]
    buffers = [dict(m.named_buffers(recurse=False)) for m in modules]
    with same_randomness():
        try:
            with torch.inference_mode(False):
                for tensor in tensors:
                    tensor.grad = None
                for module in modules:
                    module.training = False
                yield
        finally:
            with torch.inference_mode(False), torch.no_grad():
                for tensor, value, gradient in zip(tensors, values, gradients, strict=True):
                    if not _same_bits(tensor, value):
                        tensor.copy_(value)
                    tensor.grad = gradient
            for module, flag, own in zip(modules, flags, buffers, strict=True):
                module.training = flag
                _put_back(module, own)


def refuse_lazy(model: nn.Module) -> None:
    """Lazy parameters without values would get them, at random, from whoever calls the model first.

    Raises:
        InputError: naming the first.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if isinstance(tensor, UninitializedTensorMixin):
            raise InputError(
                f"{name!r} of {type(model).__name__} is lazy and has no values yet: call the model on a batch first"
            )


@contextlib.contextmanager
def same_randomness() -> Iterator[None]:
    """The global random states afterwards as before: what draws inside draws the same the next time."""
    states = _random_states()
    try:
        yield
    finally:
        _set_random_states(states)


def _put_back(module: nn.Module, buffers: dict[str, torch.Tensor]) -> None:
    for name, buffer in buffers.items():
        now = getattr(module, name, None)
        if now is not buffer and isinstance(now, torch.Tensor) and now.shape == buffer.shape:
            setattr(module, name, buffer)


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    # NaN buffers compare unequal to themselves; copying them back is harmless. Meta tensors hold nothing to compare.
    return a.is_meta or torch.equal(a, b)


def _random_states() -> tuple[Any, ...]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return torch.get_rng_state(), cuda, np.random.get_state(), random.getstate()


def _set_random_states(states: tuple[Any, ...]) -> None:
    cpu, cuda, numpy, python = states
    torch.set_rng_state(cpu)
    if cuda:
        torch.cuda.set_rng_state_all(cuda)
    np.random.set_state(numpy)
    random.setstate(python)
