"""The precision in which a model computes, whatever its inputs and outputs are stored in.

A model may run in bfloat16 under autocast and hand out float32, or in float32 behind a float64 interface. Every torch
operation of one call is watched, so that functions and calculators are seen through as modules are. Code that torch
does not see (numpy, an engine behind ASE) is called opaque: :mod:`equiscope.decomposition.noise` then looks at what
larger steps of the input show.
"""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# A copy in another precision doubles the memory of the parameters: not made for models where that could hurt.
COPIED_PARAMETERS = 20_000_000
TF32_EPS = 2.0**-10
# Operations that hand numbers on, and so say nothing of arithmetic that torch sees.
MOVES = {"_to_copy", "clone", "copy_", "lift_fresh", "lift_fresh_copy", "stack", "cat", "_unsafe_view"}
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm"}
CONVOLUTIONS = {"convolution", "cudnn_convolution", "cudnn_convolution_transpose", "_cudnn_rnn"}
NAMES = {torch.finfo(d).eps: str(d).removeprefix("torch.") for d in (torch.float64, torch.float32, torch.bfloat16)}
NAMES[TF32_EPS] = "float16 or TF32"


@dataclass(frozen=True)
class Computing:
    """What one call of a model showed.

    Attributes:
        eps: of the coarsest precision in which a floating tensor was computed; 0 if none was.
        opaque: whether the arithmetic was out of torch's sight.
        tf32: kinds of operations ("products", "convolutions") that ran in float32 on a GPU.
        operations, written, held: how many there were, the bytes they wrote, and the most that were held at once.
        tf32_effect: what TF32 changes of the answer, relative to its size.
    """

    eps: float = 0.0
    opaque: bool = True
    tf32: frozenset[str] = field(default_factory=frozenset)
    operations: int = 0
    written: int = 0
    held: int = 0
    tf32_effect: float = 0.0


# Ways out of torch's sight.
LEAVING = {Tensor.numpy, Tensor.__array__, Tensor.tolist, Tensor.__dlpack__}


class _Exits(TorchFunctionMode):
    """Sees numbers that leave torch, to be worked on by something else."""

    def __init__(self) -> None:
        super().__init__()
        self.left = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.left = self.left or func in LEAVING
        return func(*args, **(kwargs or {}))


class _Watch(TorchDispatchMode):
    """Keeps the coarsest precision of the floating tensors that operations make of others."""

    def __init__(self) -> None:
        super().__init__()
        self.eps, self.seen, self.foreign, self.tf32 = 0.0, False, False, set[str]()
        self.operations = self.written = self.held = self._now = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if any(alias.alias_info is not None and not alias.alias_info.is_write for alias in func._schema.returns):
            return out
        made = [v for v in (out if isinstance(out, tuple | list) else [out]) if isinstance(v, Tensor)]
        self._weigh(made, all(alias.alias_info is None for alias in func._schema.returns))
        made = [v for v in made if v.is_floating_point() and v.ndim > 0]
        # Constants that are filled in are exact, in whatever precision.
        given = [v for arg in args for v in (arg if isinstance(arg, tuple | list) else [arg])]
        if not made or not any(isinstance(v, Tensor) for v in given):
            return out
        self.eps = max([self.eps, *(torch.finfo(v.dtype).eps for v in made)])
        space, _, name = func._schema.name.partition("::")
        self.foreign = self.foreign or space not in ("aten", "prim", "prims")
        self.seen = self.seen or name not in MOVES
        if made[0].is_cuda and made[0].dtype == torch.float32:
            self.tf32 |= {"products"} if name in PRODUCTS else {"convolutions"} if name in CONVOLUTIONS else set()
        return out

    def _weigh(self, made: list[Tensor], new: bool) -> None:
        """Count what an operation wrote, and hold it until it is let go of."""
        self.operations += 1
        for value in made:
            size = value.numel() * value.element_size()
            self.written += size
            if new:
                self._now += size
                weakref.finalize(value, self._let_go, size)
        self.held = max(self.held, self._now)

    def _let_go(self, size: int) -> None:
        self._now -= size


