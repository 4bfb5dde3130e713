"""Symmetries other than rotations: every sample moved by a transformation g of its own, p_g = g^-1 f(g x).

A family says what its transformations are, how one is drawn, and how an answer is brought back. Draws are a pure
function of (seed, sample id, stream), as rotations are, so that neither batches nor processes change a figure. Several
families move a sample one after another, and their answers are brought back in the other order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equiscope.decomposition.batches import Batch, device_of_batch
from equiscope.decomposition.calling import found_outputs
from equiscope.decomposition.orbit import (
    Forward,
    answer_of,
    output_rows,
    rotated,
    rotated_back,
    rows_of,
    turning_rows,
)
from equiscope.decomposition.ragged import batch_of
from equiscope.errors import InputError
from equiscope.symmetry.declaration import Declaration
from equiscope.symmetry.rotations import RotationSet, haar_keyed, uniform_keyed

Values = Mapping[str, Tensor]
Back = Callable[[Values, Batch], dict[str, Tensor]]


@dataclass(frozen=True)
class MoveKey:
    """What a random transformation of every sample is drawn by."""

    seed: int
    ids: Sequence[int]
    stream: int
    _kept: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """What is drawn once for all the passes that share this draw."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def generators(self, use: int = 1) -> Iterator[np.random.Generator]:
        """A random stream for each sample, of its own whatever the batch; another one for each ``use``."""
        for sample in self.ids:
            key, counter = [self.seed, int(sample)], [0, 0, use, self.stream]
            yield np.random.Generator(np.random.Philox(key=key, counter=counter))


@dataclass(frozen=True)
class Moved:
    """A moved batch, as the model is called with it.

    Attributes:
        native: what the model is called with.
        back: rows of its outputs, and the moved batch they are rows of, as rows of the batch before the move.
    """

    native: Any
    back: Back


def unchanged(values: Values, moved: Batch) -> dict[str, Tensor]:
    """Rows of outputs that must be what they were."""
    return {name: rows.double() for name, rows in values.items()}


@dataclass(frozen=True)
class Family:
    """The transformations of one symmetry.

    A coset of it is :meth:`size` transformations, placed 0, 1, … and moved together by one random draw. A family that
    is ``whole`` has no random part: its coset is all of it, and one is exact. ``declared`` must be called before any
    move.
    """

    #: How it is named by users.
    name = ""

    @property
    def label(self) -> str:
        """The name, with what is declared of it."""
        return self.name

    @property
    def whole(self) -> bool:
        """Whether a coset is all of it."""
        return False

    def declared(self, declaration: Declaration) -> None:
        """Refuse a declaration in which there is nothing that it moves.

        Raises:
            InputError: with the remedy.
        """

    def size(self, batch: Batch | None, declaration: Declaration) -> int:
        """Transformations of a coset; without a batch, so many as can be known."""
        return 1

    def weights(self, size: int) -> Tensor:
        """Of the transformations of a coset, (size,) float64, summing to 1."""
        return torch.full((size,), 1.0 / size, dtype=torch.float64, device="cpu")

    def move(self, batch: Batch, declaration: Declaration, draw: MoveKey, places: Sequence[int]) -> Moved:
        """Every sample of a batch moved by the transformation at its place of the coset drawn for it."""
        raise NotImplementedError


def needs_points(what: str, declaration: Declaration) -> None:
    """Positions are declared.

    Raises:
        InputError: otherwise.
    """
    if not declaration.points:
        raise InputError(f"{what} needs positions: declare them, inputs={{'pos': eq.Input('1o', points=True)}}")


@dataclass(frozen=True)
class Orthogonal(Family):
    """Every sample turned, inverted or mirrored by an orthogonal matrix about the declared centre."""

    def matrices(self, draw: MoveKey, places: Tensor) -> Tensor:
        """(samples, 3, 3) float64, for places (samples,)."""
        raise NotImplementedError

    def move(self, batch: Batch, declaration: Declaration, draw: MoveKey, places: Sequence[int]) -> Moved:
        device = device_of_batch(batch)
        turns = self.matrices(draw, torch.as_tensor(places, device="cpu")).to(device)
        return Moved(
            rotated(batch, turns, declaration), lambda rows, moved: rotated_back(rows, batch, turns, declaration)
        )


