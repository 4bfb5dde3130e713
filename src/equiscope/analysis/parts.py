"""The twirled loss and the equivariance error as functions of a model's parameters: values, gradients, products.

Each loss is a function F of all twisted predictions p_1 … p_M of a batch (M passes). Its derivatives by the parameters
theta need one pass's graph at a time once all predictions are known:

    gradient        sum_m J_m^T F'_m
    Gauss-Newton    sum_m J_m^T c_m,  c_m = sum_n F''_mn J_n v
    Hessian         Gauss-Newton + sum_m sum_i F'_mi (d^2 p_mi) v

A first sweep keeps the predictions (they are small), a second one differentiates every pass with its coefficients. All
by plain backward passes, twice where needed: forward mode is wrong for some layers (LayerNorm) in current torch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from equiscope.analysis.differentiable import (
    chosen_parameters,
    differentiable,
    refuse_hidden_dependence,
    refuse_once_differentiable,
)
from equiscope.decomposition.batches import Batch, as_batches
from equiscope.decomposition.collect import BatchOrbit, Collector
from equiscope.decomposition.design import Design, check_cosets, check_count
from equiscope.decomposition.orbit import Forward, predict, twisted
from equiscope.decomposition.preserve import untouched
from equiscope.decomposition.split import JACKKNIFE_COSETS, OutputSplit
from equiscope.errors import InputError, NonFiniteError
from equiscope.symmetry.declaration import Declaration
from equiscope.symmetry.rotations import rotation_set, uniform_keyed

PARTS = ("twirled", "equivariance", "total")
KINDS = ("hessian", "gauss_newton")
MEMORY = ("pass", "batch", "all")

Predictions = list[dict[str, Tensor]]


@dataclass(frozen=True)
class _Pass:
    """One pass of a batch: the rotation of each sample (samples, 3, 3), its weight, and whether it ends a coset."""

    turns: Tensor
    weight: float
    last: bool


@dataclass(frozen=True)
class _Fixed:
    """A batch with its passes and empty splits, one per output."""

    batch: Batch
    passes: list[_Pass]
    splits: Mapping[str, OutputSplit]

    def fresh(self) -> dict[str, OutputSplit]:
        return {
            name: OutputSplit(s.rows, s.action, s.loss, s.target, s.target_layout, s.name)
            for name, s in self.splits.items()
        }


class Parts:
    """The losses of ``model`` on fixed batches and rotations; flat vectors over the chosen parameters, float64.

    Losses, rotations and weights are those of :func:`equiscope.measure` with the same arguments, so the values agree
    with its Result to rounding. With ``cosets=1`` the equivariance error is the variance within the one coset, which
    leaves out what the set K does not see (Wigner degrees above its own); its curvature likewise.

    Args:
        parameters: names of parameters or modules to differentiate by; all by default.
        memory: ``"pass"`` holds the graph of one pass at a time, so memory does not grow with the number of passes;
            ``"batch"`` that of all passes of a batch, for products at 7 instead of 10 forward costs; ``"all"`` keeps
            the gradient's graph of every batch between products, at 4 forward costs each.

    Attributes:
        parameters: what is differentiated by, by name. size: their number of entries.
        values: mean loss of each part at the model's own parameters.
        samples: number of samples of each batch.
        unused: names of parameters on which the declared outputs do not depend; their derivatives are zero.

    Raises:
        InputError: frozen or half-precision parameters, operations in place or without derivatives, no target; the
            message names the layer and the remedy. And what :func:`equiscope.measure` raises for a bad batch.

    Source: the split of Shen et al., TMLR 2025; double backward after Pearlmutter, Neural Computation 6 (1994) 147.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Iterable[Any],
        declaration: Declaration,
        *,
        forward: Forward | None = None,
        rotations: str = "T",
        cosets: int = 2,
        seed: int = 0,
        parameters: Sequence[str] | None = None,
        memory: str = "pass",
    ):
        check_cosets(cosets, fractional=False)
        check_count("seed", seed)
        if memory not in MEMORY:
            raise InputError(f"memory must be one of {MEMORY}, got {memory!r}")
        self.model, self.declaration, self.memory = model, declaration, memory
        self.parameters = chosen_parameters(model, parameters)
        self.size = sum(p.numel() for p in self.parameters.values())
        self._forward, self._graphs = forward, {}
        self._twice = False
        chosen = rotation_set(rotations, declaration.group)
        whole = declaration.group == rotations
        # One coset is allowed here, so the design is made without the measure's own checks.
        collector = Collector(model, declaration, forward, Design(chosen, 1 if whole else cosets, seed, not whole))
        self._lone = "refuse" if not whole and cosets > 1 else "whole"
        inexact = [loss.name for loss in collector.losses.values() if not loss.exact]
        if inexact and not whole and cosets < JACKKNIFE_COSETS:
            raise InputError(f"cosets={cosets} is too few: {inexact[0]} needs at least {JACKKNIFE_COSETS}")
        if not whole and cosets == 1 and len(chosen) == 1:
            raise InputError("one rotation per sample has no equivariance error: give cosets=2 or more, or a set")
        self._fixed = []
        for native in as_batches(batches):
            orbit = BatchOrbit(collector, native)
            collector.first_id += orbit.batch.size
            device = orbit.device
            passes = []
            for stream in range(1 if whole else cosets):
                eye = torch.eye(3, dtype=torch.float64, device=device).expand(orbit.batch.size, 3, 3)
                shift = eye if whole else uniform_keyed(declaration.group, seed, orbit.ids, stream).to(device)
                for place, (k, weight) in enumerate(zip(chosen.matrices.to(device), chosen.weights, strict=True)):
                    passes.append(_Pass(k @ shift, float(weight), place + 1 == len(chosen)))
            self._fixed.append(_Fixed(orbit.batch, passes, orbit.splits))
        if not self._fixed:
            raise InputError("the iterable of batches is empty: nothing to differentiate (a used-up generator?)")
        self.samples = [fixed.batch.size for fixed in self._fixed]
        labelled = [name for name, s in self._fixed[0].splits.items() if s.target is not None]
        self.labelled = bool(labelled)
        self._share = {name: declaration.outputs[name].weight for name in labelled or declaration.outputs}
        self._norms = dict.fromkeys(self._share, float("nan"))
        self._survey()

    def _survey(self) -> None:
        """Values at the model's own parameters, the normalisation, and what the answer does not depend on."""
        with self._ready(0):
            fixed = self._fixed[0]
            rows = self._run(fixed, fixed.passes[0])
            scalar = sum((r * r.detach().cos()).sum() for r in rows.values())
            found = torch.autograd.grad(scalar, list(self.parameters.values()), allow_unused=True)
            self.unused = [n for n, g in zip(self.parameters, found, strict=True) if g is None or not bool(g.any())]

            def answer() -> Tensor:
                return torch.cat([r.detach().flatten() for r in self._run(fixed, fixed.passes[0]).values()])

            refuse_hidden_dependence(self.parameters, self.unused, answer)
        kept, norms = [], dict.fromkeys(self._share, 0.0)
        for index in range(len(self)):
            found = self._sample_figures(index)
            kept.append(found)
            for name in self._share:
                norms[name] += float(found[name][2].sum())
        self._norms = norms
        sums = [self._weigh(found) for found in kept]
        self.values = {part: float(sum(s[part] for s in sums)) for part in sums[0]}
        for part, value in self.values.items():
            if not torch.isfinite(torch.tensor(value)):
                raise NonFiniteError(f"the {part} loss is {value}: look at the model and labels with equiscope.measure")

    def __len__(self) -> int:
        return len(self._fixed)

    def flat(self, tensors: Iterable[Tensor | None]) -> Tensor:
        """Tensors shaped like the parameters as one float64 vector; None counts as zero."""
        pairs = zip(tensors, self.parameters.values(), strict=True)
        return torch.cat([(torch.zeros_like(p) if t is None else t).detach().double().flatten() for t, p in pairs])

    def split_vector(self, vector: Tensor) -> list[Tensor]:
        """A flat vector as tensors shaped like the parameters, in their dtype."""
        own = list(self.parameters.values())
        chunks = vector.detach().to(own[0].device).split([p.numel() for p in own])
        return [c.reshape(p.shape).to(p) for c, p in zip(chunks, own, strict=True)]

    def batch_values(self, index: int, shift: Tensor | None = None) -> dict[str, float]:
        """Contribution of a batch to each loss, at the parameters moved by the flat vector ``shift``."""
        return {part: float(value) for part, value in self._weigh(self._sample_figures(index, shift)).items()}

    def batch_gradient(self, index: int, parts: Sequence[str] = ("twirled", "equivariance")) -> dict[str, Tensor]:
        """Contribution of a batch to the gradient of each part, flat; they sum to the gradient over batches."""
        self.check_parts(parts)
        fixed = self._fixed[index]
        own = list(self.parameters.values())
        sums = {part: torch.zeros(self.size, dtype=torch.float64, device=own[0].device) for part in parts}
        with self._ready(index):
            coefficients = self._coefficients(fixed, self._predictions(fixed), parts)
            for place, one in enumerate(fixed.passes):
                rows = self._run(fixed, one)
                for part in parts:
                    pulled = self._pull(rows, coefficients[part][place], retain=part != parts[-1])
                    sums[part] += self.flat(pulled)
        return sums

    def gradient(self, parts: Sequence[str] = ("twirled", "equivariance")) -> dict[str, Tensor]:
        """The flat gradient of each part."""
        found = [self.batch_gradient(index, parts) for index in range(len(self))]
        return {part: sum(f[part] for f in found) for part in parts}

    def product(self, part: str, vector: Tensor, kind: str = "hessian") -> Tensor:
        """H v, or the Gauss-Newton matrix times v, of the mean loss of ``part``: flat, float64."""
        return sum(self.batch_product(index, part, vector, kind) for index in range(len(self)))

    def batch_product(self, index: int, part: str, vector: Tensor, kind: str = "hessian") -> Tensor:
        """Contribution of a batch to :meth:`product`."""
        self.check_parts((part,))
        if kind not in KINDS:
            raise InputError(f"kind must be one of {KINDS}, got {kind!r}")
        if vector.shape != (self.size,):
            raise InputError(f"the vector must have the {self.size} entries of the parameters, got {vector.shape}")
        v = self.split_vector(vector)
        with self._ready(index):
            self._check_twice(self._fixed[index])
            if kind == "hessian" and self.memory != "pass":
                return self._held_product(index, part, v)
            return self._swept_product(self._fixed[index], part, v, kind)

    def _check_twice(self, fixed: _Fixed) -> None:
        if not self._twice:
            rows = self._run(fixed, fixed.passes[0])
            scalar = sum(r.square().sum() for r in rows.values())
            own = list(self.parameters.values())
            refuse_once_differentiable(torch.autograd.grad(scalar, own, create_graph=True, allow_unused=True))
            self._twice = True

    def release(self) -> None:
        """Drop the graphs kept between products (``memory="all"``)."""
        self._graphs.clear()

    def _held_product(self, index: int, part: str, v: list[Tensor]) -> Tensor:
        own = list(self.parameters.values())
        gradient = self._graphs.get((index, part))
        if gradient is None:
            fixed = self._fixed[index]
            loss = self._part_of(fixed, [self._run(fixed, one) for one in fixed.passes], part)
            gradient = torch.autograd.grad(loss, own, create_graph=True, allow_unused=True)
            if self.memory == "all":
                self._graphs[index, part] = gradient
        along = _inner(gradient, v)
        if along is None:
            return self.flat([None] * len(own))
        return self.flat(torch.autograd.grad(along, own, retain_graph=self.memory == "all", allow_unused=True))

    def _swept_product(self, fixed: _Fixed, part: str, v: list[Tensor], kind: str) -> Tensor:
        own = list(self.parameters.values())
        predictions = self._predictions(fixed)
        slopes = self._coefficients(fixed, predictions, (part,))[part]
        total = self.flat([None] * len(own))
        moved: Predictions = []
        for place, one in enumerate(fixed.passes):
            rows = self._run(fixed, one)
            dummy = {name: slopes[place][name].clone().requires_grad_(True) for name in rows}
            # J^T u is linear in u: its derivative along v by u is J v, by the parameters the curvature term.
            pulled = torch.autograd.grad(
                list(rows.values()), own, [dummy[n] for n in rows], create_graph=True, allow_unused=True
            )
            along = _inner(pulled, v)
            wanted = [dummy[n] for n in rows] + (own if kind == "hessian" else [])
            found = [None] * len(wanted) if along is None else torch.autograd.grad(along, wanted, allow_unused=True)
            pairs = zip(rows, found, strict=False)
            moved.append({n: torch.zeros_like(dummy[n]) if d is None else d.detach() for n, d in pairs})
            if kind == "hessian":
                total += self.flat(found[len(rows) :])
        bent = self._bend(fixed, predictions, moved, part)
        for place, one in enumerate(fixed.passes):
            total += self.flat(self._pull(self._run(fixed, one), bent[place]))
        return total

    def _run(self, fixed: _Fixed, one: _Pass) -> dict[str, Tensor]:
        """Twisted predictions of a pass in the loss's coordinates, with their graph."""
        passes = twisted(self.model, fixed.batch, one.turns, self.declaration, self._forward)
        return {name: fixed.splits[name].coordinates(passes[name]) for name in self._share}

    def _predictions(self, fixed: _Fixed) -> Predictions:
        return [{n: r.detach() for n, r in self._run(fixed, one).items()} for one in fixed.passes]

    def _pull(self, rows: dict[str, Tensor], coefficients: dict[str, Tensor], retain: bool = False) -> Sequence[Any]:
        own = list(self.parameters.values())
        weights = [coefficients[name] for name in rows]
        return torch.autograd.grad(list(rows.values()), own, weights, retain_graph=retain, allow_unused=True)

    def _figures(self, fixed: _Fixed, predictions: Predictions) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        """Total, equivariance error and weight of every sample, (samples,) each, by output."""
        splits = fixed.fresh()
        for one, rows in zip(fixed.passes, predictions, strict=True):
            for name in self._share:
                splits[name].add(rows[name], one.weight)
                if one.last:
                    splits[name].close_coset()
        found = {}
        for name in self._share:
            values = splits[name].values(self._lone)
            equal = self.declaration.weighting == "sample"
            weight = torch.ones_like(values.components) if equal else values.components
            found[name] = (values.total, values.equivariance, weight)
        return found

    def _sample_figures(self, index: int, shift: Tensor | None = None) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        fixed = self._fixed[index]
        with self._ready(index):
            if shift is not None:
                self.release()
                with torch.no_grad():
                    for parameter, step in zip(self.parameters.values(), self.split_vector(shift), strict=True):
                        parameter.add_(step)
            return self._figures(fixed, self._predictions(fixed))

    def _weigh(self, figures: Mapping[str, tuple[Tensor, Tensor, Tensor]]) -> dict[str, Tensor]:
        """Sum over samples and outputs of each part, normalised so that batches add up to the mean."""
        total = equivariance = torch.zeros((), dtype=torch.float64)
        for name, (of_total, of_equivariance, weight) in figures.items():
            factor = weight * (self._share[name] / self._norms[name])
            total = total.to(factor.device) + (factor * of_total).sum()
            equivariance = equivariance.to(factor.device) + (factor * of_equivariance).sum()
        if not self.labelled:
            return {"equivariance": equivariance}
        return {"twirled": total - equivariance, "equivariance": equivariance, "total": total}

    def _part_of(self, fixed: _Fixed, predictions: Predictions, part: str) -> Tensor:
        return self._weigh(self._figures(fixed, predictions))[part]

    def _coefficients(self, fixed: _Fixed, predictions: Predictions, parts: Sequence[str]) -> dict[str, Predictions]:
        """F'_m of each part: the derivative of the loss by every pass's predictions."""
        leaves = [{n: r.clone().requires_grad_(True) for n, r in rows.items()} for rows in predictions]
        values, flat = self._weigh(self._figures(fixed, leaves)), [r for rows in leaves for r in rows.values()]
        found = {}
        for part in parts:
            slopes = iter(torch.autograd.grad(values[part], flat, retain_graph=part != parts[-1]))
            found[part] = [{n: next(slopes) for n in rows} for rows in leaves]
        return found

    def _bend(self, fixed: _Fixed, predictions: Predictions, moved: Predictions, part: str) -> Predictions:
        """c_m = sum_n F''_mn q_n for the directions q of every pass."""
        leaves = [{n: r.clone().requires_grad_(True) for n, r in rows.items()} for rows in predictions]
        flat = [r for rows in leaves for r in rows.values()]
        directions = [q for rows in moved for q in rows.values()]
        slopes = torch.autograd.grad(self._part_of(fixed, leaves, part), flat, create_graph=True)
        along = _inner(slopes, directions)
        found = [None] * len(flat) if along is None else torch.autograd.grad(along, flat, allow_unused=True)
        pairs = iter([torch.zeros_like(r) if f is None else f for f, r in zip(found, flat, strict=True)])
        return [{n: next(pairs) for n in rows} for rows in leaves]

    @contextlib.contextmanager
    def _ready(self, index: int) -> Iterator[None]:
        batch = self._fixed[index].batch

        def call() -> Any:
            return predict(self.model, batch.with_fields({}), batch, self.declaration, self._forward)

        with untouched(self.model), differentiable(self.model, call):
            yield

    def check_parts(self, parts: Sequence[str]) -> None:
        """Every part exists, and the labels it needs are there.

        Raises:
            InputError: otherwise.
        """
        for part in parts:
            if part not in PARTS:
                raise InputError(f"a part of the loss is one of {PARTS}, got {part!r}")
            if part != "equivariance" and not self.labelled:
                raise InputError(f"the {part} loss needs a target: declare one, or ask for 'equivariance' only")


def _inner(a: Sequence[Tensor | None], b: Sequence[Tensor]) -> Tensor | None:
    """<a, b> where it depends on anything; None if no entry of ``a`` has a graph."""
    terms = [(x * y).sum() for x, y in zip(a, b, strict=True) if x is not None and x.requires_grad]
    return sum(terms[1:], terms[0]) if terms else None
