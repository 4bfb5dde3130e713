"""Many structures of different sizes in one call of a model: the batch they make, and what is declared of it.

A batch is a dict of tensors in which the atoms of all structures stand one after another
(:mod:`equiscope.decomposition.ragged`):

    positions (atoms, 3), cell (structures, 3, 3) with lattice vectors as rows, numbers (atoms,), pbc (structures, 3),
    atom (atoms,) their places in ``structure``, system (atoms,) the structure of each atom, id (structures,), cluster,
    structure (``Atoms``), and labels

Each structure turns by its own rotation, positions and lattice vectors together. What answers such a batch is an
:class:`Engine`: the doors of ASE, metatomic and torch-sim are one each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from equiscope.adapters import ase_structures as st
from equiscope.symmetry.declaration import Declaration, Input, Output

# Atoms of one call: beyond these a CPU gains nothing (large tensors are mapped anew), and a GPU of today is busy.
MOST_ATOMS = {"cpu": 1280, "cuda": 16384}
DTYPES = {"float32": torch.float32, "float64": torch.float64}
TURN = "turn"
"""Field with the images of the three axes as rows, R^T for a structure that was turned by R, (structures, 3, 3)."""
_IRREPS = {"energy": ("0e", "sample"), "forces": ("1o", "atom"), "stress": ("voigt", "sample")}
_ROWS = {"numbers": "atom", "atom": "atom", "system": "atom", "pbc": "sample", "id": "sample", "cluster": "sample",
         "structure": "sample"}  # fmt: skip


class Engine(Protocol):
    """What answers many structures in one call.

    Attributes:
        name: of the model, for people.
        outputs: what it answers: energy, forces, stress, the same with ``non_conservative_`` before it.
        dtype: in which it computes; None where only its answers say.
        device: where it computes.
        most_atoms: of one call; None for one structure a call.
    """

    name: str
    outputs: tuple[str, ...]
    dtype: torch.dtype | None
    device: torch.device
    most_atoms: int | None

    def features(self, name: str) -> str | None:
        """Whether a further output has rows for "atom" or "sample"; None if there is no such output."""

    def answer(self, batch: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, Tensor]:
        """energy (structures,), forces (atoms, 3), stress (structures, 6), in eV and Å; stress as xx yy zz yz xz xy."""


def declared(
    outputs: Sequence[str],
    labels: Iterable[str] = (),
    fields: Sequence[st.Field] = (),
    features: Mapping[str, str] | None = None,
    weights: Mapping[str, float] | None = None,
    center: str = "origin",
    group: str = "SO3",
    turns: bool = False,
) -> Declaration:
    """What turns in a batch of structures, and how the outputs turn back.

    Args:
        outputs: of an engine. labels: those that have one, in the field ``"NAME label"``.
        fields: further fields of the structures that turn.
        features: outputs that are features, judged as invariants with weight 0, and their rows, "atom" or "sample".
        weights: of energy, forces and stress in the combined loss; 1 where not said.
        center, group: as for :func:`equiscope.measure`. turns: the batches keep how each structure was turned.
    """
    labels, features, weights = set(labels), features or {}, weights or {}
    made = {}
    for name in outputs:
        irreps, per = _IRREPS.get(st.kind(name), ("0e", features.get(name, "atom")))
        weight = 0.0 if name in features else weights.get(st.kind(name), 1.0)
        made[name] = Output(irreps, f"{name} label" if name in labels else None, weight=weight, per=per)
    return Declaration(
        inputs={
            "positions": Input("1o", points=True),
            "cell": Input("1o", points=False, per="sample"),
            **{f.name: Input(f.irreps, points=False, per=f.rows) for f in fields},
            **({TURN: Input("1o", points=False, per="sample")} if turns else {}),
        },
        outputs=made,
        center=center,
        group=group,
        clusters="cluster",
        ids="id",
        batch="system",
        per=_ROWS,
    )


def joined(
    indices: Sequence[int],
    structures: Sequence[Atoms],
    plan: st.AsePlan,
    clusters: Sequence[Any],
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    turns: bool = False,
) -> dict[str, Any]:
    """The batch of some structures, which must have the same outputs.

    Args:
        indices: their ids. structures, clusters: one each. plan: labels, fields and units.
        dtype: of the fields that turn; labels are float64.
        turns: keep how each structure was turned, in the field :data:`TURN`.
    """
    bare = [st.in_angstrom(atoms, plan.units) for atoms in structures]
    counts = torch.tensor([len(atoms) for atoms in bare], device="cpu")
    batch: dict[str, Any] = {
        "positions": _tensor([a.positions for a in bare]).to(device, dtype),
        "cell": _tensor([np.asarray(a.cell)[None] for a in bare]).to(device, dtype),
        "numbers": torch.from_numpy(np.concatenate([a.numbers for a in bare]).astype(np.int64)).to(device),
        "atom": torch.from_numpy(np.concatenate([np.arange(len(a)) for a in bare])).to(device),
        "pbc": torch.from_numpy(np.stack([a.pbc for a in bare])).to(device),
        "system": torch.arange(len(bare), device="cpu").repeat_interleave(counts).to(device),
        "id": torch.tensor(list(indices), device="cpu").to(device),
        "cluster": list(clusters),
        "structure": bare,
    }
    if turns:
        batch[TURN] = torch.eye(3, dtype=torch.float64, device=device).repeat(len(bare), 1, 1)
    for extra in plan.fields:
        values = [extra.value(a) for a in bare]
        batch[extra.name] = _tensor(values if extra.rows == "atom" else [v[None] for v in values]).to(device, dtype)
    for name in plan.outputs_of(bare[0]):
        if name in plan.labels:
            kind = st.kind(name)
            found = [st.label(a, kind, plan.labels[name], plan.units) for a in structures]
            if kind == "energy" and plan.per_atom:
                found = [value / len(a) for value, a in zip(found, bare, strict=True)]
            batch[f"{name} label"] = _tensor(found if kind == "forces" else [v[None] for v in found]).to(device)
    return batch


def windows(structures: Sequence[Atoms], most_atoms: int | None) -> Iterator[list[int]]:
    """Places of structures in order, as many at a time as have ``most_atoms`` atoms, or one."""
    window: list[int] = []
    atoms = 0
    for index, one in enumerate(structures):
        if window and (most_atoms is None or atoms + len(one) > most_atoms):
            yield window
            window, atoms = [], 0
        window.append(index)
        atoms += len(one)
    if window:
        yield window


def sizes(batch: Mapping[str, Any]) -> Tensor:
    """Atoms of each structure, (structures,)."""
    return torch.bincount(batch["system"], minlength=len(batch["pbc"]))


def voigt(stress: Tensor) -> Tensor:
    """Stresses (structures, 3, 3) as xx yy zz yz xz xy, (structures, 6), of the symmetric part."""
    even = (stress + stress.mT) / 2
    return torch.stack([even[:, 0, 0], even[:, 1, 1], even[:, 2, 2], even[:, 1, 2], even[:, 0, 2], even[:, 0, 1]], -1)


def _tensor(values: Sequence[Any]) -> Tensor:
    return torch.from_numpy(np.concatenate(values).astype(np.float64))
