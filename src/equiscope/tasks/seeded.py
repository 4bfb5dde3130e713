"""What the three tasks share: seeds of their own for every purpose, random rotations, settings, shuffled passes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equiscope.errors import InputError
from equiscope.symmetry.rotations import haar
from equiscope.tasks.guards import at_least, share, typed


def rotate(batch: Mapping[str, Tensor], fields: Sequence[str], share: float, seed: int) -> dict[str, Tensor]:
    """Turn the vectors of a share of the samples (probability in [0, 1]), each by its own Haar rotation R: x -> R x.

    ``fields`` are the names of vectors about the origin, (B, N, 3) each; ``seed`` is that of rotations and choice.
    """
    out = dict(batch)
    if share <= 0:
        return out
    generator = torch.Generator().manual_seed(seed)
    count = len(out[fields[0]])
    rotations = haar(count, generator)
    turned = torch.rand(count, generator=generator, dtype=torch.float64) < share
    rotations[~turned] = torch.eye(3, dtype=torch.float64)
    rotations = rotations.to(out[fields[0]].device)
    for name in fields:
        out[name] = (out[name].double() @ rotations.mT).to(out[name].dtype)
    return out


def few_sizes(count: int) -> int:
    """The next of few sizes, 8 … 15 times a power of two: at most an eighth more, so that compiled shapes recur."""
    step = 1 << max(0, count.bit_length() - 4)
    return -(-count // step) * step


def lengthened(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The batch with its padded axis, that of ``mask`` (B, N), filled up to one of :func:`few_sizes` with zeros."""
    length = batch["mask"].shape[1]
    more = few_sizes(length) - length
    wide = {name: value for name, value in batch.items() if value.ndim > 1 and value.shape[1] == length}
    return {**batch, **{name: F.pad(value, (*[0, 0] * (value.ndim - 2), 0, more)) for name, value in wide.items()}}


def key(seed: int, *what: str | int) -> int:
    """A 63-bit seed of its own for every purpose and step."""
    text = "/".join(map(str, (seed, *what)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


Configuration = Mapping[str, Any]
Models = Mapping[str, tuple[type[nn.Module], Mapping[str, Any], Mapping[str, Any]]]
"""Name → (class, configurations by size, settings that the name stands for)."""


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """What every task is told; impossible values are an InputError.

    Attributes:
        seed: of initial weights, order, augmentation and noise.
        augment: share of the training samples that get a rotation of their own.
        batch_size: of the training.
        model, size, model_settings: name, size and further settings of the network.
    """

    seed: int = 0
    augment: float = 1.0
    batch_size: int = 32
    model: str
    size: str = "nano"
    model_settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        at_least(0, seed=self.seed)
        at_least(1, batch_size=self.batch_size)
        share(augment=self.augment)

    @classmethod
    def of(cls, config: Configuration, **own: Any) -> Self:
        """The common settings of a resolved configuration with a task's ``own``; None stands for the default."""
        network = {name: value for name, value in config.get("model", {}).items() if value is not None}
        common = {name: config.get(name) for name in ("seed", "augment", "batch_size")}
        given = {**common, "model": network.pop("name", None), "size": network.pop("size", None), **own}
        kept = {name: value for name, value in given.items() if value is not None}
        return cls(model_settings=network, **typed(cls, kept))


def configured(kind: str, models: Models, name: str, size: str, settings: Configuration) -> tuple[type[nn.Module], Any]:
    """The class of a named model and its configuration, a dataclass.

    ``settings`` are fields of the configuration that differ from those of the size. ``kind`` of model
    (``"force-field"``) is named in messages.

    Raises:
        InputError: an unknown name, size or field, a field that the name already settles, or one of another kind
            (:func:`equiscope.tasks.guards.typed`).
    """
    if name not in models:
        raise InputError(f"there is no {kind} model {name!r}: choose one of {', '.join(sorted(models))}")
    network, sizes, settled = models[name]
    if size not in sizes:
        raise InputError(f"{name} has no size {size!r}: choose one of {', '.join(sizes)}")
    known = {found.name for found in fields(sizes[size])} - set(settled)
    if unknown := sorted(set(settings) - known):
        raise InputError(f"{name} has no setting {unknown}: choose among {', '.join(sorted(known))}")
    return network, replace(sizes[size], **settled, **typed(type(sizes[size]), settings, "model.{}"))


def spread(every: Tensor, wanted: int | None) -> Tensor:
    """All of ``every`` (n,), or so many of them as wanted, at least one, evenly spread."""
    if wanted is None or wanted >= len(every):
        return every
    return every[(torch.arange(wanted) * len(every)) // wanted]


class Shuffled:
    """The endless sequence of passes over ``items``, each in an order of its own: a function of seed and place."""

    def __init__(self, items: Any, seed: int) -> None:
        self.items, self.seed = items, seed
        self._passes: dict[int, Any] = {}

    def draw(self, turn: int) -> Any:
        """The items of a pass in their order, integers."""
        generator = torch.Generator().manual_seed(key(self.seed, "order", turn))
        return self.items[torch.randperm(len(self.items), generator=generator)]

    def take(self, first: int, count: int) -> list[int]:
        """The items at places ``first`` … ``first + count − 1``."""
        return [self._at(place) for place in range(first, first + count)]

    def _at(self, place: int) -> int:
        turn, inside = divmod(place, len(self.items))
        if turn not in self._passes:
            # A batch may reach into the next pass, and the batch after it come back.
            latest = sorted(self._passes)[-1:]
            self._passes = {known: self._passes[known] for known in latest} | {turn: self.draw(turn)}
        return int(self._passes[turn][inside])


Told = TypeVar("Told", bound=TaskSettings)
Data = TypeVar("Data")


class SeededTask(Generic[Told, Data]):
    """A task whose weights and batches are pure functions of its settings, seed and step.

    ``losses`` are those it has with the settings of each, ``models`` the names of its models. One that cannot be built
    is an InputError at once.
    """

    losses: ClassVar[Mapping[str, tuple[str, ...]]]
    models: ClassVar[tuple[str, ...]]
    _order: Shuffled

    def __init__(self, settings: Told) -> None:
        self.settings = settings
        self._data: Data | None = None
        self._check_model()

    @property
    def data(self) -> Data:
        """The data, once ``prepare`` has been called; an InputError before that."""
        if self._data is None:
            raise InputError("the task has no data yet: call prepare() first")
        return self._data

    def checksum(self) -> str:
        """SHA-256 of the data, which tells whether a run goes on with those it began with."""
        return str(self.data.checksum())  # type: ignore[attr-defined]

    def build_model(self) -> nn.Module:
        """The model with the initial weights of the seed; the global random state is left alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._weights_seed())
            return self._build()

    def _check_model(self, device: str = "meta") -> nn.Module:
        """Refuse bad settings of the model before data is made, without its memory."""
        with torch.device(device), torch.random.fork_rng(devices=[]):
            return self._build()

    def _weights_seed(self) -> int:
        return key(self.settings.seed, "weights")

    def _build(self) -> nn.Module:
        raise NotImplementedError
