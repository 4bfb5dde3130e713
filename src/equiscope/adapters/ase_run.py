"""Measure an ASE calculator on one structure after another, each a batch of the measure, and pool them by kind."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from torch import Tensor

from equiscope import labels
from equiscope.adapters import ase_structures as st
from equiscope.adapters.ase_result import FAILED, MEASURED, SKIPPED, AseResult, StructureRow
from equiscope.decomposition.collect import Collector
from equiscope.decomposition.noise import Known
from equiscope.decomposition.plan import Plan, make_plan
from equiscope.decomposition.pool import summarise
from equiscope.decomposition.result import Result
from equiscope.decomposition.samples import Samples
from equiscope.errors import InputError, ModelError, RandomModelError
from equiscope.symmetry.declaration import Declaration, Input, Output

# Calculators inside calculators are looked for this deep (a sum holds a mixer, a mixer a list) in short containers.
DEEPEST, MANY = 6, 100
# What holds no calculator.
PLAIN = (str, bytes, bool, int, float, type(None), type, np.ndarray, Tensor, torch.nn.Module, Atoms)


@dataclass(frozen=True)
class AseSettings:
    """Everything that is the same for all structures: calculator, plan, rotations, weights."""

    calculator: Any
    plan: st.AsePlan
    rotations: str
    cosets: int | None
    seed: int
    center: str
    group: str
    noise_samples: int
    weights: Mapping[str, float]
    precision: str = "auto"

    def declaration(self, outputs: Sequence[str]) -> Declaration:
        """What rotates, for structures that have these outputs."""
        irreps = {"energy": ("0e", "sample"), "forces": ("1o", "atom"), "stress": ("voigt", "sample")}
        return Declaration(
            inputs={
                "positions": Input("1o", points=True),
                "cell": Input("1o", points=False),
                **{f.name: Input(f.irreps, points=False) for f in self.plan.fields},
            },
            outputs={
                name: Output(
                    irreps[name][0],
                    target=f"{name} label" if name in self.plan.labels else None,
                    weight=self.weights[name],
                    per=irreps[name][1],
                )
                for name in outputs
            },
            center=self.center,
            group=self.group,
            clusters="cluster",
            ids="id",
        )

    def forward(self, calculator: Any, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Run the calculator on the structure of a rotated batch."""
        atoms = batch["structure"][0].copy()
        atoms.set_cell(batch["cell"][0].numpy(), scale_atoms=False)
        atoms.positions = batch["positions"][0].numpy()
        for extra in self.plan.fields:
            extra.put(atoms, batch[extra.name][0].numpy())
        # A calculator answers equal structures from its cache, which would hide that it is random.
        for each in _calculators(calculator):
            _forget(each)
        atoms.calc = calculator
        wanted = self.plan.outputs_of(atoms)
        answer: dict[str, Tensor] = {}
        # The most demanding first, so that calculators which work on demand run once.
        with torch.enable_grad():
            if "stress" in wanted:
                answer["stress"] = _rows(atoms.get_stress(voigt=True, apply_constraint=False), (6,), "stress")
            if "forces" in wanted:
                answer["forces"] = _rows(atoms.get_forces(apply_constraint=False), (len(atoms), 3), "forces")
            if "energy" in wanted:
                energy = _rows(atoms.get_potential_energy(), (), "energy")
                answer["energy"] = energy / len(atoms) if self.plan.per_atom else energy
        return answer


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


def _precision(answer: Mapping[str, Tensor]) -> torch.dtype:
    """Single precision if a tensor among the answers is; energies come as Python floats from any calculator."""
    return torch.float32 if any(v.dtype == torch.float32 for v in answer.values()) else torch.float64


def _rows(values: Any, shape: tuple[int, ...], name: str) -> Tensor:
    array = np.array(values)
    if array.shape != shape and not (shape == () and array.size == 1):
        raise InputError(f"the calculator's {name} has shape {array.shape}, expected {shape}")
    array = array.reshape(shape)
    return torch.from_numpy(array if array.dtype in (np.float32, np.float64) else array.astype(np.float64))[None]


