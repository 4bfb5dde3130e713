"""Folding: several passes of a walk share one call of the model, as rotated copies of the batch side by side.

A GPU that is given one small batch after another mostly waits for the next kernel; copies of the batch along the axis
of samples make each kernel larger. Nothing else changes: every sample has its own rotation anyway, and the figures are
those of single passes to rounding. That holds where a model treats samples independently, which is checked, not
assumed: a few samples as given stand first and last in a call of three copies, and must be answered as before; and of
a call that is larger than any before, the first and the last pass are answered again by themselves. A model whose
samples see each other, or that refuses copies, is measured one pass a call.

How many passes share a call follows from the model's second call on the batch as given, which is watched anyway: with
W bytes written by n operations, and H of them held at once,

    passes = min( ceil(16 MB n / W),  free memory / (4 H) )

so that an operation writes about as much as keeps a GPU busy while the next is launched, and a call stays under a
quarter of the free memory. No clock enters: the same run folds in the same way. On a CPU copies make passes slower
(page faults, caches), except where a batch has fewer than four samples. Where memory runs out all the same, half as
many passes share the next call.

Moves of other symmetries share calls in the same way, each batch moved alone and the moved ones set side by side, as
far as no move changes how many atoms there are (supercells do).

A kind of batch takes part by a method ``copies`` (:class:`equiscope.decomposition.batches.Batch`).
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from equiscope.decomposition.batches import Batch, Rows, device_of_batch
from equiscope.decomposition.computing import Computing
from equiscope.decomposition.orbit import Forward, output_rows, twisted
from equiscope.decomposition.plan import Pass
from equiscope.decomposition.ragged import batch_of
from equiscope.decomposition.symmetries.moves import twisted_by
from equiscope.errors import EquiscopeError, InputError, first_line
from equiscope.symmetry.declaration import Declaration
from equiscope.symmetry.rotations import uniform_keyed

# Bytes that an operation writes on average where a GPU is busy, and of the free memory what a call may hold.
BUSY, SHARE = 16e6, 0.25
# Where nothing was seen of the operations (compiled models), so many samples a call.
BLIND = 256
# On a CPU batches of fewer samples are folded, up to so many samples and input numbers a call.
FEW, TOGETHER, NUMBERS = 4, 16, 20_000
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
# Samples of the check, and units of the precision by which folding may change an answer: rounding in another order.
CHECKED, UNITS, COARSE_UNITS, COARSE = 4, 256, 4, 1e-6


@dataclass
class Folding:
    """How passes of one model are folded, carried from batch to batch.

    Attributes:
        asked: most passes that share a call; None for as many as the device likes, 1 for no folding.
        sound: whether copies side by side are answered like single ones; None before the check.
        most: samples a call, at most, since memory ran out.
        seen: the second call on the first batch, and the input numbers of that batch.
        free: bytes that were free then.
        change: of an output between identical calls.
        compared: samples, and numbers of the inputs, of the largest calls whose answers were compared with those of
            single passes.
    """

    asked: int | None = None
    sound: bool | None = None
    most: int | None = None
    seen: Computing | None = None
    numbers: int = 1
    free: float = 0.0
    refused: str = ""
    change: float = 0.0
    compared: tuple[int, int] = (0, 0)

    def watch(self, seen: Computing, batch: Batch, declaration: Declaration) -> None:
        """Take in what the first batch showed."""
        self.seen, self.numbers = seen, input_numbers(batch, declaration)
        self.free = free_memory(device_of_batch(batch))

    def size(self, batch: Batch, declaration: Declaration) -> int:
        """Passes that share a call on this batch."""
        return self.wanted(batch, declaration) if self.sound else 1

    def wanted(self, batch: Batch, declaration: Declaration) -> int:
        """Passes that would share a call if the model treats samples independently."""
        if self.asked == 1 or not hasattr(batch, "copies"):
            return 1
        numbers, seen = max(input_numbers(batch, declaration), 1), self.seen or Computing()
        if self.asked is not None:
            wanted = self.asked
        elif device_of_batch(batch).type == "cpu":
            wanted = min(TOGETHER // batch.size, NUMBERS // numbers) if batch.size < FEW else 1
        elif seen.written:
            wanted = int(-(-BUSY * seen.operations * self.numbers // (seen.written * numbers)))
        else:
            wanted = BLIND // batch.size
        if seen.held and self.free:
            wanted = min(wanted, int(SHARE * self.free * self.numbers / (seen.held * numbers)))
        if self.most is not None:
            wanted = min(wanted, self.most // batch.size)
        return max(wanted, 1)

    def note(self) -> str | None:
        """What a reader must know where folding was refused."""
        return f"one rotation a call: {self.refused}" if self.refused else None

    def check(
        self, model: Any, batch: Batch, answer: Mapping[str, Tensor], declaration: Declaration,
        caller: Forward | None, change: float,
    ) -> None:  # fmt: skip
        """Whether samples are answered alike alone and among turned copies of themselves.

        ``answer`` are the rows for the batch as given; ``change`` is that of an output between identical calls.
        """
        if self.sound is False or self.wanted(batch, declaration) == 1:
            return
        some, places = batch, list(range(batch.size))
        if batch.size > CHECKED:
            # A batch made by hand may not say which rows are whose.
            with contextlib.suppress(Exception):
                some, places = batch_of(batch.part(places[:CHECKED]), declaration), places[:CHECKED]
        device = device_of_batch(batch)
        identity = torch.eye(3, dtype=torch.float64, device="cpu").expand(len(places), 3, 3)
        turns = torch.cat([identity, uniform_keyed(declaration.group, 0, places), identity]).to(device)
        self.change = change
        try:
            found = twisted(model, copies_of(some, 3, declaration), turns, declaration, caller, explained=False)
        except Exception as error:
            self.sound = False
            # On a CPU nobody asked for it.
            if self.asked is not None or device.type != "cpu":
                own = error.__cause__ if isinstance(error, EquiscopeError) and error.__cause__ else error
                self.refused = f"the model does not take several copies of a batch side by side ({first_line(own)})"
            return
        single = {k: rows[rows_at(output_rows(batch, k, declaration), places)].detach() for k, rows in answer.items()}
        pieces = {k: rows.detach().chunk(3) for k, rows in found.items()}
        self.sound = all(self.alike(single, {k: three[place] for k, three in pieces.items()}) for place in (0, 2))

    def alike(self, single: Mapping[str, Tensor], copy: Mapping[str, Tensor]) -> bool:
        """Whether rows of a shared call are those of a single one, but for rounding in another order."""
        eps = self.seen.eps if self.seen else 0.0
        for name, rows in single.items():
            limit = max((UNITS if eps < COARSE else COARSE_UNITS) * eps, torch.finfo(rows.dtype).eps, 3 * self.change)
            same = copy[name].shape == rows.shape
            apart = torch.linalg.vector_norm(copy[name].double() - rows.double()) if same else torch.inf
            if not apart <= limit * torch.linalg.vector_norm(rows.double()):
                self.refused = (
                    f"copies of a batch side by side are not answered like each alone ({name!r}): its samples see "
                    "each other (batch statistics, BatchNorm in training mode?), or its calls are counted"
                )
                return False
        return True

    def confirm(
        self, size: tuple[int, int], alone: Callable[[int], Mapping[str, Tensor]], together: Mapping[str, Tensor],
        passes: int,
    ) -> bool:  # fmt: skip
        """Whether the first and the last pass of a call are answered as ``alone(place)`` answers.

        Two of them, since where samples see each other by an extreme of the batch, one pass has it. ``size``: of the
        call, its samples and the numbers of its inputs; either may meet a limit of the model's.
        """
        most = max(size[0], self.compared[0]), max(size[1], self.compared[1])
        if most == self.compared:
            return True
        pieces = {name: rows.detach().chunk(passes) for name, rows in together.items()}
        for place in (0, passes - 1):
            single = {name: rows.detach() for name, rows in alone(place).items()}
            self.sound = self.alike(single, {name: rows[place] for name, rows in pieces.items()})
            if not self.sound:
                return False
        self.compared = most
        return True


def input_numbers(batch: Batch, declaration: Declaration) -> int:
    """How many numbers the inputs of a batch hold, which turn."""
    return sum(batch.fields()[name].numel() for name in declaration.inputs)


def free_memory(device: torch.device) -> float:
    """Bytes that a call may still take of a device, or of the machine; 0 where nobody knows."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + cached)
    if device.type == "cpu" and hasattr(os, "sysconf"):
        return float(os.sysconf("SC_AVPHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE")
    return 0.0


def copies_of(batch: Batch, count: int, declaration: Declaration) -> Batch:
    """A batch with so many copies of every sample, one whole batch after another.

    Raises:
        InputError: for a kind of batch that cannot be copied.
    """
    copies = getattr(batch, "copies", None)
    if copies is None:
        raise InputError(f"a {type(batch).__name__} has no method copies(count), by which passes share a call")
    return batch_of(copies(count), declaration)


def rows_at(rows: Rows, places: list[int]) -> Tensor:
    """The rows of some samples, one sample after another, each in its own order."""
    rank = torch.full((rows.samples,), -1, dtype=torch.int64, device=rows.sample.device)
    rank[torch.tensor(places, device=rank.device)] = torch.arange(len(places), device=rank.device)
    order = rank[rows.sample].argsort(stable=True)
    return order[rank[rows.sample][order] >= 0]


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what it was raised from, says that memory ran out."""
    while error is not None:
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if known or (isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)):
            return True
        error = error.__cause__
    return False


def shared(call: Callable[[], Any], samples: int, folding: Folding) -> Any:
    """The answer of a call on so many samples; None where it fails, which single passes then tell or not."""
    try:
        return call()
    except Exception as error:
        full = out_of_memory(error)
    # Outside the except block, whose traceback holds what the failed call had made.
    if not full:
        folding.sound = False
        return None
    folding.most = samples // 2
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def folded(
    model: Any,
    batch: Batch,
    passes: Iterable[Pass],
    count: int,
    declaration: Declaration,
    caller: Forward | None,
    folding: Folding,
) -> Iterator[tuple[list[Pass], dict[str, Tensor]]]:
    """(passes that shared a call, their twisted predictions one pass after another), rows (passes n, c, *shape).

    ``count`` is the number of passes, so that calls are of even size; they are drawn as they are needed.

    Raises:
        ModelError: as :func:`equiscope.decomposition.orbit.twisted`, for single passes.
    """
    walk, waiting = iter(passes), list[Pass]()
    copies: dict[int, Batch] = {}

    def called(some: list[Pass], side_by_side: Batch | None = None) -> dict[str, Tensor]:
        if moves := [one.moves for one in some if one.moves is not None]:
            return twisted_by(moves, model, batch, declaration, caller, side_by_side)
        turns = torch.cat([one.turns for one in some])
        return twisted(model, side_by_side or batch, turns, declaration, caller, explained=side_by_side is None)

    def together(some: list[Pass]) -> dict[str, Tensor]:
        if len(some) not in copies:
            copies.clear()
            copies[len(some)] = copies_of(batch, len(some), declaration)
        return called(some, copies[len(some)])

    def alone(place: int) -> dict[str, Tensor]:
        return called([waiting[place]])

    while count:
        calls = -(-count // folding.size(batch, declaration))
        wanted = -(-count // calls)
        waiting += itertools.islice(walk, max(wanted - len(waiting), 0))
        some = waiting[:wanted]
        if len(some) == 1:
            rows = alone(0)
        else:
            rows = shared(functools.partial(together, some), len(some) * batch.size, folding)
            size = len(some) * batch.size, len(some) * input_numbers(batch, declaration)
            if rows is not None and not folding.confirm(size, alone, rows, len(some)):
                rows = None
        if rows is None:
            copies.clear()
            continue
        yield some, rows
        # No graph of one call is held while the next one is made.
        del rows
        waiting, count = waiting[wanted:], count - wanted
