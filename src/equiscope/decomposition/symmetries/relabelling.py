"""The order of atoms and of edges, which is no property of a sample: renumbered fields, and rows put back in order.

Atoms are entries, samples one after another: (samples x atoms) of a padded batch, (atoms,) of a ragged one. A
relabelling says which old entry each new one is (``order``), and where each old one now stands (``place``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from equiscope.decomposition.batches import Batch, Rows, boolean, names
from equiscope.decomposition.orbit import one_a_sample, output_rows
from equiscope.decomposition.symmetries.moves import Family, Moved, MoveKey, Values, unchanged
from equiscope.errors import InputError
from equiscope.symmetry.declaration import Declaration

SEQUENCES = list | tuple | np.ndarray
# A second axis of these shapes may be atoms, or the components of one vector, cell or stress a sample.
AMBIGUOUS = {(3,), (3, 3), (6,), (9,)}


@dataclass(frozen=True)
class Atoms:
    """Where the atoms of a batch are.

    Attributes:
        shape: (samples, atoms) of a padded batch, (atoms,) of a ragged one.
        sample: (entries,) the sample of each entry; real: (entries,) which are atoms and not padding.
    """

    shape: tuple[int, ...]
    sample: Tensor
    real: Tensor

    @property
    def dense(self) -> bool:
        return len(self.shape) == 2

    def flat(self, values: Tensor) -> Tensor:
        """A field of atoms with one axis for all entries."""
        return values.flatten(0, 1) if self.dense else values

    def like(self, flat: Tensor) -> Tensor:
        """Entries (any number a sample) in the layout of a field of atoms."""
        return flat.unflatten(0, (self.shape[0], -1)) if self.dense else flat

    def taken(self, values: Tensor, order: Tensor) -> Tensor:
        """A field of atoms with the entries ``order``, any number a sample, in its layout."""
        return self.like(self.flat(values)[order])


def atoms_of(batch: Batch, declaration: Declaration) -> Atoms:
    """Where the atoms are: from the mask or the positions of a padded batch, from the sample of each of a ragged one.

    Raises:
        InputError: if neither says.
    """
    fields, mask = batch.fields(), declaration.mask
    if not batch.dense:
        nodes: Tensor = batch.nodes  # type: ignore[attr-defined]
        # A mask says which count: there is no padding.
        return Atoms((len(nodes),), nodes, torch.ones_like(nodes, dtype=torch.bool))
    name = mask or next(iter(declaration.points), None)
    if name is None or fields[name].ndim < 2 + (name != mask):
        raise InputError("cannot tell where atoms are: declare mask='…', or positions (samples, atoms, 3) as points")
    samples, atoms = fields[name].shape[:2]
    sample = torch.arange(samples, device=fields[name].device).repeat_interleave(atoms)
    real = torch.ones_like(sample, dtype=torch.bool) if mask is None else boolean(fields[mask], mask).flatten()
    return Atoms((samples, atoms), sample, real)


def field_of(batch: Batch, name: str, asking: str = "") -> Tensor:
    """A field of the batch; ``asking`` begins the message where there is none.

    Raises:
        InputError: if it has none of that name.
    """
    if name not in batch.fields():
        raise InputError(f"{asking}the batch has no tensor {name!r}; it has {names(batch.fields())}")
    return batch.fields()[name]


def atom_fields(
    batch: Batch, declaration: Declaration, atoms: Atoms, named: Sequence[str] | None, others: Sequence[str] = ()
) -> list[str]:
    """Fields with atoms first (ragged) or second (padded): those named, else all that the declaration or shapes say.

    ``others`` hold pairs or numbers of atoms and are treated by themselves.

    Raises:
        InputError: for a named field that is missing or has no axis of atoms, one that may have, or a list of atoms.
    """
    fields, leading = batch.fields(), len(atoms.shape)
    for name in others:
        field_of(batch, name)
    for name in named or ():
        if tuple(field_of(batch, name).shape[:leading]) != atoms.shape:
            raise InputError(
                f"field {name!r} {tuple(fields[name].shape)} has no axis of {atoms.shape[-1]} atoms to be renumbered: "
                "leave it out of fields"
            )
    _refuse_lists(batch, atoms)
    said = {name: declaration.rows_of_field(name) for name in fields}
    certain = {name for name, per in said.items() if per == "atom" and fields[name].ndim >= leading}
    if named is not None:
        return sorted({*named, *certain} - set(others))
    apart = {*others, *(name for name, per in said.items() if per == "sample")}
    found = {k for k, v in fields.items() if tuple(v.shape[:leading]) == atoms.shape} - apart - {"edge_index"}
    unsure = [k for k in found - certain if _unsure(batch, fields[k], atoms)]
    if unsure:
        raise InputError(
            f"with {atoms.shape[-1]} atoms the axis of {sorted(unsure)} may be atoms or components: say which have "
            "atoms, fields=[…] (atom_fields=[…] of an assert), or per={'z': 'atom'} in the declaration"
        )
    return sorted((found | certain) - set(others))


def _refuse_lists(batch: Batch, atoms: Atoms) -> None:
    """What a list says of atoms would stay in the old order.

    Raises:
        InputError: naming a field of one entry an atom that is no tensor.
    """
    stored = getattr(batch, "_batch", None) or getattr(batch, "_graphs", {})
    for name in stored.keys():  # noqa: SIM118 (graphs are no dicts)
        value = stored[name]
        lists = [v for v in value if isinstance(v, SEQUENCES)] if isinstance(value, SEQUENCES) else []
        counts = {*map(len, lists)} if atoms.dense else {sum(map(len, lists))}
        if isinstance(value, SEQUENCES) and not atoms.dense:
            counts.add(len(value))
        if (atoms.dense or atoms.shape[-1] != batch.size) and atoms.shape[-1] in counts:
            raise InputError(
                f"field {name!r} lists one entry an atom, which would keep its order when atoms change theirs: give it "
                "as a tensor of numbers, or leave it out of the batch"
            )


def _unsure(batch: Batch, values: Tensor, atoms: Atoms) -> bool:
    if atoms.dense:
        # Whole numbers are no stress and no tensor.
        rest = tuple(values.shape[1:])
        return rest in AMBIGUOUS and (values.is_floating_point() or rest in ((3,), (3, 3)))
    edges = getattr(batch, "edges", None)
    return len(values) in {batch.size, *(() if edges is None else (len(edges),))}


def shuffled(sample: Tensor, real: Tensor, draw: MoveKey) -> Tensor:
    """(entries,) a random order of each sample's real entries among themselves; others stay where they are."""
    owner, chosen = sample.cpu().numpy(), real.cpu().numpy()
    order = np.arange(len(owner))
    by_sample = np.argsort(np.where(chosen, owner, len(draw.ids)), kind="stable")
    stops = np.cumsum(np.bincount(owner[chosen], minlength=len(draw.ids)))
    for stop, start, random in zip(stops, [0, *stops[:-1]], draw.generators(), strict=True):
        own = by_sample[start:stop]
        order[own] = own[random.permutation(len(own))]
    return torch.from_numpy(order).to(sample.device)


