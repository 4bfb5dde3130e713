"""Assert what a model of molecules owes besides rotations: permutations, padding, and the same answer twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from equiscope.decomposition.batches import DenseBatch
from equiscope.decomposition.checks import check_batch
from equiscope.decomposition.orbit import Caller, predict
from equiscope.decomposition.preserve import untouched
from equiscope.errors import InputError
from equiscope.symmetry.declaration import Declaration
from equiscope.testing.equivariance import label_free, listed

TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}
# Padding that a model must not see is made as loud as real atoms, but finite.
LOUD = 10.0
EXTRA_ATOMS = 3
# A second axis of these shapes may be atoms, or the components of one vector, cell or stress a sample.
AMBIGUOUS = {(3,), (3, 3), (6,), (9,)}


class _Checker:
    """Calls a model on pairs of batches and compares the real rows of its outputs."""

    def __init__(self, model: Any, declaration: Declaration, forward: Any, tolerance: float | None, what: str):
        self.model, self.declaration, self.tolerance, self.what = model, declaration, tolerance, what
        self.caller = Caller(forward, declaration)
        self.failures: list[str] = []

    def rows(self, native: Mapping[str, Any]) -> dict[str, Tensor]:
        batch = DenseBatch(native)
        check_batch(batch, self.declaration)
        answer = predict(self.model, batch.with_fields({}), batch, self.declaration, self.caller)
        return {k: v.detach() for k, v in answer.items()}

    def compare(self, number: int, expected: Mapping[str, Tensor], found: Mapping[str, Tensor], what: str) -> None:
        for name, a in expected.items():
            allowed = TOLERANCES.get(a.dtype, 1e-2) if self.tolerance is None else self.tolerance
            size = float(a.double().square().mean().sqrt())
            change = float((found[name].double() - a.double()).abs().max())
            # Not "change > …", so that NaN fails.
            if not change <= allowed * size:
                self.failures.append(
                    f"  batch {number}, output {name!r}: changes by up to {change:.3g} when {what}; "
                    f"RMS of the output {size:.3g}, allowed {allowed * size:.3g}"
                )

    def finish(self) -> None:
        if self.failures:
            raise AssertionError("\n".join([f"{self.what}:", *self.failures[:10]]))


def assert_permutation_equivariant(
    model: Any,
    batches: Iterable[Mapping[str, Any]],
    declaration: Declaration,
    *,
    atom_fields: Sequence[str] | None = None,
    pair_fields: Sequence[str] = (),
    index_fields: Sequence[str] = (),
    tolerance: float | None = None,
    forward: Callable[[Any, Any], Any] | None = None,
    seed: int = 0,
) -> None:
    """Renumbering the atoms of a sample renumbers its per-atom outputs and leaves its other outputs alone.

    Args:
        batches: dicts of tensors, (samples, atoms, …) where a field is per atom.
        atom_fields: fields with atoms as second axis; by default every field whose first two axes are those of the
            mask, or of the positions if there is no mask.
        pair_fields: fields (samples, atoms, atoms, …), renumbered on both axes.
        index_fields: integer fields that hold atom numbers (edge lists), which are renamed; negative ones are kept.
        tolerance: largest change of any component over the output's root mean square; 1e-9 in float64, 1e-4 in
            float32, 1e-2 below.
        model, declaration, forward, seed: as for :func:`equiscope.measure`; labels are not needed.

    Raises:
        AssertionError: naming batch, output and the size of the change.
        InputError: if per-atom fields cannot be told from others, or the batch is not a dict of tensors.
    """
    given = _dicts(batches)
    declaration = label_free(declaration, given[0])
    check = _Checker(model, declaration, forward, tolerance, "the model depends on the order of atoms")
    generator = torch.Generator().manual_seed(seed)
    with untouched(model):
        for number, native in enumerate(given):
            atoms = _atoms(native, declaration)
            names = _atom_fields(native, declaration, atoms, atom_fields, (*pair_fields, *index_fields))
            order = _random_order(native, declaration, atoms, generator)
            renumbered = _renumber(native, order, names, pair_fields, index_fields)
            expected = {k: _renumber_rows(v, k, native, order, declaration) for k, v in check.rows(native).items()}
            check.compare(number, expected, check.rows(renumbered), "atoms are renumbered")
    check.finish()


def assert_padding_ignored(
    model: Any,
    batches: Iterable[Mapping[str, Any]],
    declaration: Declaration,
    *,
    atom_fields: Sequence[str] | None = None,
    pair_fields: Sequence[str] = (),
    tolerance: float | None = None,
    forward: Callable[[Any, Any], Any] | None = None,
    seed: int = 0,
) -> None:
    """What stands in padded entries, and how many there are, changes no real output.

    Floating per-atom fields get random values in their padding (integer fields keep theirs: a model may know padding
    by species 0), and then every sample gets three more padded atoms.

    Args:
        atom_fields, pair_fields, tolerance: as for :func:`assert_permutation_equivariant`.
        model, batches, declaration, forward, seed: as for :func:`equiscope.measure`; labels are not needed.

    Raises:
        AssertionError: naming batch, output and the size of the change.
        InputError: if no mask is declared, or per-atom fields cannot be told from others.
    """
    given = _dicts(batches)
    declaration = label_free(declaration, given[0])
    if declaration.mask is None:
        raise InputError("there is no padding without a mask: declare mask='…', a boolean field (samples, atoms)")
    check = _Checker(model, declaration, forward, tolerance, "the model sees padding")
    generator = torch.Generator().manual_seed(seed)
    with untouched(model):
        for number, native in enumerate(given):
            names = _atom_fields(native, declaration, _atoms(native, declaration), atom_fields, pair_fields)
            wide = _widened(native, names, pair_fields)
            changed = {
                "padded entries get random values": _loud(native, declaration.mask, names, pair_fields, generator),
                f"{EXTRA_ATOMS} padded atoms of zeros are added": wide,
                f"{EXTRA_ATOMS} padded atoms of random values are added": _loud(
                    wide, declaration.mask, names, pair_fields, generator
                ),
            }
            expected = check.rows(native)
            for what, other in changed.items():
                check.compare(number, expected, check.rows(other), what)
    check.finish()


def assert_deterministic(
    model: Any,
    batches: Iterable[Any],
    declaration: Declaration,
    *,
    tolerance: float | None = None,
    forward: Callable[[Any, Any], Any] | None = None,
) -> None:
    """Two identical calls in eval mode, under different random seeds, give the same answer.

    Args:
        tolerance: as for :func:`assert_permutation_equivariant`; 0 asks for equal bits.
        model, batches, declaration, forward: as for :func:`equiscope.measure`; labels are not needed.

    Raises:
        AssertionError: naming batch, output and the size of the change.
    """
    given = _dicts(batches)
    declaration = label_free(declaration, given[0])
    check = _Checker(model, declaration, forward, tolerance, "the model is random")
    with untouched(model):
        for number, native in enumerate(given):
            torch.manual_seed(1)
            expected = check.rows(native)
            torch.manual_seed(2)
            check.compare(number, expected, check.rows(native), "called again")
    check.finish()


def _dicts(batches: Iterable[Any]) -> list[Mapping[str, Any]]:
    given = listed(batches)
    for native in given:
        if not isinstance(native, Mapping):
            raise InputError(f"this check reads batches that are dicts of tensors, got {type(native).__name__}")
    return given


def _atoms(native: Mapping[str, Any], declaration: Declaration) -> tuple[int, int]:
    """Samples and atoms of a batch, from its mask or its positions."""
    name = declaration.mask or next(iter(declaration.points), None)
    if name is None or native[name].ndim < 2:
        raise InputError("cannot tell where atoms are: declare mask='…', or positions (samples, atoms, 3) as points")
    samples, atoms = native[name].shape[:2]
    return samples, atoms


def _atom_fields(
    native: Mapping[str, Any],
    declaration: Declaration,
    atoms: tuple[int, int],
    named: Sequence[str] | None,
    others: Sequence[str],
) -> list[str]:
    """Fields with atoms as their second axis."""
    fields = DenseBatch(native).fields()
    for name in (*(named or ()), *others):
        if name not in fields:
            raise InputError(f"the batch has no tensor {name!r}; it has {sorted(fields)}")
    said = {name: declaration.rows_of_field(name) for name in fields}
    certain = {name for name, per in said.items() if per == "atom" and fields[name].ndim >= 2}
    apart = {*others, *(name for name, per in said.items() if per == "sample")}
    if named is not None:
        return sorted({*named, *certain})
    found = {k for k, v in fields.items() if tuple(v.shape[:2]) == atoms} - apart
    unsure = sorted(k for k in found - certain if tuple(fields[k].shape[1:]) in AMBIGUOUS)
    if unsure:
        raise InputError(
            f"with {atoms[1]} atoms the second axis of {unsure} may be atoms or components: say atom_fields=[…], or "
            "per= in the declaration"
        )
    return sorted(found | certain)


def _random_order(
    native: Mapping[str, Any], declaration: Declaration, atoms: tuple[int, int], generator: torch.Generator
) -> Tensor:
    """(samples, atoms): the old number of each atom; padding stays where it is."""
    anchor = native[declaration.mask] if declaration.mask else None
    device = native[declaration.mask or declaration.points[0]].device
    order = torch.arange(atoms[1]).repeat(atoms[0], 1)
    for sample in range(atoms[0]):
        real = anchor[sample].nonzero().flatten().to("cpu") if anchor is not None else torch.arange(atoms[1])
        order[sample, real] = real[torch.randperm(len(real), generator=generator)]
    return order.to(device)


def _take(values: Tensor, order: Tensor, axis: int) -> Tensor:
    """values with axis ``axis`` renumbered by order (samples, atoms)."""
    shape = [1] * values.ndim
    shape[0], shape[axis] = order.shape
    return values.gather(axis, order.reshape(shape).expand(*values.shape[:axis], -1, *values.shape[axis + 1 :]))


def _renumber(
    native: Mapping[str, Any], order: Tensor, atom: Sequence[str], pair: Sequence[str], index: Sequence[str]
) -> dict[str, Any]:
    new = dict(native)
    for name in atom:
        new[name] = _take(native[name], order, 1)
    for name in pair:
        new[name] = _take(_take(native[name], order, 1), order, 2)
    position = order.argsort(dim=1)
    for name in index:
        old = native[name]
        flat = old.reshape(len(old), -1)
        renamed = position.gather(1, flat.clamp_min(0).long()).to(old.dtype)
        new[name] = torch.where(flat >= 0, renamed, flat).reshape(old.shape)
    return new


def _renumber_rows(
    rows: Tensor, name: str, native: Mapping[str, Any], order: Tensor, declaration: Declaration
) -> Tensor:
    """The rows of an output (n, c, *shape) as they should be after renumbering."""
    spec = declaration.outputs[name]
    if spec.per == "sample":
        return rows
    if spec.mask is None:
        return _take(rows, order, 1) if rows.shape[1] == order.shape[1] else rows
    real = native[spec.mask].flatten().nonzero().flatten()
    row_of = torch.zeros(order.numel(), dtype=torch.int64, device=rows.device)
    row_of[real] = torch.arange(len(real), device=rows.device)
    start = torch.arange(len(order), device=rows.device)[:, None] * order.shape[1]
    return rows[row_of[(order + start).flatten()[real]]]


def _loud(
    native: Mapping[str, Any], mask_name: str, atom: Sequence[str], pair: Sequence[str], generator: torch.Generator
) -> dict[str, Any]:
    """The batch with random values in the padding of its floating fields."""
    new, mask = dict(native), native[mask_name]
    for name in (*atom, *pair):
        old = native[name]
        if not old.is_floating_point():
            continue
        real = mask if name in atom else mask[:, :, None] & mask[:, None, :]
        noise = LOUD * torch.randn(old.shape, generator=generator, dtype=torch.float64).to(old)
        new[name] = torch.where(real.reshape(*real.shape, *[1] * (old.ndim - real.ndim)), old, noise)
    return new


def _widened(native: Mapping[str, Any], atom: Sequence[str], pair: Sequence[str]) -> dict[str, Any]:
    """The batch with more padded atoms."""
    new = dict(native)
    for name in atom:
        new[name] = _append(native[name], 1)
    for name in pair:
        new[name] = _append(_append(native[name], 1), 2)
    return new


def _append(values: Tensor, axis: int) -> Tensor:
    shape = list(values.shape)
    shape[axis] = EXTRA_ATOMS
    return torch.cat([values, values.new_zeros(shape)], dim=axis)
