"""What a run computes in: the products of its training steps, what is compiled, the float32 of what is measured."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from equiscope.errors import InputError

MATMUL = ("highest", "high", "medium")
TRAINED = "trained"
_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


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

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Float32 products are as ``matmul`` says inside."""
        with _products(self.matmul, None):
            yield

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
        with _products("highest", False):
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
def _products(matmul: str | None, convolutions: bool | None) -> Iterator[None]:
    """Torch's settings of float32 products and of TF32 in convolutions, as they were before afterwards."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        if matmul is not None:
            torch.set_float32_matmul_precision(matmul)
        if convolutions is not None:
            torch.backends.cudnn.allow_tf32 = convolutions
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
