"""How a crystal is written down, which is no property of it: its lattice vectors, images of atoms, its supercell.

Lattice vectors are the rows of a cell. Models must make their neighbours themselves: lists made beforehand would have
to change with the cell.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equiscope.decomposition.batches import Batch, DenseBatch
from equiscope.decomposition.ragged import RaggedBatch
from equiscope.decomposition.symmetries.moves import Family, Moved, MoveKey, Values, needs_points, unchanged
from equiscope.decomposition.symmetries.relabelling import Atoms, atom_fields, atoms_of, outputs_back
from equiscope.errors import InputError
from equiscope.symmetry.declaration import Declaration

# A lattice vector so short is none, in the unit of the cell; and so small a singular value of unit vectors is a plane.
SHORT, FLAT = 1e-6, 1e-6


@dataclass(frozen=True)
class Periodic(Family):
    """What families of periodic structures share; for ``cell`` and ``pbc`` see :class:`Lattice`."""

    cell: str = "cell"
    pbc: str = "pbc"

    def declared(self, declaration: Declaration) -> None:
        needs_points(self.name, declaration)
        if self.cell not in declaration.inputs:
            raise InputError(
                f"{self.name} needs the lattice vectors: declare them, inputs={{{self.cell!r}: eq.Input('1o', "
                f"points=False, per='sample')}}, or name the field, cell='…'; inputs are {sorted(declaration.inputs)}"
            )

    def own(self, batch: Batch) -> list[str]:
        """Fields that the family itself knows, none of them of atoms."""
        return [name for name in (self.cell, self.pbc) if name in batch.fields()]

    def cells(self, batch: Batch) -> Tensor:
        """Lattice vectors as rows, (samples, 3, 3) float64."""
        values = batch.fields()[self.cell]
        if values.numel() != 9 * batch.size:
            raise InputError(
                f"cell field {self.cell!r} must hold three lattice vectors a sample ({batch.size}, 3, 3), got "
                f"{tuple(values.shape)}"
            )
        if "edge_index" in batch.fields():
            raise InputError(
                f"{self.name}: the batch has edge_index, neighbours made for this cell: measure a model that makes its "
                "neighbours itself, such as an ASE calculator"
            )
        return values.double().reshape(batch.size, 3, 3)

    def like_cell(self, cells: Tensor, batch: Batch) -> Tensor:
        """Lattice vectors (samples, 3, 3) in the layout and dtype of the batch's own."""
        own = batch.fields()[self.cell]
        return cells.reshape(own.shape).to(own.dtype)

    def periodic(self, batch: Batch) -> list[tuple[bool, ...]]:
        """Which directions of each sample are periodic.

        Raises:
            InputError: if a sample has none, or a periodic direction without a lattice vector of its own.
        """
        cells, fields = self.cells(batch), batch.fields()
        flags: list[tuple[bool, ...]] = [(True,) * 3] * batch.size
        if self.pbc in fields:
            flags = [tuple(map(bool, row)) for row in fields[self.pbc].reshape(batch.size, 3).tolist()]
        lacking = [
            place
            for place, (flag, cell) in enumerate(zip(flags, cells.cpu().numpy(), strict=True))
            if not any(flag) or not spanning(cell[np.array(flag)])
        ]
        if lacking:
            raise InputError(
                f"{self.name} is of periodic structures: samples {lacking[:5]} of {batch.size} in a batch have no "
                "periodic direction, or one without a lattice vector of its own (none, or in the plane of the others)"
            )
        return flags


def spanning(vectors: NDArray[np.float64]) -> bool:
    """Whether lattice vectors (n, 3) are none of them zero, and span as many dimensions."""
    sizes = np.linalg.norm(vectors, axis=1, keepdims=True)
    return bool((sizes >= SHORT).all()) and bool(np.linalg.svd(vectors / sizes, compute_uv=False)[-1] >= FLAT)


@functools.cache
def unimodular(periodic: tuple[bool, ...]) -> NDArray[np.float64]:
    """Integer matrices of determinant 1 with entries -1, 0, 1 that mix periodic directions alone, (n, 3, 3)."""
    free = [(i, j) for i in range(3) for j in range(3) if periodic[i] and periodic[j]]
    entries = np.array(list(itertools.product((-1.0, 0.0, 1.0), repeat=len(free))))
    made = np.tile(np.diag([0.0 if p else 1.0 for p in periodic]), (len(entries), 1, 1))
    for column, (i, j) in enumerate(free):
        made[:, i, j] = entries[:, column]
    return made[np.linalg.det(made).round() == 1]


@dataclass(frozen=True)
class Lattice(Periodic):
    """Another choice of lattice vectors and of atoms' images: a -> M a, x -> x + n a. No output may change.

    M is uniform among the integer matrices of determinant 1 with entries -1, 0, 1 (3,480 with three periodic
    directions), n uniform in {-1, 0, 1} for each atom and periodic direction.

    Attributes:
        cell: the declared input that holds the lattice vectors as rows, (samples, 3, 3).
        pbc: boolean field (samples, 3), which directions are periodic; all of them where the batch has none.
        images: False leaves the atoms where they are.
    """

    images: bool = True
    name = "lattice"

    def move(self, batch: Batch, declaration: Declaration, draw: MoveKey, places: Sequence[int]) -> Moved:
        flags, cells, atoms = self.periodic(batch), self.cells(batch), atoms_of(batch, declaration)
        fields, owner = batch.fields(), atoms.sample.cpu().numpy()
        chosen, images = np.empty((batch.size, 3, 3)), np.zeros((len(owner), 3))
        for sample, random in enumerate(draw.generators()):
            known = unimodular(flags[sample])
            chosen[sample] = known[random.integers(len(known))]
            own = owner == sample
            images[own] = random.integers(-1, 2, (int(own.sum()), 3)) * np.array(flags[sample])
        changed = {self.cell: self.like_cell(torch.from_numpy(chosen).to(cells.device) @ cells, batch)}
        if self.images:
            steps = torch.from_numpy(images).to(cells.device) * atoms.real[:, None]
            shifts = torch.einsum("ni,nij->nj", steps, cells[atoms.sample])
            changed |= {name: shifted(fields[name], shifts, atoms) for name in declaration.points}
        return Moved(batch.with_fields(changed), unchanged)