@dataclass
class _Kind:
    """Structures of one kind: their outputs and the figures of each."""

    outputs: tuple[str, ...]
    samples: list[Samples] = field(default_factory=list)
    known: Known = field(default_factory=Known)


class AseRun:
    """Measures one structure after another and pools them at the end."""

    def __init__(self, design: AseSettings):
        self._design = design
        # Made here, so that a wrong centre, group, weight or design is an error of the call and not of every structure.
        self._plan = self._plan_of(design.plan.outputs)
        self._kinds: dict[str, _Kind] = {}
        self._calls = 0
        self._dtype = {"float32": torch.float32, "float64": torch.float64}.get(design.precision)
        self._error: Exception | None = None
        self.rows: list[StructureRow] = []

    def _plan_of(self, outputs: Sequence[str]) -> Plan:
        """The plan of structures that have these outputs."""
        design = self._design
        declaration = design.declaration(outputs)
        return make_plan(declaration, design.forward, design.rotations, design.cosets, design.seed)

    def structure(self, index: int, atoms: Atoms, cluster: Any, on_error: str) -> StructureRow:
        """Measure one structure; whatever goes wrong with it alone becomes a row too."""
        start = time.perf_counter()
        about: dict[str, Any] = {
            "id": index,
            "name": str(atoms.info.get("name", "")),
            "formula": st.formula(atoms),
            "atoms": len(atoms),
            "pbc": st.pbc_name(atoms),
            "kind": self._kind_of(atoms),
        }
        try:
            remark = st.check(atoms)
            values = self._measure(index, atoms, cluster)
            status, message = (MEASURED, "") if values else (SKIPPED, "no periodic cell with a volume, so no stress")
        except RandomModelError as error:
            raise RandomModelError(f"structure {index} ({about['formula']}): {error}") from error
        except Exception as error:
            if on_error == "raise":
                raise
            self._error = self._error or error
            values, remark, status = {}, "", FAILED
            own = error.__cause__ if isinstance(error, ModelError) else error
            message = " ".join(f"{type(own).__name__}: {own}".split())
        row = StructureRow(
            **about, status=status, values=values, seconds=time.perf_counter() - start, remark=remark, message=message
        )
        self.rows.append(row)
        return row

    def _kind_of(self, atoms: Atoms) -> str:
        if not atoms.pbc.any():
            return "non-periodic"
        lacks = "stress" in self._design.plan.outputs and not st.has_stress(atoms)
        return "periodic without volume" if lacks else "periodic"

    def _measure(self, index: int, atoms: Atoms, cluster: Any) -> dict[str, float]:
        design = self._design
        outputs = design.plan.outputs_of(atoms)
        if not outputs:
            return {}
        kind = self._kinds.setdefault(self._kind_of(atoms), _Kind(outputs))
        collector = Collector(design.calculator, self._plan_of(outputs))
        # One collector a structure, so that one which fails half-way leaves nothing behind.
        collector.known = kind.known
        try:
            bare = st.in_angstrom(atoms, design.plan.units)
            if self._dtype is None:
                probe = st.batch_of(index, atoms, bare, design.plan, cluster)
                self._dtype = _precision(collector.caller(design.calculator, probe))
            batch = st.batch_of(index, atoms, bare, design.plan, cluster, self._dtype)
            try:
                collector.run(batch, design.noise_samples)
            except ModelError as error:
                self._explain(batch, error.__cause__)
                raise
        finally:
            self._calls += collector.caller.calls
        kind.samples += collector.parts
        return _values(collector.parts[-1], design.plan.labels)

    def _explain(self, batch: Mapping[str, Any], error: BaseException | None) -> None:
        """Say so if the calculator failed on a turned copy alone; anything else stays the error that it is."""
        try:
            self._design.forward(self._design.calculator, batch)
        except Exception:
            return
        raise InputError(
            f"on a turned copy the calculator raises {type(error).__name__}: {error}; as given it answers. If it needs "
            "a cell of standard orientation, turn cell and positions into it inside the calculator, and results back"
        ) from error

    def result(self, structures: Sequence[Atoms]) -> AseResult:
        """Everything measured, pooled.

        Raises:
            InputError: if nothing could be measured, with the first reason.
        """
        kinds = {name: kind for name, kind in self._kinds.items() if kind.samples}
        if not kinds:
            first = next(r for r in self.rows if r.message)
            raise InputError(
                f"none of the {len(self.rows)} structures could be measured; structure {first}: {first.message}"
            ) from self._error
        shared = [o for o in self._design.plan.outputs if all(o in k.outputs for k in kinds.values())]
        results = {name: self._pool([kind], kind.outputs) for name, kind in kinds.items()}
        if len(kinds) > 1 and shared:
            results = {"all": self._pool(list(kinds.values()), shared), **results}
        plan = self._design.plan
        fixed = st.not_rotated(structures, plan.fields, plan.labels.values())
        return AseResult(
            results=results,
            rows=tuple(self.rows),
            calculator=type(self._design.calculator).__name__,
            outputs=plan.outputs,
            labels=dict(plan.labels),
            energy_per_atom=plan.per_atom,
            units=plan.units.describe(),
            rotated=("positions", "cell", *(f.name for f in plan.fields)),
            not_rotated=fixed,
            notes=tuple(self._notes(structures, results, fixed)),
        )

    def _pool(self, kinds: Sequence[_Kind], outputs: Sequence[str]) -> Result:
        """All structures of some kinds, in the order of their ids."""
        plan, settings = self._plan_of(outputs), self._plan.design.described(self._calls)
        parts = sorted((part for kind in kinds for part in kind.samples), key=lambda part: part.ids)
        last = max(kinds, key=lambda kind: kind.samples[-1].ids).known
        known = replace(last, stored=max(kind.known.stored for kind in kinds))
        return summarise(Samples.cat(parts, outputs), plan, known, settings, [])

    def _notes(self, structures: Sequence[Atoms], results: Mapping[str, Result], fixed: Sequence[str]) -> list[str]:
        notes = []
        if fixed:
            notes.append(
                f"structure fields that were not rotated: {', '.join(fixed)}; if the calculator reads one as a vector "
                "or tensor, say rotate={'name': '1o'}"
            )
        for output, source in self._design.plan.labels.items():
            if meaning := labels.kind(output, source):
                notes.append(f"label {source!r} is taken as {meaning}: {labels.REMARKS[meaning]}")
        if any(a.constraints for a in structures):
            notes.append("constraints were left out: forces are the calculator's own")
        if "stress" in self._design.plan.outputs:
            count = sum(1 for r in self.rows if r.status == MEASURED and "stress_rms" in r.values)
            measured = sum(r.status == MEASURED for r in self.rows)
            if count < measured:
                notes.append(f"stress was measured on {count} of {measured} structures: the others have no volume")
        if self._dtype == torch.float32:
            notes.append("the calculator works in single precision: positions and cells are handed over in float32")
        remarks = [str(r.id) for r in self.rows if r.remark]
        if remarks:
            notes.append(f"left-handed cells: structures {', '.join(remarks[:10])}; they stay left-handed when turned")
        return [*notes, *_shared_notes(results, bool(self._design.plan.labels))]


def _shared_notes(results: Mapping[str, Result], labelled: bool) -> list[str]:
    """The notes of the Results, each once, naming the kinds it holds for where it does not hold for all."""
    kinds: dict[str, list[str]] = {}
    for kind, result in results.items():
        for note in result.notes:
            # Noise is told output by output, and an interval belongs to a percent.
            told = note.startswith("not distinguishable") or (note.startswith("fewer than two") and not labelled)
            if not told:
                kinds.setdefault(note, []).append(kind)
    return [note if len(names) == len(results) else f"{', '.join(names)}: {note}" for note, names in kinds.items()]


def _values(samples: Samples, labels: Mapping[str, str]) -> dict[str, float]:
    """One structure's columns."""
    values: dict[str, float] = {}
    for name, own in samples.figures.items():
        equivariance, square, total = float(own.equivariance), float(own.square), float(own.total)
        values[f"{name}_rms"] = math.sqrt(max(equivariance, 0.0))
        values[f"{name}_relative"] = equivariance / square if square > 0 else math.nan
        if name in labels:
            values[f"{name}_percent"] = 100 * equivariance / total if total > 0 else math.nan
            values[f"{name}_total"] = total
    return values