def watched(call: Callable[[], Any]) -> tuple[Any, Computing | None]:
    """The call's answer, and the precision it computed in; None where it cannot be watched."""
    watch, exits = _Watch(), _Exits()
    try:
        with watch, exits:
            answer = call()
    except Exception:
        # What runs only without a watcher runs without; what is wrong with the model itself is raised again.
        return call(), None
    eps = max(watch.eps, TF32_EPS) if tf32_in_use(frozenset(watch.tf32)) else watch.eps
    opaque = exits.left or watch.foreign or not watch.seen
    return answer, Computing(eps, opaque, frozenset(watch.tf32), watch.operations, watch.written, watch.held)


def tf32_in_use(kinds: frozenset[str]) -> bool:
    """Whether TF32 is allowed for operations of these kinds."""
    return any(getattr(*switch) == on for kind in kinds for switch, on, _ in [_switch(kind)])


def _switch(kind: str) -> tuple[tuple[Any, str], Any, Any]:
    """(where torch keeps whether a kind of operations may use TF32, its value for yes, for no).

    torch has two ways of saying it and refuses to read the one after the other was used.
    """
    old: Any = torch.backends.cudnn if kind == "convolutions" else torch.backends.cuda.matmul
    new: Any = old.conv if kind == "convolutions" else old
    try:
        _ = old.allow_tf32
    except RuntimeError:
        return (new, "fp32_precision"), "tf32", "ieee"
    return (old, "allow_tf32"), True, False


@contextlib.contextmanager
def allowing_tf32(allowed: bool, kinds: frozenset[str] = frozenset({"products", "convolutions"})) -> Iterator[None]:
    """Whether operations of these kinds may use TF32 inside; afterwards as before."""
    kept = [(*where, getattr(*where), on if allowed else off) for where, on, off in map(_switch, sorted(kinds))]
    try:
        for place, name, _, wanted in kept:
            setattr(place, name, wanted)
        yield
    finally:
        for place, name, before, _ in kept:
            setattr(place, name, before)


def tf32_effect(
    kinds: frozenset[str], first: Mapping[str, Tensor], answer: Callable[[], Mapping[str, Tensor]]
) -> float:
    """What TF32 changes of an answer, root mean square relative to its size, the largest of its outputs; 0 if off."""
    if not tf32_in_use(kinds):
        return 0.0
    with allowing_tf32(False, kinds):
        exact = answer()
    sizes = {name: torch.linalg.vector_norm(rows.double()) for name, rows in exact.items()}
    apart = {name: torch.linalg.vector_norm(first[name].double() - rows.double()) for name, rows in exact.items()}
    return max(float(apart[name] / size) if size > 0 else 0.0 for name, size in sizes.items())


def in_precision(model: Any, dtype: torch.dtype) -> Any:
    """The model with its parameters in another precision; a function as it is; None for what is too large."""
    if not isinstance(model, nn.Module):
        return model
    if sum(p.numel() for p in model.parameters()) > COPIED_PARAMETERS:
        return None
    return copy.deepcopy(model).to(dtype)


def hardware_notes(device: torch.device | None, computing: Computing | None = None) -> list[str]:
    """Settings of the machine that raise the floor of what this model does, named."""
    notes = []
    if device is not None and device.type == "cuda":
        if computing is not None and tf32_in_use(computing.tf32):
            which = " and ".join(sorted(computing.tf32))
            notes.append(
                f"TF32 is allowed on this GPU (10-bit mantissa) for the model's {which}: it changes the answer by "
                f"{100 * computing.tf32_effect:.2g} % of its size, and raises the floor"
            )
        if not torch.are_deterministic_algorithms_enabled():
            notes.append("GPU kernels may add in varying order (atomics); the spread of repeats is in the floor")
    return notes