@dataclass(frozen=True)
class Rotation(Orthogonal):
    """Rotations in random cosets K u, as :func:`equiscope.measure` draws them by default."""

    chosen: RotationSet = field(repr=False)
    group: str = "SO3"
    name = "rotation"

    @property
    def whole(self) -> bool:
        return self.group == self.chosen.name

    def size(self, batch: Batch | None, declaration: Declaration) -> int:
        return len(self.chosen)

    def weights(self, size: int) -> Tensor:
        return self.chosen.weights

    def matrices(self, draw: MoveKey, places: Tensor) -> Tensor:
        shift = draw.once("shift", lambda: uniform_keyed(self.group, draw.seed, draw.ids, draw.stream))
        return self.chosen.matrices[places] @ shift


@dataclass(frozen=True)
class Parity(Orthogonal):
    """The identity and the inversion x -> c - (x - c) through the centre: the whole group of two, exact."""

    name = "parity"
    whole = True

    def size(self, batch: Batch | None, declaration: Declaration) -> int:
        return 2

    def matrices(self, draw: MoveKey, places: Tensor) -> Tensor:
        return (1.0 - 2.0 * places.double())[:, None, None] * torch.eye(3, dtype=torch.float64, device="cpu")


@dataclass(frozen=True)
class Reflection(Orthogonal):
    """The identity, and the reflection at a random plane through the centre, 1 - 2 n n^T with n uniform."""

    name = "mirror"

    def size(self, batch: Batch | None, declaration: Declaration) -> int:
        return 2

    def matrices(self, draw: MoveKey, places: Tensor) -> Tensor:
        normal = draw.once("normal", lambda: haar_keyed(draw.seed, draw.ids, draw.stream)[:, :, :1])
        mirror = 2.0 * (normal @ normal.mT)
        return torch.eye(3, dtype=torch.float64, device="cpu") - places.double()[:, None, None] * mirror


@dataclass(frozen=True)
class Interpolation(Rotation):
    """Turned there and back, x -> h^-1 h x, with no net rotation: what the interpolation of grids alone does."""

    name = "interpolation"
    whole = False

    def move(self, batch: Batch, declaration: Declaration, draw: MoveKey, places: Sequence[int]) -> Moved:
        device = device_of_batch(batch)
        turns = self.matrices(draw, torch.as_tensor(places, device="cpu")).to(device)
        there = batch_of(rotated(batch, turns, declaration), declaration)
        return Moved(rotated(there, turns.mT, declaration), unchanged)


@dataclass(frozen=True)
class Translation(Family):
    """Positions shifted together, x -> x + t, with t uniform in a ball.

    Outputs declared ``points=True`` are shifted back; all others must not change. A centre that is a batch field goes
    with its sample.

    Attributes:
        within: radius of the ball, in the unit of the positions (Å).
    """

    within: float = 10.0
    name = "translation"

    def __post_init__(self) -> None:
        number = isinstance(self.within, int | float) and not isinstance(self.within, bool)
        if not (number and 0 < self.within < math.inf):
            raise InputError(
                f"translations need a range above zero, in the unit of the positions, got {self.within!r}: "
                "'translation=10' shifts by up to 10 Å"
            )

    @property
    def label(self) -> str:
        return f"translation within {self.within:g}"

    def declared(self, declaration: Declaration) -> None:
        needs_points(self.name, declaration)

    def shifts(self, draw: MoveKey) -> Tensor:
        """(samples, 3) float64."""
        found = np.empty((len(draw.ids), 3))
        for row, random in enumerate(draw.generators()):
            normal = random.standard_normal(3)
            found[row] = self.within * random.random() ** (1 / 3) * normal / np.linalg.norm(normal)
        return torch.from_numpy(found)

    def move(self, batch: Batch, declaration: Declaration, draw: MoveKey, places: Sequence[int]) -> Moved:
        shifts = self.shifts(draw).to(device_of_batch(batch))
        fields, changed = batch.fields(), {}
        for name in declaration.points:
            rows = turning_rows(batch, name, declaration)
            there = rows.select(fields[name], (3,)).double() + shifts[rows.sample][:, None, :]
            changed[name] = rows.scatter(there, fields[name], fill=fields[name]).to(fields[name].dtype)
        if declaration.center not in ("origin", "mean"):
            middle = fields[declaration.center]
            moved_middle = middle.double().reshape(batch.size, 3) + shifts
            changed[declaration.center] = moved_middle.reshape(middle.shape).to(middle.dtype)

        def back(values: Values, moved: Batch) -> dict[str, Tensor]:
            found = unchanged(values, moved)
            for name, spec in declaration.outputs.items():
                if spec.points:
                    found[name] = found[name] - shifts[output_rows(batch, name, declaration).sample][:, None, :]
            return found

        return Moved(batch.with_fields(changed), back)


