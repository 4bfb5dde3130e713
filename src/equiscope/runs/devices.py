"""Devices by name, the same in ``--device``, in ``trainer.accelerator`` and in what the doctor says."""

from __future__ import annotations

import contextlib
import platform
import re
from pathlib import Path
from typing import Any

import torch

from equiscope.errors import InputError

#: As torch names them; ``gpu`` is the one that is here.
NAMES = "cpu, cuda, cuda:0 (or another number), mps"
_NAMED = re.compile(r"cpu|mps|cuda(:\d+)?")


def fitting(name: str | None) -> str:
    """The device of a name as torch has it: ``gpu`` for whichever is here, None or ``auto`` for a GPU if there is one.

    Raises:
        InputError: for another name.
    """
    gpu = "cuda" if torch.cuda.is_available() or not torch.backends.mps.is_available() else "mps"
    if name in (None, "auto"):
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "gpu":
        return gpu
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
