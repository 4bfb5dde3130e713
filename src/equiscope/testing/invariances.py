"""Assert what a model of molecules owes besides rotations: permutations, padding, and the same answer twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from equiscope.decomposition.batches import DenseBatch, boolean
from equiscope.decomposition.calling import named
from equiscope.decomposition.checks import check_batch
from equiscope.decomposition.orbit import Caller, predict
from equiscope.decomposition.preserve import untouched
from equiscope.decomposition.ragged import batch_of
from equiscope.decomposition.symmetries.relabelling import Permutation, atoms_of
from equiscope.decomposition.symmetries.relabelling import atom_fields as atom_fields_of
from equiscope.errors import InputError
from equiscope.symmetry.declaration import Declaration
from equiscope.testing.equivariance import assert_equivariant, label_free, listed

TOLERANCES, COARSE = {torch.float64: 1e-9, torch.float32: 1e-4}, 1e-2
# Padding that a model must not see is made as loud as real atoms, but finite.
LOUD = 10.0
EXTRA_ATOMS = 3


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
        batches: as for :func:`equiscope.measure`.
        atom_fields: fields with an axis of atoms; by default every field that the declaration or its shape says.
        pair_fields: fields (samples, atoms, atoms, …), renumbered on both axes.
        index_fields: integer fields that hold atom numbers (edge lists), which are renamed; negative ones are kept.
        tolerance: root mean square deviation over random orders, relative to the output; 1e-9 in float64, 1e-4 in
            float32, 1e-2 below.
        model, declaration, forward, seed: as for :func:`equiscope.measure`; labels are not needed.

    Raises:
        AssertionError: with the report of :func:`assert_equivariant`.
        InputError: if per-atom fields cannot be told from others.
    """
    given = listed(batches)
    if tolerance is None:
        fields = batch_of(given[0], declaration).fields()
        kept = [fields[name].dtype for name in declaration.inputs if name in fields]
        tolerance = max((TOLERANCES.get(kind, COARSE) for kind in kept), default=COARSE)
    family = Permutation(atom_fields, pair_fields, index_fields)
    assert_equivariant(model, given, declaration, tolerance, forward=forward, seed=seed, symmetry=family)


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
        batches: dicts of tensors, (samples, atoms, …) where a field is per atom.
        atom_fields, pair_fields: as for :func:`assert_permutation_equivariant`.
        tolerance: largest change of any component over the output's root mean square; 1e-9 in float64, 1e-4 in
            float32, 1e-2 below.
        model, declaration, forward, seed: as for :func:`equiscope.measure`; labels are not needed.

    Raises:
        AssertionError: naming batch, output and the size of the change.
        InputError: if no mask is declared, or per-atom fields cannot be told from others.
    """
    given = _dicts(batches, declaration)
    declaration = label_free(declaration, given[0])
    if declaration.mask is None or declaration.batch is not None:
        raise InputError(
            "there is no padding without a mask, nor where atoms stand one after another (batch='…'): declare "
            "mask='…', a boolean field (samples, atoms)"
        )
    mask, generator = declaration.mask, torch.Generator().manual_seed(seed)

    def padded(native: Mapping[str, Any]) -> dict[str, Any]:
        batch = DenseBatch(native)
        names = atom_fields_of(batch, declaration, atoms_of(batch, declaration), atom_fields, pair_fields)
        wide = _widened(native, names, pair_fields)
        return {
            "padded entries get random values": _loud(native, mask, names, pair_fields, generator),
            f"{EXTRA_ATOMS} padded atoms of zeros are added": wide,
            f"{EXTRA_ATOMS} padded atoms of random values are added": _loud(wide, mask, names, pair_fields, generator),
        }

    _assert_unchanged(model, given, declaration, forward, tolerance, "the model sees padding", padded)


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
        tolerance: as for :func:`assert_padding_ignored`; 0 asks for equal bits.
        model, batches, declaration, forward: as for :func:`equiscope.measure`; labels are not needed.

    Raises:
        AssertionError: naming batch, output and the size of the change.
    """
    given = listed(batches)
    declaration = label_free(declaration, given[0])
    _assert_unchanged(
        model, given, declaration, forward, tolerance, "the model is random", lambda native: {"called again": native}
    )


def _assert_unchanged(
    model: Any,
    given: Sequence[Any],
    declaration: Declaration,
    forward: Callable[[Any, Any], Any] | None,
    tolerance: float | None,
    fault: str,
    variants: Callable[[Any], Mapping[str, Any]],
) -> None:
    """The real rows of every output are the same for ``variants`` of a batch, under other random seeds."""
    caller, failures = Caller(forward, declaration), list[str]()

    def rows(native: Any, seed: int) -> dict[str, Tensor]:
        batch = batch_of(native, declaration)
        check_batch(batch, declaration)
        torch.manual_seed(seed)
        answer = predict(model, batch.with_fields({}), batch, declaration, caller)
        return {k: v.detach() for k, v in answer.items()}

    with untouched(model):
        for number, native in enumerate(given):
            expected = rows(native, seed=1)
            for what, other in variants(native).items():
                failures += [
                    f"  batch {number}, output {name!r}: changes by up to {change:.3g} when {what}; "
                    f"RMS of the output {size:.3g}, allowed {allowed:.3g}"
                    for name, change, size, allowed in _changes(expected, rows(other, seed=2), tolerance)
                ]
    if failures:
        raise AssertionError("\n".join([f"{fault}:", *failures[:10]]))


def _changes(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor], tolerance: float | None
) -> Iterator[tuple[str, float, float, float]]:
    """(output, largest change, root mean square, largest change allowed) where more changes than is allowed."""
    for name, a in expected.items():
        size = float(a.double().square().mean().sqrt())
        allowed = size * (TOLERANCES.get(a.dtype, COARSE) if tolerance is None else tolerance)
        change = float((found[name].double() - a.double()).abs().max())
        # Not "change > …", so that NaN fails.
        if not change <= allowed:
            yield name, change, size, allowed


def _dicts(batches: Iterable[Any], declaration: Declaration) -> list[Mapping[str, Any]]:
    given = listed(batches)
    if declaration.fields or isinstance(given[0], Mapping):
        given = [named(native, declaration.fields) for native in given]
    for native in given:
        if not isinstance(native, Mapping):
            raise InputError(f"this check reads batches that are dicts of tensors, got {type(native).__name__}")
    return given


def _loud(
    native: Mapping[str, Any], mask_name: str, atom: Sequence[str], pair: Sequence[str], generator: torch.Generator
) -> dict[str, Any]:
    """The batch with random values in the padding of its floating fields."""
    new, mask = dict(native), boolean(native[mask_name], mask_name)
    for name in (*atom, *pair):
        old = native[name]
        if not old.is_floating_point():
            continue
        real = mask if name in atom else mask[:, :, None] & mask[:, None, :]
        noise = LOUD * torch.randn(old.shape, generator=generator, dtype=torch.float64, device="cpu").to(old)
        new[name] = torch.where(real.reshape(*real.shape, *[1] * (old.ndim - real.ndim)), old, noise)
    return new


def _widened(native: Mapping[str, Any], atom: Sequence[str], pair: Sequence[str]) -> dict[str, Any]:
    """The batch with more padded atoms."""
    new = dict(native)
    for name in (*atom, *pair):
        axes = 1 if name in atom else 2
        new[name] = functional.pad(new[name], (0, 0) * (new[name].ndim - 1 - axes) + (0, EXTRA_ATOMS) * axes)
    return new