def outputs_back(
    values: Values, moved: Batch, batch: Batch, declaration: Declaration, place: Tensor
) -> dict[str, Tensor]:
    """Rows of every output of a relabelled batch as rows of ``batch``: those of atoms from the entry ``place``."""
    back = {}
    before, after = atoms_of(batch, declaration), atoms_of(moved, declaration)
    for name, rows in values.items():
        spec = declaration.outputs[name]
        there = output_rows(moved, name, declaration)
        of_samples = spec.per == "sample" or one_a_sample(batch, name, declaration)
        # Rows of samples (n, c, …) may fold an axis of atoms into c.
        folds = not before.dense or there.index is not None or rows.shape[1] % after.shape[-1] == 0
        if of_samples or not folds:
            back[name] = rows
            continue
        here = output_rows(batch, name, declaration)
        entries = _entries(rows, there, after)[place]
        if here.index is not None:
            back[name] = entries[here.index]
        else:
            back[name] = entries.reshape(before.shape[0], -1, *rows.shape[2:]) if before.dense else entries
    return back


def _entries(rows: Tensor, where: Rows, atoms: Atoms) -> Tensor:
    """Rows (n, c, …) by entry, (entries, c, …), zero where there is none."""
    if where.index is not None:
        return rows.new_zeros(len(atoms.sample), *rows.shape[1:]).index_copy(0, where.index, rows)
    return rows.reshape(len(atoms.sample), -1, *rows.shape[2:]) if atoms.dense else rows


def renumbered(
    batch: Batch, atoms: Atoms, order: Tensor, place: Tensor, pairs: Sequence[str], indices: Sequence[str]
) -> dict[str, Tensor]:
    """Fields of pairs (samples, atoms, atoms, …) in the new order, and fields of numbers of atoms renamed."""
    fields, changed = batch.fields(), {}
    for name in pairs:
        if not atoms.dense or tuple(fields[name].shape[:3]) != (*atoms.shape, atoms.shape[1]):
            raise InputError(f"pairs={name!r} must be (samples, atoms, atoms, …), got {tuple(fields[name].shape)}")
        local = (order - atoms.sample * atoms.shape[1]).reshape(atoms.shape)
        changed[name] = taken(taken(fields[name], local, 1), local, 2)
    for name in indices:
        old = fields[name]
        if old.is_floating_point():
            raise InputError(f"indices={name!r} must hold whole numbers of atoms, got {old.dtype}")
        first = torch.zeros((), dtype=torch.int64, device=old.device)
        if atoms.dense:
            # Numbers of atoms count within their sample.
            first = torch.arange(len(old), device=old.device).reshape(-1, *[1] * (old.ndim - 1)) * atoms.shape[1]
        new = place[(old.clamp_min(0) + first).long()] - first
        changed[name] = torch.where(old >= 0, new.to(old.dtype), old)
    return changed


