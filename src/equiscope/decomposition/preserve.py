"""Leave a measured model and the global random state bitwise as they were, also after an exception."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]

from equiscope.errors import InputError, ModelError, first_line

# Threads of these libraries move data and show progress; they neither draw random numbers nor train.
_SERVANTS = ("torch", "pytorch_lightning", "lightning", "tqdm", "tensorboard", "wandb", "trackio", "mlflow", "joblib",
             "multiprocessing", "ipykernel", "IPython", "zmq", "execnet", "equiscope")  # fmt: skip
# Modules (by id) that are being measured -> the thread that does, and how often it has entered.
_measured: dict[int, tuple[int, int]] = {}
_free = threading.Condition()


@contextlib.contextmanager
def untouched(model: Any) -> Iterator[None]:
    """Eval mode inside; afterwards parameters, buffers, gradients, train/eval flags and random states as before.

    Gradients are set aside, so that a model that calls ``backward`` for its forces cannot add to them. Parameters and
    buffers that the model replaced, cast, froze, deleted or registered are again those of before; a module whose
    tensors had other names or shapes gets its other attributes back too, so that a cache and the size it remembers
    agree. Works inside an outer inference mode. Anything that is not an ``nn.Module`` only has the random states kept.

    Threads that measure one model, or models that share a module, wait for one another. While other threads run that
    may draw random numbers themselves, the random states are left as they are: to set them back would make those
    threads draw the same numbers again.

    Raises:
        InputError: for lazy modules whose parameters have no values yet.
        ModelError: another thread trained the model meanwhile (its weights are then left as that thread made them), or
            something could not be put back.
    """
    if not isinstance(model, nn.Module):
        with _alone([model]), same_randomness():
            yield
        return
    refuse_lazy(model)
    # A frozen TorchScript module is in eval mode for good and has no such flag.
    modules = [m for m in model.modules() if hasattr(m, "training")]
    with _alone(model.modules()), same_randomness():
        before = _Snapshot.of(model, modules)
        try:
            with torch.inference_mode(False):
                for kept in before.tensors:
                    kept.tensor.grad = None
                for module in modules:
                    module.training = False
                yield
        finally:
            with torch.inference_mode(False), torch.no_grad():
                before.restore()


@dataclass(frozen=True)
class _Tensor:
    """A parameter or buffer as it was: the object, its memory, a copy of its values, and what hangs on it."""

    tensor: Tensor
    memory: Tensor
    value: Tensor
    gradient: Tensor | None
    asks: bool

    @classmethod
    def of(cls, tensor: Tensor) -> _Tensor:
        memory = tensor.detach()
        return cls(tensor, memory, memory.clone(), tensor.grad, tensor.requires_grad)

    def changed(self) -> bool:
        return not (_same_memory(self.tensor, self.memory) and _same_bits(self.tensor, self.value))

    def restore(self) -> None:
        if not _same_memory(self.tensor, self.memory):
            self.tensor.data = self.memory
        if not _same_bits(self.tensor, self.value):
            self.tensor.copy_(self.value)
        if self.tensor.requires_grad != self.asks:
            self.tensor.requires_grad_(self.asks)
        self.tensor.grad = self.gradient


@dataclass(frozen=True)
class _Module:
    """What a module holds: its tensors and modules by name, and its other attributes."""

    module: nn.Module
    training: bool
    held: dict[str, dict[str, Any]]
    passing: set[str]
    others: dict[str, Any]

    @classmethod
    def of(cls, module: nn.Module) -> _Module:
        own = vars(module)
        # Scripted modules keep them elsewhere, and cannot change them.
        held = {name: dict(own[name]) for name in _HELD if isinstance(own.get(name), dict)}
        others = {name: value for name, value in own.items() if name not in (*_HELD, "training", _PASSING)}
        return cls(module, module.training, held, set(own.get(_PASSING, ())), others)

    def restore(self) -> None:
        self.module.training = self.training
        own, reshaped = vars(self.module), False
        for name, before in self.held.items():
            now = own[name]
            reshaped |= now.keys() != before.keys() or any(_shape(now[key]) != _shape(before[key]) for key in now)
            if now.keys() != before.keys() or any(now[key] is not before[key] for key in now):
                now.clear()
                now.update(before)
        if not reshaped:
            return
        own[_PASSING] = self.passing
        for name in [name for name in own if name not in (*_HELD, "training", _PASSING, *self.others)]:
            del own[name]
        own.update(self.others)


_HELD, _PASSING = ("_parameters", "_buffers", "_modules"), "_non_persistent_buffers_set"


@dataclass(frozen=True)
class _Snapshot:
    """A model as it was; ``alone``: no other thread could have changed it."""

    name: str
    modules: list[_Module]
    tensors: list[_Tensor]
    weights: int
    alone: bool

    @classmethod
    def of(cls, model: nn.Module, modules: Iterable[nn.Module]) -> _Snapshot:
        weights = list(model.parameters())
        tensors = [_Tensor.of(tensor) for tensor in (*weights, *model.buffers())]
        return cls(type(model).__name__, [_Module.of(m) for m in modules], tensors, len(weights), not _others())

    def restore(self) -> None:
        """Everything that can be put back, whatever goes wrong with one part of it."""
        trained = not (self.alone and not _others()) and any(kept.changed() for kept in self.tensors[: self.weights])
        faults: list[Exception] = []
        parts: list[_Module | _Tensor] = [*self.modules, *([] if trained else self.tensors)]
        for part in parts:
            try:
                part.restore()
            except Exception as error:
                faults.append(error)
        if trained:
            raise ModelError(
                f"another thread changed the weights of {self.name} while they were measured, so the figures are of no "
                "one model: measure a copy (copy.deepcopy), or when it is not trained"
            )
        if faults:
            raise ModelError(f"{self.name} could not be put back as it was: {first_line(faults[0])}") from faults[0]


@contextlib.contextmanager
def _alone(models: Iterable[Any]) -> Iterator[None]:
    """Wait until no other thread measures any of these; a thread may enter again what it has."""
    me, own = threading.get_ident(), {id(getattr(m, "__self__", m)) for m in models if m is not None}
    with _free:
        _free.wait_for(lambda: all(_measured.get(key, (me, 0))[0] == me for key in own))
        for key in own:
            _measured[key] = (me, _measured.get(key, (me, 0))[1] + 1)
    try:
        yield
    finally:
        with _free:
            for key in own:
                count = _measured.pop(key)[1] - 1
                if count:
                    _measured[key] = (me, count)
            _free.notify_all()


def _others() -> bool:
    """Whether another thread runs that may draw random numbers or train."""
    me = threading.current_thread()
    return any(thread is not me and _origin(thread) not in _SERVANTS for thread in threading.enumerate())


def _origin(thread: threading.Thread) -> str:
    """The package whose code a thread runs."""
    module = type(thread).__module__
    if module == "threading":
        target = getattr(thread, "_target", None) or getattr(thread, "function", None)
        module = getattr(target, "__module__", None) or module
    return module.partition(".")[0]


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
    """The global random states afterwards as before: what draws inside draws the same the next time.

    Not while other threads run that may draw, see :func:`untouched`.
    """
    states, alone = _random_states(), not _others()
    try:
        yield
    finally:
        if alone and not _others():
            _set_random_states(states)


def _shape(held: Any) -> Any:
    return held.shape if isinstance(held, Tensor) else None


def _same_memory(a: Tensor, b: Tensor) -> bool:
    if (a.dtype, a.device, a.layout, a.shape) != (b.dtype, b.device, b.layout, b.shape):
        return False
    return a.layout != torch.strided or a.is_meta or a.data_ptr() == b.data_ptr()


def _same_bits(a: Tensor, b: Tensor) -> bool:
    # NaN buffers compare unequal to themselves; copying them back is harmless. Meta tensors hold nothing to compare.
    if a.layout == torch.sparse_coo:
        a, b = a.coalesce(), b.coalesce()
        return torch.equal(a.indices(), b.indices()) and torch.equal(a.values(), b.values())
    return a.is_meta or (a.layout == torch.strided and torch.equal(a, b))


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
