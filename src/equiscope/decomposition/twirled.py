"""The group-averaged model as a module: test-time averaging, the twirled loss, and what analyses differentiate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from equiscope.decomposition.batches import device_of_batch
from equiscope.decomposition.calling import Call, found_outputs
from equiscope.decomposition.checks import check_finite, check_inputs
from equiscope.decomposition.measure import resolve_declaration
from equiscope.decomposition.orbit import answer_of, output_rows, rotated, rotated_back, rows_of
from equiscope.decomposition.plan import make_plan
from equiscope.decomposition.ragged import batch_of
from equiscope.errors import NonFiniteError
from equiscope.signatures import handing_on
from equiscope.symmetry.declaration import Declaration, DeclarationSettings


class Twirled(nn.Module):
    """f averaged over rotations.

        (1 / C) sum_c sum_k w_k g^-1 f(g x),        g = k u_c

    The shifts u_c are the same for every sample and call (a function of ``seed``), so that the averaged model is a
    deterministic function; ``cosets=1, shift=False`` averages over the set K itself, which for a finite group makes
    the model exactly equivariant under that group. Wigner degrees up to the set's degree are averaged exactly.

    Args:
        model: any module; called as ``model(batch)`` or ``forward(model, batch)``.
        declaration, inputs, outputs: as for :func:`equiscope.measure`; targets are not needed.
        forward: ``forward(model, batch)``, where the model is not called as ``model(batch)`` or by field names.
        fixed, center, group, mask, batch, per, clusters, ids, weighting, fields: as for :func:`equiscope.measure`.
        rotations, cosets, seed: the set K, the number of shifts and their seed.
        shift: whether to shift the set by random u_c.

    Calling it with a batch returns a dict of the declared outputs in the model's dtype and layout, differentiable
    with respect to parameters and inputs; entries behind a mask are zero.

    Raises:
        InputError: for ``shift=False`` with more than one coset or another bad argument; in a call, for a batch that
            lacks a declared field or lays it out otherwise.
        NonFiniteError: in a call, for NaN or infinity in what turns or in an average.
        ModelError: in a call, around whatever the model raises.
    """

    @handing_on(Declaration)
    def __init__(
        self,
        model: nn.Module,
        declaration: Declaration | None = None,
        *,
        inputs: Mapping[str, Any] | None = None,
        outputs: Mapping[str, Any] | None = None,
        forward: Callable[[Any, Any], Any] | None = None,
        rotations: str = "T",
        cosets: int = 1,
        seed: int = 0,
        shift: bool = True,
        **settings: Unpack[DeclarationSettings],
    ):
        super().__init__()
        declaration = resolve_declaration(declaration, inputs, outputs, None, "mse", settings)
        plan = make_plan(declaration, forward, rotations, cosets, seed, shift=shift, alone=True, judged=False)
        self.model, self.declaration, self._forward = model, declaration, forward or Call(declaration)
        count = int(plan.design.cosets)
        # Shifts of cosets, not of samples. No buffers: .half() or .float() must not round the rotations.
        passes = list(plan.walk(range(count), torch.device("cpu"), cosets=1))
        self._elements = torch.stack([one.turns for one in passes], dim=1).flatten(0, 1)
        self._weights = [one.weight / count for _ in range(count) for one in passes]

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """The averaged outputs of a batch."""
        wrapped = batch_of(batch, self.declaration)
        check_inputs(wrapped, self.declaration)
        check_finite(wrapped, self.declaration)
        device = device_of_batch(wrapped)
        sums: dict[str, Tensor] = {}
        for element, weight in zip(self._elements.to(device), self._weights, strict=True):
            turns = element.expand(wrapped.size, 3, 3)
            native = rotated(wrapped, turns, self.declaration)
            found = found_outputs(answer_of(self.model, native, self._forward, wrapped), self.declaration)
            rows = {name: rows_of(found[name], name, wrapped, self.declaration) for name in found}
            for name, back in rotated_back(rows, wrapped, turns, self.declaration).items():
                sums[name] = sums[name] + weight * back if name in sums else weight * back
        averaged = {}
        for name in self.declaration.outputs:
            if not bool(torch.isfinite(sums[name].detach()).all()):
                raise NonFiniteError(f"prediction {name!r} is NaN or infinite for at least one rotation of a batch")
            rows_like = output_rows(wrapped, name, self.declaration).scatter(sums[name], found[name].detach())
            averaged[name] = rows_like.to(found[name].dtype)
        return averaged
