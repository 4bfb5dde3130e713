"""A data set as a stream: frames that must not enter are counted, and a reproducible sample of the rest is drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from equiscope.errors import InputError
from equiscope.tasks.datasets.blocks import ARRAYS, SYMBOLS, Block
from equiscope.tasks.datasets.reading import Reader
from equiscope.tasks.guards import at_least

T = TypeVar("T")
_ALL = (1 << 64) - 1


@dataclass(frozen=True)
class Rules:
    """What a frame must be to enter; whatever is not is counted under its reason.

    Frames with a NaN or an infinity never enter.

    Attributes:
        elements: atomic numbers that may occur, None for all; max_atoms: None for no limit.
        max_force: eV/Å, of the largest force on an atom; None for no limit. Torn geometries have far larger ones.
        neutral: leave out frames whose source says a total charge other than 0.
    """

    elements: tuple[int, ...] | None = None
    max_atoms: int | None = None
    max_force: float | None = None
    neutral: bool = False

    def keep(self, block: Block, rejected: Counter[str]) -> Block | None:
        """The frames of a block that enter, or None."""
        if reason := self._whole(block):
            rejected[reason] += len(block)
            return None
        for why, bad in self._single(block):
            if bad.any():
                rejected[why] += int(bad.sum())
                return self.keep(block.take(~bad), rejected) if not bad.all() else None
        return block

    def _whole(self, block: Block) -> str:
        if self.max_atoms is not None and len(block.numbers) > self.max_atoms:
            return f"more than {self.max_atoms} atoms"
        if self.elements is not None and (other := sorted(set(block.numbers.tolist()) - set(self.elements))):
            return f"element {', '.join(SYMBOLS[z] for z in other)}"
        if self.neutral and block.charge:
            return "charged"
        return ""

    def _single(self, block: Block) -> Iterator[tuple[str, np.ndarray]]:
        for name in ARRAYS:
            if (value := getattr(block, name)) is not None:
                yield f"{name} not finite", ~np.isfinite(value).reshape(len(block), -1).all(1)
        if self.max_force is not None and block.forces is not None:
            largest = np.linalg.norm(block.forces, axis=-1).max(1)
            yield f"a force above {self.max_force:g} eV/Å", largest > self.max_force


@dataclass(frozen=True)
class Sample:
    """Which of the accepted frames are taken: a pure function of the seed and a frame's number in the file.

    Every frame has a key, its number hashed with the seed. ``share`` takes the frames whose key is below that share
    of the range; ``frames`` takes the accepted frames with the lowest keys, exactly so many, which needs a first pass
    over the file that keeps 8 bytes for each frame to be taken.

    Attributes:
        frames: how many, None for all; share: in (0, 1], of all frames; seed: of the keys.
    """

    frames: int | None = None
    share: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, frames=self.frames)
        at_least(0, seed=self.seed)
        if not 0 < self.share <= 1:
            raise InputError(f"share must be above 0 and at most 1, got {self.share}")

    def limit(self, accepted: Callable[[int], Iterable[np.ndarray]]) -> int:
        """The largest key that is taken; ``accepted(most)`` gives the keys of all that may be, up to that of ``share``.

        It is asked only where a number of frames is wanted.
        """
        most = _ALL if self.share >= 1 else int(self.share * 2.0**64)
        return most if self.frames is None else min(most, _lowest(accepted(most), self.frames))

    def keys(self, first: int, count: int) -> np.ndarray:
        """(count,) uint64 keys of the frames first, first + 1, …: two rounds of splitmix64."""
        seed = _mix(np.array([self.seed], dtype=np.uint64))
        return _mix(np.arange(first, first + count, dtype=np.uint64) + seed)


def read(source: Reader, rules: Rules, sample: Sample, rejected: Counter[str]) -> Iterator[Block]:
    """The accepted frames of a sample, in file order."""
    limit = sample.limit(lambda most: (keys for keys, _ in _accepted(source, rules, sample, most, Counter())))
    for _, block in _accepted(source, rules, sample, limit, rejected):
        yield block


def _accepted(
    source: Reader, rules: Rules, sample: Sample, limit: int, rejected: Counter[str]
) -> Iterator[tuple[np.ndarray, Block]]:
    """Accepted blocks of frames whose key is at most ``limit``, with the keys; rejections count among these frames."""
    first = 0
    for block in source.blocks(rejected):
        keys = sample.keys(first, len(block))
        first += len(block)
        chosen = keys <= np.uint64(limit)
        if not chosen.all():
            block, keys = block.take(chosen), keys[chosen]
        kept = rules.keep(block, rejected) if chosen.any() else None
        if kept is None:
            continue
        if len(kept) < len(block):
            # Rejections are rare: which frames are left is asked one by one.
            still = np.array([rules.keep(frame, Counter()) is not None for frame in block.frames()])
            keys = keys[still]
        yield keys, kept


def chosen(items: Callable[[], Iterable[T]], sample: Sample) -> Iterator[T]:
    """The items of a sample, in order, for what is no frame: ``items()`` is asked twice where a number is wanted."""
    limit = sample.limit(lambda most: (sample.keys(number, 1) for number, _ in enumerate(items())))
    for number, item in enumerate(items()):
        if int(sample.keys(number, 1)[0]) <= limit:
            yield item


def _lowest(stream: Iterable[np.ndarray], count: int) -> int:
    """The largest of the ``count`` lowest keys of a stream; the whole range where it has fewer."""
    parts, held = [np.empty(0, dtype=np.uint64)], 0
    for keys in stream:
        parts.append(keys)
        held += len(keys)
        if held > 2 * max(count, 1 << 16):
            parts, held = [np.partition(np.concatenate(parts), count - 1)[:count]], count
    every = np.concatenate(parts)
    return int(np.partition(every, count - 1)[count - 1]) if len(every) >= count else _ALL


def _mix(x: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser (Steele, Lea, Flood, OOPSLA 2014), a bijection of 64-bit numbers."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
