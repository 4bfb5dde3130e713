"""The paper's report: one page through the claims of its abstract, our numbers beside its numbers, a plain verdict."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

from equiscope import records as record_files
from equiscope.report import paper_figures
from equiscope.report.claims import Claim, claims
from equiscope.report.evidence import TASKS, Evidence, gather
from equiscope.report.page import data_uri, page_environment
from equiscope.report.sentences import share_text
from equiscope.report.style import r2_text
from equiscope.report.verdicts import AGREES, DIFFERS, UNDECIDED, Row

#: How each verdict looks on the page.
CLASSES = {AGREES: "agrees", DIFFERS: "differs", UNDECIDED: "open"}
RUN_COLUMNS = ("task", "run", "model", "parameters", "steps", "share of the loss at the end", "R²", "symmetric")
_CURVE = ("percent", "low", "high", "r2", "total", "twirled", "equivariance", "floor")


def build_paper(folders: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> Path:
    """Write ``paper.html``, ``figures/*.png`` and ``.pdf``, ``tables/*.csv`` into ``out``; the path of the page.

    Everything comes from the records of the runs, and the page holds all it shows: no network, no other file.

    Raises:
        InputError: if no run has measurements.
        IntegrityError: for damaged records.
    """
    evidence, place = gather(folders), Path(out)
    found = claims(evidence)
    panels = paper_figures.save(evidence, place / "figures")
    _save_tables(evidence, found, place / "tables")
    page = page_environment().get_template("paper.html.j2").render(**_content(evidence, found, panels))
    target = place / "paper.html"
    record_files.write_atomically(target, page.encode())
    return target


def _content(evidence: Evidence, found: Sequence[Claim], panels: Sequence[paper_figures.Panel]) -> dict[str, Any]:
    return {
        "claims": found,
        "classes": CLASSES,
        "counts": [(verdict, sum(claim.verdict == verdict for claim in found)) for verdict in CLASSES],
        "tasks": TASKS,
        "panels": {
            claim.key: [(panel, data_uri(panel.png)) for panel in panels if panel.claim == claim.key] for claim in found
        },
        "run_columns": RUN_COLUMNS,
        "runs": run_rows(evidence),
        "left_out": evidence.left_out,
        "absent": [words for task, words in TASKS.items() if not evidence.of(task, None)],
    }


def run_rows(evidence: Evidence) -> list[tuple[str, ...]]:
    """A row of :data:`RUN_COLUMNS` for each run."""
    return [
        (run.task, run.name.split("/", 1)[-1], run.model, f"{run.parameters:,}", f"{run.last_step:,}",
         share_text(run.result), r2_text(float(run.result.get("r2") or "nan")), "yes" if run.symmetric else "no")
        for run in evidence.runs
    ]  # fmt: skip


def _save_tables(evidence: Evidence, found: Sequence[Claim], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    columns = [field.name for field in fields(Row)]
    rows = [(claim.key, claim.title, *astuple(row)) for claim in found for row in claim.rows]
    _write(folder / "claims.csv", ("claim", "title", *columns), rows)
    verdicts = [(claim.key, claim.title, claim.verdict, claim.summary, "; ".join(claim.missing)) for claim in found]
    _write(folder / "verdicts.csv", ("claim", "title", "verdict", "summary", "runs that would decide it"), verdicts)
    _write(folder / "runs.csv", RUN_COLUMNS, run_rows(evidence))
    curves = [
        (run.task, run.name, name, int(step), *(float(v) for v in values))
        for run in evidence.runs
        for name, c in run.told.curves.items()
        for step, *values in zip(c.step, *(getattr(c, column) for column in _CURVE), strict=True)
    ]
    header = ("task", "run", "probe", "step", *_CURVE)
    _write(folder / "curves.csv", header, curves)


def _write(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    record_files.write_atomically(path, text.getvalue().encode())