def shifted(values: Tensor, shifts: Tensor, atoms: Atoms) -> Tensor:
    """Positions with every entry shifted by its own vector (entries, 3), in their dtype."""
    flat = atoms.flat(values)
    wide = shifts.reshape(len(shifts), *[1] * (flat.ndim - 2), 3)
    return atoms.like((flat.double() + wide).to(values.dtype))


@dataclass(frozen=True)
class Supercell(Periodic):
    """The same crystal in a larger cell: per-atom outputs of each copy must be those of the atom, others per cell.

    Of a supercell one copy of the atoms is taken at random, so that what differs between copies counts.

    Attributes:
        cell, pbc: as for :class:`Lattice`.
        shapes: repeats along the lattice vectors, the first (1, 1, 1); by default that, and each periodic direction
            doubled.
        extensive: per-sample outputs that grow with the number of atoms (a total energy), divided by the copies. Others
            must not change (an energy per atom, a stress).
        fields: fields with an axis of atoms, as for :class:`Permutation`.
    """

    shapes: Sequence[Sequence[int]] | None = None
    extensive: Sequence[str] = ()
    fields: Sequence[str] | None = None
    name = "supercell"

    def __post_init__(self) -> None:
        for shape in self.shapes or ():
            whole = len(shape) == 3 and all(isinstance(n, int) and n >= 1 for n in shape)
            if not whole:
                raise InputError(f"a supercell is three whole numbers of repeats such as (2, 1, 1), got {shape!r}")
        if self.shapes is not None and len({tuple(s) for s in self.shapes}) < 2:
            raise InputError(f"supercell needs two shapes or more to be compared, got {self.shapes!r}")

    def declared(self, declaration: Declaration) -> None:
        super().declared(declaration)
        wrong = [name for name in self.extensive if name not in declaration.outputs]
        if wrong:
            raise InputError(f"extensive={wrong} are no outputs; they are {sorted(declaration.outputs)}")

    def size(self, batch: Batch | None, declaration: Declaration) -> int:
        return len(self._shapes(batch)) if batch is not None or self.shapes else 4

    def _shapes(self, batch: Batch | None) -> list[tuple[int, ...]]:
        if self.shapes is not None:
            return [tuple(shape) for shape in self.shapes]
        assert batch is not None
        flags = set(self.periodic(batch))
        if len(flags) > 1:
            raise InputError(
                f"supercell: the samples of a batch are periodic in different directions, {sorted(flags)}: give "
                "batches of one kind, or the shapes, eq.symmetries.Supercell(shapes=[(1, 1, 1), (2, 1, 1)])"
            )
        doubled = [tuple(2 if i == axis else 1 for i in range(3)) for axis, on in enumerate(flags.pop()) if on]
        return [(1, 1, 1), *doubled]

    def move(self, batch: Batch, declaration: Declaration, draw: MoveKey, places: Sequence[int]) -> Moved:
        if not isinstance(batch, DenseBatch | RaggedBatch):
            raise InputError(f"supercell: batches must be dicts of tensors, got {type(batch).__name__}")
        if len(set(places)) > 1:
            raise InputError(
                "supercell after another symmetry needs batches of one sample each: name it first, or give such batches"
            )
        shape, flags = self._shapes(batch)[places[0]], self.periodic(batch)
        wrong = [i for i, flag in enumerate(flags) if any(n > 1 and not p for n, p in zip(shape, flag, strict=True))]
        if wrong:
            raise InputError(f"supercell {shape} repeats samples {wrong[:5]} along a direction that is not periodic")
        cells, atoms, fields = self.cells(batch), atoms_of(batch, declaration), batch.fields()
        blocks = torch.tensor(list(itertools.product(*map(range, shape))), dtype=torch.float64, device=cells.device)
        count, entries = len(blocks), len(atoms.sample)
        base = torch.arange(entries, device=cells.device).repeat(count)
        # Samples stay together, and in each the copies come one after another.
        sort = atoms.sample[base].argsort(stable=True)
        order, block = base[sort], torch.div(sort, entries, rounding_mode="floor")
        copies = torch.tensor([int(random.integers(count)) for random in draw.generators()], device=cells.device)
        where = sort.argsort()[copies[atoms.sample] * entries + torch.arange(entries, device=cells.device)]
        own = atom_fields(batch, declaration, atoms, self.fields, self.own(batch))
        changed = {name: atoms.taken(fields[name], order) for name in own}
        sample = atoms.sample[order]
        shifts = torch.einsum("ni,nij->nj", blocks[block], cells[sample]) * atoms.real[order][:, None]
        changed |= {name: shifted(changed[name], shifts, atoms) for name in declaration.points}
        repeats = torch.tensor(shape, dtype=torch.float64, device=cells.device)[:, None]
        changed[self.cell] = self.like_cell(cells * repeats, batch)
        if "ptr" in fields and not batch.dense:
            changed["ptr"] = fields["ptr"] * count

        def back(values: Values, moved: Batch) -> dict[str, Tensor]:
            found = outputs_back(values, moved, batch, declaration, where)
            return {k: v.double() / (count if k in self.extensive else 1) for k, v in found.items()}

        return Moved(batch.with_fields(changed), back)
