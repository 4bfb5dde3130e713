"""What a measurement of an ASE calculator found: one Result per kind of structure, and a row for every structure."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from equiscope import records
from equiscope.adapters import ase_structures as st
from equiscope.decomposition import show
from equiscope.decomposition.result import Result
from equiscope.decomposition.samples import Samples
from equiscope.errors import InputError
from equiscope.words import cell
from equiscope.writing import write_atomically

UNITS = {"energy": "eV", "forces": "eV/Å", "stress": "eV/Å^3"}
MEASURED, FAILED, SKIPPED = "measured", "failed", "skipped"
FIXED_COLUMNS = ("id", "name", "formula", "atoms", "pbc", "kind", "status")
LAST_COLUMNS = ("seconds", "remark", "message")


@dataclass(frozen=True)
class StructureRow:
    """One structure's figures.

    Attributes:
        id: position in the input, from 0. name: ``atoms.info["name"]``, if any. formula, atoms: composition and size.
        pbc: TTT, TTF, …; kind: the group whose Result it belongs to; status: "measured", "failed" or "skipped".
        values: for each output o: ``o_rms``, the root of the equivariance error, per component, in eV (per atom where
            energies are), eV/Å, eV/Å^3; ``o_relative``, the equivariance error / mean |f|^2; and with labels
            ``o_percent`` of the total loss and ``o_total``, the loss. Outputs a structure lacks are left out.
        seconds: spent on it. remark: what is unusual (left-handed cell). message: why it was not measured.
    """

    id: int
    name: str
    formula: str
    atoms: int
    pbc: str
    kind: str
    status: str
    values: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    remark: str = ""
    message: str = ""

    def flat(self) -> dict[str, Any]:
        """One dict with the values beside the rest."""
        plain = {k: getattr(self, k) for k in (*FIXED_COLUMNS, *LAST_COLUMNS)}
        return {**plain, **self.values}

    def __str__(self) -> str:
        return f"{self.id} {self.name or self.formula}"


def columns(outputs: Sequence[str], labels: Mapping[str, str]) -> list[str]:
    """The columns of the table, in order."""
    middle = []
    for output in outputs:
        kinds = ("rms", "relative", "percent", "total") if output in labels else ("rms", "relative")
        middle += [f"{output}_{kind}" for kind in kinds]
    return [*FIXED_COLUMNS, *middle, *LAST_COLUMNS]


class RowWriter:
    """Writes rows to a CSV file as they are made, each flushed, so that a stopped run keeps what it had.

    A table that is there already is kept beside it, as ``NAME.1``, ``NAME.2`` and so on. Where the disk refuses a row,
    a warning says so and the measurement goes on without the table.
    """

    def __init__(self, path: str | Path | None, names: Sequence[str]):
        self._path, self._names = path, list(names)
        self._file: IO[str] | None = None

    def __enter__(self) -> RowWriter:
        if self._path is not None:
            try:
                self._keep(Path(self._path))
                self._file = open(self._path, "x", newline="", encoding="utf-8")
            except OSError as error:
                raise InputError(f"cannot write the table to {str(self._path)!r}: {error.strerror}") from error
            self._writer = csv.DictWriter(self._file, self._names, restval="")
            self._writer.writeheader()
            self._file.flush()
        return self

    def write(self, row: StructureRow) -> None:
        if self._file is None:
            return
        try:
            self._writer.writerow({name: cell(value) for name, value in row.flat().items()})
            self._file.flush()
        except OSError as error:
            self._file = None
            warnings.warn(f"{str(self._path)!r} takes no more rows ({error.strerror}): it ends before {row}")

    def _keep(self, path: Path) -> None:
        if not path.exists() and not path.is_symlink():
            return
        kept = next(p for n in itertools.count(1) if not os.path.lexists(p := path.with_name(f"{path.name}.{n}")))
        os.rename(path, kept)
        warnings.warn(f"the table that was in {str(path)!r} is kept as {str(kept)!r}")

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


@dataclass(frozen=True)
class AseResult:
    """How far a calculator is from rotation symmetry, over all structures and one by one.

    Attributes:
        results: one :class:`equiscope.Result` per kind of structure ("periodic", "non-periodic"), and "all" of them
            (over the outputs every structure has) where there are several kinds.
        rows: a row for every structure, in the order given, measured or not.
        calculator, outputs, labels: what was measured, and output -> where its labels came from.
        energy_per_atom: whether energies were divided by the number of atoms.
        units: of the results, and those the file was converted from.
        rotated: structure fields that turned; not_rotated: fields that a calculator may read and that did not.
        notes: what a reader must know.
        tables: the figures behind them of all structures of a kind; not stored.
    """

    results: Mapping[str, Result]
    rows: tuple[StructureRow, ...]
    calculator: str
    outputs: tuple[str, ...]
    labels: Mapping[str, str]
    energy_per_atom: bool
    units: Mapping[str, str]
    rotated: tuple[str, ...]
    not_rotated: tuple[str, ...]
    notes: tuple[str, ...] = ()
    tables: tuple[Samples, ...] = field(default=(), repr=False)

    @property
    def result(self) -> Result:
        """The Result over all structures."""
        return self.results["all"] if "all" in self.results else next(iter(self.results.values()))

    @property
    def unmeasured(self) -> tuple[StructureRow, ...]:
        """Structures without figures, with the reason in ``message``."""
        return tuple(r for r in self.rows if r.status != MEASURED)

    def worst(self, count: int = 5, by: str | None = None) -> list[StructureRow]:
        """The structures with the largest value of column ``by`` (default: ``forces_rms``, or the first output's).

        Raises:
            InputError: for a column that does not exist.
        """
        by = by or ("forces_rms" if "forces" in self.outputs else f"{self.outputs[0]}_rms")
        if by not in set(columns(self.outputs, self.labels)) - set(FIXED_COLUMNS) - {"remark", "message"}:
            raise InputError(f"there is no column {by!r} to rank by: {columns(self.outputs, self.labels)}")
        ranked = [r for r in self.rows if not math.isnan(r.flat().get(by, math.nan))]
        return sorted(ranked, key=lambda r: -r.flat()[by])[:count]

    def unit(self, column: str) -> str:
        """The unit of a column of the table: ``eV/Å`` of forces_rms, ``%`` of a percent, none of a ratio."""
        output, _, figure = column.rpartition("_")
        unit = UNITS.get(st.kind(output), "") + (" per atom" if output == "energy" and self.energy_per_atom else "")
        return {"rms": unit, "percent": "%", "total": f"({unit})²" if unit else ""}.get(figure, "")

    def to_csv(self, path: str | Path) -> None:
        """The table of structures; see :class:`StructureRow` for the columns and their units."""
        with RowWriter(path, columns(self.outputs, self.labels)) as writer:
            for row in self.rows:
                writer.write(row)

    def to_dict(self) -> dict[str, Any]:
        """Plain types for storage."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "tables"}
        plain["results"] = {k: v.to_dict() for k, v in self.results.items()}
        plain["rows"] = [r.flat() for r in self.rows]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in plain.items()}

    def to_json(self, path: str | Path) -> None:
        """Everything of :meth:`to_dict`, with null for what does not exist (percent without labels)."""
        write_json(path, self.to_dict())

    def __str__(self) -> str:
        first = self.result
        moves = "rotations" if first.symmetry == "rotation" else f"passes ({first.symmetry})"
        lines = [f"{self.calculator}: {first.samples} structures x {first.passes:g} {moves}"]
        for kind, result in self.results.items():
            lines.append(f"{kind} ({result.samples}):")
            lines += [f"  {name}: {self._describe(name, result)}" for name in result.outputs]
            lines += [f"  {line}" for line in show.of_symmetries(result)]
            if len(self.labels) > 1:
                weights = ", ".join(f"{n} {result.outputs[n].weight:g}" for n in result.outputs if n in self.labels)
                lines.append(f"  weighted together ({weights}): {str(result).splitlines()[0]}")
        by = "forces_rms" if "forces" in self.outputs else f"{self.outputs[0]}_rms"
        worst = ", ".join(f"{r} ({f'{r.values[by]:.3g} {self.unit(by)}'.strip()})" for r in self.worst(3, by))
        lines.append(f"worst by {by}: {worst}")
        lines += [f"{r.status}: structure {r}: {r.message}" for r in self.unmeasured[:10]]
        if len(self.unmeasured) > 10:
            lines.append(f"… and {len(self.unmeasured) - 10} more that were not measured")
        return "\n".join([*lines, *(f"  note: {n}" for n in self.notes)])

    def _describe(self, name: str, result: Result) -> str:
        own = result.outputs[name]
        scale = " per component" if name != "energy" else ""
        rms = f"{math.sqrt(max(own.equivariance, 0)):.3g} {self.unit(f'{name}_rms')}".strip()
        text = f"{rms} rms{scale}, {own.relative_equivariance:.3g} of mean |f|²"
        if name in self.labels:
            text += f", {own.percent:.3g} % of the loss (R² {own.r2:.2f})"
            text += f"; the RMSE would be {said}" if (said := show.ratios(own)) else ""
        if not own.distinguishable:
            text += "; not distinguishable from numerical noise"
        return text


def write_json(path: str | Path, plain: Mapping[str, Any]) -> None:
    """Plain types as a JSON file, null for what is not finite.

    Raises:
        InputError: the file cannot be written.
    """
    text = json.dumps(records.plain(plain, "result"), ensure_ascii=False, indent=1, allow_nan=False)
    try:
        write_atomically(path, (text + "\n").encode())
    except OSError as error:
        raise InputError(f"cannot write the result to {str(path)!r}: {error.strerror}") from error
