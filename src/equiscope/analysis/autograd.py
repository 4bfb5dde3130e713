"""The graphs that products of second derivatives are made from, and how much memory they may take."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from equiscope.errors import InputError

MEMORY = ("auto", "pass", "batch", "all")
# Bytes of graphs that "auto" holds.
HELD = 2**30

Predictions = list[dict[str, Tensor]]
Derivatives = Sequence[Tensor | None]


def tensors(predictions: Predictions) -> list[Tensor]:
    """The rows of every pass and output in one list."""
    return [rows for one in predictions for rows in one.values()]


def shaped(flat: Iterable[Tensor], like: Sequence[Iterable[str]]) -> Predictions:
    """Rows in one list as those of every pass, by output."""
    each = iter(flat)
    return [{name: next(each) for name in one} for one in like]


def pulled(outputs: Derivatives, inputs: Sequence[Tensor], along: Derivatives, again: bool = False) -> Derivatives:
    """Derivatives of the sum of <output, along> by the inputs; None where nothing depends on one.

    Args:
        again: keep the graph for another call.
    """
    pairs = [
        (o, a) for o, a in zip(outputs, along, strict=True) if o is not None and o.requires_grad and a is not None
    ]
    if not pairs:
        return [None] * len(inputs)
    outputs, along = zip(*pairs, strict=True)
    return torch.autograd.grad(outputs, inputs, along, retain_graph=again, allow_unused=True)


@dataclass(frozen=True)
class _Linearised:
    """Graphs of Gauss-Newton products: predictions ``rows``, ``back`` = J^T u with u the ``dummies``, and the loss's
    ``slopes`` F' at the ``leaves``, the predictions cut off the network; the outputs' ``names`` of every pass."""

    rows: list[Tensor]
    dummies: list[Tensor]
    back: Derivatives
    leaves: list[Tensor]
    slopes: Sequence[Tensor]
    names: list[list[str]]


class Graphs:
    """Products from the graphs of all passes of a batch, which are kept for the next product if ``memory`` says so.

    Attributes:
        memory: one of :data:`MEMORY`; ``"auto"`` until :meth:`choose` knows better.

    Raises:
        InputError: for another memory.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], memory: str):
        if memory not in MEMORY:
            raise InputError(f"memory must be one of {MEMORY}, got {memory!r}")
        self.memory = memory
        self._parameters = list(parameters)
        self._kept: dict[Hashable, Any] = {}

    def choose(self, largest: float, every: float) -> None:
        """Turn ``"auto"`` into the fastest that fits, from the bytes of the largest batch's graphs and of all."""
        if self.memory == "auto":
            self.memory = "all" if every <= HELD else "batch" if largest <= HELD else "pass"

    def release(self) -> None:
        """Drop what is kept."""
        self._kept.clear()

    def holds(self, key: Hashable, kind: str) -> bool:
        """Whether the next product needs no call of the model: there is a graph, of the weights as they are."""
        return self._kept.get((key, kind), (None,))[0] == self._versions()

    def _versions(self) -> list[int]:
        return [parameter._version for parameter in self._parameters]

    def product(
        self,
        key: Hashable,
        kind: str,
        vector: Sequence[Tensor],
        run: Callable[[], Predictions],
        loss: Callable[[Predictions], Tensor],
    ) -> Derivatives:
        """H v or the Gauss-Newton matrix times v of ``loss(run())``, by parameter.

        Args:
            key: tells what is kept of one loss from that of others.
        """
        again, own = self.memory == "all", self._parameters
        held = self._held(key, kind, run, loss)
        if kind == "hessian":
            return pulled(held, own, vector, again)
        moved = pulled(held.back, held.dummies, vector, again)
        return pulled(held.rows, own, pulled(held.slopes, held.leaves, moved, again), again)

    def form(
        self,
        key: Hashable,
        vectors: Sequence[Sequence[Tensor]],
        run: Callable[[], Predictions],
        losses: Sequence[Callable[[Predictions], Tensor]],
    ) -> list[Tensor]:
        """(k, k) u_i^T G u_j with the Gauss-Newton matrix G of each of several losses of ``run()``.

        Of every vector only J u is needed, once for all losses: no product is carried back to the parameters.
        """
        held = self._held(key, "gauss_newton", run, losses[0])
        moved = [pulled(held.back, held.dummies, vector, True) for vector in vectors]
        flat = torch.stack([_flat(one, held.rows) for one in moved])
        found = []
        for loss in losses:
            slopes, leaves = slopes_of(shaped(held.rows, held.names), loss)
            bent = torch.stack([_flat(pulled(slopes, leaves, one, True), held.rows) for one in moved])
            found.append(flat @ bent.T)
        return found

    def _held(
        self, key: Hashable, kind: str, run: Callable[[], Predictions], loss: Callable[[Predictions], Tensor]
    ) -> Any:
        if self.holds(key, kind):
            return self._kept[key, kind][1]
        held = (self._sloped if kind == "hessian" else self._linearised)(run(), loss)
        if self.memory == "all":
            self._kept[key, kind] = self._versions(), held
        return held

    def _sloped(self, rows: Predictions, loss: Callable[[Predictions], Tensor]) -> Derivatives:
        return torch.autograd.grad(loss(rows), self._parameters, create_graph=True, allow_unused=True)

    def _linearised(self, rows: Predictions, loss: Callable[[Predictions], Tensor]) -> _Linearised:
        flat = tensors(rows)
        dummies = [torch.zeros_like(r, requires_grad=True) for r in flat]
        # J^T u is linear in u: its derivative along v by u is J v.
        back = torch.autograd.grad(flat, self._parameters, dummies, create_graph=True, allow_unused=True)
        slopes, leaves = slopes_of(rows, loss)
        return _Linearised(flat, dummies, back, leaves, slopes, [list(one) for one in rows])


