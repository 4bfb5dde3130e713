"""What the orbit needs of a batch: its fields, which sample each row belongs to, and how to make a rotated copy.

Dense batches are dicts of tensors with samples first; ragged ones hold the atoms of all samples one after another
(:mod:`equiscope.decomposition.ragged`). Other kinds (graphs) register a converter with ``as_batch.register``; nothing
else in the library knows their layout.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from equiscope.errors import DataError, EquiscopeError, InputError, around, first_line


@dataclass(frozen=True)
class Rows:
    """The real rows of a tensor: which sample each belongs to and where it lies.

    Attributes:
        sample: (n,) int64, the sample of each row.
        index: (n,) positions in the tensor with its ``leading`` axes flattened; None when every row is real.
        leading: number of leading axes that the rows run over (1: samples or graph nodes, 2: samples x atoms).
        samples: number of samples in the batch.
        length: entries that a tensor's first axis must have, where rows run over that axis alone; unit: what they are.
    """

    sample: Tensor
    index: Tensor | None
    leading: int
    samples: int
    length: int | None = None
    unit: str = "rows"

    def select(self, values: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Real rows as (n, c, *shape); axes between the leading ones and ``shape`` are folded into c.

        Raises:
            InputError: for a tensor of another ``length``, or elements with fewer axes than ``shape``.
        """
        if self.length is not None:
            self._check_length(values, shape, self.length)
        flat = values.flatten(0, self.leading - 1) if self.leading > 1 else values
        flat = flat.reshape(flat.shape[0], math.prod(flat.shape[1:]) // math.prod(shape), *shape)
        return flat if self.index is None else flat[self.index]

    def scatter(self, rows: Tensor, like: Tensor, fill: Tensor | None = None) -> Tensor:
        """Rows (n, c, *shape) back in the layout of ``like``; other entries are ``fill`` or zero."""
        if self.index is None:
            return rows.reshape(like.shape)
        base = torch.zeros_like(like, dtype=rows.dtype) if fill is None else fill.to(rows.dtype)
        flat = base.flatten(0, self.leading - 1) if self.leading > 1 else base
        flat = flat.reshape(flat.shape[0], *rows.shape[1:])
        return flat.index_copy(0, self.index, rows).reshape(like.shape)

    def sum(self, rows: Tensor) -> Tensor:
        """Sum of row values (n,) over each sample, (samples,)."""
        return torch.zeros(self.samples, dtype=rows.dtype, device=rows.device).index_add(0, self.sample, rows)

    def mean(self, rows: Tensor) -> Tensor:
        """Mean over rows and components (n, ...) of each sample, (samples,)."""
        return self.sum(rows.flatten(1).mean(1)) / self.counts

    def _check_length(self, values: Tensor, shape: tuple[int, ...], length: int) -> None:
        if values.shape[:1] != (length,):
            raise InputError(f"expected {length} {self.unit} first, got a tensor of shape {tuple(values.shape)}")
        if len(shape) > values.ndim - 1 and shape != (1,):
            raise InputError(
                f"one element has shape {shape}, but a tensor {tuple(values.shape)} holds {length} {self.unit} of "
                f"shape {tuple(values.shape[1:])}: store a sample's own tensor with a leading 1, as {(1, *shape)}"
            )

    @property
    def first(self) -> int:
        """Entries of a tensor's first axis, where rows run over that axis alone."""
        return len(self.sample) if self.length is None else self.length

    @functools.cached_property
    def counts(self) -> Tensor:
        """Number of rows of each sample, (samples,) float64."""
        return self.sum(torch.ones(len(self.sample), dtype=torch.float64, device=self.sample.device))


class Batch(Protocol):
    """A batch of samples; each sample is rotated by its own rotation.

    Attributes:
        size: number of samples.
        dense: whether samples are the first axis of every field.
    """

    size: int
    dense: bool

    def fields(self) -> Mapping[str, Tensor]:
        """The batch's tensors by name."""

    def labels(self, name: str) -> list[Any]:
        """One hashable value per sample of the field ``name`` (clusters, ids)."""

    def rows(self, name: str, per: str, mask: str | None) -> Rows:
        """The real rows of an output, "atom" or "sample", or of an input field.

        For inputs ``per`` may also be "points", positions that nothing else is said of; "block", one row or more a
        sample; and "any", whatever turns with its sample whole.
        """

    def part(self, places: list[int]) -> Any:
        """The native batch of some of the samples, in the order given."""

    def copies(self, count: int) -> Any:
        """The native batch so many times over, one whole copy after another: sample i of copy k is k size + i.

        So along every axis of samples, atoms and edges, with indices moved on. For
        :mod:`equiscope.decomposition.fold`; a kind of batch without it is measured one pass a call.
        """

    def with_fields(self, changed: Mapping[str, Tensor]) -> Any:
        """A fresh copy of what the model is called with, some fields replaced."""


def labels_of(values: Any, name: str, samples: int) -> list[Any]:
    """The values of a field that holds one a sample.

    Raises:
        InputError: if it is no tensor, array, list or tuple.
    """
    if isinstance(values, Tensor | np.ndarray):
        values = values.tolist()
    if not isinstance(values, list | tuple):
        raise InputError(f"field {name!r} must hold one value a sample ({samples}), got {values!r}")
    return list(values)


def device_of_batch(batch: Batch) -> torch.device:
    """Where the fields of a batch are."""
    return next(iter(batch.fields().values())).device


class DenseBatch:
    """A dict of tensors with samples first; atoms, if any, are the second axis, padded and masked."""

    dense = True

    def __init__(self, batch: Mapping[str, Any]):
        tensors = tensors_of(batch)
        sizes = {k: len(v) for k, v in batch.items() if k in tensors or isinstance(v, (list, tuple))}
        if len(set(sizes.values())) > 1:
            raise InputError(
                f"the fields of a batch differ in length (samples first): {sizes}; where the atoms of all samples "
                "stand one after another, name the field that holds the sample of each atom, batch='batch'"
            )
        self._batch = dict(batch)
        self._tensors = tensors
        self.size = next(iter(sizes.values()))
        if self.size == 0:
            raise InputError(f"an empty batch: {sizes}")
        self._rows: dict[str | None, Rows] = {}

    def fields(self) -> Mapping[str, Tensor]:
        return self._tensors

    def labels(self, name: str) -> list[Any]:
        return labels_of(self._batch[name], name, self.size)

    def rows(self, name: str, per: str, mask: str | None) -> Rows:
        # Without a mask every entry of a sample is real, so atoms need no rows of their own.
        mask = mask if per == "atom" else None
        if mask not in self._rows:
            self._rows[mask] = self._make_rows(mask)
        return self._rows[mask]

    def _make_rows(self, mask: str | None) -> Rows:
        device = next(iter(self._tensors.values())).device
        if mask is None:
            return Rows(torch.arange(self.size, device=device), None, 1, self.size)
        real = boolean(self._tensors[mask], mask)
        if real.ndim != 2:
            raise InputError(f"mask {mask!r} must be boolean (samples, atoms), got {real.dtype} {tuple(real.shape)}")
        if not bool(real.any(dim=1).all()):
            empty = (~real.any(dim=1)).nonzero().flatten().tolist()
            raise InputError(f"samples {empty[:5]} of the batch have zero atoms in mask {mask!r}: remove them")
        index = real.flatten().nonzero().flatten()
        return Rows(torch.div(index, real.shape[1], rounding_mode="floor"), index, 2, self.size)

    def part(self, places: list[int]) -> dict[str, Any]:
        picked: dict[str, Any] = {}
        for name, value in self._batch.items():
            if isinstance(value, list | tuple):
                picked[name] = [value[i] for i in places]
            else:
                whole = (isinstance(value, Tensor | np.ndarray)) and value.ndim > 0
                picked[name] = value[places] if whole else value
        return picked

    def copies(self, count: int) -> dict[str, Any]:
        return {name: repeated(value, count) for name, value in self._batch.items()}

    def with_fields(self, changed: Mapping[str, Tensor]) -> dict[str, Any]:
        return fresh(self._batch, changed)


def repeated(value: Any, count: int) -> Any:
    """A field so many times along its first axis; what has no axis as it is."""
    if isinstance(value, Tensor) and value.ndim:
        return marked(value.detach().repeat(count, *[1] * (value.ndim - 1)), value)
    if isinstance(value, np.ndarray) and value.ndim:
        return np.concatenate([value] * count)
    return value * count if isinstance(value, list | tuple) else value


def fresh(batch: Mapping[str, Any], changed: Mapping[str, Tensor]) -> dict[str, Any]:
    """A copy of a dict of tensors, some replaced, which a model may edit in place without spoiling the next pass.

    What the loader marked as requiring a gradient is marked in the copy: a leaf of its own where no graph is recorded,
    so that a model may read its ``.grad``.
    """
    return {
        k: marked(changed[k] if k in changed else v.clone(), v) if isinstance(v, Tensor) else v
        for k, v in batch.items()
    }


def marked(copied: Tensor, original: Tensor) -> Tensor:
    """The copy, requiring a gradient where the original does."""
    return copied.requires_grad_(True) if original.requires_grad and not copied.requires_grad else copied


def tensors_of(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a dict with at least one axis.

    Raises:
        InputError: if there are none, or floating values that could not be turned or declared.
    """
    for name, value in batch.items():
        refuse_hidden(name, value)
    tensors = {k: v for k, v in batch.items() if isinstance(v, Tensor) and v.ndim > 0}
    if not tensors:
        raise InputError(f"a batch needs at least one tensor with samples first, got fields {names(batch)}")
    return tensors


def names(fields: Iterable[Any]) -> list[Any]:
    """Names of fields in order, also where some are numbers."""
    return sorted(fields, key=lambda name: (str(type(name)), name) if isinstance(name, str | int) else (str(name), ""))


def boolean(values: Tensor, name: str) -> Tensor:
    """A mask as booleans; whole numbers count if they are all 0 and 1.

    Raises:
        InputError: for other values or another dtype.
    """
    if values.dtype == torch.bool:
        return values
    if values.is_floating_point() or values.is_complex() or not bool(((values == 0) | (values == 1)).all()):
        raise InputError(
            f"mask {name!r} must be boolean (or whole numbers 0 and 1), True for real atoms, got {values.dtype} "
            f"{tuple(values.shape)}: write mask > 0 or the like"
        )
    return values.bool()


def refuse_hidden(name: str, value: Any) -> None:
    """Floating arrays that are no plain tensors of their own would reach the model without being turned or declared.

    Raises:
        InputError: naming the field and the remedy.
    """
    if isinstance(value, Tensor) and value.is_meta:
        raise InputError(f"field {name!r} of the batch is on the meta device and holds no numbers: load the data first")
    if isinstance(value, Tensor) and value.is_nested:
        raise InputError(
            f"field {name!r} of the batch is a nested tensor: pad it, torch.nested.to_padded_tensor, with a mask, or "
            "give its values and the sample of each row, batch='batch'"
        )
    if isinstance(value, np.ndarray) and value.ndim > 0 and value.dtype.kind in "fc":
        raise InputError(f"field {name!r} of the batch is a numpy array: make it a tensor, torch.from_numpy(…)")
    if isinstance(value, Mapping | list | tuple):
        inner = value.values() if isinstance(value, Mapping) else value
        for part in inner:
            if isinstance(part, Tensor) and part.ndim > 0 and (part.is_floating_point() or part.is_complex()):
                raise InputError(
                    f"field {name!r} of the batch holds floating tensors in a {type(value).__name__}: give them as "
                    "fields of their own, which can be declared, and put them together in forward=…"
                )
            refuse_hidden(name, part)


@functools.singledispatch
def as_batch(batch: Any) -> Batch:
    """The batch protocol for a user's batch.

    Raises:
        InputError: for a type nobody registered.
    """
    raise InputError(
        f"cannot measure a batch of type {type(batch).__name__}: give dicts of tensors (samples first), "
        "or import an adapter (equiscope.adapters.pyg for PyTorch Geometric batches)"
    )


@as_batch.register(Mapping)
def _dense(batch: Mapping[str, Any]) -> Batch:
    return DenseBatch(batch)


class Guarded:
    """An iterable of batches, ``inner``, whose own errors are told apart from those of the model."""

    def __init__(self, batches: Iterable[Any]):
        self.inner = batches

    def __len__(self) -> int:
        return len(self.inner)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        if name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __iter__(self) -> Iterator[Any]:
        number = 0
        try:
            for native in self.inner:
                yield native
                number += 1
        except EquiscopeError:
            raise
        except Exception as error:
            text = f"the batches fail after {number} of them, before any model sees the next: {first_line(error)}"
            raise around(DataError, text, error) from error


def as_batches(batches: Any) -> Iterable[Any]:
    """The iterable of batches; a single batch is refused with the remedy."""
    if as_batch.dispatch(type(batches)) is not as_batch.dispatch(object):
        raise InputError("batches must be an iterable of batches, got one batch: write [batch]")
    if isinstance(batches, TensorDataset):
        raise InputError("a TensorDataset gives samples, not batches: write DataLoader(dataset, batch_size=32)")
    if isinstance(batches, Tensor):
        raise InputError("batches must be an iterable of batches, got a tensor: write [{'pos': tensor}]")
    if not isinstance(batches, Iterable):
        raise InputError(f"batches must be an iterable of batches, got {type(batches).__name__}")
    return batches if isinstance(batches, list | tuple | Guarded) else Guarded(batches)


def kept(batches: Any) -> list[Any]:
    """All batches in a list, to be gone through again; a stream, which may fill one memory for all, is copied."""
    given = as_batches(batches)
    return list(given) if isinstance(given, list | tuple) else [own(native) for native in given]


def own(native: Any) -> Any:
    """A native batch in memory of its own."""
    if isinstance(native, Tensor):
        return marked(native.detach().clone(), native)
    if isinstance(native, np.ndarray):
        return native.copy()
    if isinstance(native, Mapping):
        return {name: own(value) for name, value in native.items()}
    if isinstance(native, list | tuple):
        parts = [own(part) for part in native]
        return parts if isinstance(native, list) else tuple(parts)
    known = as_batch.dispatch(type(native)) is not as_batch.dispatch(object)
    return as_batch(native).with_fields({}) if known else native
