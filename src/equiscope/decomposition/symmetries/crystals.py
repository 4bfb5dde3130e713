"""The symmetry a crystal has itself: rotations and shifts that bring it onto itself, found by spglib.

An operation x -> W x + w in fractional coordinates is an isometry Q x + t with Q the orthogonal matrix nearest to
A W A^-1 (columns of A the lattice vectors). The moved crystal is written down as the one before: lattice vectors
M (a Q^T) with M = W^-T, each atom at the image nearest to the place it comes onto, and numbered as the atom there. So
the model is asked for nearly the same numbers again, and an answer that does not have the crystal's symmetry, such as
a force on an atom that must have none, shows as a variance. An operation moves by an isometry, also where the crystal
is symmetric only within ``symprec``: models without error show none.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equiscope.decomposition.batches import Batch
from equiscope.decomposition.orbit import rotated, rotated_back
from equiscope.decomposition.ragged import batch_of
from equiscope.decomposition.symmetries.lattices import Periodic
from equiscope.decomposition.symmetries.moves import Moved, MoveKey, Values
from equiscope.decomposition.symmetries.relabelling import atom_fields, atoms_of, field_of, outputs_back
from equiscope.errors import InputError
from equiscope.symmetry.declaration import Declaration

Array = NDArray[np.float64]
# Passes of a batch in which crystals of different groups are measured together, at most.
MOST = 768


@dataclass(frozen=True)
class Operations:
    """Those of one crystal of n atoms.

    Attributes:
        name: of its space group.
        turns: (k, 3, 3) the isometries' orthogonal parts Q; shifts: (k, 3) their t.
        choices: (k, 3, 3) the lattice vectors taken after a turn.
        places: (k, n) where each atom comes to stand; images: (k, n, 3) the lattice vectors it is taken back by.
    """

    name: str
    turns: Array
    shifts: Array
    choices: Array
    places: NDArray[np.int64]
    images: Array

    def __len__(self) -> int:
        return len(self.turns)


def operations(cell: Array, positions: Array, numbers: Sequence[int], symprec: float, point: bool) -> Operations:
    """The symmetry operations of a crystal; with ``point`` one for each rotation among them.

    Args:
        cell: (3, 3) lattice vectors as rows; positions: (n, 3) in its unit; numbers: (n,) species.

    Raises:
        InputError: without spglib, or where it finds none.
    """
    return _operations(cell.tobytes(), positions.tobytes(), tuple(numbers), symprec, point)


@functools.lru_cache(maxsize=1024)
def _operations(cell_: bytes, positions_: bytes, numbers: tuple[int, ...], symprec: float, point: bool) -> Operations:
    cell, positions = np.frombuffer(cell_).reshape(3, 3), np.frombuffer(positions_).reshape(-1, 3)
    scaled = positions @ np.linalg.inv(cell)
    name, matrices, shifts = _found(cell, scaled, numbers, symprec)
    if point:
        first = np.unique(matrices.reshape(len(matrices), 9), axis=0, return_index=True)[1]
        matrices, shifts = matrices[np.sort(first)], shifts[np.sort(first)]
    if len(matrices) < 2:
        raise InputError(
            f"the crystal has space group {name} with the identity alone within symprec={symprec:g}: there is nothing "
            "to measure; leave it out, or allow more, symprec=0.01"
        )
    columns = cell.T
    turned = columns @ matrices @ np.linalg.inv(columns)
    left, _, right = np.linalg.svd(turned)
    species, places, images = np.asarray(numbers), [], []
    for matrix, shift in zip(matrices, shifts, strict=True):
        moved = scaled @ matrix.T + shift
        apart = moved[:, None] - scaled[None]
        far = np.linalg.norm((apart - apart.round()) @ cell, axis=-1)
        where = np.where(species[:, None] == species[None], far, np.inf).argmin(1)
        if len(np.unique(where)) < len(where):
            raise InputError(
                f"space group {name}: an operation brings two atoms onto one; atoms lie closer than symprec={symprec:g}"
            )
        places.append(where)
        images.append(apart[np.arange(len(where)), where].round())
    choices = np.linalg.inv(matrices.swapaxes(1, 2)).round()
    return Operations(name, left @ right, shifts @ cell, choices.astype(np.float64), np.array(places), np.array(images))


def _found(cell: Array, scaled: Array, numbers: Sequence[int], symprec: float) -> tuple[str, Array, Array]:
    try:
        import spglib
    except ImportError as error:
        raise InputError(
            f"space groups are found by spglib, which is not installed ({error}): pip install 'equiscope[crystals]'"
        ) from error
    try:
        found = spglib.get_symmetry_dataset((cell.tolist(), scaled.tolist(), list(numbers)), symprec=symprec)
    except Exception:
        # Newer releases raise where older ones return None.
        found = None
    if found is None:
        raise InputError(
            f"spglib finds no space group of a crystal of {len(numbers)} atoms at symprec={symprec:g}: do two of its "
            "atoms coincide?"
        )
    name = f"{found.international} ({found.number})"
    return name, np.asarray(found.rotations, dtype=np.float64), np.asarray(found.translations, dtype=np.float64)


@dataclass(frozen=True)
class SpaceGroup(Periodic):
    """All operations of each crystal's own space group: exact, since the group is finite for a cell.

    Outputs must follow: equivalent atoms have turned forces, an atom on a site of high symmetry has none, a stress is
    as isotropic as the crystal. Operations that are no rotations (mirrors, inversions) are among them.

    Attributes:
        cell, pbc: as for :class:`Lattice`.
        species: field (samples, atoms) or (atoms,) of whole numbers that tell atoms apart.
        symprec: how far atoms may be from their symmetric places, in the unit of the positions.
        fields: fields with an axis of atoms, as for :class:`Permutation`.
    """

    species: str = "numbers"
    symprec: float = 1e-3
    fields: Sequence[str] | None = None
    name = "space group"
    whole = True
    point = False

    def declared(self, declaration: Declaration) -> None:
        super().declared(declaration)
        if len(declaration.points) > 1 or any(spec.points for spec in declaration.outputs.values()):
            raise InputError(f"{self.name} takes one input of positions and no output of positions")

    def of(self, batch: Batch, declaration: Declaration) -> list[Operations]:
        """The operations of each sample of a batch."""
        mixed = [i for i, flag in enumerate(self.periodic(batch)) if not all(flag)]
        if mixed:
            raise InputError(
                f"{self.name} is of crystals, periodic in three directions; samples {mixed[:5]} of a batch are not"
            )
        atoms = atoms_of(batch, declaration)
        species = atoms.flat(field_of(batch, self.species, f"{self.name}: ")).reshape(len(atoms.sample), -1)[:, 0]
        places = atoms.flat(batch.fields()[declaration.points[0]]).double().cpu().numpy()
        owner, real, kinds = (v.cpu().numpy() for v in (atoms.sample, atoms.real, species))
        cells, found = self.cells(batch).cpu().numpy(), []
        for sample, cell in enumerate(cells):
            own = (owner == sample) & real
            known = np.ascontiguousarray(cell), np.ascontiguousarray(places[own]), kinds[own].tolist()
            found.append(operations(*known, self.symprec, self.point))
        return found

    def size(self, batch: Batch | None, declaration: Declaration) -> int:
        if batch is None:
            return 2
        sizes = {len(one) for one in self.of(batch, declaration)}
        every = math.lcm(*sizes)
        if every > MOST:
            raise InputError(
                f"{self.name}: crystals of {sorted(sizes)} operations in one batch need {every} passes each: give "
                "crystals of different groups in batches of their own"
            )
        return every

    def move(self, batch: Batch, declaration: Declaration, draw: MoveKey, places: Sequence[int]) -> Moved:
        found = draw.once("operations", lambda: self.of(batch, declaration))
        atoms, cells = atoms_of(batch, declaration), self.cells(batch)
        device, owner = cells.device, atoms.sample.cpu().numpy()
        real, where, images = atoms.real.cpu().numpy(), np.arange(len(owner)), np.zeros((len(owner), 3))
        turns, shifts, choices = np.empty((batch.size, 3, 3)), np.empty((batch.size, 3)), np.empty((batch.size, 3, 3))
        for sample, one in enumerate(found):
            number, own = places[sample] % len(one), np.flatnonzero((owner == sample) & real)
            turns[sample], shifts[sample], choices[sample] = (x[number] for x in (one.turns, one.shifts, one.choices))
            where[own], images[own] = own[one.places[number]], one.images[number]
        turn, shift, choice, image = (torch.from_numpy(x).to(device) for x in (turns, shifts, choices, images))
        there = torch.from_numpy(where).to(device)
        points, fields = declaration.points[0], batch.fields()
        cell = choice @ (cells @ turn.mT)
        flat = atoms.flat(fields[points]).double()
        moved = torch.einsum("nij,nj->ni", turn[atoms.sample], flat) + shift[atoms.sample]
        moved = moved - torch.einsum("ni,nij->nj", image, cell[atoms.sample])
        moved = torch.where(atoms.real[:, None], moved, flat).to(fields[points].dtype)
        turned = batch_of(rotated(batch, turn, declaration), declaration)
        changed = dict(turned.fields()) | {points: atoms.like(moved)}
        changed[self.cell] = self.like_cell(cell, batch)
        order = there.argsort()
        for name in atom_fields(batch, declaration, atoms, self.fields, self.own(batch)):
            changed[name] = atoms.taken(changed[name], order)

        def back(values: Values, after: Batch) -> dict[str, Tensor]:
            return rotated_back(outputs_back(values, after, batch, declaration, there), batch, turn, declaration)

        return Moved(batch.with_fields(changed), back)


@dataclass(frozen=True)
class PointGroup(SpaceGroup):
    """One operation for each rotation, inversion and mirror of a crystal's space group, the shifts among them left out.

    At most 48, where the space group of a conventional or larger cell has several times as many.

    Attributes:
        cell, pbc, species, symprec, fields: as for :class:`SpaceGroup`.
    """

    name = "point group"
    point = True
