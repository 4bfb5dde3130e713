"""Neighbour lists within a cutoff for padded batches of molecules, with bounded memory.

A padded batch (B, N) is flattened to its A real atoms once; edges, tables and indices then refer to flat atoms,
so padding (which may hold anything, 999 or NaN) is never read and atoms of different samples never meet.

Numbers of atoms and edges are known only once they are counted, for which a GPU is waited for. A batch of the training
is therefore :func:`prepared` on the host, and the model finds the list in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from equiscope.errors import InputError
from equiscope.tasks.guards import at_least, positive
from equiscope.tasks.seeded import few_sizes

PAIRS_AT_ONCE = 1 << 20
"""Upper bound of the atom pairs whose distances are held at one time (about 16 MB in float32)."""


@dataclass(frozen=True)
class FlatAtoms:
    """The real atoms of a padded batch, one after another.

    Attributes:
        pos: (A, 3) positions in Å, differentiable with respect to the batch's; species: (A,) atomic numbers.
        place: (A,) index of each atom in the flattened (B·N) batch; sample: (A,) its sample, ascending.
        shape: (B, N) of the batch.
        found: the neighbours, where the batch was :func:`prepared`. Then atoms may have been added at the end that are
            in no sample (``sample`` B, ``place`` B·N).
    """

    pos: Tensor
    species: Tensor
    place: Tensor
    sample: Tensor
    shape: tuple[int, int]
    found: Neighbours | None = None

    def sum_samples(self, values: Tensor) -> Tensor:
        """(A, ...) per-atom values → (B, ...) sums over the atoms of each sample."""
        size, more = self.shape[0], self.found is not None
        return values.new_zeros(size + more, *values.shape[1:]).index_add(0, self.sample, values)[:size]

    def pad(self, values: Tensor) -> Tensor:
        """(A, ...) per-atom values → (B, N, ...) with zeros in the padding."""
        size, length = self.shape
        if self.found is None:
            flat = values.new_zeros(size * length, *values.shape[1:]).index_copy(0, self.place, values)
        else:
            # One more place, which the added atoms share.
            flat = values.new_zeros(size * length + 1, *values.shape[1:]).index_add(0, self.place, values)[:-1]
        return flat.reshape(size, length, *values.shape[1:])


@dataclass(frozen=True)
class Neighbours:
    """Directed edges i → j with |x_j − x_i| < cutoff, sorted by (i, j).

    Attributes:
        centre, neighbour: (E,) flat atoms i and j of each edge.
        reverse: (E,) index of the edge j → i; ``None`` where the list was cut to the nearest (not symmetric).
        table: (A, K) edge indices of each atom, K the largest number of neighbours; 0 where ``valid`` is false.
        valid: (A, K) which entries of the table are edges.
        slot: (E,) position of each edge in the flattened (A·K) table.

    Where a batch was filled up to few sizes, the edges added are in no table and lead from the last atom, which was
    added too and is in no sample, to itself.
    """

    centre: Tensor
    neighbour: Tensor
    reverse: Tensor | None
    table: Tensor
    valid: Tensor
    slot: Tensor


def flatten(batch: Mapping[str, Tensor]) -> FlatAtoms:
    """The real atoms of a dense batch with ``pos`` (B, N, 3), ``species`` (B, N) and ``mask`` (B, N).

    Raises:
        InputError: a field is missing, has the wrong shape or type, or a sample has no atoms.
    """
    missing = [name for name in ("pos", "species", "mask") if name not in batch]
    if missing:
        raise InputError(f"the batch has no {missing}; it has {sorted(batch)}: add the missing fields")
    pos, species, mask = batch["pos"], batch["species"], batch["mask"]
    if _PLACE in batch:
        place, sample = batch[_PLACE], batch[_SAMPLE]
        source = batch.get(_SOURCE, place)
        found = Neighbours(**{name: batch.get(_EDGES + name) for name in _LISTED})  # type: ignore[arg-type]
        return FlatAtoms(*_taken(batch, source), place, sample, (mask.shape[0], mask.shape[1]), found)
    if mask.dtype != torch.bool:
        raise InputError(f"mask must be boolean (true for real atoms), it is {mask.dtype}: use mask.bool()")
    if pos.shape != (*mask.shape, 3) or species.shape != mask.shape:
        raise InputError(
            f"pos must be (B, N, 3), species and mask (B, N); they are {tuple(pos.shape)}, "
            f"{tuple(species.shape)} and {tuple(mask.shape)}"
        )
    place = mask.flatten().nonzero().squeeze(1)
    sample = place.div(mask.shape[1], rounding_mode="floor")
    atoms = mask.sum(1)
    if bool((atoms == 0).any()):
        empty = (atoms == 0).nonzero().flatten().tolist()
        raise InputError(f"samples {empty[:8]} of the batch have no atoms (mask all false): leave them out")
    return FlatAtoms(*_taken(batch, place), place, sample, (mask.shape[0], mask.shape[1]))


def _taken(batch: Mapping[str, Tensor], place: Tensor) -> tuple[Tensor, Tensor]:
    """Positions and species of the atoms at these places."""
    return batch["pos"].reshape(-1, 3).index_select(0, place), batch["species"].flatten().index_select(0, place)


# Fields of a prepared batch.
_PLACE, _SOURCE, _SAMPLE, _EDGES = "atoms.place", "atoms.source", "atoms.sample", "edges."
_LISTED = tuple(field.name for field in fields(Neighbours))


def prepared(
    batch: Mapping[str, Tensor], cutoff: float, nearest: int | None = None, padded: bool = False
) -> dict[str, Tensor]:
    """The batch with its neighbour list, found where the batch lies, so that the model has nothing to count.

    ``cutoff`` and ``nearest`` are the model's; with ``padded`` atoms, edges and table are filled up to one of few sizes
    (:func:`equiscope.tasks.seeded.few_sizes`). The fields added are no samples: what is shared among processes is
    shared before. Errors are those of :func:`flatten` and :func:`find`.
    """
    atoms = flatten(batch)
    found = find(atoms, cutoff, nearest)
    made = {_PLACE: atoms.place, _SAMPLE: atoms.sample}
    made |= {_EDGES + name: value for name in _LISTED if (value := getattr(found, name)) is not None}
    return {**batch, **(_filled(made, *atoms.shape) if padded else made)}


def _filled(made: Mapping[str, Tensor], size: int, length: int) -> dict[str, Tensor]:
    """Atoms that are in no sample and edges that are not real, up to the next of few sizes."""
    # Added atoms are copies of the first, whose element the model knows.
    out = {**made, _SOURCE: made[_PLACE]}
    (count, width), edges = made[_EDGES + "table"].shape, len(made[_EDGES + "centre"])
    # At least one atom more, to whom the edges that are not real belong.
    atoms, places, ends = few_sizes(count + 1), few_sizes(width), few_sizes(edges)
    more = {_PLACE: size * length, _SOURCE: int(made[_PLACE][0]), _SAMPLE: size}
    for name, value in {**more, _EDGES + "centre": atoms - 1, _EDGES + "neighbour": atoms - 1}.items():
        target = atoms if name in more else ends
        out[name] = functional.pad(out[name], (0, target - len(out[name])), value=value)
    for name in ("table", "valid"):
        out[_EDGES + name] = functional.pad(made[_EDGES + name], (0, places - width, 0, atoms - count))
    slot = made[_EDGES + "slot"]
    row = slot.div(max(width, 1), rounding_mode="floor")
    # A place of the last atom, where no real edge is.
    out[_EDGES + "slot"] = functional.pad(slot + row * (places - width), (0, ends - edges), value=(atoms - 1) * places)
    if _EDGES + "reverse" in made:
        out[_EDGES + "reverse"] = torch.cat([made[_EDGES + "reverse"], torch.arange(edges, ends)])
    return out


def find(atoms: FlatAtoms, cutoff: float, nearest: int | None = None, pairs_at_once: int = PAIRS_AT_ONCE) -> Neighbours:
    """All directed edges shorter than ``cutoff`` (Å) inside each sample; an edge at exactly the cutoff is left out.

    Distances are taken for blocks of atoms against the atoms of their own samples, at most ``pairs_at_once`` at a time,
    so that memory grows with the number of edges and not with the square of a molecule. The result does not depend on
    the block size. ``nearest`` keeps only that many shortest edges of every atom; the list is then no longer symmetric
    (``reverse`` is ``None``) and the energy surface no longer continuous.

    Raises:
        InputError: the cutoff is not positive, or ``nearest`` is below 1.
    """
    positive(cutoff=cutoff)
    at_least(1, nearest=nearest)
    if atoms.found is not None:
        return atoms.found
    centre, neighbour, squared = _edges(atoms, cutoff, pairs_at_once)
    count = len(atoms.sample)
    if nearest is not None:
        keep = _shortest(centre, squared, count, nearest)
        centre, neighbour = centre[keep], neighbour[keep]
    degree, column = _ranked(centre, count)
    width = int(degree.max()) if count else 0
    slot = centre * width + column
    table = torch.zeros(count * width, dtype=torch.int64, device=centre.device)
    table[slot] = torch.arange(len(centre), device=centre.device)
    return Neighbours(
        centre=centre,
        neighbour=neighbour,
        # Edges are sorted by (i, j) and the set is symmetric, so sorting by (j, i) lists the reversed edges.
        reverse=neighbour.argsort(stable=True) if nearest is None else None,
        table=table.reshape(count, width),
        valid=torch.arange(width, device=centre.device) < degree[:, None],
        slot=slot,
    )


def counts(index: Tensor, count: int) -> Tensor:
    """(count,) how often each of 0 … count − 1 is in ``index``; a GPU would be waited for by ``bincount``."""
    if index.device.type == "cpu":
        return torch.bincount(index, minlength=count)
    return index.new_zeros(count).index_add(0, index, torch.ones_like(index))


def _edges(atoms: FlatAtoms, cutoff: float, pairs_at_once: int) -> tuple[Tensor, Tensor, Tensor]:
    """Centres, neighbours and squared lengths of all edges, sorted by (centre, neighbour)."""
    pos, sample = atoms.pos.detach(), atoms.sample
    count, device = len(sample), pos.device
    sizes = counts(sample, atoms.shape[0])
    starts = sizes.cumsum(0) - sizes
    # A batch is padded to its largest sample or a little more, and its length is known without counting.
    longest = atoms.shape[1] if count else 0
    centres, neighbours, lengths = [], [], []
    for begin, end, low, high in _blocks(count, longest, pairs_at_once):
        rows = torch.arange(begin, end, device=device)
        start, size = starts[sample[rows]], sizes[sample[rows]]
        local = torch.arange(low, high, device=device)
        other = (start[:, None] + local).clamp_max(count - 1)
        # Separate products and sums: |x_i − x_j| and |x_j − x_i| are equal to the last bit, the set symmetric.
        dx, dy, dz = (pos[rows, c, None] - pos[:, c][other] for c in range(3))
        squared = dx * dx + dy * dy + dz * dz
        near = (squared < cutoff * cutoff) & (local < size[:, None]) & (other != rows[:, None])
        row, column = near.nonzero(as_tuple=True)
        centres.append(rows[row])
        neighbours.append(other[row, column])
        lengths.append(squared[row, column])
    return torch.cat(centres), torch.cat(neighbours), torch.cat(lengths)


def _blocks(count: int, longest: int, pairs_at_once: int) -> list[tuple[int, int, int, int]]:
    """(first atom, last, first partner, last) of blocks of at most ``pairs_at_once`` pairs, in reading order."""
    # A molecule wider than the bound gets blocks of one atom: edges are always found sorted by (centre, neighbour).
    wide = max(1, min(longest, pairs_at_once))
    rows = max(1, pairs_at_once // wide)
    return [
        (begin, min(begin + rows, count), low, min(low + wide, longest))
        for begin in range(0, count, rows)
        for low in range(0, longest, wide)
    ]


def _shortest(centre: Tensor, squared: Tensor, count: int, nearest: int) -> Tensor:
    """Indices, ascending, of the ``nearest`` shortest edges of every atom."""
    order = squared.argsort(stable=True)
    order = order[centre[order].argsort(stable=True)]
    return order[_ranked(centre, count)[1] < nearest].sort().values


def _ranked(centre: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(count,) edges of every atom, and (E,) the place of each among those of its atom."""
    degree = counts(centre, count)
    return degree, torch.arange(len(centre), device=centre.device) - (degree.cumsum(0) - degree)[centre]
