"""The measure as a torchmetrics metric: fed batch by batch, over any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Unpack

import torch
from torch import Tensor

try:
    from torchmetrics import Metric
    from torchmetrics.utilities import dim_zero_cat
except ImportError as error:
    raise ImportError("EquivarianceError needs torchmetrics: pip install equiscope[lightning]") from error

from equiscope.decomposition.collect import Collector
from equiscope.decomposition.computing import Computing
from equiscope.decomposition.measure import NOISE_SAMPLES, resolve_declaration
from equiscope.decomposition.noise import Known
from equiscope.decomposition.orbit import Caller
from equiscope.decomposition.plan import Plan, make_plan
from equiscope.decomposition.pool import summarise
from equiscope.decomposition.preserve import untouched
from equiscope.decomposition.result import Result
from equiscope.decomposition.samples import LabelRows, Samples, SampleValues
from equiscope.errors import InputError, check_count
from equiscope.signatures import handing_on
from equiscope.symmetry.declaration import Declaration, DeclarationSettings


class EquivarianceError(Metric):
    """Percent of a loss that is equivariance error, 100 mean(equivariance) / mean(total), batch by batch.

    The state is per sample and keyed by id (``Declaration.ids``): the duplicates with which a distributed sampler
    pads its shards count once, clusters may straddle processes, and figures do not depend on how samples are
    sharded. ``compute()`` gathers over processes like any torchmetrics metric.

    Args:
        declaration, inputs, outputs, target, loss, forward, rotations, cosets, seed: as for
            :func:`equiscope.measure`.
        fixed, center, group, mask, batch, per, clusters, ids, weighting, fields: likewise.
        noise_samples: as for :func:`equiscope.measure`, over all processes.
        metric_arguments: keyword arguments of ``torchmetrics.Metric``.

    Clusters that are not integers are named by 63 bits of a hash in ``result().per_sample.clusters``.

    Raises:
        InputError: as :func:`equiscope.measure`; and in ``update`` for samples without ids in a distributed run, in
            ``compute`` if nothing was measured, two samples share an id, or the model changed between updates.

    Example:
        >>> metric = EquivarianceError(inputs={"pos": "1o"}, outputs={"forces": "1o"}, target="forces", ids="id")
        >>> for batch in loader: metric.update(model, batch)  # doctest: +SKIP
        >>> metric.compute(), metric.result().r2              # doctest: +SKIP
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 100.0

    ids: list[Tensor]
    figures: list[Tensor]
    model_calls: Tensor
    float64_change: Tensor
    precision: Tensor

    @handing_on(Declaration)
    def __init__(
        self,
        declaration: Declaration | None = None,
        *,
        inputs: Mapping[str, Any] | None = None,
        outputs: Mapping[str, Any] | None = None,
        target: str | None = None,
        loss: Any = "mse",
        forward: Callable[[Any, Any], Any] | None = None,
        rotations: str = "T",
        cosets: float | None = None,
        seed: int = 0,
        noise_samples: int = NOISE_SAMPLES,
        metric_arguments: Mapping[str, Any] | None = None,
        **settings: Unpack[DeclarationSettings],
    ):
        super().__init__(**(metric_arguments or {}))
        self.declaration = resolve_declaration(declaration, inputs, outputs, target, loss, settings)
        check_count("noise_samples", noise_samples)
        self.plan = make_plan(self.declaration, forward, rotations, cosets, seed)
        self.noise_samples = noise_samples
        self._caller = Caller(forward, self.declaration)
        self._known = Known()
        self._result: Result | None = None
        for name in no_samples(self.plan, self.device).packed(self.device):
            self.add_state(name, [], dist_reduce_fx="cat")
        self.add_state("model_calls", torch.tensor(0, device="cpu"), dist_reduce_fx="sum")
        # -1 where no float64 copy of the model was made.
        self.add_state("float64_change", torch.tensor(-1.0, dtype=torch.float64, device="cpu"), dist_reduce_fx="max")
        # eps of the precision computed in and of that stored, the change between repeats.
        self.add_state("precision", torch.zeros(3, dtype=torch.float64, device="cpu"), dist_reduce_fx="max")

    @property
    def rounding(self) -> dict[str, float] | None:
        """Rounding of each output seen in a float64 copy of the model: None before the first update."""
        return self._known.rounding

    def carry(self, rounding: dict[str, float] | None) -> None:
        """Take over the rounding of an earlier metric's float64 copy of the same model, instead of making one."""
        self._known.rounding = rounding
        if rounding:
            self.float64_change = torch.full_like(self.float64_change, max(rounding.values()))

    def update(self, model: Any, batch: Any, first_id: int | None = None) -> None:
        """Measure one batch; the model is left as it was.

        Args:
            model: called as ``model(batch)`` in eval mode, or through ``forward(model, batch)``.
            batch: a dict of tensors, samples first, or a batch an adapter registered.
            first_id: position in the data set of the batch's first sample, where samples carry no ids; by default
                the number of samples seen so far.
        """
        self._append(self._measured(model, batch, first_id))

    def forward(self, model: Any, batch: Any, first_id: int | None = None) -> Tensor:
        """Measure one batch, add it to the state, and return this batch's own percent (this process alone)."""
        # torchmetrics' forward would run the orbit twice or lose count of the samples.
        samples = self._measured(model, batch, first_id)
        self._append(samples)
        self._computed = None
        self._update_count += 1
        percent = self._percent(self._summary(samples))
        self._forward_cache: Any = percent
        return percent

    def compute(self) -> Tensor:
        """The percent of everything measured, a float64 scalar; NaN without labels."""
        self._result = self._summary(self._gathered())
        return self._percent(self._result)

    def result(self) -> Result:
        """The full :class:`Result` behind :meth:`compute`; like it, a call that every process must make."""
        self.compute()
        assert self._result is not None
        return self._result

    def reset(self) -> None:
        """Forget everything measured."""
        super().reset()
        self._known, self._result = Known(), None

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather over processes; a process that measured nothing takes part with an empty table."""
        if not self.figures:
            self._append(no_samples(self.plan, self.device))
        super().sync(*args, **kwargs)

    def _measured(self, model: Any, batch: Any, first_id: int | None) -> Samples:
        collector = Collector(model, self.plan, self.noise_samples)
        collector.caller = self._caller
        collector.next_id = self._first_id(first_id)
        collector.known = known = self._known
        before = self._caller.calls
        with untouched(model):
            collector.run(batch)
        self.model_calls = self.model_calls + (self._caller.calls - before)
        assert known.computing is not None
        seen = torch.tensor([known.computing.eps, known.stored, known.change], device="cpu").to(self.precision)
        self.precision = torch.maximum(self.precision, seen)
        if known.float64_change is not None:
            self.float64_change = torch.full_like(self.float64_change, known.float64_change)
        return collector.samples()

    def _first_id(self, given: int | None) -> int:
        if given is not None:
            check_count("first_id", given)
            return given
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        world = torch.distributed.get_world_size() if distributed else 1
        if self.declaration.ids is None and world > 1:
            raise InputError(
                f"samples need ids in a run of {world} processes, so that rotations follow the sample and padded "
                "duplicates count once: declare ids='id', or give update(..., first_id=position in the data set)"
            )
        return sum(len(part) for part in self.ids)

    def _append(self, samples: Samples) -> None:
        for name, table in samples.packed(self.device).items():
            getattr(self, name).append(table)

    def _gathered(self) -> Samples:
        none = no_samples(self.plan, self.device)
        if len(self.figures) == 0 or len(dim_zero_cat(self.ids)) == 0:
            raise InputError("nothing was measured: call update(model, batch) before compute()")
        return none.unpacked({name: dim_zero_cat(getattr(self, name)) for name in none.packed(self.device)})

    def _summary(self, samples: Samples) -> Result:
        change = float(self.float64_change)
        eps, stored, varied = self.precision.tolist()
        computing = self._known.computing or Computing()
        known = replace(
            self._known, computing=replace(computing, eps=eps), rounding={"": change} if change >= 0 else None,
            change=varied, wanted=self.noise_samples, passes=self.plan.design.passes, stored=stored,
        )  # fmt: skip
        described = self.plan.design.described(int(self.model_calls))
        return summarise(samples.once(self.declaration), self.plan, known, described, [])

    def _percent(self, result: Result) -> Tensor:
        return torch.tensor(result.percent, dtype=torch.float64, device=self.device)


def no_samples(plan: Plan, device: torch.device) -> Samples:
    """A table without samples, with the columns that those measured by a plan have."""
    figures, labels = {}, {}
    for name, spec in plan.declaration.outputs.items():
        loss = plan.losses[name]
        wide = {"powers": torch.empty(0, plan.highest_degree, dtype=torch.float64, device=device)}
        if spec.target is not None and loss.exact:
            invariants = spec.action.invariants("SO3").shape[1]
            wide["target_invariant"] = torch.empty(0, invariants, dtype=torch.float64, device=device)
        elif spec.target is not None and loss.per_sample is None:
            one = torch.zeros(1, 1, *spec.action.shape, device="cpu")
            width = 1 if loss.classes else spec.action.canonical(one).shape[-1]
            kind = torch.int64 if loss.classes else torch.float64
            rows = torch.empty(0, width, dtype=kind, device=device)
            labels[name] = LabelRows(rows, torch.empty(0, dtype=torch.int64, device=device))
        figures[name] = SampleValues.unknown(0, device, **wide)
    axes = torch.empty(0, 3, 3, dtype=torch.float64, device=device) if plan.declaration.points else None
    return Samples([], [], figures, axes, labels)
