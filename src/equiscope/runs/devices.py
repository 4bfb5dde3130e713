"""Devices by name, as ``--device``, ``trainer.accelerator`` and the doctor have them, and what a run computes in there.

The products of its training steps, what is compiled, the float32 of what is measured.
"""

from __future__ import annotations

import contextlib
import copy
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from equiscope.decomposition.computing import allowing_tf32
from equiscope.errors import InputError

#: As torch names them; ``gpu`` is the one that is here.
NAMES = "cpu, cuda, cuda:0 (or another number), mps"
_NAMED = re.compile(r"cpu|mps|cuda(:\d+)?")
MATMUL = ("highest", "high", "medium")
TRAINED = "trained"
_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def fitting(name: str | None) -> str:
    """The device of a name as torch has it: ``gpu`` for whichever is here, None or ``auto`` for a GPU if there is one.

    Raises:
        InputError: for another name.
    """
    cuda = torch.cuda.is_available()
    if name in (None, "auto"):
        return "cuda" if cuda else "cpu"
    if name == "gpu":
        return "cuda" if cuda or not torch.backends.mps.is_available() else "mps"
    if not _NAMED.fullmatch(str(name)):
        raise InputError(f"there is no device {name!r}: the devices are {NAMES}, or gpu for the one that is here")
    return str(name)


def usable(name: str | None) -> str:
    """:func:`fitting`, once something was computed on it.

    Raises:
        InputError: if torch cannot use it here.
    """
    chosen = fitting(name)
    try:
        torch.zeros(1, device=chosen).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).splitlines()[0]
        raise InputError(f"the device {chosen!r} cannot be used here ({why}): give cpu, or cuda:0 of a GPU") from error
    return chosen


def settle(device: torch.device) -> None:
    """Wait until a GPU has done what it was given; other devices have by then."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def accelerator(name: Any, devices: Any) -> dict[str, Any]:
    """Arguments of Lightning's Trainer for ``trainer.accelerator`` and ``trainer.devices``; ``cuda:1`` names both.

    Raises:
        InputError: for a name that neither torch nor Lightning has, or a numbered device beside others.
    """
    if name in (None, "auto", "gpu", "tpu"):
        return {"accelerator": name, "devices": devices}
    kind, _, number = fitting(name).partition(":")
    if number and devices not in (None, 1, "auto", [int(number)]):
        raise InputError(f"trainer.accelerator={name} names one device, and trainer.devices={devices} others: give one")
    return {"accelerator": kind, "devices": [int(number)] if number else devices}


def hardware(device: torch.device) -> str:
    """The name of a device: of the GPU, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@dataclass(frozen=True)
class Arithmetic:
    """How the training steps of a run compute.

    Attributes:
        precision: of Lightning, ``32-true``, ``bf16-mixed``, ``64-true``, …
        matmul: of float32 products, one of :data:`MATMUL` as torch names them; None leaves the process's setting.
        backend: of ``torch.compile``; None where nothing is compiled.

    Raises:
        InputError: for a value that torch does not know.
    """

    precision: str = "32-true"
    matmul: str | None = None
    backend: str | None = None

    def __post_init__(self) -> None:
        if self.matmul not in (None, *MATMUL):
            raise InputError(f"trainer.matmul must be one of {', '.join(MATMUL)}, or null, got {self.matmul!r}")
        if self.backend is not None:
            known = torch.compiler.list_backends(exclude_tags=())
            if self.backend not in known:
                raise InputError(
                    f"trainer.compile must be true, false or a backend of torch.compile ({', '.join(known)}), got "
                    f"{self.backend!r}"
                )

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Arithmetic:
        """That of the ``trainer`` section of a configuration."""
        compiled = options.get("compile")
        backend = "inductor" if compiled is True else str(compiled) if compiled else None
        precision = options.get("precision")
        return cls("32-true" if precision is None else str(precision), options.get("matmul"), backend)

    def training(self) -> contextlib.AbstractContextManager[None]:
        """Float32 products are as ``matmul`` says inside."""
        return _products(self.matmul)

    @contextlib.contextmanager
    def measuring(self, net: nn.Module, how: str | None, device: torch.device) -> Iterator[nn.Module]:
        """The model as it is measured: in float32 (or the run's double) without TF32, or as the steps compute.

        Weights of 16 bits are measured in a copy of 32; ``how`` is None or :data:`TRAINED`.
        """
        if how == TRAINED:
            dtype = _AUTOCAST.get(self.precision)
            with self.training(), torch.autocast(device.type, dtype) if dtype else contextlib.nullcontext():
                yield net
            return
        narrow = any(p.is_floating_point() and p.element_size() < 4 for p in net.parameters())
        with _products("highest"), allowing_tf32(False, frozenset({"convolutions"})):
            yield copy.deepcopy(net).float() if narrow else net

    def measured(self, how: str | None) -> str:
        """What is measured computes in, in words."""
        double = self.precision in ("64", "64-true")
        return f"as trained ({self.precision})" if how == TRAINED else "float64" if double else "float32"

    def recorded(self, track: str | None, final: str | None) -> dict[str, Any]:
        """For the record of a run."""
        products = torch.get_float32_matmul_precision() if self.matmul is None else self.matmul
        return {
            "training": self.precision,
            "matmul": products,
            "compile": self.backend,
            "measured": {"track": self.measured(track), "final": self.measured(final)},
        }


@contextlib.contextmanager
def _products(matmul: str | None) -> Iterator[None]:
    """Torch's setting of float32 products, as it was before afterwards."""
    before = torch.get_float32_matmul_precision()
    try:
        if matmul is not None:
            torch.set_float32_matmul_precision(matmul)
        yield
    finally:
        torch.set_float32_matmul_precision(before)
