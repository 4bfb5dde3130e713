"""Whether a data set is randomly oriented: a classifier is asked to tell its frames from the same frames turned.

The orientation tensor sees Wigner degree 2 of one axis a frame. Here every held-out frame x stands against copies of
itself turned by Haar rotations R, and

    AUC = P(s(x) > s(R x)) + P(s(x) = s(R x)) / 2        s the score of a classifier that never saw the frame's group.

For randomly oriented data x and R x are one distribution, whatever s is, so that the AUC is 1/2 exactly; where it is
more, the data prefer orientations. The converse holds only as far as the classifier sees (Lawrence et al.,
arXiv:2510.01349, who train a network on the same two classes; Lopez-Paz & Oquab, Revisiting Classifier Two-Sample
Tests, ICLR 2017).

Features: real spherical harmonics of degrees 1 to 6 of the directions of atoms about their mean, added with weights
|r| over all atoms, hydrogen, carbon, nitrogen, oxygen and the rest, and those of the three lattice vectors of a
periodic frame; then they and 512 random rectified sums of them. Score: Fisher's linear discriminant of these, its
covariance (from turned copies) shrunk by adding its mean diagonal.

Groups are shuffled into five parts; each of the last three is judged by a classifier of all parts before it. A part
then is fresh given those before it, and the errors of the parts are uncorrelated. Those of folds that train on one
another are not: a pair of groups counts in two of them, and an interval that takes them for independent is too narrow,
by sqrt(2) for a score that is a mean over groups. The interval is that of the mean over groups
(:mod:`equiscope.decomposition.statistics`).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from e3nn import o3
from torch import Tensor

from equiscope.decomposition import statistics
from equiscope.symmetry.rotations import haar_keyed
from equiscope.tasks.datasets.stream import Sample

FRAMES, COPIES, DEGREE = 2048, 3, 6
SUMS, SHARES = 512, (0.3, 1.0)
"""How many random sums, and the weights of plain features and of sums among all."""
PARTS, FIRST = 5, 2
ELEMENTS = (1, 6, 7, 8)
LEAST_GROUPS, LEAST_FRAMES = 10, 20
ATOMS_AT_ONCE = 25_000
TOO_FEW = f"random orientation: fewer than {LEAST_FRAMES} frames that have a direction, not tested"


@dataclass(frozen=True)
class OrientationBias:
    """How well a classifier tells frames as they are from the same frames turned at random.

    Attributes:
        auc: the chance that it ranks a held-out frame above a turned copy of it; 0.5 for guessing.
        interval: 95 %, over independent units.
        frames: held-out frames judged; trained: frames of the last classifier.
        units: how many independent groups carry the interval; ``by`` says what they are, "groups", or "frames" where
            there are fewer than ten groups: then of these groups' own frames, which is no statement about others.
    """

    auc: float
    interval: tuple[float, float]
    frames: int
    trained: int
    units: int
    by: str

    @property
    def biased(self) -> bool:
        """Whether the interval lies above 0.5: a false alarm in one of forty randomly oriented data sets."""
        return self.interval[0] > 0.5

    def __str__(self) -> str:
        low, high = self.interval
        said = "randomly oriented as far as a classifier can tell:"
        said = "NOT randomly oriented: a classifier tells frames from turned copies of them," if self.biased else said
        said += f" AUC {self.auc:.2f} ({low:.2f}–{high:.2f})"
        taken = f"; fewer than {LEAST_GROUPS} groups, frames taken as independent" if self.by == "frames" else ""
        return f"{said}, degrees 1 to {DEGREE}, {self.frames:,} held-out frames of {self.units:,} {self.by}{taken}"

    def to_dict(self) -> dict[str, Any]:
        """Plain types for a record."""
        return {**dataclasses.asdict(self), "interval": list(self.interval)}


@dataclass(frozen=True)
class _Frame:
    key: int
    group: str
    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray


class BiasTest:
    """Takes in frames and gives an :class:`OrientationBias`; its memory is that of 4,096 frames' features.

    The frames used are a pure function of the seed and of a frame's place in the stream, the turns of the same.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed, self._taken, self._largest, self._most = seed, 0, (1 << 64) - 1, 0
        self._waiting: list[_Frame] = []
        self._keys = np.empty(0, dtype=np.uint64)
        self._groups: list[str] = []
        self._seen: list[Tensor] = []

    def add(self, group: str, numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray | None = None) -> None:
        """Take in frames of one group: numbers (N,), positions (F, N, 3) Å, cell (F, 3, 3) rows or None."""
        keys = Sample(seed=self._seed).keys(self._taken, len(positions))
        self._taken += len(positions)
        cells = np.zeros((len(positions), 3, 3)) if cell is None else cell
        for i in np.flatnonzero(keys <= np.uint64(self._largest)):
            self._waiting.append(_Frame(int(keys[i]), group, numbers, positions[i].copy(), cells[i].copy()))
            self._most = max(self._most, len(numbers))
            if len(self._waiting) * self._most >= ATOMS_AT_ONCE:
                self._look()

    def _look(self) -> None:
        """Features of the frames that wait; of all frames those of the lowest keys are kept."""
        if self._waiting:
            self._seen.append(_features(self._waiting, self._seed))
            self._keys = np.concatenate([self._keys, np.array([f.key for f in self._waiting], dtype=np.uint64)])
            self._groups += [f.group for f in self._waiting]
            self._waiting, self._most = [], 0
        if len(self._keys) > FRAMES:
            lowest = np.argsort(self._keys)[:FRAMES]
            self._seen = [torch.cat(self._seen, dim=1)[:, torch.from_numpy(lowest)]]
            self._keys, self._groups = self._keys[lowest], [self._groups[i] for i in lowest]
            self._largest = int(self._keys[-1])

    def result(self) -> OrientationBias | None:
        """Of all frames so far; None with fewer than 20 that have a direction at all."""
        self._look()
        if not len(self._keys):
            return None
        seen = torch.cat(self._seen, dim=1)
        directed = (seen != 0).any(-1).all(0)
        if directed.sum() < LEAST_FRAMES:
            return None
        units = [group for group, keep in zip(self._groups, directed.tolist(), strict=True) if keep]
        by = "groups" if len(set(units)) >= LEAST_GROUPS else "frames"
        codes, count = statistics.encode(units if by == "groups" else list(range(len(units))))
        part = _parts(codes, count, self._seed)
        won = _won(seen[:, directed].double(), torch.from_numpy(part), self._seed).numpy()
        held = part >= FIRST
        return _judged(won[held], codes[held], int((part < PARTS - 1).sum()), by)