@dataclass(frozen=True)
class Step:
    """One family's move.

    Attributes:
        draw: of its random part.
        place: in the coset drawn; None for one at random for each sample, by ``choice``.
        choice: what the place is drawn by, and which draw it is: all of one stream are different places, as long as
            there are any.
    """

    family: Family
    draw: MoveKey
    place: int | None = None
    choice: tuple[MoveKey, int] | None = None

    def moved(self, batch: Batch, declaration: Declaration) -> tuple[Batch, Back]:
        """The batch moved, as declared, and the way back."""
        if self.place is not None:
            return self._moved_to([self.place] * batch.size, batch, declaration)
        # The passes of a coset of the innermost family share what was moved before.
        return self.draw.once(id(batch), lambda: (batch, self._chosen(batch, declaration)))[1]

    def _moved_to(self, places: Sequence[int], batch: Batch, declaration: Declaration) -> tuple[Batch, Back]:
        moved = self.family.move(batch, declaration, self.draw, places)
        return batch_of(moved.native, declaration), moved.back

    def _chosen(self, batch: Batch, declaration: Declaration) -> tuple[Batch, Back]:
        assert self.choice is not None
        draw, number = self.choice
        size = self.family.size(batch, declaration)
        weights = self.family.weights(size).numpy()
        if self.family.whole:
            places = [int(random.permutation(size)[number % size]) for random in draw.generators(use=2)]
        else:
            places = [int(random.choice(size, p=weights)) for random in self.draw.generators(use=2)]
        return self._moved_to(places, batch, declaration)


@dataclass(frozen=True)
class Moves:
    """The moves of one pass over a batch, the first of them first."""

    steps: tuple[Step, ...]

    def moved(self, batch: Batch, declaration: Declaration) -> tuple[Batch, list[tuple[Back, Batch]]]:
        """The moved batch, and each step's way back with the batch it starts from, the first step first."""
        here, backs = batch, []
        for step in self.steps:
            here, back = step.moved(here, declaration)
            backs.append((back, here))
        return here, backs


def twisted_by(
    several: Sequence[Moves],
    model: Any,
    batch: Batch,
    declaration: Declaration,
    forward: Forward | None,
    copies: Batch | None = None,
) -> dict[str, Tensor]:
    """Every declared output for a batch under each of several moves, brought back, one after another in one call.

    Rows (moves n, c, *shape) in float64 of ``batch``; ``copies``, so many of it side by side, where moves are several.

    Raises:
        InputError: for moves of which one changes how many atoms there are, which then share no call.
    """
    moved = [one.moved(batch, declaration) for one in several]
    whole = moved[0][0]
    if copies is not None:
        whole = batch_of(side_by_side([here for here, _ in moved], batch, copies), declaration)
    answer = answer_of(model, whole.with_fields({}), forward, batch if copies is None else None)
    found: dict[str, list[Tensor]] = {}
    given = {k: rows_of(v, k, whole, declaration) for k, v in found_outputs(answer, declaration).items()}
    for place, (_, backs) in enumerate(moved):
        # Copies: a model may answer every call in the same memory (CUDA graphs do).
        values: Values = {name: rows.chunk(len(moved))[place].clone() for name, rows in given.items()}
        for back, moved_batch in reversed(backs):
            values = back(values, moved_batch)
        for name, rows in values.items():
            found.setdefault(name, []).append(rows)
    return {name: torch.cat(rows) for name, rows in found.items()}


def side_by_side(moved: Sequence[Batch], batch: Batch, copies: Batch) -> Any:
    """The native copies of a batch, each with the fields of one of the moved batches.

    Raises:
        InputError: where a field has another shape than in ``batch``.
    """
    changed, given = {}, batch.fields()
    for name, stacked in copies.fields().items():
        parts = [one.fields()[name] for one in moved]
        if any(part.shape != given[name].shape for part in parts):
            raise InputError(f"field {name!r} has another size in moved batches: they share no call")
        # Pairs of atoms stand beside each other; offsets, where samples begin, are not moved.
        axis = 0 if len(stacked) == len(parts) * len(given[name]) else 1
        if stacked.ndim <= axis:
            continue
        whole = torch.cat(parts, axis)
        if not (whole.is_floating_point() or whole.is_complex() or whole.dtype == torch.bool):
            # Numbers of atoms and samples go on from one copy to the next.
            whole = whole + (stacked - torch.cat([given[name]] * len(parts), axis))
        changed[name] = whole
    return copies.with_fields(changed)