def slopes_of(
    predictions: Predictions, loss: Callable[[Predictions], Tensor]
) -> tuple[Sequence[Tensor], list[Tensor]]:
    """The loss's derivatives by the predictions, with their graph, and the predictions cut off the network."""
    leaves = [rows.detach().requires_grad_(True) for rows in tensors(predictions)]
    return torch.autograd.grad(loss(shaped(leaves, predictions)), leaves, create_graph=True), leaves


def swept(
    kind: str,
    vector: Sequence[Tensor],
    parameters: Sequence[Tensor],
    runs: Sequence[Callable[[], dict[str, Tensor]]],
    predictions: Predictions,
    loss: Callable[[Predictions], Tensor],
) -> Iterator[Derivatives]:
    """Summands of :meth:`Graphs.product`, with the graph of one pass at a time, each of which is run twice.

    Args:
        runs: make each pass's predictions, with their graph; ``predictions`` are the same without.
    """
    slopes, leaves = slopes_of(predictions, loss)
    moved: list[Tensor] = []
    for run, along in zip(runs, shaped(slopes, predictions), strict=True):
        rows = run()
        dummies = [along[name].detach().clone().requires_grad_(True) for name in rows]
        # J^T u is linear in u: its derivative along v by u is J v, by the parameters the curvature term.
        back = torch.autograd.grad(tensors([rows]), parameters, dummies, create_graph=True, allow_unused=True)
        found = pulled(back, [*dummies, *(parameters if kind == "hessian" else [])], vector)
        moved += [_filled(m, dummy) for m, dummy in zip(found, dummies, strict=False)]
        if kind == "hessian":
            yield found[len(rows) :]
    bent = [_filled(b, leaf) for b, leaf in zip(pulled(slopes, leaves, moved), leaves, strict=True)]
    for run, bend in zip(runs, shaped(bent, predictions), strict=True):
        yield pulled(tensors([run()]), parameters, tensors([bend]))


def _filled(found: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if found is None else found.detach()


def _flat(found: Derivatives, like: Sequence[Tensor]) -> Tensor:
    return torch.cat([_filled(f, one).flatten() for f, one in zip(found, like, strict=True)]).double()


@contextlib.contextmanager
def saved_bytes(parameters: Sequence[Tensor]) -> Iterator[dict[int, int]]:
    """Bytes of every memory block that graphs made inside hold for their backward passes, but for the parameters' own.

    Filled while inside; blocks that are freed and used again count once, so it is a lower bound.
    """
    own = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    found: dict[int, int] = {}

    def note(saved: Tensor) -> Tensor:
        block = saved.untyped_storage()
        if block.data_ptr() not in own:
            found[block.data_ptr()] = block.nbytes()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved):
        yield found
