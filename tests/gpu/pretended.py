"""A pretended card: tensors that say they are on a device of its own and compute on the processor.

As on a real one, an operation refuses tensors on two devices, but for numbers without axes and for indices; what the
host reads or has to wait for is counted. Kernels, memory and precisions of a card are not pretended. The device is
there for a whole process, so tests use it in a process of its own.
"""

import contextlib
from collections import Counter

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "card"
# The host has to know what these answer before it goes on: numbers, and shapes that follow from numbers.
WAITING = {
    "_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "equal",
    "is_nonzero", "bincount", "_linalg_eigh", "_linalg_svd",
}  # fmt: skip
INDEXING = {"index", "index_put_", "index_put", "_index_put_impl_"}
# May take tensors of two devices.
CROSSING = {"_to_copy", "copy_", "set_", *INDEXING}


class OnCard(Tensor):
    """A tensor that says it is on the card; ``held`` has its numbers."""

    @staticmethod
    def __new__(cls, held):
        made = Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            layout=held.layout, device=torch.device(NAME, 0), requires_grad=held.requires_grad,
        )  # fmt: skip
        made.held = held
        return made

    def __repr__(self, **_):
        return f"OnCard({self.held!r})"

    def tolist(self):
        return self.cpu().tolist()

    def untyped_storage(self):
        return self.held.untyped_storage()

    def data_ptr(self):
        return self.held.data_ptr()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {}, Pretended.now.waits)


class Pretended(TorchDispatchMode):
    """Inside, tensors can be made on the card; ``waits`` counts what the host waited for, by operation."""

    # The slot of fake tensors: torch asks no driver while something stands in it.
    _mode_key = torch._C._TorchDispatchModeKey.FAKE
    now = None

    def __init__(self):
        super().__init__()
        self.waits = Counter()
        Pretended.now = self

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {}, self.waits)


def computed(func, args, kwargs, waits):
    """An operation on the held tensors; what it answers lies where a card would have it."""
    name = func._schema.name.partition("::")[2]
    given = [v for v in tree_leaves((args, kwargs)) if isinstance(v, Tensor)]
    on_card = [v for v in given if isinstance(v, OnCard)]
    target = torch.device(kwargs["device"]).type if kwargs.get("device") is not None else None
    if on_card and name not in CROSSING:
        elsewhere = [tuple(v.shape) for v in given if not isinstance(v, OnCard) and v.ndim > 0]
        if elsewhere:
            own = [tuple(v.shape) for v in on_card]
            raise RuntimeError(f"tensors on two devices: {func} of {own} on the card and {elsewhere} on the processor")
    if on_card and (what := waited(name, args, kwargs, target)):
        waits[what] += 1
    changed = {k: v for k, v in kwargs.items() if k not in ("device", "pin_memory")}
    if target is not None:
        changed["device"] = "cpu"
    known = {id(v.held): v for v in on_card}
    answer = func(*tree_map(held_of, args), **tree_map(held_of, changed))
    stays = bool(on_card) if target is None else target == NAME
    if name == "copy_":
        stays = isinstance(args[0], OnCard)

    def placed(value):
        if not stays or not isinstance(value, Tensor):
            return value
        return known[id(value)] if id(value) in known else OnCard(value)

    return tree_map(placed, answer)


def waited(name, args, kwargs, target):
    """What the host waits for in an operation; None for nothing."""
    if name in WAITING or (name == "repeat_interleave" and kwargs.get("output_size") is None):
        return name
    to_host = name == "_to_copy" and target == "cpu" and not kwargs.get("non_blocking")
    if to_host or (name == "copy_" and not isinstance(args[0], OnCard)):
        return "to the host"
    places = [v for v in args[1] if isinstance(v, Tensor)] if name in INDEXING else []
    if any(v.dtype == torch.bool for v in places):
        return "places by a mask"
    return "places from the host" if any(not isinstance(v, OnCard) and v.ndim for v in places) else None


def held_of(value):
    return value.held if isinstance(value, OnCard) else value


def install():
    """Make the device; for the rest of the process."""
    _setup_privateuseone_for_python_backend(NAME)


@contextlib.contextmanager
def a_card():
    """The pretended card in use; gives the mode that counts."""
    mode = Pretended()
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    # Modules get new parameters: the old ones are tensors of the processor and stay so.
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    # Tensors of numbers are made by the processor first, as they are for fake tensors.
    torch._C._set_only_lift_cpu_tensors(True)
    try:
        with mode:
            yield mode
    finally:
        torch._C._set_only_lift_cpu_tensors(False)
        torch.__future__.set_overwrite_module_params_on_conversion(before)