def taken(values: Tensor, order: Tensor, axis: int) -> Tensor:
    """values with axis ``axis`` in the order (samples, atoms)."""
    shape = [1] * values.ndim
    shape[0], shape[axis] = order.shape
    return values.gather(axis, order.reshape(shape).expand(*values.shape[:axis], -1, *values.shape[axis + 1 :]))


@dataclass(frozen=True)
class Permutation(Family):
    """The atoms of a sample in a random order: per-atom outputs must follow, others must not change.

    Attributes:
        fields: fields with an axis of atoms; by default all that the declaration or their shape say.
        pairs: fields (samples, atoms, atoms, …), renumbered on both axes.
        indices: fields that hold numbers of atoms (neighbour lists), which are renamed; negative ones are kept, and
            ``edge_index`` of a ragged batch is always among them.
    """

    fields: Sequence[str] | None = None
    pairs: Sequence[str] = ()
    indices: Sequence[str] = ()
    name = "permutation"

    def move(self, batch: Batch, declaration: Declaration, draw: MoveKey, places: Sequence[int]) -> Moved:
        atoms = atoms_of(batch, declaration)
        if int(torch.bincount(atoms.sample[atoms.real]).max()) < 2:
            raise InputError("permutation: no sample of the batch has two atoms, there is nothing to exchange")
        order = draw.once("order", lambda: shuffled(atoms.sample, atoms.real, draw))
        where = order.argsort()
        edges = [] if getattr(batch, "edges", None) is None else ["edge_index"]
        indices = list(dict.fromkeys([*self.indices, *edges]))
        own = atom_fields(batch, declaration, atoms, self.fields, (*self.pairs, *indices))
        changed = {name: atoms.taken(batch.fields()[name], order) for name in own}
        changed |= renumbered(batch, atoms, order, where, self.pairs, indices)
        return Moved(
            batch.with_fields(changed), lambda rows, moved: outputs_back(rows, moved, batch, declaration, where)
        )


@dataclass(frozen=True)
class EdgeOrder(Family):
    """The edges of a sample, or the neighbours of an atom, in a random order: no output may change.

    Attributes:
        fields: fields that list edges. Of a ragged batch, fields with edges first besides ``edge_index``, by default
            all of that length. Of a padded one, lists (samples, edges, …), or (samples, atoms, neighbours, …) with
            ``axis=2``, which are shuffled alike.
        axis: of the list in padded fields.
    """

    fields: Sequence[str] | None = None
    axis: int = 1
    name = "edges"

    def move(self, batch: Batch, declaration: Declaration, draw: MoveKey, places: Sequence[int]) -> Moved:
        changed = self._padded(batch, draw) if batch.dense else self._ragged(batch, draw)
        return Moved(batch.with_fields(changed), unchanged)

    def _padded(self, batch: Batch, draw: MoveKey) -> dict[str, Tensor]:
        fields = batch.fields()
        shapes = {name: tuple(fields[name].shape[: self.axis + 1]) for name in self.fields or () if name in fields}
        if not shapes or len(shapes) < len(self.fields or ()) or len(set(shapes.values())) > 1:
            raise InputError(
                "edges of a padded batch: name the fields that list them, of one length each, "
                f"eq.symmetries.EdgeOrder(fields=['neighbours'], axis=2), got {self.fields!r}, found {shapes}"
            )
        shape = next(iter(shapes.values()))
        if len(shape) != self.axis + 1:
            raise InputError(f"edges: fields {sorted(shapes)} have no axis {self.axis}, shape {shape}")
        order = torch.stack([torch.from_numpy(random.random(shape[1:]).argsort(-1)) for random in draw.generators()])
        return {name: _along(fields[name], order.to(fields[name].device), self.axis) for name in shapes}

    def _ragged(self, batch: Batch, draw: MoveKey) -> dict[str, Tensor]:
        fields, edges = batch.fields(), getattr(batch, "edges", None)
        if edges is None:
            raise InputError("edges: the batch has no edge_index (2, edges) whose order could be changed")
        count, nodes = len(edges), len(batch.nodes)  # type: ignore[attr-defined]
        named = self.fields
        if named is None and count in (nodes, batch.size):
            raise InputError(
                f"edges: with {count} edges, {nodes} atoms and {batch.size} samples, lengths do not say which fields "
                "list edges: eq.symmetries.EdgeOrder(fields=[…])"
            )
        own = [k for k, v in fields.items() if len(v) == count and k != "edge_index"] if named is None else list(named)
        wrong = [name for name in own if name not in fields or len(fields[name]) != count]
        if wrong:
            raise InputError(f"edges: fields {wrong} of the batch do not list its {count} edges")
        order = shuffled(edges, torch.ones_like(edges, dtype=torch.bool), draw)
        return {"edge_index": fields["edge_index"][:, order], **{name: fields[name][order] for name in own}}


def _along(values: Tensor, order: Tensor, axis: int) -> Tensor:
    """values with its axis ``axis`` in the order given for each of the axes before."""
    wide = order.reshape(*order.shape, *[1] * (values.ndim - axis - 1)).expand(values.shape)
    return values.gather(axis, wide)
