"""Measure an engine on structures, as many at a time as it takes in one call, and pool them by kind."""

from __future__ import annotations

import copy
import functools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from ase import Atoms
from torch import Tensor

from equiscope import labels
from equiscope.adapters import ase_structures as st
from equiscope.adapters.ase_result import FAILED, MEASURED, SKIPPED, AseResult, StructureRow
from equiscope.adapters.many import DTYPES, Engine, declared, joined, sizes, windows
from equiscope.adapters.peers import Peers
from equiscope.decomposition.collect import Collector
from equiscope.decomposition.noise import Known
from equiscope.decomposition.plan import Plan, make_plan
from equiscope.decomposition.pool import summarise
from equiscope.decomposition.result import Result
from equiscope.decomposition.samples import Samples
from equiscope.errors import InputError, ModelError, RandomModelError


@dataclass(frozen=True)
class AseSettings:
    """Everything that is the same for all structures: engine, plan, rotations, weights."""

    engine: Engine
    plan: st.AsePlan
    rotations: str
    cosets: float | None
    seed: int
    center: str
    group: str
    noise_samples: int
    weights: Mapping[str, float]
    precision: str = "auto"
    spectrum: bool | int = False
    most_atoms: int | None = None
    peers: Peers | None = None
    symmetry: Any = "rotation"

    def plan_of(self, outputs: Sequence[str], atoms: int = 1) -> Plan:
        """The plan of structures that have these outputs, so many atoms in all."""
        plan = self.plan
        # How each structure was turned is kept for tables of other benchmarks.
        turns = self.peers is not None
        declaration = declared(
            outputs, plan.labels, plan.fields, plan.features, self.weights, self.center, self.group, turns
        )
        forward = functools.partial(self.forward, outputs)
        # Rotations share a call only where the engine takes many structures: as many as a call may have atoms, which a
        # GPU decides by what it does.
        most = self.most_atoms or self.engine.most_atoms
        by_device = self.engine.device.type != "cpu" and self.most_atoms is None
        fold = 1 if self.engine.most_atoms is None or most is None else "auto" if by_device else max(1, most // atoms)
        return make_plan(
            declaration, forward, self.rotations, self.cosets, self.seed, spectrum=self.spectrum,
            symmetry=self.symmetry, fold=fold,
        )  # fmt: skip

    def forward(self, outputs: Sequence[str], engine: Engine, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The engine's answer to a turned batch, energies as they are measured."""
        answer = engine.answer(batch, outputs)
        if self.peers is not None:
            self.peers.keep(batch, answer)
        if self.plan.per_atom and "energy" in answer:
            answer["energy"] = answer["energy"] / sizes(batch).to(answer["energy"])
        return answer


def _precision(answer: Mapping[str, Tensor]) -> torch.dtype:
    """Single precision if a tensor among the answers is; energies come as Python floats from any calculator."""
    return torch.float32 if any(v.dtype == torch.float32 for v in answer.values()) else torch.float64


@dataclass
class _Kind:
    """Structures of one kind: their outputs and the figures of each."""

    outputs: tuple[str, ...]
    samples: list[Samples] = field(default_factory=list)
    known: Known = field(default_factory=Known)
    passes: float = 0.0


class AseRun:
    """Measures structures, those of one kind and periodicity together, and pools them at the end."""

    def __init__(self, design: AseSettings):
        self._design = design
        # Made here, so that a wrong centre, group, weight or design is an error of the call and not of every structure.
        self._plan = design.plan_of(design.plan.outputs)
        if design.peers is not None and self._plan.scheme is not None:
            raise InputError(f"exports (--export) are of rotations: leave out symmetry={self._plan.scheme.label!r}")
        self._kinds: dict[str, _Kind] = {}
        self._calls = 0
        self._dtype = DTYPES.get(design.precision, design.engine.dtype)
        most = design.engine.most_atoms
        self._most_atoms = most if most is None else design.most_atoms or most
        self._error: Exception | None = None
        self.rows: list[StructureRow] = []

    def measure(self, structures: Sequence[Atoms], clusters: Sequence[Any], on_error: str) -> Iterator[StructureRow]:
        """A row for every structure, in order; whatever goes wrong with one alone becomes its row."""
        for window in windows(structures, self._most_atoms):
            found: dict[int, StructureRow] = {}
            groups: dict[Any, list[int]] = {}
            for index in window:
                atoms = structures[index]
                groups.setdefault((self._kind_of(atoms), st.pbc_name(atoms)), []).append(index)
            for members in groups.values():
                found |= self._group(members, structures, clusters, on_error)
            rows = [found[index] for index in window]
            self.rows += rows
            yield from rows

    def _group(
        self, members: list[int], structures: Sequence[Atoms], clusters: Sequence[Any], on_error: str
    ) -> dict[int, StructureRow]:
        """Rows of structures that are measured in one call; where that fails, of each half of them."""
        start = time.perf_counter()
        own = [structures[i] for i in members]
        try:
            remarks = [st.check(atoms) for atoms in own]
            values = self._measure(members, own, [clusters[i] for i in members])
            status, message = (MEASURED, "") if values[0] else (SKIPPED, "no periodic cell with a volume, so no stress")
        except RandomModelError as error:
            named = " to ".join(f"{i} ({st.formula(structures[i])})" for i in sorted({members[0], members[-1]}))
            raise RandomModelError(f"structure {named}: {error}") from error
        except Exception as error:
            if len(members) > 1:
                half = len(members) // 2
                parts = (members[:half], members[half:])
                return {k: v for part in parts for k, v in self._group(part, structures, clusters, on_error).items()}
            if on_error == "raise":
                raise
            self._error = self._error or error
            values, remarks, status = [{}], [""], FAILED
            cause = error.__cause__ if isinstance(error, ModelError) else error
            message = " ".join(f"{type(cause).__name__}: {cause}".split())
        seconds = (time.perf_counter() - start) / len(members)
        return {
            index: StructureRow(
                id=index,
                name=str(atoms.info.get("name", "")),
                formula=st.formula(atoms),
                atoms=len(atoms),
                pbc=st.pbc_name(atoms),
                kind=self._kind_of(atoms),
                status=status,
                values=figures,
                seconds=seconds,
                remark=remark,
                message=message,
            )
            for index, atoms, figures, remark in zip(members, own, values, remarks, strict=True)
        }

    def _kind_of(self, atoms: Atoms) -> str:
        if not atoms.pbc.any():
            return "non-periodic"
        asked = any(st.kind(output) == "stress" for output in self._design.plan.outputs)
        return "periodic without volume" if asked and not st.has_stress(atoms) else "periodic"

    def _measure(self, members: list[int], own: Sequence[Atoms], clusters: Sequence[Any]) -> list[dict[str, float]]:
        design = self._design
        outputs = design.plan.outputs_of(own[0])
        if not outputs:
            return [{} for _ in own]
        kind = self._kinds.setdefault(self._kind_of(own[0]), _Kind(outputs))
        collector = Collector(design.engine, design.plan_of(outputs, sum(map(len, own))), design.noise_samples)
        if design.peers is not None:
            design.peers.expect(collector.plan, members)
        # One collector a group, so that one which fails half-way leaves nothing behind.
        collector.known = copy.deepcopy(kind.known)

        def batch_of(count: int, dtype: torch.dtype) -> dict[str, Any]:
            part = members[:count], own[:count], design.plan, clusters[:count]
            return joined(*part, dtype, design.engine.device, design.peers is not None)

        try:
            if self._dtype is None:
                self._dtype = _precision(collector.caller(design.engine, batch_of(1, torch.float64)))
            batch = batch_of(len(own), self._dtype)
            try:
                collector.run(batch)
            except ModelError as error:
                self._explain(collector, batch, error.__cause__)
                raise
        finally:
            self._calls += collector.caller.calls
        kind.known = collector.known
        kind.samples += collector.parts
        kind.passes += collector.passes * len(own)
        return _values(collector.parts[-1], design.plan.labels)

    def _explain(self, collector: Collector, batch: Mapping[str, Any], error: BaseException | None) -> None:
        """Say so if the calculator failed on a turned copy alone; anything else stays the error that it is."""
        try:
            collector.caller(self._design.engine, batch)
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
            calculator=self._design.engine.name,
            outputs=plan.outputs,
            labels=dict(plan.labels),
            energy_per_atom=plan.per_atom,
            units=plan.units.describe(),
            rotated=("positions", "cell", *(f.name for f in plan.fields)),
            not_rotated=fixed,
            notes=tuple(self._notes(structures, results, fixed)),
            tables=tuple(Samples.cat(kind.samples) for kind in kinds.values()),
        )

    def _pool(self, kinds: Sequence[_Kind], outputs: Sequence[str]) -> Result:
        """All structures of some kinds, in the order of their ids."""
        table = Samples.cat([part for kind in kinds for part in kind.samples], outputs)
        plan, settings = self._design.plan_of(outputs), self._plan.design.described(self._calls)
        if plan.scheme is not None:
            passes = sum(kind.passes for kind in kinds) / len(table)
            settings |= {"passes": int(passes) if passes.is_integer() else passes}
        table = table.take(torch.tensor(table.ids, device="cpu").argsort())
        last = max(kinds, key=lambda kind: kind.samples[-1].ids[-1]).known
        known = replace(last, stored=max(kind.known.stored for kind in kinds))
        return summarise(table, plan, known, settings, [])

    def _notes(self, structures: Sequence[Atoms], results: Mapping[str, Result], fixed: Sequence[str]) -> list[str]:
        notes = []
        if fixed:
            notes.append(
                f"structure fields that were not rotated: {', '.join(fixed)}; if the calculator reads one as a vector "
                "or tensor, say rotate={'name': '1o'}"
            )
        for output, source in self._design.plan.labels.items():
            if meaning := labels.kind(st.kind(output), source):
                notes.append(f"label {source!r} is taken as {meaning}: {labels.REMARKS[meaning]}")
        stored = st.STORED in self._design.plan.labels.values()
        stale = [i for i, a in enumerate(structures) if stored and st.moved_since(a)]
        if stale:
            notes.append(
                f"labels of structures {stale[:5]}{', …' if stale[5:] else ''} were stored before their atoms moved: "
                "ASE itself drops them then; if the structure was turned or displaced they are another's"
            )
        if note := getattr(self._design.engine, "note", ""):
            notes.append(note)
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


def _values(samples: Samples, labels: Mapping[str, str]) -> list[dict[str, float]]:
    """The columns of each structure."""
    values: list[dict[str, float]] = [{} for _ in samples.ids]
    for name, own in samples.figures.items():
        table = zip(own.equivariance.tolist(), own.square.tolist(), own.total.tolist(), strict=True)
        for row, (equivariance, square, total) in zip(values, table, strict=True):
            row[f"{name}_rms"] = math.sqrt(max(equivariance, 0.0))
            row[f"{name}_relative"] = equivariance / square if square > 0 else math.nan
            if name in labels:
                row[f"{name}_percent"] = 100 * equivariance / total if total > 0 else math.nan
                row[f"{name}_total"] = total
    return values
