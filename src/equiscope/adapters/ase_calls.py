"""How an ASE calculator is asked: anew for every structure, or for many in one call where it can."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from torch import Tensor

from equiscope.adapters import ase_structures as st
from equiscope.adapters.many import MOST_ATOMS, voigt
from equiscope.errors import InputError

# Calculators inside calculators are looked for this deep (a sum holds a mixer, a mixer a list) in short containers.
DEEPEST, MANY = 6, 100
# Structures of which a copy to turn is kept.
KEPT = 4096
# What holds no calculator.
PLAIN = (str, bytes, bool, int, float, type(None), type, np.ndarray, Tensor, torch.nn.Module, Atoms)


class Calculators:
    """An ASE calculator as an :class:`equiscope.adapters.many.Engine`.

    A calculator with ``compute_energy(list of Atoms, compute_forces_and_stresses=…)``, as metatomic's have, answers
    many structures in one call; any other is asked for one after another.
    """

    dtype: torch.dtype | None = None
    device = torch.device("cpu")

    def __init__(self, calculator: Any, fields: Sequence[st.Field] = (), most_atoms: int | None = None):
        self.calculator, self.fields = calculator, fields
        self.name = type(calculator).__name__
        self.implemented = known = getattr(calculator, "implemented_properties", None)
        self.outputs = tuple(o for o in st.OUTPUTS if known is None or o in known)
        self.together = _answers_lists(calculator)
        self._copies: dict[int, tuple[Atoms, Atoms]] = {}
        self.most_atoms = (most_atoms or MOST_ATOMS["cpu"]) if self.together else None

    def features(self, name: str) -> str | None:
        return None

    def answer(self, batch: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, Tensor]:
        structures = self.turned(batch)
        periodic = "stress" not in wanted or all(a.pbc.all() for a in structures)
        if self.together and len(structures) > 1 and periodic:
            return self._answer_of_all(structures, wanted)
        each = [self._answer_of(atoms, wanted) for atoms in structures]
        return {name: torch.cat([one[name] for one in each]) for name in each[0]}

    def turned(self, batch: Mapping[str, Any]) -> list[Atoms]:
        """The structures with positions, cells and fields of the batch."""
        counts = np.bincount(batch["system"].numpy(), minlength=len(batch["structure"]))
        stops = counts.cumsum()
        atom, positions = batch["atom"].numpy(), batch["positions"].numpy()
        in_order = bool((atom == np.arange(len(atom)) - np.repeat(stops - counts, counts)).all())
        made: list[Atoms] = []
        seen: set[int] = set()
        for bare, start, stop, cell in zip(
            batch["structure"], (stops - counts).tolist(), stops.tolist(), batch["cell"].numpy(), strict=True
        ):
            own = atom[start:stop]
            as_it_is = len(own) == len(bare) and (in_order or bool((own == np.arange(len(bare))).all()))
            # Several rotations of one structure in a call are as many structures.
            again = id(bare) in seen
            seen.add(id(bare))
            atoms = bare[own] if not as_it_is else bare.copy() if again else self._copy(bare)
            atoms.cell[:] = cell
            atoms.positions = positions[start:stop]
            made.append(atoms)
        for extra in self.fields:
            values = batch[extra.name].numpy()
            parts = np.split(values, stops[:-1]) if extra.rows == "atom" else values
            for atoms, value in zip(made, parts, strict=True):
                extra.put(atoms, value)
        return made

    def _copy(self, bare: Atoms) -> Atoms:
        """A copy to turn: a new one, or, for calls that answer lists and keep nothing, that of the pass before."""
        if not self.together:
            return bare.copy()
        known = self._copies.get(id(bare))
        if known is None or known[0] is not bare:
            if len(self._copies) > KEPT:
                self._copies.clear()
            known = self._copies[id(bare)] = (bare, bare.copy())
        return known[1]

    def _answer_of(self, atoms: Atoms, wanted: Sequence[str]) -> dict[str, Tensor]:
        # A calculator answers equal structures from its cache, which would hide that it is random.
        for each in _calculators(self.calculator):
            _forget(each)
        atoms.calc = self.calculator
        answer: dict[str, Tensor] = {}
        # The most demanding first, so that calculators which work on demand run once.
        with torch.enable_grad():
            if "stress" in wanted:
                answer["stress"] = _rows([atoms.get_stress(voigt=True, apply_constraint=False)], (1, 6), "stress")
            if "forces" in wanted:
                answer["forces"] = _rows(atoms.get_forces(apply_constraint=False), (len(atoms), 3), "forces")
            if "energy" in wanted:
                answer["energy"] = _rows(atoms.get_potential_energy(), (1,), "energy")
        return answer

    def _answer_of_all(self, structures: list[Atoms], wanted: Sequence[str]) -> dict[str, Tensor]:
        more = "forces" in wanted or "stress" in wanted
        with torch.enable_grad():
            found = self.calculator.compute_energy(structures, compute_forces_and_stresses=more)
        atoms = sum(map(len, structures))
        answer = {}
        if "stress" in wanted:
            tensors = _rows([np.reshape(s, (3, 3)) for s in found["stress"]], (len(structures), 3, 3), "stress")
            answer["stress"] = voigt(tensors)
        if "forces" in wanted:
            answer["forces"] = _rows(np.concatenate(list(found["forces"])), (atoms, 3), "forces")
        if "energy" in wanted:
            answer["energy"] = _rows(found["energy"], (len(structures),), "energy")
        return answer


def _answers_lists(calculator: Any) -> bool:
    many = getattr(calculator, "compute_energy", None)
    return callable(many) and "compute_forces_and_stresses" in inspect.signature(many).parameters


def _calculators(calculator: Any) -> list[Any]:
    """A calculator and those it is made of: sums and mixers ask theirs, which have caches of their own."""
    found, layer, seen = [calculator], [calculator], {id(calculator)}
    for _ in range(DEEPEST):
        inner = [value for holder in layer for value in _held(holder) if not isinstance(value, PLAIN)]
        layer = list({id(value): value for value in inner if id(value) not in seen}.values())
        seen.update(map(id, layer))
        found += [value for value in layer if isinstance(value, BaseCalculator)]
    return found


def _held(holder: Any) -> Iterable[Any]:
    if isinstance(holder, Mapping | list | tuple):
        values = holder.values() if isinstance(holder, Mapping) else holder
        return values if len(values) <= MANY else ()
    return list(getattr(holder, "__dict__", {}).values())


def _forget(calculator: Any) -> None:
    """Empty a calculator's cache; those that ASE's sums are made with have no method for it."""
    if callable(getattr(calculator, "reset", None)):
        calculator.reset()
    elif isinstance(calculator, BaseCalculator):
        calculator.atoms, calculator.results = None, {}


def _rows(values: Any, shape: tuple[int, ...], name: str) -> Tensor:
    array = np.array(values)
    if array.shape != shape and not (shape in ((), (1,)) and array.size == 1):
        raise InputError(f"the calculator's {name} has shape {array.shape}, expected {shape}")
    array = array.reshape(shape)
    return torch.from_numpy(array if array.dtype in (np.float32, np.float64) else array.astype(np.float64))