def _features(frames: list[_Frame], seed: int) -> Tensor:
    """(1 + COPIES, frames, d) float32 of frames as they are and of turned copies of them."""
    most, keys = max(len(f.numbers) for f in frames), [f.key for f in frames]
    rows = np.zeros((len(frames), most + 3, 3))
    kinds = np.zeros((len(frames), len(ELEMENTS) + 2, most))
    for i, f in enumerate(frames):
        n = len(f.numbers)
        rows[i, :n] = f.positions - f.positions.mean(0)
        rows[i, most:] = f.cell
        kinds[i, :, :n] = np.stack([np.ones(n), *(f.numbers == z for z in ELEMENTS), ~np.isin(f.numbers, ELEMENTS)])
    turns = [torch.eye(3, dtype=torch.float64).expand(len(keys), 3, 3)]
    turns += [haar_keyed(seed, keys, stream=1 + copy) for copy in range(COPIES)]
    seen = harmonics(torch.from_numpy(rows) @ torch.stack(turns).mT)
    weights = torch.from_numpy(kinds * np.linalg.norm(rows[:, None, :most], axis=-1))
    weights = weights / weights.sum(-1, keepdim=True).clamp_min(1e-12)
    atoms = torch.einsum("fcn,rfnk->rfck", weights, seen[:, :, :most])
    return torch.cat([atoms, seen[:, :, most:]], dim=2).flatten(2).float()


def harmonics(vectors: Tensor) -> Tensor:
    """Real spherical harmonics of degrees 1 to 6 of directions (…, 3), (…, 48); 0 for the zero vector."""
    found = o3.spherical_harmonics(list(range(1, DEGREE + 1)), vectors, normalize=True, normalization="component")
    return torch.where(vectors.square().sum(-1, keepdim=True) > 1e-18, found, 0.0)


def _parts(codes: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The part of every frame: groups in random order, cut where the frames before them fill a fifth more."""
    order = np.random.default_rng([seed, 3]).permutation(count)
    sizes = np.bincount(codes, minlength=count)
    filled = np.empty(count)
    filled[order] = np.cumsum(sizes[order]) - sizes[order] / 2
    return np.minimum((PARTS * filled / sizes.sum()).astype(np.int64), PARTS - 1)[codes]


def _won(seen: Tensor, part: Tensor, seed: int) -> Tensor:
    """Share of its turned copies (F,) above which each held-out frame is ranked; 0 for frames that only train."""
    scale = seen[1:].flatten(0, 1).std(0)
    plain = seen[..., scale > 1e-6] / scale[scale > 1e-6]
    width = plain.shape[-1]
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, SUMS, generator=generator, dtype=torch.float64) * math.sqrt(2 / width)
    offset = 0.5 * torch.randn(SUMS, generator=generator, dtype=torch.float64)
    rows = torch.cat([SHARES[0] * plain, SHARES[1] * torch.relu(plain @ mixing + offset)], dim=-1)
    won = torch.zeros(len(part), dtype=torch.float64)
    for number in range(FIRST, PARTS):
        before, here = part < number, part == number
        turned = rows[1:, before].flatten(0, 1)
        spread = torch.cov(turned.T)
        spread.diagonal().add_(spread.diagonal().mean())
        direction = torch.linalg.solve(spread, rows[0, before].mean(0) - turned.mean(0))
        score = rows[:, here] @ direction
        won[here] = ((score[0] > score[1:]).double() + 0.5 * (score[0] == score[1:])).mean(0)
    return won


def _judged(won: np.ndarray, codes: np.ndarray, trained: int, by: str) -> OrientationBias:
    """The mean over held-out frames and its interval over their units."""
    _, places = np.unique(codes, return_inverse=True)
    units = int(places.max()) + 1
    a, b = (statistics.cluster_totals(values, places, units) for values in (won, np.ones_like(won)))
    value, residual, left_out = statistics.influence(a, b)
    found, _, _ = statistics.spread(residual, left_out)
    reach = float(statistics.unseen(b)) if found.error == 0 else 0.0
    low, high = max(float(value - found.below) - reach, 0.0), min(float(value + found.above) + reach, 1.0)
    return OrientationBias(float(value), (low, high), len(won), trained, units, by)
