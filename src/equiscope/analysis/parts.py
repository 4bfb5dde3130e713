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
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from equiscope.analysis.autograd import Graphs, Predictions, pulled, saved_bytes, shaped, slopes_of, swept, tensors
from equiscope.analysis.differentiable import (
    chosen_parameters,
    differentiable,
    keeping_graphs,
    only,
    refuse_hidden_dependence,
    refuse_once_differentiable,
)
from equiscope.decomposition.collect import Prepared, prepared_batches
from equiscope.decomposition.computing import Computing, watched
from equiscope.decomposition.fold import Folding, folded
from equiscope.decomposition.orbit import predict, twisted
from equiscope.decomposition.plan import Pass, Plan, as_plan
from equiscope.decomposition.pool import added, counted_outputs, relative_weights
from equiscope.decomposition.preserve import same_randomness, untouched
from equiscope.decomposition.split import OutputSplit, add_pass
from equiscope.errors import InputError, NonFiniteError
from equiscope.symmetry.declaration import Declaration

HALVES = ("twirled", "equivariance")
PARTS = (*HALVES, "total")
KINDS = ("hessian", "gauss_newton")
# Largest relative change that counts as rounding when all passes are run in one call, in units of the dtype's eps.
_ROUNDING = 1e3


class Parts:
    """The losses of ``model`` on fixed batches and rotations; flat vectors over the chosen parameters, float64.

    Losses, rotations and weights are those of :func:`equiscope.measure` with the same arguments, so the values agree
    with its Result to rounding. With ``cosets=1`` the equivariance error is the variance within the one coset, which
    leaves out what the set K does not see (Wigner degrees above its own); its curvature likewise. One rotation per
    sample (``rotations="haar", cosets=1``) is the plain supervised loss of the turned batch: ``"total"`` and no other.

    Args:
        plan: what is measured (:func:`equiscope.decomposition.plan.make_plan`, ``alone=True`` for one coset), or a
            declaration, with ``forward, rotations, cosets, seed`` as for :func:`equiscope.measure`.
        parameters: names of parameters or modules to differentiate by; all by default.
        memory: ``"pass"`` holds the graph of one pass at a time, so memory does not grow with the number of passes;
            ``"batch"`` that of all passes of a batch, for products at 7 instead of 10 forward costs; ``"all"`` keeps
            the graphs of every batch between products, at 4 forward costs each; ``"auto"`` is the fastest of them whose
            graphs, measured on the first pass, stay under 1 GiB.

    Attributes:
        plan: as given. parameters: what is differentiated by, by name; own: in a list. size: their number of entries.
        values: mean loss of each part at the model's own parameters.
        samples: number of samples of each batch.
        shares: weight of each batch in the means, sum 1: by its samples, or by its components with
            ``weighting="component"``.
        unused: names of parameters on which the declared outputs do not depend; their derivatives are zero.

    Raises:
        InputError: frozen or half-precision parameters, operations in place or without derivatives, no target, a
            second coset for a part of the samples only; the message names the layer and the remedy. And what
            :func:`equiscope.measure` raises for a bad batch.

    Source: the split of Shen et al., TMLR 2025; double backward after Pearlmutter, Neural Computation 6 (1994) 147.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Iterable[Any],
        plan: Plan | Declaration,
        *,
        parameters: Sequence[str] | None = None,
        memory: str = "auto",
        **design: Any,
    ):
        self.plan = plan = as_plan(plan, design, alone=True)
        if plan.design.partial:
            raise InputError(f"derivatives need whole cosets: give cosets=1 or 2, got {plan.design.cosets}")
        self.model, self.declaration, self._forward = model, plan.declaration, plan.call
        self.parameters = chosen_parameters(model, parameters)
        self.own = list(self.parameters.values())
        self.size = sum(p.numel() for p in self.own)
        self.graphs = Graphs(self.own, memory)
        self._twice = self._at_once = self._steady = False
        self._folding = Folding(plan.fold)
        self._fixed = prepared_batches(batches, plan)
        self.plain = len(self._fixed[0].passes) == 1
        self.samples = [fixed.batch.size for fixed in self._fixed]
        self.labelled = any(o.labels is not None for o in self._fixed[0].outputs.values())
        if self.plain:
            self.check_parts(("total",))
        self._share = counted_outputs(plan.declaration)
        if not sum(self._share.values()) > 0:
            raise InputError(f"the weights of {sorted(self._share)} are all 0: their loss is nothing to differentiate")
        self._survey()

    def _check_folding(self, fixed: Prepared) -> None:
        """Whether the passes of the first sweep may share calls, whose graphs are counted in what a call holds."""
        batch, declaration, forward = fixed.batch, self.declaration, self._forward
        # On a CPU a call of several passes is not worth the memory of their graphs.
        if fixed.device.type == "cpu" and self._folding.asked in (None, 1):
            return
        answer, seen = watched(lambda: predict(self.model, batch.with_fields({}), batch, declaration, forward))
        eps = max(torch.finfo(rows.dtype).eps for rows in answer.values())
        self._folding.watch(replace(seen or Computing(), eps=max(eps, seen.eps if seen else 0.0)), batch, declaration)
        rows = {name: values.detach() for name, values in answer.items()}
        self._folding.check(self.model, batch, rows, declaration, forward, 0.0)

    @property
    def described(self) -> dict[str, Any]:
        """What an analysis says of its losses, samples and rotations, in plain types."""
        design = self.plan.design
        return {"losses": dict(self.values), "samples": sum(self.samples), "rotations": design.rotations.name,
                "cosets": design.cosets, "seed": design.seed}  # fmt: skip

    def _survey(self) -> None:
        """Values at the model's own parameters, the normalisation, and what the answer does not depend on."""
        with self._ready(0):
            fixed = self._fixed[0]
            self._forward = keeping_graphs(self._forward, lambda: self._run(fixed, fixed.passes[0]))
            rows = self._run(fixed, fixed.passes[0])
            scalar = added((r * r.detach().cos()).sum() for r in rows.values())
            slopes = torch.autograd.grad(scalar, self.own, allow_unused=True)
            self.unused = [n for n, g in zip(self.parameters, slopes, strict=True) if g is None or not bool(g.any())]

            def answer(names: Iterable[str] = tuple(rows)) -> Tensor:
                found = self._run(fixed, fixed.passes[0])
                return torch.cat([found[name].detach().flatten() for name in names])

            refuse_hidden_dependence(self.model, self.unused, answer)
            # Other outputs may reach every parameter where one reaches none.
            if loose := [name for name, r in rows.items() if not r.requires_grad]:
                refuse_hidden_dependence(self.model, list(self.parameters), functools.partial(answer, loose))
            self._check_folding(fixed)
        kept = [self._sample_figures(index) for index in range(len(self))]
        self._norms = {name: sum(float(found[name][2].sum()) for found in kept) for name in self._share}
        self.shares = [self._batch_share(found) for found in kept]
        sums = [self._weigh(found) for found in kept]
        self.values = {part: float(sum(s[part] for s in sums)) for part in sums[0]}
        for part, value in self.values.items():
            if not torch.isfinite(torch.tensor(value, device="cpu")):
                raise NonFiniteError(f"the {part} loss is {value}: look at the model and labels with equiscope.measure")

    def __len__(self) -> int:
        return len(self._fixed)

    def flat(self, tensors: Iterable[Tensor | None]) -> Tensor:
        """Tensors shaped like the parameters as one float64 vector; None counts as zero."""
        pairs = zip(tensors, self.own, strict=True)
        return torch.cat([(torch.zeros_like(p) if t is None else t).detach().double().flatten() for t, p in pairs])

    def split_vector(self, vector: Tensor) -> list[Tensor]:
        """A flat vector as tensors shaped like the parameters, in their dtype."""
        chunks = vector.detach().to(self.own[0].device).split([p.numel() for p in self.own])
        return [c.reshape(p.shape).to(p) for c, p in zip(chunks, self.own, strict=True)]

    def batch_values(self, index: int, shift: Tensor | None = None) -> dict[str, float]:
        """Contribution of a batch to each loss, at the parameters moved by the flat vector ``shift``."""
        return {part: float(value) for part, value in self._weigh(self._sample_figures(index, shift)).items()}

    def batch_gradient(self, index: int, parts: Sequence[str] = HALVES) -> dict[str, Tensor]:
        """Contribution of a batch to the gradient of each part, flat; they sum to the gradient over batches."""
        self.check_parts(parts)
        fixed = self._fixed[index]
        sums = {part: torch.zeros(self.size, dtype=torch.float64, device=self.own[0].device) for part in parts}
        with self._ready(index):
            predictions = self._predictions(fixed)
            losses = {part: functools.partial(self._part_of, fixed, part=part) for part in parts}
            # F'_m of each part: the derivative of the loss by every pass's predictions.
            slopes = {part: shaped(slopes_of(predictions, loss)[0], predictions) for part, loss in losses.items()}
            for place, one in enumerate(fixed.passes):
                rows = self._run(fixed, one)
                for part in parts:
                    along, again = tensors([slopes[part][place]]), part != parts[-1]
                    sums[part] += self.flat(pulled(tensors([rows]), self.own, along, again))
        return sums

    def gradient(self, parts: Sequence[str] = HALVES) -> dict[str, Tensor]:
        """The flat gradient of each part."""
        sums = self.batch_gradient(0, parts)
        for index in range(1, len(self)):
            for part, slope in self.batch_gradient(index, parts).items():
                sums[part] += slope
        return sums

    def product(self, part: str, vector: Tensor, kind: str = "hessian") -> Tensor:
        """H v, or the Gauss-Newton matrix times v, of the mean loss of ``part``: flat, float64."""
        return added(self.batch_product(index, part, vector, kind) for index in range(len(self)))

    def batch_product(self, index: int, part: str, vector: Tensor, kind: str = "hessian") -> Tensor:
        """Contribution of a batch to :meth:`product`."""
        self.check_parts((part,))
        if kind not in KINDS:
            raise InputError(f"kind must be one of {KINDS}, got {kind!r}")
        if vector.shape != (self.size,):
            raise InputError(f"the vector must have the {self.size} entries of the parameters, got {vector.shape}")
        fixed, v = self._fixed[index], self.split_vector(vector)
        called = not (self._steady and self.graphs.holds((index, part), kind))
        with self._ready(index) if called else contextlib.nullcontext():
            self._check_twice(fixed)
            loss = functools.partial(self._part_of, fixed, part=part)
            if self.graphs.memory == "pass":
                runs = [functools.partial(self._run, fixed, one) for one in fixed.passes]
                return added(self.flat(d) for d in swept(kind, v, self.own, runs, self._predictions(fixed), loss))
            return self.flat(self.graphs.product((index, part), kind, v, functools.partial(self._runs, fixed), loss))

    def form(self, parts: Sequence[str], vectors: Tensor) -> dict[str, Tensor]:
        """(k, k) U G U^T of the Gauss-Newton matrix of each part, for the rows of U (k, size)."""
        found = [self.batch_form(index, parts, vectors) for index in range(len(self))]
        return {part: added(one[part] for one in found) for part in parts}

    def batch_form(self, index: int, parts: Sequence[str], vectors: Tensor) -> dict[str, Tensor]:
        """Contribution of a batch to :meth:`form`."""
        self.check_parts(parts)
        fixed, split = self._fixed[index], [self.split_vector(vector) for vector in vectors]
        with self._ready(index):
            self._check_twice(fixed)
            losses = [functools.partial(self._part_of, fixed, part=part) for part in parts]
            made = self.graphs.form((index, parts[0]), split, functools.partial(self._runs, fixed), losses)
        return dict(zip(parts, made, strict=True))

    def _check_twice(self, fixed: Prepared) -> None:
        """Before the first product: what it needs is there, the memory of a pass, whether one call runs all passes."""
        if self._twice:
            return
        with same_randomness(), saved_bytes(self.own) as saved:
            rows = self._run(fixed, fixed.passes[-1])
            scalar = added(r.square().sum() for r in rows.values())
            refuse_once_differentiable(torch.autograd.grad(scalar, self.own, create_graph=True, allow_unused=True))
        passes = sum(saved.values()) * len(fixed.passes) / fixed.batch.size
        self.graphs.choose(passes * max(self.samples), passes * sum(self.samples))
        self._at_once = self.graphs.memory != "pass" and self._alike(fixed, rows)
        self._twice = True

    def _alike(self, fixed: Prepared, rows: dict[str, Tensor]) -> bool:
        """Whether one call on copies of the batch gives the last pass its own ``rows``: no sample knows of another."""
        if len(fixed.passes) == 1:
            return False
        with same_randomness():
            try:
                whole = self._run_copies(fixed)[-1]
            except (RuntimeError, ValueError):  # a fixed batch size, too little memory
                return False
        eps = torch.finfo(self.own[0].dtype).eps
        return all((whole[n] - r).abs().max() <= _ROUNDING * eps * r.abs().max() for n, r in rows.items())

    def release(self) -> None:
        """Drop the graphs kept between products (``memory="all"``)."""
        self.graphs.release()

    def _run(self, fixed: Prepared, one: Pass) -> dict[str, Tensor]:
        """Twisted predictions of a pass in the loss's coordinates, with their graph."""
        passes = twisted(self.model, fixed.batch, one.turns, self.declaration, self._forward)
        return {name: fixed.outputs[name].coordinates(passes[name]) for name in self._share}

    def _run_copies(self, fixed: Prepared) -> Predictions:
        """The same of every pass, by one call on a batch of copies."""
        turns = torch.cat([one.turns for one in fixed.passes])
        rows = twisted(self.model, fixed.copies, turns, self.declaration, self._forward)
        parts = {name: fixed.outputs[name].coordinates(rows[name]).chunk(len(fixed.passes)) for name in self._share}
        return [{name: chunks[place] for name, chunks in parts.items()} for place in range(len(fixed.passes))]

    def _runs(self, fixed: Prepared) -> Predictions:
        return self._run_copies(fixed) if self._at_once else [self._run(fixed, one) for one in fixed.passes]

    def _predictions(self, fixed: Prepared) -> Predictions:
        walk, kept = fixed.passes, Predictions()
        arguments = self.declaration, self._forward, self._folding
        for some, found in folded(self.model, fixed.batch, walk, len(walk), *arguments):
            blocks = {n: fixed.outputs[n].coordinates_of_passes(found[n].detach(), len(some)) for n in self._share}
            kept += [{n: block[place] for n, block in blocks.items()} for place in range(len(some))]
            del found
        return kept

    def _figures(self, fixed: Prepared, predictions: Predictions) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        """Total, equivariance error and weight of every sample, (samples,) each, by output."""
        splits: dict[str, OutputSplit] = {}
        for one, rows in zip(fixed.passes, predictions, strict=True):
            add_pass(splits, fixed.outputs, {name: rows[name] for name in self._share}, one.weight, one.last_of_coset)
        found = {}
        for name in self._share:
            values = splits[name].values(fixed.plan.design.lone)
            weight = relative_weights(values.components, self.declaration.weighting)
            found[name] = (values.total, values.equivariance, weight)
        return found

    def _sample_figures(self, index: int, shift: Tensor | None = None) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        fixed = self._fixed[index]
        moved = contextlib.nullcontext() if shift is None else untouched(self.model)
        with self._ready(index), moved:
            if shift is not None:
                self.release()
                with torch.no_grad():
                    for parameter, step in zip(self.own, self.split_vector(shift), strict=True):
                        parameter.add_(step)
            return self._figures(fixed, self._predictions(fixed))

    def _batch_share(self, figures: Mapping[str, tuple[Tensor, Tensor, Tensor]]) -> float:
        """Weight of a batch's samples over that of all, the mean over outputs by their weights."""
        own = (share * float(figures[name][2].sum()) / self._norms[name] for name, share in self._share.items())
        return sum(own) / sum(self._share.values())

    def _weigh(self, figures: Mapping[str, tuple[Tensor, Tensor, Tensor]]) -> dict[str, Tensor]:
        """Sum over samples and outputs of each part, normalised so that batches add up to the mean."""
        total = equivariance = torch.zeros((), dtype=torch.float64, device="cpu")
        for name, (of_total, of_equivariance, weight) in figures.items():
            factor = weight * (self._share[name] / self._norms[name])
            total = total.to(factor.device) + (factor * of_total).sum()
            equivariance = equivariance.to(factor.device) + (factor * of_equivariance).sum()
        if not self.labelled:
            return {"equivariance": equivariance}
        if self.plain:
            return {"total": total}
        return {"twirled": total - equivariance, "equivariance": equivariance, "total": total}

    def _part_of(self, fixed: Prepared, predictions: Predictions, part: str) -> Tensor:
        return self._weigh(self._figures(fixed, predictions))[part]

    @contextlib.contextmanager
    def steady(self) -> Iterator[None]:
        """For many products in a row: what each of them sets up and puts back is set up and put back once."""
        if self._steady:
            yield
            return
        with self._ready(0):
            self._steady = True
            try:
                yield
            finally:
                self._steady = False

    @contextlib.contextmanager
    def _ready(self, index: int) -> Iterator[None]:
        if self._steady:
            with same_randomness():
                yield
            return
        batch = self._fixed[index].batch

        def call() -> Any:
            return predict(self.model, batch.with_fields({}), batch, self.declaration, self._forward)

        with untouched(self.model), only(self.model, self.own), differentiable(self.model, call):
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
            if part != "total" and self.plain:
                raise InputError(
                    "one rotation per sample has no equivariance error: give cosets=2 or more, or a set of rotations, "
                    "or ask for 'total' only"
                )
